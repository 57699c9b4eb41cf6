"""What `stage` builds is where it was put, and light replaces light."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy


@scene
def aimed(folder: Path) -> Any:
    import bpy

    from blender_jobs import stage

    stage.clear()
    found = {}
    for roll in (0, 30):
        camera = stage.camera(at=(3, -4, 5), look_at=(1, 1, 1))
        stage.point_at(camera, (1, 1, 1), roll=roll)
        bpy.context.view_layer.update()
        found[roll] = np.array(camera.matrix_world.to_3x3()).tolist()
    return found


@scene
def skies(folder: Path) -> Any:
    """Around a white cube an HDRI that is red where its middle is, towards x, else green; the camera looks along y."""
    import bpy

    from blender_jobs import assets, lights, stage

    stage.clear()
    assets.begin(folder)
    image = bpy.data.images.new("glow", 8, 4, float_buffer=True)
    row = [(1, 0, 0, 1) if column in (3, 4) else (0, 1, 0, 1) for column in range(8)]
    image.pixels.foreach_set(np.tile(np.ravel(row), 4).astype(np.float32))
    image.filepath_raw, image.file_format = str(folder / "glow.hdr"), "HDR"
    image.save()
    bpy.data.images.remove(image)

    stage.paint(stage.cube("cube"), (1, 1, 1), matte=True)
    stage.camera(at=(0, -4, 0), look_at=(0, 0, 0))
    skies = {
        "sky": lambda: stage.sky(rgb=(0, 0, 1), strength=1),
        "hdri": lambda: lights.hdri("glow.hdr"),
        "left": lambda: lights.hdri("glow.hdr", rotation=90, strength=2),
        "right": lambda: lights.hdri("glow.hdr", rotation=-90),
        "hidden": lambda: lights.hdri("glow.hdr", background=(0, 0, 1)),
        "sky again": lambda: stage.sky(rgb=(0, 0, 1), strength=1),
    }
    seen = {}
    for name, light in skies.items():
        light()
        seen[name] = edge_and_middle(folder)
    return {"seen": seen, "images": [entry.name for entry in bpy.data.images if entry.source == "FILE"]}


@scene
def copies(folder: Path) -> Any:
    """A cube that moves, and a copy of it that moves elsewhere; a pair of falling ones; a plate that carries."""
    import bpy

    from blender_jobs import stage
    from blender_jobs.job import JobError

    def track(*objects: Any) -> list[list[list[float]]]:
        found = []
        for frame in (1, 3, 6, 11, 20):
            bpy.context.scene.frame_set(frame)
            found.append([[round(value, 5) for value in obj.matrix_world.translation] for obj in objects])
        return found

    stage.clear()
    first = stage.cube("first")
    stage.move(first, {11: (9, 9, 9), 50: (7, 7, 7)})
    stage.move(first, {np.int64(1): (0, 0, 0), 11: np.array([10, 0, 5])})
    begins = list(first.location)
    second = stage.copy(first, "second")
    inherited = track(first, second)
    stage.move(second, {1: (1, 1, 1), 6: (2, 2, 2)}, interpolation="CONSTANT")
    moved = track(first, second)
    shared = [first.data == second.data, first.name, second.name, second.users_collection[0].name]
    third = stage.cube("third")
    third.location = (1, 2, 3)
    stage.move(third, {1: third.location, 6: (9, 9, 9)})
    live = [list(third.location), track(third)]
    errors = []
    for attempt in (lambda: stage.move(first, {}), lambda: stage.move(first, {1: (0, 0, 0)}, "LINAER")):
        with pytest.raises(JobError) as error:
            attempt()
        errors.append(str(error.value))

    stage.clear()
    stage.ground()
    falling = stage.cube("falling", 1.0, "active", mass_kg=2.5)
    other = stage.copy(falling, "other")
    falling.location, other.location = (-3, 0, 3), (3, 0, 4)
    plate = stage.cube("plate", 1.0, "passive")
    plate.location = (8, 0, 2)
    load = stage.cube("load", 1.0, "active", friction=1.0)
    load.location = (8, 0, 3)
    stage.move(plate, {1: (8, 0, 2), 100: (10, 0, 2)})
    for frame in range(1, 101):
        bpy.context.scene.frame_set(frame)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    rest = {
        obj.name: list(obj.evaluated_get(depsgraph).matrix_world.translation) for obj in (falling, other, plate, load)
    }
    return {
        "begins": begins,
        "inherited": inherited,
        "moved": moved,
        "live": live,
        "shared": shared,
        "errors": errors,
        "mass": other.rigid_body.mass,
        "rest": rest,
    }


def edge_and_middle(folder: Path) -> list[list[float]]:
    """What Cycles shows, linear RGB: the middle of the left edge, and of the picture."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.render.resolution_x, scene.render.resolution_y = 16, 8
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(folder / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(16 * 8 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    rows = pixels.reshape(8, 16, 4)[4, :, :3]
    return [rows[0].tolist(), rows[8].tolist()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_a_camera_looks_where_it_is_pointed(seen: dict[str, Any]) -> None:
    """-z goes to the target; without roll x is level; roll turns counter-clockwise as seen from behind."""
    level, rolled = (np.array(seen["aimed"][roll]) for roll in ("0", "30"))
    towards = np.array([-2, 5, -4]) / math.sqrt(45)
    assert -level[:, 2] == pytest.approx(towards, abs=1e-6)
    assert -rolled[:, 2] == pytest.approx(towards, abs=1e-6)
    assert level[2, 0] == pytest.approx(0, abs=1e-6)
    assert level[2, 1] > 0
    turn = math.radians(30)
    assert rolled[:, 0] == pytest.approx(math.cos(turn) * level[:, 0] + math.sin(turn) * level[:, 1], abs=1e-6)


def test_an_hdri_lights_turns_and_hides(seen: dict[str, Any]) -> None:
    """An HDRI is seen and lights, turns counter-clockwise, can be hidden from the camera, and a sky replaces it."""
    edges, middles = ({name: rows[at] for name, rows in seen["skies"]["seen"].items()} for at in (0, 1))
    assert edges["hdri"] == pytest.approx([0, 1, 0], abs=0.01)
    assert edges["left"] == pytest.approx([2, 0, 0], abs=0.01)  # the red came from x to y
    assert edges["right"] == pytest.approx([0, 1, 0], abs=0.01)
    assert edges["hidden"] == pytest.approx([0, 0, 1], abs=0.01)
    assert middles["hidden"] == pytest.approx(middles["hdri"], abs=0.01)
    assert middles["right"][0] > 0.5  # lit by the red behind the camera
    assert edges["sky"] == edges["sky again"] == pytest.approx([0, 0, 1], abs=0.01)
    assert middles["sky again"] == middles["sky"]
    assert seen["skies"]["images"] == []


def test_things_are_where_they_are_moved(seen: dict[str, Any]) -> None:
    """At even speed, or in jumps; at the last place from then on; a second path replaces the first.

    Where it is, ``obj.location``, may be given as one of its places, though that is Blender's own, which moves along.
    """
    assert seen["copies"]["begins"] == [0, 0, 0]
    paths = np.array(seen["copies"]["moved"])
    assert paths[:, 0] == pytest.approx(np.outer([0, 0.2, 0.5, 1, 1], [10, 0, 5]), abs=1e-5)
    assert paths[:, 1] == pytest.approx(np.outer([1, 1, 2, 2, 2], [1, 1, 1]), abs=1e-5)
    began, path = seen["copies"]["live"]
    assert began == path[0][0] == [1, 2, 3]
    assert path[-1][0] == [9, 9, 9]
    no_places, no_such = seen["copies"]["errors"]
    assert no_places == "move: no places for 'first'; give at least one, as {1: (0, 0, 0)}"
    assert no_such == "move: interpolation is 'LINAER', which must be LINEAR, BEZIER or CONSTANT"


def test_a_copy_shares_the_mesh_and_nothing_else(seen: dict[str, Any]) -> None:
    """It moves as the first does until it is moved itself, and falls as a body of its own."""
    inherited = np.array(seen["copies"]["inherited"])
    assert (inherited[:, 0] == inherited[:, 1]).all()
    assert seen["copies"]["shared"] == [True, "first", "second", "Scene Collection"]
    assert seen["copies"]["mass"] == 2.5
    rest = seen["copies"]["rest"]
    assert rest["falling"] == pytest.approx([-3, 0, 0.5], abs=0.1)
    assert rest["other"] == pytest.approx([3, 0, 0.5], abs=0.1)


def test_a_moved_body_carries_others(seen: dict[str, Any]) -> None:
    """Physics does not hold it where it was."""
    assert seen["copies"]["rest"]["plate"] == pytest.approx([10, 0, 2], abs=1e-4)
    assert seen["copies"]["rest"]["load"][0] == pytest.approx(10, abs=0.3)
