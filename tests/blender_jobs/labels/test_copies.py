"""Copies of every kind: each has numbers of its own, which agree with where it was put and with the picture.

All things are cubes whose colour says where in the world a pixel's surface is. Which cube each pixel's ray meets first
is worked out from the places that the scene was built with; the picture confirms it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.judging import eroded
from tests.blender_jobs.labels.playing import keep, kept
from tests.in_blender import needs_bpy, scene

pytestmark = [needs_bpy, pytest.mark.slow]

SIZE = (96, 72)
CAMERA = np.array([0.0, -8.0, 0.0])
FOCAL = 50 / 36 * SIZE[0]
"""Pixels: the focal length of `stage.camera`."""
LOW, HIGH = -4.0, 4.0
PLACES = [(-1.9, 0.0, 0.4), (-1.25, 1.2, -0.1), (0.2, 0.0, -0.9), (1.6, 0.5, 0.6)]
"""Of copies' centres; the second is partly hidden by the first."""
SHOWN = (0.35, 1.0, 0.9)
"""Where an original stands that is seen itself."""
UNIT = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])

Matrix = np.ndarray
Built = tuple[dict[str, list[Matrix]], dict[str, Matrix], list[str]]
"""Where each original's copies are, where originals that are seen themselves are, and who makes the copies."""


def at(place: Sequence[float], scale: float | Sequence[float] = 1.0, turn: float = 0.0) -> Matrix:
    """A placement: scale, then a turn around z (radians), then a place."""
    matrix = np.eye(4)
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) * np.broadcast_to(scale, 3)
    matrix[:3, 3] = place
    return matrix


# --- Scenes ---------------------------------------------------------------------------------------------------

MODES: dict[str, Callable[[], Built]] = {}


def mode(function: Callable[[], Built]) -> Callable[[], Built]:
    MODES[function.__name__] = function
    return function


def part(name: str, where: Sequence[float], size: float = 1.0) -> Any:
    from tests.blender_jobs.labels import things

    return things.cube(name, where, things.place_glow(LOW, HIGH), size)


@mode
def nodes() -> Built:
    from tests.blender_jobs.labels import things

    things.instancer_of_nodes("maker", (0, 0, 0), part("part", SHOWN), PLACES)
    return {"part": [at(place) for place in PLACES]}, {"part": at(SHOWN)}, ["maker"]


@mode
def nodes_turned() -> Built:
    """Turned and shrunk copies, of a maker that is moved itself."""
    from tests.blender_jobs.labels import things

    moved = [(x - 0.1, y, z) for x, y, z in PLACES]
    maker = things.dots("maker", moved, (0.1, 0, 0))
    copies = things.spread(*things.node_group(maker), "GeometryNodeObjectInfo", "Object", part("part", things.AWAY))
    copies.inputs["Rotation"].default_value = (0, 0, 0.5)
    copies.inputs["Scale"].default_value = (0.8, 0.6, 1.1)
    return {"part": [at(place, (0.8, 0.6, 1.1), 0.5) for place in PLACES]}, {"part": at(things.AWAY)}, ["maker"]


@mode
def nodes_of_a_hidden_part() -> Built:
    """An original that renders leave out, which geometry nodes copy all the same."""
    from tests.blender_jobs.labels import things

    original = part("part", SHOWN)
    original.hide_render = True
    things.instancer_of_nodes("maker", (0, 0, 0), original, PLACES)
    return {"part": [at(place) for place in PLACES]}, {}, ["maker"]


@mode
def nodes_collection() -> Built:
    from tests.blender_jobs.labels import things

    kit, _ = things.kit_with(part("part", (0, 0, 0)))
    maker = things.dots("maker", PLACES)
    things.spread(*things.node_group(maker), "GeometryNodeCollectionInfo", "Collection", kit)
    return {"part": [at(place) for place in PLACES]}, {}, ["maker"]


