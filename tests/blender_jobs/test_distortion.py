"""A distorting lens is OpenCV's to the last digits: in numbers, in boxes and in rendered pixels."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from blender_jobs._vision.boxes import boxes
from blender_jobs._vision.camera import Camera
from blender_jobs._vision.distortion import distort, reach, undistort
from blender_jobs._vision.warp import warp_of
from tests import in_blender
from tests.in_blender import scene

SIZE = (160, 120)
BARREL = (-0.28, 0.07, 0.002, -0.001)
PINCUSHION = (0.15, 0.05, -0.001, 0.002, 0.01)
RATIONAL = (-0.25, 0.06, 0.001, 0.0, 0.02, 0.01, 0.0, 0.001)
LENSES = [BARREL, PINCUSHION, RATIONAL]


def opencv(lens: Any, x: float, y: float) -> tuple[float, float]:
    """As OpenCV's documentation of calib3d writes it, term by term."""
    k1, k2, p1, p2, k3, k4, k5, k6 = [*lens, 0, 0, 0, 0][:8] if len(lens) < 8 else lens
    r2 = x**2 + y**2
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2),
        y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y,
    )


def camera(lens: Any = (), focal: float = 120.0, clip: tuple[float, float] = (0.1, 100.0)) -> Camera:
    """At the origin, looking along Blender's -z; the principal point beside the centre."""
    width, height = SIZE
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1] = 2 * focal / width, 2.1 * focal / height
    projection[:2, 2], projection[3, 2] = (0.05, -0.03), -1
    return Camera.from_opengl("eye", "PERSP", SIZE, projection, np.eye(4), clip, lens)


def below(limit: float) -> st.SearchStrategy[float]:
    return st.floats(-limit, limit)


RADIAL = st.tuples(below(0.3), below(0.1))
TANGENTIAL = st.tuples(below(0.01), below(0.01))
COEFFICIENTS = st.one_of(
    st.tuples(RADIAL, TANGENTIAL),
    st.tuples(RADIAL, TANGENTIAL, st.tuples(below(0.05))),
    st.tuples(RADIAL, TANGENTIAL, st.tuples(below(0.05), below(0.1), below(0.05), below(0.01))),
).map(lambda groups: tuple(itertools.chain(*groups)))


def camera_or_not(lens: Any) -> Camera:
    try:
        return camera(lens)
    except ValueError:
        assume(False)
        raise


@given(COEFFICIENTS, st.floats(0, 1), st.floats(0, 6.3))
def test_points_are_distorted_as_opencv_says(lens: Any, part: float, angle: float) -> None:
    """Within the reach; beyond it no calibration means anything."""
    radius = part * min(reach(lens), 2.0) * (1 - 1e-9)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    assert distort(lens, np.array([[x, y]]))[0] == pytest.approx(opencv(lens, x, y), abs=1e-12)


@given(COEFFICIENTS, st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 100))
def test_unproject_is_the_inverse_of_project(lens: Any, across: float, down: float, depth: float) -> None:
    """To 1e-9 pixels, over the whole image."""
    made = camera_or_not(lens)
    pixels = np.array([[across * SIZE[0], down * SIZE[1], depth]])
    assert made.project(made.unproject(pixels)) == pytest.approx(pixels, abs=1e-9)


@given(COEFFICIENTS, st.tuples(below(2), below(2)), st.floats(0.1, 50))
def test_the_projection_is_opencvs(lens: Any, place: Any, depth: float) -> None:
    """The pose, then the lens, then K, from the annotated numbers alone."""
    made = camera_or_not(lens)
    assume(np.hypot(*place) < reach(made.distortion))
    fields = made.as_json()
    x, y = opencv(fields["distortion"], *place)
    u, v, _ = np.array(fields["K"]) @ [x, y, 1]
    world = np.array(fields["cam_to_world"]) @ [*(depth * np.array([*place, 1.0])), 1]
    assert made.project(world[None, :3])[0] == pytest.approx([u, v, depth], rel=1e-12, abs=1e-9)


