"""Make .blend files with typical scenes for `scripts/sweep`: modifiers, copies, rigs, hair, layers, scales.

    python scripts/sweep_scenes.py FOLDER [NAME ...]

Needs the bpy wheel. Each function below makes one file, which is named after it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_jobs import lights, materials, meshes, stage

SCENES: dict[str, Callable[[Path], None]] = {}
RNG = np.random.default_rng(7)


def scene(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Make the function's scene one of the files."""
    SCENES[function.__name__] = function
    return function


# --- Parts ----------------------------------------------------------------------------------------------------


def studio(at: Sequence[float] = (5, -6, 4), look_at: Sequence[float] = (0, 0, 0.5)) -> Any:
    """A ground, a sun, a sky and a camera; returns the camera."""
    floor = stage.mesh("floor", [(-6, -6, 0), (6, -6, 0), (6, 6, 0), (-6, 6, 0)], [(0, 1, 2, 3)])
    stage.paint(floor, (0.4, 0.4, 0.4), matte=True)
    stage.sun()
    stage.sky()
    return stage.camera(at=at, look_at=look_at)


def painted(made: Any, at: Sequence[float] = (0, 0, 0)) -> Any:
    """Give an object a colour and a place."""
    made.location = at
    material = materials.principled("paint", RNG.uniform(0.1, 0.9, 3))
    if made.data is not None and hasattr(made.data, "materials"):
        made.data.materials.append(material)
    return made


def cube(name: str, at: Sequence[float] = (0, 0, 0.5), size: float = 1.0) -> Any:
    return painted(stage.cube(name, size), at)


def linked(name: str, data: Any, at: Sequence[float] = (0, 0, 0)) -> Any:
    made = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(made)
    made.location = at
    return made


def collection(name: str, *members: Any, in_scene: bool = True) -> Any:
    """A collection of objects that are in no other."""
    made = bpy.data.collections.new(name)
    if in_scene:
        bpy.context.scene.collection.children.link(made)
    for member in members:
        for home in list(member.users_collection):
            home.objects.unlink(member)
        made.objects.link(member)
    return made


def instance(name: str, kit: Any, at: Sequence[float], turn: float = 0.0, size: float = 1.0) -> Any:
    made = linked(name, None, at)
    made.instance_type, made.instance_collection = "COLLECTION", kit
    made.rotation_euler.z, made.scale = turn, (size, size, size)
    return made


def nodes(made: Any) -> tuple[Any, Any, Any]:
    """Geometry nodes of an object: the tree, its input, its output."""
    tree = bpy.data.node_groups.new("nodes", "GeometryNodeTree")
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=direction, socket_type="NodeSocketGeometry")
    made.modifiers.new("nodes", "NODES").node_group = tree
    return tree, tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")


def scatter(ground: Any, part: Any, density: float, keep: bool = True) -> None:
    """Geometry nodes that scatter copies of an object on the ground."""
    tree, entry, output = nodes(ground)
    spread, info, copies, join = (
        tree.nodes.new(f"GeometryNode{name}")
        for name in ("DistributePointsOnFaces", "ObjectInfo", "InstanceOnPoints", "JoinGeometry")
    )
    spread.inputs["Density"].default_value = density
    info.inputs["Object"].default_value, info.inputs["As Instance"].default_value = part, True
    tree.links.new(entry.outputs[0], spread.inputs[0])
    tree.links.new(spread.outputs["Points"], copies.inputs["Points"])
    tree.links.new(spread.outputs["Rotation"], copies.inputs["Rotation"])
    tree.links.new(info.outputs["Geometry"], copies.inputs["Instance"])
    for out in [copies.outputs[0], *([entry.outputs[0]] if keep else [])]:
        tree.links.new(out, join.inputs[0])
    tree.links.new(join.outputs[0], output.inputs[0])


def grid(name: str, cells: int, size: float, at: Sequence[float] = (0, 0, 0)) -> Any:
    ticks = np.linspace(-size / 2, size / 2, cells + 1)
    places = [(x, y, 0) for y in ticks for x in ticks]
    row = cells + 1
    faces = [(n, n + 1, n + row + 1, n + row) for y in range(cells) for n in range(y * row, y * row + cells)]
    return painted(stage.mesh(name, places, faces), at)