@mode
def nodes_of_nodes() -> Built:
    """Copies of copies: a pair, made by nodes behind the camera, at two places before it."""
    from tests.blender_jobs.labels import things

    ends, behind = [(-0.6, 0, 0), (0.6, 0, 0.3)], (0, -30, 0)
    pair = things.instancer_of_nodes("pair", behind, part("part", things.AWAY, 0.7), ends)
    two = [(-1.3, 0, 0.5), (1.2, 0.5, -0.6)]
    things.instancer_of_nodes("maker", (0, 0, 0), pair, two)
    within = [(x + dx, y, z + dz) for x, y, z in [behind, *two] for dx, _, dz in ends]
    return {"part": [at(place) for place in within]}, {"part": at(things.AWAY)}, ["maker"]


@mode
def collection() -> Built:
    from tests.blender_jobs.labels import things

    kit, _ = things.kit_with(part("part", (0, 0, 0)))
    for number, place in enumerate(PLACES):
        things.collection_instance(f"maker{number}", place, kit)
    return {"part": [at(place) for place in PLACES]}, {}, [f"maker{number}" for number in range(len(PLACES))]


@mode
def collection_in_the_scene() -> Built:
    """The kit is in the scene, too, so that the original is seen."""
    import bpy

    from tests.blender_jobs.labels import things

    kit, _ = things.kit_with(part("part", SHOWN))
    bpy.context.scene.collection.children.link(kit)
    kit.instance_offset = SHOWN
    for number, place in enumerate(PLACES):
        things.collection_instance(f"maker{number}", place, kit)
    return {"part": [at(place) for place in PLACES]}, {"part": at(SHOWN)}, ["maker0"]


@mode
def collection_of_two() -> Built:
    """A kit of two things, one upon the other."""
    from tests.blender_jobs.labels import things

    kit, _ = things.kit_with(part("part", (0, 0, 0)), part("lid", (0, 0, 0.6), 0.3))
    two = [(-1.2, 0, -0.2), (1.0, 0.8, 0)]
    for number, place in enumerate(two):
        things.collection_instance(f"maker{number}", place, kit)
    lids = [at((x, y, z + 0.6)) for x, y, z in two]
    return {"part": [at(place) for place in two], "lid": lids}, {}, ["maker0", "maker1"]


@mode
def collection_in_collection() -> Built:
    from tests.blender_jobs.labels import things

    inner, _ = things.kit_with(part("part", (0, 0, 0), 0.8))
    ends = [things.collection_instance(f"end{x}", (x, 0, 0), inner) for x in (-0.6, 0.6)]
    outer, _ = things.kit_with(*ends)
    two = [(-1.3, 0, 0.5), (1.2, 0.5, -0.6)]
    for number, place in enumerate(two):
        things.collection_instance(f"maker{number}", place, outer)
    within = [at((x + dx, y, z)) for x, y, z in two for dx in (-0.6, 0.6)]
    return {"part": within}, {}, ["maker0", "maker1"]


@mode
def collection_of_nodes() -> Built:
    """Instances of a collection that holds a maker of copies."""
    from tests.blender_jobs.labels import things

    original = part("part", things.AWAY, 0.7)
    kit, _ = things.kit_with(things.instancer_of_nodes("pair", (0, 0, 0), original, [(-0.6, 0, 0), (0.6, 0, 0.3)]))
    two = [(-1.3, 0, 0.5), (1.2, 0.5, -0.6)]
    for number, place in enumerate(two):
        things.collection_instance(f"maker{number}", place, kit)
    within = [(x + dx, y, z + dz) for x, y, z in two for dx, dz in ((-0.6, 0), (0.6, 0.3))]
    return {"part": [at(place) for place in within]}, {"part": at(things.AWAY)}, ["maker0"]


@mode
def vertices() -> Built:
    from tests.blender_jobs.labels import things

    maker = things.dots("maker", PLACES)
    maker.instance_type = "VERTS"
    part("part", (0, 0, 0)).parent = maker
    return {"part": [at(place) for place in PLACES]}, {}, ["maker"]


