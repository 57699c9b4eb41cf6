"""One rule for pixels on an edge: with nothing before a thing, as many pixels show it as it covers; never more.

Walls have edges that run through pixels' centres exactly, nearly, or not; the pixels are those that the passes' render
shows, and arithmetic says between which numbers they must lie. Mirrored things: what holds of pose and box.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.playing import annotations, arrays, play
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

PIXEL = 0.1
"""Metres, in the orthographic scenes."""
SIZES = ((48, 36), (41, 30), (96, 64), (33, 45))
OFFSETS = (0.5, 0.0, 0.25, 0.5 + 1e-7, 0.5 - 1e-7, 0.4999)
"""Of a wall's edges, from a pixel's outer corner; 0.5 is its centre."""


def in_pixels(size: tuple[int, int], x: float, y: float) -> tuple[float, float, float]:
    """The place before an orthographic camera at a pixel's coordinates."""
    return (x - size[0] / 2) * PIXEL, 0.0, (size[1] / 2 - y) * PIXEL


def pane(name: str, size: tuple[int, int], box: tuple[float, float, float, float], depth: float = 0.0) -> Any:
    """A wall that covers a box of the image: left, top, right, bottom, pixels."""
    from blender_jobs import stage

    ends = [in_pixels(size, x, y) for x, y in ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]))]
    return stage.mesh(name, [(x, depth, z) for x, _, z in ends], [(0, 1, 2, 3)])


def orthographic(size: tuple[int, int]) -> None:
    from tests.blender_jobs.labels import things

    camera = things.open_stage().camera
    camera.data.type, camera.data.ortho_scale = "ORTHO", max(size) * PIXEL


def panes(size: tuple[int, int]) -> tuple[list[Any], dict[str, tuple[float, float, float, float]]]:
    """Walls in the open, 5 to 7 pixels large, and two that touch along a line through centres."""
    orthographic(size)
    boxes = {}
    for number, offset in enumerate(OFFSETS):
        left, top = 2 + number % 3 * 10 + offset, 2 + number // 3 * 9 + offset
        boxes[f"pane{number}"] = (left, top, left + 6 + number % 2 / 2, top + 5)
    boxes["left"], boxes["right"] = (2.5, 20.5, 8.5, 26.5), (8.5, 20.5, 14.5, 26.5)
    return [pane(name, size, box) for name, box in boxes.items()], boxes


def said(view: Any, objects: list[Any]) -> dict[str, Any]:
    return {"objects": [view.describe(obj, "thing") for obj in objects]}


def counts(members: dict[str, bytes]) -> dict[str, list[Any]]:
    """By the objects' names: the segmentation's pixels, and what the annotation says."""
    found, shown = annotations(members), arrays(members)["segmentation"]
    fields = ("visible_pixels", "silhouette_pixels", "visible_fraction")
    return {
        entry["name"]: [int((shown == entry["segmentation_id"]).sum()), *(entry[field] for field in fields)]
        for entry in found["objects"]
    }


@scene
def in_the_open(place: Path) -> Any:
    seen = {}
    for size in SIZES:
        boxes: dict[str, Any] = {}

        def build(size: tuple[int, int] = size, boxes: dict[str, Any] = boxes) -> Any:
            made, places = panes(size)
            boxes.update(places)
            return made

        seen["x".join(map(str, size))] = {"counts": counts(play(build, said, size=size, samples=1)[0]), "boxes": boxes}
    return seen


