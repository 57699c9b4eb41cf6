"""Keypoints follow what they are part of, and a body does not hide its own joints if that is tolerated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy


def place(made: Any, at: Any) -> Any:
    import bpy

    made.location = at
    if not made.users_collection:
        bpy.context.scene.collection.objects.link(made)
    return made


def looked() -> Any:
    import bpy

    from blender_jobs.view import View

    bpy.context.view_layer.update()
    return View(bpy.context.scene)


def arm() -> tuple[Any, Any]:
    """A tube along z of 21 rings, 2 m long, on two bones: weights by height, so that the elbow is at z = 1."""
    import bpy

    from blender_jobs import stage

    stage.clear()
    stage.camera(at=(0, -6, 1), look_at=(0, 0, 1))
    heights = np.linspace(0, 2, 21)
    ring = [(0.2, 0), (0, 0.2), (-0.2, 0), (0, -0.2)]
    vertices = [(x, y, z) for z in heights.tolist() for x, y in ring]
    faces = [
        (4 * at + k, 4 * at + (k + 1) % 4, 4 * at + 4 + (k + 1) % 4, 4 * at + 4 + k)
        for at in range(20)
        for k in range(4)
    ]
    tube = stage.mesh("tube", vertices, faces)
    rig = bpy.data.objects.new("rig", bpy.data.armatures.new("rig"))
    place(rig, (0.3, 0, 0))
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for name, low, high in (("upper.L", 0, 1), ("lower.L", 1, 2)):
        bone = rig.data.edit_bones.new(name)
        bone.head, bone.tail = (0, 0, low), (0, 0, high)
    rig.data.edit_bones["lower.L"].parent = rig.data.edit_bones["upper.L"]
    bpy.ops.object.mode_set(mode="OBJECT")
    for name, inside in (("upper.L", heights <= 1), ("lower.L", heights > 1)):
        group = tube.vertex_groups.new(name=name)
        group.add([4 * at + k for at in np.flatnonzero(inside).tolist() for k in range(4)], 1.0, "REPLACE")
    tip = tube.vertex_groups.new(name="tip")
    tip.add([80, 81], 0.75, "REPLACE")
    tip.add([82, 83], 0.25, "REPLACE")
    tube.vertex_groups.new(name="nobody")
    tube.parent = rig
    tube.modifiers.new("skin", "ARMATURE").object = rig
    return tube, rig


@scene
def bent(folder: Path) -> Any:
    """The lower bone turned by 90 degrees about x over ten frames; seen at the end, in a scaled, moved rig."""
    import bpy

    from blender_jobs import parts

    tube, rig = arm()
    rig.scale = (1.5, 1.5, 1.5)
    bone = rig.pose.bones["lower.L"]
    bone.rotation_mode = "XYZ"
    bone.keyframe_insert("rotation_euler", frame=1)
    bone.rotation_euler = (np.pi / 2, 0, 0)
    bone.keyframe_insert("rotation_euler", frame=11)
    bpy.context.scene.frame_set(11)
    look = looked()
    evaluated = tube.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = [list(evaluated.matrix_world @ vertex.co) for vertex in evaluated.data.vertices]
    chosen = {
        "shoulder": "upper.L",
        "elbow": ("upper.L", 1.0),
        "middle": ("lower.L", 0.5),
        "hand": ("lower.L", 1.0),
    }
    joints = parts.bones(look, rig, chosen)
    groups = parts.vertex_groups(look, tube, {"finger": "tip", "forearm": "lower.L"})
    corner = parts.vertices(look, tube, {"first": 0, "last": 83})
    joined = joints + groups + corner
    described = look.describe(tube, "arm", keypoints=joined)
    return {
        "mesh": mesh,
        "joints": joints.positions.tolist(),
        "owners": [obj.name for obj in joints.owners],
        "groups": groups.positions.tolist(),
        "vertices": corner.positions.tolist(),
        "names": described["keypoint_names"],
        "keypoints": np.reshape(described["keypoints"], (-1, 3)).tolist(),
        "projected": look.project(joined.positions).tolist(),
        "own names": list(parts.bones(look, rig, ["lower.L"]).names),
    }


@scene
def placed(folder: Path) -> Any:
    """Empties on a moved parent, points of an object's own frame, corners; and vertices that a modifier makes."""
    import bpy

    from blender_jobs import parts, stage

    stage.clear()
    stage.camera(at=(0, -6, 1))
    cube = stage.cube("cube")
    cube.location, cube.scale, cube.rotation_euler = (1, 2, 3), (2, 1, 1), (0, 0, np.pi / 2)
    marker = place(bpy.data.objects.new("marker", None), (0.5, 0, 0))
    marker.parent = cube
    cube.modifiers.new("row", "ARRAY").count = 2
    look = looked()
    return {
        "origins": parts.origins(look, {"tip": marker, "centre": cube}).positions.tolist(),
        "own names": list(parts.origins(look, [marker, cube]).names),
        "own frame": parts.own_frame(look, cube, [(0.5, 0, 0)], ["side"]).positions.tolist(),
        "corners": [parts.corners(look, cube).positions.tolist(), look.corners(cube).tolist()],
        "arrayed": parts.vertices(look, cube, {"far": 15}).positions.tolist(),
        "empty": parts.origins(look, []).positions.shape,
    }


