"""Whether something nearer hides a surface at a pixel, where arithmetic and picture differ: numpy alone, no Blender.

A renderer's rays are float32 and pass a pixel's centre by a few thousandths of a pixel, so that at an edge through the
centre arithmetic and picture may say otherwise, either way. There the picture decides: a pixel that shows something
else is the surface's only if what it shows is nearer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray
from blender_jobs._vision.surfaces import Surface
from blender_jobs._vision.visibility import Occluders, image_bounds, tolerances

_EDGE = 0.01
"""Pixels: an edge so near to a pixel's centre may be on either side of the rendered ray, which strays by half of it."""
_AROUND = np.array([[0, 0], [-_EDGE, -_EDGE], [-_EDGE, _EDGE], [_EDGE, -_EDGE], [_EDGE, _EDGE]])
_SLOPE = 10
"""Tolerances by which depths of one surface may differ within that."""

BoolArray = npt.NDArray[np.bool_]


def hides(
    camera: Camera, surface: Surface, pixels: FloatArray, depth: FloatArray, occluders: Callable[[], Occluders]
) -> BoolArray:
    """Whether something nearer hides a surface at pixels that it covers and that show something else, (N,).

    Args:
        camera: one that does not distort.
        surface: the surface.
        pixels: (N, 2), the pixels' centres.
        depth: (N,), of what they show; infinite for nothing.
        occluders: gives all of the frame; asked where a pixel shows nothing: a holdout may be there, a shadow catcher.
    """
    near = image_bounds(camera, surface.bodies)[2].min()
    hidden: BoolArray = depth < near  # of most of what others hide, no more need be asked
    asked = np.flatnonzero(~hidden)
    if len(asked):
        own, inner = _met(Occluders(camera, surface.bodies), pixels[asked])
        reach = _SLOPE * _tolerance(camera, pixels[asked], own)
        # Well within the surface, what it touches hides it, too; farther away is only what is seen through a hole.
        limit = np.where(inner, own + reach, own - reach)
        hidden[asked] = (depth[asked] < limit) & np.isfinite(own)
        unclear = np.flatnonzero(np.isinf(depth[asked]) & np.isfinite(own))
        if len(unclear):
            there, all_around = _met(occluders(), pixels[asked[unclear]], surface)
            hidden[asked[unclear]] = (all_around | inner[unclear]) & (there < limit[unclear])
    return hidden


def _met(surfaces: Occluders, pixels: FloatArray, but: Surface | None = None) -> tuple[FloatArray, BoolArray]:
    """The least depth at which surfaces are met at, or beside, pixels (N, 2), and whether all around: (N,) each.

    Where only pixels tell whether a surface is looked through, it counts for itself and not among others.
    """
    sights = (pixels[:, None] + _AROUND).reshape(-1, 2)
    hits = surfaces.hits(sights, np.full(len(sights), np.inf))
    kept = np.ones(len(hits.point), dtype=bool)
    if but is not None:
        mine = np.array([body.ids <= but.ids for body in surfaces.bodies], dtype=bool)
        kept = ~(mine[hits.body] | hits.unsure) if len(mine) else kept
    least: FloatArray = np.full(len(sights), np.inf)
    np.minimum.at(least, hits.point[kept], hits.depth[kept])
    around = least.reshape(-1, len(_AROUND))
    return around.min(axis=1), np.isfinite(around).all(axis=1)


def _tolerance(camera: Camera, pixels: FloatArray, depth: FloatArray) -> FloatArray:
    known = np.where(np.isfinite(depth), depth, 1.0)
    world = camera.unproject(np.column_stack([pixels, known]))
    return tolerances(camera, world, known)
