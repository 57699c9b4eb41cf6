"""Whether something hides a point from the camera: numpy alone, no Blender.

A surface hides a point if the point's line of sight meets one of its triangles between the near clip plane and the
point. Where it meets is decided in homogeneous image points, as in `blender_jobs._vision.silhouette`: by the volumes
that the line spans with the three sides. Only elementwise float64 arithmetic is done, so that all processors agree, and
a scene of millimetres gives the same flags as one of kilometres.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray
from blender_jobs._vision.surfaces import THROUGH, UNSURE, Body, Key, Surface

_TOLERANCE = 5e-5
"""Of what the image's longer side spans at a point: a surface this little before it does not hide it."""
_SPACING = 4 * float(np.finfo(np.float32).eps)
"""Of the largest coordinate: Blender keeps places as float32."""
_SLACK = 1e-6
"""Pixels by which a triangle's bounds are widened: the volumes decide, not the bounds."""

_SLOPE = 100
"""Tolerances by which a pixel's centre may be nearer than a point in the pixel, on a surface that is seen aslant."""
_GROUP = 128
"""Triangles."""
_TILE = 8
"""Pixels."""
_MOST_PAIRS = 1 << 20
"""Of points and triangles that are looked at together."""

IntArray = npt.NDArray[np.int64]
PixelTest = Callable[[FloatArray, FloatArray], npt.NDArray[np.bool_]]
"""Pixels (N, 2) and depths (N,) to (N,): whether the rendered frame shows something nearer than the depth there."""


@dataclass(frozen=True, eq=False)
class Hits:
    """Where lines of sight meet triangles."""

    point: IntArray
    """(M,) which point's line."""
    body: IntArray
    """(M,) which body's triangle."""
    depth: FloatArray
    """(M,)"""
    unsure: npt.NDArray[np.bool_]
    """(M,) whether only the rendered pixels tell if the surface covers what is behind it."""


_NO_HITS = Hits(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64), np.zeros(0, dtype=bool)
)


