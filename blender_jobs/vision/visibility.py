"""Whether something hides a point from the camera: rays through Blender's scene."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs.vision.camera import Camera, FloatArray

TOLERANCE_M = 1e-3
"""A surface this little before a point does not hide it: the point may be on that surface."""

_STEP_M = TOLERANCE_M / 10
"""How far behind a tolerated surface the ray goes on."""


def visibility(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    camera: Camera,
    world: FloatArray,
    pixels: FloatArray,
    tolerance_m: float = TOLERANCE_M,
    own: Collection[bpy.types.Object] = (),
    self_tolerance_m: float = 0.0,
) -> npt.NDArray[np.uint8]:
    """World points (N, 3), metres, to uint8 (N,) as COCO has it: 0 outside, 1 occluded, 2 visible.

    Args:
        scene: the scene.
        depsgraph: the scene's, evaluated.
        camera: the scene's.
        world: the points.
        pixels: (N, 3), their projections, as `Camera.project` has them.
        tolerance_m: surfaces that lie less than this before a point do not hide it.
        own: original objects whose surfaces do not hide a point either if they lie less than `self_tolerance_m`
            before it.
        self_tolerance_m: metres along the ray.
    """
    flags = camera.contains(pixels).astype(np.uint8)
    inside = np.flatnonzero(flags)
    starts = pixels[inside]
    starts[:, 2] = camera.clip_start  # renderers leave out what is nearer, so it hides nothing
    starts = camera.unproject(starts)
    rays = world[inside] - starts
    distances = np.linalg.norm(rays, axis=1)
    look = _Look(scene, depsgraph, tolerance_m, frozenset(own), self_tolerance_m)
    hidden = [look.is_hidden(*ray) for ray in zip(starts.tolist(), rays.tolist(), distances.tolist(), strict=True)]
    flags[inside] += np.logical_not(hidden)
    return flags


@dataclass(frozen=True)
class _Look:
    scene: bpy.types.Scene
    depsgraph: bpy.types.Depsgraph
    tolerance_m: float
    own: Collection[bpy.types.Object]
    self_tolerance_m: float

    def is_hidden(self, start: list[float], ray: list[float], distance: float) -> bool:
        """Whether a surface that is not tolerated lies between `start` and the point `start + ray`."""
        reach, passed, place = distance - self.tolerance_m, 0.0, start
        while passed < reach:
            hit, at, _, _, obj, _ = self.scene.ray_cast(self.depsgraph, place, ray, distance=reach - passed)
            if not hit:
                return False
            passed = max(passed, math.dist(start, at))
            tolerated = distance - passed <= self.self_tolerance_m and obj.original in self.own
            if not (tolerated or obj.hide_render):  # rays also meet what renders leave out
                return True
            passed += _STEP_M
            place = [origin + passed / distance * along for origin, along in zip(start, ray, strict=True)]
        return False
