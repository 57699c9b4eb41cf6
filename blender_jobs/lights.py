"""Lamps and image-based light: point, spot, area, an HDRI all around, a random rig. Sun and sky are in `stage`.

World axes as Blender: z up, metres, angles in degrees, power in watts as Blender counts it. Colours are linear RGB.
"""

from __future__ import annotations

import math
from typing import Any

import bpy
import numpy as np

from blender_jobs import assets
from blender_jobs.materials import load_image, random_color
from blender_jobs.scatter import in_shell
from blender_jobs.stage import Range, Triple, fresh_world, link, point_at

__all__ = ["area", "hdri", "point", "random_rig", "spot"]

WHITE = (1.0, 1.0, 1.0)

_IMPORTANCE_MAP = 1024
"""Pixels across the map by which Cycles finds an HDRI's bright spots. By default it takes 4096 for any image, which
costs most of a CPU second for each frame; this costs a twentieth."""


def point(at: Triple, power_w: float = 500.0, rgb: Triple = WHITE, radius_m: float = 0.1) -> Any:
    """Return a new lamp that shines to all sides; a larger radius gives softer shadows."""
    made = _lamp("POINT", at, power_w, rgb)
    made.data.shadow_soft_size = radius_m
    return made


def spot(
    at: Triple,
    look_at: Triple = (0, 0, 0),
    power_w: float = 1000.0,
    rgb: Triple = WHITE,
    angle: float = 45.0,
    blend: float = 0.15,
    radius_m: float = 0.1,
) -> Any:
    """Return a new lamp that shines towards `look_at` in a cone of `angle`, whose edge `blend` (0 to 1) softens."""
    made = _lamp("SPOT", at, power_w, rgb)
    made.data.spot_size, made.data.spot_blend = math.radians(angle), blend
    made.data.shadow_soft_size = radius_m
    point_at(made, look_at)
    return made


def area(
    at: Triple,
    look_at: Triple = (0, 0, 0),
    power_w: float = 500.0,
    rgb: Triple = WHITE,
    size_m: float = 1.0,
    size_y_m: float | None = None,
) -> Any:
    """Return a new square lamp, or a rectangle `size_m` wide and `size_y_m` high, that shines towards `look_at`."""
    made = _lamp("AREA", at, power_w, rgb)
    made.data.shape = "SQUARE" if size_y_m is None else "RECTANGLE"
    made.data.size, made.data.size_y = size_m, size_m if size_y_m is None else size_y_m
    point_at(made, look_at)
    return made


def hdri(path: assets.AnyPath, rotation: float = 0.0, strength: float = 1.0, background: Triple | None = None) -> None:
    """Light the scene with an equirectangular image all around, in the place of a sky.

    Args:
        path: the image file, .hdr or .exr for a real range of light.
        rotation: turns it about the z axis, in degrees, counter-clockwise as seen from above.
        strength: a factor.
        background: the colour that the camera sees in its place. By default it sees the image; Workbench, which has
            no image, shows the world's own colour.

    Raises:
        JobError: the file is missing, unknown to the plan or no image.
    """
    tree = fresh_world()  # before the image is loaded, as this removes the one shown until now
    new, connect = tree.nodes.new, tree.links.new
    lit, environment = tree.nodes["Background"], new("ShaderNodeTexEnvironment")
    coordinates, mapping = new("ShaderNodeTexCoord"), new("ShaderNodeMapping")
    environment.image = load_image(path)
    # The mapping turns the direction that is looked up, which turns the image the other way.
    mapping.inputs["Rotation"].default_value = (0.0, 0.0, -math.radians(rotation))
    connect(coordinates.outputs["Generated"], mapping.inputs["Vector"])
    connect(mapping.outputs["Vector"], environment.inputs["Vector"])
    connect(environment.outputs["Color"], lit.inputs["Color"])
    lit.inputs["Strength"].default_value = strength
    world = bpy.context.scene.world
    if hasattr(world, "cycles"):  # not every build has Cycles
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", _IMPORTANCE_MAP
    if background is not None:
        _hide_from_camera(tree, lit, background)


def random_rig(
    rng: np.random.Generator,
    target: Triple = (0, 0, 0),
    count: tuple[int, int] = (1, 3),
    radius: Range = (3.0, 6.0),
    elevation: Range = (15.0, 80.0),
    azimuth: Range = (0.0, 360.0),
    power_w: Range = (50.0, 300.0),
    size_m: Range = (0.3, 2.0),
    saturation: Range = (0.0, 0.2),
) -> list[Any]:
    """Return new area lamps on a shell around `target` (see `scatter.in_shell`), which they shine at.

    Args:
        rng: the source of all draws.
        target: (3,) metres.
        count: fewest and most lamps, both included.
        radius: distance from the target, metres.
        elevation: degrees above the horizon.
        azimuth: degrees from the x axis towards y.
        power_w: of each lamp.
        size_m: side of each square lamp.
        saturation: how coloured the light is, from 0 to 1.
    """
    return [
        area(
            in_shell(rng, target, radius, elevation, azimuth),
            target,
            power_w=rng.uniform(*power_w),
            rgb=random_color(rng, saturation=saturation, value=(1.0, 1.0)),
            size_m=rng.uniform(*size_m),
        )
        for _ in range(int(rng.integers(count[0], count[1] + 1)))
    ]


def _lamp(kind: str, at: Triple, power_w: float, rgb: Triple) -> Any:
    data = bpy.data.lights.new(kind.lower(), kind)
    data.energy, data.color = power_w, rgb
    made = link(bpy.data.objects.new(kind.lower(), data))
    made.location = at
    return made


def _hide_from_camera(tree: Any, lit: Any, rgb: Triple) -> None:
    """Nodes, not the world's ray visibility, which EEVEE does not heed."""
    new, connect = tree.nodes.new, tree.links.new
    seen, mix, rays = new("ShaderNodeBackground"), new("ShaderNodeMixShader"), new("ShaderNodeLightPath")
    seen.inputs["Color"].default_value = (*rgb, 1.0)
    connect(rays.outputs["Is Camera Ray"], mix.inputs[0])
    connect(lit.outputs["Background"], mix.inputs[1])
    connect(seen.outputs["Background"], mix.inputs[2])
    output = next(node for node in tree.nodes if node.type == "OUTPUT_WORLD")
    connect(mix.outputs["Shader"], output.inputs["Surface"])
    bpy.context.scene.world.color = tuple(rgb)
