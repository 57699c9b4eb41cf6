"""A text's glyphs are where its keypoints say, to the pixel; what its font lacks is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageFont

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

PLATE = "B·: 1i\n8j%"
WIDTH, HEIGHT, FOCAL, AWAY = 320, 240, 400.0, 1.0
"""The camera is above the text, looks straight down at it, and its image's x is the text's."""
TURN = np.array([[0.0, -1.0, 0.0, 0.02], [1.0, 0.0, 0.0, -0.01], [0.0, 0.0, 1.0, 0.1], [0.0, 0.0, 0.0, 1.0]])
"""Where the text is: a quarter turn, and moved."""


def font_in(folder: Path) -> Path:
    """A font file that comes with Pillow."""
    file = folder / "aileron.ttf"
    font = ImageFont.load_default(size=10)
    assert isinstance(font, ImageFont.FreeTypeFont)
    file.write_bytes(font.font_bytes)
    return file


def digest(obj: Any) -> str:
    points = np.empty(3 * len(obj.data.vertices), np.float32)
    obj.data.vertices.foreach_get("co", points)
    corners = np.empty(len(obj.data.loops), np.int32)
    obj.data.loops.foreach_get("vertex_index", corners)
    return hashlib.sha256(points.tobytes() + corners.tobytes()).hexdigest()


@scene
def repeated(folder: Path) -> Any:
    """The same text before and after another; the files that were used."""
    import bpy  # noqa: F401 - makes bmesh importable

    from blender_jobs import assets, meshes, stage

    assets.begin(folder)
    font_in(folder)
    found = []
    for _ in range(2):
        stage.clear()
        found.append([digest(meshes.text("plate", PLATE, font, depth_m=0.01)) for font in (None, "aileron.ttf")])
        meshes.text("other", "other")
    return {"digests": found, "used": [file.name for file in assets.used()]}


@scene
def shown(folder: Path) -> Any:
    import bpy
    import bmesh
    from mathutils import Matrix

    from blender_jobs import assets, lens, materials, meshes, parts, stage
    from blender_jobs.view import View

    assets.begin(folder)
    font_in(folder)
    found = {}
    for name, font, depth in (("own", None, 0.0), ("file", "aileron.ttf", 0.02)):
        stage.clear()
        scene = bpy.context.scene
        scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
        plate = meshes.text("plate", PLATE, font, height_m=0.12, depth_m=depth, align="right", spacing=1.2)
        plate.matrix_world = Matrix(TURN.tolist())
        materials.assign(plate, materials.principled("white", emission=(1, 1, 1), specular=0.0))
        camera = stage.camera(at=(0, 0, AWAY), look_at=(0, 0, 0))
        camera.rotation_euler = (0, 0, 0)
        lens.set_intrinsics(camera, [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], (WIDTH, HEIGHT))
        bpy.context.view_layer.update()
        view = View(scene)
        glyphs = parts.glyphs(view, plate)
        body = bmesh.new()
        body.from_mesh(plate.data)
        found[name] = {
            "names": glyphs.names,
            "declared": parts.glyph_names(8),
            "places": glyphs.positions.tolist(),
            "described": view.describe(plate, "plate", glyphs, text=PLATE)["keypoints"],
            "vertices": [list(vertex.co) for vertex in plate.data.vertices],
            "islands": islands(plate),
            "closed": all(edge.is_manifold and edge.is_contiguous for edge in body.edges),
            "volume": body.calc_volume(signed=True),
            "up": min(face.normal.z for face in body.faces),
            "picture": picture(folder),
            "objects": [obj.name for obj in bpy.data.objects],
            "curves": len(bpy.data.curves),
        }
        body.free()
    return found


def islands(obj: Any) -> list[list[list[float]]]:
    """The extents of a mesh's parts that hang together, (N, 2, 3): told from its edges alone."""
    above = list(range(len(obj.data.vertices)))

    def top(at: int) -> int:
        while above[at] != at:
            at = above[at]
        return at

    for edge in obj.data.edges:
        above[top(edge.vertices[0])] = top(edge.vertices[1])
    places = np.array([vertex.co for vertex in obj.data.vertices])
    tops = np.array([top(at) for at in range(len(places))])
    parts = [places[tops == at] for at in np.unique(tops)]
    return [[part.min(axis=0).tolist(), part.max(axis=0).tolist()] for part in parts]


