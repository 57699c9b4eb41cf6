"""What surrounds a user's `.blend`: what a render reads is the plan's, nothing else is asked for or written."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from loaders.tarstream import read_samples
from tests import in_blender
from tests.commands import TINY, annotations, digests, forked, forked_ok, write_job
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

FRAMES = range(1, 4)
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def base(folder: Path) -> Any:
    """An empty scene, saved as ``scene.blend`` in the folder, with a plane before the camera; return the plane."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_plane_add(size=2, rotation=(1.5708, 0, 0))
    thing = bpy.context.object
    thing.name = "thing"
    camera = bpy.data.objects.new("cam", bpy.data.cameras.new("cam"))
    camera.location, camera.rotation_euler = (0, -6, 0), (1.5708, 0, 0)
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    bpy.context.scene.view_settings.view_transform = "Standard"
    save(folder)
    return thing


def save(folder: Path, name: str = "scene") -> None:
    import bpy

    bpy.ops.wm.save_as_mainfile(filepath=str(folder / f"{name}.blend"), compress=False)


def picture(path: Path, rgb: tuple[float, float, float]) -> None:
    import bpy

    path.parent.mkdir(exist_ok=True)
    image = bpy.data.images.new("made", 4, 4)
    image.pixels[:] = [*rgb, 1.0] * 16
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)


def image_at(path: str, source: str = "FILE") -> Any:
    """An image data-block of a path, there or not."""
    import bpy

    image = bpy.data.images.new("picture", 1, 1)
    image.source = source
    image.filepath = path
    return image


def show(thing: Any, image: Any) -> Any:
    """Let a thing shine with an image; return the node."""
    import bpy

    material = bpy.data.materials.new("shining")
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    names = ("ShaderNodeTexImage", "ShaderNodeEmission", "ShaderNodeOutputMaterial")
    texture, emission, output = (tree.nodes.new(name) for name in names)
    texture.image = image
    tree.links.new(texture.outputs[0], emission.inputs[0])
    tree.links.new(emission.outputs[0], output.inputs[0])
    thing.data.materials.append(material)
    return texture


def read_back(folder: Path) -> dict[str, list[str]]:
    """Open the scene as a job does; return what of it is there, is lost and needed, and what is told."""
    import bpy

    from blender_jobs._worker import scene_files
    from blender_jobs._worker.staging import open_blend

    notes = open_blend(folder / "scene.blend", trusted=False)
    files, here = scene_files.collect(list(FRAMES)), bpy.context.scene
    return {
        "present": [os.path.relpath(file, folder) for file in files.present(here)],
        "lost": [os.path.relpath(file, folder) for file in files.lost(here)],
        "notes": [note.replace(str(folder), "FOLDER") for note in [*notes, *files.notes(here)]],
    }


Kind = Callable[[Path], None]
KINDS: dict[str, tuple[Kind, list[str], list[str], list[str]]] = {}
"""How a scene is made, what of it is there, what is lost, and words of each note, by its name."""


def kind(present: list[str] = [], lost: list[str] = [], notes: list[str] = []) -> Callable[[Kind], Kind]:  # noqa: B006
    def add(make: Kind) -> Kind:
        KINDS[make.__name__] = (make, present, lost, notes)
        return make

    return add


@kind(["tex/u.1001.png", "tex/u.1002.png", "tex/u.1003.png"])
def tiles(folder: Path) -> None:
    thing = base(folder)
    for number in (1001, 1002, 1003):
        picture(folder / f"tex/u.{number}.png", RED)
    image = image_at("//tex/u.1001.png")
    image.source = "TILED"
    image.filepath = "//tex/u.<UDIM>.png"
    show(thing, image)
    save(folder)


@kind(["tex/u1_v1.png"], ["tex/u2_v1.png", "tex/u3_v2.png"])
def tiles_by_coordinates_of_which_some_are_lost(folder: Path) -> None:
    thing = base(folder)
    picture(folder / "tex/u1_v1.png", RED)
    image = image_at("//tex/u1_v1.png")
    image.source = "TILED"
    image.filepath = "//tex/<UVTILE>.png"
    image.tiles.new(1002)
    image.tiles.new(1013)
    show(thing, image)
    save(folder)


def numbered(folder: Path, numbers: range, **user: Any) -> None:
    thing = base(folder)
    for number in numbers:
        picture(folder / f"tex/s{number:04d}.png", (RED, GREEN, BLUE)[number % 3])
    image = image_at(f"//tex/s{numbers[0]:04d}.png", "SEQUENCE")
    node = show(thing, image)
    for name, value in user.items():
        setattr(node.image_user, name, value)
    save(folder)


@kind([f"tex/s000{number}.png" for number in (1, 2, 3)])
def sequence(folder: Path) -> None:
    numbered(folder, range(1, 4), frame_duration=3)


@kind([f"tex/s000{number}.png" for number in (6, 7, 8)], ["tex/s0009.png"])
def sequence_with_an_offset_beyond_its_end(folder: Path) -> None:
    numbered(folder, range(6, 9), frame_duration=100, frame_offset=6)


@kind([f"tex/s000{number}.png" for number in (1, 2)])
def sequence_that_repeats(folder: Path) -> None:
    numbered(folder, range(1, 3), frame_duration=2, frame_start=-4, use_cyclic=True)


