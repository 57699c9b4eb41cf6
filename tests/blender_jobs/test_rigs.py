"""A chain is where forward kinematics says, in Blender, in the picture and in the annotations; limits hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

VALUES = {"swivel": 40.0, "boom": -25.0, "slide": 0.3, "wrist": 70.0, "left": 0.05, "right": -0.05}
PLACE, TURN = (0.4, -0.3, 0.2), 35.0
"""Where the base stands, and by how many degrees it is turned about z."""
TIPS = {"left_tip": (1.0, 0.0, 0.0), "right_tip": (0.0, 0.0, 1.0)}
K = np.array([[400.0, 0, 160], [0, 400.0, 120], [0, 0, 1]])
EYE = (0.0, -6.0, 1.0)
"""The camera looks along y."""


def joints() -> list[Any]:
    from blender_jobs.rigs import Joint

    return [
        Joint("swivel", (0, 0, 2), (0, 0, 0.3), (-170, 170)),
        Joint("boom", (0, 1, 0), (0.1, 0, 0.2), (-90, 90), rotation=(10, 20, 30)),
        Joint("slide", (1, 0, 0), (0.8, 0, 0), (0.0, 0.5), "prismatic", points={"lamp": (0.1, 0.1, 0.0)}),
        Joint("wrist", (1, 1, 0), (0.5, 0, 0), (20, 120)),
        Joint("mount", offset=(0.1, 0, 0), kind="fixed", rotation=(0, 0, -90)),
        Joint("left", (0, 1, 0), (0, 0.1, 0), (0, 0.1), "prismatic", points={"left_tip": (0.2, 0, 0)}),
        Joint(
            "right", (0, 1, 0), (0, -0.1, 0), (-0.1, 0), "prismatic", parent="mount", points={"right_tip": (0.2, 0, 0)}
        ),
    ]


def turned(axis: int, degrees: float) -> Any:
    """A rotation (4, 4) about a coordinate axis, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [[1, 0, 0], [0, c, -s], [0, s, c]],
        [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    ][axis]
    return matrix


def shifted(x: float, y: float, z: float) -> Any:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def links(swivel: float, boom: float, slide: float, wrist: float, left: float, right: float) -> dict[str, Any]:
    """Where the links of `joints` are in the base's frame: each product spelt out by hand."""
    found = {"base": np.eye(4)}
    found["swivel"] = shifted(0, 0, 0.3) @ turned(2, swivel)
    rest = turned(2, 30) @ turned(1, 20) @ turned(0, 10)
    found["boom"] = found["swivel"] @ shifted(0.1, 0, 0.2) @ rest @ turned(1, boom)
    found["slide"] = found["boom"] @ shifted(0.8 + slide, 0, 0)
    about_diagonal = turned(2, 45) @ turned(0, wrist) @ turned(2, -45)
    found["wrist"] = found["slide"] @ shifted(0.5, 0, 0) @ about_diagonal
    found["mount"] = found["wrist"] @ shifted(0.1, 0, 0) @ turned(2, -90)
    found["left"] = found["mount"] @ shifted(0, 0.1 + left, 0)
    found["right"] = found["mount"] @ shifted(0, -0.1 + right, 0)
    return found


def keypoints(found: dict[str, Any]) -> dict[str, Any]:
    """All keypoints in the base's frame."""
    points = {name: matrix[:3, 3] for name, matrix in found.items()}
    own = {"lamp": ("slide", (0.1, 0.1, 0)), "left_tip": ("left", (0.2, 0, 0)), "right_tip": ("right", (0.2, 0, 0))}
    return points | {name: (found[link] @ [*at, 1])[:3] for name, (link, at) in own.items()}


def placed(point: Any) -> Any:
    """A point of the base's frame in the world."""
    return ((shifted(*PLACE) @ turned(2, TURN)) @ [*point, 1])[:3]


def pixel(point: Any) -> Any:
    """Where the camera at `EYE` shows a point of the world."""
    x, y, z = np.array(point) - EYE
    return (K @ [x / y, -z / y, 1])[:2]


