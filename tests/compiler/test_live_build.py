"""A live build: the tee gives the very bytes of the shards, once each, whoever listens and whatever crashes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import compiler
from compiler.errors import BlendshardError
from loaders.tarstream import END, Sample, read_samples, sample_record
from tests.commands import TINY, digests, ok, run, start, workers, write_job

CHEAP: compiler.BuildOptions = {"engine": "workbench", "render_samples": 0, "size": "64x48"}


class Listener(threading.Thread):
    """Reads the tee from its own thread, to the end of the stream or of its patience."""

    def __init__(self, address: str, group: str, most: int = 1 << 30) -> None:
        super().__init__(daemon=True)
        self.url, self.most = f"{address}?group={group}", most
        self.samples: list[Sample] = []
        self.start()

    def run(self) -> None:
        with urllib.request.urlopen(self.url, timeout=60) as stream:
            for sample in read_samples(stream):
                self.samples.append(sample)
                if len(self.samples) == self.most:
                    return


def _address(ready: Path) -> str:
    end = time.monotonic() + 30
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return str(json.loads(ready.read_text())["address"])


def _rebuild(samples: list[Sample]) -> dict[str, bytes]:
    """Return each shard's bytes by its number, from samples in any order."""
    shards: dict[str, bytes] = {}
    for sample in sorted(samples, key=lambda sample: sample.key):
        number = sample.key.split("-")[0]
        shards[number] = shards.get(number, b"") + sample_record(sample.key, sample.members)
    return {number: records + END for number, records in shards.items()}


def _stored(folder: Path) -> dict[str, bytes]:
    return {path.stem[-6:]: path.read_bytes() for path in folder.glob("*.tar")}


@pytest.mark.slow
def test_live_samples_rebuild_the_shards_also_after_a_crash_and_with_listeners_that_come_and_go(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        """
        def randomize(self, rng):
            self.cube.rotation_euler = rng.uniform(-3, 3, 3)

        def step(self, rng, frame):
            flag = Path(__file__).with_name("happened")
            if frame == 3 and rng.uniform() < 0.2 and not flag.exists():
                flag.touch()
                os.abort()
        """,
    )
    out, ready = tmp_path / "out", tmp_path / "ready"
    live = ["--live", "http://127.0.0.1:0", "--live-policy", "block", "--live-wait", 2, "--live-ready-file", ready]
    process = start(
        job, *TINY, "--shards", 4, "--samples-per-shard", 12, "--instances", 2, "--out", out, "--json", *live
    )
    address = _address(ready)
    whole, brief = Listener(address, "all"), Listener(address, "some", most=5)
    brief.join(30)
    back = Listener(address, "some")  # comes back into its group
    late = Listener(address, "late")
    said, logged = process.communicate(timeout=120)
    assert process.returncode == 0, logged
    for listener in (whole, back, late):
        listener.join(30)
    assert (tmp_path / "happened").exists()
    assert json.loads(said)["restarts"] == 1
    assert len(_stored(out)) == 4
    assert _rebuild(whole.samples) == _stored(out)
    shared = [sample.key for sample in [*brief.samples, *back.samples]]
    assert len(shared) == len(set(shared)), "a group shares its samples"
    assert set(shared) <= {sample.key for sample in whole.samples}
    assert back.samples[-1].key == whole.samples[-1].key
    assert len(late.samples) <= len(whole.samples)


@pytest.mark.slow
def test_listening_changes_no_byte_and_dropped_samples_are_counted(tmp_path: Path) -> None:
    plan = ["cube", *TINY, "--shards", 2, "--samples-per-shard", 20]
    ok(*plan, "--out", tmp_path / "alone")
    ready = tmp_path / "ready"
    live = ["--live", "http://127.0.0.1:0", "--live-wait", 1, "--live-ready-file", ready, "--json"]
    process = start(*plan, "--out", tmp_path / "heard", *live)
    curl = subprocess.Popen(["curl", "-sN", _address(ready)], stdout=subprocess.DEVNULL)
    said, logged = process.communicate(timeout=60)
    assert process.returncode == 0, logged
    assert curl.wait(10) == 0, "the stream ends cleanly with the dataset"
    assert digests(tmp_path / "heard") == digests(tmp_path / "alone")
    counts = json.loads(said)["live"]
    assert counts["samples_offered"] == 40 == counts["samples_sent"] + counts["samples_dropped"]


