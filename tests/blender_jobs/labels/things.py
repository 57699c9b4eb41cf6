"""Things of one plain colour, of every kind that Cycles draws, and the ways in which a scene hides them.

Runs inside Blender. Each maker of `KINDS` puts a thing around a place; its front, towards -y, is within `FRONT`
metres of that place, and it covers the place as the camera sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import bpy

from blender_jobs import stage

RED, GREEN, BLUE, GREY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.25, 0.25, 0.25)
FRONT = 0.85
AWAY = (0.0, -60.0, 0.0)
"""Behind the camera: where originals of copies are kept."""

Place = Sequence[float]


@dataclass
class Thing:
    """What a scene hides or shows."""

    owner: Any
    """The object that hiding is applied to: the thing itself, or the one that makes copies."""
    original: Any = None
    """What is copied; None: the owner is seen itself."""
    materials: list[Any] = field(default_factory=list)


def glow(rgb: Sequence[float], alpha: float = 1.0) -> Any:
    """A material that shines in one colour, whatever lights there are, and lets 1 - alpha of what is behind through."""
    material = bpy.data.materials.new("glow")
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    shine, output = tree.nodes.new("ShaderNodeEmission"), tree.nodes.new("ShaderNodeOutputMaterial")
    shine.inputs[0].default_value = (*rgb, 1.0)
    clear, mix = tree.nodes.new("ShaderNodeBsdfTransparent"), tree.nodes.new("ShaderNodeMixShader")
    mix.inputs[0].default_value = alpha
    tree.links.new(clear.outputs[0], mix.inputs[1])
    tree.links.new(shine.outputs[0], mix.inputs[2])
    tree.links.new((shine if alpha == 1.0 else mix).outputs[0], output.inputs["Surface"])
    return material


def place_glow(low: float = -4.0, high: float = 4.0) -> Any:
    """A material whose colour is where it is: each of x, y, z from low to high (metres, world) as 0 to 1."""
    material = glow(RED)
    tree = material.node_tree
    where, scale = tree.nodes.new("ShaderNodeNewGeometry"), tree.nodes.new("ShaderNodeVectorMath")
    scale.operation = "MULTIPLY_ADD"
    scale.inputs[1].default_value = (1 / (high - low),) * 3
    scale.inputs[2].default_value = (-low / (high - low),) * 3
    tree.links.new(where.outputs["Position"], scale.inputs[0])
    tree.links.new(scale.outputs[0], next(node for node in tree.nodes if node.type == "EMISSION").inputs[0])
    return material


def open_stage(at: Place = (0, -6, 0), world: Sequence[float] = BLUE) -> Any:
    """A scene with a sky of one colour and a camera at a place that looks along y."""
    scene = bpy.context.scene
    sky = bpy.data.worlds.new("sky")
    sky.use_nodes = True
    sky.node_tree.nodes["Background"].inputs[0].default_value = (*world, 1.0)
    scene.world = sky
    camera = stage.camera(at=at, look_at=(at[0], at[1] + 1, at[2]))
    camera.data.clip_end = 1000
    return scene


def linked(name: str, data: Any, at: Place = (0, 0, 0)) -> Any:
    made = bpy.data.objects.new(name, data)
    made.location = at
    bpy.context.scene.collection.objects.link(made)
    return made


def cube(name: str, at: Place, material: Any, size: float = 1.0) -> Any:
    made = stage.cube(name, size)
    made.location = at
    made.data.materials.append(material)
    return made


def wall(name: str, at: Place, material: Any, size: float = 1.6) -> Any:
    """A square that faces the camera."""
    half = size / 2
    corners = [(-half, 0, -half), (half, 0, -half), (half, 0, half), (-half, 0, half)]
    made = stage.mesh(name, corners, [(0, 1, 2, 3)])
    made.location = at
    made.data.materials.append(material)
    return made


# --- Kinds ----------------------------------------------------------------------------------------------------

Maker = Callable[[str, Place, Any], Thing]
KINDS: dict[str, Maker] = {}
COPIED: set[str] = set()
"""The kinds whose things are copies of an original."""


def kind(maker: Maker) -> Maker:
    KINDS[maker.__name__] = maker
    return maker


def copied(maker: Maker) -> Maker:
    COPIED.add(maker.__name__)
    return kind(maker)


@kind
def mesh(name: str, at: Place, material: Any) -> Thing:
    return Thing(cube(name, at, material), None, [material])


@kind
def curve(name: str, at: Place, material: Any) -> Thing:
    data = bpy.data.curves.new(name, "CURVE")
    data.dimensions, data.bevel_depth, data.use_fill_caps = "3D", 0.5, True
    spline = data.splines.new("POLY")
    spline.points.add(1)
    spline.points[0].co, spline.points[1].co = (-0.5, 0, 0, 1), (0.5, 0, 0, 1)
    data.materials.append(material)
    return Thing(linked(name, data, at), None, [material])


@kind
def text(name: str, at: Place, material: Any) -> Thing:
    data = bpy.data.curves.new(name, "FONT")
    data.body, data.size, data.extrude = "\u2588", 1.2, 0.3
    data.align_x, data.align_y = "CENTER", "CENTER"
    data.materials.append(material)
    made = linked(name, data, at)
    made.rotation_euler = (math.pi / 2, 0, 0)
    return Thing(made, None, [material])


@kind
def metaball(name: str, at: Place, material: Any) -> Thing:
    data = bpy.data.metaballs.new(name)
    data.elements.new().radius = 1.2
    data.render_resolution = 0.2
    data.materials.append(material)
    return Thing(linked(name, data, at), None, [material])


@kind
def nurbs_surface(name: str, at: Place, material: Any) -> Thing:
    bpy.ops.surface.primitive_nurbs_surface_sphere_add(radius=0.7, location=at)
    made = bpy.context.object
    made.name = name
    made.data.materials.append(material)
    return Thing(made, None, [material])


@kind
def subdivided(name: str, at: Place, material: Any) -> Thing:
    made = cube(name, at, material, 1.4)
    modifier = made.modifiers.new("subdivision", "SUBSURF")
    modifier.levels, modifier.render_levels = 0, 3
    return Thing(made, None, [material])


@kind
def made_by_nodes(name: str, at: Place, material: Any) -> Thing:
    """A mesh that is nothing before its geometry nodes."""
    made = linked(name, bpy.data.meshes.new(name), at)
    tree, _, output = node_group(made)
    box, paint = tree.nodes.new("GeometryNodeMeshCube"), tree.nodes.new("GeometryNodeSetMaterial")
    paint.inputs["Material"].default_value = material
    tree.links.new(box.outputs[0], paint.inputs[0])
    tree.links.new(paint.outputs[0], output.inputs[0])
    return Thing(made, None, [material])


@kind
def points(name: str, at: Place, material: Any) -> Thing:
    """A point cloud: balls, of geometry nodes."""
    data = bpy.data.meshes.new(name)
    data.from_pydata([(-0.3, 0, 0), (0, 0, 0), (0.3, 0, 0)], [], [])
    made = linked(name, data, at)
    tree, entry, output = node_group(made)
    balls, paint = tree.nodes.new("GeometryNodeMeshToPoints"), tree.nodes.new("GeometryNodeSetMaterial")
    balls.inputs["Radius"].default_value = 0.4
    paint.inputs["Material"].default_value = material
    tree.links.new(entry.outputs[0], balls.inputs[0])
    tree.links.new(balls.outputs[0], paint.inputs[0])
    tree.links.new(paint.outputs[0], output.inputs[0])
    return Thing(made, None, [material])


@kind
def hair_curves(name: str, at: Place, material: Any) -> Thing:
    """Thick hairs side by side, as upright strands."""
    data = bpy.data.hair_curves.new(name)
    strands = [-0.4, -0.2, 0.0, 0.2, 0.4]
    data.add_curves([2] * len(strands))
    ends = [value for x in strands for z in (-0.5, 0.5) for value in (x, 0.0, z)]
    data.attributes["position"].data.foreach_set("vector", ends)
    data.attributes.new("radius", "FLOAT", "POINT").data.foreach_set("value", [0.15] * 2 * len(strands))
    data.materials.append(material)
    return Thing(linked(name, data, at), None, [material])


@kind
def particle_hair(name: str, at: Place, material: Any) -> Thing:
    """A small square, from which hairs grow towards the camera."""
    made = wall(name, at, material, 1.0)
    settings = made.modifiers.new("hair", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.count, settings.hair_length, settings.material = "HAIR", 60, 0.4, 1
    settings.radius_scale, settings.root_radius, settings.tip_radius = 1.0, 0.05, 0.05
    return Thing(made, None, [material])


@copied
def nodes_copy(name: str, at: Place, material: Any) -> Thing:
    original = cube(f"{name}_part", AWAY, material)
    return Thing(instancer_of_nodes(name, at, original), original, [material])


@copied
def nodes_collection_copy(name: str, at: Place, material: Any) -> Thing:
    kit, original = kit_with(cube(f"{name}_part", (0, 0, 0), material))
    made = dots(name, [(0, 0, 0)], at)
    tree, entry, output = node_group(made)
    spread(tree, entry, output, "GeometryNodeCollectionInfo", "Collection", kit)
    return Thing(made, original, [material])


@copied
def collection_copy(name: str, at: Place, material: Any) -> Thing:
    kit, original = kit_with(cube(f"{name}_part", (0, 0, 0), material))
    return Thing(collection_instance(name, at, kit), original, [material])


@copied
def nested_copy(name: str, at: Place, material: Any) -> Thing:
    """A collection instance within a collection instance."""
    inner, original = kit_with(cube(f"{name}_part", (0, 0, 0), material))
    outer, _ = kit_with(collection_instance(f"{name}_inner", (0.1, 0, 0), inner))
    return Thing(collection_instance(name, (at[0] - 0.1, *at[1:]), outer), original, [material])


@copied
def vertex_copy(name: str, at: Place, material: Any) -> Thing:
    original = cube(f"{name}_part", (0, 0, 0), material)
    made = dots(name, [(0, 0, 0)], at)
    made.instance_type = "VERTS"
    original.parent = made
    return Thing(made, original, [material])


@copied
def face_copy(name: str, at: Place, material: Any) -> Thing:
    original = cube(f"{name}_part", (0, 0, 0), material)
    made = wall(name, at, material, 0.2)
    made.instance_type = "FACES"
    made.show_instancer_for_render = False
    original.parent = made
    return Thing(made, original, [material])


@copied
def particle_copy(name: str, at: Place, material: Any) -> Thing:
    original = cube(f"{name}_part", AWAY, material)
    made = wall(name, at, material, 0.02)
    settings = made.modifiers.new("crumbs", "PARTICLE_SYSTEM").particle_system.settings
    settings.count, settings.frame_start, settings.frame_end, settings.lifetime = 1, 1, 1, 100
    settings.physics_type, settings.render_type, settings.instance_object = "NO", "OBJECT", original
    settings.particle_size = 1.0
    made.show_instancer_for_render = False
    return Thing(made, original, [material])


# --- What copies are made of ----------------------------------------------------------------------------------


def node_group(made: Any) -> tuple[Any, Any, Any]:
    """New geometry nodes of an object: the tree, its input and its output node."""
    tree = bpy.data.node_groups.new("nodes", "GeometryNodeTree")
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=direction, socket_type="NodeSocketGeometry")
    made.modifiers.new("nodes", "NODES").node_group = tree
    return tree, tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")


def spread(tree: Any, entry: Any, output: Any, info: str, socket: str, source: Any) -> Any:
    """Copies of an object or a collection on the points of the nodes' own mesh; return the node that makes them."""
    dot, copies, what = (
        tree.nodes.new(name) for name in ("GeometryNodeMeshToPoints", "GeometryNodeInstanceOnPoints", info)
    )
    what.inputs[socket].default_value = source
    if "As Instance" in what.inputs:
        what.inputs["As Instance"].default_value = True
    tree.links.new(entry.outputs[0], dot.inputs[0])
    tree.links.new(dot.outputs[0], copies.inputs["Points"])
    tree.links.new(next(out for out in what.outputs if out.type == "GEOMETRY"), copies.inputs["Instance"])
    tree.links.new(copies.outputs[0], output.inputs[0])
    return copies