@given(COEFFICIENTS)
def test_the_reach_ends_where_the_image_folds(lens: Any) -> None:
    """Within it the Jacobian, by finite differences, is positive definite; on its rim, somewhere, no more.

    Or the denominator vanishes there.
    """
    limit = reach(lens)
    angles = np.linspace(0, 2 * np.pi, 721)
    rim = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def lowest(radius: float) -> float:
        def at(point: Any) -> Any:
            return np.array(opencv(lens, *point))

        step = 1e-6 * radius
        columns = [
            (at((radius * rim + move).T) - at((radius * rim - move).T)) / (2 * step) for move in step * np.eye(2)
        ]
        return float(np.linalg.eigvalsh(np.moveaxis(np.array(columns), 2, 0)).min())

    assert all(lowest(limit * part) > 0 for part in (0.1, 0.5, 0.9, 0.99))
    denominator = np.polyval([*lens[7:4:-1], 1], (limit * 1.01) ** 2)
    assert limit == 100 or lowest(limit * 1.01) < 0 or denominator < 0


def test_beyond_the_reach_nothing_is_in_the_image() -> None:
    """A polynomial alone would bring such points back into the image."""
    made = camera((-0.16, 0.0, 0.0, 0.0), focal=200.0)
    limit = reach(made.distortion)
    far = np.array([[x, 0, -1.0] for x in np.linspace(limit * 1.01, 50, 200)])
    shown = [opencv(made.distortion, x, 0)[0] for x in far[:, 0]]
    assert min(np.abs(shown)) < 0.3  # back on the axis
    pixels = made.project(far)
    assert not made.contains(pixels).any()
    assert np.ptp(pixels[:, 0]) < 1e-9  # all on the rim


def cut(polygon: np.ndarray, near: float, far: float) -> np.ndarray:
    """What of a polygon (N, 3) lies in a range of depths, along -z: by Sutherland and Hodgman."""
    for sign, offset in ((1, -near), (-1, far)):
        kept = []
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            here, there = (sign * -point[2] + offset for point in (start, end))
            if here >= 0:
                kept.append(start)
            if (here < 0) != (there < 0):
                kept.append(start + here / (here - there) * (end - start))
        polygon = np.array(kept).reshape(-1, 3)
    return polygon


@pytest.mark.parametrize("lens", LENSES)
def test_boxes_hold_what_points_all_over_the_mesh_show(lens: Any) -> None:
    """Triangles inside the image, over its border, around its corners, through the near and the far plane."""
    made = camera(lens, clip=(0.5, 6.0))
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 4000)[:, None]
    along, across = np.stack(np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 300)), axis=-1).reshape(-1, 2).T
    weights = np.stack([along, across * (1 - along), (1 - along) * (1 - across)], axis=1)
    kinds = set()
    for _ in range(60):
        vertices = rng.uniform([-3, -3, -8], [3, 3, 1], (3, 3)) * rng.choice([1.0, 0.4]) - [0, 0, rng.choice([0, 2])]
        clipped, unclipped = boxes(made, vertices, lambda: np.arange(3, dtype=np.int32)[None])
        ends = cut(vertices, 0.5, 6.0)
        if not len(ends):
            assert clipped == unclipped == [0.0] * 4
            continue
        border = made.project(
            np.concatenate([a + t * (b - a) for a, b in zip(ends, np.roll(ends, -1, 0), strict=True)])
        )
        seen = np.concatenate([border, made.project(weights @ vertices)])
        inside = seen[made.contains(seen)]
        kinds.add((len(inside) > 0, bool(made.contains(border).all())))
        assert edges(unclipped) == pytest.approx(edges_around(border), abs=0.02, rel=1e-4)
        if len(inside):
            assert edges(clipped) == pytest.approx(edges_around(inside), abs=1.0)
            assert (np.abs(edges(clipped) - edges_around(inside)) < 0.02).any()
        else:
            assert max(clipped[2:]) < 1
    assert kinds == {(True, True), (True, False), (False, False)}


def edges(box: list[float]) -> np.ndarray:
    x, y, width, height = box
    return np.array([x, y, x + width, y + height])


def edges_around(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[:, :2].min(axis=0), pixels[:, :2].max(axis=0)])