@mode
def faces() -> Built:
    """A copy on each of some small squares that look along z."""
    from blender_jobs import stage

    step = 0.05
    corners = [
        (x + a, y + b, z) for x, y, z in PLACES for a, b in ((-step, -step), (step, -step), (step, step), (-step, step))
    ]
    maker = stage.mesh("maker", corners, [tuple(range(4 * n, 4 * n + 4)) for n in range(len(PLACES))])
    maker.instance_type, maker.show_instancer_for_render = "FACES", False
    part("part", (0, 0, 0)).parent = maker
    return {"part": [at(place) for place in PLACES]}, {}, ["maker"]


def particles_on(kind: str, **settings: Any) -> Any:
    """A maker of one particle on each of the places."""
    from tests.blender_jobs.labels import things

    maker = things.dots("maker", PLACES)
    made = maker.modifiers.new("crumbs", "PARTICLE_SYSTEM").particle_system.settings
    made.count, made.emit_from, made.use_emit_random = len(PLACES), "VERT", False
    made.frame_start, made.frame_end, made.lifetime = 1, 1, 100
    made.physics_type, made.render_type, made.particle_size = "NO", kind, 1.0
    made.use_rotations, made.rotation_mode = True, "GLOB_X"  # else as a vertex's normal would have it
    for name, value in settings.items():
        setattr(made, name, value)
    return made


@mode
def particles() -> Built:
    from tests.blender_jobs.labels import things

    particles_on("OBJECT", instance_object=part("part", things.AWAY))
    return {"part": [at(place) for place in PLACES]}, {"part": at(things.AWAY)}, ["maker"]


@mode
def particles_collection() -> Built:
    from tests.blender_jobs.labels import things

    kit, _ = things.kit_with(part("part", (0, 0, 0)))
    particles_on("COLLECTION", instance_collection=kit)
    return {"part": [at(place) for place in PLACES]}, {}, ["maker"]


@mode
def linked_duplicates() -> Built:
    """Objects that share a mesh are no copies: each is an object of its own."""
    from tests.blender_jobs.labels import things

    original = part("part", SHOWN)
    for number, place in enumerate(PLACES):
        things.linked(f"twin{number}", original.data, place)
    twins = {f"twin{number}": at(place) for number, place in enumerate(PLACES)}
    return {"part": []}, {"part": at(SHOWN), **twins}, []


def described(view: Any, made: Built) -> dict[str, Any]:
    """Each copy; then the originals that are seen themselves; then what is said of those that are not."""
    import bpy

    where, seen, makers = made
    said: dict[str, Any] = {"objects": [], "copies": {}, "unseen": {}}
    for name in where:
        found = view.copies(bpy.data.objects[name])
        said["copies"][name] = [
            {
                "name": copy.name,
                "object": copy.object.name,
                "instancer": copy.instancer.name,
                "matrix_world": [list(row) for row in np.asarray(copy.matrix_world, dtype=float)],
            }
            for copy in found
        ]
        said["objects"] += [view.describe(copy, name) for copy in found]
    said["objects"] += [view.describe(bpy.data.objects[name], name) for name in seen]
    for name in [*makers, *(set(where) - set(seen))]:
        try:
            view.describe(bpy.data.objects[name], "unseen")
            said["unseen"][name] = ""
        except ValueError as error:
            said["unseen"][name] = str(error)
    return said


def originals_alone(view: Any, made: Built) -> dict[str, Any]:
    import bpy

    return {"objects": [view.describe(bpy.data.objects[name], name) for name in made[1]]}


