"""Build a scene in a few lines: ground, camera, sun, sky, cubes, paint, rigid bodies.

World axes as Blender: z up, metres, angles in degrees. Colours are linear RGB from 0 to 1. Everything returned is an
ordinary Blender object; use `bpy` for whatever is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Quaternion, Vector

from blender_jobs._render import animation
from blender_jobs.job import JobError
from blender_jobs.lens import PROPERTY

__all__ = [
    "aim_sun",
    "camera",
    "clear",
    "copy",
    "cube",
    "frame_rate",
    "ground",
    "link",
    "mesh",
    "motion_blur",
    "move",
    "paint",
    "point_at",
    "rigid_body",
    "sky",
    "sun",
]

Triple = Sequence[float] | npt.NDArray[np.float64]
"""Three numbers: a place in metres, or a colour."""

Range = tuple[float, float]
"""Lowest and highest value, the second excluded."""

Interpolation = Literal["LINEAR", "BEZIER", "CONSTANT"]
"""How a thing moves between two keyframes, in Blender's words."""

CUBE_CORNERS = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
CUBE_FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]

_SPECULAR = "Specular IOR Level" if bpy.app.version >= (4, 0) else "Specular"


def clear() -> None:
    """Replace all that is in Blender by one empty scene with factory settings."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


def mesh(name: str, vertices: Sequence[Sequence[float]], faces: Sequence[Sequence[int]]) -> Any:
    """Return a new mesh object: vertices (N, 3) in metres, faces as tuples of vertex numbers, counter-clockwise."""
    data = bpy.data.meshes.new(name)
    data.from_pydata(vertices, [], faces)
    return link(bpy.data.objects.new(name, data))


def cube(name: str, size_m: float = 1.0, physics: str | None = None, **body: Any) -> Any:
    """Return a new cube around its origin; `physics` and `body` as in `rigid_body`."""
    made = mesh(name, [[size_m * c for c in corner] for corner in CUBE_CORNERS], CUBE_FACES)
    if physics:
        rigid_body(made, physics, **body)
    return made


def ground(size_m: float = 20.0, rgb: Triple = (0.4, 0.4, 0.4), **body: Any) -> Any:
    """Return a square plane through the world's origin that rigid bodies rest on."""
    half = size_m / 2
    corners = [(-half, -half, 0), (half, -half, 0), (half, half, 0), (-half, half, 0)]
    made = mesh("ground", corners, [(0, 1, 2, 3)])
    paint(made, rgb, matte=True)
    rigid_body(made, "passive", **body)
    return made


def camera(
    at: Triple,
    look_at: Triple = (0, 0, 0),
    lens_mm: float = 50.0,
    sensor_mm: float = 36.0,
    name: str = "camera",
    distortion: Sequence[float] = (),
) -> Any:
    """Return a new perspective camera at `at`, turned to `look_at`; it becomes the scene's camera.

    `distortion` holds OpenCV's coefficients (k1, k2, p1, p2[, k3[, k4, k5, k6]]), in that order. For a
    camera with OpenCV's matrix K, see `blender_jobs.lens.set_intrinsics`.
    """
    data = bpy.data.cameras.new(name)
    data.lens, data.sensor_width = lens_mm, sensor_mm
    made = link(bpy.data.objects.new(name, data))
    made.location = at
    point_at(made, look_at)
    if len(distortion):
        made[PROPERTY] = [float(value) for value in distortion]
    bpy.context.scene.camera = made
    return made


def sun(energy: float = 3.0, elevation: float = 50.0, azimuth: float = 30.0, angle: float = 1.5) -> Any:
    """Return a new sun: `energy` in W/m2, `angle` its apparent diameter (larger: softer shadows)."""
    data = bpy.data.lights.new("sun", "SUN")
    data.energy, data.angle = energy, math.radians(angle)
    made = link(bpy.data.objects.new("sun", data))
    aim_sun(made, elevation, azimuth)
    return made


