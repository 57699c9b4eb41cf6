"""What the scene's camera sees: pixels, visibility, boxes and poses of points and objects.

Image coordinates are continuous pixels, x right, y down, origin at the outer corner of the top-left pixel; the
camera frame is OpenCV's (x right, y down, z forward), the world Blender's (z up, metres). See
`blender_jobs.camera`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs.boxes import Box, boxes
from blender_jobs.camera import Camera, FloatArray, extent, rigid, rounded, transform

TOLERANCE_M = 1e-3
"""A surface this little before a point does not hide it: the point may be on that surface."""


class View:
    """What the scene's camera sees in the current frame.

    A snapshot of the camera: make a new one after the frame changes. Objects are seen as the viewport's
    depsgraph evaluates them, with modifiers, parents, animation and physics. What is set for renders alone
    (`hide_render`, a modifier's render levels) makes no difference here.

    Args:
        scene: the scene; its camera must be a perspective or an orthographic one.
        depsgraph: the scene's, evaluated; by default the current context's.

    Raises:
        ValueError: there is no camera, or one that K and an OpenCV pose cannot describe (panoramic, mirrored,
            sheared), or the depsgraph is of another scene.
    """

    def __init__(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
        self._depsgraph = depsgraph or bpy.context.evaluated_depsgraph_get()
        if self._depsgraph.scene.original != scene:
            raise ValueError(f"the depsgraph is not of scene {scene.name!r}: pass the one that is")
        self._scene = scene
        self._camera = _scene_camera(scene, self._depsgraph)

    @property
    def width(self) -> int:
        """Rendered pixels across, `resolution_percentage` included."""
        return self._camera.width

    @property
    def height(self) -> int:
        """Rendered pixels down, `resolution_percentage` included."""
        return self._camera.height

    @property
    def camera(self) -> dict[str, Any]:
        """The camera, ready for JSON: name, type, width, height, K, cam_to_world, clip_start, clip_end.

        `cam_to_world` is the rigid 4x4 from the OpenCV camera frame (x right, y down, z forward) to Blender's
        world. For a point (x, y, z) in the camera frame, z is the depth and K @ (x/z, y/z, 1) the pixel, for
        type `ORTHO` K @ (x, y, 1). `project` computes with these very numbers.
        """
        return self._camera.as_json()

    def project(self, points: npt.ArrayLike) -> FloatArray:
        """World points (N, 3), metres, to float64 (N, 3): x and y in pixels, depth in metres.

        x right, y down from the outer corner of the top-left pixel; depth along the optical axis (z of the
        OpenCV camera frame). A point at or behind the camera has a depth <= 0 and x = y = 0.
        """
        return self._camera.project(_points(points, "project(): points"))

    def visibility(self, points: npt.ArrayLike, tolerance_m: float = TOLERANCE_M) -> npt.NDArray[np.uint8]:
        """World points (N, 3), metres, to uint8 (N,) as COCO has it: 0 outside, 1 occluded, 2 visible.

        Outside is outside the image, behind the camera or out of its clip range. Occluded is a point that has
        a surface before it, between the near clip plane and `tolerance_m` short of the point; along parallel
        rays for an orthographic camera. It is `Scene.ray_cast` that looks, and it sees what the viewport
        shows: faces from both sides, transparent ones as if solid, objects hidden only in renders too.
        """
        world = _points(points, "visibility(): points")
        return self._visibility(world, self._camera.project(world), tolerance_m)

    def keypoints(self, obj: bpy.types.Object, points: npt.ArrayLike | None = None) -> npt.NDArray[np.float32]:
        """An object's keypoints, float32 (K, 4): x and y in pixels, visibility (0, 1, 2), depth in metres.

        `points` (K, 3) are in the object's own frame, in its units before scale; by default the corners of
        its bounding box, in the order of `corners`. Keypoints outside the image keep their x and y; at or
        behind the camera both are 0. See `project` and `visibility`.
        """
        return self._keypoints(_Shape(obj, self._depsgraph), points).astype(np.float32)

    def corners(self, obj: bpy.types.Object) -> FloatArray:
        """The corners of an object's oriented bounding box, float64 (8, 3): Blender's world, metres.

        Ordered as Blender's `bound_box`; with - and + for the ends of the object's own x, y and z:
        ---, --+, -++, -+-, +--, +-+, +++, ++-.
        """
        shape = _Shape(obj, self._depsgraph)
        return shape.to_world(shape.box)

    def bbox(self, obj: bpy.types.Object) -> tuple[Box, Box]:
        """The 2D boxes [x, y, width, height] around an object's projection, in pixels: (clipped, unclipped).

        Around its evaluated mesh, hidden by others or not; around its bounding box if it is no mesh. What is
        out of the camera's clip range is cut off, as in the picture. The clipped box is the one around the
        part in the image, the unclipped one around all; [0, 0, 0, 0] where there is nothing.
        """
        return self._boxes(_Shape(obj, self._depsgraph))

    def pose(self, obj: bpy.types.Object) -> FloatArray:
        """An object's pose, float64 (4, 4), rigid: the object's own frame to the OpenCV camera frame, metres.

        It moves the object's points once they are scaled: scale is removed (mirroring counts as a negative
        scale of all three axes, so that the rotation is one).
        """
        return self._pose(_Shape(obj, self._depsgraph))

    def describe(
        self,
        obj: bpy.types.Object,
        category: str,
        keypoints: npt.ArrayLike | None = None,
        keypoint_names: Sequence[str] | None = None,
        **extra: Any,
    ) -> dict[str, Any]:
        """One object's annotation, ready for JSON: always the same fields, floats of 6 decimals.

        - name, category
        - pose: 4x4 rigid, the object's own frame to the OpenCV camera frame, see `pose`
        - matrix_world: 4x4, the object's own frame to Blender's world, scale included
        - dimensions: [x, y, z] of the oriented bounding box, metres
        - bbox, bbox_unclipped: [x, y, width, height], pixels, see `bbox`
        - box3d: the bounding box's 8 corners, Blender's world, metres, see `corners`
        - keypoint_names: K names
        - keypoints: [x, y, visibility] * K as COCO, keypoint_depths: K, metres; as float32, the rows of
          `keypoints`
        - num_keypoints: how many have a visibility above 0

        Args:
            obj: the object.
            category: its class.
            keypoints: (K, 3) points in the object's own frame; by default the corners of its bounding box.
            keypoint_names: K names; by default ``corner0`` to ``corner7``, ``keypoint0``... for points of
                your own.
            extra: more fields, taken as they are.

        Raises:
            ValueError: points of another shape, another number of names, an extra field named like one above,
                or an object that is not in the scene.
        """
        shape = _Shape(obj, self._depsgraph)
        rows = self._keypoints(shape, keypoints)
        box = shape.to_world(shape.box)
        clipped, unclipped = self._boxes(shape)
        annotation = {
            "name": shape.name,
            "category": category,
            "pose": rounded(self._pose(shape)).tolist(),
            "matrix_world": rounded(shape.matrix_world).tolist(),
            "dimensions": rounded(np.linalg.norm(box[[4, 3, 1]] - box[0], axis=1)).tolist(),
            "bbox": clipped,
            "bbox_unclipped": unclipped,
            "box3d": rounded(box).tolist(),
            "keypoint_names": _names(shape.name, keypoint_names, len(rows), keypoints is None),
            "keypoints": rows[:, :3].ravel().tolist(),
            "keypoint_depths": rows[:, 3].tolist(),
            "num_keypoints": int(np.count_nonzero(rows[:, 2])),
        }
        if taken := sorted(annotation.keys() & extra.keys()):
            raise ValueError(
                f"object {shape.name!r}: {taken[0]!r} is described already; name the extra field otherwise"
            )
        return {**annotation, **extra}

    def _keypoints(self, shape: _Shape, points: npt.ArrayLike | None) -> FloatArray:
        """(K, 4) x, y, visibility, depth, rounded: what `keypoints` and `describe` both say."""
        world = shape.to_world(shape.box if points is None else _points(points, f"object {shape.name!r}: keypoints"))
        pixels = self._camera.project(world)
        rows = pixels[:, [0, 1, 2, 2]]
        rows[:, 2] = self._visibility(world, pixels, TOLERANCE_M)
        return rounded(rows)

    def _visibility(self, world: FloatArray, pixels: FloatArray, tolerance_m: float) -> npt.NDArray[np.uint8]:
        flags = self._camera.contains(pixels).astype(np.uint8)
        inside = np.flatnonzero(flags)
        starts = pixels[inside]
        starts[:, 2] = self._camera.clip_start  # renderers leave out what is nearer, so it hides nothing
        starts = self._camera.unproject(starts)
        rays = world[inside] - starts
        reaches = np.linalg.norm(rays, axis=1) - tolerance_m
        ray_cast, depsgraph = self._scene.ray_cast, self._depsgraph
        hits = [
            reach > 0 and ray_cast(depsgraph, start, ray, distance=reach)[0]
            for start, ray, reach in zip(starts.tolist(), rays.tolist(), reaches.tolist(), strict=True)
        ]
        flags[inside] += np.logical_not(hits)
        return flags

    def _pose(self, shape: _Shape) -> FloatArray:
        return self._camera.world_to_cam @ rigid(shape.matrix_world)

    def _boxes(self, shape: _Shape) -> tuple[Box, Box]:
        return boxes(self._camera, shape.to_world(shape.vertices), shape.triangles)


class _Shape:
    """One object as evaluated in this frame: its mesh, or its bounding box if it is none.

    Refers to Blender's evaluated data: not to be kept after the frame changes.
    """

    _BOX_ENDS = np.array(
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=bool
    )
    _BOX_FACES = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [2, 3, 7, 6], [0, 3, 7, 4], [1, 2, 6, 5]])
    _BOX_TRIANGLES = np.concatenate([_BOX_FACES[:, [0, 1, 2]], _BOX_FACES[:, [0, 2, 3]]])

    def __init__(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> None:
        evaluated = _evaluated(obj, depsgraph)
        self.name: str = evaluated.name
        self.matrix_world = _as_array(evaluated.matrix_world)
        self._mesh = evaluated.data if evaluated.type == "MESH" and len(evaluated.data.vertices) else None
        self.vertices = _as_array(evaluated.bound_box) if self._mesh is None else _vertices(self._mesh)
        """(N, 3) in the object's own frame, N > 0."""

    @cached_property
    def box(self) -> FloatArray:
        """(8, 3) the bounding box's corners in the object's own frame, ordered as Blender's `bound_box`.

        Not `bound_box` itself, which leaves out a subdivision surface.
        """
        low, high = extent(self.vertices)
        return np.where(self._BOX_ENDS, high, low)

    def triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) indices into `vertices`; among them each vertex by itself, so that loose ones count."""
        alone = np.arange(len(self.vertices), dtype=np.int32).repeat(3).reshape(-1, 3)
        if self._mesh is None:
            return np.concatenate([alone, self._BOX_TRIANGLES], dtype=np.int32)
        self._mesh.calc_loop_triangles()
        faces = np.empty(3 * len(self._mesh.loop_triangles), dtype=np.int32)
        self._mesh.loop_triangles.foreach_get("vertices", faces)
        return np.concatenate([alone, faces.reshape(-1, 3)])

    def to_world(self, points: FloatArray) -> FloatArray:
        """Points (N, 3) from the object's own frame to the world."""
        return transform(self.matrix_world, points)