@scene
def arm(folder: Path) -> Any:
    """The chain in six poses; its two tips are marked with small lamps of one colour each."""
    import bpy

    from blender_jobs import lens, materials, meshes, parts, rigs, stage
    from blender_jobs.view import View

    stage.clear()
    camera = stage.camera(at=EYE, look_at=(0, 0, 1))
    lens.set_intrinsics(camera, K, (320, 240))
    bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y = 320, 240
    made = rigs.chain("arm", joints(), {"mount": meshes.boxes("plate", [(0, 0, 0)], (0.04, 0.3, 0.1))})
    made.root.location, made.root.rotation_euler = PLACE, (0, 0, math.radians(TURN))
    for name, color in TIPS.items():
        lamp = meshes.sphere(name, 0.05)
        lamp.parent, lamp.location = made.links[name.split("_")[0]], (0.2, 0, 0)
        materials.assign(lamp, materials.principled(name, (0, 0, 0), emission=color, specular=0.0))
    bpy.context.view_layer.update()
    start = made.values
    rng = np.random.default_rng(4)
    cases = []
    for number in range(4):
        if number:
            drawn = made.randomize(rng)
        else:
            made.set({name: VALUES[name] for name in ("wrist", "slide")})  # by parts, in any order
            made.set({**VALUES})
            drawn = VALUES
        bpy.context.view_layer.update()
        view = View(bpy.context.scene)
        cases.append(
            {
                "drawn": drawn,
                "values": made.values,
                "matrices": {name: np.array(obj.matrix_world).tolist() for name, obj in made.links.items()},
                "forward": {name: matrix.tolist() for name, matrix in rigs.forward(joints(), drawn).items()},
                "described": view.describe(
                    made.root, "arm", made.keypoints(view), self_tolerance_m=0.2, joints=made.state(view)
                ),
                "tips": tip_pixels(folder, made),
            }
        )
    ends = extents(parts, made)
    return {"start": start, "cases": cases, "ends": ends, "objects": [obj.name for obj in made.objects]}


def extents(parts: Any, made: Any) -> dict[str, Any]:
    """How far each link that was built reaches in its own frame, radius included."""
    found = {}
    for name, obj in made.links.items():
        places = np.array([vertex.co for vertex in obj.data.vertices])
        found[name] = [places.min(axis=0).tolist(), places.max(axis=0).tolist()]
    return found