@scene
def copied(folder: Path) -> Any:
    """A box with a weighted corner, and two empties that show it, one of them turned and scaled."""
    import bpy

    from blender_jobs import parts, stage

    stage.clear()
    stage.camera(at=(0, -9, 0))
    cube = stage.cube("cube")
    cube.vertex_groups.new(name="tip").add([7], 1.0, "REPLACE")
    kit = bpy.data.collections.new("kit")
    bpy.context.scene.collection.objects.unlink(cube)
    kit.objects.link(cube)
    for x, turn, scale in ((-2.0, 0.0, 1.0), (2.0, 0.5, 2.0)):
        empty = bpy.data.objects.new("empty", None)
        empty.instance_type, empty.instance_collection = "COLLECTION", kit
        empty.location.x, empty.rotation_euler.z, empty.scale = x, turn, (scale, scale, scale)
        bpy.context.scene.collection.objects.link(empty)
    look = looked()
    places = []
    for copy in look.copies(cube):
        first, tip = parts.vertices(look, copy, {"first": 0}), parts.vertex_groups(look, copy, ["tip"])
        own = parts.own_frame(look, copy, [(0.5, 0.5, 0.5)])
        described = look.describe(copy, "cube", keypoints=first + tip + own + parts.corners(look, copy))
        places.append([*first.positions.tolist(), *tip.positions.tolist(), *own.positions.tolist(), described["name"]])
    return places