def test_an_interrupted_build_cuts_the_stream(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = start(
        "cube", *TINY, "--shards", 0, "--live-only", "--live", "http://127.0.0.1:0", "--live-ready-file", ready
    )
    curl = subprocess.Popen(["curl", "-sN", _address(ready)], stdout=subprocess.DEVNULL)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert curl.wait(10) == 18, "curl: transfer closed with outstanding read data remaining"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"], "--live-only writes nothing"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shards", 0], "--shards 0 renders without end"),
        (["--shards", 1, "--live", "https://127.0.0.1:1"], "is not an address to listen at"),
        (["--shards", 1, "--live", "http://127.0.0.1:99999"], "is not an address to listen at"),
        (["--shards", 1, "--live", "http://10.0.0.1:5555"], "can be reached from other machines"),
        (["--shards", 1, "--live-wait", 1], "--live-wait needs --live"),
        (["--shards", 1, "--live", "--live-token", "short"], "token must be 16 or more"),
    ],
)
def test_wrong_live_options(options: list[Any], said: str, tmp_path: Path) -> None:
    done = run("cube", *TINY, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.glob("*/*.tar"))


LAUNCHING = """
import sys, time, urllib.request
import compiler
with compiler.launch("cube", instances=2, engine="workbench", render_samples=0, size="64x48") as live:
    with urllib.request.urlopen(live.address) as stream:
        stream.read(50_000)
    print("ready", flush=True)
    {end}
"""
ENDS = {
    "block's end": ("pass", None),
    "exception": ("raise RuntimeError('stop')", None),
    "exit": ("sys.exit(3)", None),
    "SIGINT": ("time.sleep(60)", signal.SIGINT),
    "SIGTERM": ("time.sleep(60)", signal.SIGTERM),
    "SIGKILL": ("time.sleep(60)", signal.SIGKILL),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_launched_compiler_leaves_no_process_however_the_script_ends(end: str) -> None:
    code, sign = ENDS[end]
    before = workers()
    script = subprocess.Popen(
        [sys.executable, "-c", LAUNCHING.format(end=code)], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    if sign is not None:
        assert len(workers() - before) == 2
        os.kill(script.pid, sign)
    script.communicate(timeout=20)
    deadline = time.monotonic() + 8
    while workers() - before:
        assert time.monotonic() < deadline, "instances are left behind"
        time.sleep(0.05)


def test_a_launched_compiler_that_fails_is_an_error_at_once(tmp_path: Path) -> None:
    job = write_job(tmp_path, "def randomize(self, rng):\n    if rng.uniform() < 0.3:\n        1 / 0")
    began = time.monotonic()
    failing = pytest.raises(BlendshardError, match=r"job.py:\d+: randomize: ZeroDivisionError")
    with failing, compiler.launch(str(job), **CHEAP):
        time.sleep(60)
    assert time.monotonic() - began < 30
    with pytest.raises(BlendshardError, match="there is no job 'cubes'"), compiler.launch("cubes"):
        pass


def test_a_launched_compiler_counts_replaced_instances(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        """
        def randomize(self, rng):
            flag = Path(__file__).with_name("happened")
            if not flag.exists():
                flag.touch()
                os.abort()
        """,
    )
    out = tmp_path / "out"
    with (
        compiler.launch(
            str(job),
            shards=1,
            out=out,
            samples_per_shard=30,
            engine="workbench",
            render_samples=0,
            size="64x48",
            live_wait=1,
        ) as live,
        urllib.request.urlopen(live.address) as stream,
    ):
        assert len(list(read_samples(stream))) == 30
        assert live.status()["restarts"] == 1
        assert compiler.CompilerStatus.__required_keys__ <= live.status().keys()
        stream.close()
        while live.running:
            time.sleep(0.05)
        assert live.status()["restarts"] == 1
        assert live.status()["samples_done"] == 30
        assert compiler.CompilerStatus.__required_keys__ <= live.status().keys()
    assert len(digests(out)) == 1
