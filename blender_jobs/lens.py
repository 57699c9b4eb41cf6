"""Blender's cameras and ours: intrinsics in, intrinsics out, and images as a distorting lens shows them.

Blender only renders pinhole cameras. So the undistorted image is rendered, on a canvas that holds all that the
distorted one shows (`ideal`), and the distorted one looked up in it (`_vision.warp`). A camera object's custom
property `PROPERTY` holds the coefficients, as `blender_jobs._vision.distortion` takes them.

The pixel aspect is the scene's in Blender, so that its cameras would share one ratio of fy to fx. A camera with a K of
its own keeps its aspect in the property `PIXEL_ASPECT`, and renders set the scene's from it (`own_pixels`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Matrix

from blender_jobs._vision.camera import Camera, FloatArray
from blender_jobs._vision.warp import Warp, warp_of

__all__ = ["set_extrinsics", "set_intrinsics", "set_pose"]

PROPERTY = "opencv_distortion"
"""The camera object's custom property: 4, 5 or 8 floats, k1, k2, p1, p2[, k3[, k4, k5, k6]]."""

PIXEL_ASPECT = "opencv_pixel_aspect"
"""The camera object's custom property: 2 floats, as the scene's pixel_aspect_x and pixel_aspect_y; they win over it."""

_SENSOR_MM = 36.0
_OPENGL_FROM_OPENCV = np.array([1.0, -1.0, -1.0, 1.0])  # of the columns: Blender's cameras have y up and look along -z
_RIGID = 1e-4  # how far a pose may be from a rigid one: it may have been written with few decimals
_SMALLEST_MM = 1.0  # of a focal length or a sensor, in Blender
_ASPECTS = (1.0, 200.0)  # that Blender allows


def image_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Return the rendered image's width and height, pixels, `resolution_percentage` included."""
    render = scene.render
    width, height = (
        pixels * render.resolution_percentage // 100 for pixels in (render.resolution_x, render.resolution_y)
    )
    return width, height


def scene_camera(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, size: tuple[int, int] | None = None) -> Camera:
    """Return the scene's camera, evaluated, as the renderers use it, with its distortion.

    Args:
        scene: the scene.
        depsgraph: an evaluation of it.
        size: the image's (width, height), pixels; by default as the scene is set.

    Raises:
        ValueError: there is none, or no K, OpenCV pose and distortion can describe it; one line.
    """
    obj = scene.camera
    if obj is None or obj.type != "CAMERA":
        raise ValueError(f"scene {scene.name!r} has no camera: set scene.camera to a camera object")
    evaluated = obj.evaluated_get(depsgraph)
    data = evaluated.data
    if data.type not in ("PERSP", "ORTHO"):
        raise ValueError(f"camera {obj.name!r} is {data.type}, which no K can say: set its type to PERSP or ORTHO")
    width, height = size or image_size(scene)
    aspect_x, aspect_y = _pixel_aspect(scene, obj)
    projection = obj.calc_matrix_camera(depsgraph, x=width, y=height, scale_x=aspect_x, scale_y=aspect_y)
    return Camera.from_opengl(
        name=obj.name,
        type=data.type,
        size=(width, height),
        projection=np.array(projection, dtype=np.float64),
        matrix_world=np.array(evaluated.matrix_world, dtype=np.float64),
        clip=(data.clip_start, data.clip_end),
        distortion=_property(obj),
    )


