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

_NO_PIXELS = np.zeros((0, 2))

# The frustum's planes: left, right, top, bottom, near, far.
_NEAR, _FAR = 4, 5
_ALL, _NEAR_AND_FAR = slice(None), slice(4, None)


def boxes(
    camera: Camera, vertices: FloatArray, triangles: Callable[[], npt.NDArray[np.int32]]
) -> tuple[Box, Box]:
    """Return (clipped, unclipped): the boxes around the part of a mesh that is in the image, and around all.

    From both is cut off what lies outside the camera's clip range, as in a rendered picture. The clipped box is
    often smaller than the unclipped box's overlap with the image. [0, 0, 0, 0] where there is nothing.

    Args:
        camera: the camera.
        vertices: (N, 3), world, metres.
        triangles: gives (T, 3) indices of vertices; called only if the vertices alone do not tell.
    """
    image = camera.homogeneous(vertices)
    any_outside, all_outside = extent(_distances(camera, image)) < 0  # of each plane
    if any_outside[_NEAR_AND_FAR].any():
        return _cut_boxes(camera, image[triangles()])
    whole = _around(image[:, :2] / image[:, 2:3])
    if not any_outside.any():
        return whole, list(whole)
    if all_outside.any():
        return _around(_NO_PIXELS), whole
    return _cut_boxes(camera, image[triangles()])


def _cut_boxes(camera: Camera, triangles: FloatArray) -> tuple[Box, Box]:
    """`boxes` of homogeneous triangles (T, 3, 4), wherever they lie.

    The corners of a part are where the triangles' edges begin, end or are cut, and the image's own corners
    where it covers them.
    """
    edges = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2).reshape(-1, 2, 4)
    edges = np.concatenate([edges, _section(camera, triangles, _NEAR), _section(camera, triangles, _FAR)])
    unclipped = _clip(camera, edges, _NEAR_AND_FAR)
    clipped = np.concatenate([_clip(camera, edges, _ALL), _covered_corners(camera, triangles)])
    return _around(clipped.clip(0, [camera.width, camera.height])), _around(unclipped)


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
    points[:, 3] = (
        camera.clip_start if plane == _NEAR else camera.clip_end
    )  # exactly, to be inside when clipped
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

    By the barycentric coordinates of the point at which the corner's ray meets each triangle's plane.
    """
    corners = np.array([[x, y, 1.0] for x in (0, camera.width) for y in (0, camera.height)])
    a, b, c = triangles[..., :3].transpose(1, 0, 2)
    volumes = (
        np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1) @ corners.T
    )  # (T, 3, 4 corners)
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
    box: Box = rounded(np.concatenate([low, high - low])).tolist()
    return box
