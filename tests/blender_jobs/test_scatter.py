"""What is drawn is uniform where it says so, inside its limits, the same for the same generator, and apart if asked."""

from __future__ import annotations

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def box(name: str, size: Any, at: Any = (0, 0, 0)) -> Any:
    from blender_jobs import stage

    corners = [[s * c / 2 for s, c in zip(size, signs, strict=True)] for signs in itertools.product((-1, 1), repeat=3)]
    made = stage.mesh(name, corners, FACES)
    made.location = at
    return made


def separated(one: Any, other: Any) -> bool:
    """Whether two boxes, turned anyhow, are apart: the separating axis theorem (Gottschalk et al., OBBTree, 1996)."""
    a, b = ([np.array(obj.matrix_world @ v.co) for v in obj.data.vertices] for obj in (one, other))
    sides = [np.array(obj.matrix_world.to_3x3()).T for obj in (one, other)]
    axes = [*sides[0], *sides[1], *(np.cross(p, q) for p in sides[0] for q in sides[1])]
    spans = [(np.array(a) @ axis, np.array(b) @ axis) for axis in axes if np.linalg.norm(axis) > 1e-6]
    return any(p.max() < q.min() or q.max() < p.min() for p, q in spans)


def said(attempt: Any) -> str:
    from blender_jobs.job import JobError

    with pytest.raises(JobError) as error:
        attempt()
    return str(error.value)


@scene
def shells(folder: Path) -> Any:
    from blender_jobs import scatter

    angles = st.floats(-90, 90)
    pairs = st.tuples(angles, angles).map(sorted)

    @given(st.integers(0, 2**32), pairs, st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted))
    def inside(seed: int, elevation: Any, radius: Any) -> None:
        target = np.array([1.0, -2.0, 3.0])
        offset = scatter.in_shell(np.random.default_rng(seed), target, radius, elevation, (20, 70)) - target
        distance = np.linalg.norm(offset)
        assert radius[0] - 1e-9 <= distance <= radius[1] + 1e-9
        assert elevation[0] - 1e-5 <= math.degrees(math.asin(offset[2] / distance)) <= elevation[1] + 1e-5
        if math.hypot(offset[0], offset[1]) > 1e-6:
            assert 20 - 1e-6 <= math.degrees(math.atan2(offset[1], offset[0])) <= 70 + 1e-6

    inside()
    rng = np.random.default_rng(0)
    return [scatter.in_shell(rng, radius=(1, 1), elevation=(0, 90)).tolist() for _ in range(4000)]


@scene
def rotations(folder: Path) -> Any:
    from blender_jobs import scatter

    rng = np.random.default_rng(0)
    return [np.array(scatter.rotation(rng).to_matrix()).tolist() for _ in range(4000)]


@scene
def surface(folder: Path) -> Any:
    """A box of 1 x 2 x 3, scaled, turned and mirrored."""
    import bpy

    from blender_jobs import scatter, stage

    stage.clear()
    made = box("box", (1, 2, 3))
    made.location, made.rotation_euler, made.scale = (5, 6, 7), (0.3, 0.5, 0.7), (-2, 1, 1)
    points, normals = scatter.on_surface(np.random.default_rng(0), made, 6000)
    return points.tolist(), normals.tolist(), np.array(made.matrix_world).tolist(), len(bpy.data.meshes)


def crowded(seed: int, count: int = 8) -> list[Any]:
    from blender_jobs import scatter, stage

    stage.clear()
    wall = box("wall", (0.1, 3, 3))
    boxes = [box(f"box{at}", (0.9, 0.5, 0.3)) for at in range(count)]

    def propose(rng: np.random.Generator, obj: Any) -> None:
        obj.location, obj.rotation_euler = scatter.in_box(rng, (-1, -1, -1), (1, 1, 1)), scatter.rotation(rng)

    return [wall, *scatter.place_apart(np.random.default_rng(seed), boxes, propose, [wall], tries=300, misfits="hide")]


@scene
def apart(folder: Path) -> Any:
    placed = crowded(0)
    touching = [(a.name, b.name) for a, b in itertools.combinations(placed, 2) if not separated(a, b)]
    again = [np.array(made.matrix_world).tolist() for made in placed]
    repeated = [np.array(made.matrix_world).tolist() for made in crowded(0)]
    return {"touching": touching, "count": len(placed), "same": again == repeated}


