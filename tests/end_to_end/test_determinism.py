"""The promise: the same plan gives the same bytes, however it was rendered."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from blender_jobs.passes import PASSES
from loaders import ShardDataset
from loaders._decode import field_name
from loaders.manifest import Manifest
from loaders.tarstream import read_samples
from tests.commands import TINY, annotations, digests, ok, start, write_job

# Two episodes a shard, the second of them cut; four shards, so that three instances have some.
PLAN = ["falling_cubes", "--samples-per-shard", "7", "--size", "80x60", "--seed", "7"]
ENGINES = {
    "workbench": [*PLAN, "--engine", "workbench"],
    "cycles": [*PLAN, "--engine", "cycles", "--render-samples", "2"],
}
FOUR = ["--shards", 4]


@pytest.fixture(scope="module", params=ENGINES)
def plan(request: pytest.FixtureRequest) -> list[str]:
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def reference(plan: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shards' digests as one instance makes them."""
    out = tmp_path_factory.mktemp("reference") / "out"
    ok(*plan, *FOUR, "--instances", 1, "--out", out)
    assert len(digests(out)) == 4
    return digests(out)


@pytest.mark.slow
def test_number_of_instances_changes_no_byte(plan: list[str], reference: dict[str, str], tmp_path: Path) -> None:
    """Three here, two in the next test, against one."""
    ok(*plan, *FOUR, "--instances", 3, "--out", tmp_path / "out")
    assert digests(tmp_path / "out") == reference


@pytest.mark.slow
def test_kill_of_the_whole_group_changes_no_byte(plan: list[str], reference: dict[str, str], tmp_path: Path) -> None:
    """While instances start, and while shards are written."""
    out = tmp_path / "out"
    chance = random.Random(20)
    killed = 0
    for rendering in (False, True, True):
        process = start(*plan, *FOUR, "--instances", 2, "--out", out)
        if rendering:
            _begun(process, out)
        time.sleep(chance.uniform(0, 0.6))
        killed += process.poll() is None
        _kill_group(process.pid)
        process.communicate()
    assert killed > 1, "runs were over before they were killed"
    ok(*plan, *FOUR, "--instances", 2, "--out", out)
    assert digests(out) == reference
    assert sorted(path.name for path in out.glob("*.*")) == ["dataset.json", *sorted(reference)]


