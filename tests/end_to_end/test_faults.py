"""Instances die, hang and lie; compilers are interrupted and killed: no byte differs, and what is missing is said."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.commands import TINY, digests, ok, run, start, workers, write_job

ONCE = """
def randomize(self, rng):
    self.cube.rotation_euler = rng.uniform(-3, 3, 3)
    flag = Path(__file__).with_name("happened")
    if rng.uniform() < 0.5 and not flag.exists():
        flag.touch()
        {fault}
"""
"""Drawn the same in each run; the fault happens at one episode, once."""

FAULTS = {
    "killed": ("os.kill(os.getpid(), 9)", "died of SIGKILL"),
    "segfaults": ("__import__('ctypes').string_at(0)", "died of SIGSEGV"),
    "starves": (
        "r = __import__('resource'); r.setrlimit(r.RLIMIT_AS, "
        "(int(open('/proc/self/statm').read().split()[0]) * 4096 + (64 << 20), r.RLIM_INFINITY)); "
        "__import__('bpy').ops.mesh.primitive_grid_add(x_subdivisions=3000, y_subdivisions=3000)",
        "died of SIGSEGV, apparently for lack of memory",
    ),
    "asks for too much": ("np.zeros(1 << 45)", "ran out of memory"),
    "aborts": ("os.abort()", "died of SIGABRT"),
    "hangs": ("time.sleep(600)", "said nothing for 8 s"),
    "stopped": ("os.kill(os.getpid(), 19)", "said nothing for 8 s"),
    "exits": ("os._exit(3)", "ended with exit code 3"),
    "lies": (
        "[os.write(int(n), b'garbage' * 99) for n in os.listdir('/proc/self/fd') if n > '2' and 'pipe' in "
        "os.readlink(f'/proc/self/fd/{n}') and os.access(f'/proc/self/fd/{n}', os.W_OK) and "
        "__import__('fcntl').fcntl(int(n), 3) & 3 == 1]",
        "sent garbage",
    ),
}


PLAN = [*TINY, "--shards", 2, "--samples-per-shard", 9, "--instances", 2]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of the same episodes where nothing happens: what a job does beside rendering is in no byte."""
    folder = tmp_path_factory.mktemp("calm")
    ok(write_job(folder, ONCE.format(fault="pass")), *PLAN, "--out", folder / "out")
    assert (folder / "happened").exists(), "the faults would not happen either"
    return digests(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_an_instance_lost_once_changes_no_byte(fault: str, calm: dict[str, str], tmp_path: Path) -> None:
    code, reason = FAULTS[fault]
    job = write_job(tmp_path, ONCE.format(fault=code))
    soon = ["--stall-timeout", 8] if "said nothing" in reason else []
    done = run(job, *PLAN, *soon, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert reason in done.stderr
    assert json.loads(done.stdout)["restarts"] == 1
    assert (job.parent / "happened").exists()
    assert digests(tmp_path / "out") == calm


@pytest.mark.slow
def test_an_episode_that_always_kills_is_given_up_and_the_others_are_finished(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        """
        def step(self, rng, frame):
            self.count = getattr(self, "count", 0) + 1
            if rng.uniform() < 0.04:
                print("about to die")
                os.abort()
        """,
    )
    out = tmp_path / "out"
    done = run(job, *TINY, "--shards", 4, "--samples-per-shard", 6, "--out", out, "--attempts", 2)
    assert done.returncode == 1
    assert "shards are missing" in done.stderr
    assert "was tried 2 times; the last instance died of SIGABRT" in done.stderr
    assert "about to die" in done.stderr
    assert f"compile-dataset replay {out} --episode" in done.stderr
    assert 1 <= len(digests(out)) < 4
    assert {path.name for path in out.glob("*.part")} <= {entry.name[:-8] + ".part" for entry in out.glob("*.journal")}
    replay = done.stderr.split("Try: compile-dataset ")[1].split()
    again = run(*replay, "--out", tmp_path / "episode")
    assert again.returncode == 1
    assert "about to die" in again.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_seconds_and_leaves_what_continues(sign: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ["cube", *TINY, "--shards", 40, "--samples-per-shard", 20, "--out", out]
    before = workers()
    process = start(*plan)
    _wait(lambda: bool(digests(out)))
    process.send_signal(sign)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert workers() <= before
    finished = len(digests(out))
    assert 0 < finished < 40
    assert json.loads(ok(*plan[:-4], "--samples-per-shard", 20, "--out", out, "--json", "--dry-run"))[
        "samples_to_render"
    ] == 20 * (40 - finished)


def test_instances_end_when_their_compiler_is_killed(tmp_path: Path) -> None:
    """Also in the middle of a long render: Cycles works without the GIL."""
    before = workers()
    process = start("--shards", 1, "--render-samples", 4096, "--out", tmp_path / "out")
    _wait(lambda: bool(workers() - before))
    time.sleep(2.5)
    process.kill()
    process.communicate()
    _wait(lambda: workers() <= before, seconds=5)


def test_a_second_compiler_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = ["cube", *TINY, "--shards", 60, "--samples-per-shard", 20, "--out", out]
    first = start(*plan)
    try:
        _wait(lambda: bool(digests(out)))
        second = run(*plan)
        assert second.returncode == 2
        assert "is being written by another compile-dataset" in second.stderr
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=10)
    assert run(*plan, "--dry-run").returncode == 0, "a lock does not outlive its process"


def _wait(true: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
