"""A user's mistake is one line that says what, where and what next; its exit code tells the class; nothing is left."""

from __future__ import annotations

import json
import os
import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler.blender.process import InstanceOptions
from compiler.errors import UsageError
from compiler.rendering.retry import RetryPolicy
from compiler.rendering.shard import ShardTask
from compiler.resolve import Choices, FirstBlender, resolve_plan
from compiler.storage.destination import LiveOnly
from loaders.installing import install_command
from tests.commands import TINY, forked, run, write_job
from tests.scripts import fakes

ONE = [*TINY, "--shards", 1, "--samples-per-shard", 3]


def _expect(code: int, *said: str, args: list[object], cwd: Path) -> str:
    done = forked(*args, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fallingcubes", "--shards", 1], "there is no command or job 'fallingcubes'; did you mean falling_cubes?"),
        (["falling_cubes/", "--shards", 1], "did you mean falling_cubes?"),
        (["shwo"], "there is no command or job 'shwo'; did you mean show?"),
        (
            ["stats"],
            "commands are build, show, verify, diff, export, reproduce, replay, examples, doctor; built-in jobs",
        ),
        (["build", "stats"], "there is no job 'stats'"),
        (["--shards", 1, "stats"], "there is no job 'stats'"),
        (["nowhere.py", "--shards", 1], "there is no job file nowhere.py"),
        (["scene.blend", "--shards", 1], "path/to/job.py --blend scene.blend"),
        (["falling_cubes"], "Missing option '--shards'"),
        (["--shards", 0], "--shards 0 renders without end"),
        (["--shards", 1, "--size", "640"], "is not WIDTHxHEIGHT"),
        (["--shards", 1, "--engine", "arnold"], "'arnold' is not one of"),
        (["--shards", 1, "--set", "count"], "is not FIELD=VALUE"),
        (["--shards", 1, "--set", "cube=5"], "no field 'cube'; did you mean 'cubes'?"),
        (["--shards", 1, "--set", "cubes=many"], "'many' is not int; give a whole number"),
        (["--shards", 1, "--seed", -1], "-1 is not in the range"),
        (["--shards", 1, "--engine", "workbench", "--render-samples", 7], "workbench takes 0, 5, 8, 11, 16, 32 render"),
        (["--shards", 1, "--passes", "none,depth"], "there is no pass 'none'"),
        (["--shards", 1, "--config", "none.toml"], "none.toml"),
        (["--shards", 1, "--set", "every=0"], "range() arg 3 must not be zero"),
        (["verify", "nowhere"], "no dataset at nowhere"),
        (["show", "nowhere"], "no dataset at nowhere"),
    ],
)
def test_wrong_commands(args: list[object], said: str, tmp_path: Path) -> None:
    _expect(2, said, args=args, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


BROKEN = [
        ("def setup(self):\n    stage.ground(", "job.py:22: SyntaxError"),
        ("def setup(self):\n    stage.cubes('x')", "job.py:22: setup: AttributeError: module"),
        ("def randomize(self, rng):\n    rng.unifrom()", "job.py:22: randomize: AttributeError"),
        ("def step(self, rng, frame):\n    1 / 0", "job.py:22: step: ZeroDivisionError: division by zero"),
        ("def annotate(self, view):\n    return view.describe(None, 'x')", "annotate"),
        ("def annotate(self, view):\n    return [1]", "annotate() returned list, not a dict"),
        ("def annotate(self, view):\n    return {'a': [0, {'b': {1, 2}}]}", "annotate()['a'][1]['b'] is a set"),
        ("def annotate(self, view):\n    return {'a': [0.0, float('nan')]}", "annotate()['a'][1] is nan"),
        ("def annotate(self, view):\n    return {'a': np.array([np.inf])}", "annotate()['a'][0] is inf"),
        ("def annotate(self, view):\n    return {'frame': 1}", "annotate() returned 'frame', which every sample has"),
        ("def annotate(self, view):\n    return {'x': 1 if view.flag else 2}", "AttributeError: 'View' object has no"),
        ("n = 0\ndef annotate(self, view):\n    Small.n += 1\n    return {'x': [1.5, 1][Small.n % 2]}", "float(...)"),
        (
            "def annotate(self, view):\n    return {'objects': [{**view.describe(self.cube, 'cube'), 'bbox': 'x'}]}",
            "annotations.objects[0].bbox must be array (at 000000-000000)",
        ),
        (
            "def annotate(self, view):\n    cube = view.describe(self.cube, 'cube')\n"
            "    return {'objects': [cube, {**cube, 'name': 'other', 'grasped': True}]}",
            "objects[].grasped is in some items only: other with it, cube without; return",
        ),
        ("def setup(self):\n    stage.cube('cube')", "the scene has no camera"),
        ("def setup(self):\n    raise SystemExit(4)", "setup: SystemExit: 4"),
        ("frames: range = range(0)", "Small.frames is empty"),
        ("frame: range = range(1, 5)", "Small.frame is not known to Job; did you mean 'frames'? Nothing here reads it"),
        ("def anotate(self, view):\n    return {}", "Small.anotate is not known to Job; did you mean 'annotate'?"),
        ("frames: int = 5", "not the frames to render; give frame 5 alone as (5,), frames 1 to 5 as range(1, 6)"),
        ("__annotations__.clear()\nframes = 5", "Small.frames is 5, not the frames to render"),
        ("frames: tuple[str, ...] = ('1',)", "Small.frames holds '1'; frames are whole numbers, as range(1, 61, 5)"),
        ("cameras = 5", "Small.cameras is 5, which must be several values; use a tuple: (5,)"),
        ("passes = 5", "Small.passes is 5, which must be several values"),
        ("categories = 5", "Small.categories is 5, which must be several values"),
        ("assets = 5", "Small.assets is 5, which must be several values"),
        ("assets = 'nowhere'", "nowhere"),
        ("def __init__(self):\n    self.count = 3", "Small has no __init__ that takes its fields; leave"),
        ("passes = ('ncos',)", "Small.passes: there is no pass 'ncos'; did you mean 'nocs'?"),
        ("cameras = ('Left',)", "'Left' cannot name members"),
        ("files: tuple[Path, ...] = (Path('job.py'),)", "field files holds several paths"),
        ("def randomize(self, rng):\n    self.cube.hide_render = True", "object 'cube' is hidden in renders"),
        (
            "passes = ('flow',)\ndef randomize(self, rng):\n    bpy.context.scene.camera.data.type = 'PANO'",
            "job.py: camera: ValueError: camera 'camera' is PANO",
        ),
]  # fmt: skip
"""Hooks, and what is said of them."""


@pytest.fixture(scope="module")
def blender() -> Iterator[FirstBlender]:
    """One Blender for all jobs that fail: it lives on."""
    with FirstBlender(InstanceOptions(1, 120), attempts=1, say=lambda _: None) as first:
        yield first


@pytest.mark.parametrize(("hooks", "said"), BROKEN)
def test_broken_jobs(hooks: str, said: str, blender: FirstBlender, tmp_path: Path) -> None:
    """As a build meets them: while the plan is drawn up, or while a shard is rendered."""
    job = write_job(tmp_path, hooks, head="import bpy")
    with pytest.raises(UsageError) as caught:
        _render_a_shard(str(job), blender)
    error = caught.value
    assert said in "\n".join([*error.details, str(error), error.hint])
    assert "\n" not in str(error)


def _render_a_shard(job: str, blender: FirstBlender) -> None:
    plan = resolve_plan(Choices(job, samples_per_shard=3, engine="workbench", render_samples=0, size=(64, 48)), blender)
    task = ShardTask(LiveOnly(plan, plan.manifest({})), 0, RetryPolicy(), queue.SimpleQueue(), lambda *_: None)
    for _, members in list(blender.instance.render(plan.order(task.remaining, 1))):  # heard to its end
        task.add(members)


@pytest.mark.parametrize(("hooks", "said"), [BROKEN[0], BROKEN[1], BROKEN[2], BROKEN[12]])
def test_a_broken_job_ends_the_command_with_nothing_half_written(hooks: str, said: str, tmp_path: Path) -> None:
    """In its file, in `setup`, while it is rendered, and in its annotations."""
    job = write_job(tmp_path, hooks, head="import bpy")
    _expect(2, said, args=[job, *ONE, "--out", tmp_path / "out"], cwd=tmp_path)
    assert not list(tmp_path.glob("out/*.tar*"))


def test_a_first_try_that_failed_stands_in_no_ones_way(tmp_path: Path) -> None:
    """In its second episode, the first of which is kept until the job is mended."""
    job = write_job(
        tmp_path, "n = 0\ndef randomize(self, rng):\n    Small.n += 1\n    if Small.n == 2:\n        rng.unifrom()"
    )
    plan, out = [job, *TINY, "--shards", 1, "--samples-per-shard", 6, "--out", tmp_path / "out"], tmp_path / "out"
    assert run(*plan).returncode == 2
    (noted,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert (noted["what"], noted["episode"], noted["sample"]) == ("job failed", 1, "000000-000003")
    assert noted["replay"] == f"compile-dataset replay {out} --episode 1"
    write_job(tmp_path, "def randomize(self, rng):\n    rng.uniform()")
    said = (
        (f"Note: {out} holds another plan (the job file {job} has changed ("),
        "whose job failed in episode 1 with no shard finished: a build starts it over and removes 1 shard begun, with",
    )
    for more in (["--dry-run"], []):
        done = run(*plan, *more)
        assert done.returncode == 0, done.stderr
        assert all(words in done.stderr for words in said)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "job-train-000000.tar", "source"]


ABORTS = {
    "setup(self)": (2, "while it was loaded, Blender died of SIGABRT"),
    "randomize(self, rng)": (1, "episode 0 was tried 2 times; the last instance died of SIGABRT"),
    "step(self, rng, frame)": (1, "episode 0 was tried 2 times; the last instance died of SIGABRT"),
    "annotate(self, view)": (1, "episode 0 was tried 2 times; the last instance died of SIGABRT"),
}


@pytest.mark.parametrize("hook", ABORTS)
def test_a_job_that_aborts_blender_is_told_in_which_episode(hook: str, tmp_path: Path) -> None:
    code, said = ABORTS[hook]
    job = write_job(tmp_path, f"def {hook}:\n    os.abort()")
    _expect(code, said, args=[job, *ONE, "--out", tmp_path / "out", "--attempts", 2], cwd=tmp_path)


def test_a_job_may_print_as_much_as_it_likes(tmp_path: Path) -> None:
    job = write_job(
        tmp_path, "def step(self, rng, frame):\n    print('x' * 100_000_0)\n    os.write(1, b'y' * 1_000_000)"
    )
    done = run(job, *ONE, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 samples" in done.stdout


def test_directories_that_cannot_be_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Blender would render: a stand-in is asked."""
    monkeypatch.setattr(
        InstanceOptions, "command", lambda _, scratch: [sys.executable, fakes.SCRIPT, "--scratch", scratch]
    )
    monkeypatch.setattr(InstanceOptions, "environment", lambda *_: dict(os.environ))
    (tmp_path / "file").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset.json").write_text('{"format": "blend')
    for name, said in (
        ("file", "is not a directory"),
        ("thesis", "holds something else (chapter.tex)"),
        ("broken", "is not JSON"),
    ):
        _expect(2, said, args=[*ONE, "--out", tmp_path / name], cwd=tmp_path)
    _expect(2, "chapter.tex", args=[*ONE, "--fresh", "--out", tmp_path / "thesis"], cwd=tmp_path)
    _expect(2, "cannot write to", args=[*ONE, "--out", "/proc/dataset"], cwd=tmp_path)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"
    assert not list(tmp_path.glob("**/*.tar"))


def test_a_wrong_configuration_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("shards = 1\nsampels = 3\n")
    _expect(2, "unknown key 'sampels'", args=["--config", "a.toml"], cwd=tmp_path)
    (tmp_path / "b.toml").write_text("shards = ")
    _expect(2, "b.toml", args=["--config", "b.toml"], cwd=tmp_path)


def test_paths_with_spaces_and_umlauts(tmp_path: Path) -> None:
    folder = tmp_path / "größere Würfel"
    folder.mkdir()
    job = write_job(folder, "", name="Würfel 1.py")
    done = run(job, *ONE, "--out", folder / "Daten Satz")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (folder / "Daten Satz").glob("*.tar")] == ["W_rfel_1-train-000000.tar"]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("libXrender.so.1: cannot open shared object file: No such file or directory", "apt-get install libx11-6"),
        ("No module named 'bpy'", install_command("blender")),
    ],
)
def test_a_blender_that_cannot_be_imported_names_the_command_that_helps(
    problem: str, said: str, tmp_path: Path
) -> None:
    """A stand-in for a machine without the libraries: a `bpy` that fails as the real one does there."""
    (tmp_path / "bpy.py").write_text(f'raise ImportError("{problem}")')
    for command in (["doctor"], [*ONE, "--out", tmp_path / "out"]):
        done = run(*command, env={"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 5
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_doctor_and_build_say_when_opengl_is_missing(tmp_path: Path) -> None:
    """Without a vendor of EGL Blender aborts in its first OpenGL render; Cycles needs none."""
    blind = {"__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}
    doctor = run("doctor", env=blind)
    assert doctor.returncode == 0
    assert "cycles     ok" in doctor.stdout
    assert "workbench  FAILED  died of SIGABRT; it needs OpenGL" in doctor.stdout
    build = run("cube", *ONE, "--attempts", 1, "--out", tmp_path / "out", env=blind)
    assert build.returncode == 1
    assert "Try: compile-dataset doctor, as OpenGL seems to be missing" in build.stderr