def curve(name: str, points: Sequence[Sequence[float]], depth: float, at: Sequence[float] = (0, 0, 0)) -> Any:
    data = bpy.data.curves.new(name, "CURVE")
    data.dimensions, data.bevel_depth = "3D", depth
    spline = data.splines.new("NURBS")
    spline.points.add(len(points) - 1)
    for point, place in zip(spline.points, points, strict=True):
        point.co = (*place, 1)
    spline.use_endpoint_u, spline.order_u = True, 3
    return painted(linked(name, data), at)


def text(name: str, body: str, at: Sequence[float], size: float = 1.0) -> Any:
    data = bpy.data.curves.new(name, "FONT")
    data.body, data.size, data.extrude = body, size, 0.08
    made = painted(linked(name, data), at)
    made.rotation_euler = (math.pi / 2, 0, 0.5)
    return made


def rig(name: str, bones: int = 3) -> Any:
    """An armature of a chain of bones along z."""
    data = bpy.data.armatures.new(name)
    made = linked(name, data)
    bpy.context.view_layer.objects.active = made
    bpy.ops.object.mode_set(mode="EDIT")
    last = None
    for number in range(bones):
        bone = data.edit_bones.new(f"bone{number}")
        bone.head, bone.tail, bone.parent = (0, 0, number), (0, 0, number + 1), last
        last = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    return made


def entry(name: str) -> Any:
    """The view layer's entry for a collection of the scene."""
    return bpy.context.view_layer.layer_collection.children[name]


def hair(made: Any, count: int, length: float, **settings: Any) -> Any:
    system = made.modifiers.new("hair", "PARTICLE_SYSTEM").particle_system.settings
    system.type, system.count, system.hair_length = "HAIR", count, length
    for key, value in settings.items():
        setattr(system, key, value)
    return system


# --- Scenes ---------------------------------------------------------------------------------------------------


@scene
def modifiers_stack(folder: Path) -> None:
    studio()
    made = cube("column", (0, 0, 1))
    made.modifiers.new("bevel", "BEVEL").width = 0.1
    smooth = made.modifiers.new("smooth", "SUBSURF")
    smooth.levels, smooth.render_levels = 1, 3
    row = made.modifiers.new("row", "ARRAY")
    row.count, row.show_viewport = 3, False
    twist = made.modifiers.new("twist", "SIMPLE_DEFORM")
    twist.deform_method, twist.angle = "TWIST", 1.0


@scene
def boolean_with_hidden_cutter(folder: Path) -> None:
    studio()
    made, cutter = cube("block", (0, 0, 1), 2), cube("cutter", (0.5, -0.5, 1.5), 1.5)
    cutter.hide_render, cutter.display_type = True, "BOUNDS"
    cut = made.modifiers.new("cut", "BOOLEAN")
    cut.object, cut.operation = cutter, "DIFFERENCE"


@scene
def mirror_screw_solidify(folder: Path) -> None:
    studio()
    data = bpy.data.meshes.new("profile")
    data.from_pydata([(0.3, 0, 0), (0.8, 0, 0.7), (0.4, 0, 1.5)], [(0, 1), (1, 2)], [])
    vase = painted(linked("vase", data), (-1, 0, 0))
    vase.modifiers.new("turn", "SCREW")
    vase.modifiers.new("thick", "SOLIDIFY").thickness = 0.05
    half = cube("half", (1.5, 0, 0.5))
    half.modifiers.new("mirror", "MIRROR").mirror_object = vase


@scene
def nodes_scatter(folder: Path) -> None:
    studio()
    rock = painted(meshes.sphere("rock", 0.25), (30, 0, 0))
    scatter(grid("meadow", 4, 6), rock, 1.0)


@scene
def nodes_scatter_without_ground(folder: Path) -> None:
    studio()
    rock = cube("rock", (0, 30, 0), 0.4)
    rock.hide_render = True
    scatter(grid("meadow", 4, 6, (0, 0, 0.2)), rock, 0.5, keep=False)


