"""Whether something hides a point from the camera: numpy alone, no Blender.

A surface hides a point if the point's line of sight meets one of its triangles between the near clip plane and the
point. Where it meets is told in homogeneous image points, as in `blender_jobs.vision.silhouette`: by the volumes that
the line spans with the three sides. Only elementwise float64 arithmetic is done, so that all processors agree, and a
scene of millimetres gives the same flags as one of kilometres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from blender_jobs.vision.camera import Camera, FloatArray
from blender_jobs.vision.surfaces import THROUGH, UNSURE, Body, Key

_TOLERANCE = 5e-5
"""Of what the image's longer side spans at a point: a surface this little before it does not hide it."""
_SPACING = 4 * float(np.finfo(np.float32).eps)
"""Of the largest coordinate: Blender keeps places as float32."""
_SLACK = 1e-6
"""Pixels by which a triangle's bounds are widened: the volumes decide, not the bounds."""

_NONE = np.zeros(0)

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


class Occluders:
    """The surfaces of a frame that hide what is behind them, as one camera sees them.

    Args:
        camera: the camera.
        bodies: all surfaces; those that hide nothing are left out.
    """

    def __init__(self, camera: Camera, bodies: Sequence[Body]) -> None:
        self._camera = camera.ideal
        self.bodies = [body for body in bodies if body.hides and len(body.mesh.triangles)]
        self._images: dict[int, FloatArray] = {}

    def hits(self, sights: FloatArray, limits: FloatArray) -> Hits:
        """Return where lines of sight meet triangles nearer than a limit.

        Args:
            sights: (K, 2), x and y in the undistorted image.
            limits: (K,), depths.
        """
        low, high, near = self._bounds
        met: list[tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.bool_]]] = []
        for number, (left_top, right_bottom, nearest) in enumerate(zip(low, high, near.tolist(), strict=True)):
            x, y = sights.T
            inside = (x >= left_top[0]) & (x <= right_bottom[0]) & (y >= left_top[1]) & (y <= right_bottom[1])
            chosen = np.flatnonzero(inside & (limits > nearest))
            if len(chosen):
                point, depth, unsure = self._met(number, sights[chosen], limits[chosen])
                met.append((chosen[point], np.full(len(point), number), depth, unsure))
        points, bodies, depths, unsures = zip(*met, strict=True) if met else ([_NONE], [_NONE], [_NONE], [_NONE > 0])
        return Hits(
            np.concatenate(points).astype(np.int64),
            np.concatenate(bodies).astype(np.int64),
            np.concatenate(depths).astype(np.float64),
            np.concatenate(unsures),
        )

    @cached_property
    def _bounds(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return image_bounds(self._camera, self.bodies)

    def _met(
        self, number: int, sights: FloatArray, limits: FloatArray
    ) -> tuple[IntArray, FloatArray, npt.NDArray[np.bool_]]:
        """Which points' lines meet a body's triangles, at which depth, and whether those are unsure: (M,) each."""
        body, image = self.bodies[number], self._image(number)
        triangles = body.mesh.triangles
        triangle, point = self._candidates(image, triangles, sights)
        cover = body.cover if len(body.cover) == 1 else body.cover[triangle]
        solid = np.broadcast_to(cover > THROUGH, triangle.shape)
        triangle, point = triangle[solid], point[solid]
        corners = image[triangles[triangle]]
        inside, depth = _crossed(corners, sights[point])
        met = inside & (depth >= self._camera.clip_start) & (depth < limits[point])
        unsure = np.broadcast_to(cover == UNSURE, solid.shape)[solid]
        return point[met], depth[met], unsure[met]

    def _image(self, number: int) -> FloatArray:
        """A body's vertices in the undistorted image, homogeneous (V, 4)."""
        if number not in self._images:
            self._images[number] = self._camera.homogeneous(self.bodies[number].vertices)
        return self._images[number]

    def _candidates(
        self, image: FloatArray, triangles: npt.NDArray[np.int32], sights: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """Pairs (M,) of triangles and points in whose bounds these lie; all points for what the near plane cuts."""
        beyond = image[:, 3] >= self._camera.clip_start
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = (image[:, axis] / image[:, 2] for axis in (0, 1))
        before = ~beyond[triangles]
        cut, gone = before.any(axis=1), before.all(axis=1)
        order = np.argsort(sights[:, 0], kind="stable")
        columns = sights[order, 0]
        low, high = _ends(x, triangles)
        first = np.where(cut, 0, np.searchsorted(columns, low - _SLACK))
        past = np.where(cut, len(columns), np.searchsorted(columns, high + _SLACK, side="right"))
        counts = np.where(gone, 0, np.maximum(past - first, 0))
        present = np.flatnonzero(counts)
        counts = counts[present]
        triangle = present.repeat(counts)
        within = np.arange(len(triangle)) - (counts.cumsum() - counts).repeat(counts)
        point = order[first[triangle] + within]
        top, bottom = _ends(y, triangles[present])
        row = sights[point, 1]
        near = (row >= (top - _SLACK).repeat(counts)) & (row <= (bottom + _SLACK).repeat(counts)) | cut[triangle]
        return triangle[near], point[near]


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
    before = image[..., 3] < camera.clip_start
    with np.errstate(divide="ignore", invalid="ignore"):
        places = image[..., :2] / image[..., 2:3]
    low, high = places.min(axis=1) - _SLACK, places.max(axis=1) + _SLACK
    low[before.any(axis=1)], high[before.any(axis=1)] = -np.inf, np.inf
    low[before.all(axis=1)] = np.inf
    return low, high, image[..., 3].min(axis=1)


def tolerances(camera: Camera, world: FloatArray, depth: FloatArray) -> FloatArray:
    """How far before points a surface may lie and not hide them, metres: (N, 3) and (N,) to (N,).

    A ten-thousandth of half of what the image's longer side spans at the point, so that it follows the scene's scale;
    and never below the spacing of float32 numbers of the size of the coordinates.
    """
    span = max(camera.width / camera.K[0, 0], camera.height / camera.K[1, 1])
    reach = depth * span if camera.type == "PERSP" else np.full(len(depth), span)
    largest = max(np.abs(camera.cam_to_world[:3, 3]).max(), 0.0)
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
    flags[inside] += np.logical_not(hidden)
    return flags


def _ends(values: FloatArray, triangles: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
    """The least and the greatest of values (V,) at the corners of triangles (T, 3): (T,) each."""
    a, b, c = (values[corner] for corner in triangles.T)
    with np.errstate(invalid="ignore"):
        return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


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
