"""Instances run in a stock Blender, with nothing installed into it, or in another Python's wheel, as in our own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from compiler.blender import executable
from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import BlenderUnusable, InstanceLost
from loaders.manifest import Manifest
from tests.commands import TINY, annotations, digests, ok, run, start, workers, write_job

ROOT = Path(__file__).parents[2]
SMALL = ["--size", "64x48", "--samples-per-shard", 4, "--shards", 2]
ENGINES = {
    "workbench": ["--engine", "workbench", "--render-samples", 0],
    "cycles": ["--engine", "cycles", "--render-samples", 1],
}


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _wait(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.05)


UNUSABLE = {
    "is no Blender: asked for its --version, it says 'made of ash": "echo made of ash",
    "is Blender 2.79; the oldest that can be used is 3.4": "echo 'Blender 2.79 (sub 0)'",
    "is Python 3.8; the oldest that can be used is 3.10": "echo Python 3.8.1",
    "needs the system library libXi.so.6": "echo blender: error loading libXi.so.6: No such file >&2; exit 127",
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_what_is_no_usable_blender_is_refused(message: str, tmp_path: Path) -> None:
    with pytest.raises(BlenderUnusable, match=message) as refusal:
        executable.find(str(script(tmp_path / "blender", UNUSABLE[message])))
    assert refusal.value.hint


def test_a_wrong_path_is_refused_with_what_is_wrong_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "text").write_text("")
    script(tmp_path / "here", "")
    (tmp_path / "scrambled").write_bytes(b"\0\1\2")
    (tmp_path / "scrambled").chmod(0o755)
    wrong = {
        "missing/blender": "there is no missing/blender$",
        "blender": "there is no blender on PATH",
        "here": "there is no here on PATH",
        str(tmp_path): "is a folder",
        "./text": "is not executable",
        "./scrambled": "cannot be run: Exec format error",
    }
    for given, message in wrong.items():
        with pytest.raises(BlenderUnusable, match=message) as refusal:
            executable.find(given)
        assert refusal.value.hint


def test_an_unusable_blender_is_one_line_and_exit_code_5(tmp_path: Path) -> None:
    for words in (["cube", "--shards", 1], ["doctor"]):
        done = run(*words, "--blender", tmp_path / "blender", cwd=tmp_path)
        assert done.returncode == 5
        assert f"there is no {tmp_path}/blender" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_python_without_the_wheel_is_told_what_it_lacks(tmp_path: Path) -> None:
    bare = script(tmp_path / "python", f'exec {sys.executable} -S "$@"')  # nothing that is installed
    with pytest.raises(BlenderUnusable, match="has no numpy that works: No module named 'numpy'"):
        Instance(InstanceOptions(1, 60, blender=str(bare)))


def test_a_blender_whose_python_has_no_numpy_is_told_so(blender_executable: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('numpy is not here')")
    wrapper = script(tmp_path / "blender", f'PYTHONPATH={tmp_path} exec {blender_executable} "$@"')
    done = run("doctor", "--blender", wrapper)
    assert done.returncode == 5
    assert "has no numpy that works: numpy is not here" in done.stderr
    assert "python3-numpy" in done.stderr


def test_a_blender_whose_hashing_varies_is_refused(blender_executable: str, tmp_path: Path) -> None:
    """The order of a set would be another in each process, and with it the bytes."""
    wrapper = script(tmp_path / "blender", f'unset PYTHONHASHSEED; exec {blender_executable} "$@"')
    with pytest.raises(BlenderUnusable, match="PYTHONHASHSEED=0 does not reach its Python"):
        Instance(InstanceOptions(1, 60, blender=str(wrapper)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "engine"),  # each job, and each engine with physics and without
    [
        ("falling_cubes", "workbench"),
        ("cube", "workbench"),
        (ROOT / "examples" / "dominoes.py", "cycles"),
    ],
    ids=lambda value: Path(value).stem,
)
def test_instances_and_kills_change_no_byte(
    job: str | Path, engine: str, blender_executable: str, tmp_path: Path
) -> None:
    plan = [job, "--blender", blender_executable, *SMALL, *ENGINES[engine]]
    ok(*plan, "--instances", 1, "--out", tmp_path / "one")
    others = workers()
    process = start(*plan, "--instances", 2, "--out", tmp_path / "two")
    _wait(lambda: len(workers() - others) == 2 or process.poll() is not None)
    with suppress(ProcessLookupError, ValueError):  # it was quick; the next test has one die for certain
        os.kill(max(workers() - others), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    ok("verify", tmp_path / "two")


@pytest.mark.slow
def test_an_instance_that_dies_in_an_episode_changes_no_byte(blender_executable: str, tmp_path: Path) -> None:
    hooks = """
    def randomize(self, rng):
        self.cube.location.x = rng.uniform(-1, 1)

    def step(self, rng, frame):
        due = Path(__file__).with_name("die")
        if frame == 3 and due.exists():
            due.unlink()
            os.kill(os.getpid(), 9)
    """
    plan = [write_job(tmp_path, hooks), *TINY, "--shards", 1, "--samples-per-shard", 9, "--blender", blender_executable]
    ok(*plan, "--out", tmp_path / "whole")
    (tmp_path / "die").touch()
    assert json.loads(ok(*plan, "--out", tmp_path / "died", "--json"))["restarts"] == 1
    assert digests(tmp_path / "died") == digests(tmp_path / "whole")


@pytest.mark.slow
def test_one_job_gives_the_same_keypoints_in_each_blender(
    blender_executable: str, bpy_5_0: str, tmp_path: Path
) -> None:
    """The wheels 4.5 and 5.0 and the stock executable: equal to within 0.01 px on the first frame."""
    for job in ("falling_cubes", "cube", ROOT / "examples" / "dominoes.py"):
        found = {}
        for blender in (None, blender_executable, bpy_5_0):
            out = tmp_path / f"{Path(job).stem}{len(found)}"
            chosen = ["--blender", blender] if blender else []
            ok(job, *chosen, *TINY, "--shards", 1, "--samples-per-shard", 1, "--out", out)
            version = Manifest.load(out).plan["blender"]["version"]
            found[version] = [entry["keypoints"] for entry in annotations(out)[0]["objects"]]
        assert len(found) == 3
        first, *others = found.values()
        assert first
        for other in others:
            np.testing.assert_allclose(other, first, rtol=0, atol=0.01)


@pytest.mark.slow
def test_two_builds_never_share_an_identity(blender_executable: str, tmp_path: Path) -> None:
    """Nor does a dataset begun with one go on with the other: the message names what differs."""
    plan = ["cube", *TINY, "--samples-per-shard", 2, "--out", tmp_path / "out"]
    ok(*plan, "--shards", 1, "--blender", blender_executable)
    build = Manifest.load(tmp_path / "out").plan["blender"]["build"]
    assert build.startswith("executable ")
    assert len(build.split()) > 1
    other = run(*plan, "--shards", 2)
    assert other.returncode == 4
    assert "blender.build" in other.stderr
    ok(*plan, "--shards", 2, "--blender", blender_executable)
    again = ["replay", tmp_path / "out", "--episode", 0, "--out", tmp_path / "again"]
    assert "blender.build" in run(*again).stderr
    assert "blender.build" not in run(*again, "--blender", blender_executable).stderr


@pytest.mark.slow
def test_nothing_of_the_compilers_python_or_of_the_users_blender_leaks_in(
    blender_executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And hashing is fixed, though the Python in Blender ignores the environment by default."""
    hooks = f"""
    def annotate(self, view):
        import sys
        foreign = [place for place in sys.path if place.startswith({sys.prefix!r}) or "leaked" in place]
        seen = dict(hash=hash("cube") % 2**32, foreign=foreign, started="leaked" in sys.modules)
        return dict(objects=[view.describe(self.cube, category="cube")], **seen)
    """
    job = write_job(tmp_path, hooks)
    leaked = tmp_path / "leaked"
    startup = leaked / "scripts" / "startup"
    startup.mkdir(parents=True)
    (startup / "leaked.py").write_text("def register(): pass\n")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(leaked))
    monkeypatch.setenv("BLENDER_USER_SCRIPTS", str(leaked / "scripts"))
    monkeypatch.setenv("OCIO", str(leaked / "config.ocio"))
    plan = [job, *TINY, "--shards", 1, "--samples-per-shard", 1, "--blender", blender_executable]
    seen = []
    for name in ("a", "b"):
        ok(*plan, "--out", tmp_path / name)
        seen.append(annotations(tmp_path / name)[0])
    assert seen[0]["hash"] == seen[1]["hash"]
    assert seen[0]["foreign"] == []
    assert seen[0]["started"] is False


