"""A job that lets objects pile up in a reused scene is told so at once; one that keeps them on purpose is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import TINY, ok, run, write_job
from tests.in_blender import needs_bpy, play, scene

PILING = """
reuse_scene = True
frames: range = range(1, 2)

def randomize(self, rng):
    print("Time: to randomize")
    self.thing = stage.cube("thing")

def annotate(self, view):
    return {"objects": [view.describe(self.thing, category="thing")]}
"""

ADVICE = (
    "; make them in setup() and only change them in randomize(), or remove them there first:"
    " bpy.data.objects.remove(obj)"
)


def _new(job: Any) -> Any:
    from blender_jobs import stage

    job.mine.append(stage.cube(f"thing{len(job.mine)}"))
    return job.mine[-1]


def _keep_all(job: Any) -> list[Any]:
    """It grows on purpose."""
    _new(job)
    return list(job.mine)


def _pile_up(job: Any) -> list[Any]:
    return [_new(job)]


def _pile_up_lamps(job: Any) -> list[Any]:
    from blender_jobs import lights

    job.mine.append(lights.point(at=(0, 0, 3)))
    return [job.cube]


def _hide(job: Any) -> list[Any]:
    """A pool that grows as it is needed."""
    for thing in job.mine:
        thing.hide_render = True
    return [_new(job)]


def _remove(job: Any) -> list[Any]:
    import bpy

    while job.mine:
        bpy.data.objects.remove(job.mine.pop())
    return [_new(job)]


def _make_once(job: Any) -> list[Any]:
    """Of what is described, and of what is not."""
    if not job.mine:
        _new(job), _new(job)
    return job.mine[:1]


def _take_out(job: Any) -> list[Any]:
    """From the scene alone: it is still in the file."""
    import bpy

    for thing in job.mine:
        if thing.name in bpy.context.scene.collection.objects:
            bpy.context.scene.collection.objects.unlink(thing)
    return [_new(job)]


WAYS = {way.__name__: way for way in (_keep_all, _pile_up, _pile_up_lamps, _hide, _remove, _make_once, _take_out)}


@scene
def jobs_that_reuse_their_scene(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The notes of each episode's sample."""
    from blender_jobs import stage
    from blender_jobs._worker.episode import Player
    from blender_jobs.job import Job
    from blender_jobs.orders import Described, EpisodeOrder, JobSource, Render, RenderSettings, SampleOrder

    @dataclass
    class Reusing(Job):
        way: str
        reuse_scene = True

        def setup(self) -> None:
            self.cube, self.mine = stage.cube("cube"), list[Any]()
            stage.camera(at=(4, -4, 3))

        def randomize(self, rng: Any) -> None:
            self.shown = WAYS[self.way](self)

        def annotate(self, view: Any) -> dict[str, Any]:
            return {"objects": [view.describe(thing, "thing") for thing in self.shown]}

    settings = RenderSettings("workbench", 0, 16, 12, "png", 100)
    described = Described("Reusing", "", "", {}, {}, [1], True, {})
    order = Render(JobSource(__file__), described, 0, settings, 1, [])
    found: dict[str, list[dict[str, str]]] = {}
    for way in WAYS:
        player, found[way] = Player(Reusing, {"way": way}, order, folder), []
        for episode in range(3):
            for _ in player.play(EpisodeOrder(episode, [SampleOrder(f"000000-{episode:06d}", 1)])):
                found[way].append(player.notes)
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = play(__name__, tmp_path_factory.mktemp("reused"))[
        "jobs_that_reuse_their_scene"
    ]
    return found


@needs_bpy
def test_what_piles_up_is_named_from_the_second_episode_on(seen: dict[str, list[dict[str, str]]]) -> None:
    said = "reuse_scene: objects that randomize() makes pile up: {} of earlier episodes are still shown, no"
    said += " annotation describes them ({}), and 1 new ones come on top" + ADVICE
    assert seen["_pile_up"] == [
        {},
        {"reuse_scene": said.format(1, "thing0")},
        {"reuse_scene": said.format(2, "thing0, thing1")},
    ]
    assert [len(notes) for notes in seen["_pile_up_lamps"]] == [0, 1, 1]


@needs_bpy
@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"_pile_up", "_pile_up_lamps"}))
def test_what_a_job_keeps_on_purpose_is_no_fault(way: str, seen: dict[str, list[dict[str, str]]]) -> None:
    assert seen[way] == [{}, {}, {}]


@pytest.mark.slow
def test_a_build_and_a_replay_tell_it_once(tmp_path: Path) -> None:
    """At once on stderr, and with the result, though each shard has it."""
    job, out = write_job(tmp_path, PILING), tmp_path / "out"
    plan = [job, *TINY, "--passes", "depth", "--samples-per-shard", 3, "--shards", 2, "--out", out]
    done = run(*plan, "--instances", 1, "--json")
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(done.stdout)["notes"]
    assert note.startswith("reuse_scene: ")
    assert done.stderr.count(f"Note: {note}\n") == 1
    assert done.stderr.index("Note: ") < done.stderr.index("shards 2/2")
    again = run("replay", out, "--episode", 2, "--out", tmp_path / "episode")
    assert again.stderr.count("Note: reuse_scene: ") == 1
    assert again.stderr.count("Time: to randomize\n") == 3
    assert "Fra:" not in again.stderr, "the progress of the passes' render"
    (out / "job-train-000001.tar").unlink()
    said = ok(*plan)
    assert said.count(f"Note: {note}\n") == 1