@scene
def wholes(folder: Path) -> Any:
    """Three robots of an empty with two arms each; cars whose wheel is not parented; an instance of a kit; a pool."""
    import bpy

    from blender_jobs import scatter, stage

    stage.clear()
    link = bpy.context.scene.collection.objects.link

    def robot(name: str) -> tuple[Any, list[Any]]:
        root, arms = bpy.data.objects.new(name, None), [box(f"{name}{side}", (0.5, 0.3, 0.3)) for side in (-1, 1)]
        link(root)
        for arm, side in zip(arms, (-1, 1), strict=True):
            arm.parent, arm.location = root, (side, 0, 0.2)
        hidden = box(f"{name} guide", (9, 9, 9))
        hidden.parent, hidden.hide_render = root, True
        return root, arms

    robots = dict(robot(f"robot{at}") for at in range(3))
    post_root, post = robot("post")
    cars = {box(f"car{at}", (0.6, 0.4, 0.2)): box(f"wheel{at}", (0.2, 0.2, 0.2), (0.5, 0.1, 0)) for at in range(2)}
    bpy.context.view_layer.update()
    stood = {car.name: np.array(car.matrix_world.inverted() @ wheel.matrix_world) for car, wheel in cars.items()}

    def propose(rng: np.random.Generator, obj: Any) -> None:
        obj.location, obj.rotation_euler = scatter.in_box(rng, (-2, -2, -1), (2, 2, 1)), scatter.rotation(rng)

    rng = np.random.default_rng(1)
    placed = scatter.place_apart(rng, list(robots), propose, [post_root], tries=200, members="children")
    around = [arm for arms in (*robots.values(), post) for arm in arms]
    placed += scatter.place_apart(rng, list(cars), propose, around, tries=200, members=lambda obj: cars.get(obj))
    groups = [*robots.values(), post, *([car, wheel] for car, wheel in cars.items())]
    pairs = [pair for one, two in itertools.combinations(groups, 2) for pair in itertools.product(one, two)]
    turned = [
        np.array(car.matrix_world.inverted() @ wheel.matrix_world) - stood[car.name] for car, wheel in cars.items()
    ]

    kit, holder = bpy.data.collections.new("kit"), bpy.data.objects.new("holder", None)
    kit.objects.link(box("far", (1, 1, 1), (20, 0, 0)))
    bpy.context.scene.collection.objects.unlink(bpy.data.objects["far"])
    holder.instance_type, holder.instance_collection = "COLLECTION", kit
    link(holder)
    wall = box("wall", (0.2, 4, 4), (21, 0, 0))
    bpy.context.view_layer.update()

    def fits(x: float) -> bool:
        def move(rng: np.random.Generator, obj: Any) -> None:
            obj.location.x = x

        return scatter.place_apart(rng, [holder], move, [wall], tries=1, misfits="hide", members="children") == [holder]

    refused = [said(partial(scatter.place_apart, rng, [post_root], propose, members=m)) for m in (None, "childs")]
    hidden = []
    for count in (1, 3):
        shown = scatter.show_some(rng, list(robots), count, members="children")
        states = {root.name: [child.hide_render for child in root.children] for root in robots}
        hidden.append([[states[root.name] for root in robots if (root in shown) is is_in] for is_in in (True, False)])
    return {
        "touching": [(a.name, b.name) for a, b in pairs if not separated(a, b)],
        "left": [obj.name for obj in (*robots, *cars) if obj not in placed],
        "moved": min(np.linalg.norm(car.location) for car in cars),
        "strayed": float(np.abs(turned).max()),
        "fits": [fits(0.0), fits(0.5), fits(5.0)],
        "refused": refused,
        "hidden": hidden,
    }