def tip_pixels(folder: Path, made: Any) -> dict[str, Any]:
    """The centres of the pixels that show the lamps, which the links would hide in part: Cycles' picture."""
    import bpy

    scene = bpy.context.scene
    for obj in made.objects:
        obj.visible_camera = False
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    scene.render.filter_size, scene.cycles.pixel_filter_type = 0.01, "BOX"
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(folder / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(320 * 240 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    for obj in made.objects:
        obj.visible_camera = True
    shown = pixels.reshape(240, 320, 4)[::-1, :, :3] > 0.9
    found = {}
    for name, channel in (("left_tip", 0), ("right_tip", 2)):
        rows, columns = np.nonzero(shown[..., channel] & ~shown[..., 1])
        found[name] = [len(rows), *((columns.mean() + 0.5, rows.mean() + 0.5) if len(rows) else (0, 0))]
    return found


@scene
def moved(folder: Path) -> Any:
    """Keyframes: half way in between, each joint is half way, and again after they were replaced."""
    import bpy

    from blender_jobs import categories, rigs, stage

    stage.clear()
    made = rigs.chain("arm", joints())
    made.move({1: {"swivel": -170}, 4: {"swivel": 0}})
    made.move({1: {**VALUES, "swivel": -160}, 11: {**VALUES, "swivel": 160, "slide": 0.5, "wrist": 120}})
    found = []
    for frame in (1, 6, 11):
        bpy.context.scene.frame_set(frame)
        found.append(made.values)
    return {"frames": found, "category": categories.as_coco([rigs.category("arm", joints())])[0]}


@scene
def refused(folder: Path) -> Any:
    from blender_jobs import meshes, rigs, stage
    from blender_jobs.job import JobError
    from blender_jobs.rigs import Joint

    stage.clear()
    made = rigs.chain("arm", joints())
    pushed = stage.cube("pushed")
    pushed.location.x = 1
    attempts = {
        "above": lambda: made.set({"boom": 91}),
        "below": lambda: made.set({"slide": -0.01}),
        "nan": lambda: made.set({"boom": math.nan}),
        "slip": lambda: made.set({"bom": 1}),
        "fixed": lambda: made.set({"mount": 1}),
        "few": lambda: made.set([1, 2]),
        "no values": lambda: made.move({}),
        "interpolation": lambda: made.move({1: VALUES}, "SMOOTH"),  # type: ignore[arg-type]
        "nothing": lambda: rigs.chain("arm", []),
        "twice": lambda: rigs.chain("arm", [Joint("a"), Joint("b", points={"a": (0, 0, 1)})]),
        "base": lambda: rigs.chain("arm", [Joint("base")]),
        "axis": lambda: rigs.chain("arm", [Joint("a", (0, 0, 0))]),
        "flat": lambda: rigs.chain("arm", [Joint("a", offset=(0, 1))]),
        "limits": lambda: rigs.chain("arm", [Joint("a", limits=(10, -10))]),
        "metres": lambda: rigs.chain("arm", [Joint("a", kind="prismatic")]),
        "kind": lambda: rigs.chain("arm", [Joint("a", kind="ball")]),  # type: ignore[arg-type]
        "parent": lambda: rigs.chain("arm", [Joint("a", parent="b"), Joint("b")]),
        "link": lambda: rigs.chain("arm", [Joint("a")], {"b": meshes.sphere("ball")}),
        "no mesh": lambda: rigs.chain("arm", [Joint("a")], {"a": stage.camera(at=(0, 0, 1))}),
        "placed": lambda: rigs.chain("arm", [Joint("a")], {"a": pushed}),
    }
    said = {}
    for name, attempt in attempts.items():
        with pytest.raises(JobError) as error:
            attempt()
        said[name] = str(error.value)
    return {"said": said, "values": made.values}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_links_are_where_forward_kinematics_says(seen: dict[str, Any]) -> None:
    """In numpy to the last digits, and in Blender to its own precision, for set and for random values."""
    for case in seen["arm"]["cases"]:
        expected = links(**case["drawn"])
        assert list(case["forward"]) == list(expected)
        for name, matrix in expected.items():
            assert np.array(case["forward"][name]) == pytest.approx(matrix, abs=1e-14), name
            world = shifted(*PLACE) @ turned(2, TURN) @ matrix
            assert np.array(case["matrices"][name]) == pytest.approx(world, abs=3e-6), name
        assert case["values"] == pytest.approx(case["drawn"], abs=1e-4)


def test_annotations_are_of_the_same_chain(seen: dict[str, Any]) -> None:
    """Keypoints project to where the links' are, in the order of the names; poses and values are the links'."""
    names = ["base", "swivel", "boom", "slide", "lamp", "wrist", "mount", "left", "left_tip", "right", "right_tip"]
    camera = np.eye(4)
    camera[:3] = [[1, 0, 0, -EYE[0]], [0, 0, -1, EYE[2]], [0, 1, 0, -EYE[1]]]
    for case in seen["arm"]["cases"]:
        found, described = links(**case["drawn"]), case["described"]
        assert described["keypoint_names"] == names
        rows = np.array(described["keypoints"]).reshape(-1, 3)
        points = keypoints(found)
        for name, row, depth in zip(names, rows, described["keypoint_depths"], strict=True):
            world = placed(points[name])
            assert row[:2] == pytest.approx(pixel(world), abs=2e-3), name
            assert depth == pytest.approx(world[1] - EYE[1], abs=1e-5), name
        for joint in described["joints"]:
            assert joint["value"] == pytest.approx(case["drawn"].get(joint["name"], 0.0), abs=1e-4)
            pose = camera @ shifted(*PLACE) @ turned(2, TURN) @ found[joint["name"]]
            assert np.array(joint["pose"]) == pytest.approx(pose, abs=5e-6), joint["name"]


def test_the_picture_shows_the_chain_where_its_keypoints_are(seen: dict[str, Any]) -> None:
    """Lamps at the tips of the fingers: the middle of their pixels, to a third of a pixel, where they are in view."""
    judged = 0
    for case in seen["arm"]["cases"]:
        points = keypoints(links(**case["drawn"]))
        for name, (count, x, y) in case["tips"].items():
            expected = pixel(placed(points[name]))
            if count > 9 and abs(expected - (160, 120)).max() < 100:
                judged += 1
                assert (x, y) == pytest.approx(expected, abs=0.34), (name, count)
    assert judged >= 4


def test_links_are_built_from_the_offsets_that_keypoints_come_from(seen: dict[str, Any]) -> None:
    """A rod reaches each joint that moves on a link, and each of its points. It begins at 0 or at the nearest limit."""
    ends = seen["arm"]["ends"]
    for link, point in (("boom", (0.8, 0, 0)), ("slide", (0.5, 0, 0)), ("slide", (0.1, 0.1, 0)), ("left", (0.2, 0, 0))):
        low, high = np.array(ends[link])
        assert (low <= np.array(point) + 1e-6).all(), link
        assert (high >= np.array(point) - 1e-6).all(), link
    assert ends["boom"][1][0] == pytest.approx(0.8, abs=1e-6)
    assert seen["arm"]["objects"][:3] == ["arm", "arm swivel", "arm boom"]
    start = {"swivel": 0, "boom": 0, "slide": 0, "wrist": 20, "left": 0, "right": 0}
    assert seen["arm"]["start"] == pytest.approx(start, abs=1e-5)


def test_random_values_are_within_the_limits_and_differ(seen: dict[str, Any]) -> None:
    limits = {"swivel": (-170, 170), "boom": (-90, 90), "slide": (0, 0.5), "wrist": (20, 120)}
    drawn = [case["drawn"] for case in seen["arm"]["cases"][1:]]
    for name, (low, high) in limits.items():
        assert all(low <= case[name] <= high for case in drawn)
        assert len({case[name] for case in drawn}) == len(drawn)


def test_joints_move_evenly_between_keyframes(seen: dict[str, Any]) -> None:
    """By more than half a turn, too; earlier keyframes are gone."""
    first, middle, last = seen["moved"]["frames"]
    assert first == pytest.approx({**VALUES, "swivel": -160}, abs=1e-4)
    assert middle == pytest.approx({**VALUES, "swivel": 0, "slide": 0.4, "wrist": 95}, abs=1e-4)
    assert last == pytest.approx({**VALUES, "swivel": 160, "slide": 0.5, "wrist": 120}, abs=1e-4)


def test_categories_have_the_chain_for_a_skeleton(seen: dict[str, Any]) -> None:
    """Names and edges are of the joints alone."""
    found = seen["moved"]["category"]
    assert len(found["keypoints"]) == 11
    edges = [(found["keypoints"][a - 1], found["keypoints"][b - 1]) for a, b in found["skeleton"]]
    assert ("base", "swivel") in edges
    assert {("mount", "left"), ("mount", "right"), ("right", "right_tip"), ("slide", "lamp")} <= set(edges)
    assert len(edges) == 10


def test_what_cannot_be_is_refused_in_one_line(seen: dict[str, Any]) -> None:
    """Each says which joint, and what is wrong; nothing has moved."""
    said = seen["refused"]["said"]
    parts = {
        "above": "chain 'arm': joint 'boom' at 91 degrees, limits -90 to 90",
        "below": "joint 'slide' at -0.01 m, limits 0 to 0.5",
        "nan": "joint 'boom' at nan degrees",
        "slip": "no joint 'bom' that moves; did you mean 'boom'?",
        "fixed": "no joint 'mount' that moves",
        "few": "2 values for 6 joints that move: swivel, boom, slide, wrist, left, right",
        "no values": "no values",
        "interpolation": "'SMOOTH', which must be LINEAR",
        "nothing": "no joints",
        "twice": "joint 'b': the name 'a' is empty or taken",
        "base": "joint 'base': the name 'base' is empty or taken",
        "axis": "joint 'a': its axis has no length",
        "flat": "offset must be three finite numbers",
        "limits": "limits 10 to -10, which must be finite, the lower one first",
        "metres": "joint 'a' slides: give its limits in metres",
        "kind": "is 'ball', which must be revolute, prismatic or fixed",
        "parent": "joint 'a' moves on 'b', which is no joint before it: base",
        "link": "a link for 'b', which is none of its joints; they are a",
        "no mesh": "the link of 'a' must be a mesh object",
        "placed": "object 'pushed', is moved, turned, scaled or has a parent",
    }
    assert list(said) == list(parts)
    for name, part in parts.items():
        assert part in said[name], said[name]
        assert "\n" not in json.dumps(said[name])
    assert seen["refused"]["values"] == pytest.approx(seen["arm"]["start"], abs=1e-5)