def aim_sun(lamp: Any, elevation: float, azimuth: float) -> None:
    """Make the light come from `elevation` above the horizon and `azimuth` from the x axis towards y."""
    lamp.rotation_euler = (0.0, math.radians(90 - elevation), math.radians(azimuth))
    x, y, z = lamp.rotation_euler.to_matrix() @ Vector((0, 0, 1))
    bpy.context.scene.display.light_direction = (x, z, -y)  # for Workbench's shadows; its axes are y up


def sky(rgb: Triple = (0.6, 0.75, 1.0), strength: float = 0.6) -> None:
    """Light the scene evenly from all around; the colour is also the background."""
    background = fresh_world().nodes["Background"]
    background.inputs["Color"].default_value = (*rgb, 1.0)
    background.inputs["Strength"].default_value = strength
    bpy.context.scene.world.color = [strength * channel for channel in rgb]  # Workbench's background


def fresh_world() -> Any:
    """Return the node tree of the scene's world (a new one if it has none), emptied but for its ``Background``.

    Images that nothing else shows are removed: HDRIs are large, and a scene may see many.
    """
    scene = bpy.context.scene
    if scene.world is None:
        scene.world = bpy.data.worlds.new("world")
    use_nodes(scene.world)
    tree = scene.world.node_tree
    images = dict.fromkeys(node.image for node in tree.nodes if node.type == "TEX_ENVIRONMENT" and node.image)
    tree.nodes.clear()
    bpy.data.batch_remove([image for image in images if not image.users])
    background, output = tree.nodes.new("ShaderNodeBackground"), tree.nodes.new("ShaderNodeOutputWorld")
    background.name = "Background"
    tree.links.new(background.outputs["Background"], output.inputs["Surface"])
    return tree


def paint(obj: Any, rgb: Triple, roughness: float = 0.5, metallic: float = 0.0, matte: bool = False) -> None:
    """Give `obj` a plain material, or change the one that an earlier call gave it.

    `matte` removes all reflection: rendering takes a third less time, with less noise.
    """
    if not obj.data.materials:
        obj.data.materials.append(None)
    if obj.data.materials[0] is None:
        obj.data.materials[0] = bpy.data.materials.new(obj.name)
    material = obj.data.materials[0]
    use_nodes(material)
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*rgb, 1.0)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    shader.inputs[_SPECULAR].default_value = 0.0 if matte else 0.5
    material.diffuse_color = (*rgb, 1.0)  # Workbench's colours
    material.roughness, material.metallic = roughness, metallic


def rigid_body(
    obj: Any,
    kind: str = "active",
    mass_kg: float = 1.0,
    friction: float = 0.5,
    restitution: float = 0.0,
    shape: str = "BOX",
    linear_damping: float = 0.04,
    angular_damping: float = 0.1,
) -> None:
    """Make `obj` a rigid body that physics moves (``active``) or that stops others (``passive``).

    `shape` is one of Blender's collision shapes.

    The dampings are the parts of its speed that a body loses each second. Blender has no rolling friction: what
    rolls comes to rest only through `angular_damping`. A ``MESH`` hovers by its collision margin, 4 cm unless set;
    ``CONVEX_HULL`` does not.
    """
    scene = bpy.context.scene
    if scene.rigidbody_world is None:
        bpy.ops.rigidbody.world_add()
    with bpy.context.temp_override(object=obj, active_object=obj, selected_objects=[obj]):
        bpy.ops.rigidbody.object_add(type=kind.upper())
    obj.rigid_body.collision_shape = shape
    obj.rigid_body.mass = mass_kg
    obj.rigid_body.friction = friction
    obj.rigid_body.restitution = restitution
    obj.rigid_body.linear_damping, obj.rigid_body.angular_damping = linear_damping, angular_damping


def frame_rate(fps: int) -> None:
    """Set the frames per second: the time step of physics and animation."""
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = fps, 1.0


