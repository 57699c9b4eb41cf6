"""The 2D boxes of what a camera sees of a triangle mesh: numpy alone, no Blender.

A box is COCO's [x, y, width, height] in pixels, (x, y) its top-left corner; coordinates as everywhere, x right,
y down, origin at the outer corner of the top-left pixel. The work is done on homogeneous image points (x * w,
y * w, w, depth), see `Camera.homogeneous`: straight lines stay straight there, even through the camera's plane.
Where the lens bends them, they are cut up first: a box is then right to 0.02 pixels at a focal length of 1000.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray, extent, rounded

Box = list[float]

# The frustum's planes: left, right, top, bottom, near, far.
_NEAR, _FAR = 4, 5
_ALL, _SIDES, _NEAR_AND_FAR = slice(None), slice(4), slice(4, None)

_PIECES = 128
"""How many pieces of a bent edge come to a focal length, near the optical axis; fewer farther out."""


def boxes(camera: Camera, vertices: FloatArray, triangles: Callable[[], npt.NDArray[np.int32]]) -> tuple[Box, Box]:
    """Return (clipped, unclipped): the boxes around the part of a mesh that is in the image, and around all.

    From both is cut off what lies outside the camera's clip range, as in a rendered picture. The clipped box is
    often smaller than the unclipped box's overlap with the image. [0, 0, 0, 0] where there is nothing.

    Args:
        camera: the camera.
        vertices: (N, 3), world, metres.
        triangles: gives (T, 3) indices of vertices; called only if the vertices alone do not tell.
    """
    if camera.distortion:
        return _bent_boxes(camera, vertices, triangles)
    image = camera.homogeneous(vertices)
    lowest, highest = extent(_distances(camera, image))
    in_range = bool((lowest[_NEAR_AND_FAR] >= 0).all())
    if in_range:
        unclipped = _around(image[:, :2] / image[:, 2:3])
        if (lowest >= 0).all():
            return unclipped, list(unclipped)
        if (highest < 0).any():
            return [0.0] * 4, unclipped
    parts = image[triangles()]
    edges = np.stack([parts, np.roll(parts, -1, axis=1)], axis=2).reshape(-1, 2, 4)
    if not in_range:
        edges = np.concatenate([edges, _section(camera, parts, _NEAR), _section(camera, parts, _FAR)])
        unclipped = _around(_clip(camera, edges, _NEAR_AND_FAR))
    corners = _corners(camera)
    covered = corners[_covered(camera, parts, corners)]
    return _around_visible(camera, _clip(camera, edges, _ALL), covered), unclipped


def _bent_boxes(
    camera: Camera, vertices: FloatArray, triangles: Callable[[], npt.NDArray[np.int32]]
) -> tuple[Box, Box]:
    """As `boxes`, for a lens that bends straight lines.

    They are straight before the undistorted image (`Camera.ideal`), which holds all that the distorted one shows.
    Short edges that lie in the image are left out: their ends tell all.
    """
    ideal = camera.ideal
    shift = (ideal.K - camera.K)[:2, 2]  # from the distorted image's pixels to the undistorted one's
    image = ideal.homogeneous(vertices)
    in_range = (_distances(ideal, image)[:, _NEAR_AND_FAR] >= 0).all(axis=1)
    undone = np.full((len(image), 2), np.inf)
    undone[in_range] = image[in_range, :2] / image[in_range, 2:3] - shift
    pixels = undone.copy()
    pixels[in_range] = camera.distorted(undone[in_range])
    inside = ((pixels >= 0) & (pixels <= [camera.width, camera.height])).all(axis=1)

    numbers = triangles()
    ends = np.stack([numbers, np.roll(numbers, -1, axis=1)], axis=2).reshape(-1, 2)
    enough = inside[ends].all(axis=1)
    lengths = np.abs(undone[ends[enough, 0]] - undone[ends[enough, 1]]) / camera.K.diagonal()[:2]
    enough[enough] = (lengths * _PIECES <= 1).all(axis=1)
    if enough.all():
        box = _around(pixels)
        return box, list(box)
    edges, parts = image[ends[~enough]], image[numbers]
    if not in_range.all():
        edges = np.concatenate([edges, _section(ideal, parts, _NEAR), _section(ideal, parts, _FAR)])
    bent = _bent(camera, _clip(ideal, edges, _NEAR_AND_FAR) - shift)
    unclipped = _around(np.concatenate([bent.reshape(-1, 2), pixels[in_range]]))
    pieces = _bent(camera, _clip(ideal, edges, _ALL) - shift)
    pieces = _clip(camera, np.concatenate([pieces, np.ones_like(pieces)], axis=2), _SIDES)
    corners = _corners(camera)
    covered = corners[_covered(ideal, parts, camera.undistorted(corners) + shift)]
    return _around_visible(camera, pieces, np.concatenate([covered, pixels[inside]])), unclipped


def _bent(camera: Camera, lines: FloatArray) -> FloatArray:
    """Undistorted straight lines (L, 2, 2), in pixels, as the lens bends them: in short straight pieces (P, 2, 2).

    Lengths between the points along a line grow with the distance from the optical axis as those between the
    hyperbolic sines of whole numbers do: evenly near the axis, by a ratio far out.
    """
    plane = (lines - camera.K[:2, 2]) / camera.K.diagonal()[:2]
    spans = plane[:, 1] - plane[:, 0]
    lengths = np.sqrt(spans[:, 0] ** 2 + spans[:, 1] ** 2)
    directions = spans / np.maximum(lengths, 1e-300)[:, None]
    start = plane[:, 0, 0] * directions[:, 0] + plane[:, 0, 1] * directions[:, 1]
    first, last = np.arcsinh(start), np.arcsinh(start + lengths)
    counts = np.maximum(np.ceil((last - first) * _PIECES), 1).astype(np.int64)
    line = np.arange(len(lines)).repeat(counts)
    number = np.arange(len(line)) - (counts.cumsum() - counts).repeat(counts)
    ends = []
    for step in (number, number + 1):
        along = np.sinh(first[line] + (last - first)[line] * (step / counts[line])) - start[line]
        exact = np.where(step == 0, 0.0, np.where(step == counts[line], lengths[line], along))
        places = plane[line, 0] + exact[:, None] * directions[line]
        ends.append(camera.distorted(places * camera.K.diagonal()[:2] + camera.K[:2, 2]))
    pieces: FloatArray = np.stack(ends, axis=1)
    return pieces


def _corners(camera: Camera) -> FloatArray:
    """The image's corners (4, 2), pixels."""
    return np.array([[x, y] for x in (0.0, camera.width) for y in (0.0, camera.height)])