@kind(["tex/s0001.png"])
def sequence_that_holds_its_last_picture(folder: Path) -> None:
    numbered(folder, range(1, 2), frame_duration=1)


@kind(["film.mp4"])
def movie(folder: Path) -> None:
    thing = base(folder)
    (folder / "film.mp4").write_bytes(b"film")
    show(thing, image_at("//film.mp4", "MOVIE"))
    save(folder)


@kind()
def packed(folder: Path) -> None:
    thing = base(folder)
    picture(folder / "gone.png", RED)
    import bpy

    image = bpy.data.images.load(str(folder / "gone.png"))
    image.pack()
    show(thing, image)
    (folder / "gone.png").unlink()
    save(folder)


@kind()
def no_path_and_a_generated_image(folder: Path) -> None:
    thing = base(folder)
    show(thing, image_at(""))
    show(thing, image_at("//old.png", "GENERATED"))
    save(folder)


@kind(lost=["folder"])
def a_folder_for_an_image(folder: Path) -> None:
    thing = base(folder)
    (folder / "folder").mkdir()
    show(thing, image_at("//folder"))
    save(folder)


@kind(["cloud_003.vdb", "cloud_005.vdb"], ["cloud_004.vdb"])
def volumes(folder: Path) -> None:
    import bpy

    base(folder)
    for number in (3, 5):
        (folder / f"cloud_{number:03d}.vdb").write_bytes(b"vdb")
    data = bpy.data.volumes.new("cloud")
    data.filepath = "//cloud_003.vdb"
    data.is_sequence, data.frame_duration, data.frame_offset, data.sequence_mode = True, 3, 2, "REPEAT"
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("cloud", data))
    save(folder)


@kind(["thing.abc"])
def alembic(folder: Path) -> None:
    import bpy

    base(folder)
    bpy.ops.wm.alembic_export(filepath=str(folder / "thing.abc"), start=1, end=3, as_background_job=False)
    cached(folder, "//thing.abc")


@kind(["part0001.abc"], ["part0002.abc", "part0003.abc"])
def alembic_in_a_sequence(folder: Path) -> None:
    base(folder)
    (folder / "part0001.abc").write_bytes(b"alembic")
    cached(folder, "//part0001.abc", is_sequence=True)


@kind(["layers/scene.usda", "layers/wood.png", "layers/base.usda"])
def usd(folder: Path) -> None:
    base(folder)
    (folder / "layers").mkdir()
    (folder / "layers/scene.usda").write_text(
        '#usda 1.0\n(subLayers = [@./base.usda@])\ndef Mesh "a"\n{\n    asset t = @wood.png@\n}\n'
    )
    (folder / "layers/base.usda").write_text("#usda 1.0\n(subLayers = [@scene.usda@, @lost.usda@])\n")
    picture(folder / "layers/wood.png", RED)
    cached(folder, "//layers/scene.usda")


@kind(["scene.usdc"], notes=["scene.usdc is binary USD: the files that it refers to are not known"])
def usd_in_binary(folder: Path) -> None:
    base(folder)
    (folder / "scene.usdc").write_bytes(b"PXR-USDC" + bytes(80))
    cached(folder, "//scene.usdc")


@kind(["tower.stl"], ["lost.stl"], ["node 'named' of 'group' reads a file that other nodes name"])
def geometry_nodes_that_read_files(folder: Path) -> None:
    import bpy

    thing = base(folder)
    (folder / "tower.stl").write_text("solid tower\nendsolid tower\n")
    group = bpy.data.node_groups.new("group", "GeometryNodeTree")
    group.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    join = group.nodes.new("GeometryNodeJoinGeometry")
    group.links.new(join.outputs[0], group.nodes.new("NodeGroupOutput").inputs[0])
    for name in ("tower", "lost", "named"):
        node = group.nodes.new("GeometryNodeImportSTL")
        node.name, node.inputs["Path"].default_value = name, f"//{name}.stl"
        group.links.new(node.outputs[0], join.inputs[0])
    group.links.new(group.nodes.new("FunctionNodeInputString").outputs[0], node.inputs["Path"])
    loose = group.nodes.new("GeometryNodeImportSTL")
    loose.inputs["Path"].default_value = ""
    thing.modifiers.new("nodes", "NODES").node_group = group
    save(folder)


def cached(folder: Path, path: str, **settings: Any) -> None:
    """Let a modifier of the thing read a cache file."""
    import bpy

    thing = bpy.data.objects["thing"]
    whole = bpy.path.abspath(path)
    bpy.ops.cachefile.open(filepath=whole)
    cache = bpy.data.cache_files[0]
    cache.filepath = path
    for name, value in settings.items():
        setattr(cache, name, value)
    thing.modifiers.new("cache", "MESH_SEQUENCE_CACHE").cache_file = cache
    save(folder)


@kind(
    ["shape.mdd"],
    ["lost.mdd"],
    ['Modifier: "shape", Missing header', "not needed for rendering: FOLDER/unseen.mdd"],
)
def mesh_caches(folder: Path) -> None:
    thing = base(folder)
    (folder / "shape.mdd").write_bytes(b"mdd")
    for name in ("shape", "lost", "unseen"):
        modifier = thing.modifiers.new(name, "MESH_CACHE")
        modifier.filepath = f"//{name}.mdd"
    modifier.show_render = False
    save(folder)