def picture(folder: Path) -> list[list[int]]:
    """Rows and columns of the pixels that show the text, by Cycles, at the pixels' centres."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    scene.cycles.pixel_filter_type, scene.render.image_settings.file_format = "BOX", "OPEN_EXR"
    scene.render.filepath = str(folder / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(WIDTH * HEIGHT * 4, np.float32)
    image.pixels.foreach_get(pixels)
    return np.argwhere(pixels.reshape(HEIGHT, WIDTH, 4)[::-1, :, 1] > 0.5).tolist()


@scene
def refused(folder: Path) -> Any:
    import bpy

    from blender_jobs import assets, meshes, parts, stage
    from blender_jobs.job import JobError
    from blender_jobs.view import View

    stage.clear()
    assets.begin(folder)
    whole = font_in(folder).read_bytes()
    (folder / "cut.ttf").write_bytes(whole[:40])
    (folder / "text.ttf").write_text("not a font")
    attempts = {
        "lacks": lambda: meshes.text("plate", "AЖ漢", "aileron.ttf"),
        "lacks built in": lambda: meshes.text("plate", "A\ue123\t"),
        "empty": lambda: meshes.text("plate", " \n "),
        "height": lambda: meshes.text("plate", "A", height_m=0),
        "align": lambda: meshes.text("plate", "A", align="middle"),  # type: ignore[arg-type]
        "gone": lambda: meshes.text("plate", "A", "lost.ttf"),
        "cut": lambda: meshes.text("plate", "A", "cut.ttf"),
        "no font": lambda: meshes.text("plate", "A", "text.ttf"),
    }
    said = {}
    for name, attempt in attempts.items():
        with pytest.raises(JobError) as error:
            attempt()
        said[name] = str(error.value)
    borrowed = len(meshes.text("plate", "Ж漢").data.vertices)
    assets.begin(folder, {})
    with pytest.raises(JobError) as error:
        meshes.text("plate", "A", "aileron.ttf")
    said["unknown"] = str(error.value)
    stage.camera(at=(0, 0, 5))
    cube = stage.cube("cube")
    bpy.context.view_layer.update()
    with pytest.raises(ValueError, match=r"meshes\.text") as wrong:
        parts.glyphs(View(bpy.context.scene), cube)
    return {"said": said, "other": str(wrong.value), "borrowed": borrowed}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_the_same_text_is_the_same_mesh(seen: dict[str, Any], tmp_path: Path) -> None:
    """Vertices and faces to the byte, in a scene of its own and in another process; the font's file is an asset."""
    first, again = seen["repeated"]["digests"]
    assert first == again
    assert len(set(first)) == 2
    assert in_blender.play(__name__, tmp_path, ["repeated"])["repeated"] == seen["repeated"]
    assert seen["repeated"]["used"] == ["aileron.ttf"]


@pytest.mark.parametrize("font", ["own", "file"])
def test_boxes_are_tight_around_each_glyph(seen: dict[str, Any], font: str) -> None:
    """In reading order: dots and rings belong to their letters; each box is that of the islands in it, and no more."""
    found = seen["shown"][font]
    assert found["names"][:5] == [*(f"glyph0_{at}" for at in CORNERS), "glyph1_top_left"]
    assert found["names"] == found["declared"]
    corners = own_corners(found)
    islands = np.array(found["islands"])[:, :, :2]
    left = len(islands)
    for top_left, top_right, bottom_right, bottom_left in corners[:, :, :2]:
        inside = ((islands >= bottom_left - 1e-6) & (islands <= top_right + 1e-6)).all(axis=(1, 2))
        left -= int(inside.sum())
        assert islands[inside, 0].min(axis=0) == pytest.approx(bottom_left, abs=1e-6)
        assert islands[inside, 1].max(axis=0) == pytest.approx(top_right, abs=1e-6)
        assert top_left == pytest.approx([bottom_left[0], top_right[1]], abs=1e-6)
        assert bottom_right == pytest.approx([top_right[0], bottom_left[1]], abs=1e-6)
    assert left == 0
    reading = corners[:, 0, :2]
    assert (np.diff(reading[:5, 0]) > 0).all()
    assert (np.diff(reading[5:, 0]) > 0).all()
    assert reading[:5, 1].min() > reading[5:, 1].max()