@scene
def nodes_of_a_curve(folder: Path) -> None:
    studio()
    made = curve("wire", [(-2, 0, 0.2), (0, 1, 1.5), (2, 0, 0.3)], 0)
    tree, begin, output = nodes(made)
    tube, profile = tree.nodes.new("GeometryNodeCurveToMesh"), tree.nodes.new("GeometryNodeCurvePrimitiveCircle")
    profile.inputs["Radius"].default_value = 0.2
    tree.links.new(begin.outputs[0], tube.inputs["Curve"])
    tree.links.new(profile.outputs[0], tube.inputs["Profile Curve"])
    tree.links.new(tube.outputs[0], output.inputs[0])


@scene
def nodes_letters(folder: Path) -> None:
    """Letters are copies without an original object."""
    studio()
    made = linked("letters", bpy.data.meshes.new("letters"), (-1.5, 0, 0.2))
    tree, _, output = nodes(made)
    letters, fill = tree.nodes.new("GeometryNodeStringToCurves"), tree.nodes.new("GeometryNodeFillCurve")
    letters.inputs["String"].default_value = "label"
    tree.links.new(letters.outputs[0], fill.inputs[0])
    tree.links.new(fill.outputs[0], output.inputs[0])
    made.rotation_euler.x = 1.2


@scene
def nodes_points_and_volume(folder: Path) -> None:
    studio()
    made = grid("drops", 5, 2, (-1, 0, 1))
    tree, begin, output = nodes(made)
    drops = tree.nodes.new("GeometryNodeMeshToPoints")
    drops.inputs["Radius"].default_value = 0.12
    tree.links.new(begin.outputs[0], drops.inputs[0])
    tree.links.new(drops.outputs[0], output.inputs[0])
    cloud = cube("cloud", (1.5, 0, 1))
    tree, begin, output = nodes(cloud)
    fill = tree.nodes.new("GeometryNodeMeshToVolume")
    tree.links.new(begin.outputs[0], fill.inputs[0])
    tree.links.new(fill.outputs[0], output.inputs[0])


@scene
def forest_of_collections(folder: Path) -> None:
    studio()
    kit = collection(
        "tree",
        painted(meshes.cylinder("trunk", 0.1, 0.8), (0, 0, 0.4)),
        painted(meshes.cone("crown", 0.5, 1.0), (0, 0, 1.2)),
        in_scene=False,
    )
    for number in range(7):
        instance(f"tree{number}", kit, (*RNG.uniform(-2.5, 2.5, 2), 0), RNG.uniform(0, 6), RNG.uniform(0.6, 1.3))


@scene
def kit_in_the_scene(folder: Path) -> None:
    studio()
    kit = collection("kit", cube("part", (0, 0, 0.5)), cube("lid", (0, 0, 1.2), 0.4))
    instance("one", kit, (2, 0, 0))
    instance("two", kit, (-2, 1, 0), 0.5)


@scene
def kit_excluded(folder: Path) -> None:
    studio()
    kit = collection("kit", cube("part", (0, 0, 0.5)))
    entry("kit").exclude = True
    instance("one", kit, (1, 0, 0))
    instance("two", kit, (-1, 1, 0))


@scene
def nested_collections(folder: Path) -> None:
    studio()
    inner = collection("inner", cube("part", (0, 0, 0.25), 0.5), in_scene=False)
    outer = collection("outer", *(instance(f"in{x}", inner, (x, 0, 0)) for x in (-0.5, 0.5)), in_scene=False)
    for number in range(3):
        instance(f"out{number}", outer, (0, 1.5 * number - 1.5, 0), 0.3 * number)


@scene
def vertex_and_face_copies(folder: Path) -> None:
    studio()
    points, part = grid("points", 2, 3, (-1, 0, 0.3)), cube("part", (0, 0, 0), 0.4)
    points.instance_type, part.parent = "VERTS", points
    squares, tile = grid("squares", 2, 2, (2, 0, 0.5)), cube("tile", (0, 0, 0), 0.5)
    squares.instance_type, tile.parent = "FACES", squares
    squares.use_instance_faces_scale, squares.show_instancer_for_render = True, False


