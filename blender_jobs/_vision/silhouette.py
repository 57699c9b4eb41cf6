"""Which pixels a mesh covers, hidden by others or not: numpy alone, no Blender.

A pixel is covered if its centre's line of sight meets a triangle, from either side, within the clip range. This is
decided in homogeneous image points (x * w, y * w, w, depth), see `Camera.homogeneous`, so that triangles that reach
behind the camera need no cutting: a pixel lies in a triangle where the volumes that its line of sight spans with
the three sides have the triangle's sign (Olano and Greer, "Triangle scan conversion using 2D homogeneous
coordinates", 1997). Those are linear along a row of pixels, which gives the row's covered span at once.

Only elementwise float64 arithmetic is done, so that all processors give the same pixels; two triangles with a common
side compute the same volume for it, so that no pixel falls between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray
from blender_jobs._vision.warp import warp_of

_SLACK = 1e-6  # pixels by which the range of a triangle's rows is widened: the volumes decide, not the range
_CHUNK = 1 << 17  # rows of triangles that are looked at together

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of an image: the pixels that something covers, and no larger than that asks for."""

    top: int
    left: int
    covered: BoolArray
    """(h, w)"""

    def within(self, height: int, width: int) -> BoolArray:
        """Return the whole image, (height, width)."""
        image = np.zeros((height, width), dtype=bool)
        rows, columns = self.covered.shape
        image[self.top : self.top + rows, self.left : self.left + columns] = self.covered
        return image


def silhouette(camera: Camera, vertices: FloatArray, triangles: npt.NDArray[np.int32]) -> Patch:
    """The pixels that triangles cover.

    For a lens that distorts, those that the undistorted image shows covered, looked up as `Warp.nearest` does:
    just as passes that are rendered undistorted.

    Args:
        camera: the camera.
        vertices: (N, 3), world, metres.
        triangles: (T, 3) indices of vertices.
    """
    return through_lens(camera, undistorted(camera, vertices, triangles))


def undistorted(camera: Camera, vertices: FloatArray, triangles: npt.NDArray[np.int32]) -> Patch:
    """As `silhouette`, before the lens distorts: in the image of `Camera.ideal`."""
    ideal = camera.ideal
    return _covered(ideal, ideal.homogeneous(vertices), triangles)


def through_lens(camera: Camera, patch: Patch) -> Patch:
    """A patch of the undistorted image as the camera's lens shows it."""
    ideal, warp = camera.ideal, warp_of(camera)
    return patch if warp is None else Patch(0, 0, warp.nearest(patch.within(ideal.height, ideal.width)))


def _covered(ideal: Camera, image: FloatArray, triangles: npt.NDArray[np.int32]) -> Patch:
    """The pixels that triangles (T, 3), numbers of homogeneous points (V, 4), cover; the camera does not distort."""
    first, past = _rows(ideal, image, triangles)
    present = np.flatnonzero(past > first)
    first, past = first[present], past[present]
    if not len(present):
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    top, bottom = int(first.min()), int(past.max())
    conditions = _conditions(ideal, image[triangles[present]])
    spans = []
    for chosen in _chunks(past - first):
        rows = past[chosen] - first[chosen]
        triangle = chosen.repeat(rows)
        row = first[triangle] + np.arange(len(triangle)) - (rows.cumsum() - rows).repeat(rows)
        left, right = _spans(conditions[triangle], row + 0.5, ideal.width)
        some = right > left
        spans.append((row[some] - top, left[some], right[some]))
    row, left, right = (np.concatenate(column) for column in zip(*spans, strict=True))
    if not len(row):
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    start, width = int(left.min()), int(right.max() - left.min())
    cells = (bottom - top) * (width + 1)
    changes = np.bincount(row * (width + 1) + left - start, minlength=cells)
    changes -= np.bincount(row * (width + 1) + right - start, minlength=cells)
    return Patch(top, start, changes.cumsum().reshape(bottom - top, -1)[:, :-1] > 0)


