"""Projection between Blender's world and the image: numpy alone, no Blender.

The conventions of every annotation:

- *Image*: continuous pixels, x right, y down, origin at the outer corner of the top-left pixel. The first
  pixel's centre is (0.5, 0.5), a centred principal point (W/2, H/2). Where pixels are counted by their
  centres, as OpenCV does, the same coordinates are 0.5 less.
- *Camera frame*: as OpenCV, x right, y down, z forward along the optical axis. (Blender's own camera frame
  has y up and looks along -z.)
- *World*: as Blender, z up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

DECIMALS = 6
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def rounded(values: npt.ArrayLike) -> FloatArray:
    """`values` as float64 to the precision that annotations are written in: 6 decimals, and never -0.0."""
    result: FloatArray = np.asarray(values, dtype=np.float64).round(DECIMALS) + 0.0
    return result


def transform(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Points (N, 3) moved by an affine matrix (4, 4)."""
    result: FloatArray = points @ matrix[:3, :3].T + matrix[:3, 3]
    return result


def extent(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lowest and the highest value of each column: (N, D), N > 0, to (D,) each."""
    columns = np.ascontiguousarray(points.T)  # numpy goes down long narrow columns at a tenth of the speed
    return columns.min(axis=1), columns.max(axis=1)


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
    """A pinhole or orthographic camera.

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

    @classmethod
    def from_opengl(
        cls,
        name: str,
        type: str,
        size: tuple[int, int],
        projection: FloatArray,
        matrix_world: FloatArray,
        clip: tuple[float, float],
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

        Raises:
            ValueError: the world matrix is mirrored or sheared. Blender renders that, no OpenCV pose can say
                it.
        """
        pose = rigid(matrix_world)
        lengths = np.linalg.norm(matrix_world[:3, :3], axis=0)
        axes = matrix_world[:3, :3] / np.maximum(lengths, 1e-30)
        if np.abs(axes - pose[:3, :3]).max() > 1e-4:
            raise ValueError(
                f"camera {name!r} is mirrored, sheared or flattened, which no OpenCV pose can say:"
                " apply its scale, and its parents' (Object > Apply > Scale)"
            )
        return cls(
            name=name,
            type=type,
            width=size[0],
            height=size[1],
            K=rounded(intrinsics(type, size, projection)),
            cam_to_world=rounded(pose @ _OPENCV_FROM_OPENGL),
            clip_start=float(rounded(clip[0])),
            clip_end=float(rounded(clip[1])),
        )

    @cached_property
    def world_to_cam(self) -> FloatArray:
        """(4, 4): Blender world to OpenCV camera frame, metres."""
        return np.linalg.inv(self.cam_to_world)

    @cached_property
    def _world_to_image(self) -> FloatArray:
        """(4, 4): Blender world to homogeneous image, see `homogeneous`."""
        image = np.zeros((4, 4))
        image[:3, [0, 1, 2 if self.type == "PERSP" else 3]] = self.K
        image[3, 2] = 1.0
        return image @ self.world_to_cam

    @cached_property
    def _pixels_to_rays(self) -> FloatArray:
        """(3, 3): the inverse of K."""
        return np.linalg.inv(self.K)

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

        Affine in the points, so that a straight line stays one, in front of the camera and behind it.
        """
        image: FloatArray = points @ self._world_to_image[:, :3].T + self._world_to_image[:, 3]
        return image

    def project(self, points: FloatArray) -> FloatArray:
        """World (N, 3), metres, to (N, 3): x and y in pixels, depth in metres along the optical axis.

        Origin at the top-left pixel's outer corner, x right, y down. A point at or behind the camera keeps
        its depth (<= 0) and gets x = y = 0.
        """
        image = self.homogeneous(points)
        image[image[:, 3] <= 0, :3] = 0, 0, 1
        image[:, :2] /= image[:, 2:3]
        return image[:, [0, 1, 3]]

    def unproject(self, pixels: FloatArray) -> FloatArray:
        """The inverse of `project`: (N, 3), x and y in pixels, depth in metres, to world (N, 3)."""
        depth = pixels[:, 2:]
        image = np.ones_like(pixels)
        image[:, :2] = pixels[:, :2]
        points = image @ self._pixels_to_rays.T
        if self.type == "PERSP":
            points *= depth
        points[:, 2:] = depth
        return transform(self.cam_to_world, points)

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
        }