def _begun(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until a shard is being written."""
    end = time.monotonic() + 60
    while process.poll() is None and not list(out.glob("*.tar.part")):
        assert time.monotonic() < end, "no shard was begun"
        time.sleep(0.02)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["workbench"], indirect=True)
def test_recycling_and_extending_change_no_byte(plan: list[str], reference: dict[str, str], tmp_path: Path) -> None:
    ok(*plan, "--shards", 1, "--out", tmp_path / "out", "--recycle", 1)
    ok(*plan, *FOUR, "--out", tmp_path / "out", "--recycle", 2)
    assert digests(tmp_path / "out") == reference


@pytest.mark.slow
def test_jobs_that_draw_elsewhere_or_leak_state_still_repeat(tmp_path: Path) -> None:
    """The scene is rebuilt for each episode, and the global generators are seeded as a safety net."""
    job = write_job(
        tmp_path,
        """
        def randomize(self, rng):
            self.cube.rotation_euler = np.random.uniform(-3, 3, 3)
            if random.random() < 0.5:
                self.cube.scale = (1, 1, 2)  # never set back
                stage.cube("another").location = (0, 0, random.uniform(1, 2))
        """,
    )
    for instances in (1, 3):
        ok(
            job,
            *TINY,
            "--shards",
            3,
            "--samples-per-shard",
            9,
            "--instances",
            instances,
            "--out",
            tmp_path / f"{instances}",
        )
    assert digests(tmp_path / "1") == digests(tmp_path / "3")
    assert len(set(digests(tmp_path / "1").values())) == 3


@pytest.mark.slow
def test_a_reused_scene_begins_afresh_with_each_shard(tmp_path: Path) -> None:
    """With `reuse_scene` physics still runs anew in each episode, and the shard repeats."""
    job = write_job(
        tmp_path,
        """
        reuse_scene = True

        def randomize(self, rng):
            if not self.cube.rigid_body:
                stage.ground()
                stage.rigid_body(self.cube)
            self.cube.location = rng.uniform((-1, -1, 1), (1, 1, 3))
        """,
    )
    plan = [job, *TINY, "--set", "frames=1:20:6", "--samples-per-shard", 12]
    ok(*plan, "--shards", 3, "--instances", 1, "--out", tmp_path / "one")
    ok(*plan, "--shards", 3, "--instances", 3, "--out", tmp_path / "three")
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(set(digests(tmp_path / "one").values())) == 3
    heights = [entry["objects"][0]["matrix_world"][2][3] for entry in annotations(tmp_path / "one")]
    assert all(first > last for first, last in zip(heights[0::4], heights[3::4], strict=True)), "it falls each time"


COPIES = """
passes = ("depth", "segmentation", "nocs", "flow")
view_layer = "Wanted"

def setup(self):
    import bpy
    scene = bpy.context.scene
    stage.ground(20)
    stage.sun()
    stage.camera(at=(6, -6, 5), look_at=(0, 0, 0.5))
    self.cube = stage.cube("cube", physics="active")
    self.leaf = stage.cube("leaf", 0.3)
    kit = bpy.data.collections.new("kit")
    scene.collection.objects.unlink(self.leaf)
    kit.objects.link(self.leaf)
    self.empties = [stage.link(bpy.data.objects.new(f"empty{n}", None)) for n in range(3)]
    for empty in self.empties:
        empty.instance_type, empty.instance_collection = "COLLECTION", kit
    emitter = stage.ground(3)
    emitter.name, emitter.location.z = "emitter", 0.1
    emitter.modifiers.new("leaves", "PARTICLE_SYSTEM")
    grown = emitter.particle_systems[0].settings
    grown.count, grown.frame_end, grown.render_type, grown.instance_object = 20, 3, "OBJECT", self.leaf
    grown.particle_size = 0.5
    away = bpy.data.collections.new("away")
    scene.collection.children.link(away)
    wall = stage.cube("wall", 3)
    scene.collection.objects.unlink(wall)
    away.objects.link(wall)
    wanted = scene.view_layers.new("Wanted")
    wanted.layer_collection.children["away"].exclude = True

def randomize(self, rng):
    self.cube.location = rng.uniform((-1, -1, 1), (1, 1, 3))
    for empty in self.empties:
        empty.location = rng.uniform((-2, -2, 0.3), (2, 2, 2))

def annotate(self, view):
    copies = [view.describe(copy, "leaf", keypoints=()) for copy in view.copies(self.leaf)]
    return {"objects": [view.describe(self.cube, "cube"), *copies]}
"""


@pytest.mark.slow
def test_copies_and_layers_repeat_whatever_happens(tmp_path: Path) -> None:
    """Collection instances and particles among physics, in one of two view layers, with flow; killed on the way."""
    plan = [write_job(tmp_path, COPIES), *TINY, "--samples-per-shard", 6, "--shards", 3]
    ok(*plan, "--instances", 1, "--out", tmp_path / "one")
    process = start(*plan, "--instances", 2, "--out", tmp_path / "two")
    _begun(process, tmp_path / "two")
    _kill_group(process.pid)
    process.communicate()
    ok(*plan, "--instances", 2, "--out", tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    for sample in annotations(tmp_path / "one"):
        assert len(sample["objects"]) > 4
        assert {entry["name"] for entry in sample["objects"]} >= {"cube", "leaf:0", "leaf:1", "leaf:2"}
        assert sum(entry["visible_pixels"] for entry in sample["objects"][1:]) > 20


ALL_PASSES = """
cameras = ("left", "right")
categories = ("cube",)
frames: range = range(1, 4)

def setup(self):
    stage.ground()
    self.cube = stage.cube("cube", physics="active")
    self.fixed = stage.cube("fixed", size_m=0.5)
    for name, x in (("left", 4), ("right", 4.2)):
        stage.camera(at=(x, -4, 3)).name = name

def randomize(self, rng):
    self.cube.location = (*rng.uniform(-1, 1, 2), 2)
    self.cube.rotation_euler = rng.uniform(-3, 3, 3)

def step(self, rng, frame):
    self.fixed.location = (*rng.uniform(-1, 1, 2), 0.3)

def annotate(self, view):
    return {"objects": [view.describe(entry, category="cube") for entry in (self.cube, self.fixed)]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["--engine", "workbench", "--render-samples", "0"], ["--render-samples", "1"]])