def _rows(camera: Camera, image: FloatArray, triangles: npt.NDArray[np.int32]) -> tuple[IntArray, IntArray]:
    """The first and the past-the-last row of pixel centres that triangles may cover, (T,) each."""
    before = image[:, 3] < camera.clip_start
    with np.errstate(divide="ignore", invalid="ignore"):
        y = image[:, 1] / image[:, 2]
    a, b, c = triangles.T
    low, high = np.minimum(np.minimum(y[a], y[b]), y[c]), np.maximum(np.maximum(y[a], y[b]), y[c])
    if before.any():
        cut = np.flatnonzero(before[a] | before[b] | before[c])
        low[cut], high[cut] = _beyond(camera, image[triangles[cut]])
    first = np.ceil(low - 0.5 - _SLACK).clip(0, camera.height).astype(np.int64)
    past = (np.floor(high - 0.5 + _SLACK) + 1).clip(0, camera.height).astype(np.int64)
    return first, np.maximum(first, past)


def _beyond(camera: Camera, corners: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lowest and the highest y of what lies of triangles (T, 3, 4) beyond the near plane, (T,) each."""
    following = np.roll(corners, -1, axis=1)
    beyond = corners[..., 3] >= camera.clip_start
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (camera.clip_start - corners[..., 3]) / (following[..., 3] - corners[..., 3])
        cuts = corners + t[..., None] * (following - corners)
        y = np.concatenate([corners[..., 1] / corners[..., 2], cuts[..., 1] / cuts[..., 2]], axis=1)
    known = np.concatenate([beyond, beyond != np.roll(beyond, -1, axis=1)], axis=1)
    return np.where(known, y, np.inf).min(axis=1), np.where(known, y, -np.inf).max(axis=1)


def _conditions(camera: Camera, corners: FloatArray) -> FloatArray:
    """What must not be negative at a pixel that triangles (T, 3, 4) cover: (T, 5, 3), factors of x, y and 1.

    The volumes opposite to the three corners, each the cross product of the two others: a neighbour has exactly its
    opposite. Then, as sums of them, how far behind the near plane and before the far one the triangle is.
    """
    a, b = (np.roll(corners[..., :3], -turns, axis=1) for turns in (1, 2))
    volumes = a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]
    x, y, w = np.moveaxis(corners[:, 0, :3] * volumes[:, 0], 1, 0)
    turn = np.sign(x + y + w)  # which side is seen; 0 of a triangle seen edge-on, which covers nothing
    conditions = np.zeros((len(corners), 5, 3))
    conditions[:, :3] = turn[:, None, None] * volumes
    for at, distances in ((3, corners[..., 3] - camera.clip_start), (4, camera.clip_end - corners[..., 3])):
        cut = (distances < 0).any(axis=1)
        parts = conditions[cut, :3] * distances[cut, :, None]
        conditions[cut, at] = parts[:, 0] + parts[:, 1] + parts[:, 2]
    conditions[turn == 0, 0] = 0, 0, -1
    return conditions


def _chunks(rows: IntArray) -> Iterator[IntArray]:
    """The numbers of the triangles that have rows (T,), as many at a time as have about `_CHUNK` rows together."""
    present = np.flatnonzero(rows)
    chunk = rows[present].cumsum() // _CHUNK
    for number in np.unique(chunk).tolist():
        yield present[chunk == number]


def _spans(conditions: FloatArray, y: FloatArray, width: int) -> tuple[IntArray, IntArray]:
    """First and past-the-last column, (S,) each, where the conditions (S, 5, 3) hold in the rows at y (S,)."""
    slope, level = conditions[..., 0], conditions[..., 1] * y[:, None] + conditions[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -level / slope
    low = np.where(slope > 0, root, -np.inf).max(axis=1)
    high = np.where(slope < 0, root, np.inf).min(axis=1)
    high[((slope == 0) & (level < 0)).any(axis=1)] = -np.inf
    left = np.ceil(low - 0.5).clip(0, width).astype(np.int64)
    right = (np.floor(high - 0.5) + 1).clip(0, width).astype(np.int64)
    return left, np.maximum(left, right)
