"""A thing of many meshes is one thing: its labels are those of all its red members, by the picture's colours.

Each way of saying what belongs to it makes the same robot: a body, an arm before it and a hand on the arm's end, red
before a blue sky. A green bar may stand before a part. 3D box, pose and NOCS are held against arithmetic on the
members' vertices as Blender places them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.judging import agreement
from tests.blender_jobs.labels.playing import annotations, arrays, play
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

SIZE = (96, 72)
PASSES = ("depth", "segmentation", "parts", "categories", "nocs")
PLACES = {"body": (0.0, 0.0, 0.0), "arm": (0.5, -0.6, 0.5), "hand": (1.2, -0.6, 0.9)}
SIDES = {"body": 1.2, "arm": 0.6, "hand": 0.4}


def limbs(at: tuple[float, float, float] = (0, 0, 0)) -> dict[str, Any]:
    from tests.blender_jobs.labels import things

    red = things.glow(things.RED)
    return {name: things.cube(name, tuple(np.add(place, at)), red, SIDES[name]) for name, place in PLACES.items()}


def empty(name: str = "robot") -> Any:
    from tests.blender_jobs.labels import things

    root = things.linked(name, None, (0.1, 0.2, -0.1))
    root.rotation_euler, root.scale = (0.2, 0.3, 0.5), (1.0, 1.2, 0.9)
    return root


def parented(root: Any) -> dict[str, Any]:
    """The hand below the arm, and that below the body, whose parent is the root; markers among them have no surface."""
    from tests.blender_jobs.labels import things

    made = limbs()
    made["body"].parent, made["arm"].parent, made["hand"].parent = root, made["body"], made["arm"]
    made["arm"].location, made["hand"].location = PLACES["arm"], np.subtract(PLACES["hand"], PLACES["arm"])
    marker = things.linked("marker", None)
    marker.parent = made["hand"]
    hidden = things.cube("hidden", (5, 0, 0), things.glow(things.RED))
    hidden.parent, hidden.hide_render = root, True
    return made


def kit(made: dict[str, Any]) -> Any:
    import bpy

    collection = bpy.data.collections.new("kit")
    for obj in made.values():
        collection.objects.link(obj)
        bpy.context.scene.collection.objects.unlink(obj)
    return collection


Way = Callable[[], tuple[Any, Any]]
WAYS: dict[str, Way] = {}


def way(function: Way) -> Way:
    """A way of making the robot, which returns it and its members."""
    WAYS[function.__name__] = function
    return function


@way
def children_of_an_empty() -> tuple[Any, Any]:
    root = empty()
    parented(root)
    return root, "children"


@way
def children_of_a_mesh() -> tuple[Any, Any]:
    made = parented(empty("elsewhere"))
    made["body"].name = "robot"
    return made["body"], "children"


@way
def bones_of_an_armature() -> tuple[Any, Any]:
    import bpy

    made = limbs()
    bpy.ops.object.armature_add(location=(0.1, 0, -1))
    rig = bpy.context.object
    rig.name, rig.rotation_euler = "robot", (0, 0.4, 0.3)
    for obj in made.values():
        obj.parent, obj.parent_type, obj.parent_bone = rig, "BONE", rig.data.bones[0].name
    return rig, "children"


@way
def a_collection() -> tuple[Any, Any]:
    import bpy

    collection, inner = kit(limbs()), bpy.data.collections.new("inner")
    bpy.context.scene.collection.children.link(collection)
    collection.children.link(inner)
    inner.objects.link(bpy.data.objects["hand"])
    collection.objects.unlink(bpy.data.objects["hand"])
    return empty(), collection


@way
def a_list() -> tuple[Any, Any]:
    made = limbs()
    made["body"].name = "robot"
    return made["body"], [made["body"], made["arm"], made["hand"], made["arm"]]


@way
def a_collection_instance() -> tuple[Any, Any]:
    import bpy

    root = empty()
    root.instance_type, root.instance_collection = "COLLECTION", kit(limbs())
    assert bpy.data.objects["hand"].name not in bpy.context.scene.objects
    return root, "children"


@way
def an_instance_in_an_instance_below_an_empty() -> tuple[Any, Any]:
    import bpy

    from tests.blender_jobs.labels import things

    inner = things.linked("inner", None, (0.2, 0, 0))
    inner.instance_type, inner.instance_collection = "COLLECTION", kit(limbs())
    outer = bpy.data.collections.new("outer")
    outer.objects.link(inner)
    bpy.context.scene.collection.objects.unlink(inner)
    holder, root = things.linked("holder", None), empty()
    holder.instance_type, holder.instance_collection, holder.parent = "COLLECTION", outer, root
    return root, "children"


@way
def copies() -> tuple[Any, Any]:
    root, _ = a_collection_instance()
    return root, "copies"


@way
def by_name() -> tuple[Any, Any]:
    root = empty()
    made = parented(root)
    return root, {"trunk": made["body"], "limbs": [made["arm"], made["hand"]]}


def robot(name: str, before: bool) -> Any:
    """What builds a way's scene, with something green before the robot or not."""

    def build() -> Any:
        import bpy

        from tests.blender_jobs.labels import things

        things.open_stage((0.5, -8, 0.2))
        root, members = WAYS[name]()
        if before:
            things.wall("bar", (0.4, -2.0, -0.8), things.glow(things.GREEN), 1.4)
        bpy.context.view_layer.update()
        return root, members

    return build