@scene
def copies(place: Path) -> dict[str, Any]:
    from tests.blender_jobs.labels import things

    said: dict[str, Any] = {}
    for name, make in MODES.items():
        kept_places: list[Built] = []

        def build(make: Callable[[], Built] = make, kept_places: list[Built] = kept_places) -> Built:
            things.open_stage(tuple(CAMERA), world=(0, 0, 0))
            kept_places.append(make())
            return kept_places[-1]

        one = keep(place, name, build, described, size=SIZE)
        two = keep(place, f"{name}.again", build, described, size=SIZE)
        alone = keep(place, f"{name}.alone", build, originals_alone, size=SIZE)
        where, seen, makers = kept_places[0]
        said[name] = {
            "one": one,
            "two": two,
            "alone": alone,
            "where": {key: np.array(value).reshape(-1, 4, 4).tolist() for key, value in where.items()},
            "seen": {key: value.tolist() for key, value in seen.items()},
            "makers": makers,
        }
    return said


# --- What must be so ------------------------------------------------------------------------------------------

Seen = tuple[Path, dict[str, Any]]
SMALL = {"lid": 0.3, "nodes_of_nodes": 0.7, "collection_of_nodes": 0.7, "collection_in_collection": 0.8}
"""The size of cubes that are not of one metre, by their name or their scene's."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("copies")
    return folder / "copies", in_blender.play(__name__, folder)["copies"]


def rays() -> np.ndarray:
    """The directions of the pixels' centres, (H, W, 3), of length 1 along the optical axis."""
    width, height = SIZE
    x, z = np.meshgrid((np.arange(width) + 0.5 - width / 2) / FOCAL, (height / 2 - np.arange(height) - 0.5) / FOCAL)
    return np.stack([x, np.ones_like(x), z], axis=-1)


def hits(matrix: Matrix, size: float, directions: np.ndarray) -> np.ndarray:
    """How far along rays from the camera (..., 3) a cube begins; inf where it is missed."""
    to_own = np.linalg.inv(matrix)
    start, along = to_own[:3, :3] @ CAMERA + to_own[:3, 3], directions @ to_own[:3, :3].T
    with np.errstate(divide="ignore"):
        slabs = np.sort((np.array([[-1], [1]]) * size / 2 - start) / along[..., None, :], axis=-2)
    near, far = slabs[..., 0, :].max(axis=-1), slabs[..., 1, :].min(axis=-1)
    return np.where((near < far) & (near > 0), near, np.inf)


def placed(matrix: Matrix, size: float) -> np.ndarray:
    """The corners of a cube, (8, 3)."""
    corners: np.ndarray = UNIT * size @ matrix[:3, :3].T + matrix[:3, 3]
    return corners