def _distances(camera: Camera, image: FloatArray) -> FloatArray:
    """Homogeneous points (..., 4) to (..., 6), see `Camera.frustum`."""
    normals, offsets = camera.frustum
    distances: FloatArray = image @ normals + offsets
    return distances


def _section(camera: Camera, triangles: FloatArray, plane: int) -> FloatArray:
    """The edges (S, 2, 4) along which the near or the far plane cuts triangles (T, 3, 4)."""
    following = np.roll(triangles, -1, axis=1)
    start, end = _distances(camera, triangles)[..., plane], _distances(camera, following)[..., plane]
    crossing = (start < 0) != (end < 0)  # no or two sides of each triangle
    t = start[crossing] / (start - end)[crossing]
    points = triangles[crossing] + t[:, None] * (following - triangles)[crossing]
    # Exactly on the plane, so that rounding does not put them outside of it when they are clipped.
    points[:, 3] = camera.clip_start if plane == _NEAR else camera.clip_end
    pairs: FloatArray = points.reshape(-1, 2, 4)
    return pairs


def _clip(camera: Camera, edges: FloatArray, planes: slice) -> FloatArray:
    """What the planes leave of edges (E, 2, 4): their ends in pixels (M, 2, 2).

    As Cyrus and Beck clip a line: from the last plane through which it enters to the first by which it
    leaves.
    """
    distances: FloatArray = _distances(camera, edges)[..., planes]
    start, end = distances[:, 0], distances[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = start / (start - end)
    enter = np.where(start < 0, crossing, 0.0).max(axis=1)
    leave = np.where(end < 0, crossing, 1.0).min(axis=1)
    kept = (enter <= leave) & ~((start < 0) & (end < 0)).any(axis=1)
    first, last = edges[kept, 0], edges[kept, 1]
    ends = np.stack([first + t[kept, None] * (last - first) for t in (enter, leave)], axis=1)
    pixels: FloatArray = ends[..., :2] / ends[..., 2:3]
    return pixels


def _covered(camera: Camera, triangles: FloatArray, places: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether, at places in the image (P, 2), one of the triangles (T, 3, 4) lies within the clip range: (P,).

    By the barycentric coordinates of the point at which the place's line of sight meets each triangle's plane:
    the volumes that the line spans with the sides, in proportion.
    """
    sights = np.concatenate([places, np.ones((len(places), 1))], axis=1)
    following, last = (np.roll(triangles[..., :3], -turns, axis=1) for turns in (1, 2))
    # volumes, barycentric: (T, 3, P); depth, met: (T, P)
    volumes = np.cross(following, last) @ sights.T
    with np.errstate(divide="ignore", invalid="ignore"):
        barycentric = volumes / volumes.sum(axis=1, keepdims=True)
        depth = (barycentric * triangles[..., 3, None]).sum(axis=1)
    met = (barycentric >= 0).all(axis=1) & (depth >= camera.clip_start) & (depth <= camera.clip_end)
    covered: npt.NDArray[np.bool_] = met.any(axis=0)
    return covered


def _around_visible(camera: Camera, edges: FloatArray, points: FloatArray) -> Box:
    """The box around what the frustum leaves: edges (E, 2, 2) and points (N, 2), corners of the image among them."""
    ends = np.concatenate([edges.reshape(-1, 2), points])
    return _around(ends.clip(0, [camera.width, camera.height]))


def _around(pixels: FloatArray) -> Box:
    """The box around pixels (..., 2); zeros where there are none."""
    if not pixels.size:
        return [0.0] * 4
    low, high = extent(pixels.reshape(-1, 2))
    box: Box = rounded([*low, *(high - low)]).tolist()
    return box


def united(first: Box, second: Box) -> Box:
    """The box around two boxes; one of zeros is none."""
    if not (any(first) and any(second)):
        return list(first if any(first) else second)
    low = [min(a, b) for a, b in zip(first[:2], second[:2], strict=True)]
    high = [max(first[axis] + first[axis + 2], second[axis] + second[axis + 2]) for axis in (0, 1)]
    box: Box = rounded([*low, high[0] - low[0], high[1] - low[1]]).tolist()
    return box


def truncation(camera: Camera, unclipped: Box) -> float:
    """The fraction of the unclipped box's area that is outside the image: 0 for none, 1 for all, or for no box.

    A box without width or height counts as infinitely thin.
    """
    if not any(unclipped):
        return 1.0
    inside = 1.0
    for start, length, size in zip(unclipped[:2], unclipped[2:], (camera.width, camera.height), strict=True):
        if length > 0:
            inside *= max(0.0, min(start + length, size) - max(start, 0.0)) / length
        else:
            inside *= 0 <= start < size
    return float(rounded(1.0 - inside))