def placed_vertices() -> list[list[float]]:
    """Where Blender has the vertices of the robot's meshes, copies or not."""
    import bpy

    instances = bpy.context.evaluated_depsgraph_get().object_instances
    meshes = [
        (np.array(entry.matrix_world), [vertex.co[:] for vertex in entry.object.data.vertices])
        for entry in instances
        if entry.object.type == "MESH" and entry.object.name in {*PLACES, "robot"}
    ]
    places: list[list[float]] = []
    for matrix, vertices in meshes:
        places += (np.array(vertices) @ matrix[:3, :3].T + matrix[:3, 3]).tolist()
    return places


def annotate(view: Any, made: Any) -> dict[str, Any]:
    import bpy

    root, members = made
    if members == "copies":
        members = [copy for name in PLACES for copy in view.copies(bpy.data.objects[name])]
    whole = view.whole(root, members)
    said = [view.describe(root, "robot", [(0, 0, 0)], ["origin"], members=members)]
    if "bar" in bpy.data.objects:
        more = {"members": {}} if isinstance(members, dict) else {}
        said.append(view.describe(bpy.data.objects["bar"], "bar", [(0, 0, 0)], ["origin"], **more))
    alike = view.bbox(whole) == (said[0]["bbox"], said[0]["bbox_unclipped"])
    return {
        "objects": said,
        "vertices": placed_vertices(),
        "alike": alike and np.allclose(view.corners(whole), said[0]["box3d"], atol=1e-5),
        "silhouette": int(view.silhouette(whole).sum()),
    }


@scene
def robots(place: Path) -> Any:
    seen = {}
    for name in WAYS:
        for before in (False, True):
            members = play(robot(name, before), annotate, passes=PASSES, size=SIZE)[0]
            key = f"{name}{'.before' * before}"
            np.savez(place / f"{key}.npz", **arrays(members))
            seen[key] = annotations(members)
    return seen


def slips(view: Any, other: Any, made: Any) -> dict[str, list[Callable[[Any], Any]]]:
    """What cannot be said, each as calls on a view of its own; `other` is a view of the same frame."""
    import bpy

    root, limb, crate = made
    arm, hand = limb["arm"], limb["hand"]

    def whole(v: Any) -> Any:
        return v.describe(root, "robot", members="children")

    def of_root(members: Any) -> Callable[[Any], Any]:
        return lambda v: v.describe(root, "robot", members=members)

    return {
        "alone, too": [whole, lambda v: v.describe(hand, "hand")],
        "alone before": [lambda v: v.describe(hand, "hand"), whole],
        "of two": [whole, lambda v: v.describe(crate, "crate", members=[hand])],
        "in two parts": [of_root({"a": [arm, hand], "b": hand})],
        "otherwise": [whole, of_root([arm])],
        "not seen": [of_root([bpy.data.objects["hidden"]])],
        "no surface": [of_root([root, arm])],
        "nothing": [lambda v: v.describe(bpy.data.objects["marker"], "robot", members="children")],
        "a word": [of_root("childs")],
        "a number": [of_root(3)],
        "an old whole": [lambda v: v.bbox(other.whole(root, [arm]))],
        "twice members": [lambda v: v.describe(v.whole(root, [arm]), "robot", members="children")],
        "an empty part": [of_root({"eyes": []})],
        "the same again": [whole, whole],
    }