def set_intrinsics(camera_obj: Any, K: npt.ArrayLike, size: tuple[int, int]) -> None:
    """Give a camera object the intrinsics K for an image of `size`; it becomes a perspective camera.

    Sets focal length, sensor and shift of the camera, and its own pixel aspect (`PIXEL_ASPECT`). The sensor is 36 mm
    wide if the focal length allows. The scene is left alone, its resolution too.

    Args:
        camera_obj: the object of a camera.
        K: (3, 3), [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], pixels; the first pixel's centre is (0.5, 0.5), so add
            0.5 to cx and cy where it was (0, 0), as in OpenCV's calibrations.
        size: the image's (width, height), pixels, for which K holds.

    Raises:
        ValueError: K is not of this form, Blender cannot have it, or the object is no camera; one line.
    """
    _check_camera(camera_obj, "set_intrinsics")
    matrix = _checked(K)
    fx, fy = matrix.diagonal()[:2].tolist()
    aspect = max(1.0, fy / fx), max(1.0, fx / fy)
    if max(aspect) > _ASPECTS[1]:
        raise ValueError(
            f"K has fx = {fx:g} and fy = {fy:g}: Blender's pixels are at most {_ASPECTS[1]:g} times as long"
        )
    if camera_obj.data.users > 1:
        camera_obj.data = camera_obj.data.copy()  # a K is one camera's: not that of those that share its data
    _frame(camera_obj.data, matrix, size, max(_SENSOR_MM, _SMALLEST_MM * size[0] / fx))
    camera_obj[PIXEL_ASPECT] = aspect


def set_pose(camera_obj: Any, cam_to_world: npt.ArrayLike) -> None:
    """Put a camera object where `cam_to_world` says: the inverse of what `set_extrinsics` takes.

    It takes what the annotations have under ``camera.cam_to_world``. Constraints and animation of the object still act.

    Args:
        camera_obj: the object of a camera.
        cam_to_world: (4, 4), rigid, rows as numpy has them: OpenCV's camera frame (x right, y down, z forward) to
            Blender's world, metres. (For `matrix_world` make a `mathutils.Matrix` of it: Blender takes the rows of
            lists and arrays as columns.)

    Raises:
        ValueError: the matrix is not rigid, or the object is no camera; one line.
    """
    _check_camera(camera_obj, "set_pose")
    pose = _numbers(cam_to_world, "cam_to_world", (4, 4))
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > _RIGID:
        raise ValueError("cam_to_world must end in the row [0, 0, 0, 1]: is it transposed?")
    _check_rotation(pose[:3, :3], "cam_to_world")
    camera_obj.matrix_world = Matrix((pose * _OPENGL_FROM_OPENCV).tolist())


def set_extrinsics(camera_obj: Any, R: npt.ArrayLike, t: npt.ArrayLike) -> None:
    """Put a camera object where OpenCV's extrinsics say: R and t bring a point of the world into the camera's frame.

    Args:
        camera_obj: the object of a camera.
        R: (3, 3) rotation, or a rotation vector (3,), (3, 1) or (1, 3) in radians, as `cv2.solvePnP` and
            `cv2.calibrateCamera` return them.
        t: 3 numbers of any shape, metres: `x_camera = R @ x_world + t`.

    Raises:
        ValueError: R is no rotation, or the object is no camera; one line.
    """
    _check_camera(camera_obj, "set_extrinsics")
    given = np.asarray(R, dtype=object)
    rotation = _numbers(R, "R", (3, 3)) if given.size != 3 else _rodrigues(_numbers(given.ravel(), "R", (3,)))
    _check_rotation(rotation, "R")
    offset = _numbers(np.asarray(t, dtype=object).ravel(), "t", (3,))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -(rotation * offset[:, None]).sum(axis=0)  # not `@`, see vision.camera
    set_pose(camera_obj, pose)


@contextlib.contextmanager
def own_pixels(scene: bpy.types.Scene) -> Iterator[None]:
    """Within it the scene has the pixel aspect of its camera, if that has one of its own.

    Raises:
        ValueError: the camera's property `PIXEL_ASPECT` is none; one line.
    """
    render = scene.render
    before = render.pixel_aspect_x, render.pixel_aspect_y
    own = before if scene.camera is None else _pixel_aspect(scene, scene.camera)
    if own == before:  # not touched: Blender would evaluate the scene for it
        yield
        return
    render.pixel_aspect_x, render.pixel_aspect_y = own
    try:
        yield
    finally:
        render.pixel_aspect_x, render.pixel_aspect_y = before


@contextlib.contextmanager
def ideal(scene: bpy.types.Scene, camera: Camera) -> Iterator[Warp | None]:
    """Within it the scene renders what the lens would show, undistorted, on a canvas large enough.

    Yields what makes the distorted image of the rendered one, None where the camera has no distortion. The pixels
    are as large as the distorted image's are at the optical axis. Resolution, pixel aspect and camera are restored in
    the end.

    Args:
        scene: the scene.
        camera: its camera, as `scene_camera` has it.
    """
    with own_pixels(scene):
        if not camera.distortion:
            yield None
            return
        with _seen_by(scene, camera.ideal):
            yield warp_of(camera)


