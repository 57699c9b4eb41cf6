"""The first Blender, which describes the job, is replaced when it is lost, as the others are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compiler.planning.jobs import builtin_jobs
from loaders.manifest import Manifest
from tests.commands import TINY, digests, start, workers
from tests.scripts import fakes

CALM = {"FAKE_COMPILER": "from compiler import resolve; resolve.backoff_s = lambda losses: 0.0"}
CUBE = str(builtin_jobs()["cube"])

FAULTS = {
    "killed": ("os.kill(os.getpid(), 9)", "died of SIGKILL"),
    "stopped": ("os.kill(os.getpid(), 19)", "said nothing for 3 s (--stall-timeout)"),
    "ends": ("os._exit(0)", "ended with exit code 0"),
}
MOMENTS = {"starts": "FAKE_START", "describes": "FAKE_DESCRIBE"}


def fake(*args: object, **faults: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, fakes.SCRIPT, *map(str, args)]
    environment = {**os.environ, **CALM, **faults}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)


def at_most(times: int, notes: Path, fault: str) -> str:
    """Return code that does something the first times it runs."""
    return f"""
n = open({str(notes)!r}, "a")
n.write("x")
n.close()
if os.path.getsize({str(notes)!r}) <= {times}:
    {fault}
"""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_lost_twice_it_changes_nothing(fault: str, moment: str, tmp_path: Path) -> None:
    code, reason = FAULTS[fault]
    options = ["--shards", 1, "--samples-per-shard", 3, "--stall-timeout", 3]
    faulty = {MOMENTS[moment]: at_most(2, tmp_path / "notes", code)}
    done = fake("build", "cube", *options, "--out", tmp_path / "out", **faulty)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{reason}; starting another") == 2
    assert "starting another (2 of 3)" in done.stderr
    assert "starting another (3 of 3)" in done.stderr
    assert Manifest.load(tmp_path / "out").samples == 3


@pytest.mark.parametrize(
    ("moment", "code", "said"),
    [("starts", 5, "Blender did not start: died of SIGKILL"), ("describes", 2, "loaded, Blender died of SIGKILL")],
)
def test_lost_each_time_the_command_ends_and_says_so(moment: str, code: int, said: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    faulty = {MOMENTS[moment]: at_most(99, notes, "os.kill(os.getpid(), 9)")}
    done = fake("build", "cube", "--shards", 1, "--attempts", 2, "--out", tmp_path / "out", **faulty)
    assert done.returncode == code
    assert f"Error: {said}" in done.stderr or f"{said}\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert notes.read_text() == "xx"
    assert not (tmp_path / "out").exists()


def test_whatever_draws_a_plan_up_again_bears_it_too(tmp_path: Path) -> None:
    out, fault = tmp_path / "out", "os.kill(os.getpid(), 9)"
    made = fake("build", "cube", "--shards", 1, "--samples-per-shard", 3, "--out", out)
    assert made.returncode == 0, made.stderr
    for words in (
        ["reproduce", out, "--out", tmp_path / "again"],
        ["replay", out, "--episode", 0, "--out", tmp_path / "episode"],
    ):
        notes = tmp_path / f"notes of {words[0]}"
        done = fake(*words, "--job", CUBE, FAKE_DESCRIBE=at_most(1, notes, fault))
        assert "starting another (2 of 3)" in done.stderr, words
        assert done.returncode == 0, done.stderr


def test_a_real_one_that_is_killed_as_soon_as_it_is_there(tmp_path: Path) -> None:
    process = start("cube", *TINY, "--shards", 1, "--samples-per-shard", 2, "--out", tmp_path / "out")
    before = time.monotonic()
    while not (found := workers()) and time.monotonic() < before + 60:
        time.sleep(0.01)
    for worker in found:
        os.kill(worker, 9)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert found
    assert "died of SIGKILL; starting another (2 of 3)" in said
    assert len(digests(tmp_path / "out")) == 1
