"""Materials say the same in every Blender, colours are linear, textures cover what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy


@scene
def colours(folder: Path) -> Any:
    from blender_jobs import materials

    limits = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)

    @given(st.integers(0, 2**32), limits, limits)
    def within(seed: int, saturation: Any, value: Any) -> None:
        color = materials.random_color(np.random.default_rng(seed), saturation=saturation, value=value)
        assert color.shape == (3,)
        low, high = materials.linear(value)
        assert low - 1e-9 <= color.max() <= high + 1e-9
        assert color.min() >= materials.linear(value[0] * (1 - saturation[1])) - 1e-9

    within()
    return materials.linear([0, 0.04045, 0.5, 1]).tolist()


@scene
def shaders(folder: Path) -> Any:
    from blender_jobs import materials, stage

    stage.clear()
    made = materials.principled("jade", (0.1, 0.5, 0.3), transmission=0.25, emission=(1, 0, 0), specular=0.75, coat=1)
    shader = materials.shader_of(made)
    names = ("Transmission Weight", "Emission Color", "Emission Strength", "Specular IOR Level", "Coat Weight")
    values = [materials.socket_of(shader, name).default_value for name in names]
    drawn = [described(materials.random_principled(np.random.default_rng(seed))) for seed in range(200)]
    after = []
    for kind in ({"metal": 1.0}, {"metal": 0.0, "glass": 1.0}, {"metal": 0.0, "coated": 1.0}):
        rng = np.random.default_rng(5)
        after.append((described(materials.random_principled(rng, **kind)), rng.uniform()))
    again = described(materials.random_principled(np.random.default_rng(0)))
    return {
        "jade": [list(value) if hasattr(value, "__len__") else value for value in values],
        "drawn": drawn,
        "after": after,
        "again": again,
    }


@scene
def windows(folder: Path) -> Any:
    """White light all around, as seen through panes of glass."""
    import bpy

    from blender_jobs import materials, stage

    stage.clear()
    stage.sky(rgb=(1, 1, 1), strength=1)
    stage.camera(at=(0, -3, 0), look_at=(0, 0, 0))
    pane = stage.cube("pane")
    pane.scale = (4, 0.1, 4)
    bpy.context.scene.view_settings.view_transform = "Raw"
    seen = {}
    for name, made in {
        "clear": materials.glass("clear", ior=1.0),
        "red": materials.glass("red", tint=(1, 0, 0), ior=1.0),
        "usual": materials.glass("usual"),
    }.items():
        materials.assign(pane, made)
        seen[name] = through(folder)
    shader = materials.shader_of(materials.glass("water", ior=1.33, roughness=0.25))
    seen["water"] = [shader.inputs[name].default_value for name in ("IOR", "Roughness")]
    return seen


def through(folder: Path) -> list[float]:
    """The colour in the middle of the picture, linear."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 64, False
    scene.render.resolution_x, scene.render.resolution_y = 8, 8
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(folder / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(8 * 8 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(8, 8, 4)[3:5, 3:5, :3].mean(axis=(0, 1)).tolist()


def described(material: Any) -> list[float]:
    from blender_jobs import materials

    shader = materials.shader_of(material)
    names = ("Metallic", "Transmission Weight", "Coat Weight", "Roughness", "Base Color")
    values = [materials.socket_of(shader, name).default_value for name in names]
    return [*values[:4], *values[4]]


@scene
def textures(folder: Path) -> Any:
    """A cube with a texture that is red in its left half, seen from the front; and what cannot be."""
    import bpy

    from blender_jobs import assets, materials, meshes, stage
    from blender_jobs.job import JobError

    stage.clear()
    assets.begin(folder)
    image = bpy.data.images.new("halves", 2, 1)
    image.pixels = [1, 0, 0, 1, 0, 1, 0, 1]
    image.filepath_raw, image.file_format = str(folder / "halves.png"), "PNG"
    image.save()
    bpy.data.images.remove(image)
    (folder / "broken.png").write_text("no image")

    cube = stage.cube("cube")
    stage.sky(rgb=(1, 1, 1), strength=1)
    stage.camera(at=(0, -3, 0), look_at=(0, 0, 0))
    seen = {}
    for scale in (1.0, 2.0):
        materials.texture(cube, "halves.png", roughness="halves.png", mapping="generated", scale=scale)
        seen[scale] = front(folder)
    errors = []
    for attempt in (
        lambda: materials.texture(cube, "halves.png"),
        lambda: materials.texture(cube, "nope.png", mapping="box"),
        lambda: materials.texture(cube, "broken.png", mapping="box"),
        lambda: materials.texture(cube, "halves.png", mapping="sphere"),
    ):
        with pytest.raises(JobError) as error:
            attempt()
        errors.append(str(error.value))
    ball = meshes.sphere("ball")
    material = materials.texture(ball, "halves.png", normal="halves.png")
    spaces = sorted(
        {node.image.colorspace_settings.name for node in material.node_tree.nodes if node.type == "TEX_IMAGE"}
    )
    images = sum(entry.filepath.endswith("halves.png") for entry in bpy.data.images)
    return {"seen": seen, "errors": errors, "spaces": spaces, "images": images}


def front(folder: Path) -> list[int]:
    """Of a row across the cube's front, as Cycles renders it: 1 where it is red, 0 where it is green."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.render.resolution_x, scene.render.resolution_y = 32, 8
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(folder / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(32 * 8 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    row = pixels.reshape(8, 32, 4)[4, 8:24]
    return [int(red > green) for red, green in row[:, :2]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_colours_are_linear_and_within_their_limits(seen: dict[str, Any]) -> None:
    """The published values of sRGB: the line below 0.04045, the curve above; what is drawn keeps its limits."""
    assert seen["colours"] == pytest.approx([0, 0.0031308, 0.2140411, 1], abs=1e-6)


def test_principled_sets_each_socket_under_its_name(seen: dict[str, Any]) -> None:
    """What is asked for is in the socket that this Blender has for it."""
    transmission, emission, strength, specular, coat = seen["shaders"]["jade"]
    assert (transmission, strength, specular, coat) == pytest.approx((0.25, 1, 0.75, 1))
    assert emission == pytest.approx([1, 0, 0, 1])


def test_glass_lets_its_tint_through(seen: dict[str, Any]) -> None:
    """White light stays white, or becomes as the tint; what glass does not let through it reflects: all is there."""
    assert seen["windows"]["clear"] == pytest.approx([1, 1, 1], abs=0.02)
    red, green, blue = seen["windows"]["red"]
    assert red > 0.9
    assert max(green, blue) < 0.05
    assert seen["windows"]["usual"] == pytest.approx([1, 1, 1], abs=0.1)
    assert seen["windows"]["water"] == pytest.approx([1.33, 0.25])


def test_random_materials_repeat_and_draw_alike(seen: dict[str, Any]) -> None:
    """The same generator, the same material; whatever its kind, the generator is left in the same state."""
    drawn = np.array(seen["shaders"]["drawn"])
    assert drawn[0].tolist() == seen["shaders"]["again"]
    assert drawn[:, 0].mean() == pytest.approx(0.25, abs=0.1)
    assert set(np.unique(drawn[:, 0])) == {0, 1}
    kinds = [kind[:3] for kind, _ in seen["shaders"]["after"]]
    assert kinds == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert len({after for _, after in seen["shaders"]["after"]}) == 1


def test_a_texture_is_where_its_mapping_puts_it(seen: dict[str, Any]) -> None:
    """Generated coordinates show the image once across the face, at scale 2 twice."""
    once, twice = (np.array(seen["textures"]["seen"][scale]) for scale in ("1.0", "2.0"))
    changes = [int(np.abs(np.diff(row)).sum()) for row in (once, twice)]
    assert changes == [1, 3]


def test_textures_that_cannot_be_are_refused(seen: dict[str, Any]) -> None:
    """No UV map, no file, no image, no such mapping: each is one line; data and colours are told apart."""
    no_map, no_file, no_image, no_mapping = seen["textures"]["errors"]
    assert no_map == "texture: object 'cube' has no UV map; use mapping='box', or unwrap it"
    assert "nope.png does not exist" in no_file
    assert no_image.endswith("broken.png: Blender cannot read it as an image")
    assert no_mapping == "texture: mapping is 'sphere', which must be uv, box or generated"
    assert seen["textures"]["spaces"] == ["Non-Color", "sRGB"]
    assert seen["textures"]["images"] == 2  # one as colours, one as data, however often they are used