@scene
def grass(folder: Path) -> None:
    studio((3, -4, 2))
    hair(grid("lawn", 3, 3), 400, 0.4)
    cube("stone", (0, 0, 0.3), 0.6)


@scene
def fur_with_children(folder: Path) -> None:
    studio((2, -3, 1.5))
    ball = painted(meshes.sphere("ball", 0.6), (0, 0, 0.8))
    hair(ball, 60, 0.3, child_type="INTERPOLATED", rendered_child_count=20)
    bald = painted(meshes.sphere("hidden skin", 0.4), (1.2, 0, 0.6))
    hair(bald, 100, 0.3)
    bald.show_instancer_for_render = False


@scene
def particles_of_objects(folder: Path) -> None:
    studio()
    pebble = cube("pebble", (0, 40, 0), 0.3)
    bed = grid("bed", 2, 4, (0, 0, 0.1))
    system = bed.modifiers.new("pebbles", "PARTICLE_SYSTEM").particle_system.settings
    system.count, system.frame_start, system.frame_end = 40, 1, 1
    system.physics_type, system.render_type, system.instance_object = "NO", "OBJECT", pebble
    system.particle_size, system.size_random = 0.8, 0.5


@scene
def particles_of_a_collection(folder: Path) -> None:
    studio()
    kit = collection("crumbs", cube("crumb", (0, 0, 0), 0.2), painted(meshes.sphere("pea", 0.15)), in_scene=False)
    bed = grid("bed", 2, 4, (0, 0, 0.1))
    system = bed.modifiers.new("crumbs", "PARTICLE_SYSTEM").particle_system.settings
    system.type, system.count, system.hair_length, system.use_advanced_hair = "HAIR", 30, 1.0, True
    system.render_type, system.instance_collection, system.particle_size = "COLLECTION", kit, 1.0


@scene
def cloth(folder: Path) -> None:
    studio()
    sheet = grid("sheet", 10, 2, (0, 0, 1.5))
    sheet.modifiers.new("cloth", "CLOTH")
    table = cube("table", (0, 0, 0.5))
    table.modifiers.new("collision", "COLLISION")


@scene
def rigged_tube(folder: Path) -> None:
    studio((5, -7, 3), (0, 0, 1.5))
    bones = rig("rig")
    tube = painted(meshes.cylinder("tube", 0.3, 3.0), (0, 0, 1.5))
    bpy.context.view_layer.update()
    tube.parent = bones
    for number in range(3):
        low = [v.index for v in tube.data.vertices if number - 0.01 <= v.co.z + 1.5 <= number + 1.01]
        tube.vertex_groups.new(name=f"bone{number}").add(low, 1.0, "ADD")
    tube.modifiers.new("rig", "ARMATURE").object = bones
    for number, angle in enumerate((0.2, 0.5, 0.6)):
        bones.pose.bones[f"bone{number}"].rotation_mode = "XYZ"
        bones.pose.bones[f"bone{number}"].rotation_euler = (0, 0.3, angle)


@scene
def carried_by_bones(folder: Path) -> None:
    studio((5, -7, 3), (0, 0, 1.5))
    bones = rig("rig")
    held = cube("held", (0.5, 0, 0), 0.5)
    held.parent, held.parent_type, held.parent_bone = bones, "BONE", "bone2"
    bones.pose.bones["bone1"].rotation_mode = "XYZ"
    bones.pose.bones["bone1"].rotation_euler = (0.7, 0, 0.2)
    chased = cube("chased", (2, 0, 0.5), 0.5)
    follow = chased.constraints.new("TRACK_TO")
    follow.target = held


@scene
def shape_keys_and_lattice(folder: Path) -> None:
    studio()
    ball = painted(meshes.sphere("ball", 0.7), (-1.2, 0, 0.8))
    ball.shape_key_add(name="Basis")
    key = ball.shape_key_add(name="tall")
    for point in key.data:
        point.co.z *= 1.8
    key.value = 0.7
    cage = linked("cage", bpy.data.lattices.new("cage"), (1.2, 0, 0.8))
    cage.scale = (2, 2, 2)
    for point in cage.data.points:
        point.co_deform.x *= 1 + point.co.z
    bent = painted(meshes.sphere("bent", 0.7), (1.2, 0, 0.8))
    bent.modifiers.new("cage", "LATTICE").object = cage


