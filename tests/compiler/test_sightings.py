"""What never comes into view, and episodes in which nothing does, are counted, named, and told at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import NothingInView
from compiler.planning.sightings import Sightings
from tests.commands import TINY, digests, ok, run, write_job
from tests.planned_dataset import Recipe, make
from tests.scripts import fakes

REQUIRED = ["--require-objects"]
ADDRESS = "http://127.0.0.1:0"

ASIDE = """
frames: range = range(1, 3)

def setup(self):
    self.cube = stage.cube("cube")
    self.lost = stage.cube("lost")
    self.lost.location = (0, 0, 900)
    stage.sun()
    stage.camera(at=(4, -4, 3))

def randomize(self, rng):
    self.cube.location.z = 500 if rng.uniform() < 0.5 else 0

def annotate(self, view):
    objects = [view.describe(self.cube, category="cube"), view.describe(self.lost, category="cube")]
    for entry in objects:
        entry["keypoints"] += [-5.0, -5.0, 0.0]
        entry["keypoint_depths"] += [1.0]
        entry["keypoint_names"] += ["tip"]
    return {"objects": objects}
"""
"""The cube is in view in some episodes, the other cube and the cubes' tips never."""


def fake(*args: object) -> subprocess.CompletedProcess[str]:
    """Run the command with the stand-in for Blender, which describes no object."""
    line = [sys.executable, fakes.SCRIPT, *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def entry(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "category": "cube", "keypoints": [], "keypoint_depths": [], **fields}


def view(episode: int, *objects: dict[str, Any]) -> dict[str, Any]:
    return {"episode": episode, "objects": list(objects)}


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"bbox": [0.0, 0.0, 0.0, 0.0]}, False),
        ({"bbox": [3.0, 0.0, 1.0, 0.0]}, True),
        ({"bbox": [3.0, 0.0, 1.0, 1.0], "visible_pixels": 0}, False),
        ({"bbox": [3.0, 0.0, 1.0, 1.0], "visible_pixels": 7}, True),
        ({"keypoints": [1.0, 1.0, 0]}, False),
        ({"keypoints": [1.0, 1.0, 1]}, True),
        ({}, True),
    ],
)
def test_when_an_object_is_in_view(fields: dict[str, Any], seen: bool) -> None:
    sightings = Sightings()
    sightings.add(view(4, entry(**fields)))
    assert sightings.objects == {"a": seen}
    assert sightings.episodes == {4: seen}


def test_once_in_view_in_any_camera_and_sample_is_enough() -> None:
    away, here = entry(bbox=[0, 0, 0, 0]), entry(bbox=[0, 0, 2, 2], keypoints=[0, 0, 0, 5, 5, 1])
    sightings = Sightings()
    for objects in ([away], [here], [away]):
        sightings.add(view(1, *objects))
    sightings.add(view(2, away))
    sightings.add(view(3))
    assert list(sightings.notes()) == [
        "2 of 3 episodes have no object in view: 2, 3",
        "1 of 2 keypoints are never in view: cube.0",
    ]
    assert sightings.as_json()["episodes_with_nothing_in_view"] == [2, 3]


def test_samples_without_any_object_are_told_once_for_all() -> None:
    sightings = Sightings()
    assert not list(sightings.notes()), "nothing was rendered"
    for episode in (1, 2):
        sightings.add(view(episode))
    assert list(sightings.notes("here")) == ["no sample has any object here: annotate() returns none under 'objects'"]
    assert not any(sightings.as_json().values())
    sightings.add(view(3, entry(bbox=[0, 0, 2, 2])))
    assert list(sightings.notes()) == ["2 of 3 episodes have no object in view: 1, 2"]


def test_a_dataset_without_labels_is_told_so_by_build_and_verify(tmp_path: Path) -> None:
    job, out = write_job(tmp_path, "def annotate(self, view):\n    return {'objects': []}"), tmp_path / "out"
    said = "Note: no sample has any object: annotate() returns none under 'objects'\n"
    assert said in ok(job, *TINY, "--samples-per-shard", 3, "--shards", 1, "--out", out)
    assert said in ok("verify", out)


NO_LABELS = "no sample has any object: annotate() returns none under 'objects', but --require-objects needs one in view"


@pytest.mark.parametrize("shards", [1, 0])
def test_whoever_requires_objects_hears_of_a_live_build_without_any(shards: int) -> None:
    """Without end, too: as soon as a shard is done. The stand-in for Blender describes nothing."""
    done = fake(
        "build", "cube", "--samples-per-shard", 6, "--live-only", "--live", ADDRESS, "--shards", shards, *REQUIRED
    )
    assert done.returncode == 3
    assert f"Error: cube: {NO_LABELS}\nTry: fix annotate()" in done.stderr


