"""A silhouette is what the pixels' lines of sight meet: by brute force in numpy, and by Blender's own rays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_jobs._vision.camera import Camera
from blender_jobs._vision.silhouette import silhouette
from tests import in_blender
from tests.in_blender import scene

SIZE = (40, 30)
CLIP = (0.5, 9.0)
COUNTS = ("visible_pixels", "silhouette_pixels", "visible_fraction")


def camera(kind: str = "PERSP", lens: Any = ()) -> Camera:
    """At the origin, looking along Blender's -z."""
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1] = 1.5, 2.0
    projection[:2, 2 if kind == "PERSP" else 3] = (0.1, 0.05)
    return Camera.from_opengl("eye", kind, SIZE, projection, np.eye(4), CLIP, lens)


def pixels(made: Camera, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    return silhouette(made, vertices, triangles).within(made.height, made.width)


def by_force(made: Camera, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Each pixel's line against each triangle: Moeller and Trumbore's test, from the near to the far plane."""
    columns, rows = np.meshgrid(np.arange(made.width) + 0.5, np.arange(made.height) + 0.5)
    pixels = np.stack([columns, rows, np.full_like(rows, CLIP[0])], axis=2).reshape(-1, 3)
    start = made.unproject(pixels)
    pixels[:, 2] = CLIP[1]
    ray = made.unproject(pixels) - start
    covered = np.zeros(len(ray), dtype=bool)
    for a, b, c in vertices[triangles]:
        normal = np.cross(ray, c - a)
        determinant = normal @ (b - a)
        away = start - a
        u = (away * normal).sum(axis=1) / determinant
        turned = np.cross(away, b - a)
        v = (ray * turned).sum(axis=1) / determinant
        t = turned @ (c - a) / determinant
        covered |= (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)
    return covered.reshape(made.height, made.width)


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_random_triangles_cover_what_lines_of_sight_meet(kind: str) -> None:
    """Of all sizes, through the near plane, the far plane and the camera's own, on and off the image."""
    made, rng = camera(kind), np.random.default_rng(0)
    shares = []
    for size in (0.05, 0.3, 1.0, 4.0, 20.0) * 12:
        centres = rng.uniform([-2, -2, -10], [2, 2, 1], (6, 1, 3))
        vertices = (centres + rng.normal(0, size, (6, 3, 3))).reshape(-1, 3)
        triangles = np.arange(18, dtype=np.int32).reshape(-1, 3)
        expected = by_force(made, vertices, triangles)
        assert np.array_equal(pixels(made, vertices, triangles), expected)
        shares.append(expected.mean())
    assert min(shares) == 0
    assert 0.3 < np.max(shares) <= 1


def test_no_pixel_falls_between_triangles_with_a_common_side() -> None:
    """Fans whose sides and corners run right through pixels' centres."""
    made, rng = camera(), np.random.default_rng(0)
    for _ in range(20):
        middle = [*(rng.integers(5, 25, 2) + 0.5), 3.0]
        border = [(0, 0), (20.5, 0), (40, 0), (40, 15.5), (40, 30), (20.5, 30), (0, 30), (0, 15.5)]
        corners = made.unproject(np.array([middle, *[(*place, 3.0) for place in border]]))
        fan = np.array([[0, 1 + at, 1 + (at + 1) % 8] for at in range(8)], dtype=np.int32)
        assert pixels(made, corners, fan)[1:-1, 1:-1].all()


def test_what_has_no_area_covers_nothing() -> None:
    made = camera()
    corners = np.array([[-1, -1, -3], [1, 1, -3], [0, 0, -3], [0.0, 0, 0]])
    flat = np.array([[0, 1, 2], [0, 0, 1], [3, 3, 3]], dtype=np.int32)
    assert not pixels(made, corners, flat).any()
    assert not pixels(made, corners, flat[:0]).any()


def test_a_distorting_lens_bends_the_silhouette() -> None:
    """Against lines of sight that end at the distorted pixels; they may differ where an outline crosses a pixel."""
    lens = (-0.25, 0.06, 0.002, -0.001)
    made, plain = camera(lens=lens), camera()
    square = np.array([[-1.5, -1.2, -3], [1.5, -1.2, -3], [1.5, 1.2, -3], [-1.5, 1.2, -3.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
    found, expected = pixels(made, square, faces), by_force(made, square, faces)
    different = found != expected
    outline = np.any([np.roll(expected, step, axis) != expected for step in (-1, 1) for axis in (0, 1)], axis=0)
    assert not (different & ~outline).any()
    assert different.sum() <= 0.3 * outline.sum()
    assert (pixels(plain, square, faces) != expected).sum() > 10


def cast(starts: np.ndarray, ways: np.ndarray) -> list[Any]:
    """What Blender's rays meet: whether, where, ..., which object."""
    import bpy

    world, evaluated = bpy.context.scene, bpy.context.evaluated_depsgraph_get()
    return [world.ray_cast(evaluated, a, b) for a, b in zip(starts.tolist(), ways.tolist(), strict=True)]


@scene
def rays(folder: Path) -> Any:
    """Blender's rays from each pixel against `View.silhouette`, with a wall before part of the object."""
    import bpy

    from blender_jobs import stage
    from blender_jobs._render import snapshot
    from blender_jobs._render.geometry import Geometry
    from blender_jobs._render.segments import Segments
    from blender_jobs.view import View

    seen = []
    for kind in ("PERSP", "ORTHO"):
        stage.clear()
        eye = stage.camera(at=(0.5, -5, 1))
        eye.data.type, eye.data.ortho_scale = kind, 4.0
        world = bpy.context.scene
        world.render.resolution_x, world.render.resolution_y = 80, 60
        bpy.ops.mesh.primitive_monkey_add(size=2.5, location=(0.4, 0, 0.2), rotation=(0.3, 0.2, 0.8))
        head = bpy.context.object
        smooth = head.modifiers.new("smooth", "SUBSURF")
        smooth.levels = smooth.render_levels = 1  # the rays meet what the viewport shows
        wall = stage.cube("wall")
        wall.location, wall.scale = (1, -2, 0), (1, 0.2, 4)
        stage.cube("beside").location = (50, 0, 0)
        bpy.context.view_layer.update()
        look = View(world)
        columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
        pixels = np.stack([columns.ravel(), rows.ravel(), np.full(columns.size, eye.data.clip_start)], axis=1)
        starts = look.lens.unproject(pixels)
        pixels[:, 2] = 100
        ways = look.lens.unproject(pixels) - starts
        first = cast(starts, ways)
        depth = np.where([hit[0] for hit in first], look.project([hit[1] for hit in first])[:, 2], np.inf).astype(
            np.float32
        )
        wall.hide_viewport = True
        bpy.context.view_layer.update()
        alone = [hit[0] for hit in cast(starts, ways)]
        wall.hide_viewport = False
        names = [None, head.name_full, wall.name_full]
        index = np.array([names.index(hit[4] and hit[4].name_full) for hit in first], dtype=np.uint16).reshape(60, 80)
        taken = snapshot.take(world)
        shown = Segments(Geometry((head.name_full, wall.name_full), depth=depth.reshape(60, 80), index=index), taken)
        look = View(world, taken, look=lambda: shown, counted=True)  # noqa: B023 - asked within this round
        head_fields, wall_fields, *others = (
            look.describe(obj, "thing") for obj in (head, wall, bpy.data.objects["beside"])
        )
        seen.append(
            {
                "alone": np.array(alone).reshape(60, 80).tolist(),
                "silhouette": look.silhouette(head).tolist(),
                "counts": [int((index == 1).sum()), int((index == 2).sum())],
                "head": [head_fields[field] for field in COUNTS],
                "wall": [wall_fields[field] for field in COUNTS],
                "others": [[other[field] for field in COUNTS] for other in others],
                "without": sorted(head_fields.keys() - View(world).describe(head, "thing").keys()),
            }
        )
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("silhouette"))


@in_blender.needs_bpy
def test_silhouettes_are_where_blenders_rays_meet_the_object(seen: dict[str, Any]) -> None:
    """All but a pixel or two: its rays are float32."""
    for case in seen["rays"]:
        found, expected = np.array(case["silhouette"]), np.array(case["alone"])
        assert 500 < expected.sum() < 3000
        assert (found != expected).sum() <= 2


@in_blender.needs_bpy
def test_the_visible_fraction_is_what_the_wall_leaves(seen: dict[str, Any]) -> None:
    for case in seen["rays"]:
        (head, wall), covered = case["counts"], np.sum(case["silhouette"])
        assert case["head"] == [head, covered, round(head / covered, 6)]
        assert 0.3 < head / covered < 0.95
        assert case["wall"] == [wall, wall, 1.0], "nothing is before it"
        assert case["without"] == ["silhouette_pixels", "visible_fraction", "visible_pixels"]


@in_blender.needs_bpy
def test_what_covers_no_pixel_has_no_visible_fraction(seen: dict[str, Any]) -> None:
    """Zeros, as an int, an int and a float."""
    for case in seen["rays"]:
        assert str(case["others"]) == str([[0, 0, 0.0]])