@kind(["light.ies"], ["lost.ies"])
def light_profiles(folder: Path) -> None:
    import bpy

    base(folder)
    (folder / "light.ies").write_text("IESNA")
    for name in ("light", "lost"):
        light = bpy.data.lights.new(name, "POINT")
        light.use_nodes = True
        node = light.node_tree.nodes.new("ShaderNodeTexIES")
        node.mode, node.filepath = "EXTERNAL", f"//{name}.ies"
        emission = next(entry for entry in light.node_tree.nodes if entry.type == "EMISSION")
        light.node_tree.links.new(node.outputs[0], emission.inputs["Strength"])
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, light))
    save(folder)


@kind()
def ocean_that_is_not_baked(folder: Path) -> None:
    base(folder).modifiers.new("ocean", "OCEAN")
    save(folder)


@kind(["cache/config/config_0001.uni", "cache/data/fluid_data_0001.vdb"])
def fluid_of_files(folder: Path) -> None:
    domain = fluid(folder, "//cache")
    domain.cache_type = "MODULAR"
    for name in ("config/config_0001.uni", "data/fluid_data_0001.vdb"):
        (folder / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cache" / name).write_bytes(b"fluid")
    save(folder)


@kind()
def fluid_that_is_not_baked(folder: Path) -> None:
    fluid(folder, "//cache")
    save(folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)


def fluid(folder: Path, path: str) -> Any:
    modifier = base(folder).modifiers.new("fluid", "FLUID")
    modifier.fluid_type = "DOMAIN"
    modifier.domain_settings.cache_directory = path
    return modifier.domain_settings


@kind()
def dynamic_paint(folder: Path) -> None:
    import bpy

    thing = base(folder)
    modifier = thing.modifiers.new("paint", "DYNAMIC_PAINT")
    modifier.ui_type = "CANVAS"
    with bpy.context.temp_override(object=thing):
        bpy.ops.dpaint.type_toggle(type="CANVAS")
    modifier.canvas_settings.canvas_surfaces[0].image_output_path = "//paint"
    save(folder)


def with_particles(folder: Path, bake: bool) -> None:
    import bpy

    thing = base(folder)
    thing.modifiers.new("dust", "PARTICLE_SYSTEM")
    cache = thing.particle_systems[0].point_cache
    cache.use_disk_cache, cache.frame_end = True, 3
    save(folder)
    if bake:
        with bpy.context.temp_override(point_cache=cache, object=thing):
            bpy.ops.ptcache.bake(bake=True)
    else:
        for frame in FRAMES:
            bpy.context.scene.frame_set(frame)
    assert len(list((folder / "blendcache_scene").iterdir())) >= len(FRAMES), "nothing is cached"
    save(folder)


@kind([f"blendcache_scene/7468696E67_{frame:06d}_00.bphys" for frame in range(251)])
def baked_particles(folder: Path) -> None:
    with_particles(folder, bake=True)


@kind()
def particles_that_are_not_baked(folder: Path) -> None:
    with_particles(folder, bake=False)


@kind(lost=["blendcache_scene/7468696E67_000001_00.bphys"])
def baked_particles_that_are_lost(folder: Path) -> None:
    with_particles(folder, bake=True)
    shutil.rmtree(folder / "blendcache_scene")


@kind(["letters.ttf"], ["lost.ttf"])
def fonts(folder: Path) -> None:
    import bpy

    base(folder)
    shipped = next(Path(bpy.utils.resource_path("LOCAL")).rglob("*.woff2"))
    for name in ("letters", "lost"):
        shutil.copy(shipped, folder / f"{name}.ttf")
        text = bpy.data.curves.new(name, "FONT")
        text.font = bpy.data.fonts.load(str(folder / f"{name}.ttf"))
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, text))
    (folder / "lost.ttf").unlink()
    save(folder)


def library(folder: Path, name: str) -> None:
    """Write a ``.blend`` with an object ``part``."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.object.name = "part"
    save(folder, name)


def link(folder: Path, name: str) -> Any:
    import bpy

    with bpy.data.libraries.load(str(folder / f"{name}.blend"), link=True, relative=True) as (_, wanted):
        wanted.objects = ["part"]
    return wanted.objects[0]


@kind(["parts.blend"], ["lost.blend"], ["not needed for rendering: FOLDER/unused.blend"])
def libraries(folder: Path) -> None:
    import bpy

    for name in ("parts", "lost", "unused"):
        library(folder, name)
    base(folder)
    for name in ("parts", "lost"):
        bpy.context.scene.collection.objects.link(link(folder, name))
    hidden = bpy.data.collections.new("hidden")
    hidden.hide_render = True
    bpy.context.scene.collection.children.link(hidden)
    hidden.objects.link(link(folder, "unused"))
    save(folder)
    for name in ("lost", "unused"):
        (folder / f"{name}.blend").unlink()


@kind(["parts.blend"], ["parts.blend/part"])
def what_a_library_no_longer_has(folder: Path) -> None:
    import bpy

    library(folder, "parts")
    base(folder)
    bpy.context.scene.collection.objects.link(link(folder, "parts"))
    save(folder)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    save(folder, "parts")


@kind(
    notes=[
        "missing, but not needed for rendering: "
        + ", ".join(
            f"FOLDER/{n}"
            for n in ("backdrop.png", "brush.png", "hidden.png", "loose.png", "muted.png", "nobody.png", "sound.wav")
        )
    ]
)
def what_nothing_rendered_needs(folder: Path) -> None:
    """Images of a node that leads nowhere, of what is hidden, of the camera's backdrop, a brush, of nobody; a sound."""
    import bpy

    thing = base(folder)
    picture(folder / "wood.png", RED)
    node = show(thing, image_at("//wood.png"))
    node.image.pack()
    tree = thing.data.materials[0].node_tree
    tree.nodes.new("ShaderNodeTexImage").image = image_at("//loose.png")
    muted = tree.nodes.new("ShaderNodeTexImage")
    muted.image, muted.mute = image_at("//muted.png"), True
    tree.links.new(muted.outputs[0], next(n for n in tree.nodes if n.type == "EMISSION").inputs["Strength"])
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.object.hide_render = True
    show(bpy.context.object, image_at("//hidden.png"))
    bpy.data.objects["cam"].data.background_images.new().image = image_at("//backdrop.png")
    brush = bpy.data.textures.new("brush", "IMAGE")
    brush.image, brush.use_fake_user = image_at("//brush.png"), True
    image_at("//nobody.png").use_fake_user = True
    (folder / "sound.wav").write_bytes(bytes(44))
    bpy.data.sounds.load(str(folder / "sound.wav")).use_fake_user = True
    save(folder)
    (folder / "sound.wav").unlink()