@scene
def inside(folder: Path) -> Any:
    """A small box proposed in the middle of a large one, and the other way round; two loose parts, one inside."""
    from blender_jobs import scatter, stage

    stage.clear()
    large, small, floor = box("large", (4, 4, 4)), box("small", (1, 1, 1)), stage.ground()
    corners = [(x + dx, y, z) for dx in (0, 20) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    twice = stage.mesh("twice", corners, [tuple(at + part for at in face) for part in (0, 8) for face in FACES])
    rng = np.random.default_rng(0)

    def fits(obj: Any, other: Any, at: Any) -> bool:
        def propose(rng: np.random.Generator, obj: Any) -> None:
            obj.location = at

        other.hide_viewport = False  # it found no place before
        return scatter.place_apart(rng, [obj], propose, [other], tries=1, misfits="hide") == [obj]

    refused = [said(lambda: scatter.place_apart(rng, [small], lambda rng, obj: None, [large], tries=3))]
    small.hide_viewport = True
    refused.append(said(lambda: scatter.place_apart(rng, [small], lambda rng, obj: None)))
    refused.append(said(lambda: scatter.on_surface(rng, stage.sun(), 1)))
    small.hide_viewport = False
    refused.append(said(lambda: scatter.place_apart(rng, [small], lambda rng, obj: None, misfits="keep")))  # type: ignore[arg-type]
    return {
        "small beside large": fits(small, large, (3, 0, 0)),
        "small in large": fits(small, large, (0, 0, 0)),
        "large around small": fits(large, small, (0, 0, 0)),
        "first part in large": fits(twice, large, (0, 0, 0)),
        "second part in large": fits(twice, large, (-20, 0, 0)),
        "no part in large": fits(twice, large, (-10, 0, 0)),
        "below the ground": fits(small, floor, (0, 0, -0.6)),
        "through the ground": fits(small, floor, (0, 0, -0.4)),
        "refused": refused,
    }


@scene
def misfits(folder: Path) -> Any:
    """Three bodies, and room for two: twice in a scene that is reused."""
    import bpy

    from blender_jobs import scatter, stage

    stage.clear()
    stage.ground()
    first, large, last = (
        stage.cube(name, size_m=size, physics="active") for name, size in (("first", 1), ("large", 9), ("last", 1))
    )
    seen = []
    for room in (1, 1, 20):
        spots = {first: (0, 0, 1), large: (0, 0, room), last: (2, 0, 1)}
        placed = scatter.place_apart(
            np.random.default_rng(0),
            list(spots),
            lambda _, obj, spots=spots: setattr(obj, "location", spots[obj]),
            tries=1,
            misfits="hide",
        )
        members = bpy.context.scene.rigidbody_world.collection.objects
        assert [obj in placed for obj in spots] == [not obj.hide_render for obj in spots]
        assert [obj in placed for obj in spots] == [not obj.hide_viewport for obj in spots]
        assert [obj in placed for obj in spots] == [obj.name in members for obj in spots]
        seen.append([obj.name for obj in placed])
    with pytest.raises(TypeError) as old:
        scatter.place_apart(np.random.default_rng(0), [first], lambda *_: None, must_fit=False)  # type: ignore[call-arg]
    return {"placed": seen, "old": str(old.value)}


@scene
def shown(folder: Path) -> Any:
    import bpy

    from blender_jobs import scatter, stage

    stage.clear()
    stage.ground()
    pool = [stage.cube(f"cube{at}", physics="active") for at in range(6)]

    @given(st.integers(0, 2**32), st.integers(0, 6))
    def some(seed: int, count: int) -> None:
        picked = scatter.show_some(np.random.default_rng(seed), pool, count)
        members = bpy.context.scene.rigidbody_world.collection.objects
        assert len(picked) == count
        assert picked == sorted(picked, key=pool.index)
        for obj in pool:
            assert (obj in picked) == (obj.name in members) == (not obj.hide_render) == (not obj.hide_viewport)
        assert picked == scatter.show_some(np.random.default_rng(seed), pool, count)

    some()
    too_many = said(lambda: scatter.show_some(np.random.default_rng(), pool, 7))
    # Those hidden stop nothing, and those shown again fall again.
    for at, obj in enumerate(pool):
        obj.location = (0, 0, 1 + 2 * at)
    heights = []
    for seed in range(4):
        picked = scatter.show_some(np.random.default_rng(seed), pool, 2)
        for frame in range(1, 80):
            bpy.context.scene.frame_set(frame)
        heights.append([obj.matrix_world.translation.z for obj in picked])
    return {"too many": too_many, "heights": heights}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_a_shell_is_uniform_over_the_solid_angle(seen: dict[str, Any]) -> None:
    """On a hemisphere the height is uniform (Archimedes), and so is the azimuth: Kolmogorov and Smirnov agree."""
    places = np.array(seen["shells"])
    turns = np.arctan2(places[:, 1], places[:, 0]) / (2 * math.pi) % 1
    for values in (places[:, 2], turns):
        steps = np.arange(1, len(values) + 1) / len(values)
        assert np.abs(np.sort(values) - steps).max() < 1.95 / math.sqrt(len(values))  # one in a thousand exceeds it


def test_rotations_are_uniform(seen: dict[str, Any]) -> None:
    """Each axis goes anywhere on the sphere alike, and angles follow Haar's measure: mean pi / 2 + 2 / pi."""
    matrices = np.array(seen["rotations"])
    assert np.abs(matrices.mean(axis=0)).max() < 0.05
    for row, column in itertools.product(range(3), repeat=2):  # each entry is uniform in -1 to 1
        steps = np.arange(1, len(matrices) + 1) / len(matrices)
        assert np.abs((np.sort(matrices[:, row, column]) + 1) / 2 - steps).max() < 2.2 / math.sqrt(len(matrices))
    angles = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.04)