class Occluders:
    """The surfaces of a frame that hide what is behind them, as one camera sees them.

    All their triangles lie one after another, neighbours in the image close together, in groups whose bounds are known:
    a line of sight is held against the groups first, then against the triangles of a few.

    Args:
        camera: the camera.
        bodies: all surfaces; those that hide nothing are left out.
    """

    def __init__(self, camera: Camera, bodies: Sequence[Body]) -> None:
        self._camera = camera.ideal
        self.bodies = [body for body in bodies if body.hides and body.cover.any() and len(body.mesh.triangles)]

    def hits(self, sights: FloatArray, limits: FloatArray) -> Hits:
        """Return where lines of sight meet triangles nearer than a limit.

        Args:
            sights: (K, 2), x and y in the undistorted image.
            limits: (K,), depths.
        """
        found = [_NO_HITS]
        if self.bodies and len(sights):
            groups = self._groups
            point, group = np.nonzero(groups.bounds.hold(sights, limits))
            pairs = groups.sizes[group].cumsum()
            for part in np.split(np.arange(len(group)), np.flatnonzero(np.diff(pairs // _MOST_PAIRS)) + 1):
                found.append(self._met(point[part], group[part], sights, limits))
        return Hits(
            np.concatenate([hits.point for hits in found]),
            np.concatenate([hits.body for hits in found]),
            np.concatenate([hits.depth for hits in found]),
            np.concatenate([hits.unsure for hits in found]),
        )

    def _met(self, point: IntArray, group: IntArray, sights: FloatArray, limits: FloatArray) -> Hits:
        """Hold lines of sight against the triangles of groups, in pairs (P,) of point and group."""
        triangles, groups = self._triangles, self._groups
        sizes = groups.sizes[group]
        triangle = (groups.starts[group] - (sizes.cumsum() - sizes)).repeat(sizes) + np.arange(sizes.sum())
        point = point.repeat(sizes)
        near = triangles.bounds.at(triangle).hold_each(sights[point], limits[point])
        triangle, point = triangle[near], point[near]
        inside, depth = _crossed(triangles.image[triangles.corners[triangle]], sights[point])
        met = inside & (depth >= self._camera.clip_start) & (depth < limits[point])
        triangle = triangle[met]
        return Hits(point[met], triangles.body[triangle], depth[met], triangles.cover[triangle] == UNSURE)

    @cached_property
    def _triangles(self) -> _Triangles:
        """All triangles that are not looked through; those of one body and one part of the image together."""
        bodies = self.bodies
        vertices = [body.mesh.vertices for body in bodies]
        counts = np.array([len(entry) for entry in vertices])
        owner = np.arange(len(bodies)).repeat(counts)
        x, y, z = np.concatenate(vertices).T.astype(np.float64)
        rows = np.array([body.matrix for body in bodies])[owner].transpose(1, 2, 0)  # (4, 4, V)
        world = np.stack([a * x + b * y + c * z + d for a, b, c, d in rows[:3]], axis=1)
        image = self._camera.homogeneous(world)
        starts = (counts.cumsum() - counts).tolist()
        corners = np.concatenate([body.mesh.triangles + start for body, start in zip(bodies, starts, strict=True)])
        sizes = [len(body.mesh.triangles) for body in bodies]
        cover = np.concatenate([np.broadcast_to(b.cover, size) for b, size in zip(bodies, sizes, strict=True)])
        body = np.arange(len(bodies)).repeat(sizes)
        bounds = _bounds_of(image, corners, self._camera.clip_start)
        order = np.lexsort((bounds.tiles(), body)) if len(body) > _GROUP else np.arange(len(body))
        order = order[(cover[order] > THROUGH) & (bounds.low[0, order] <= bounds.high[0, order])]
        return _Triangles(image, corners[order], body[order], cover[order], bounds.at(order))

    @cached_property
    def _groups(self) -> _Groups:
        triangles = self._triangles
        count = len(triangles.body)
        within = np.arange(count) - np.searchsorted(triangles.body, triangles.body)
        starts = np.flatnonzero(within % _GROUP == 0)
        if not count:
            return _Groups(starts, starts, triangles.bounds)
        low, high = (
            fold.reduceat(ends, starts, axis=1)
            for fold, ends in ((np.minimum, triangles.bounds.low), (np.maximum, triangles.bounds.high))
        )
        near = np.minimum.reduceat(triangles.bounds.near, starts)
        return _Groups(starts, np.diff(starts, append=count), _Bounds(low, high, near))


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Where in the image things are."""

    low: FloatArray
    """(2, N), x and y."""
    high: FloatArray
    """(2, N)"""
    near: FloatArray
    """(N,), the least depth."""

    def at(self, chosen: IntArray) -> _Bounds:
        return _Bounds(self.low[:, chosen], self.high[:, chosen], self.near[chosen])

    def hold(self, sights: FloatArray, limits: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether points (K, 2) lie within them, and their limits (K,) beyond their nearest: (K, N)."""
        x, y = sights.T[:, :, None]
        columns = (x >= self.low[0]) & (x <= self.high[0])
        held: npt.NDArray[np.bool_] = columns & (y >= self.low[1]) & (y <= self.high[1])
        return held & (limits[:, None] > self.near)

    def hold_each(self, sights: FloatArray, limits: FloatArray) -> npt.NDArray[np.bool_]:
        """As `hold`, each point against the bounds of its own number: (N, 2) and (N,) to (N,)."""
        held: npt.NDArray[np.bool_] = ((sights >= self.low.T) & (sights <= self.high.T)).all(axis=1)
        return held & (limits > self.near)

    def tiles(self) -> IntArray:
        """(N,): numbers that are alike for what lies close together in the image."""
        column, row = (self.low.clip(-_TILE, 2**15) // _TILE).astype(np.int64)
        numbers: IntArray = row * 2**15 + column
        return numbers


@dataclass(frozen=True, eq=False)
class _Triangles:
    image: FloatArray
    """(V, 4), homogeneous."""
    corners: npt.NDArray[np.int32]
    """(T, 3) numbers of vertices."""
    body: IntArray
    """(T,), ascending."""
    cover: npt.NDArray[np.uint8]
    """(T,)"""
    bounds: _Bounds


@dataclass(frozen=True, eq=False)
class _Groups:
    """Triangles that follow one another."""

    starts: IntArray
    sizes: IntArray
    bounds: _Bounds


def _bounds_of(image: FloatArray, corners: npt.NDArray[np.integer[Any]], clip_start: float) -> _Bounds:
    """The bounds of triangles, or other bodies of K corners: (N, K) numbers of homogeneous points (V, 4).

    Infinite where the near plane cuts one; the lowest above the highest where all of it is before that plane.
    """
    depth = image[:, 3]
    before = depth < clip_start
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [image[:, axis] / image[:, 2] for axis in (0, 1)]
    ends = [np.ascontiguousarray(column) for column in corners.T]
    low = np.stack([functools.reduce(np.minimum, [x[end] for end in ends]) - _SLACK for x in columns])
    high = np.stack([functools.reduce(np.maximum, [x[end] for end in ends]) + _SLACK for x in columns])
    if before.any():
        some = functools.reduce(np.logical_or, [before[end] for end in ends])
        every = functools.reduce(np.logical_and, [before[end] for end in ends])
        low[:, some], high[:, some] = -np.inf, np.inf
        low[:, every], high[:, every] = np.inf, -np.inf
    return _Bounds(low, high, functools.reduce(np.minimum, [depth[end] for end in ends]))


def image_bounds(camera: Camera, bodies: Sequence[Body]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Each body's bounds in an undistorted image: lowest and highest x, y, (B, 2) each, and the least depth, (B,).

    Infinite where the near plane cuts the body's box; nothing, the lowest above the highest, where all is before it.
    """
    if not bodies:
        return np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)
    ends = np.array([body.mesh.extent for body in bodies])  # (B, 2, 3)
    x, y, z = (ends[:, which, axis] for axis, which in enumerate(np.indices((2, 2, 2)).reshape(3, 8)))  # (B, 8)
    matrices = np.array([body.matrix for body in bodies])[..., None]  # (B, 4, 4, 1)
    world = [m[:, 0] * x + m[:, 1] * y + m[:, 2] * z + m[:, 3] for m in (matrices[:, row] for row in range(3))]
    image = camera.homogeneous(np.stack(world, axis=-1).reshape(-1, 3)).reshape(len(bodies), 8, 4)
    corners = np.arange(image.shape[0] * 8).reshape(-1, 8)
    bounds = _bounds_of(image.reshape(-1, 4), corners, camera.clip_start)
    return bounds.low.T, bounds.high.T, bounds.near


def tolerances(camera: Camera, world: FloatArray, depth: FloatArray) -> FloatArray:
    """How far before points a surface may lie and not hide them, metres: (N, 3) and (N,) to (N,).

    A ten-thousandth of half of what the image's longer side spans at the point, so that it follows the scene's scale;
    and never below the spacing of float32 numbers of the size of the coordinates.
    """
    span = max(camera.width / camera.K[0, 0], camera.height / camera.K[1, 1])
    reach = depth * span if camera.type == "PERSP" else np.full(len(depth), span)
    largest = np.abs(camera.cam_to_world[:3, 3]).max()
    sizes = np.maximum(np.abs(world).max(axis=1, initial=0.0), largest)
    result: FloatArray = _TOLERANCE * reach + _SPACING * np.maximum(sizes, depth)
    return result


def visibility(
    camera: Camera,
    occluders: Occluders,
    world: FloatArray,
    pixels: FloatArray,
    tolerance_m: FloatArray | float,
    own: frozenset[tuple[str, Key]] = frozenset(),
    self_tolerance_m: float = 0.0,
    nearer: PixelTest | None = None,
) -> npt.NDArray[np.uint8]:
    """World points (N, 3), metres, to uint8 (N,) as COCO has it: 0 outside, 1 occluded, 2 visible.

    Args:
        camera: the camera.
        occluders: what it sees.
        world: the points.
        pixels: (N, 3), their projections, as `Camera.project` has them.
        tolerance_m: surfaces that lie less than this before a point, along the line of sight, do not hide it.
        own: `owner` and `key` of bodies that do not hide a point either if they lie less than `self_tolerance_m`
            before it.
        self_tolerance_m: metres along the line of sight.
        nearer: what the rendered pixels tell; asked about surfaces of which nothing else does. None: those hide.
    """
    flags = camera.contains(pixels).astype(np.uint8)
    inside = np.flatnonzero(flags)
    image = camera.ideal.homogeneous(world[inside])
    depth = image[:, 3]
    reach = np.broadcast_to(tolerance_m, len(world))[inside]
    stretch = np.ones(len(inside))  # metres along the line of sight to one of depth
    if camera.type == "PERSP":
        stretch = np.linalg.norm(world[inside] - camera.cam_to_world[:3, 3], axis=1) / np.maximum(depth, 1e-300)
    hits = occluders.hits(image[:, :2] / image[:, 2:3], depth - reach / stretch)
    mine = np.array([(body.owner, body.key) in own for body in occluders.bodies], dtype=bool)
    tolerated = (depth[hits.point] - hits.depth) * stretch[hits.point] <= self_tolerance_m
    counts = ~(tolerated & mine[hits.body]) if len(hits.body) else np.zeros(0, dtype=bool)
    hidden = np.zeros(len(inside), dtype=bool)
    hidden[hits.point[counts & ~hits.unsure]] = True
    asked = np.flatnonzero(counts & hits.unsure & ~hidden[hits.point])
    if len(asked):
        point = hits.point[asked]
        halfway = (hits.depth[asked] + depth[point]) / 2
        hidden[point[nearer(pixels[inside[point], :2], halfway)] if nearer else point] = True
    if nearer and any(body.displaced for body in occluders.bodies):
        hidden |= nearer(pixels[inside, :2], depth - _SLOPE * tolerances(camera, world[inside], depth))
    flags[inside] += np.logical_not(hidden)
    return flags


def _crossed(corners: FloatArray, sights: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Whether lines of sight (M, 2) meet triangles (M, 3, 4), and at which depth: (M,) each."""
    x, y = sights.T
    volumes = []
    for corner in range(3):
        a, b = corners[:, (corner + 1) % 3], corners[:, (corner + 2) % 3]
        volumes.append(
            (a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]) * x
            + (a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]) * y
            + (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        )
    total = volumes[0] + volumes[1] + volumes[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = [volume / total for volume in volumes]
        depth = weights[0] * corners[:, 0, 3] + weights[1] * corners[:, 1, 3] + weights[2] * corners[:, 2, 3]
        inside = (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0) & (total != 0)
    return inside, depth


_EDGE = 0.01
"""Pixels: an edge so near to a pixel's centre may be on either side of the rendered ray, which strays by half of it."""
_AROUND = np.array([[0, 0], [-_EDGE, -_EDGE], [-_EDGE, _EDGE], [_EDGE, -_EDGE], [_EDGE, _EDGE]])
_SLOPE_OF_ONE = 10
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
        reach = _SLOPE_OF_ONE * _tolerance(camera, pixels[asked], own)
        # Well within the surface, what it touches hides it, too; farther away is only what is seen through a hole.
        limit = np.where(inner, own + reach, own - reach)
        hidden[asked] = (depth[asked] < limit) & np.isfinite(own)
        unclear = np.flatnonzero(np.isinf(depth[asked]) & np.isfinite(own))
        if len(unclear):
            there, all_around = _met(occluders(), pixels[asked[unclear]], surface)
            hidden[asked[unclear]] = (all_around | inner[unclear]) & (there < limit[unclear])
    return hidden


def _met(surfaces: Occluders, pixels: FloatArray, but: Surface | None = None) -> tuple[FloatArray, BoolArray]:
    """The least depth at which surfaces are met at or next to pixels (N, 2), and whether all around: (N,) each.

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