@pytest.mark.parametrize("lens", LENSES)
def test_a_finer_mesh_of_the_same_triangle_has_the_same_boxes(lens: Any) -> None:
    """Short edges take a short cut: it must lead to the same place."""
    made = camera(lens, clip=(0.5, 6.0))
    rng = np.random.default_rng(2)
    steps = 300
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(steps + 1), np.arange(steps + 1)))
    weights = np.stack([i, j, steps - i - j], axis=1) / steps
    at = (np.arange(steps)[:, None] * (steps + 1) + np.arange(steps)).ravel()
    right, down = at + 1, at + steps + 1
    grid = np.concatenate([np.stack([at, right, down], axis=1), np.stack([right, down + 1, down], axis=1)])
    grid = grid[(weights[grid] >= 0).all(axis=(1, 2))].astype(np.int32)
    whole = np.array([[0, 1, 2]], dtype=np.int32)
    upright = [np.array([[-a, b, -2], [a, b, -2], [0.2, -b, -2.0]]) for a, b in ((0.9, 0.7), (-0.9, -0.7), (2, 0.3))]
    for vertices in (*upright, *rng.uniform([-1.5, -1.2, -5], [1.5, 1.2, 0], (10, 3, 3))):
        fine = np.where((weights >= 0).all(axis=1)[:, None], weights, 1 / 3) @ vertices
        expected, found = boxes(made, vertices, lambda: whole), boxes(made, fine, lambda: grid)
        assert np.array(found) == pytest.approx(np.array(expected), abs=0.02, rel=1e-4)


def test_without_distortion_boxes_are_those_of_coefficients_that_do_nothing() -> None:
    """The two ways to compute them meet."""
    plain, idle = camera(clip=(0.5, 6.0)), camera((0.0, 0.0, 0.0, 0.0), clip=(0.5, 6.0))
    rng = np.random.default_rng(1)
    faces = np.arange(30, dtype=np.int32).reshape(-1, 3)
    for _ in range(50):
        vertices = rng.uniform([-2, -2, -8], [2, 2, -0.2], (30, 3))
        expected, found = (boxes(made, vertices, lambda: faces) for made in (plain, idle))
        assert np.array(found) == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("lens", LENSES)
def test_a_warped_image_shows_each_pixel_what_lies_before_it(lens: Any) -> None:
    """An image of coordinates, which bilinear sums keep exact; and the values of nearest pixels unmixed."""
    made = camera(lens)
    warp, ideal = warp_of(made), made.ideal
    assert warp is not None
    rows, columns = np.indices((ideal.height, ideal.width)) + 0.5
    rays = np.stack([(columns - ideal.K[0, 2]) / ideal.K[0, 0], (rows - ideal.K[1, 2]) / ideal.K[1, 1]], axis=2)
    shown = warp.image(rays).reshape(-1, 2)
    again = np.array([opencv(made.distortion, *ray) for ray in shown]) * made.K.diagonal()[:2] + made.K[:2, 2]
    centres = np.stack(np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5), axis=-1)
    assert again.reshape(*SIZE[::-1], 2) == pytest.approx(centres, abs=1e-9)
    near = warp.nearest(rays).reshape(-1, 2)
    assert (np.abs(near - shown) * made.K.diagonal()[:2]).max() <= 0.5 + 1e-9
    assert warp.nearest(np.arange(rows.size, dtype=np.uint16).reshape(rows.shape)).dtype == np.uint16


def test_warped_bytes_are_rounded_not_cut() -> None:
    made = camera(BARREL)
    warp, ideal = warp_of(made), made.ideal
    assert warp is not None
    noise = np.random.default_rng(0).integers(0, 256, (ideal.height, ideal.width, 3), dtype=np.uint8)
    exact, found = warp.image(noise.astype(np.float64)), warp.image(noise)
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5


@pytest.mark.parametrize(
    ("lens", "part"),
    [
        ((-0.9, 0.0, 0.0, 0.0), "folds the image over"),
        ((-0.33, 0.0, 0.0, 0.0), "folds the image over"),
        ((0.0, 0.0, 0.9, 0.0), "folds the image over"),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0), "folds the image over"),
        ((20.0, 0.0, 0.0, 0.0, 0.0, 120.0, 0.0, 0.0), "more than 4 times"),
        ((1.0, 2.0), "2 numbers"),
        ((0.0, 0.0, 0.0, float("nan")), "finite"),
        (("a", "b", "c", "d"), "numbers"),
    ],
)
def test_lenses_that_cannot_be_undone_are_refused_in_one_line(lens: Any, part: str) -> None:
    with pytest.raises(ValueError, match=part) as error:
        camera(lens)
    assert "\n" not in str(error.value)
    assert "'eye'" in str(error.value)


