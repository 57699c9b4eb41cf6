"""Make still_life.blend, the scene that ../blend_scene.py opens: a table, a bowl of fruit, a bottle, a mug, two lamps.

blender -b --factory-startup --python examples/assets/make_still_life.py [-- PATH.blend]

A file of an old Blender opens in every newer one: the one in this folder was saved by Blender 3.4.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

TRANSMISSION = "Transmission Weight" if bpy.app.version >= (4, 0) else "Transmission"

Profile = list[tuple[float, float]]
"""Half an outline, from bottom to top: distance from the axis, height; centimetres."""

APPLE: Profile = [(0, 0.5), (1.2, 0.1), (2.6, 0.7), (3.7, 3), (3.6, 5.2), (2.4, 6.8), (0.9, 6.7), (0, 5.9)]
LEMON: Profile = [(0, 0), (0.6, 0.1), (0.9, 0.7), (2.3, 2), (2.7, 4), (2.3, 6), (0.9, 7.3), (0.5, 7.9), (0, 8)]
BOWL: Profile = [(0, 0), (4.6, 0), (4.8, 0.7), (8.5, 2.6), (11, 5.8), (11.6, 8)]
BOWL += [(11.2, 8.1), (10.4, 5.9), (8, 3.2), (4, 1.5), (0, 1.2)]
MUG: Profile = [(0, 0), (3.8, 0), (4.1, 0.4), (4.2, 9), (4.1, 9.3), (3.8, 9.1), (3.7, 1.1), (3.3, 0.7), (0, 0.7)]
BOTTLE: Profile = [(0, 0.8), (3, 0.2), (3.6, 0.4), (3.7, 1.5), (3.7, 17), (3.2, 20), (1.6, 23), (1.3, 25), (1.3, 29)]
BOTTLE += [(1.6, 29.1), (1.6, 30), (1.1, 30), (1, 25), (1.3, 23), (2.8, 20), (3.3, 17), (3.3, 2), (2.6, 1.4), (0, 2.2)]
CANDLE: Profile = [(0, 0), (3.4, 0), (3.5, 0.1), (3.5, 10.6), (3.2, 11), (2.6, 10.7), (0, 10.4)]
TABLE: Profile = [(0, -3), (58, -3), (59.5, -2.6), (60, -1.5), (59.5, -0.4), (58, 0), (0, 0)]


def material(name: str, rgb: tuple[float, float, float], roughness: float, transmission: float = 0.0) -> Any:
    """Return a new material; colours are linear RGB."""
    made = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0):
        made.use_nodes = True
    inputs = made.node_tree.nodes["Principled BSDF"].inputs
    inputs["Base Color"].default_value = (*rgb, 1)
    inputs["Roughness"].default_value, inputs[TRANSMISSION].default_value = roughness, transmission
    made.diffuse_color = (*rgb, 1)
    return made


def wood() -> Any:
    """Return a brown material with rings as of a trunk, far off its centre."""
    made = material("wood", (0.25, 0.12, 0.05), 0.45)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    place, turn, rings, ramp = (
        nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "Mapping", "TexWave", "ValToRGB")
    )
    turn.inputs["Scale"].default_value = (0.25, 3.0, 1.0)
    rings.inputs["Scale"].default_value, rings.inputs["Distortion"].default_value = 1.2, 7.0
    rings.inputs["Detail"].default_value, rings.bands_direction = 3.0, "Y"
    dark, light = ramp.color_ramp.elements
    dark.color, light.color = (0.2, 0.09, 0.04, 1), (0.3, 0.15, 0.065, 1)
    links.new(place.outputs["Object"], turn.inputs["Vector"])
    links.new(turn.outputs["Vector"], rings.inputs["Vector"])
    links.new(rings.outputs["Fac"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return made


def turned(name: str, profile: Profile, look: Any, steps: int = 24) -> Any:
    """Return a new object: the profile turned about the z axis, as on a lathe, and smoothed."""
    data = bpy.data.meshes.new(name)
    points = [(x / 100, 0, z / 100) for x, z in profile]
    data.from_pydata(points, [(at, at + 1) for at in range(len(points) - 1)], [])
    data.materials.append(look)
    made = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(made)
    lathe, smooth = made.modifiers.new("lathe", "SCREW"), made.modifiers.new("smooth", "SUBSURF")
    lathe.steps = lathe.render_steps = steps
    lathe.use_merge_vertices, lathe.use_normal_calculate = True, True
    smooth.levels = smooth.render_levels = 1
    return made


def lamp(name: str, at: tuple[float, float, float], power_w: float, size_m: float) -> None:
    """Add a square lamp that shines at the middle of the table."""
    data = bpy.data.lights.new(name, "AREA")
    data.energy, data.size = power_w, size_m
    aimed(bpy.data.objects.new(name, data), at)


def aimed(obj: Any, at: tuple[float, float, float]) -> Any:
    """Put a lamp or a camera into the scene, turned to the things on the table."""
    bpy.context.scene.collection.objects.link(obj)
    obj.location = at
    obj.rotation_euler = (Vector((0, 0, 0.07)) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    return obj


def build() -> None:
    """Build the scene; the top of the table is at z = 0, and so are the origins of the things on it."""
    turned("table", TABLE, wood(), steps=64)
    bowl = turned("bowl", BOWL, material("stoneware", (0.1, 0.25, 0.4), 0.25), steps=32)
    turned("bottle", BOTTLE, material("green glass", (0.25, 0.65, 0.35), 0.03, transmission=1)).location = (
        0.2,
        0.22,
        0,
    )
    turned("mug", MUG, material("enamel", (0.75, 0.7, 0.6), 0.2)).location = (-0.22, 0.15, 0)
    turned("candle", CANDLE, material("wax", (0.8, 0.72, 0.5), 0.5)).location = (-0.07, 0.26, 0)
    red, green = material("red apple", (0.5, 0.03, 0.02), 0.3), material("green apple", (0.35, 0.5, 0.06), 0.3)
    yellow = material("lemon", (0.85, 0.6, 0.04), 0.45)
    for number, (x, y, look) in enumerate([(0.045, -0.025, red), (-0.045, -0.02, green), (0.0, 0.05, red)]):
        fruit = turned(f"apple in the bowl {number}", APPLE, look)
        fruit.location, fruit.parent = (x, y, 0.024), bowl
        fruit.rotation_euler = (0.3, 0.25 - 0.2 * number, number)
    turned("apple", APPLE, red).location = (0.2, -0.12, 0)
    turned("lemon", LEMON, yellow).location = (-0.15, -0.16, 0.027)
    bpy.data.objects["lemon"].rotation_euler = (math.pi / 2, 0, 0.9)
    lamp("key", (-0.9, -0.5, 1.1), 50, 0.4)
    lamp("fill", (1.3, -0.4, 0.8), 12, 1.0)
    data = bpy.data.cameras.new("camera")
    data.lens = 55
    bpy.context.scene.camera = aimed(bpy.data.objects.new("camera", data), (0.25, -1.15, 0.62))
    world = bpy.context.scene.world = bpy.data.worlds.new("room")
    if bpy.app.version < (5, 0):
        world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value, background.inputs["Strength"].default_value = (0.55, 0.6, 0.65, 1), 0.35
    world.color = (0.19, 0.21, 0.23)
    scene = bpy.context.scene
    scene.view_settings.view_transform = "Standard"
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False


if __name__ == "__main__":
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    build()
    wanted = Path(sys.argv[-1] if sys.argv[-1].endswith(".blend") else Path(__file__).with_name("still_life.blend"))
    bpy.context.preferences.filepaths.save_version = 0  # no backup of the existing file
    bpy.ops.wm.save_as_mainfile(filepath=str(wanted.absolute()), compress=True)