def motion_blur(shutter: float = 0.5) -> None:
    """Blur what moves, and what a moving camera sees, as a real shutter does.

    The shutter is open for `shutter` frames around the current one: annotations, passes and flow are sharp, and show
    the middle of the blur. What moves by keyframes (`move`, `rigs.Chain.move`),
    constraints, drivers and armatures is blurred; not what `Job.step` moves, nor physics, which do not change
    between two frames. Workbench has no motion blur, and a note says so.

    Args:
        shutter: frames, 0.5 for the usual 180 degree shutter; 0: no blur.

    Raises:
        JobError: it is below 0.
    """
    if not 0 <= shutter < math.inf:
        raise JobError(f"motion_blur: the shutter is open for {shutter:g} frames; give 0 or more")
    scene = bpy.context.scene
    owners = [scene.render, scene.eevee, getattr(scene, "cycles", None)]  # EEVEE's, Cycles' own: before Blender 4.2
    for owner in owners:
        for name, value in (("use_motion_blur", shutter > 0), ("motion_blur_position", "CENTER")):
            if hasattr(owner, name):
                setattr(owner, name, value)
        if hasattr(owner, "motion_blur_shutter") and shutter > 0:
            owner.motion_blur_shutter = shutter


def copy(obj: Any, name: str) -> Any:
    """Return a new object like `obj`, its mesh (and so its materials) shared: painting or bending one changes both.

    Place, modifiers, constraints, parent and rigid body are its own, and so is its animation. It is linked to the
    scene, not to the collections that `obj` is in.
    """
    made = link(obj.copy())
    made.name = name
    if made.animation_data is not None and made.animation_data.action is not None:
        made.animation_data.action = made.animation_data.action.copy()
    world = bpy.context.scene.rigidbody_world
    bodies: Any = world.collection.objects if world is not None and world.collection is not None else ()
    if made.rigid_body is not None and obj.name in bodies and made.name not in bodies:
        bodies.link(made)
    return made


def move(obj: Any, places: Mapping[int, Triple], interpolation: Interpolation = "LINEAR") -> None:
    """Animate `obj` through these places, by frame; replaces an earlier path.

    A rigid body then follows the path (``kinematic``): it pushes others, and nothing pushes it.

    Args:
        obj: any object.
        places: by frame, (3,) in metres, in the frame of its parent if it has one.
        interpolation: ``LINEAR``: at even speed; ``BEZIER``: slow at its places; ``CONSTANT``: it jumps.

    Raises:
        JobError: there are no places, or no such interpolation.
    """
    check_interpolation(interpolation, "move")
    if not places:
        raise JobError(f"move: no places for {obj.name!r}; give at least one, as {{1: (0, 0, 0)}}")
    animation.keyframe(obj, "location", places, interpolation)
    if obj.rigid_body is not None:
        obj.rigid_body.kinematic = True


def check_interpolation(interpolation: str, where: str) -> None:
    """Raise JobError unless it is one of `Interpolation`; `where` begins the message."""
    if interpolation not in get_args(Interpolation):
        raise JobError(f"{where}: interpolation is {interpolation!r}, which must be LINEAR, BEZIER or CONSTANT")


def point_at(obj: Any, target: Triple, roll: float = 0.0) -> None:
    """Turn `obj` so that its -z axis (a camera's or a lamp's direction) points at `target`, its y axis up.

    `roll` turns it further about that axis: in degrees, counter-clockwise as seen from behind a camera.
    """
    direction = Vector(target) - Vector(obj.location)
    turn = direction.to_track_quat("-Z", "Y") @ Quaternion((0, 0, 1), math.radians(roll))
    obj.rotation_euler = turn.to_euler()


def link(obj: Any) -> Any:
    """Put a new object into the scene, and return it."""
    bpy.context.scene.collection.objects.link(obj)
    return obj


def use_nodes(owner: Any) -> None:
    """Let a material or a world have nodes: in Blender 5 they do from the start, and the switch is deprecated."""
    if bpy.app.version < (5, 0):
        owner.use_nodes = True