def dots(name: str, places: Sequence[Place], at: Place = (0, 0, 0)) -> Any:
    """A mesh of loose vertices."""
    data = bpy.data.meshes.new(name)
    data.from_pydata(places, [], [])
    return linked(name, data, at)


def instancer_of_nodes(name: str, at: Place, original: Any, places: Sequence[Place] = ((0, 0, 0),)) -> Any:
    made = dots(name, places, at)
    spread(*node_group(made), "GeometryNodeObjectInfo", "Object", original)
    return made


def kit_with(*members: Any) -> tuple[Any, Any]:
    """A collection, in no scene, of objects that are in the scene no longer; and the first of them."""
    kit = bpy.data.collections.new("kit")
    for member in members:
        for home in list(member.users_collection):
            home.objects.unlink(member)
        kit.objects.link(member)
    return kit, members[0]


def collection_instance(name: str, at: Place, kit: Any) -> Any:
    made = linked(name, None, at)
    made.instance_type, made.instance_collection = "COLLECTION", kit
    return made


# --- Ways to hide ---------------------------------------------------------------------------------------------

Way = Callable[[Thing], None]
WAYS: dict[str, Way] = {"plain": lambda thing: None}


def way(function: Way) -> Way:
    WAYS[function.__name__] = function
    return function