def test_whoever_requires_objects_hears_of_a_dataset_without_any(tmp_path: Path) -> None:
    """The samples are there nevertheless; rendered before or now."""
    out = tmp_path / "out"
    plan = ["build", "cube", "--samples-per-shard", 6, "--shards", 2, "--out", out]
    for word, rendered in (("--json", 12), ("--json", 0)):
        done = fake(*plan, *REQUIRED, word)
        assert done.returncode == 3
        assert f"Error: {out}: {NO_LABELS}\n" in done.stderr
        assert json.loads(done.stdout)["samples_rendered"] == rendered
    assert len(digests(out)) == 2
    assert fake(*plan).returncode == 0


def test_verify_tells_whoever_requires_objects(tmp_path: Path) -> None:
    make(tmp_path, Recipe(objects=0))
    assert ok("verify", tmp_path).endswith(": ok\n")
    done = run("verify", tmp_path, *REQUIRED)
    assert (done.returncode, done.stdout.endswith(": ok\n")) == (3, True)
    assert f"Error: {tmp_path}: {NO_LABELS}\n" in done.stderr


def test_objects_that_are_never_in_view_are_as_good_as_none() -> None:
    sightings = Sightings()
    sightings.add(view(0, entry("a", bbox=[0, 0, 0, 0]), entry("b", bbox=[0, 0, 0, 0])))
    with pytest.raises(NothingInView, match=r"^out: none of 2 objects is in view in any sample, but --require-objects"):
        sightings.check_objects("out")
    sightings.add(view(7, entry("b", bbox=[0, 0, 1, 1])))
    sightings.check_objects("out")


VIEWS = st.lists(
    st.builds(
        lambda episode, names: view(episode, *(entry(name, bbox=[0, 0, size, size]) for name, size in names)),
        st.integers(0, 3),
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), max_size=3),
    )
)


@given(VIEWS, VIEWS)
def test_the_order_does_not_matter_and_twice_is_once(one: list[Any], other: list[Any]) -> None:
    whole, first, second = Sightings(), Sightings(), Sightings()
    for sightings, views in ((whole, [*other, *one, *other]), (first, one), (second, other)):
        for each in views:
            sightings.add(each)
    first.merge(second)
    first.merge(second)
    assert first == whole


def test_builds_and_verify_tell_of_the_whole_dataset(tmp_path: Path) -> None:
    """Also where a part of it was rendered by an earlier run."""
    job, out = write_job(tmp_path, ASIDE), tmp_path / "out"
    plan = [job, *TINY, "--samples-per-shard", 8, "--out", out, *REQUIRED]
    first = ok(*plan, "--shards", 1)
    assert "Note: 1 of 2 objects are never in view: lost\n" in first
    assert "Note: 1 of 9 keypoints are never in view: cube.tip\n" in first
    both = run(*plan, "--shards", 2, "--json")
    assert both.returncode == 0, both.stderr
    told = json.loads(both.stdout)
    verified = json.loads(ok("verify", out, "--json", *REQUIRED))
    for name in ("episodes_with_nothing_in_view", "objects_never_in_view", "keypoints_never_in_view"):
        assert told[name] == verified[name]
    empty = verified["episodes_with_nothing_in_view"]
    assert min(empty) < 4 <= max(empty)
    assert len(empty) < 8
    said = ok("verify", out)
    assert f"Note: {len(empty)} of 8 episodes have no object in view: {empty[0]}" in said
    assert "Note: 1 of 2 objects are never in view: lost\n" in said
    again = ok(*plan, "--shards", 2)
    assert "Note: " not in again, "nothing was rendered, nothing is read"


def test_pixels_outside_a_box_are_counted_once() -> None:
    """A pixel around the box is no fault; what is added twice changes nothing."""
    segmentation = np.zeros((10, 12), dtype=np.uint16)
    segmentation[2:6, 3:8] = 1
    right = entry("right", segmentation_id=1, bbox=[3.2, 2.2, 4.5, 3.5], visible_pixels=20)
    wrong = entry("wrong", segmentation_id=1, bbox=[3.0, 2.0, 2.0, 4.0], visible_pixels=20)
    nowhere = entry("nowhere", segmentation_id=1, bbox=[0.0, 0.0, 0.0, 0.0], visible_pixels=20)
    seen = Sightings()
    for _ in range(2):
        seen.add(view(0, right, wrong, nowhere), segmentation)
    assert seen.strays == {"wrong": 8, "nowhere": 20}
    assert seen.as_json()["objects_seen_outside_their_boxes"] == ["nowhere", "wrong"]
    assert "2 of 3 objects are seen outside their boxes, by up to 20 pixels: nowhere, wrong" in list(seen.notes())[-1]