@scene
def refused(place: Path) -> Any:
    """The slips' messages; a joint behind the arm, of the body or of the whole; what is seen."""

    def build() -> Any:
        from tests.blender_jobs.labels import things

        things.open_stage()
        root = empty()
        return root, parented(root), things.cube("crate", (-2.5, 0, 0), things.glow(things.GREEN))

    def check(view: Any, made: Any) -> dict[str, Any]:
        import bpy

        from blender_jobs._render import snapshot
        from blender_jobs.parts import Points
        from blender_jobs.view import View

        root, limb, _ = made
        said = {}
        other = View(view.scene, snapshot.take(view.scene))
        for name, attempts in slips(view, other, made).items():
            fresh = View(view.scene, view.snapshot)
            try:
                for attempt in attempts:
                    attempt(fresh)
            except ValueError as error:
                said[name] = str(error)
        sees = [view.sees(view.whole(obj, "children")) for obj in (root, bpy.data.objects["marker"])]
        arm = view.matrix_world(limb["arm"])[:3, 3]
        joint = Points(["joint"], [arm + 0.1 * (arm - np.array([0, -6, 0]))])
        flags = [
            float(view.keypoints(target, joint, tolerance)[0, 2])
            for target in (limb["body"], view.whole(root, "children"))
            for tolerance in (0.0, 5.0)
        ]
        return {"said": said, "sees": sees, "flags": flags}

    return annotations(play(build, check)[0])


Played = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("members")
    return folder, in_blender.play(__name__, folder)


def pictured(played: Played, key: str) -> dict[str, np.ndarray]:
    with np.load(played[0] / "robots" / f"{key}.npz") as found:
        return dict(found)


ALL = (
    "children_of_an_empty",
    "children_of_a_mesh",
    "bones_of_an_armature",
    "a_collection",
    "a_list",
    "a_collection_instance",
    "an_instance_in_an_instance_below_an_empty",
    "copies",
    "by_name",
)


def test_every_way_is_tried() -> None:
    assert tuple(WAYS) == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_whole_is_labelled_as_the_picture_shows_it(played: Played, name: str) -> None:
    """One id for all that is red, its count, its fraction beside the picture of it alone, and a box around it."""
    alone, said = pictured(played, name), played[1]["robots"]
    area = float((alone["picture"][..., 0] > 0.5).sum())
    assert area > 300
    assert said[name]["alike"]
    for key in (name, f"{name}.before"):
        entry, found = said[key]["objects"][0], pictured(played, key)
        assert entry["name"] == "robot"
        entry = {**entry, "keypoint_names": [], "keypoints": []}
        assert list(agreement(entry, found, found["picture"], area)) == []
        rows, columns = np.nonzero(alone["picture"][..., 0] > 0.5)
        x, y, width, height = entry["bbox"]
        edges = [columns.min() - x, rows.min() - y, x + width - columns.max() - 1, y + height - rows.max() - 1]
        np.testing.assert_allclose(edges, 0, atol=1.1)
        assert entry["bbox_unclipped"] == entry["bbox"]
    whole, hidden = (said[key]["objects"][0] for key in (name, f"{name}.before"))
    assert whole["visible_pixels"] == whole["silhouette_pixels"]
    assert whole["visible_fraction"] == 1.0
    assert said[name]["silhouette"] == whole["silhouette_pixels"]
    assert hidden["silhouette_pixels"] == pytest.approx(whole["silhouette_pixels"], abs=3)
    assert hidden["visible_fraction"] < 0.95


@pytest.mark.parametrize("name", ALL)
def test_box_and_object_coordinates_are_in_the_frame_of_the_object(played: Played, name: str) -> None:
    said, found = played[1]["robots"][name], pictured(played, name)
    entry, vertices = said["objects"][0], np.array(said["vertices"])
    assert vertices.shape == (24, 3)
    matrix, pose = np.array(entry["matrix_world"]), np.array(entry["pose"])
    own = (vertices - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    order = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]])
    corners = np.where(order, own.max(axis=0), own.min(axis=0))
    np.testing.assert_allclose(entry["box3d"], corners @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-5)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    np.testing.assert_allclose(entry["dimensions"], np.ptp(own, axis=0) * lengths, atol=1e-5)

    rows, columns = np.nonzero(found["segmentation"] == entry["segmentation_id"])
    centres = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
    points = centres @ np.linalg.inv(said["camera"]["K"]).T * found["depth"][rows, columns, None]
    low, high = corners.min(axis=0) * lengths, corners.max(axis=0) * lengths
    expected = ((points - pose[:3, 3]) @ pose[:3, :3] - (low + high) / 2) / np.linalg.norm(high - low) + 0.5
    nocs = found["nocs"].astype(np.float64)
    np.testing.assert_allclose(nocs[rows, columns], expected, atol=3e-3)
    assert np.ptp(nocs[rows, columns], axis=0).max() > 0.4, "the box is of all members"
    assert not nocs[found["segmentation"] != entry["segmentation_id"]].any()