@scene
def scattered(place: Path) -> Any:
    """Cubes turned anyhow and a head, seen from above, none before another; also through a lens that distorts."""
    import bpy

    from blender_jobs import scatter, stage

    def build(kind: str, lens: tuple[float, ...]) -> Any:
        camera = stage.camera(at=(0.3, -1, 11), look_at=(0, 0, 0), distortion=lens)
        camera.data.type = kind
        camera.data.ortho_scale = 9.0
        stage.ground(size_m=100)
        rng, made = np.random.default_rng(3), []
        for number in range(15):
            cube = stage.cube(f"cube{number}", 0.7)
            cube.location = (number % 5 * 1.7 - 3.4, number // 5 * 1.7 - 1.7, 0.35)
            if number % 2:
                cube.rotation_euler = scatter.rotation(rng)
                cube.location.z = 0.7
            made.append(cube)
        bpy.ops.mesh.primitive_monkey_add(size=0.8, location=(0, 3.2, 0.5))
        return [*made, bpy.context.object]

    cases = {"PERSP": (), "ORTHO": (), "PERSP bent": (-0.2, 0.05, 0.0, 0.0)}
    return {
        f"{case} {size}": counts(
            play(lambda case=case: build(case.split()[0], cases[case]), said, size=size, samples=1)[0]
        )
        for case in cases
        for size in ((80, 60), (61, 47))
    }


@scene
def hidden(place: Path) -> Any:
    """A wall with edges through centres, alone and behind others, one of them with the same outline, or a hole."""
    import bpy

    from tests.blender_jobs.labels import things

    size = (32, 28)
    target, same = (5.5, 4.5, 21.5, 20.5), (5.5, 4.5, 21.5, 20.5)
    before = {
        "alone": None,
        "middle": (9.5, 8.5, 16.5, 15.5),
        "same": same,
        "half": (1.0, 1.0, 13.5, 26.0),
        "holdout": (9.5, 8.5, 16.5, 15.5),
        "catcher": (9.5, 8.5, 16.5, 15.5),
        "touching": (9.5, 8.5, 16.5, 15.5),
    }

    def build(way: str) -> Any:
        orthographic(size)
        wall, box = pane("wall", size, target), before[way]
        if box is not None:
            front = pane("front", size, box, 0.0 if way == "touching" else -1.0)
            front.is_holdout, front.is_shadow_catcher = way == "holdout", way == "catcher"
        return [wall]

    def holed() -> Any:
        orthographic(size)
        wall, material = pane("wall", size, target), things.glow(things.RED)
        tree = material.node_tree
        checker, clear, mix = (
            tree.nodes.new(f"ShaderNode{kind}") for kind in ("TexChecker", "BsdfTransparent", "MixShader")
        )
        checker.inputs["Scale"].default_value = 3.1
        checker.inputs["Color1"].default_value, checker.inputs["Color2"].default_value = (0, 0, 0, 1), (1, 1, 1, 1)
        output = tree.get_output_node("CYCLES")
        shader = output.inputs["Surface"].links[0].from_socket
        for source, goal in ((checker.outputs["Color"], mix.inputs[0]), (clear.outputs[0], mix.inputs[1])):
            tree.links.new(source, goal)
        tree.links.new(shader, mix.inputs[2])
        tree.links.new(mix.outputs[0], output.inputs["Surface"])
        wall.data.materials.append(material)
        return [wall]

    seen = {way: counts(play(lambda way=way: build(way), said, size=size, samples=1)[0])["wall"] for way in before}
    seen["holed"] = counts(play(holed, said, size=size, samples=1)[0])["wall"]
    assert bpy.context.scene is not None
    return seen


@scene
def mirrored(place: Path) -> Any:
    """An uneven box, mirrored along x and turned; its places in the world by Blender."""
    import bpy

    from blender_jobs import stage

    corners = [(x, y, z) for x in (-0.2, 0.5) for y in (-0.3, 0.4) for z in (-0.1, 0.6)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]

    def build() -> Any:
        stage.camera(at=(1, -5, 2), look_at=(0, 0, 0))
        made = [stage.mesh(name, corners, faces) for name in ("plain", "mirrored")]
        for obj, x in zip(made, (-1, 1), strict=True):
            obj.location, obj.rotation_euler = (x, 0.2, 0.1), (0.4, 0.9, -0.7)
            obj.scale = (math.copysign(1.5, -x), 0.8, 1.2)
        return made

    def annotate(view: Any, made: list[Any]) -> dict[str, Any]:
        own = np.array([corners[0], (0.1, 0.2, 0.3)])
        names = ["first", "inner"]
        return {"objects": [view.describe(obj, "box", keypoints=own, keypoint_names=names) for obj in made]}

    members = play(build, annotate, passes=("depth", "segmentation", "nocs"))[0]
    np.savez(place / "arrays.npz", **arrays(members))
    matrices = {name: [list(row) for row in bpy.data.objects[name].matrix_world] for name in ("plain", "mirrored")}
    return {"said": annotations(members), "matrices": matrices}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ties")
    return folder, in_blender.play(__name__, folder)


@pytest.fixture(scope="module")
def seen(played: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return played[1]


def centres(low: float, high: float, closed: bool) -> int:
    """How many pixels' centres lie between two places; with those on them if closed, within a float32's reach."""
    slack = 1e-4 if closed else -1e-4
    return math.floor(high + slack - 0.5) - math.ceil(low - slack - 0.5) + 1


def test_with_nothing_before_it_a_thing_shows_all_that_it_covers(seen: dict[str, Any]) -> None:
    """As many pixels as the segmentation has, and between the counts without and with the centres on its edges."""
    ties = 0
    for case in seen["in_the_open"].values():
        for name, (left, top, right, bottom) in case["boxes"].items():
            pixels, *told = case["counts"][name]
            assert told == [pixels, pixels, 1.0], name
            least, most = (centres(left, right, c) * centres(top, bottom, c) for c in (False, True))
            assert least <= pixels <= most, name
            ties += most - least
    assert ties > 100, "few edges run through centres"


def test_two_walls_share_the_pixels_on_their_common_edge(seen: dict[str, Any]) -> None:
    for case in seen["in_the_open"].values():
        left, right = case["counts"]["left"], case["counts"]["right"]
        assert centres(2.5, 14.5, False) * centres(20.5, 26.5, False) <= left[0] + right[0]


def test_things_in_the_open_show_all_in_any_camera_and_size(seen: dict[str, Any]) -> None:
    covered = []
    for case, by_name in seen["scattered"].items():
        for name, (pixels, *told) in by_name.items():
            assert told == [pixels, pixels, 1.0], f"{case}: {name}"
            covered.append(pixels)
    assert len(covered) == 6 * 16
    assert min(covered) > 6


def test_what_is_hidden_is_counted_and_no_more(seen: dict[str, Any]) -> None:
    """The silhouette is what the thing shows alone; what only holes in the picture hide is hidden, too."""
    found = seen["hidden"]
    alone, edge = found["alone"][0], 17 + 17 + 15 + 15
    assert found["alone"] == [alone, alone, alone, 1.0]
    assert 15 * 15 <= alone <= 17 * 17
    for way in ("middle", "holdout", "catcher", "touching"):
        pixels, visible, covered, fraction = found[way]
        assert (visible, covered) == (pixels, alone), way
        assert 6 * 6 <= alone - pixels <= 8 * 8 or way == "touching", way
        assert fraction == round(pixels / alone, 6), way
    for way in ("half", "same"):
        pixels, visible, covered, _ = found[way]
        assert pixels == visible <= covered, way
        assert abs(covered - alone) <= edge, way
    assert found["half"][0] < 0.6 * alone
    assert found["same"][0] <= edge


def test_holes_that_a_texture_makes_are_not_covered(seen: dict[str, Any]) -> None:
    pixels, visible, covered, fraction = seen["hidden"]["holed"]
    assert 0.2 * 256 < pixels < 0.8 * 256
    assert (visible, covered, fraction) == (pixels, pixels, 1.0)


def test_of_a_mirrored_thing_the_boxes_corners_go_by_its_own_axes(
    played: tuple[Path, dict[str, Any]],
) -> None:
    """`matrix_world` moves own points to the corners and keypoints; `pose` moves them with all signs turned."""
    _, seen = played
    said = seen["mirrored"]["said"]
    K, world_to_cam = np.array(said["camera"]["K"]), np.linalg.inv(said["camera"]["cam_to_world"])
    low, high = np.array([-0.2, -0.3, -0.1]), np.array([0.5, 0.4, 0.6])
    order = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]])
    own = np.where(order, high, low)
    for entry, sign in zip(said["objects"], (1, -1), strict=True):
        assert entry["name"] == ("plain" if sign > 0 else "mirrored")
        matrix, pose = np.array(entry["matrix_world"]), np.array(entry["pose"])
        np.testing.assert_allclose(matrix, seen["mirrored"]["matrices"][entry["name"]], atol=1e-6)
        assert np.sign(np.linalg.det(matrix[:3, :3])) == sign
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(entry["box3d"], own @ matrix[:3, :3].T + matrix[:3, 3], atol=2e-6)
        scale = np.array([1.5, 0.8, 1.2])
        in_camera = np.array(entry["box3d"]) @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]
        np.testing.assert_allclose(in_camera, sign * own * scale @ pose[:3, :3].T + pose[:3, 3], atol=1e-5)
        np.testing.assert_allclose(entry["dimensions"], (high - low) * scale, atol=2e-6)
        points = np.array([low, (0.1, 0.2, 0.3)]) @ matrix[:3, :3].T + matrix[:3, 3]
        image = (points @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]) @ K.T
        np.testing.assert_allclose(
            np.reshape(entry["keypoints"], (-1, 3))[:, :2], image[:, :2] / image[:, 2:], atol=1e-3
        )


def test_object_coordinates_are_in_the_frame_of_the_pose(played: tuple[Path, dict[str, Any]]) -> None:
    folder, seen = played
    said = seen["mirrored"]["said"]
    with np.load(folder / "mirrored" / "arrays.npz") as found:
        depth, shown, nocs = found["depth"], found["segmentation"], found["nocs"].astype(np.float64)
    low, high = np.array([-0.2, -0.3, -0.1]) * [1.5, 0.8, 1.2], np.array([0.5, 0.4, 0.6]) * [1.5, 0.8, 1.2]
    for entry, sign in zip(said["objects"], (1, -1), strict=True):
        rows, columns = np.nonzero(shown == entry["segmentation_id"])
        assert len(rows) > 20
        pose, K = np.array(entry["pose"]), np.array(said["camera"]["K"])
        centres = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
        points = centres @ np.linalg.inv(K).T * depth[rows, columns, None]
        own = (points - pose[:3, 3]) @ pose[:3, :3]
        expected = (own - sign * (low + high) / 2) / np.linalg.norm(high - low) + 0.5
        np.testing.assert_allclose(nocs[rows, columns], expected, atol=2e-3)
