"""Nothing is lost: killed, interrupted or starved, a build goes on where it was, and the bytes are the same."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from compiler.build import Report
from compiler.cli.progress import Lines
from compiler.rendering.events import SampleDone
from compiler.rendering.pool import PoolStatus
from compiler.rendering.retry import LONGEST_BACKOFF_S, backoff_s
from compiler.storage.journal import JOURNAL_SUFFIX, read_entries
from loaders.manifest import FILE_NAME, Manifest
from loaders.tarstream import TarStreamError, read_samples
from tests.commands import TINY, digests, ok, run, start
from tests.in_blender import needs_bpy
from tests.scripts import fakes

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 3
"""Of each episode of the fake job."""

Done = subprocess.CompletedProcess[str]


def command(out: Path, *more: object, shards: int = 4, samples: int = 30) -> list[str]:
    """Return a build by the stand-in."""
    sizes = ["--shards", shards, "--samples-per-shard", samples, "--size", "8x8"]
    return [sys.executable, fakes.SCRIPT, "build", "cube", *map(str, [*sizes, "--out", out, *more])]


def fake(out: Path, *more: object, shards: int = 4, samples: int = 30, **faults: str) -> Done:
    """Run a build by the stand-in to its end."""
    line = command(out, "--json", *more, shards=shards, samples=samples)
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **faults}, timeout=60, check=False)


def begin(out: Path, *more: object, shards: int = 4, samples: int = 30, **faults: str) -> subprocess.Popen[str]:
    """Start a build by the stand-in, in a process group of its own."""
    line = command(out, *more, shards=shards, samples=samples)
    pipe, environment = subprocess.PIPE, {**os.environ, **faults}
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)


def report(done: Done, code: int = 0) -> dict[str, Any]:
    """Return what the build printed, which must have ended like that."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def state(out: Path) -> dict[str, Any]:
    """Return all that a dataset is: its manifest, without where its samples were rendered."""
    manifest = json.loads((out / FILE_NAME).read_bytes())
    return {name: value for name, value in manifest.items() if name not in ("provenance", "manifest_sha256")}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed dataset."""
    out = tmp_path_factory.mktemp("calm") / "out"
    report(fake(out))
    return out


def same(out: Path, calm: Path) -> bool:
    """Whether every byte is as in the undisturbed dataset, and nothing else is left of what happened."""
    known = {FILE_NAME, *digests(calm), "failures.jsonl", *(path.name for path in calm.iterdir())}
    return (
        digests(out) == digests(calm) and state(out) == state(calm) and {path.name for path in out.iterdir()} <= known
    )


def standing(out: Path) -> int:
    """Return how many samples stand whole on the disk: in finished shards, and in parts by their journals."""
    if not (out / FILE_NAME).exists():
        return 0
    manifest, found = Manifest.load(out), 0
    known = {shard.name for shard in manifest.shards}
    for journal in out.glob(f"*{JOURNAL_SUFFIX}"):
        if journal.name.removesuffix(JOURNAL_SUFFIX) not in known:
            found += sum(len(entry.keys) for entry in read_entries(journal, manifest.plan_digest))
    return found + manifest.samples


def unsealed(out: Path) -> int:
    """Return the most samples of a part that its journal does not vouch for: what a kill may cost an instance."""
    most = 0
    for part in out.glob("*.tar.part"):
        written = 0
        with part.open("rb") as file, suppress(TarStreamError):
            for _ in read_samples(file, whole=("png", "json", "keypoints.npy")):
                written += 1
        journal = part.with_suffix(JOURNAL_SUFFIX)
        sealed = read_entries(journal, Manifest.load(out).plan_digest) if journal.exists() else []
        most = max(most, written - sum(len(entry.keys) for entry in sealed))
    return most


def children(pid: int) -> list[int]:
    """Return the processes that it has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def kill(process: subprocess.Popen[str], how: int) -> None:
    """Kill one instance and then the compiler, the compiler, or its whole group."""
    if how == 0:
        for instance in children(process.pid)[-1:]:
            with suppress(ProcessLookupError):
                os.kill(instance, signal.SIGKILL)
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        (os.killpg if how == 2 else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_that_was_whole(tmp_path: Path) -> None:
    """Of an instance, of the compiler, of its group: whole episodes only grow, and the dataset is the undisturbed one.

    A hundred kills, or as many as 40 s hold.
    """
    size, chance = {"shards": 40, "samples": 150}, random.Random(7)
    out, stood, rest, end = tmp_path / "out", 0, 0, time.monotonic() + 40
    for number in range(100):
        if time.monotonic() > end and rest > 30:
            break  # this machine is slow or busy
        process = begin(out, "--instances", 2, **size)
        if chance.random() < 0.8:
            wait(lambda: standing(out) > stood or process.poll() is not None)  # noqa: B023  (it is over by then)
        time.sleep(chance.uniform(0, 0.25))
        kill(process, number % 3)
        assert standing(out) >= stood, "whole episodes were lost"
        assert unsealed(out) <= FRAMES, "more than an episode of an instance was lost"
        stood, rest = standing(out), rest + bool(list(out.glob("*.part")))
    assert rest > 30, "few kills came while shards were written"
    result = report(fake(out, "--instances", 2, **size))
    assert result["samples_kept"] + result["samples_rendered"] >= size["shards"] * size["samples"] - stood
    report(fake(tmp_path / "calm", "--instances", 2, **size))
    assert same(out, tmp_path / "calm")


@pytest.mark.slow
def test_kills_in_the_middle_of_real_shards_change_no_byte(tmp_path: Path) -> None:
    """One long shard an instance, so that none could ever be finished between two kills."""
    plan = ["cube", *TINY, "--shards", 2, "--samples-per-shard", 100]
    out, chance, stood = tmp_path / "out", random.Random(3), 0
    for _ in range(3):
        process = start(*plan, "--out", out)
        wait(lambda: standing(out) > stood)  # noqa: B023  (it is over by then)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert standing(out) >= stood
        stood = standing(out)
    assert stood
    result = json.loads(ok(*plan, "--out", out, "--json"))
    assert result["samples_kept"] + result["samples_rendered"] <= 200
    ok(*plan, "--out", tmp_path / "calm")
    assert digests(out) == digests(tmp_path / "calm")
    assert state(out) == state(tmp_path / "calm")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_keeps_whole_episodes_and_the_next_run_says_so(sign: signal.Signals, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begin(out, "--instances", 2)
    wait(lambda: standing(out) >= 2 * FRAMES)
    process.send_signal(sign)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in said
    stood = standing(out)
    finished = Manifest.load(out).samples
    again = fake(out)
    result = report(again)
    assert (result["samples_kept"], result["samples_rendered"]) == (stood - finished, 120 - stood)
    assert ("samples of an earlier run" in again.stderr) == (stood > finished)
    assert same(out, calm)


def test_under_nohup_a_terminal_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    process = begin(tmp_path / "out", FAKE_COMPILER="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    wait(lambda: standing(tmp_path / "out") > 0)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_terminal_that_goes_away_is_a_clean_stop(calm: Path, tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and writing to the terminal fails from then on."""
    out = tmp_path / "out"
    pid, terminal = pty.fork()
    if pid == 0:
        line = command(out)
        os.execv(line[0], line)
    wait(lambda: standing(out) > 0)
    os.close(terminal)
    wait(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    stood = standing(out)
    assert 0 < stood < 120
    assert report(fake(out))["samples_rendered"] == 120 - stood
    assert same(out, calm)


@pytest.mark.parametrize("stream", ["stderr", "both"])
def test_a_reader_that_leaves_does_not_end_the_build(stream: str, calm: Path, tmp_path: Path) -> None:
    """As in ``compile-dataset ... 2>&1 | head -1``."""
    out, (reading, writing) = tmp_path / "out", os.pipe()
    other = writing if stream == "both" else subprocess.DEVNULL
    process = subprocess.Popen(command(out), stdout=other, stderr=writing)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    code = process.wait(30)
    assert code == (1 if stream == "both" else 0), "a result that nobody read is no success"
    assert same(out, calm)


DYING = "episode == 13 and frame == 2 and os.{}"
"""Code that fails in the second frame of the fourth episode of shard 1."""


def failures_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


def test_poison_costs_its_shard_alone_and_what_was_whole_of_it_is_kept(calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "daten satz ä"
    done = fake(out, FAKE_SAMPLE=DYING.format("abort()") + " or episode == 2 and print('innocent')")
    result = report(done, code=1)
    assert (result["shards_done"], result["failures"], result["restarts"]) == (3, 3, 2)
    assert "episode 13 was tried 3 times; the last instance died of SIGABRT" in done.stderr
    noted = failures_of(out)
    assert [entry["what"] for entry in noted] == ["instance lost", "instance lost", "shard given up"]
    assert [entry["attempt"] for entry in noted] == [1, 2, 3]
    assert {(entry["shard"], entry["episode"], entry["reason"]) for entry in noted} == {(1, 13, "died of SIGABRT")}
    replay = f"compile-dataset replay {shlex.quote(str(out))} --episode 13"
    assert {entry["replay"] for entry in noted} == {replay}
    assert shlex.split(replay)[2] == str(out)
    assert replay in done.stderr
    healthy = report(fake(out))
    assert (healthy["samples_kept"], healthy["samples_rendered"]) == (9, 21)
    assert same(out, calm)


def test_skipped_poison_is_listed_and_tried_again(calm: Path, tmp_path: Path) -> None:
    out, poison = tmp_path / "out", DYING.format("abort()")
    done = fake(out, "--on-poison", "skip", FAKE_SAMPLE=poison)
    keys = [f"000001-{at:06d}" for at in (9, 10, 11)]
    assert report(done)["skipped"] == dict.fromkeys(keys, "died of SIGABRT")
    assert "episode 13 skipped" in done.stderr
    manifest = Manifest.load(out)
    assert (manifest.skipped, manifest.incomplete) == (dict.fromkeys(keys, "died of SIGABRT"), {1})
    assert [shard.samples for shard in manifest.shards] == [30, 27, 30, 30]
    with (out / manifest.shards[1].name).open("rb") as file:
        assert not {sample.key for sample in read_samples(file)} & set(keys)
    assert failures_of(out)[-1]["what"] == "episode skipped"
    again = fake(out, "--attempts", 1, FAKE_SAMPLE=poison)
    assert report(again, code=1)["samples_rendered"] == 9 + 1, "the shard is not taken for done"
    assert Manifest.load(out) == manifest, "the incomplete shard is there until a whole one is"
    assert report(fake(out))["skipped"] == {}
    assert same(out, calm)


def test_a_build_that_is_cut_off_behind_a_skipped_episode_goes_on_behind_it(calm: Path, tmp_path: Path) -> None:
    out, poison = tmp_path / "out", DYING.format("abort()") + " or episode == 17 and time.sleep(60)"
    process = begin(out, "--on-poison", "skip", "--attempts", 1, FAKE_SAMPLE=poison)
    wait(lambda: standing(out) == 120 - 3 * FRAMES)
    kill(process, 1)
    result = report(fake(out, "--on-poison", "skip", FAKE_SAMPLE=DYING.format("abort()")))
    assert (result["samples_rendered"], result["restarts"], len(result["skipped"])) == (9, 0, 3)
    report(fake(out))
    assert same(out, calm)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_where_the_scene_is_reused_the_shard_is_the_unit(policy: str, tmp_path: Path) -> None:
    """It begins anew after a loss, is given up when that was tried enough, and is never left incomplete."""
    out = tmp_path / "out"
    done = fake(out, "--on-poison", policy, REUSE="1", FAKE_SAMPLE=DYING.format("abort()"))
    result = report(done, code=1)
    assert (result["restarts"], result["shards_done"], result["skipped"]) == (2, 3, {})
    assert not list(out.glob("*.part"))
    assert report(fake(out, REUSE="1"))["samples_rendered"] == 30


def test_instances_that_die_at_once_are_given_time(calm: Path, tmp_path: Path) -> None:
    """Every start but each fourth fails; neither an episode nor a shard is given up for that."""
    out = tmp_path / "out"
    dying = (
        f"log = open({str(tmp_path / 'starts')!r}, 'a'); log.write('.'); log.close(); "
        f"os.path.getsize({str(tmp_path / 'starts')!r}) % 4 in (2, 3) and os._exit(9)"
    )
    done = fake(out, "--instances", 1, "--recycle", 20, FAKE_START=dying)
    assert report(done)["restarts"] >= 2
    assert "an instance did not start" in done.stderr
    assert same(out, calm)


def test_the_pauses_double_within_bounds() -> None:
    assert [backoff_s(deaths) for deaths in range(5)] == [0, 0.5, 1, 2, 4]
    assert backoff_s(2000) == LONGEST_BACKOFF_S


MEMORY = {
    "killed by the system": "os.kill(os.getpid(), 9)",
    "an allocation that fails": "print(\"terminate called after throwing an instance of 'std::bad_alloc'\", flush=1), "
    "os.abort()",
    "a full GPU": "print('System is out of GPU memory', flush=1), os._exit(1)",
}


@pytest.mark.parametrize("cause", MEMORY)
def test_where_memory_is_short_an_episode_is_rendered_alone(cause: str, calm: Path, tmp_path: Path) -> None:
    """Episode 13 succeeds only where no other instance is there."""
    crowd = (
        "sum(open(f'/proc/{p}/stat').read().rpartition(')')[2].split()[1] == str(os.getppid()) "
        "for p in os.listdir('/proc') if p.isdecimal() and os.path.exists(f'/proc/{p}/stat'))"
    )
    out = tmp_path / "out"
    done = fake(
        out, "--instances", 3, "--attempts", 2, FAKE_SAMPLE=f"episode == 13 and {crowd} > 1 and ({MEMORY[cause]})"
    )
    assert report(done)["restarts"] == 1
    assert "apparently for lack of memory; rendering episode 13 again, alone" in done.stderr
    assert same(out, calm)


def test_a_crash_between_a_shards_name_and_its_entry_costs_nothing(calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    die = "from compiler.storage.directory import DatasetDirectory as D; D.record = lambda *_: os.kill(os.getpid(), 9)"
    assert fake(out, "--instances", 1, FAKE_COMPILER=die).returncode == -9
    assert digests(out)
    assert not Manifest.load(out).shards
    stood = standing(out)
    assert stood >= 30
    assert report(fake(out))["samples_rendered"] == 120 - stood
    assert same(out, calm)


def test_the_tee_sends_what_is_rendered_now(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begin(out)
    wait(lambda: standing(out) >= FRAMES)
    kill(process, 1)
    result = report(fake(out, "--live", "http://127.0.0.1:0"))
    assert 0 < result["samples_rendered"] < 120
    assert result["live"]["samples_offered"] == result["samples_rendered"]


def test_fresh_removes_parts_and_failures(calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(out, FAKE_SAMPLE=DYING.format("abort()"))
    assert list(out.glob("*.part"))
    result = report(fake(out, "--fresh"))
    assert (result["samples_kept"], result["samples_rendered"]) == (0, 120)
    assert not (out / "failures.jsonl").exists()
    assert same(out, calm)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_damaged_shards_are_rendered_again(calm: Path, tmp_path: Path) -> None:
    """Cut, flipped, deleted, and two that stand under each other's names."""
    out = tmp_path / "out"
    report(fake(out, shards=5))
    cut, flipped, deleted, one, other = sorted(out.glob("*.tar"))
    os.truncate(cut, 5000)
    flip(flipped)
    deleted.unlink()
    one.rename(out / "aside")
    other.rename(one)
    (out / "aside").rename(other)
    result = report(fake(out, shards=5))
    assert result["samples_rendered"] == 150
    assert len(result["damaged"]) == 5
    assert digests(calm).items() <= digests(out).items()


@pytest.mark.parametrize("size", [0, 100, -2])
def test_a_manifest_that_was_cut_is_refused_and_nothing_is_touched(size: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report(fake(out, shards=2))
    content, before = (out / FILE_NAME).read_bytes(), digests(out)
    (out / FILE_NAME).write_bytes(content[:size])
    refused = fake(out, shards=2)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert FILE_NAME in refused.stderr
    assert digests(out) == before
    assert (out / FILE_NAME).read_bytes() == content[:size]


def test_a_manifest_that_was_half_written_at_the_first_start_is_nothing(calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{FILE_NAME}.part").write_bytes(b'{"bytes":')
    (out / ".lock").touch()
    report(fake(out))
    assert same(out, calm)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a small disk, where that is allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_loses_nothing(calm: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=300k"):
        done = fake(tmp_path / "disk" / "out")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        stood = standing(tmp_path / "disk" / "out")
        assert stood > 0
        subprocess.run(["mount", "-o", "remount,size=3m", tmp_path / "disk"], check=True)
        assert report(fake(tmp_path / "disk" / "out"))["samples_rendered"] == 120 - stood
        assert same(tmp_path / "disk" / "out", calm)


@needs_bpy
@pytest.mark.slow
def test_a_scratch_disk_that_is_full_is_not_the_jobs_fault(tmp_path: Path) -> None:
    """Real Blender, whose image does not fit into TMPDIR; with room there, the same command goes on."""
    line = ["cube", "--shards", 1, "--samples-per-shard", 1, "--engine", "cycles", "--render-samples", 1]
    line += ["--size", "320x240", "--out", tmp_path / "out"]
    with mounted(tmp_path / "scratch", "-o", "size=24k"):
        done = run(*line, env={"TMPDIR": str(tmp_path / "scratch")})
        assert done.returncode == 1, done.stderr
        assert f"no room is left in {tmp_path / 'scratch'}" in done.stderr
        assert "Traceback" not in done.stderr
    assert run(*line).returncode == 0


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Mounted read-only: for root, permissions do not hold."""
    with mounted(tmp_path / "disk", "-o", "ro"):
        for place in ("out", "."):
            refused = fake(tmp_path / "disk" / place)
            assert refused.returncode == 2
            assert "Read-only file system" in refused.stderr
            assert "Traceback" not in refused.stderr


def test_few_open_files_are_enough_and_too_few_are_one_line(calm: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))"
    report(fake(tmp_path / "out", "--instances", 4, FAKE_COMPILER=limit.format(64)))
    assert same(tmp_path / "out", calm)
    scarce = fake(tmp_path / "few", "--instances", 4, FAKE_COMPILER=limit.format(16))
    assert "Traceback" not in scarce.stderr
    assert scarce.returncode == 1
    (error,) = [line for line in scarce.stderr.splitlines() if line.startswith("Error: ")]
    assert "Too many open files" in error
    report(fake(tmp_path / "few"))
    assert same(tmp_path / "few", calm)


def test_no_clock_that_can_be_set_is_read() -> None:
    """Waits and time limits go by the monotonic clock; only the file of failures says what time it is."""
    wall = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime"}
    reading = {}
    for path in sorted((ROOT / "compiler").rglob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        used = {
            f"{call.value.id}.{call.attr}"
            for call in calls
            if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
        }
        read = {
            name
            for name in used
            if name.partition(".")[0] in ("time", "datetime", "date") and name.partition(".")[2] in wall
        }
        if read:
            reading[path.name] = read
    assert reading.keys() == {"failures.py"}


def test_a_clock_that_jumps_changes_nothing(calm: Path, tmp_path: Path) -> None:
    jumps = "import random, time; time.time = lambda draw=random.uniform: draw(0, 4e9)"
    report(fake(tmp_path / "out", FAKE_COMPILER=jumps, FAKE_START=jumps))
    assert same(tmp_path / "out", calm)


def test_the_progress_says_who_waits_and_who_is_alone() -> None:
    shown = io.StringIO()
    Lines("cube", shown).update(Report(4, 120), PoolStatus(alive=1, waiting=2, exclusive=True), SampleDone(0))
    assert "instances 1 alone, 2 waiting" in shown.getvalue()


def wait(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.03)