LAUNCHERS = {
    "replaces itself": 'exec {blender} "$@"',
    "waits": 'exec 3<&0\n{blender} "$@" 0<&3 3<&- &\nexec 3<&-\nwait',
    "leaves": 'exec 3<&0\n{blender} "$@" 0<&3 3<&- &',
}


@pytest.mark.slow
@pytest.mark.parametrize("manner", LAUNCHERS)
def test_a_script_that_starts_blender_leaves_no_process(manner: str, blender_executable: str, tmp_path: Path) -> None:
    wrapper = script(tmp_path / "blender", LAUNCHERS[manner].format(blender=blender_executable))
    before = workers()
    plan = ["--blender", wrapper, *SMALL, *ENGINES["cycles"]]
    ok(*plan, "--out", tmp_path / "out")
    _wait(lambda: workers() <= before, seconds=5)
    process = start(*plan[:2], "--shards", 1, "--render-samples", 4096, "--out", tmp_path / "long")
    _wait(lambda: bool(workers() - before))
    time.sleep(3)
    process.kill()  # in the middle of a render: each instance sees its stdin close
    process.communicate()
    _wait(lambda: workers() <= before, seconds=5)


@pytest.mark.slow
def test_a_silent_blender_is_killed_whatever_started_it(blender_executable: str, tmp_path: Path) -> None:
    wrapper = script(tmp_path / "blender", LAUNCHERS["leaves"].format(blender=blender_executable))
    hooks = """
    def setup(self):
        time.sleep(600)
    """
    before = workers()
    done = run(
        write_job(tmp_path, hooks),
        "--shards",
        1,
        "--blender",
        wrapper,
        "--stall-timeout",
        10,
        "--attempts",
        1,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "said nothing for 10 s" in done.stderr
    _wait(lambda: workers() <= before, seconds=5)


def test_an_executable_that_ends_at_once_is_named_as_lost(tmp_path: Path) -> None:
    short = script(tmp_path / "blender", 'case "$1" in --version) echo Blender 4.5.0 ;; esac')
    with pytest.raises(InstanceLost, match="did not start"):
        Instance(InstanceOptions(1, 60, blender=str(short)))


def test_a_blend_of_a_newer_blender_is_refused_before_it_can_crash(blender_executable: str, tmp_path: Path) -> None:
    (tmp_path / "new.blend").write_bytes(b"BLENDER-v909RENDH" + bytes(100))
    job = write_job(tmp_path, "")
    refused = run(job, "--blend", tmp_path / "new.blend", "--shards", 1, "--blender", blender_executable)
    assert refused.returncode == 2
    assert "was saved by Blender 9.9, whose files" in refused.stderr