@kind(["wood.png"], notes=["damaged, but not needed for rendering: FOLDER/loose.png"])
def damaged_images(folder: Path) -> None:
    """One that is shown stays the plan's, which refuses it; one that nothing shows does no harm."""
    thing = base(folder)
    for name in ("wood", "loose"):
        picture(folder / f"{name}.png", RED)
        image = image_at(f"//{name}.png")
        image.use_fake_user = True
    show(thing, bpy_image("//wood.png"))
    save(folder)
    for name in ("wood", "loose"):
        (folder / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes()[:60])


def bpy_image(path: str) -> Any:
    import bpy

    return next(image for image in bpy.data.images if image.filepath == path)


@kind(lost=[f"{name}.png" for name in ("appears", "behind", "bumps", "cutter", "decal", "layer", "world")])
def what_is_needed_by_roundabout_ways(folder: Path) -> None:
    """In a node group, a world, a copied collection, a modifier's texture and operand; of what will be shown later."""
    import bpy

    thing = base(folder)
    group = bpy.data.node_groups.new("group", "ShaderNodeTree")
    group.interface.new_socket("Color", in_out="OUTPUT", socket_type="NodeSocketColor")
    inner = group.nodes.new("ShaderNodeTexImage")
    inner.image = image_at("//decal.png")
    group.links.new(inner.outputs[0], group.nodes.new("NodeGroupOutput").inputs[0])
    node = show(thing, None)
    tree = node.id_data
    used = tree.nodes.new("ShaderNodeGroup")
    used.node_tree = group
    tree.links.new(used.outputs[0], next(n for n in tree.nodes if n.type == "EMISSION").inputs[0])
    world = bpy.context.scene.world = bpy.data.worlds.new("world")
    world.use_nodes = True
    sky = world.node_tree.nodes.new("ShaderNodeTexEnvironment")
    sky.image = image_at("//world.png")
    world.node_tree.links.new(sky.outputs[0], world.node_tree.nodes["Background"].inputs[0])
    needed_objects(thing)
    copied = bpy.data.collections.new("copied")
    copied.objects.link(bpy.data.objects["behind"])
    bpy.context.scene.collection.objects.unlink(bpy.data.objects["behind"])
    copies = bpy.data.objects.new("copies", None)
    copies.instance_type, copies.instance_collection = "COLLECTION", copied
    bpy.context.scene.collection.objects.link(copies)
    override = bpy.data.materials.new("override")
    override.use_nodes = True
    image = override.node_tree.nodes.new("ShaderNodeTexImage")
    image.image = image_at("//layer.png")
    shader = next(n for n in override.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    override.node_tree.links.new(image.outputs[0], shader.inputs[0])
    bpy.context.scene.view_layers[0].material_override = override
    save(folder)


def needed_objects(thing: Any) -> None:
    import bpy

    for name in ("behind", "appears", "cutter"):
        bpy.ops.mesh.primitive_cube_add()
        made = bpy.context.object
        made.name, made.hide_render = name, name != "behind"
        show(made, image_at(f"//{name}.png"))
    bpy.data.objects["appears"].keyframe_insert("hide_render", frame=1)
    thing.modifiers.new("cut", "BOOLEAN").object = bpy.data.objects["cutter"]
    texture = bpy.data.textures.new("bumps", "IMAGE")
    texture.image = image_at("//bumps.png")
    thing.modifiers.new("bumps", "DISPLACE").texture = texture


@kind(notes=["was saved by Blender 4.99"])
def of_a_newer_blender(folder: Path) -> None:
    base(folder)
    path = folder / "scene.blend"
    content = path.read_bytes()
    assert content.startswith(b"BLENDER-v")
    path.write_bytes(content[:9] + b"499" + content[12:])


@kind(notes=["has nodes that this Blender lacks, perhaps from an add-on: strange", "Engine 'ABSENT' not available"])
def of_add_ons_that_are_absent(folder: Path) -> None:
    import bpy

    class Engine(bpy.types.RenderEngine):
        bl_idname = "ABSENT"
        bl_label = "Absent"

    class Node(bpy.types.ShaderNode):
        bl_idname = "ShaderNodeAbsent"
        bl_label = "Absent"

    thing = base(folder)
    for entry in (Engine, Node):
        bpy.utils.register_class(entry)
    bpy.context.scene.render.engine = "ABSENT"
    material = bpy.data.materials.new("strange")
    material.use_nodes = True
    material.node_tree.nodes.new("ShaderNodeAbsent")
    thing.data.materials.append(material)
    save(folder)
    for entry in (Engine, Node):
        bpy.utils.unregister_class(entry)


@kind(notes=["the compositor of scene.blend does not run", "the sequencer of scene.blend does not run"])
def with_a_compositor_and_a_sequencer(folder: Path) -> None:
    import bpy

    base(folder)
    here = bpy.context.scene
    here.use_nodes = True
    here.node_tree.nodes.new("CompositorNodeBlur")
    here.sequence_editor_create().strips.new_effect("red", "COLOR", 1, frame_start=1, frame_end=9)
    save(folder)


@kind()
def with_a_compositor_that_changes_nothing(folder: Path) -> None:
    import bpy

    base(folder)
    bpy.context.scene.use_nodes = True
    save(folder)


WHOLE: dict[str, Kind] = {}
"""Scenes that are compiled, by name."""


def whole(make: Kind) -> Kind:
    WHOLE[make.__name__] = make
    return make


@whole
def shining(folder: Path) -> None:
    """A plane with a sequence of three colours, one a frame."""
    numbered(folder, range(1, 4), frame_duration=3)


@whole
def plain(folder: Path) -> None:
    """A plane of a diffuse material under a lamp: its noise tells samples and seeds apart."""
    import bpy

    base(folder)
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "AREA"))
    lamp.location, lamp.rotation_euler, lamp.data.energy = (1, -3, 1), (1.5708, 0, 0.3), 200
    bpy.context.scene.collection.objects.link(lamp)
    save(folder)