def test_undistort_names_the_place_that_no_point_is_shown_at() -> None:
    with pytest.raises(ValueError, match=r"x = 5, y = 0"):
        undistort((-0.2, 0.0, 0.0, 0.0), np.array([[0.1, 0.0], [5.0, 0.0]]))


# --- Inside Blender -------------------------------------------------------------------------------------------

MARKERS = [(0, 0, 0), (-1.7, 0.2, 1.2), (1.6, 0.0, -1.2), (-1.7, 0.1, -1.1), (1.2, -0.5, 1.0), (0.4, 1.5, -0.9)]
INTRINSICS = [
    ([[310.0, 0, 85.5], [0, 310.0, 58.25], [0, 0, 1]], (160, 120)),
    ([[300.5, 0, 77], [0, 280.25, 101.5], [0, 0, 1]], (150, 200)),
    ([[900.0, 0, 650], [0, 950.0, 340], [0, 0, 1]], (1280, 720)),
    ([[20.0, 0, 320], [0, 21.0, 240], [0, 0, 1]], (640, 480)),
]


def seen_by() -> Any:
    """The scene's camera, with its distortion."""
    import bpy

    from blender_jobs import lens

    return lens.scene_camera(bpy.context.scene, bpy.context.evaluated_depsgraph_get())


def eye(lens: Any = None) -> Any:
    import bpy

    from blender_jobs import stage

    stage.clear()
    made = stage.camera(at=(0, -4, 0))
    made.data.clip_start = 0.5
    render = bpy.context.scene.render
    render.engine, render.film_transparent = "BLENDER_WORKBENCH", True  # black around the scene
    render.resolution_x, render.resolution_y = SIZE
    render.dither_intensity = 0
    bpy.context.scene.view_settings.view_transform = "Raw"
    bpy.context.scene.display.shading.light = "FLAT"
    bpy.context.scene.display.render_aa = "OFF"
    if lens is not None:
        made["opencv_distortion"] = list(lens)
    return made


def picture(folder: Path) -> np.ndarray:
    """The rendered frame as the lens shows it, float64 (H, W): how much of each pixel is covered."""
    import bpy

    from blender_jobs import lens
    from blender_jobs._render.render import decode

    render = bpy.context.scene.render
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGB"
    with lens.ideal(bpy.context.scene, seen_by()) as warp:
        render.filepath = str(folder / "ideal.png")
        bpy.ops.render.render(write_still=True)
    pixels = decode(folder / "ideal.png")
    return (pixels if warp is None else warp.image(pixels)).astype(np.float64).mean(axis=2)


@scene
def markers(folder: Path) -> Any:
    """One ball at a time: where View says it is, and the centroid of what the warped picture shows."""
    import bpy

    from blender_jobs import lens
    from blender_jobs.view import View

    seen = []
    for coefficients in [None, *LENSES]:
        camera_obj = eye(coefficients)
        lens.set_intrinsics(camera_obj, [[125.0, 0, 76.0], [0, 130.0, 63.0], [0, 0, 1]], SIZE)
        bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4, radius=0.1)
        ball = bpy.context.object
        for place in MARKERS:
            ball.location = place
            bpy.context.view_layer.update()
            look = View(bpy.context.scene)
            shown = picture(folder)
            rows, columns = np.indices(shown.shape) + 0.5
            centre = [float((at * shown).sum() / shown.sum()) for at in (columns, rows)]
            box = look.bbox(ball)[0]
            edges = [columns[shown > 0].min(), rows[shown > 0].min(), columns[shown > 0].max(), rows[shown > 0].max()]
            outline = look.silhouette(ball)
            covered = [float(at[outline].mean()) for at in (columns, rows)]
            seen.append(
                {
                    "lens": list(coefficients or []),
                    "annotated": look.camera["distortion"],
                    "keypoint": look.keypoints(ball, [(0, 0, 0)]).tolist()[0],
                    "self": look.keypoints(ball, [(0, 0, 0)], self_tolerance_m=0.11).tolist()[0],
                    "centre": centre,
                    "covered": covered,
                    "box": box,
                    "edges": [float(edge) for edge in edges],
                }
            )
    return seen