def own_collection(thing: Thing) -> tuple[Any, Any]:
    """Move the owner into a collection of its own; return that, and the view layer's entry for it."""
    special = bpy.data.collections.new("special")
    bpy.context.scene.collection.children.link(special)
    for home in list(thing.owner.users_collection):
        home.objects.unlink(thing.owner)
    special.objects.link(thing.owner)
    return special, bpy.context.view_layer.layer_collection.children["special"]


@way
def hide_render(thing: Thing) -> None:
    thing.owner.hide_render = True


@way
def hide_viewport(thing: Thing) -> None:
    thing.owner.hide_viewport = True


@way
def eye(thing: Thing) -> None:
    thing.owner.hide_set(True)


@way
def display(thing: Thing) -> None:
    thing.owner.display_type, thing.owner.show_in_front = "BOUNDS", True


@way
def no_camera_rays(thing: Thing) -> None:
    thing.owner.visible_camera = False


@way
def camera_rays_alone(thing: Thing) -> None:
    for name in ("diffuse", "glossy", "transmission", "volume_scatter", "shadow"):
        setattr(thing.owner, f"visible_{name}", False)


@way
def holdout(thing: Thing) -> None:
    thing.owner.is_holdout = True


@way
def shadow_catcher(thing: Thing) -> None:
    thing.owner.is_shadow_catcher = True