@scene
def texts(folder: Path) -> None:
    studio()
    text("sign", "Blend", (-2, 0, 0.3))
    path = curve("path", [(-2, 1, 1.5), (0, 1, 2.5), (2, 1, 1.5)], 0)
    along = text("along", "on a path", (0, 1, 1.5), 0.5)
    along.rotation_euler = (0, 0, 0)
    along.data.follow_curve = path
    text("flat", "flat", (0, -1, 0.3)).data.extrude = 0


@scene
def pipes(folder: Path) -> None:
    studio()
    curve("pipe", [(-2, 0, 0.3), (-1, 1, 1), (1, -1, 1.5), (2, 0, 0.5)], 0.12)
    bare = curve("guide", [(-2, 1, 0.3), (2, 1, 2)], 0)
    taper = curve("taper", [(0, 0.2, 0), (1, 1, 0), (2, 0.1, 0)], 0, (0, 40, 0))
    horn = curve("horn", [(-1, -1, 0.3), (0, -1.5, 1.2), (1.5, -1, 1)], 0.3)
    horn.data.taper_object = taper
    bare.hide_render = False
    bpy.ops.surface.primitive_nurbs_surface_torus_add(location=(0, 2, 1))


@scene
def metaballs(folder: Path) -> None:
    studio()
    for number, place in enumerate(((0, 0, 0.8), (0.7, 0, 1.0), (-0.6, 0.2, 0.6), (3, 0, 0.6))):
        data = bpy.data.metaballs.new("blob")
        data.elements.new().radius = 0.9
        name = "blob" if number == 0 else f"blob.{number:03d}"
        painted(linked(name if number < 3 else "other", data), place)


@scene
def several_layers(folder: Path) -> None:
    studio()
    for name, place in (("front", (0.5, -1.5, 0.5)), ("middle", (0, 0, 0.7)), ("back", (-1, 1.5, 1))):
        collection(name, cube(f"{name} cube", place))
    other = bpy.context.scene.view_layers.new("others")
    other.layer_collection.children["front"].exclude = True
    other.layer_collection.children["middle"].holdout = True
    entry("back").exclude = True


@scene
def holdouts(folder: Path) -> None:
    studio()
    cube("seen", (0, 0, 0.7))
    collection("mask", cube("cut", (1, -1.5, 0.6)))
    entry("mask").holdout = True
    cube("hole", (-1.2, -1, 0.5)).is_holdout = True


@scene
def indirect_and_unseen(folder: Path) -> None:
    studio()
    cube("seen", (0, 0, 0.7))
    collection("bounce", cube("card", (0.8, -1.5, 0.6)))
    entry("bounce").indirect_only = True
    cube("ceiling", (0, 0, 2.2), 1.5).visible_camera = False


@scene
def hidden_in_the_viewport(folder: Path) -> None:
    studio()
    cube("eye", (-1.5, 0, 0.5)).hide_set(True)
    cube("screen", (0, -1, 0.5)).hide_viewport = True
    collection("closed", cube("of a closed collection", (1.5, 0, 0.5)))
    entry("closed").hide_viewport = True
    collection("off", cube("of a collection that is off", (0, 1.5, 0.8)))
    bpy.data.collections["off"].hide_viewport = True
    cube("wire", (2.2, 1.5, 0.5)).display_type = "WIRE"


@scene
def background_set(folder: Path) -> None:
    studio()
    cube("actor", (0, 0, 0.5))
    behind, wall = bpy.data.scenes.new("room"), cube("wall", (0, 3, 1), 2)
    near = cube("pillar", (1.4, -2, 0.7), 0.8)
    for made in (wall, near):
        bpy.context.scene.collection.objects.unlink(made)
        behind.collection.objects.link(made)
    bpy.context.scene.background_set = behind