def test_named_members_are_parts_with_ids_of_their_own(played: Played) -> None:
    """The parts' pixels are the whole's, each part's counts its own; one part before another hides it."""
    for key in ("by_name", "by_name.before"):
        said, found = played[1]["robots"][key]["objects"], pictured(played, key)
        trunk, limbs = said[0]["parts"]
        assert [(part["name"], part["part_id"]) for part in (trunk, limbs)] == [("trunk", 1), ("limbs", 2)]
        assert [entry["parts"] for entry in said[1:]] == [[] for _ in said[1:]]
        whole, ids = found["segmentation"] == said[0]["segmentation_id"], found["parts"]
        assert np.array_equal(ids > 0, whole)
        for part in (trunk, limbs):
            assert part["visible_pixels"] == (ids == part["part_id"]).sum() > 50
        assert limbs["matrix_world"] == said[0]["matrix_world"], "of several objects: the whole's frame"
        assert trunk["dimensions"] == pytest.approx([1.2, 1.44, 1.08], abs=1e-3)
        rows, columns = np.nonzero(ids == 2)
        x, y, width, height = limbs["bbox"]
        assert columns.min() + 0.5 >= x
        assert columns.max() + 0.5 <= x + width
        assert rows.min() + 0.5 >= y
        assert rows.max() + 0.5 <= y + height
        assert trunk["visible_fraction"] < 0.95, "the arm is before the trunk"
    (whole,) = played[1]["robots"]["by_name"]["objects"]
    assert sum(part["visible_pixels"] for part in whole["parts"]) == whole["visible_pixels"]
    assert sum(part["silhouette_pixels"] for part in whole["parts"]) > whole["silhouette_pixels"] + 50
    assert not pictured(played, "children_of_an_empty")["parts"].any()


def test_a_single_object_with_members_none_is_as_without(played: Played) -> None:
    """The field `parts` apart, which is empty."""
    bars = [played[1]["robots"][f"{name}.before"]["objects"][1] for name in ("by_name", "a_list")]
    assert bars[0].pop("parts") == []
    assert "parts" not in bars[1]
    assert {**bars[0], "name": ""} == {**bars[1], "name": ""}


def test_a_member_is_of_one_thing(played: Played) -> None:
    said = played[1]["refused"]["said"]
    wanted = {
        "alone, too": "object 'hand' is a member of 'robot' and cannot be described on its own",
        "alone before": "object 'hand' is described on its own and cannot be a member of 'robot'",
        "of two": "object 'hand' is a member of 'robot' and of 'crate'",
        "in two parts": "object 'robot': 'hand' is in its parts 'a' and 'b'",
        "otherwise": "object 'robot' is described already, with other members or parts",
        "not seen": "object 'hidden' is hidden in renders",
        "no surface": "object 'robot' (EMPTY) has no surface",
        "nothing": "object 'marker' is not seen, nor is any of its members",
        "a word": "object 'robot': members is 'childs'; give 'children'",
        "a number": "expected a Blender object, got int 3",
        "an old whole": "whole 'robot' is of another view",
        "twice members": "whole 'robot' has its members already",
        "an empty part": "object 'robot': nothing of its part 'eyes' is seen",
    }
    assert said.keys() == wanted.keys()
    for name, beginning in wanted.items():
        assert said[name].startswith(beginning), name
        assert "\n" not in said[name]


def test_members_are_the_things_own_surface_for_keypoints(played: Played) -> None:
    """A joint in the body, behind the arm: hidden; tolerated where the arm belongs to the thing, and not where not."""
    assert played[1]["refused"]["flags"] == [1, 1, 1, 2]
    assert played[1]["refused"]["sees"] == [True, False]