@whole
def animated(folder: Path) -> None:
    """The same with animation of what the plan sets: by keyframes, drivers and an NLA strip, in several spellings."""
    import bpy

    plain(folder)
    here = bpy.context.scene
    here.cycles.samples = 3
    here.keyframe_insert("cycles.samples", frame=1)
    here.keyframe_insert("cycles.time_limit", frame=1)
    here.cycles.use_adaptive_sampling, here.cycles.adaptive_threshold = True, 0.9
    here.keyframe_insert("cycles.use_adaptive_sampling", frame=2)
    track = here.animation_data.nla_tracks.new()
    track.strips.new("strip", 1, here.animation_data.action)
    here.animation_data.action = None
    here.driver_add("cycles.seed").driver.expression = "frame"
    here.cycles.sample_offset = 1
    offset = here.driver_add("cycles.sample_offset")
    offset.driver.expression, offset.data_path = "frame", '["cycles"]["sample_offset"]'
    here.driver_add('view_layers["ViewLayer"].samples').driver.expression = "5"
    here.view_layers[0].samples = 7
    save(folder)


@whole
def scripted_shader(folder: Path) -> None:
    """A material with a file of OSL, in a scene that would compile it."""
    import bpy

    thing = base(folder)
    (folder / "red.osl").write_text("shader red(output color Out = color(1, 0, 0)) { Out = color(1, 0, 0); }")
    node = show(thing, None)
    script = node.id_data.nodes.new("ShaderNodeScript")
    bpy.context.scene.cycles.shading_system = True
    script.mode = "EXTERNAL"
    script.filepath = "//red.osl"
    bpy.context.scene.keyframe_insert("cycles.shading_system", frame=1)
    save(folder)
    for made in folder.glob("*.oso"):
        made.unlink()


@whole
def lacking(folder: Path) -> None:
    """Two textures and a library that are lost, and a hidden object with a third one."""
    import bpy

    library(folder, "parts")
    thing = base(folder)
    show(thing, image_at("//tex/wood.png"))
    bpy.ops.mesh.primitive_cube_add(location=(0, -1, 0))
    bpy.context.object.name, bpy.context.object.hide_render = "hidden", True
    show(bpy.context.object, image_at("//tex/steel.png"))
    bpy.context.scene.collection.objects.link(link(folder, "parts"))
    bpy.ops.mesh.primitive_cube_add(location=(0, 9, 0))
    bpy.context.object.name = "far"
    show(bpy.context.object, image_at("//tex/brick.png"))
    save(folder)
    (folder / "parts.blend").unlink()


@whole
def simulated(folder: Path) -> None:
    """Particles, cloth and dynamic paint whose caches are in files, none of them baked."""
    import bpy

    with_particles(folder, bake=False)
    bpy.ops.mesh.primitive_grid_add(location=(0, 3, 3))
    bpy.context.object.modifiers.new("cloth", "CLOTH").point_cache.use_disk_cache = True
    thing = bpy.data.objects["thing"]
    thing.modifiers.new("paint", "DYNAMIC_PAINT").ui_type = "CANVAS"
    with bpy.context.temp_override(object=thing):
        bpy.ops.dpaint.type_toggle(type="CANVAS")
    for system in thing.particle_systems:
        system.point_cache.keyframe_insert("use_disk_cache", frame=2)
    save(folder)
    unguarded = folder.with_name("unguarded")
    shutil.copytree(folder, unguarded)
    before = tree(unguarded)
    bpy.ops.wm.open_mainfile(filepath=str(unguarded / "scene.blend"))
    for frame in FRAMES:
        bpy.context.scene.frame_set(frame)
    changed = {name for name, _ in before.items() ^ tree(unguarded).items()}
    assert any(name.endswith(".bphys") for name in changed), "Blender itself would change these files"


