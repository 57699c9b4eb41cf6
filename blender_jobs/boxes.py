"""The 2D boxes of what a camera sees of a triangle mesh: numpy alone, no Blender.

A box is COCO's [x, y, width, height] in pixels, (x, y) its top-left corner; coordinates as everywhere, x right,
y down, origin at the outer corner of the top-left pixel. The work is done on homogeneous image points (x * w,
y * w, w, depth), see `Camera.homogeneous`: straight lines stay straight there, even through the camera's plane.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from blender_jobs.camera import Camera, FloatArray, extent, rounded

Box = list[float]

# The frustum's planes: left, right, top, bottom, near, far.
_NEAR, _FAR = 4, 5
_ALL, _NEAR_AND_FAR = slice(None), slice(4, None)


def boxes(camera: Camera, vertices: FloatArray, triangles: Callable[[], npt.NDArray[np.int32]]) -> tuple[Box, Box]:
    """Return (clipped, unclipped): the boxes around the part of a mesh that is in the image, and around all.

    From both is cut off what lies outside the camera's clip range, as in a rendered picture. The clipped box is
    often smaller than the unclipped box's overlap with the image. [0, 0, 0, 0] where there is nothing.

    Args:
        camera: the camera.
        vertices: (N, 3), world, metres.
        triangles: gives (T, 3) indices of vertices; called only if the vertices alone do not tell.
    """
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
    # What the frustum leaves has its corners where edges begin, end or are cut, and where it covers the image's.
    corners = np.concatenate([_clip(camera, edges, _ALL), _covered_corners(camera, parts)])
    return _around(corners.clip(0, [camera.width, camera.height])), unclipped


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
    """The ends, in pixels (M, 2), of what the planes leave of edges (E, 2, 4).

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
    ends = np.concatenate([first + t[kept, None] * (last - first) for t in (enter, leave)])
    pixels: FloatArray = ends[:, :2] / ends[:, 2:3]
    return pixels


def _covered_corners(camera: Camera, triangles: FloatArray) -> FloatArray:
    """The image's corners (M, 2) before which, within the clip range, one of the triangles (T, 3, 4) lies.

    By the barycentric coordinates of the point at which the corner's line of sight meets each triangle's plane:
    the volumes that the line spans with the sides, in proportion.
    """
    corners = np.array([[x, y, 1.0] for x in (0, camera.width) for y in (0, camera.height)])
    following, last = (np.roll(triangles[..., :3], -turns, axis=1) for turns in (1, 2))
    # volumes, barycentric: (T, 3, 4 corners); depth, met: (T, 4 corners)
    volumes = np.cross(following, last) @ corners.T
    with np.errstate(divide="ignore", invalid="ignore"):
        barycentric = volumes / volumes.sum(axis=1, keepdims=True)
        depth = (barycentric * triangles[..., 3, None]).sum(axis=1)
    met = (barycentric >= 0).all(axis=1) & (depth >= camera.clip_start) & (depth <= camera.clip_end)
    covered: npt.NDArray[np.bool_] = met.any(axis=0)
    return corners[covered, :2]


def _around(pixels: FloatArray) -> Box:
    """The box around pixels (N, 2); zeros where there are none."""
    if not len(pixels):
        return [0.0] * 4
    low, high = extent(pixels)
    box: Box = rounded([*low, *(high - low)]).tolist()
    return box