@scene
def hidden(folder: Path) -> Any:
    """A joint 0.2 m inside a tube of two layers; alone, behind a wall, with a sleeve over it."""
    from blender_jobs import parts, stage

    tube, rig = arm()
    wall = stage.cube("wall")
    sleeve = stage.cube("sleeve")
    sleeve.scale = (0.8, 0.8, 0.5)
    sleeve.location = (0.3, 0, 1)

    def flags(**options: Any) -> list[float]:
        look = looked()
        joint = parts.Points(["elbow"], np.array([[0.3, 0.0, 1.05]]), options.pop("owners", ()))
        return look.keypoints(tube, joint, **options)[0, 2].tolist()

    seen = {}
    wall.location, sleeve.location = (50, 0, 1), (60, 0, 1)
    seen["bare, no tolerance"] = flags()
    seen["bare, too little"] = flags(self_tolerance_m=0.1)
    seen["bare, enough"] = flags(self_tolerance_m=0.3)
    wall.location = (0.3, -3, 1)
    seen["behind a wall"] = flags(self_tolerance_m=0.3)
    seen["behind a wall that is far, tolerance or not"] = flags(self_tolerance_m=9.0)
    seen["behind a wall that is a part"] = flags(self_tolerance_m=9.0, parts=[wall])
    wall.location = (0.3, -0.7, 1)
    seen["behind a wall within the tolerance"] = flags(self_tolerance_m=2.0)
    wall.location, wall.scale = (0.3, -0.1, 1.05), (0.05, 0.05, 0.05)
    seen["behind what is within the body"] = flags(self_tolerance_m=0.3)
    wall.location, sleeve.location = (50, 0, 1), (0.3, 0, 1)
    seen["sleeve, not told"] = flags(self_tolerance_m=0.5)
    seen["sleeve as a part"] = flags(self_tolerance_m=0.5, parts=[sleeve])
    seen["sleeve as an owner"] = flags(self_tolerance_m=0.5, owners=(sleeve,))
    sleeve.location = (60, 0, 1)
    look = looked()
    bones = parts.bones(look, rig, {"elbow": ("upper.L", 0.95)})
    seen["what the rig moves is its own"] = look.keypoints(sleeve, bones, self_tolerance_m=0.3)[0, 2].tolist()
    world = [[0.3, 0.0, 1.05]]
    seen["visibility() of world points"] = look.visibility(world, self_tolerance_m=0.3, parts=[tube]).tolist()[0]
    seen["visibility() without parts"] = look.visibility(world, self_tolerance_m=0.3).tolist()[0]
    return seen


@scene
def mistakes(folder: Path) -> Any:
    import bpy

    from blender_jobs import parts, stage

    tube, rig = arm()
    empty = place(bpy.data.objects.new("empty", None), (0, 0, 0))
    look = looked()
    attempts: dict[str, Callable[[], Any]] = {
        "bone": lambda: parts.bones(look, rig, {"hand": "lower_L"}),
        "bone like none": lambda: parts.bones(look, rig, {"hand": "zzz"}),
        "no armature": lambda: parts.bones(look, tube, {"hand": "lower.L"}),
        "group": lambda: parts.vertex_groups(look, tube, ["tipp"]),
        "empty group": lambda: parts.vertex_groups(look, tube, ["nobody"]),
        "vertex": lambda: parts.vertices(look, tube, {"nose": 84}),
        "vertex below": lambda: parts.vertices(look, tube, {"nose": -1}),
        "no mesh": lambda: parts.vertices(look, empty, {"nose": 0}),
        "no object": lambda: parts.origins(look, ["tube"]),
        "names": lambda: parts.Points(["a", "b"], np.zeros((1, 3))),
        "stray part": lambda: look.visibility([[0, 0, 0]], parts=[bpy.data.objects.new("stray", None)]),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    stage.clear()
    return said


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("parts"))


def test_bones_are_where_the_pose_has_them(seen: dict[str, Any]) -> None:
    """A right angle at the elbow, in a rig scaled by 1.5 and moved by 0.3: by hand. The tube is the rig's too."""
    case = seen["bent"]
    expected = [(0.3, 0, 0), (0.3, 0, 1.5), (0.3, 0.75, 1.5), (0.3, 1.5, 1.5)]  # forwards or back: as Blender rolls it
    assert np.abs(case["joints"]) == pytest.approx(np.array(expected), abs=1e-5)
    assert case["owners"] == ["rig", "tube"]
    assert case["own names"] == ["lower.L"]


def test_vertices_and_groups_follow_the_armature(seen: dict[str, Any]) -> None:
    """As the evaluated mesh has them: the tip's centroid 0.75 : 0.25, the forearm's that of its ten rings."""
    case = seen["bent"]
    mesh = np.array(case["mesh"])
    assert np.array(case["vertices"]) == pytest.approx(mesh[[0, 83]], abs=1e-6)
    finger = np.average(mesh[80:84], axis=0, weights=[0.75, 0.75, 0.25, 0.25])
    assert np.array(case["groups"]) == pytest.approx(np.array([finger, mesh[44:].mean(axis=0)]), abs=1e-6)
    assert abs(finger[1]) > 1.2  # bent, not as modelled