@whole
def flowing(folder: Path) -> None:
    """A fluid that is simulated as it plays: Blender writes its settings into its folder."""
    import bpy

    base(folder)
    bpy.ops.mesh.primitive_cube_add(location=(0, 9, 0))
    modifier = bpy.context.object.modifiers.new("fluid", "FLUID")
    modifier.fluid_type = "DOMAIN"
    modifier.domain_settings.cache_directory = "//cache"
    save(folder)
    bpy.context.scene.frame_set(1)
    assert (folder / "cache").exists(), "Blender itself writes there"
    shutil.rmtree(folder / "cache")


@whole
def falling(folder: Path) -> None:
    """A cube in the air, whose physics begins in frame 5."""
    import bpy

    base(folder)
    bpy.ops.mesh.primitive_cube_add(location=(0, 3, 5))
    bpy.context.object.name = "cube"
    bpy.ops.rigidbody.world_add()
    bpy.ops.rigidbody.object_add()
    bpy.context.scene.rigidbody_world.point_cache.frame_start = 5
    save(folder)


@scene
def compiled(folder: Path) -> Any:
    """All scenes that are to be compiled."""
    for name, make in WHOLE.items():
        (folder / name).mkdir()
        make(folder / name)


@scene
def settings_that_change(folder: Path) -> Any:
    """What is said where a setting is not as it was set: at once, and in the render alone."""
    import bpy

    from blender_jobs._render import properties
    from blender_jobs.job import JobError

    base(folder)
    here, said = bpy.context.scene, []
    here.render.resolution_x, here.render.resolution_y, here.render.engine = 8, 8, "CYCLES"
    here.cycles.samples = 1
    properties.check(here, {"cycles.samples": 1, "render.engine": "CYCLES"})
    with properties.as_set(here, ["cycles.samples", "render.engine"]):
        bpy.ops.render.render()
    try:
        properties.check(here, {"cycles.samples": 2})
    except JobError as error:
        said.append(str(error))
    here.driver_add("cycles.samples").driver.expression = "2"
    here.cycles.samples = 1
    try:
        with properties.as_set(here, ["cycles.samples"]):
            bpy.ops.render.render()
    except JobError as error:
        said.append(str(error))
    return said


@scene
def files_of_frames(folder: Path) -> Any:
    """Which file of a sequence Cycles shows in a frame, and which one we say: a shade for each, None for a lost one."""
    import bpy

    from blender_jobs._worker import readers

    thing = base(folder)
    for number in range(10):
        picture(folder / f"tex/s{number:04d}.png", (number / 10, 0.5, 0.5))
    image = image_at("//tex/s0001.png", "SEQUENCE")
    image.colorspace_settings.name = "Non-Color"
    user, here, found = show(thing, image).image_user, bpy.context.scene, []
    here.render.engine, here.cycles.samples, here.view_settings.view_transform = "CYCLES", 1, "Raw"
    here.render.resolution_x = here.render.resolution_y = 8
    here.render.filepath = str(folder / "shown.png")
    settings = [(3, 1, 0, False), (3, 2, 4, False), (4, -1, 2, True), (1, 1, 6, True), (2, 3, -1, False)]
    for (length, start, offset, cyclic), frame in itertools.product(settings, (-1, 1, 2, 4, 7)):
        user.frame_duration, user.frame_start, user.frame_offset, user.use_cyclic = length, start, offset, cyclic
        here.frame_set(frame)
        bpy.ops.render.render(write_still=True)
        shown = bpy.data.images.load(here.render.filepath)
        red, green, *_ = shown.pixels[4 * 36 : 4 * 37]
        bpy.data.images.remove(shown)
        number = readers.image_file_number(user, frame)
        file = readers.numbered(folder / "tex/s0001.png", number or 0)
        found.append([round(red * 10) if green > 0.3 else None, number if file.exists() else None])
    return found


@scene
def baked_ocean(folder: Path) -> Any:
    """One that says that it is baked: Blender says so after a bake in a window alone."""
    from blender_jobs._worker import readers

    thing = base(folder)
    (folder / "waves").mkdir()
    for name in ("disp_0002.exr", "foam_0002.exr", "notes.txt"):
        (folder / "waves" / name).write_bytes(b"exr")
    ocean = SimpleNamespace(is_cached=True, filepath="//waves", frame_start=2, frame_end=3, show_render=True)
    (reads,) = readers._ocean(thing, ocean, "ocean", list(FRAMES))
    return [file.name for file in reads.present], [file.name for file in reads.lost]