CORNERS = ("top_left", "top_right", "bottom_right", "bottom_left")


def own_corners(found: dict[str, Any]) -> Any:
    """The glyphs' corners (G, 4, 3) in the text's own frame, from where they are in the world."""
    homogeneous = np.pad(np.array(found["places"]), ((0, 0), (0, 1)), constant_values=1.0)
    return (homogeneous @ np.linalg.inv(TURN).T)[:, :3].reshape(-1, 4, 3)


@pytest.mark.parametrize("font", ["own", "file"])
def test_pixels_of_each_glyph_fill_its_keypoints(seen: dict[str, Any], font: str) -> None:
    """The pixels between four keypoints reach to each side; of flat text, which has no sides to show, all are there."""
    found = seen["shown"][font]
    pixels = np.array(found["picture"])[:, ::-1] + 0.5
    rows = np.array(found["described"]).reshape(-1, 4, 3)
    places = np.array(found["places"]).reshape(-1, 4, 3)
    depth = AWAY - places[..., 2]
    expected = np.stack([WIDTH / 2 + FOCAL * places[..., 0] / depth, HEIGHT / 2 - FOCAL * places[..., 1] / depth], -1)
    assert rows[..., :2] == pytest.approx(expected, abs=1e-3)
    assert (rows[..., 2] == 2).all()
    assert len(rows) == 8
    owned = np.zeros(len(pixels), dtype=bool)
    for low, high in zip(expected.min(axis=1), expected.max(axis=1), strict=True):
        inside = ((pixels > low - 1) & (pixels < high + 1)).all(axis=1)
        owned |= inside
        assert pixels[inside].min(axis=0) == pytest.approx(low, abs=1.5)
        assert pixels[inside].max(axis=0) == pytest.approx(high, abs=1.5)
    assert owned.all() or font == "file"


def test_text_is_as_large_and_as_deep_as_it_says(seen: dict[str, Any]) -> None:
    """The B is a capital letter of 12 cm; the ink is centred; flat text looks up, deep text is closed, outside out."""
    for font, depth in (("own", 0.0), ("file", 0.02)):
        found = seen["shown"][font]
        box = own_corners(found)[0]
        assert np.ptp(box[:, 1]) == pytest.approx(0.12, rel=0.02), font
        points = np.array(found["vertices"])
        assert points[:, :2].min(axis=0) == pytest.approx(-points[:, :2].max(axis=0), abs=1e-6)
        assert (points[:, 2].min(), points[:, 2].max()) == pytest.approx((0, depth), abs=1e-6)
        assert own_corners(found)[..., 2] == pytest.approx(np.full((8, 4), depth), abs=1e-6)
        assert (sorted(found["objects"]), found["curves"]) == (["camera", "plate"], 0)
    assert seen["shown"]["own"]["up"] == pytest.approx(1, abs=1e-5)
    assert seen["shown"]["file"]["closed"]
    assert seen["shown"]["file"]["volume"] > 0


def test_what_a_font_lacks_is_named(seen: dict[str, Any]) -> None:
    """Characters with their numbers; fonts that are none, damaged, missing or not the plan's; Noto helps out."""
    said = seen["refused"]["said"]
    parts = {
        "lacks": "aileron.ttf lacks 'Ж' (U+0416), '漢' (U+6F22); use another font, or leave them out",
        "lacks built in": "Blender's own font lacks '\\t' (U+0009), '\\ue123' (U+E123); give a font file",
        "empty": "'plate' has nothing to show",
        "height": "a height and a spacing above 0",
        "align": "align is 'middle', which must be left, center or right",
        "gone": "lost.ttf does not exist",
        "cut": "cut.ttf is damaged: its table of characters cannot be read",
        "no font": "text.ttf is not a TrueType or OpenType font; use .ttf, .otf or .ttc",
        "unknown": "aileron.ttf is not among the plan's assets",
    }
    assert list(said) == list(parts)
    for name, part in parts.items():
        assert part in said[name], said[name]
    assert seen["refused"]["other"] == "mesh 'cube' was not made by meshes.text: it has no glyphs"
    assert seen["refused"]["borrowed"] > 50