def test_joined_points_are_described_in_their_order(seen: dict[str, Any]) -> None:
    case = seen["bent"]
    assert case["names"] == ["shoulder", "elbow", "middle", "hand", "finger", "forearm", "first", "last"]
    keypoints, projected = np.array(case["keypoints"]), np.array(case["projected"])
    assert keypoints[:, :2] == pytest.approx(projected[:, :2], abs=1e-6)


def test_empties_points_and_modified_vertices_are_in_the_world(seen: dict[str, Any]) -> None:
    """By hand: x is turned to y and doubled; the array's second cube is 1 m on along the cube's x."""
    case = seen["placed"]
    assert np.array(case["origins"]) == pytest.approx(np.array([(1, 3, 3), (1, 2, 3)]), abs=1e-5)
    assert case["own names"] == ["marker", "cube"]
    assert np.array(case["own frame"]) == pytest.approx(np.array([(1, 3, 3)]), abs=1e-5)
    assert case["corners"][0] == case["corners"][1]
    assert np.array(case["arrayed"]) == pytest.approx(np.array([(0.5, 5, 3.5)]), abs=1e-5)
    assert case["empty"] == [0, 3]


def test_points_of_a_copy_are_on_the_copy(seen: dict[str, Any]) -> None:
    cos, sin = np.cos(0.5), np.sin(0.5)
    turn = 2 * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    for (first, tip, own, name), middle, moved, number in zip(
        seen["copied"], ((-2, 0, 0), (2, 0, 0)), (np.eye(3), turn), (0, 1), strict=True
    ):
        assert name == f"cube:{number}"
        assert first == pytest.approx(middle + moved @ [-0.5, -0.5, -0.5], abs=1e-6)
        assert tip == pytest.approx(middle + moved @ [0.5, 0.5, 0.5], abs=1e-6)
        assert own == pytest.approx(tip, abs=1e-6)


def test_only_what_belongs_to_the_body_is_looked_through(seen: dict[str, Any]) -> None:
    """1 occluded, 2 visible."""
    assert seen["hidden"] == {
        "bare, no tolerance": 1,
        "bare, too little": 1,
        "bare, enough": 2,
        "behind a wall": 1,
        "behind a wall that is far, tolerance or not": 1,
        "behind a wall that is a part": 2,
        "behind a wall within the tolerance": 1,
        "behind what is within the body": 1,
        "sleeve, not told": 1,
        "sleeve as a part": 2,
        "sleeve as an owner": 2,
        "what the rig moves is its own": 2,
        "visibility() of world points": 2,
        "visibility() without parts": 1,
    }


def test_mistakes_name_what_there_is_in_one_line(seen: dict[str, Any]) -> None:
    expected = {
        "bone": "armature 'rig' has no bone 'lower_L'; did you mean 'lower.L'?",
        "bone like none": "there are 'upper.L', 'lower.L'",
        "no armature": "'tube' is not an armature",
        "group": "object 'tube' has no vertex group 'tipp'; did you mean 'tip'?",
        "empty group": "'nobody'",
        "vertex": "no vertex 84 for 'nose': with its modifiers it has 0 to 83",
        "vertex below": "no vertex -1",
        "no mesh": "'empty' (EMPTY) has no mesh",
        "no object": "str 'tube'",
        "names": "2 names for 1 positions",
        "stray part": "'stray'",
    }
    assert seen["mistakes"].keys() == expected.keys()
    assert {name: part in seen["mistakes"][name] for name, part in expected.items()} == dict.fromkeys(expected, True)
    assert not any("\n" in message for message in seen["mistakes"].values())
