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
