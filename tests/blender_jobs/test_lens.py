"""Calibrated cameras: each of a rig has its own K, in pictures, passes and annotations, and stands where it is put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.judging import eroded
from tests.blender_jobs.labels.playing import annotations, arrays, play
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

SIZE = (48, 36)
LOW, HIGH = -2.0, 2.0
BARREL = [-0.2, 0.05, 0.0, 0.0]
EYES: dict[str, tuple[list[list[float]], list[float]]] = {
    "wide": ([[60.0, 0, 22.5], [0, 50.0, 19.0], [0, 0, 1]], []),
    "high": ([[45.0, 0, 26.0], [0, 66.0, 17.25], [0, 0, 1]], []),
    "bent": ([[55.0, 0, 24.0], [0, 44.0, 18.0], [0, 0, 1]], BARREL),
}
"""K and distortion of each camera."""
PLAIN = [[48 * 50 / 36, 0, 24], [0, 48 * 50 / 36, 18], [0, 0, 1]]
"""K of a camera of 50 mm that nobody gave one."""


# --- Inside Blender -------------------------------------------------------------------------------------------


@scene
def rig(place: Path) -> Any:
    """A cube coloured by place, seen from one point by cameras of different K; "bent" began with the data of "high"."""
    import bpy

    from blender_jobs import lens, stage
    from tests.blender_jobs.labels import things

    def build() -> Any:
        things.open_stage(world=(0, 0, 0))
        for name, (K, distortion) in EYES.items():
            made = stage.camera(at=(0, -5, 0), name=name, distortion=distortion)
            if name == "bent":
                made.data = bpy.data.objects["high"].data
            lens.set_intrinsics(made, K, SIZE)
        stage.camera(at=(0, -5, 0), name="plain")
        return things.cube("target", (0, 0, 0), things.place_glow(LOW, HIGH), 2.0)

    def annotate(view: Any, target: Any) -> dict[str, Any]:
        return {"objects": [view.describe(target, "cube")]}

    members = play(build, annotate, cameras=(*EYES, "plain"), size=SIZE, samples=16)[0]
    render = bpy.context.scene.render
    said: dict[str, Any] = {"scene": [render.pixel_aspect_x, render.pixel_aspect_y]}
    for name in (*EYES, "plain"):
        np.savez(place / f"{name}.npz", **arrays(members, f"{name}."))
        said[name] = annotations(members, f"{name}.")
    alone = play(build, annotate, size=SIZE)[0]  # the scene's camera is the last one made
    return {**said, "alone": annotations(alone)}


@scene
def refused(place: Path) -> Any:
    import bpy

    from blender_jobs import lens, stage

    stage.clear()
    made, said = stage.camera(at=(0, 0, 0)), {}

    def note(name: str, attempt: Any) -> None:
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)

    note("ratio", lambda: lens.set_intrinsics(made, [[1000, 0, 1], [0, 2, 1], [0, 0, 1]], SIZE))
    for value in (1.0, [1.0], [0.5, 1.0], ["a", "b"]):
        made[lens.PIXEL_ASPECT] = value
        depsgraph = bpy.context.evaluated_depsgraph_get()
        note(f"property {value}", lambda: lens.scene_camera(bpy.context.scene, depsgraph))  # noqa: B023
    note("scaled", lambda: lens.set_pose(made, np.diag([2, 2, 2, 1])))
    note("mirrored", lambda: lens.set_pose(made, np.diag([1, 1, -1, 1])))
    note("transposed", lambda: lens.set_pose(made, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [3, 4, 5, 1]]))
    note("shape", lambda: lens.set_pose(made, np.eye(3)))
    note("no rotation", lambda: lens.set_extrinsics(made, np.ones((3, 3)), [0, 0, 0]))
    note("no numbers", lambda: lens.set_extrinsics(made, np.eye(3), ["a", "b", "c"]))
    note("two", lambda: lens.set_extrinsics(made, [1, 2], [0, 0, 0]))
    note("no camera", lambda: lens.set_pose(None, np.eye(4)))
    return said


def pose_now() -> Any:
    import bpy

    from blender_jobs import lens

    return lens.scene_camera(bpy.context.scene, bpy.context.evaluated_depsgraph_get()).as_json()["cam_to_world"]


@scene
def poses(place: Path) -> Any:
    """Random turns, quarter turns, and turns near those where Euler angles are ambiguous; with and without a parent."""
    import bpy
    from mathutils import Euler

    from blender_jobs import lens, stage

    rng = np.random.default_rng(0)
    quarters = [(x, y, z) for x in range(4) for y in range(4) for z in range(4)]
    angles = [*rng.uniform(-4, 4, (30, 3)), *(np.multiply(turn, np.pi / 2) for turn in quarters)]
    angles += [np.add(angles[-at], rng.normal(0, 1e-5, 3)) for at in range(1, 40)]
    stage.clear()
    parent, made = stage.cube("parent"), stage.camera(at=(0, 0, 0))
    parent.location, parent.rotation_euler = (1, 2, 3), (0.4, -0.3, 2)
    seen = []
    for at, turn in enumerate(angles):
        made.parent = parent if at % 2 else None
        bpy.context.view_layer.update()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.array(Euler(turn).to_matrix()), rng.uniform(-5, 5, 3)
        R, t = pose[:3, :3].T, -pose[:3, :3].T @ pose[:3, 3]
        vector = Euler(turn).to_quaternion().inverted().to_axis_angle()
        turned = np.array(vector[0]) * vector[1]
        found = []
        for put in (
            lambda pose=pose: lens.set_pose(made, pose.tolist()),
            lambda R=R, t=t: lens.set_extrinsics(made, R, t),
            lambda turned=turned, t=t: lens.set_extrinsics(made, turned.reshape(3, 1), t.reshape(3, 1)),
            lambda: lens.set_pose(made, pose_now()),
        ):
            put()
            bpy.context.view_layer.update()
            found.append(pose_now())
        seen.append({"asked": pose.tolist(), "found": found})
    return seen


@scene
def aimed(place: Path) -> Any:
    """OpenCV's axes, with no sums: one metre above the ground, looking along the world's y axis."""
    import bpy

    from blender_jobs import lens, stage
    from blender_jobs.view import View

    stage.clear()
    made, ball = stage.camera(at=(0, 0, 0)), stage.cube("target", 0.1)
    ball.location = (0.5, 4, 1.25)  # to the right and above
    bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y = SIZE
    bpy.context.scene.render.engine = "BLENDER_WORKBENCH"
    lens.set_extrinsics(made, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], [0, 1, 0])
    bpy.context.view_layer.update()
    return View(bpy.context.scene).project([(0.5, 4, 1.25)]).tolist()


# --- Judged ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lens")


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    return in_blender.play(__name__, folder)


def shown_at(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (N, 3) that a picture's pixels show, and these pixels' centres (N, 2); edges are left out."""
    lit = np.zeros(picture.shape[:2], bool)
    lit[3:-3, 3:-3] = eroded(eroded((picture > 0.05).all(axis=2)))[3:-3, 3:-3]
    rows, columns = np.nonzero(lit)
    return LOW + (HIGH - LOW) * picture[lit].astype(np.float64), np.stack([columns, rows], axis=1) + 0.5


