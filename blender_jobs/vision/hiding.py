"""Whether something nearer hides a surface at a pixel, where arithmetic and picture differ: numpy alone, no Blender.

A renderer's rays are float32 and pass a pixel's centre by a few thousandths of a pixel, so that at an edge through the
centre arithmetic and picture may say otherwise, either way. There the picture decides: a pixel that shows something
else is the surface's only if what it shows is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blender_jobs.vision.camera import Camera, FloatArray
from blender_jobs.vision.surfaces import Body, Surface
from blender_jobs.vision.visibility import Occluders, image_bounds, tolerances

_EDGE = 0.01
"""Pixels: an edge so near to a pixel's centre may be on either side of the rendered ray, which strays by half of it."""
_AROUND = np.array([[0, 0], [-_EDGE, -_EDGE], [-_EDGE, _EDGE], [_EDGE, -_EDGE], [_EDGE, _EDGE]])
_SLOPE = 10
"""Tolerances by which depths of one surface may differ within that."""

BoolArray = npt.NDArray[np.bool_]


class Hiding:
    """The surfaces of a frame, and what its rendered depth says of them.

    Args:
        camera: one that does not distort.
        bodies: all surfaces.
    """

    def __init__(self, camera: Camera, bodies: Sequence[Body]) -> None:
        self._camera = camera
        hides = [body for body in bodies if body.unseen and body.hides]  # holdouts, shadow catchers
        self._holes = Occluders(camera, hides) if hides else None

    def hides(self, surface: Surface, pixels: FloatArray, depth: FloatArray) -> BoolArray:
        """Whether something nearer hides a surface at pixels that it covers and that show something else, (N,).

        Args:
            surface: the surface.
            pixels: (N, 2), the pixels' centres.
            depth: (N,), of what they show; infinite for nothing.
        """
        near = image_bounds(self._camera, surface.bodies)[2].min()
        hidden: BoolArray = depth < near  # of most of what others hide, no more need be asked
        asked = np.flatnonzero(~hidden)
        if len(asked):
            hidden[asked] = self._nearer(surface, pixels[asked], depth[asked])
        return hidden

    def _nearer(self, surface: Surface, pixels: FloatArray, depth: FloatArray) -> BoolArray:
        own, inner = self._met(Occluders(self._camera, surface.bodies), pixels)
        reach = _SLOPE * self._tolerance(pixels, own)
        if self._holes:
            depth = np.minimum(depth, self._met(self._holes, pixels)[0])
        # Well within the surface, what it touches hides it, too; farther away is only what is seen through a hole.
        nearer: BoolArray = depth < np.where(inner, own + reach, own - reach)
        nearer &= np.isfinite(own)
        return nearer

    def _met(self, surfaces: Occluders, pixels: FloatArray) -> tuple[FloatArray, BoolArray]:
        """The least depth at which surfaces are met at, or beside, pixels (N, 2), and whether all around: (N,) each."""
        sights = (pixels[:, None] + _AROUND).reshape(-1, 2)
        hits = surfaces.hits(sights, np.full(len(sights), np.inf))
        least: FloatArray = np.full(len(sights), np.inf)
        np.minimum.at(least, hits.point, hits.depth)
        around = least.reshape(-1, len(_AROUND))
        return around.min(axis=1), np.isfinite(around).all(axis=1)

    def _tolerance(self, pixels: FloatArray, depth: FloatArray) -> FloatArray:
        known = np.where(np.isfinite(depth), depth, 1.0)
        world = self._camera.unproject(np.column_stack([pixels, known]))
        return tolerances(self._camera, world, known)