def test_every_pass_and_camera_repeats(engine: list[str], tmp_path: Path) -> None:
    job = write_job(tmp_path, ALL_PASSES)
    plan = [job, "--shards", 2, "--samples-per-shard", 4, "--size", "64x48", *engine, "--passes", ",".join(PASSES)]
    ok(*plan, "--instances", 1, "--out", tmp_path / "alone")
    process = start(*plan, "--instances", 2, "--out", tmp_path / "killed")
    _begun(process, tmp_path / "killed")
    _kill_group(process.pid)
    process.communicate()
    ok(*plan, "--instances", 2, "--out", tmp_path / "killed")
    assert digests(tmp_path / "alone") == digests(tmp_path / "killed")
    found = members_of(tmp_path / "alone" / "job-train-000001.tar")
    assert len(found) == 2 * (3 + len(PASSES) + 1)  # flow has two members
    _check_decoded(tmp_path / "alone")


def _check_decoded(folder: Path) -> None:
    """Every array is read as the manifest's schema says."""
    members = Manifest.load(folder).schema["members"]
    samples = list(ShardDataset(folder, output="numpy", image_layout="HWC"))
    assert len(samples) == 8
    for sample in samples:
        for name, said in members.items():
            array = sample[field_name(name)]
            if "shape" in said:
                assert array.dtype == said["dtype"]
                assert all(side in (None, real) for side, real in zip(said["shape"], array.shape, strict=True))


FALLING = """
cameras = ("left", "right")
frames: range = range(1, 9)

def setup(self):
    stage.ground()
    self.cubes = [stage.cube(f"cube{at}", physics="active") for at in range(5)]
    for name, x in (("left", 4), ("right", 4.2)):
        stage.camera(at=(x, -4, 3)).name = name

def randomize(self, rng):
    for at, cube in enumerate(self.cubes):
        cube.location = (*rng.uniform(-1, 1, 2), 0.8 + 1.1 * at)
        cube.rotation_euler = rng.uniform(-3, 3, 3)

def annotate(self, view):
    return {"objects": [view.describe(cube, category="cube") for cube in self.cubes]}
"""


def test_physics_does_not_feel_what_is_rendered(tmp_path: Path) -> None:
    job = write_job(tmp_path, FALLING)
    plan = [job, "--shards", 1, *TINY, "--passes", "depth,normals,flow", "--set"]
    ok(*plan, "frames=1:9", "--samples-per-shard", 8, "--out", tmp_path / "each")
    ok(*plan, "frames=8:9", "--samples-per-shard", 1, "--out", tmp_path / "last")
    poses = [
        [entry["matrix_world"] for entry in view["objects"]]
        for out in ("each", "last")
        for view in last_views(tmp_path / out / "job-train-000000.tar")
    ]
    assert poses[0] == poses[1] == poses[2] == poses[3]


def last_views(shard: Path) -> list[dict[str, Any]]:
    with shard.open("rb") as file:
        members = list(read_samples(file))[-1].members
    return [json.loads(members[f"{camera}.json"]) for camera in ("left", "right")]


def members_of(shard: Path) -> list[str]:
    with shard.open("rb") as file:
        return list(next(iter(read_samples(file))).members)