def _scene_camera(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Camera:
    """The scene's camera, evaluated, as the renderers use it."""
    obj = scene.camera
    if obj is None or obj.type != "CAMERA":
        raise ValueError(f"scene {scene.name!r} has no camera: set scene.camera to a camera object")
    evaluated, render = obj.evaluated_get(depsgraph), scene.render
    lens = evaluated.data
    if lens.type not in ("PERSP", "ORTHO"):
        raise ValueError(f"camera {obj.name!r} is {lens.type}, which no K can say: set its type to PERSP or ORTHO")
    size = (render.resolution_x, render.resolution_y)
    width, height = (pixels * render.resolution_percentage // 100 for pixels in size)
    projection = obj.calc_matrix_camera(
        depsgraph, x=width, y=height, scale_x=render.pixel_aspect_x, scale_y=render.pixel_aspect_y
    )
    return Camera.from_opengl(
        name=obj.name,
        type=lens.type,
        size=(width, height),
        projection=_as_array(projection),
        matrix_world=_as_array(evaluated.matrix_world),
        clip=(lens.clip_start, lens.clip_end),
    )


def _evaluated(obj: Any, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
    if not isinstance(obj, bpy.types.Object):
        raise ValueError(f"expected a Blender object, got {type(obj).__name__} {obj!r}")
    try:
        evaluated = obj.original.evaluated_get(depsgraph)
    except ReferenceError:
        raise ValueError("expected a Blender object, got one that was removed from Blender") from None
    if not evaluated.is_evaluated:
        raise ValueError(f"object {obj.name!r} is not in this view's scene, or hidden (hide_viewport): leave it out")
    return evaluated


def _as_array(rows: Any) -> FloatArray:
    """Blender's matrix or vectors as float64 (rows, columns); numpy alone takes four times as long."""
    return np.array([row[:] for row in rows], dtype=np.float64)


def _vertices(mesh: bpy.types.Mesh) -> FloatArray:
    flat = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", flat)
    return flat.reshape(-1, 3).astype(np.float64)


def _points(points: npt.ArrayLike, what: str) -> FloatArray:
    """`points` as float64 (N, 3); ValueError, beginning with `what`, if they are no such thing."""
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be numbers of shape (N, 3)") from None
    if array.shape == (0,):
        return array.reshape(0, 3)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{what} must have the shape (N, 3), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite")
    return array


def _names(owner: str, names: Sequence[str] | None, count: int, of_corners: bool) -> list[str]:
    if names is None:
        return [f"{'corner' if of_corners else 'keypoint'}{index}" for index in range(count)]
    if len(names) != count:
        raise ValueError(f"object {owner!r}: {len(names)} keypoint_names for {count} keypoints")
    return list(names)