@way
def collection_hide_render(thing: Thing) -> None:
    own_collection(thing)[0].hide_render = True


@way
def collection_hide_viewport(thing: Thing) -> None:
    own_collection(thing)[0].hide_viewport = True


@way
def collection_exclude(thing: Thing) -> None:
    own_collection(thing)[1].exclude = True


@way
def collection_eye(thing: Thing) -> None:
    own_collection(thing)[1].hide_viewport = True


@way
def collection_holdout(thing: Thing) -> None:
    own_collection(thing)[1].holdout = True


@way
def collection_indirect(thing: Thing) -> None:
    own_collection(thing)[1].indirect_only = True


@way
def in_an_excluded_collection_too(thing: Thing) -> None:
    _, entry = own_collection(thing)
    bpy.context.scene.collection.objects.link(thing.owner)
    entry.exclude = True


@way
def no_collection(thing: Thing) -> None:
    for home in list(thing.owner.users_collection):
        home.objects.unlink(thing.owner)


@way
def background_set(thing: Thing) -> None:
    behind = bpy.data.scenes.new("behind")
    for home in list(thing.owner.users_collection):
        home.objects.unlink(thing.owner)
    behind.collection.objects.link(thing.owner)
    bpy.context.scene.background_set = behind
    if thing.original is not None and thing.original.parent == thing.owner:
        bpy.context.scene.collection.objects.unlink(thing.original)
        behind.collection.objects.link(thing.original)


@way
def shrunk_to_nothing(thing: Thing) -> None:
    thing.owner.scale = (0, 0, 0)


def see_through(thing: Thing, alpha: float) -> None:
    for material in thing.materials:
        rgb = next(node for node in material.node_tree.nodes if node.type == "EMISSION").inputs[0].default_value[:3]
        material.user_remap(glow(rgb, alpha))


WAYS |= {
    f"alpha_{round(100 * alpha):03d}": (lambda thing, alpha=alpha: see_through(thing, alpha))
    for alpha in (0.0, 0.02, 0.1, 0.5)
}


@way
def holdout_shader(thing: Thing) -> None:
    for material in thing.materials:
        tree = material.node_tree
        output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
        tree.links.new(tree.nodes.new("ShaderNodeHoldout").outputs[0], output.inputs["Surface"])


@way
def thin_volume(thing: Thing) -> None:
    for material in thing.materials:
        tree = material.node_tree
        output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
        tree.links.clear()
        fog = tree.nodes.new("ShaderNodeVolumeAbsorption")
        fog.inputs["Density"].default_value = 0.001
        tree.links.new(fog.outputs[0], output.inputs["Volume"])