def same_points(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sets of points (N, 3) are the same within 3 mm: makers of copies may turn a cube onto itself."""
    apart = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return bool(max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 3e-3)


class Truth:
    """Which of a scene's cubes each pixel shows: the copies in their known places, then what is seen itself."""

    def __init__(self, name: str, said: dict[str, Any]) -> None:
        self.cubes: list[tuple[str, Matrix, float]] = []
        for key, matrices in said["where"].items():
            self.cubes += [(key, np.array(matrix), SMALL.get(key, SMALL.get(name, 1.0))) for matrix in matrices]
        self.copies = len(self.cubes)
        for key, matrix in said["seen"].items():
            self.cubes.append((key, np.array(matrix), SMALL.get(key, SMALL.get(name, 1.0))))
        self.depths = np.array([hits(matrix, size, rays()) for _, matrix, size in self.cubes])
        self.nearest = np.where(np.isfinite(self.depths.min(axis=0)), self.depths.argmin(axis=0), -1)

    def clear(self, number: int) -> np.ndarray:
        """The pixels that surely show a cube, or, for -1, nothing."""
        return eroded(self.nearest == number)

    def corners(self, number: int) -> np.ndarray:
        """A cube's corners in the world, (8, 3)."""
        _, matrix, size = self.cubes[number]
        return placed(matrix, size)

    def visible(self, number: int) -> np.ndarray:
        """Which of a cube's corners have nothing before them, (8,)."""
        directions = self.corners(number) - CAMERA
        depths = [hits(matrix, size * 0.999, directions) for _, matrix, size in self.cubes]
        return np.min(depths, axis=0) > 1

    def number_at(self, key: str, place: Sequence[float], first: int, last: int) -> int:
        """The cube of a name whose centre is at a place."""
        near = [n for n in range(first, last) if np.allclose(self.cubes[n][1][:3, 3], place, atol=2e-3)]
        found = [n for n in near if self.cubes[n][0] == key]
        assert len(found) == 1, f"{len(found)} copies of {key} belong at {place}"
        return found[0]


def numbered(truth: Truth, annotations: dict[str, Any]) -> list[int]:
    """The cube of each described object, by its place."""
    count = sum(len(found) for found in annotations["copies"].values())
    numbers = []
    for index, entry in enumerate(annotations["objects"]):
        first, last = (0, truth.copies) if index < count else (truth.copies, len(truth.cubes))
        numbers.append(truth.number_at(entry["category"], np.array(entry["matrix_world"])[:3, 3], first, last))
    return numbers


def cell(played: Seen, name: str) -> tuple[Path, dict[str, Any], Truth]:
    folder, seen = played
    said = seen[name]
    for key in ("one", "two", "alone"):
        assert "refused" not in said[key], said[key]["refused"]
    return folder, said, Truth(name, said)


each_mode = pytest.mark.parametrize("name", list(MODES))


@each_mode
def test_the_picture_shows_the_copies_where_they_were_put(played: Seen, name: str) -> None:
    """What the other tests take for the truth is what Cycles draws."""
    folder, seen = played
    truth = Truth(name, seen[name])
    picture = kept(folder, name)["picture"]
    world = picture * (HIGH - LOW) + LOW
    expected = CAMERA + rays() * np.where(np.isfinite(truth.depths.min(axis=0)), truth.depths.min(axis=0), 0)[..., None]
    shown = 0
    for number in range(-1, len(truth.cubes)):
        clear = truth.clear(number)
        shown += int(clear.sum())
        if number < 0:
            assert np.quantile(picture[clear], 0.97) < 0.01
        elif clear.any():
            assert np.median(np.abs(world[clear] - expected[clear])) < 0.06, truth.cubes[number]
    assert shown > 0.7 * truth.nearest.size


@each_mode
def test_every_copy_is_listed_once_in_a_stable_order(played: Seen, name: str) -> None:
    """With a name, its object and who makes it; a second playing lists the same."""
    _, said, _ = cell(played, name)
    for key, expected in said["where"].items():
        found = said["one"]["copies"][key]
        assert found == said["two"]["copies"][key]
        assert len({entry["name"] for entry in found}) == len(found) == len(expected)
        assert {entry["object"] for entry in found} <= {key}
        assert all(entry["name"].startswith(f"{key}:") for entry in found)
        size = SMALL.get(key, SMALL.get(name, 1.0))
        where = [placed(np.array(matrix), size) for matrix in expected]
        listed = [placed(np.array(entry["matrix_world"]), size) for entry in found]
        assert all(sum(same_points(one, other) for other in where) == 1 for one in listed)
    assert said["one"]["objects"] == said["two"]["objects"]


@each_mode
def test_each_pixel_has_the_id_of_its_own_copy(played: Seen, name: str) -> None:
    """And the depth of its surface; counts of pixels are of the copy alone."""
    folder, said, truth = cell(played, name)
    arrays, objects = kept(folder, name), said["one"]["objects"]
    assert [entry["segmentation_id"] for entry in objects] == list(range(1, len(objects) + 1))
    for entry, number in zip(objects, numbered(truth, said["one"]), strict=True):
        own = arrays["segmentation"] == entry["segmentation_id"]
        clear = truth.clear(number)
        assert own[clear].all(), entry["name"]
        assert np.allclose(arrays["depth"][clear], truth.depths[number][clear], rtol=1e-3)
        assert not own[truth.clear(-1)].any()
        covered = int(np.isfinite(truth.depths[number]).sum())
        shown = int((truth.nearest == number).sum())
        assert entry["visible_pixels"] == int(own.sum())
        assert entry["visible_pixels"] == pytest.approx(shown, abs=4)
        assert entry["silhouette_pixels"] == pytest.approx(covered, abs=4)
        assert entry["visible_fraction"] == pytest.approx(min(1, shown / max(covered, 1)), abs=0.02)
    assert (arrays["segmentation"] == 0)[truth.clear(-1)].all()


@each_mode
def test_each_copy_has_a_pose_boxes_and_keypoints_of_its_own(played: Seen, name: str) -> None:
    _, said, truth = cell(played, name)
    for entry, number in zip(said["one"]["objects"], numbered(truth, said["one"]), strict=True):
        _, matrix, size = truth.cubes[number]
        assert same_points(placed(np.array(entry["matrix_world"]), size), truth.corners(number))
        camera = truth.corners(number) - CAMERA
        if (np.abs(camera[:, 1]) > 20).any():  # it is kept out of the way
            continue
        assert same_points(np.array(entry["box3d"]), truth.corners(number))
        assert np.allclose(
            sorted(entry["dimensions"]), sorted(np.linalg.norm(matrix[:3, :3], axis=0) * size), atol=3e-3
        )
        pose = np.array(said["one"]["camera"]["cam_to_world"]) @ np.array(entry["pose"])  # without scale, in the world
        turned = np.array(entry["matrix_world"])[:3, :3]
        assert np.allclose(pose[:3, :3], turned / np.linalg.norm(turned, axis=0), atol=1e-3)
        assert np.allclose(pose[:3, 3], matrix[:3, 3], atol=3e-3)
        x = SIZE[0] / 2 + FOCAL * camera[:, 0] / camera[:, 1]
        y = SIZE[1] / 2 - FOCAL * camera[:, 2] / camera[:, 1]
        low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
        assert np.allclose(entry["bbox_unclipped"], [*low, *(high - low)], atol=0.05)
        rows = np.reshape(entry["keypoints"], (-1, 3))
        order = [
            int(np.argmin(np.hypot(x - u, y - v) + 10 * np.abs(camera[:, 1] - d)))
            for (u, v, _), d in zip(rows, entry["keypoint_depths"], strict=True)
        ]
        assert sorted(order) == list(range(8)), entry["name"]
        inside = (x > 0) & (x < SIZE[0]) & (y > 0) & (y < SIZE[1])
        expected = np.where(inside, np.where(truth.visible(number), 2, 1), 0)[order]
        assert rows[:, 2].tolist() == expected.tolist(), entry["name"]


@each_mode
def test_an_originals_numbers_are_of_itself_alone(played: Seen, name: str) -> None:
    """The pixels of copies that nobody describes have no id."""
    folder, said, truth = cell(played, name)
    arrays = kept(folder, f"{name}.alone")
    objects = {entry["name"]: entry for entry in said["alone"]["objects"]}
    assert set(objects) == set(said["seen"])
    for number in range(-1, len(truth.cubes)):
        ids = arrays["segmentation"][truth.clear(number)]
        own = objects[truth.cubes[number][0]]["segmentation_id"] if number >= truth.copies else 0
        assert (ids == own).all(), truth.cubes[number]
    for number in range(truth.copies, len(truth.cubes)):
        entry = objects[truth.cubes[number][0]]
        shown = int((truth.nearest == number).sum())
        assert entry["visible_pixels"] == pytest.approx(shown, abs=4)
        assert entry["visible_fraction"] == pytest.approx(
            shown / max(1, int(np.isfinite(truth.depths[number]).sum())), abs=0.03
        )


@each_mode
def test_who_only_makes_copies_is_refused(played: Seen, name: str) -> None:
    """And so is an original that is not seen itself: one line each that names it."""
    _, said, _ = cell(played, name)
    expected = {*said["makers"], *(set(said["where"]) - set(said["seen"]))}
    assert set(said["one"]["unseen"]) == expected
    for key, message in said["one"]["unseen"].items():
        assert message, f"{key} was described"
        assert key in message
        assert "\n" not in message