@pytest.mark.parametrize("name", [*EYES, "plain"])
def test_each_camera_of_a_rig_has_a_k_of_its_own(seen: dict[str, Any], folder: Path, name: str) -> None:
    """In the annotations to 1e-4, and in pixels: each shows the place that K brings there, to half a pixel.

    Though cameras share their data, and though one without a K comes last.
    """
    K, distortion = EYES.get(name, (PLAIN, []))
    said = seen["rig"][name]
    assert np.array(said["camera"]["K"]) == pytest.approx(np.array(K), abs=1e-4)
    assert said["camera"]["distortion"] == distortion
    with np.load(folder / "rig" / f"{name}.npz") as found:
        picture, segmentation = found["picture"], found["segmentation"]
    places, pixels = shown_at(picture)
    assert len(places) > 150
    x, y = places[:, 0] / (places[:, 1] + 5), -places[:, 2] / (places[:, 1] + 5)
    if distortion:
        square = x * x + y * y
        bend = 1 + distortion[0] * square + distortion[1] * square**2
        x, y = x * bend, y * bend
    expected = np.stack([K[0][0] * x + K[0][2], K[1][1] * y + K[1][2]], axis=1)
    assert np.abs(expected - pixels).max() < 0.5
    assert (segmentation[tuple(pixels.astype(int).T[::-1])] == said["objects"][0]["segmentation_id"]).all()
    dark = (picture < 0.01).all(axis=2)
    assert dark.any()
    assert (segmentation[dark] == 0).all()


def test_the_scene_keeps_its_own_pixels(seen: dict[str, Any]) -> None:
    """They are for cameras without a K of their own, which are not changed by those that have one."""
    assert seen["rig"]["scene"] == [1, 1]
    assert np.array(seen["rig"]["alone"]["camera"]["K"]) == pytest.approx(np.array(PLAIN), abs=1e-4)


def test_cameras_stand_where_they_are_put(seen: dict[str, Any]) -> None:
    """By the pose that a dataset has, by OpenCV's R and t, by a rotation vector; to Blender's 32 bits."""
    assert len(seen["poses"]) > 1
    for case in seen["poses"]:
        by_pose, by_matrix, by_vector, again = map(np.array, case["found"])
        assert by_pose == pytest.approx(np.array(case["asked"]), abs=2e-5)
        assert by_matrix == pytest.approx(np.array(case["asked"]), abs=2e-5)
        assert by_vector == pytest.approx(np.array(case["asked"]), abs=1e-4)  # mathutils' angle is as inexact
        assert again == pytest.approx(by_vector, abs=2e-5)


def test_extrinsics_are_opencvs(seen: dict[str, Any]) -> None:
    """What is to the right and above is so in the image: 24 + 66.67 / 8 and 18 - 66.67 / 16."""
    assert seen["aimed"][0][:2] == pytest.approx([24 + 200 / 24, 18 - 200 / 48], abs=1e-3)


def test_what_cannot_be_is_refused_in_one_line(seen: dict[str, Any]) -> None:
    said = dict(seen["refused"])
    assert said.pop("ratio") == "K has fx = 1000 and fy = 2: Blender's pixels are at most 200 times as long"
    parts = {
        "scaled": "cam_to_world is no rotation: its rows must have length 1",
        "mirrored": "cam_to_world mirrors",
        "transposed": "is it transposed?",
        "shape": "cam_to_world must be finite, of shape (4, 4), not (3, 3)",
        "no rotation": "R is no rotation",
        "no numbers": "t must be numbers of shape (3,)",
        "two": "R must be finite, of shape (3, 3), not (2,)",
        "no camera": "set_pose(): expected the object of a camera, got None",
    }
    assert {name: part in said.pop(name) for name, part in parts.items()} == dict.fromkeys(parts, True)
    expected = "camera 'camera': its property opencv_pixel_aspect must be 2 numbers from 1 to 200"
    assert set(said.values()) == {expected}
    assert len(said) == 4