@scene
def restored(folder: Path) -> Any:
    """What `ideal` changes while it renders, and what is left of it, with an animated lens too."""
    import bpy

    from blender_jobs import lens

    made = eye(BARREL)
    for frame, lens_mm, shift in ((1, 40, 0.1), (11, 30, -0.05)):
        made.data.lens, made.data.shift_x = lens_mm, shift
        made.data.keyframe_insert("lens", frame=frame)
        made.data.keyframe_insert("shift_x", frame=frame)
    made.data.dof.use_dof, render = True, bpy.context.scene.render
    bpy.context.scene.frame_set(6)
    render.resolution_x, render.resolution_percentage = 2 * SIZE[0], 50
    render.resolution_y *= 2

    def state() -> Any:
        size = [render.resolution_x, render.resolution_y, render.resolution_percentage]
        return [made.data.name, made.data.lens, made.data.sensor_width, made.data.shift_x, *size, len(bpy.data.cameras)]

    before = state()
    expected = lens.scene_camera(bpy.context.scene, bpy.context.evaluated_depsgraph_get()).ideal
    with lens.ideal(bpy.context.scene, seen_by()):
        during = state()
        made["opencv_distortion"] = []
        bpy.context.scene.frame_set(6)
        found = lens.scene_camera(bpy.context.scene, bpy.context.evaluated_depsgraph_get())
        made["opencv_distortion"] = list(BARREL)
    try:
        with lens.ideal(bpy.context.scene, seen_by()):
            raise RuntimeError
    except RuntimeError:
        pass
    del made["opencv_distortion"]
    with lens.ideal(bpy.context.scene, seen_by()) as warp:
        plain = [warp is None, state()]
    return {
        "before": before,
        "during": during,
        "after": state(),
        "plain": plain,
        "expected": [expected.as_json()[name] for name in ("K", "width", "height", "clip_start")],
        "found": [found.as_json()[name] for name in ("K", "width", "height", "clip_start")],
    }


@scene
def intrinsics(folder: Path) -> Any:
    import bpy

    from blender_jobs import lens
    from blender_jobs.view import View

    found = []
    for K, size in INTRINSICS:
        made = eye()
        made.data.type, made.data.sensor_fit, made.data.shift_x = "ORTHO", "VERTICAL", 0.3
        bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y = size
        lens.set_intrinsics(made, K, size)
        bpy.context.view_layer.update()
        found.append(View(bpy.context.scene).camera["K"])
    return found


@scene
def files(folder: Path) -> Any:
    """Pixels of every value through Blender's encoders, with a look set that would change them all."""
    import bpy

    from blender_jobs._render import render

    eye()
    settings = bpy.context.scene.view_settings
    settings.exposure, settings.gamma = 1.5, 1.3
    bpy.context.scene.render.dither_intensity = 2.0
    bpy.context.scene.render.image_settings.file_format = "OPEN_EXR"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    pixels[:7, :40].reshape(-1)[:768] = np.arange(256).repeat(3)
    smooth = np.broadcast_to(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], (30, 40, 3))
    misses = {}
    for image, given_pixels, quality in [("png", pixels, 1), ("webp", pixels, 100), ("jpg", smooth, 95)]:
        content = render.encode(given_pixels, image, quality, folder)
        assert content == render.encode(given_pixels, image, quality, folder)
        (folder / f"again.{image}").write_bytes(content)
        misses[image] = int(np.abs(render.decode(folder / f"again.{image}").astype(int) - given_pixels).max())
    sizes = [len(render.encode(pixels, "jpg", quality, folder)) for quality in (30, 95)]
    left = [len(bpy.data.images), bpy.context.scene.render.image_settings.file_format]
    return {"misses": misses, "sizes": sizes, "left": left}


@scene
def mistakes(folder: Path) -> Any:
    import bpy

    from blender_jobs import lens
    from blender_jobs.job import JobError

    said = {}

    def note(name: str, attempt: Any) -> None:
        try:
            attempt()
        except (ValueError, JobError) as error:
            said[name] = str(error)

    def enter() -> None:
        with lens.ideal(bpy.context.scene, seen_by()):
            pass

    made = eye((-0.9, 0, 0, 0))
    made.data.lens = 20
    note("folded", enter)
    made["opencv_distortion"] = 0.5
    note("no list", enter)
    made["opencv_distortion"] = list(BARREL)
    made.data.type = "ORTHO"
    note("orthographic", enter)
    note("skew", lambda: lens.set_intrinsics(made, [[1, 0.1, 1], [0, 1, 1], [0, 0, 1]], SIZE))
    note("shape", lambda: lens.set_intrinsics(made, [1, 2, 3], SIZE))
    note("no camera", lambda: lens.set_intrinsics("camera", np.eye(3), SIZE))
    return said


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("distortion"))


