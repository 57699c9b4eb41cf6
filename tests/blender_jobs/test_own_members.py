"""A member of a job's class that is misspelt would do nothing: it is refused. The user's own members are not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from blender_jobs._worker import fields
from blender_jobs._worker.loading import load_job, sources_of
from blender_jobs.job import Job, JobError
from blender_jobs.orders import JobSource

ROOT = Path(__file__).resolve().parents[2]
HEAD = "from dataclasses import dataclass\nfrom blender_jobs.job import Job\n@dataclass\nclass Base(Job):\n"


def checked(path: Path) -> type[Job]:
    """Load the job and look at its members."""
    job, tree = load_job(JobSource(str(path)))
    fields.check_member_names(job, sources_of(path, tree))
    return job


def written(folder: Path, body: str) -> Path:
    path = folder / "job.py"
    path.write_text(HEAD + textwrap.indent(body, "    "))
    return path


@pytest.mark.parametrize(
    ("body", "name", "meant"),
    [
        ("frame = range(1, 5)", "frame", "frames"),
        ("frame: range = range(1, 5)", "frame", "frames"),
        ("pases = ('depth',)", "pases", "passes"),
        ("camera = ('left', 'right')\ndef setup(self):\n    stage.camera()", "camera", "cameras"),
        ("category = ('car',)\ndef setup(self):\n    category = 1\n    print(category)", "category", "categories"),
        ("reuse_scenes = True", "reuse_scenes", "reuse_scene"),
        ("asset = 'textures'", "asset", "assets"),
        ("viewlayer = 'x'", "viewlayer", "view_layer"),
        ("@property\ndef frams(self):\n    return range(1, 5)", "frams", "frames"),
        ("def anotate(self, view):\n    return {}", "anotate", "annotate"),
        ("def randomise(self, rng):\n    pass", "randomise", "randomize"),
        ("def set_up(self):\n    pass", "set_up", "setup"),
        ("def steps(self, rng, frame):\n    pass", "steps", "step"),
    ],
)
def test_a_misspelt_member_is_refused_with_the_one_meant(body: str, name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=rf"^Base.{name} is not known to Job; did you mean '{meant}'\?") as caught:
        checked(written(tmp_path, body))
    assert "\n" not in str(caught.value)


def test_a_base_in_a_module_beside_the_job_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "own_base_of_members.py").write_text(HEAD + "    frame: int = 3\n")
    job = tmp_path / "job.py"
    job.write_text(
        "from dataclasses import dataclass\nfrom own_base_of_members import Base\n@dataclass\nclass Mine(Base):\n"
        "    extra: int = 1\n"
    )
    with pytest.raises(JobError, match=r"^Base.frame is not known"):
        checked(job)


@pytest.mark.parametrize(
    "body",
    [
        "step_size: float = 0.1\nturns: int = 3\nspread_m: float = 1.0\nstop: int = 5\nlayer: str = ''",
        "def framed(self):\n    return 1\ndef annotate(self, view):\n    return {'n': self.framed()}",
        "def setup_lights(self):\n    pass\ndef setup_scene(self):\n    pass\ndef annotation_of(self, obj):\n    pass",
        "steps: int = 10\n@property\ndef frames(self):\n    return range(1, self.steps)",
        "category: str = 'mug'\ndef annotate(self, view):\n    return {'x': self.category}",
        "frame = 7\nframes = range(1, frame)",
        "asset: str = 'a.obj'\ndef setup(self):\n    print(Base.asset)",
        "_frame = 5",
    ],
)
def test_own_members_are_left_alone(body: str, tmp_path: Path) -> None:
    job = checked(written(tmp_path, body))
    assert set(vars(job)) - set(vars(Job)), "there is something of its own to look at"


JOBS = [*(ROOT / "examples").glob("*.py"), *(ROOT / "blender_jobs" / "builtin").glob("*.py")]


@pytest.mark.parametrize("path", [path for path in JOBS if "(Job)" in path.read_text()], ids=lambda path: path.stem)
def test_the_jobs_that_come_along_have_no_such_member(path: Path) -> None:
    assert fields.member_notes(checked(path)) == []


def test_a_job_without_annotate_is_told_so(tmp_path: Path) -> None:
    job = checked(written(tmp_path, "count: int = 3"))
    assert fields.member_notes(job) == ["Base has no annotate(): its samples have no labels"]