@scene
def made(folder: Path) -> Any:
    """All kinds: how each scene is read."""
    seen = {}
    for name, (make, *_) in KINDS.items():
        place = folder / name
        place.mkdir()
        make(place)
        before = tree(folder)
        seen[name] = read_back(place)
        assert not (changed := before.items() ^ tree(folder).items()), f"{name}: {changed}"
    return seen


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What all scenes return, and their folder: one Blender plays them."""
    folder = tmp_path_factory.mktemp("scenes")
    return folder, in_blender.play(__name__, folder)


@pytest.fixture(scope="module")
def seen(everything: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    played: dict[str, Any] = everything[1]["made"]
    return played


@pytest.mark.parametrize("name", KINDS)
def test_every_file_that_is_there_is_found_and_every_one_that_is_needed_and_lost(
    name: str, seen: dict[str, Any]
) -> None:
    """By content, so no path of a folder, of a template, or of what is only written; opening writes nothing."""
    _, present, lost, notes = KINDS[name]
    assert seen[name]["present"] == sorted(present)
    assert seen[name]["lost"] == sorted(lost)
    told = [note for note in seen[name]["notes"] if "rendered without" not in note and "Fluid" not in note]
    assert len(told) == len(notes), told
    for words, note in zip(notes, told, strict=True):
        assert words in note


def test_a_baked_ocean_is_read_from_its_folder_and_stands_still_outside_its_frames(
    everything: tuple[Path, dict[str, Any]],
) -> None:
    present, lost = everything[1]["baked_ocean"]
    assert present == ["disp_0002.exr", "foam_0002.exr"]
    assert lost == ["disp_0003.exr"]


@pytest.fixture(scope="module")
def scenes(everything: tuple[Path, dict[str, Any]]) -> Path:
    return everything[0] / "compiled"


@pytest.fixture
def place(scenes: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy a scene to a folder of its own, with a job of these hooks; return the folder."""

    def placed(name: str, hooks: str = "") -> Path:
        folder = tmp_path / name
        shutil.copytree(scenes / name, folder)
        write_job(folder, f"def setup(self): pass\ndef annotate(self, view): return {{}}\n{hooks}", head="import bpy")
        return folder

    return placed


CYCLES = ["--engine", "cycles", "--render-samples", 2, "--size", "24x16"]


def words(folder: Path, out: str = "out", shards: int = 1, engine: list[Any] = TINY, **options: Any) -> list[Any]:
    more = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    dataset = ["--out", folder / out, "--shards", shards, "--samples-per-shard", 3, "--quiet"]
    return [folder / "job.py", "--blend", folder / "scene.blend", *dataset, *engine, *more]


def plan(folder: Path, out: str = "out") -> Any:
    return json.loads((folder / out / "dataset.json").read_text())["plan"]


def test_a_sequence_gives_the_same_bytes_for_any_number_of_instances(place: Callable[..., Path]) -> None:
    """Each frame shows its file, and each file is in the plan."""
    folder = place("shining")
    forked_ok(*words(folder, "one", 2, CYCLES, instances=1))
    forked_ok(*words(folder, "two", 2, CYCLES, instances=2))
    assert digests(folder / "one") == digests(folder / "two")
    assert sorted(plan(folder, "one")["assets"]) == ["scene.blend", *(f"tex/s000{at}.png" for at in (1, 2, 3))]
    with (folder / "one/job-train-000000.tar").open("rb") as file:
        pictures = [Image.open(io.BytesIO(sample.members["png"])) for sample in read_samples(file)]
    shown = [picture.getpixel((12, 8)) for picture in pictures]
    assert shown == [(0, 255, 0), (0, 0, 255), (255, 0, 0)]


def test_a_changed_second_file_of_a_sequence_is_another_plan(place: Callable[..., Path]) -> None:
    """Before the build, and while it runs."""
    folder = place("shining")
    forked_ok(*words(folder))
    shutil.copy(folder / "tex/s0001.png", folder / "tex/s0002.png")
    refused = forked(*words(folder, shards=2))
    assert refused.returncode == 4
    assert "tex/s0002.png" in refused.stderr
    shutil.rmtree(folder)
    folder = place("shining", "def randomize(self, rng): replace_second(Path(__file__).parent / 'tex')")
    with (folder / "job.py").open("a") as job:
        job.write("\ndef replace_second(tex): (tex / 's0002.png').write_bytes((tex / 's0001.png').read_bytes())\n")
    refused = forked(*words(folder))
    assert refused.returncode == 2
    assert "s0002.png has changed since the plan was made" in refused.stderr


def test_all_lost_files_are_named_at_once(place: Callable[..., Path]) -> None:
    folder = place("lacking")
    refused = forked(*words(folder))
    assert refused.returncode == 2
    lost = ", ".join(str(folder / name) for name in ("parts.blend", "tex/brick.png", "tex/wood.png"))
    assert f"scene.blend uses 3 missing files: {lost}; put them there" in refused.stderr
    assert "--missing-files allow" in refused.stderr
    assert not (folder / "out").exists()


def test_what_is_lost_can_be_done_without(place: Callable[..., Path]) -> None:
    """By choice, which is the plan's, as is what was missing; and the dataset can be reproduced."""
    folder = place("lacking")
    built = forked(*words(folder, missing_files="allow"))
    assert built.returncode == 0, built.stderr
    job = plan(folder)["job"]
    assert job["missing_files"] == "allow"
    assert job["missing"] == ["parts.blend", "tex/brick.png", "tex/wood.png"]
    assert "rendered without missing files" in built.stderr
    forked_ok("reproduce", folder / "out", "--out", folder / "again", "--quiet")
    assert digests(folder / "again") == digests(folder / "out")
    (folder / "tex").mkdir()
    shutil.copy(next(folder.glob("out/*.json")), folder / "tex/wood.png.json")
    found = forked(*words(folder, "other", missing_files="refuse"))
    assert found.returncode == 2