@in_blender.needs_bpy
def test_keypoints_are_where_the_warped_picture_shows_them(seen: dict[str, Any]) -> None:
    """Balls of 6 pixels' width, drawn without anti-aliasing: their centroids miss by less than 0.3 pixels."""
    misses = [np.subtract(case["centre"], case["keypoint"][:2]) for case in seen["markers"]]
    assert np.abs(misses).max() < 0.3
    assert np.abs(np.mean(misses, axis=0)).max() < 0.1
    moved = np.reshape([case["keypoint"][:2] for case in seen["markers"]], (len(LENSES) + 1, -1, 2))
    assert all(np.abs(lens - moved[0]).max() > 2 for lens in moved[1:])


@in_blender.needs_bpy
def test_silhouettes_and_boxes_are_those_of_the_warped_picture(seen: dict[str, Any]) -> None:
    for case in seen["markers"]:
        assert np.subtract(case["covered"], case["centre"]) == pytest.approx([0, 0], abs=0.3)
        x, y, width, height = case["box"]
        left, top, right, bottom = case["edges"]  # centres of pixels that are lit, perhaps in part
        assert np.abs(np.array([x - left, y - top, right - x - width, bottom - y - height])).max() < 1.5


@in_blender.needs_bpy
def test_the_annotation_tells_the_distortion(seen: dict[str, Any]) -> None:
    """As a list that is there, empty, for an ideal lens too."""
    assert all(case["annotated"] == case["lens"] for case in seen["markers"])


@in_blender.needs_bpy
def test_a_body_hides_its_joints_unless_that_is_tolerated(seen: dict[str, Any]) -> None:
    """A ball's centre lies 0.1 m behind its surface; visible with a tolerance of 0.11 m, also on distorted pixels."""
    assert {case["keypoint"][2] for case in seen["markers"]} == {1.0}
    assert {case["self"][2] for case in seen["markers"]} == {2.0}


@in_blender.needs_bpy
def test_the_undistorted_camera_is_what_blender_renders(seen: dict[str, Any]) -> None:
    """Animation of the lens does not set it back, and all is restored, after an error too."""
    case = seen["restored"]
    assert case["before"] == case["after"]
    assert case["plain"] == [True, case["before"]]
    assert case["during"][1] == pytest.approx(case["before"][1])  # so that what is out of focus stays so
    (K, *rest), (expected, *others) = case["found"], case["expected"]
    assert rest == others
    assert np.array(K) == pytest.approx(np.array(expected), abs=1e-4)


@in_blender.needs_bpy
def test_intrinsics_come_back_as_they_were_set(seen: dict[str, Any]) -> None:
    for (K, _), found in zip(INTRINSICS, seen["intrinsics"], strict=True):
        assert np.array(found) == pytest.approx(np.array(K), abs=1e-4)


@in_blender.needs_bpy
def test_encoded_pixels_are_the_given_ones(seen: dict[str, Any]) -> None:
    """PNG and lossless WebP exactly, whatever the look; JPEG nearly, in the quality asked for."""
    case = seen["files"]
    assert case["misses"]["png"] == case["misses"]["webp"] == 0
    assert case["misses"]["jpg"] < 12
    assert case["sizes"][0] < 0.7 * case["sizes"][1]
    assert case["left"] == [0, "OPEN_EXR"]


@in_blender.needs_bpy
def test_mistakes_are_told_in_one_line(seen: dict[str, Any]) -> None:
    expected = {
        "folded": "'camera'",
        "no list": "opencv_distortion",
        "orthographic": "PERSP",
        "skew": "skew",
        "shape": "(3, 3)",
        "no camera": "'camera'",
    }
    assert seen["mistakes"].keys() == expected.keys()
    assert {name: part in seen["mistakes"][name] for name, part in expected.items()} == dict.fromkeys(expected, True)
    assert not any("\n" in message for message in seen["mistakes"].values())


def test_equal_lenses_share_a_warp() -> None:
    """Though each frame makes its camera anew."""
    assert warp_of(camera(BARREL)) is warp_of(dataclasses.replace(camera(BARREL)))
    assert warp_of(camera(BARREL)) is not warp_of(camera(BARREL, focal=121.0))
    assert warp_of(camera()) is None
