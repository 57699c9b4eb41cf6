"""What strangers may send, and what a poor machine may lack, is told in a line: each door that was open once."""

from __future__ import annotations

import errno
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from blender_jobs import orders
from compiler.blender.process import Instance, InstanceOptions, _explain_import
from compiler.errors import Incomplete, JobBroken
from compiler.live.groups import Groups, TooManyGroups
from compiler.live.options import QueueLimits
from compiler.terminal import plain
from compiler.verification.findings import look_around
from loaders._decode import decode_npy
from loaders._tee import recording
from loaders._tee.client import Address, ConnectionLost, TeeConnection
from loaders.errors import LiveError, SampleError, ShardError
from loaders.files import open_regular, read_regular
from loaders.manifest import FILE_NAME, Manifest, ManifestError
from loaders.tarstream import read_samples, sample_record
from tests.commands import COMMAND, run
from tests.hostile import ESCAPE, _member, _npy, _png
from tests.live_tees import Compiler
from tests.planned_dataset import Recipe, make
from tests.raw_servers import CHUNKED, chunk, serving, telling
from tests.scripts import fakes


def test_a_text_is_one_plain_line() -> None:
    assert plain(ESCAPE).isprintable()
    assert plain("Würfel 1\t2") == "Würfel 1\t2"
    assert plain("a\nb\x1b[2J\u202e\udcff") == "a\\nb\\x1b[2J\\u202e\\udcff"


def test_nothing_is_printed_but_by_the_one_place() -> None:
    """The kind: a new command that prints by itself would let escapes through."""
    root = Path(__file__).parents[2] / "compiler"
    printing = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(word in path.read_text() for word in ("click.echo(", "click.secho(", "print(", '.write(f"'))
    }
    assert printing == {"terminal.py", "cli/progress.py", "blender/process.py"}


def test_file_names_fake_no_verdict(tmp_path: Path) -> None:
    make(tmp_path, Recipe(shards=1))
    (tmp_path / ESCAPE).touch()
    said = run("verify", tmp_path, "--quiet")
    assert said.returncode == 0
    assert len(said.stdout.splitlines()) == 2
    assert "\\x1b]0;owned\\x07" in said.stdout
    assert "\x1b" not in said.stdout


def test_strangers_among_the_sources_are_named(tmp_path: Path) -> None:
    manifest = make(tmp_path / "out", Recipe(shards=1))
    manifest = replace(manifest, provenance={"job": {"sources": {"job.py": "0" * 64, "link.py": "0" * 64}}})
    source = tmp_path / "out" / "source"
    (source / "__pycache__").mkdir(parents=True)
    for name in ("job.py", "other.py", "__pycache__/job.cpython-311.pyc"):
        (source / name).touch()
    (source / "link.py").symlink_to("/etc/passwd")
    (source / "loop").symlink_to(source)
    named = ["source/__pycache__/job.cpython-311.pyc", "source/link.py", "source/loop", "source/other.py"]
    assert look_around(tmp_path / "out", manifest).unknown == named


@pytest.mark.parametrize(
    "shape", ["(2**62,)", "(0, 10**19)", "(4611686018427387904, 4611686018427387904, 0)", "(1,)*70"]
)
def test_an_array_of_any_shape_is_a_sample_error(shape: str) -> None:
    sides = eval(shape)
    for sized in (bytes(16), b""):
        content = _npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {sides!r}, }}")[:-16] + sized
        with pytest.raises(SampleError):
            decode_npy(content)


def test_files_that_never_end_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"regular file|Is a directory"):
            open_regular(path)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes, more than 4"):
        read_regular(tmp_path / "file", 4)