def test_what_a_job_shows_later_is_missed_then(place: Callable[..., Path]) -> None:
    """An object that `step` shows in frame 2 has a texture that is lost: not a note any more."""
    shows = "def setup(self):\n    for name in ('far', 'part', 'thing'): bpy.data.objects[name].hide_render = True\n"
    shows += "def step(self, rng, frame):\n    bpy.data.objects['hidden'].hide_render = frame < 2\n"
    folder = place("lacking", shows)
    careful = forked(*words(folder), "--dry-run")
    assert careful.returncode == 0, careful.stderr
    assert "not needed for rendering" in careful.stderr
    refused = forked(*words(folder))
    assert refused.returncode == 2
    assert f"uses {folder / 'tex/steel.png'}, which is missing" in refused.stderr


def test_the_animation_of_what_the_plan_sets_is_left_out(place: Callable[..., Path]) -> None:
    """The same bytes as without it, and a note that names what is left out."""
    plain_folder, animated_folder = place("plain"), place("animated")
    forked_ok(*words(plain_folder, engine=CYCLES))
    built = forked(*words(animated_folder, engine=CYCLES))
    assert built.returncode == 0, built.stderr
    assert digests(animated_folder / "out") == digests(plain_folder / "out")
    left_out = "cycles.sample_offset, cycles.samples, cycles.seed, cycles.time_limit, cycles.use_adaptive_sampling"
    assert f"the animation of {left_out}, view_layers.ViewLayer.samples in scene.blend is ignored" in built.stderr
    forked_ok(*words(plain_folder, "finer", engine=[*CYCLES, "--render-samples", 3]))
    assert digests(plain_folder / "finer") != digests(plain_folder / "out"), "the samples cannot be told apart"


def test_a_jobs_step_does_not_change_what_the_plan_sets(place: Callable[..., Path]) -> None:
    step = "def step(self, rng, frame): bpy.context.scene.cycles.samples = 3"
    changed = place("plain", step)
    forked_ok(*words(changed, engine=CYCLES))
    shutil.move(changed, changed.with_name("changed"))
    unchanged = place("plain")
    forked_ok(*words(unchanged, engine=CYCLES))
    assert digests(changed.with_name("changed") / "out") == digests(unchanged / "out")


def test_settings_that_are_otherwise_in_the_render_are_an_error(everything: tuple[Path, dict[str, Any]]) -> None:
    """Those that no animation of a known kind explains: looked at after each frame, and in the render itself."""
    said = everything[1]["settings_that_change"]
    assert len(said) == 2
    assert "the scene makes cycles.samples 1, where the plan says 2" in said[0]
    assert "the scene makes cycles.samples 2, where the plan says 1" in said[1]


@pytest.mark.parametrize("engine", [[*TINY, "--passes", "albedo"], CYCLES], ids=["workbench", "cycles"])
def test_no_shader_is_compiled(engine: list[Any], place: Callable[..., Path]) -> None:
    """Cycles would write it beside the file: for the image, or for the passes of another engine's."""
    folder = place("scripted_shader")
    before = tree(folder)
    forked_ok(*words(folder, "../out", engine=engine))
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("name", "more"),
    [("simulated", ["--dry-run"]), ("simulated", []), ("flowing", ["--dry-run"])],  # the wheel's fluids abort it later
    ids=["dry run", "build", "fluid"],
)
def test_nothing_is_written_beside_a_blend_with_simulations(
    name: str, more: list[str], place: Callable[..., Path]
) -> None:
    """Nor is any file there removed or changed."""
    folder = place(name)
    before = tree(folder)
    forked_ok(*words(folder, "../out"), *more)
    assert tree(folder) == before


def test_physics_begins_where_the_blend_says(place: Callable[..., Path]) -> None:
    """A body stands still until then and falls afterwards, however many frames are rendered."""
    hooks = "def annotate(self, view): return {'z': bpy.data.objects['cube'].evaluated_get("
    hooks += "bpy.context.evaluated_depsgraph_get()).matrix_world.translation.z}"
    folder = place("falling", hooks)
    forked_ok(*words(folder, "all"), "--set", "frames=1:13", "--samples-per-shard", 12)
    heights = [view["z"] for view in annotations(folder / "all")]
    assert heights[:5] == [5.0] * 5
    assert all(after < before for before, after in itertools.pairwise(heights[4:]))
    forked_ok(*words(folder, "last"), "--set", "frames=12:13", "--samples-per-shard", 1)
    assert [view["z"] for view in annotations(folder / "last")] == heights[-1:]


def test_the_files_of_frames_are_those_that_are_rendered(everything: tuple[Path, dict[str, Any]]) -> None:
    """Before a sequence's start, after its end, with an offset, over and over: as Cycles shows it."""
    found = everything[1]["files_of_frames"]
    assert [ours for _, ours in found] == [shown for shown, _ in found]
    assert len({shown for shown, _ in found}) > 6