@contextlib.contextmanager
def _seen_by(scene: bpy.types.Scene, camera: Camera) -> Iterator[None]:
    """The scene's camera with other intrinsics: a copy of its data, so that no animation of the lens sets it back."""
    obj, render = scene.camera, scene.render
    original, size = obj.data, (render.resolution_x, render.resolution_y, render.resolution_percentage)
    data = original.copy()
    data.animation_data_clear()
    # The focal length stays: with the aperture it decides what is out of focus.
    _frame(data, camera.K, (camera.width, camera.height), original.lens * camera.width / float(camera.K[0, 0]))
    obj.data = data
    render.resolution_x, render.resolution_y, render.resolution_percentage = camera.width, camera.height, 100
    try:
        yield
    finally:
        obj.data = original
        render.resolution_x, render.resolution_y, render.resolution_percentage = size
        bpy.data.cameras.remove(data)


def _frame(data: Any, K: FloatArray, size: tuple[int, int], sensor_mm: float) -> None:
    """Set lens, sensor and shift of a camera's data; the shifts are fractions of the width, also the one down."""
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    width, height = size
    sensor_mm = max(sensor_mm, _SMALLEST_MM)
    data.type, data.sensor_fit = "PERSP", "HORIZONTAL"
    data.sensor_width, data.lens = sensor_mm, fx * sensor_mm / width
    data.shift_x, data.shift_y = 0.5 - cx / width, (cy - height / 2) / width * fx / fy


def _check_camera(camera_obj: Any, function: str) -> None:
    if getattr(camera_obj, "type", None) != "CAMERA":
        raise ValueError(f"{function}(): expected the object of a camera, got {camera_obj!r}")


def _checked(K: npt.ArrayLike) -> FloatArray:
    matrix = _numbers(K, "K", (3, 3))
    if matrix[0, 1] or matrix[1, 0] or matrix[2].tolist() != [0, 0, 1] or (matrix.diagonal() <= 0).any():
        raise ValueError("K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0: Blender has no skew")
    return matrix


def _numbers(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> FloatArray:
    """`values` as float64 of this shape, all finite."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers of shape {shape}") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, of shape {shape}, not {array.shape}")
    return array


def _check_rotation(rotation: FloatArray, name: str) -> None:
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _RIGID:
        raise ValueError(f"{name} is no rotation: its rows must have length 1 and be perpendicular")
    if np.linalg.det(rotation) < 0:
        raise ValueError(f"{name} mirrors, which no camera does: an axis has the wrong sign")


def _rodrigues(vector: FloatArray) -> FloatArray:
    """The rotation (3, 3) of a rotation vector (3,)."""
    angle = math.hypot(*vector)
    axis = vector / angle if angle else vector
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    cosine = math.cos(angle)
    result: FloatArray = cosine * np.eye(3) + math.sin(angle) * cross + (1 - cosine) * np.outer(axis, axis)
    return result


def _pixel_aspect(scene: bpy.types.Scene, camera_obj: Any) -> tuple[float, float]:
    """The aspect, x and y, that the camera is rendered with: its own or the scene's, as Blender's 32 bits hold it."""
    if PIXEL_ASPECT not in camera_obj:
        return scene.render.pixel_aspect_x, scene.render.pixel_aspect_y
    try:
        x, y = map(float, np.array(list(camera_obj[PIXEL_ASPECT]), dtype=np.float32))
        fits = all(_ASPECTS[0] <= value <= _ASPECTS[1] for value in (x, y))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"camera {camera_obj.name!r}: its property {PIXEL_ASPECT} must be 2 numbers from 1 to 200")
    return x, y


def _property(camera_obj: Any) -> list[float]:
    """The camera object's coefficients, none if it has no such property."""
    values = camera_obj.get(PROPERTY, ())
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"camera {camera_obj.name!r}: its property {PROPERTY} must be a list of numbers") from None
