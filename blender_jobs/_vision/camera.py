"""Projection between Blender's world and the image: numpy alone, no Blender.

The conventions of every annotation:

- *Image*: continuous pixels, x right, y down, origin at the outer corner of the top-left pixel. The first
  pixel's centre is (0.5, 0.5), a centred principal point (W/2, H/2). Where pixels are counted by their
  centres, as OpenCV does, the same coordinates are 0.5 less.
- *Camera frame*: as OpenCV, x right, y down, z forward along the optical axis. (Blender's own camera frame
  has y up and looks along -z.)
- *World*: as Blender, z up, metres.

Matrices are applied column by column, not with `@`: matrix products use other instructions, which round otherwise, on
other processors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.distortion import Coefficients, canvas, coefficients, distort, undistort

FloatArray = npt.NDArray[np.float64]

DECIMALS = 6
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def rounded(values: npt.ArrayLike, decimals: int = DECIMALS) -> FloatArray:
    """`values` as float64 to the precision that annotations are written in, and never -0.0."""
    result: FloatArray = np.asarray(values, dtype=np.float64).round(decimals) + 0.0
    return result


def transform(matrix: FloatArray, points: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Points (N, 3) moved by an affine matrix (4, 4)."""
    return _affine(matrix[:3], points)


def inverse_transform(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Points (N, 3) moved back by an affine matrix (4, 4); one that flattens (a scale of 0) has an inverse, too."""
    inverse: FloatArray = np.linalg.pinv(matrix[:3, :3])
    moved: FloatArray = (points - matrix[:3, 3]) @ inverse.T
    return moved


def _affine(rows: FloatArray, points: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Points (N, 3) to (N, M) by the rows (M, 4) of an affine matrix."""
    x, y, z = np.ascontiguousarray(points.T)
    a, b, c, d = rows.T[:, :, None]
    return np.ascontiguousarray((a * x + b * y + c * z + d).T)


def extent(points: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray]:
    """The lowest and the highest value of each column: (N, D), N > 0, to (D,) each."""
    columns = np.ascontiguousarray(points.T)  # numpy goes down long narrow columns at a tenth of the speed
    return columns.min(axis=1).astype(np.float64), columns.max(axis=1).astype(np.float64)


def rigid(matrix: FloatArray) -> FloatArray:
    """The rotation and translation (4, 4) of an affine matrix (4, 4), scale and shear removed.

    The rotation is the nearest one (the polar decomposition's), always proper: a mirrored matrix counts as
    scaled by a negative factor on all three axes, as `mathutils.Matrix.decompose` has it.
    """
    u, scales, vt = np.linalg.svd(matrix[:3, :3])
    rotation = u @ vt
    if np.linalg.det(rotation) < 0:
        flat = scales[2] < 1e-6 * scales[0]  # then only the sign of the axis without extent is open
        rotation = rotation - 2 * np.outer(u[:, 2], vt[2]) if flat else -rotation
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation, matrix[:3, 3]
    return result


def intrinsics(type: str, size: tuple[int, int], projection: FloatArray) -> FloatArray:
    """K (3, 3), as in `Camera`, from OpenGL's projection matrix (4, 4) and the image's (width, height).

    OpenGL's clip space is x right, y up, -1 to 1 over the image, seen by a camera that looks along -z: hence
    the signs.
    """
    half_width, half_height = size[0] / 2, size[1] / 2
    column, sign = (2, -1) if type == "PERSP" else (3, 1)
    centre_x, centre_y = sign * projection[:2, column]
    return np.array(
        [
            [projection[0, 0] * half_width, 0, (1 + centre_x) * half_width],
            [0, projection[1, 1] * half_height, (1 - centre_y) * half_height],
            [0, 0, 1],
        ]
    )


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole or orthographic camera; a pinhole camera may have a lens that distorts.

    Its numbers are rounded as annotations are (`rounded`) before anything is computed from them: whoever
    reads them there computes with the very same ones.
    """

    name: str
    type: str
    """``PERSP`` or ``ORTHO``, Blender's names."""
    width: int
    height: int
    K: FloatArray
    """(3, 3), camera frame to pixels: applied to (x/z, y/z, 1) for ``PERSP``, to (x, y, 1) for ``ORTHO``."""
    cam_to_world: FloatArray
    """(4, 4), rigid: OpenCV camera frame to Blender world, metres."""
    clip_start: float
    """Metres along the optical axis, as `clip_end`: the renderers show nothing nearer than this."""
    clip_end: float
    distortion: Coefficients = ()
    """OpenCV's coefficients, see `vision.distortion`; none for an ideal lens. The image is the distorted one."""
    decimals: int = DECIMALS
    """Of all that is annotated in this camera's view: as many as keep rounding below a hundredth of a pixel."""

    @classmethod
    def from_opengl(
        cls,
        name: str,
        type: str,
        size: tuple[int, int],
        projection: FloatArray,
        matrix_world: FloatArray,
        clip: tuple[float, float],
        distortion: Sequence[float] = (),
    ) -> Camera:
        """A camera from Blender's (OpenGL's) projection matrix and its object's world matrix, (4, 4) each.

        The world matrix's scale is dropped, as the renderers do: they normalise its columns.

        Args:
            name: the camera object's.
            type: ``PERSP`` or ``ORTHO``.
            size: the image's (width, height), pixels.
            projection: as `intrinsics` takes it.
            matrix_world: Blender's camera frame (y up, looks along -z) to Blender's world, metres.
            clip: (clip_start, clip_end), metres.
            distortion: OpenCV's coefficients, 4, 5 or 8; none for an ideal lens.

        Raises:
            ValueError: the world matrix is mirrored or sheared (Blender renders that, no OpenCV pose can say
                it), or the distortion is none that `ideal` can undo.
        """
        pose = rigid(matrix_world)
        lengths = np.linalg.norm(matrix_world[:3, :3], axis=0)
        axes = matrix_world[:3, :3] / np.maximum(lengths, 1e-30)
        if np.abs(axes - pose[:3, :3]).max() > 1e-4:
            raise ValueError(
                f"camera {name!r} is mirrored, sheared or flattened, which no OpenCV pose can describe:"
                " apply its scale, and its parents' (Object > Apply > Scale)"
            )
        K = rounded(intrinsics(type, size, projection))
        decimals = _decimals(type, float(K.diagonal()[:2].max()), clip[0])
        camera = cls(
            name=name,
            type=type,
            width=size[0],
            height=size[1],
            K=K,
            cam_to_world=rounded(pose @ _OPENCV_FROM_OPENGL, decimals),
            clip_start=float(rounded(clip[0], decimals)),
            clip_end=float(rounded(clip[1], decimals)),
            distortion=_coefficients(name, type, distortion),
            decimals=decimals,
        )
        _ = camera.ideal  # what it cannot undo is refused here
        return camera

    def rounded(self, values: npt.ArrayLike) -> FloatArray:
        """`values` as float64 to `decimals`."""
        return rounded(values, self.decimals)

    @cached_property
    def world_to_cam(self) -> FloatArray:
        """(4, 4): Blender world to OpenCV camera frame, metres."""
        return _inverse(self.cam_to_world)

    @cached_property
    def ideal(self) -> Camera:
        """The pinhole camera with the same pose and focal lengths that sees all that this one shows.

        Its image is the distorted image undone, on a canvas that holds it and one more pixel on each side. The
        camera itself if it does not distort.

        Raises:
            ValueError: the distortion shows two points at one place within the image, or needs a canvas more
                than `blender_jobs._vision.distortion.OVERSCAN` times the image's size; one line.
        """
        if not self.distortion:
            return self
        (fx, _, cx), (_, fy, cy), _ = self.K.tolist()
        try:
            left, top, right, bottom = canvas(self.distortion, (fx, fy, cx, cy), (self.width, self.height))
        except ValueError as error:
            raise ValueError(f"camera {self.name!r}: {error}: lower the distortion or narrow the view") from None
        K = np.array([[fx, 0, cx - left], [0, fy, cy - top], [0, 0, 1]])
        return replace(self, width=right - left, height=bottom - top, K=K, distortion=())

    @cached_property
    def _world_to_image(self) -> FloatArray:
        """(4, 4): Blender world to homogeneous image, see `homogeneous`."""
        (fx, _, cx), (_, fy, cy), _ = self.K.tolist()
        x, y, z, one = self.world_to_cam
        w = z if self.type == "PERSP" else one
        return np.stack([fx * x + cx * w, fy * y + cy * w, w, z])

    @cached_property
    def frustum(self) -> tuple[FloatArray, FloatArray]:
        """Normals (4, 6) and offsets (6,) of the planes left, right, top, bottom, near, far.

        For homogeneous points, `points @ normals + offsets` is negative outside of each plane. Not a Euclidean
        distance, but affine in the points, which is what cutting needs.
        """
        sides = [[1, 0, 0, 0], [-1, 0, self.width, 0], [0, 1, 0, 0], [0, -1, self.height, 0]]
        normals = np.array([*sides, [0, 0, 0, 1], [0, 0, 0, -1]], dtype=np.float64).T
        return normals, np.array([0, 0, 0, 0, -self.clip_start, self.clip_end])

    def homogeneous(self, points: FloatArray) -> FloatArray:
        """World (N, 3) to (N, 4): x * w, y * w, w, depth; w is the depth for ``PERSP``, 1 for ``ORTHO``.

        Affine in the points, so that a straight line stays one, in front of the camera and behind it. Without
        the distortion.
        """
        return _affine(self._world_to_image, points)

    def project(self, points: FloatArray) -> FloatArray:
        """World (N, 3), metres, to (N, 3): x and y in pixels, depth in metres along the optical axis.

        Origin at the top-left pixel's outer corner, x right, y down. A point at or behind the camera keeps
        its depth (<= 0) and gets x = y = 0.
        """
        image = self.homogeneous(points)
        behind = image[:, 3] <= 0
        image[behind, :3] = 0, 0, 1
        image[:, :2] /= image[:, 2:3]
        if self.distortion:
            image[~behind, :2] = self.distorted(image[~behind, :2])
        return image[:, [0, 1, 3]]

    def unproject(self, pixels: FloatArray) -> FloatArray:
        """The inverse of `project`: (N, 3), x and y in pixels, depth in metres, to world (N, 3).

        Raises:
            ValueError: the lens shows nothing at one of the pixels; never for pixels in the image.
        """
        depth = pixels[:, 2:]
        points = np.empty_like(pixels)
        points[:, :2] = self._to_plane(self.undistorted(pixels[:, :2]) if self.distortion else pixels[:, :2])
        if self.type == "PERSP":
            points *= depth
        points[:, 2:] = depth
        return transform(self.cam_to_world, points)

    def distorted(self, pixels: FloatArray) -> FloatArray:
        """Pixels (N, 2) as a pinhole camera with this K has them, to where the lens shows them (N, 2).

        What is beyond the lens's reach (`distortion.reach`) is shown on its rim, outside the image.
        """
        return self._to_pixels(distort(self.distortion, self._to_plane(pixels)))

    def undistorted(self, pixels: FloatArray) -> FloatArray:
        """The inverse of `distorted`, (N, 2).

        Raises:
            ValueError: the lens shows nothing at one of the pixels; never for pixels in the image.
        """
        return self._to_pixels(undistort(self.distortion, self._to_plane(pixels)))

    def _to_plane(self, pixels: FloatArray) -> FloatArray:
        plane: FloatArray = (pixels - self.K[:2, 2]) / self.K.diagonal()[:2]
        return plane

    def _to_pixels(self, plane: FloatArray) -> FloatArray:
        pixels: FloatArray = plane * self.K.diagonal()[:2] + self.K[:2, 2]
        return pixels

    def contains(self, pixels: FloatArray) -> npt.NDArray[np.bool_]:
        """(N, 3) as from `project` to (N,): whether in [0, width) x [0, height) and in the clip range."""
        x, y, depth = pixels.T
        in_image = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        inside: npt.NDArray[np.bool_] = in_image & (depth >= self.clip_start) & (depth <= self.clip_end)
        return inside

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON; the matrices as lists of rows."""
        return {
            "name": self.name,
            "type": self.type,
            "width": self.width,
            "height": self.height,
            "K": self.K.tolist(),
            "cam_to_world": self.cam_to_world.tolist(),
            "clip_start": self.clip_start,
            "clip_end": self.clip_end,
            "distortion": list(self.distortion),
        }


def _decimals(type: str, focal: float, clip_start: float) -> int:
    """How many decimals keep rounding of poses and places below a hundredth of a pixel, at least `DECIMALS`.

    Rounded to d decimals, a direction is off by half of 10^-d and a pixel by `focal` times that; a place, seen from no
    nearer than the near plane, by `focal / clip_start` times that, and for most of what is in view by a tenth of it.

    Args:
        type: ``PERSP`` or ``ORTHO``.
        focal: pixels; pixels per metre for ``ORTHO``.
        clip_start: metres.
    """
    directions = focal
    places = focal / max(clip_start, 1e-9) / 10 if type == "PERSP" else focal
    return max(DECIMALS, math.ceil(math.log10(max(directions, places, 1.0))) + 2)


def _coefficients(camera: str, type: str, values: Sequence[float]) -> Coefficients:
    """The distortion's coefficients, rounded as all numbers of the camera are; none for no values."""
    if not len(values):
        return ()
    try:
        found = coefficients(values)
    except ValueError as error:
        raise ValueError(f"camera {camera!r}: {error}") from None
    if type != "PERSP":
        raise ValueError(f"camera {camera!r} is {type}, and only a PERSP camera's lens distorts: set its type to PERSP")
    return tuple(rounded(found).tolist())


def _inverse(matrix: FloatArray) -> FloatArray:
    """The inverse (4, 4) of an affine matrix whose columns are (nearly) orthonormal, by cofactors."""
    columns = [np.array(column) for column in matrix[:3, :3].T.tolist()]
    rows = [_cross(columns[1], columns[2]), _cross(columns[2], columns[0]), _cross(columns[0], columns[1])]
    determinant = float((columns[0] * rows[0]).cumsum()[-1])
    result = np.eye(4)
    result[:3, :3] = np.stack(rows) / determinant
    result[:3, 3] = -(result[:3, :3] * matrix[:3, 3]).cumsum(axis=1)[:, -1]
    return result


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    turned: FloatArray = a[[1, 2, 0]] * b[[2, 0, 1]] - a[[2, 0, 1]] * b[[1, 2, 0]]
    return turned