def test_points_lie_on_the_surface_by_area(seen: dict[str, Any]) -> None:
    """Each face of a box gets its share of points, on it, with its outward normal, wherever and however it stands."""
    points, normals, matrix, meshes = (np.array(entry) for entry in seen["surface"])
    local = (points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T / [0.5, 1, 1.5]
    face = np.abs(local).argmax(axis=1)
    assert np.abs(np.abs(local).max(axis=1) - 1).max() < 1e-5
    shares = np.bincount(face) / len(face)
    assert shares == pytest.approx(np.array([6, 6, 4]) / 16, abs=0.02)
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    expected = axes[:, face].T * np.sign(local[np.arange(len(face)), face])[:, None]
    assert np.abs(normals - expected).max() < 1e-5
    assert meshes == 1


def test_placed_apart(seen: dict[str, Any]) -> None:
    """No two boxes placed touch, by the separating axis theorem; the same generator places them the same."""
    found = seen["apart"]
    assert found["touching"] == []
    assert found["count"] > 5
    assert found["same"]


def test_inside_is_not_apart(seen: dict[str, Any]) -> None:
    """A mesh within another, or one of its loose parts, counts as overlapping; an open surface holds nothing."""
    found = dict(seen["inside"])
    no_place, hidden, no_mesh, no_word = found.pop("refused")
    assert no_place.startswith("place_apart: no place for 'small' in 3 tries among 1 others")
    assert no_place.endswith('misfits="hide"')
    assert no_word == 'place_apart: misfits is \'keep\'; it takes "error" or "hide"'
    assert hidden.startswith("object 'small' is hidden")
    assert no_mesh == "object 'sun' is of the type LIGHT; use a mesh"
    assert found == {
        "small in large": False,
        "small beside large": True,
        "large around small": False,
        "first part in large": False,
        "second part in large": False,
        "no part in large": True,
        "below the ground": True,
        "through the ground": False,
    }


def test_what_finds_no_place_is_hidden_until_it_does(seen: dict[str, Any]) -> None:
    """What is returned is what is there, as with `show_some`; the argument's old name is refused, not misread."""
    assert seen["misfits"]["placed"] == [["first", "last"], ["first", "last"], ["first", "large", "last"]]
    assert "unexpected keyword argument 'must_fit'" in seen["misfits"]["old"]


def test_a_pool_shows_what_was_drawn(seen: dict[str, Any]) -> None:
    """What a pool hides stops no body; what it shows falls, also after it was hidden before."""
    found = seen["shown"]
    assert found["too many"] == "show_some: cannot show 7 of 6 objects"
    assert found["heights"] == [pytest.approx([0.5, 1.5], abs=2e-3)] * 4


def test_things_of_many_meshes_are_placed_whole(seen: dict[str, Any]) -> None:
    """No member touches another thing's, parented or not; what is not parented keeps its place beside its object."""
    found = seen["wholes"]
    assert found["touching"] == []
    assert found["left"] == []
    assert found["moved"] > 0.1
    assert found["strayed"] < 1e-5
    assert found["fits"] == [True, False, True], "a collection's instance is where its copies are"
    empty, word = found["refused"]
    assert empty.startswith("object 'post' is of the type EMPTY; use a mesh")
    assert word.startswith("object 'post': members is 'childs'; give 'children'")


def test_things_of_many_meshes_are_hidden_whole(seen: dict[str, Any]) -> None:
    """Shown again, what was hidden before stays so."""
    (some, others), (all_shown, none) = seen["wholes"]["hidden"]
    assert [sorted(state) for state in some] == [[False, False, True]]
    assert others == [[True, True, True]] * 2
    assert [sorted(state) for state in all_shown] == [[False, False, True]] * 3
    assert none == []