def test_a_manifest_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    os.truncate(tmp_path / FILE_NAME, 200 << 30)
    with pytest.raises(ManifestError, match="more than 1073741824"):
        Manifest.load(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"[" + b"[]," * 5_000_000 + b"[]]")
    with pytest.raises(ManifestError, match="holds more than 8388608 values"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", ["k\x1b[2J.png", "k.p\nng", "\x07.png"])
def test_a_members_name_is_printable(name: str) -> None:
    header = tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    with pytest.raises(ValueError, match="is not printable"):
        list(read_samples(io.BytesIO(header)))


def bomb(folder: Path) -> Manifest:
    """Return a dataset whose first picture is far larger than the schema says."""
    make(folder, Recipe(shards=2, samples_per_shard=3, passes=("depth",)))
    _member("png", _png(13_000, 13_000))(folder)
    return Manifest.load(folder)


@pytest.mark.parametrize("command", [["verify"], ["show", "--count", "2"]])
def test_an_image_of_another_size_than_the_schemas_is_not_decoded(command: list[str], tmp_path: Path) -> None:
    bomb(tmp_path / "out")
    program = "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); " + (
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )  # a small process starts it: a child's peak begins with that of its parent
    line = [sys.executable, "-c", program, str(COMMAND), command[0], str(tmp_path / "out"), *command[1:]]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (2, 3), done.stderr
    assert "13000x13000" in done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) < 300 << 10


CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize("case", CLOSED)
def test_closed_streams_end_nothing(case: str, tmp_path: Path) -> None:
    """As cron and containers start programs."""
    line = f"{sys.executable} {fakes.SCRIPT} build cube --shards 1 --samples-per-shard 3 --out {tmp_path / 'out'}"
    done = subprocess.run(["bash", "-c", f"{line} {CLOSED[case]}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Manifest.load(tmp_path / "out").samples == 3
    failing = subprocess.run(
        ["bash", "-c", f"{COMMAND} verify {tmp_path / 'none'} {CLOSED[case]}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failing.returncode == 2
    assert ("Error: no dataset" in failing.stderr) == (case in ("stdin", "stdout"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["verify DIR --quiet", "verify DIR --quiet --json", "--help", "diff DIR DIR"])
def test_a_full_stdout_is_one_line(words: str, tmp_path: Path) -> None:
    make(tmp_path, Recipe(shards=1))
    line = f"{COMMAND} {words.replace('DIR', str(tmp_path))} > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_full_scratch_disk_is_not_the_jobs_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that was cut short there is; the job, which then fails, is not blamed, and the same command goes on."""
    instance = object.__new__(Instance)
    instance._scratch, instance.options = str(tmp_path), InstanceOptions(1, 60)
    failed = orders.to_head(orders.JobFailed("the PNG file is cut short"))
    monkeypatch.setattr("compiler.blender.process.wire.receive", lambda _: (failed, b""))
    instance._process = SimpleNamespace(stdout=None)  # type: ignore[assignment]
    with pytest.raises(JobBroken):
        instance._receive(orders.Done)

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(Incomplete, match=f"no room is left in {tmp_path.parent}") as caught:
        instance._receive(orders.Done)
    assert "TMPDIR" in caught.value.hint
    assert caught.value.exit_code == 1


def groups(count: int) -> Groups:
    return Groups(QueueLimits(), max_groups=count)


def test_names_that_come_and_go_lock_nobody_out() -> None:
    tee = groups(4)
    honest = tee.join("honest", lambda: None)
    tee.offer(b"sample", lambda: False)
    tee.take(honest)
    tee.handed(honest)
    tee.leave(honest)
    for number in range(50):
        tee.leave(tee.join(f"name{number}", lambda: None))
    assert "honest" in [group["group"] for group in tee.status()["groups"]]
    members = [tee.join(f"here{number}", lambda: None) for number in range(4)]
    with pytest.raises(TooManyGroups):
        tee.join("one more", lambda: None)
    assert len(members) == 4


ENDLESS = {
    "trailers": b"0\r\n" + b"X: y\r\n" * 9,
    "a chunk's line": b"1;" + b"x" * 300,
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_a_tee_sends_beside_its_samples_has_an_end(case: str) -> None:
    """It comes in drops, each soon enough; the stream ends all the same."""
    plan = Recipe().plan
    status = {"plan_digest": plan.digest, "schema": {"members": {"json": {}}}, "name": "cubes", "plan": plan.identity()}
    stop = threading.Event()

    def stream(connection: socket.socket, _: str) -> None:
        connection.sendall(CHUNKED + chunk(sample_record("000000-000000", {"json": b"{}"})))
        while not stop.is_set():
            connection.sendall(ENDLESS[case])
            time.sleep(0.02)

    def watch(silence_s: float) -> None:
        if silence_s > 5:
            raise TimeoutError

    with serving(telling({**status, "shards_wanted": 1}, stream)) as address:
        began = time.monotonic()
        try:
            with (
                pytest.raises((LiveError, ConnectionLost, ShardError)),
                TeeConnection(Address.parse(address), None, 5, watch) as tee,
            ):
                list(tee.samples(tee.status(), "group", None, 1 << 20))
        finally:
            stop.set()
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", [FILE_NAME, "recording-dataset.json.new", ".recording.lock", "recording-x.tar.part"])
def test_a_recording_is_not_written_through_links(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(ShardError, match="is a link"):
        recording.check_recording(tmp_path / "rec")
    assert (tmp_path / "precious").read_bytes() == b"precious"


TOKEN = "a-token-of-sixteen-signs"


@pytest.mark.parametrize("given", ["environment", "file", "word"])
def test_a_token_that_was_given_is_not_told(given: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    ways: dict[str, tuple[list[object], dict[str, str]]] = {
        "environment": ([], {"BLENDSHARD_LIVE_TOKEN": TOKEN}),
        "file": (["--live-token-file", tmp_path / "token"], {}),
        "word": (["--live-token", TOKEN], {}),
    }
    words, environment = ways[given]
    ready = tmp_path / "ready.json"
    line = ["build", "cube", "--shards", 1, "--samples-per-shard", 3, "--live", "http://127.0.0.1:0", *words]
    line += ["--out", tmp_path / "out", "--live-ready-file", ready]
    done = subprocess.run(
        [sys.executable, fakes.SCRIPT, *map(str, line)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(ready.read_bytes())["token"] == TOKEN
    assert "with your token" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_memory_that_is_short_is_told_as_that() -> None:
    for problem in ("libbpy.so: failed to map segment from shared object", "bpy: cannot allocate memory"):
        message, hint = _explain_import(orders.Hello("", "", "", "3.11.2", "", "", problem=problem), None)
        assert "not enough memory" in message
        assert "ulimit -v" in hint


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 403),
    ],
)
def test_a_web_page_gets_no_samples(headers: dict[str, str], status: int) -> None:
    """A browser on this machine would fetch them for whoever made the page."""
    with Compiler().listening() as compiler:
        place = urlsplit(compiler.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
        connection.request("GET", "/status", headers=headers)
        assert connection.getresponse().status == status
        connection.close()