@scene
def linked_library(folder: Path) -> None:
    collection("kit", cube("part", (0, 0, 0.5)), painted(meshes.sphere("ball", 0.3), (0, 0, 1.3)))
    library = folder / "parts" / "library.blend"
    library.parent.mkdir(exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    stage.clear()
    studio()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "linked_library.blend"))
    with bpy.data.libraries.load(str(library), link=True, relative=True) as (_, wanted):
        wanted.collections, wanted.objects = ["kit"], ["ball"]
    instance("one", bpy.data.collections["kit"], (1, 0, 0))
    instance("two", bpy.data.collections["kit"], (-1, 0.5, 0), 0.4)
    bpy.context.scene.collection.objects.link(bpy.data.objects["ball"])


@scene
def library_override(folder: Path) -> None:
    collection("kit", cube("part", (0, 0, 0.5)))
    library = folder / "parts" / "overridden.blend"
    library.parent.mkdir(exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    stage.clear()
    studio()
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections = ["kit"]
    kit = bpy.data.collections["kit"]
    bpy.context.scene.collection.children.link(kit)
    kit.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    for made in bpy.data.objects:
        if made.override_library:
            made.location = (1, 0, 1)


@scene
def millimetres(folder: Path) -> None:
    bpy.context.scene.unit_settings.scale_length = 0.001
    studio((50, -60, 40), (0, 0, 5))
    for number in range(4):
        cube(f"screw{number}", (10 * number - 15, 0, 2.5), 5)
    bpy.context.scene.camera.data.clip_end = 1000


@scene
def tiny(folder: Path) -> None:
    stage.sun()
    stage.camera(at=(0.005, -0.006, 0.004), look_at=(0, 0, 0)).data.clip_start = 1e-5
    cube("grain", (0, 0, 0), 0.001)
    cube("crumb", (0.0012, 0.0008, 0), 0.0005)
    cube("hidden crumb", (-0.001, 0.0012, -0.0008), 0.0005)


@scene
def landscape(folder: Path) -> None:
    stage.sun()
    camera = stage.camera(at=(20000, -30000, 8000), look_at=(0, 0, 0))
    camera.data.clip_end = 200000
    land = grid("land", 40, 40000)
    for vertex in land.data.vertices:
        vertex.co.z = 800 * math.sin(vertex.co.x / 4000) * math.cos(vertex.co.y / 5000)
    for number in range(4):
        cube(f"tower{number}", (*RNG.uniform(-9000, 9000, 2), 1500), 1500)


@scene
def far_from_the_origin(folder: Path) -> None:
    away = np.array([20000.0, 10000.0, 0.0])
    stage.sun()
    stage.camera(at=away + np.array([5, -6, 4]), look_at=away)
    for number in range(3):
        cube(f"box{number}", away + np.array([1.5 * number - 1.5, 0, 0.5]))


@scene
def room_with_a_window(folder: Path) -> None:
    stage.sky()
    stage.camera(at=(0, -3.5, 1.5), look_at=(0, 3, 1.2), lens_mm=24)
    room = cube("room", (0, 0, 1.5), 3)
    room.scale = (2, 3, 1)
    glass = stage.mesh("window", [(-1, 1, 0.6), (1, 1, 0.6), (1, 1, 2), (-1, 1, 2)], [(0, 1, 2, 3)])
    pane = materials.principled("pane", (1, 1, 1), alpha=0.03)
    glass.data.materials.append(pane)
    cube("back of the window", (0, 3, 1), 0.8)
    cube("front of the window", (1, 0.3, 0.5), 0.6)
    lights.point((0, 0, 2.5), 60)


@scene
def leaves(folder: Path) -> None:
    """Cards whose shape is in their texture's alpha."""
    studio()
    image = bpy.data.images.new("leaf", 32, 32, alpha=True)
    ticks = np.linspace(-1, 1, 32)
    pixels = np.ones((32, 32, 4), np.float32)
    pixels[..., :3], pixels[..., 3] = (0.1, 0.6, 0.1), (np.hypot(*np.meshgrid(ticks, ticks)) < 0.7)
    image.pixels.foreach_set(pixels.ravel())
    image.pack()
    material = materials.principled("leaf")
    tree = material.node_tree
    texture = tree.nodes.new("ShaderNodeTexImage")
    texture.image = image
    for name, socket in (("Color", "Base Color"), ("Alpha", "Alpha")):
        tree.links.new(texture.outputs[name], tree.nodes["Principled BSDF"].inputs[socket])
    for number in range(6):
        bpy.ops.mesh.primitive_plane_add(size=1.2, location=(*RNG.uniform(-1.5, 1.5, 2), RNG.uniform(0.5, 2)))
        card = bpy.context.object
        card.name, card.rotation_euler = f"leaf{number}", RNG.uniform(0, 3, 3)
        card.data.materials.append(material)
    cube("trunk", (0, 0, 0.5), 0.7)


@scene
def shadow_catcher(folder: Path) -> None:
    studio()
    bpy.data.objects["floor"].is_shadow_catcher = True
    bpy.context.scene.render.film_transparent = True
    cube("product", (0, 0, 0.5))
    cube("below the floor", (1, 0.5, -0.8))


@scene
def fog(folder: Path) -> None:
    studio()
    cube("lamp post", (0, 0, 0.8))
    tree = bpy.context.scene.world.node_tree
    output = next(node for node in tree.nodes if node.type == "OUTPUT_WORLD")
    tree.links.new(tree.nodes.new("ShaderNodeVolumeScatter").outputs[0], output.inputs["Volume"])
    tree.nodes["Volume Scatter"].inputs["Density"].default_value = 0.05
    smoke = cube("smoke", (1.2, -1, 0.8), 1.4)
    material = smoke.data.materials[0]
    tree = material.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(tree.nodes.new("ShaderNodeVolumePrincipled").outputs[0], output.inputs["Volume"])


@scene
def isometric(folder: Path) -> None:
    camera = studio((10, -10, 8))
    camera.data.type, camera.data.ortho_scale = "ORTHO", 6
    for number in range(5):
        cube(f"block{number}", (number - 2, (number * 3) % 4 - 1.5, 0.5), 0.8)


@scene
def shifted_long_lens(folder: Path) -> None:
    camera = studio((60, -80, 40))
    camera.data.lens, camera.data.shift_x, camera.data.shift_y = 600, 0.1, -0.2
    camera.data.sensor_fit = "VERTICAL"
    for number in range(3):
        cube(f"car{number}", (2.0 * number - 2, 0, 0.5))


@scene
def markers(folder: Path) -> None:
    studio()
    cube("actor", (0, 0, 0.5))
    other = bpy.data.objects.new("above", bpy.data.cameras.new("above"))
    other.location = (0, 0, 9)
    bpy.context.scene.collection.objects.link(other)
    bpy.context.scene.timeline_markers.new("cut", frame=1).camera = other


@scene
def panorama(folder: Path) -> None:
    camera = studio((0, 0, 1))
    camera.data.type = "PANO"
    cube("around", (2, 2, 0.5))


@scene
def blurred(folder: Path) -> None:
    camera = studio()
    camera.data.dof.use_dof, camera.data.dof.focus_distance, camera.data.dof.aperture_fstop = True, 3, 0.5
    bpy.context.scene.render.use_motion_blur = True
    moving = cube("moving", (-1, 0, 0.5))
    moving.keyframe_insert("location", frame=1)
    moving.location.x = 2
    moving.keyframe_insert("location", frame=4)


@scene
def sheared_and_mirrored(folder: Path) -> None:
    studio()
    parent = linked("parent", None)
    parent.scale, parent.rotation_euler = (2, 0.7, 1), (0, 0, 0.4)
    child = cube("sheared", (0, 0, 0.7), 0.8)
    child.parent, child.rotation_euler = parent, (0.3, 0.2, 0.7)
    painted(meshes.cone("mirrored", 0.4, 1.2), (2.2, 0, 0.6)).scale = (-1, 1, 1)
    cube("flat", (-2.2, 0, 0.5)).scale = (1, 1, 0.0)
    cube("nothing", (0, 2, 0.5)).scale = (0, 0, 0)


@scene
def four_hundred_twins(folder: Path) -> None:
    studio((9, -9, 6))
    first = cube("twin", (-5, -5, 0.2), 0.3)
    for number in range(1, 400):
        linked(f"twin{number}", first.data, (number % 20 * 0.5 - 5, number // 20 * 0.5 - 5, 0.2))


@scene
def dense_mesh(folder: Path) -> None:
    studio()
    form = painted(meshes.sphere("statue", 1.0), (0, 0, 1))
    smooth = form.modifiers.new("smooth", "SUBSURF")
    smooth.levels, smooth.render_levels = 0, 4


@scene
def displaced_in_its_shader(folder: Path) -> None:
    studio()
    made = painted(meshes.sphere("rock", 0.8), (0, 0, 1.2))
    material = made.data.materials[0]
    tree = material.node_tree
    away, noise = tree.nodes.new("ShaderNodeDisplacement"), tree.nodes.new("ShaderNodeTexNoise")
    away.inputs["Scale"].default_value = 0.8
    tree.links.new(noise.outputs[0], away.inputs["Height"])
    output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
    tree.links.new(away.outputs[0], output.inputs["Displacement"])
    material.displacement_method = "BOTH"


@scene
def curves_and_clouds(folder: Path) -> None:
    studio()
    data = bpy.data.hair_curves.new("strands")
    data.add_curves([3] * 12)
    places = [v for n in range(12) for k in range(3) for v in (0.15 * n - 1, 0.2 * k * k, 0.2 + 0.8 * k)]
    data.attributes["position"].data.foreach_set("vector", places)
    data.attributes.new("radius", "FLOAT", "POINT").data.foreach_set("value", [0.03] * 36)
    painted(linked("strands", data))
    bpy.ops.object.pointcloud_random_add(location=(0, 2, 1))


@scene
def two_scenes(folder: Path) -> None:
    studio()
    cube("in the first", (0, 0, 0.5))
    other = bpy.data.scenes.new("second")
    bpy.context.window.scene = other
    stage.sun()
    stage.camera(at=(4, -4, 3), look_at=(0, 0, 0))
    cube("in the second", (0, 0, 0))


@scene
def driven(folder: Path) -> None:
    studio()
    made = cube("driven", (0, 0, 0.5))
    made.driver_add("location", 0).driver.expression = "sin(frame) + 1"


@scene
def pile(folder: Path) -> None:
    studio()
    stage.rigid_body(bpy.data.objects["floor"], "passive")
    for number in range(5):
        made = cube(f"crate{number}", (0.1 * number, 0, 0.6 + 1.1 * number))
        stage.rigid_body(made, "active")


@scene
def composited(folder: Path) -> None:
    studio()
    cube("subject", (0, 0, 0.5))
    made = bpy.context.scene
    made.use_nodes = True
    tree = made.node_tree
    turn = tree.nodes.new("CompositorNodeInvert")
    tree.links.new(tree.nodes["Render Layers"].outputs[0], turn.inputs["Color"])
    tree.links.new(turn.outputs[0], tree.nodes["Composite"].inputs[0])


@scene
def drawn(folder: Path) -> None:
    """Grease Pencil and a mesh."""
    studio()
    cube("mesh", (1, 0, 0.5))
    bpy.ops.object.grease_pencil_add(type="STROKE", location=(-1, 0, 1))


@scene
def nothing_to_see(folder: Path) -> None:
    studio()
    bpy.data.objects.remove(bpy.data.objects["floor"])
    linked("empty", None)
    curve("guide", [(-1, 0, 0), (1, 0, 1)], 0)
    data = bpy.data.meshes.new("dots")
    data.from_pydata([(0, 0, 0), (1, 0, 0)], [(0, 1)], [])
    linked("dots", data)


@scene
def no_camera(folder: Path) -> None:
    cube("lonely", (3, 4, 5))


def main() -> None:
    """Save the scenes named, or all of them."""
    folder, chosen = Path(sys.argv[1]).absolute(), sys.argv[2:] or list(SCENES)
    folder.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        stage.clear()
        SCENES[name](folder)
        bpy.ops.wm.save_as_mainfile(filepath=str(folder / f"{name}.blend"))
    print(f"{len(chosen)} scenes in {folder}")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # bpy may crash as its process ends
