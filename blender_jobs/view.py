"""What the scene's camera sees: pixels, visibility, boxes and poses of points and objects.

Image coordinates are continuous pixels, x right, y down, origin at the outer corner of the top-left pixel; the
camera frame is OpenCV's (x right, y down, z forward), the world Blender's (z up, metres). See
`blender_jobs.vision.camera`; for cameras whose lens distorts also `vision.distortion`: pixels are those of the
distorted image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs.imaging.geometry import Geometry, Label
from blender_jobs.lens import scene_camera
from blender_jobs.parts import CORNERS, Points, as_points, numbered
from blender_jobs.register import Register
from blender_jobs.vision.boxes import Box, boxes, truncation
from blender_jobs.vision.camera import Camera, FloatArray, rigid, rounded
from blender_jobs.vision.shape import Shape, original
from blender_jobs.vision.silhouette import silhouette
from blender_jobs.vision.visibility import TOLERANCE_M, visibility


class View:
    """What the scene's camera sees in the current frame.

    A snapshot of the camera: make a new one after the frame changes. Objects are seen as the viewport's
    depsgraph evaluates them, with modifiers, parents, animation and physics. A modifier's render levels make no
    difference here; what `hide_render` hides is not described, and hides nothing.

    Args:
        scene: the scene; its camera must be a perspective or an orthographic one.
        depsgraph: the scene's, evaluated; by default the current context's.
        geometry: the rendered frame's, if there is one; its `index` tells how much of an object is visible.
        categories: COCO's ``categories`` that the job declares, if it declares any.

    Raises:
        ValueError: there is no camera, or one that K and an OpenCV pose cannot describe (panoramic, mirrored,
            sheared), or one with a distortion that cannot be undone, or the depsgraph is of another scene.
    """

    def __init__(
        self,
        scene: bpy.types.Scene,
        depsgraph: bpy.types.Depsgraph | None = None,
        geometry: Geometry | None = None,
        categories: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.depsgraph = depsgraph or bpy.context.evaluated_depsgraph_get()
        if self.depsgraph.scene.original != scene:
            raise ValueError(f"the depsgraph is not of scene {scene.name!r}: pass the one that is")
        self._scene = scene
        self._camera = scene_camera(scene, self.depsgraph)
        self._geometry = geometry
        self._register = Register(categories)

    @property
    def lens(self) -> Camera:
        """The camera, to compute with."""
        return self._camera

    @property
    def labels(self) -> Mapping[str, Label]:
        """What `describe` has described so far, by the objects' full names, in the order of their segmentation ids."""
        return self._register.labels

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
        """The camera, ready for JSON: name, type, width, height, K, cam_to_world, clip_start, clip_end, distortion.

        `cam_to_world` is the rigid 4x4 from the OpenCV camera frame (x right, y down, z forward) to Blender's
        world. For a point (x, y, z) in the camera frame, z is the depth and K @ (x/z, y/z, 1) the pixel, for
        type `ORTHO` K @ (x, y, 1). `distortion` are OpenCV's coefficients, which move (x/z, y/z) before K is
        applied; an empty list for none. `project` computes with these very numbers.
        """
        return self._camera.as_json()

    def project(self, points: npt.ArrayLike) -> FloatArray:
        """World points (N, 3), metres, to float64 (N, 3): x and y in pixels, depth in metres.

        x right, y down from the outer corner of the top-left pixel; depth along the optical axis (z of the
        OpenCV camera frame). A point at or behind the camera has a depth <= 0 and x = y = 0. One beyond the
        reach of a distorting lens is on the reach's rim, outside the image.
        """
        return self._camera.project(as_points(points, "project(): points"))

    def visibility(
        self,
        points: npt.ArrayLike,
        tolerance_m: float = TOLERANCE_M,
        self_tolerance_m: float = 0.0,
        parts: Sequence[bpy.types.Object] = (),
    ) -> npt.NDArray[np.uint8]:
        """World points (N, 3), metres, to uint8 (N,) as COCO has it: 0 outside, 1 occluded, 2 visible.

        Outside is outside the image, behind the camera or out of its clip range. Occluded is a point that has
        a surface before it, between the near clip plane and `tolerance_m` short of the point; along parallel
        rays for an orthographic camera. It is `Scene.ray_cast` that looks, and it sees what the viewport
        shows: faces from both sides, transparent ones as if solid, objects hidden only in renders too.

        `self_tolerance_m` is for points within a body, as joints are: surfaces of `parts` that lie less than this
        before the point do not hide it; what is behind them still may.
        """
        own = [original(part, self.depsgraph) for part in parts]
        world = as_points(points, "visibility(): points")
        return self._visibility(world, self._camera.project(world), own, self_tolerance_m, tolerance_m)

    def keypoints(
        self,
        obj: bpy.types.Object,
        points: Points | npt.ArrayLike | None = None,
        self_tolerance_m: float = 0.0,
        parts: Sequence[bpy.types.Object] = (),
    ) -> npt.NDArray[np.float32]:
        """An object's keypoints, float32 (K, 4): x and y in pixels, visibility (0, 1, 2), depth in metres.

        `points` are `blender_jobs.parts.Points`, or (K, 3) in the object's own frame, in its units before scale;
        by default the corners of its bounding box, in the order of `corners`. Keypoints outside the image keep
        their x and y; at or behind the camera both are 0. See `project` and `visibility`; what is tolerated are
        surfaces of the object itself, of the points' owners and of `parts`.
        """
        shape = Shape(obj, self.depsgraph)
        return self._rows(shape, _placed(shape, points), self_tolerance_m, parts).astype(np.float32)

    def corners(self, obj: bpy.types.Object) -> FloatArray:
        """The corners of an object's oriented bounding box, float64 (8, 3): Blender's world, metres.

        Ordered as Blender's `bound_box`; with - and + for the ends of the object's own x, y and z:
        ---, --+, -++, -+-, +--, +-+, +++, ++-.
        """
        shape = Shape(obj, self.depsgraph)
        return shape.to_world(shape.box)

    def bbox(self, obj: bpy.types.Object) -> tuple[Box, Box]:
        """The 2D boxes [x, y, width, height] around an object's projection, in pixels: (clipped, unclipped).

        Around its evaluated mesh, hidden by others or not; around its bounding box if it has no surface. What is
        out of the camera's clip range is cut off, as in the picture. The clipped box is the one around the
        part in the image, the unclipped one around all; [0, 0, 0, 0] where there is nothing.
        """
        return self._boxes(Shape(obj, self.depsgraph))

    def silhouette(self, obj: bpy.types.Object) -> npt.NDArray[np.bool_]:
        """The pixels whose centres an object's mesh covers, hidden by others or not: bool (H, W).

        Its bounding box's if it has no surface. What is out of the camera's clip range covers nothing.
        """
        return self._silhouette(Shape(obj, self.depsgraph))

    def pose(self, obj: bpy.types.Object) -> FloatArray:
        """An object's pose, float64 (4, 4), rigid: the object's own frame to the OpenCV camera frame, metres.

        It moves the object's points once they are scaled: scale is removed (mirroring counts as a negative
        scale of all three axes, so that the rotation is one).
        """
        return self._pose(Shape(obj, self.depsgraph))

    def describe(
        self,
        obj: bpy.types.Object,
        category: str,
        keypoints: Points | npt.ArrayLike | None = None,
        keypoint_names: Sequence[str] | None = None,
        *,
        self_tolerance_m: float = 0.0,
        parts: Sequence[bpy.types.Object] = (),
        **extra: Any,
    ) -> dict[str, Any]:
        """One object's annotation, ready for JSON: always the same fields, floats of 6 decimals.

        - name, category; category_id, if the job declares categories
        - segmentation_id: 1, 2, ... in the order in which objects are first described in this view
        - pose: 4x4 rigid, the object's own frame to the OpenCV camera frame, see `pose`
        - matrix_world: 4x4, the object's own frame to Blender's world, scale included
        - dimensions: [x, y, z] of the oriented bounding box, metres
        - bbox, bbox_unclipped: [x, y, width, height], pixels, see `bbox`
        - truncation: the fraction of bbox_unclipped's area outside the image; 1 for what is behind the camera
        - box3d: the bounding box's 8 corners, Blender's world, metres, see `corners`
        - keypoint_names: K names
        - keypoints: [x, y, visibility] * K as COCO, keypoint_depths: K, metres; as float32, the rows of
          `keypoints`
        - num_keypoints: how many have a visibility above 0
        - if there is a segmentation: visible_pixels, how many show the object; silhouette_pixels, how many it
          would cover with nothing before it, see `silhouette`; visible_fraction, the one by the other, at most 1,
          0 for an empty silhouette

        Args:
            obj: the object.
            category: its class; one of those that the job declares, if it does.
            keypoints: `blender_jobs.parts.Points`, or (K, 3) points in the object's own frame; by default the
                corners of its bounding box.
            keypoint_names: K names; by default those of the `Points`, those of the category if it has K
                keypoints, ``corner0`` to ``corner7``, or ``keypoint0``... for points of your own.
            self_tolerance_m: for keypoints within a body: surfaces of the object, of the points' owners and of
                `parts` less than this before a keypoint do not hide it, see `visibility`.
            parts: more objects that are one body with this one.
            extra: more fields, taken as they are.

        Raises:
            ValueError: points of another shape, another number of names, an extra field named like one above,
                an object that is not in the scene, a category that is not declared, or keypoints other than the
                category's.
        """
        shape = Shape(obj, self.depsgraph)
        if shape.evaluated.hide_render:
            raise ValueError(f"object {shape.name!r} is hidden in renders (hide_render): leave it out")
        ids = self._register.enter(shape, category)
        points = _placed(shape, keypoints)
        given = points.names if keypoint_names is None and points is keypoints else keypoint_names
        names = self._register.names(shape.name, category, given, points.names)
        rows = self._rows(shape, points, self_tolerance_m, parts)
        box = shape.to_world(shape.box)
        clipped, unclipped = self._boxes(shape)
        annotation = {
            "name": shape.name,
            "category": category,
            **ids,
            "pose": rounded(self._pose(shape)).tolist(),
            "matrix_world": rounded(shape.matrix_world).tolist(),
            "dimensions": rounded(np.linalg.norm(box[[4, 3, 1]] - box[0], axis=1)).tolist(),
            "bbox": clipped,
            "bbox_unclipped": unclipped,
            "truncation": truncation(self._camera, unclipped),
            "box3d": rounded(box).tolist(),
            "keypoint_names": names,
            "keypoints": rows[:, :3].ravel().tolist(),
            "keypoint_depths": rows[:, 3].tolist(),
            "num_keypoints": int(np.count_nonzero(rows[:, 2])),
            **self._visible(shape),
        }
        if taken := sorted(annotation.keys() & extra.keys()):
            raise ValueError(
                f"object {shape.name!r}: {taken[0]!r} is described already; name the extra field otherwise"
            )
        return {**annotation, **extra}

    def _rows(
        self, shape: Shape, points: Points, self_tolerance_m: float, parts: Sequence[bpy.types.Object]
    ) -> FloatArray:
        """(K, 4) x, y, visibility, depth, rounded: what `keypoints` and `describe` both say."""
        own = [original(part, self.depsgraph) for part in (*parts, *points.owners)]
        pixels = self._camera.project(points.positions)
        rows = pixels[:, [0, 1, 2, 2]]
        rows[:, 2] = self._visibility(points.positions, pixels, [shape.original, *own], self_tolerance_m)
        return rounded(rows)

    def _visibility(
        self,
        world: FloatArray,
        pixels: FloatArray,
        own: Sequence[bpy.types.Object],
        self_tolerance_m: float,
        tolerance_m: float = TOLERANCE_M,
    ) -> npt.NDArray[np.uint8]:
        return visibility(self._scene, self.depsgraph, self._camera, world, pixels, tolerance_m, own, self_tolerance_m)

    def _visible(self, shape: Shape) -> dict[str, Any]:
        """The fields that the segmentation tells; none without one."""
        if self._geometry is None or self._geometry.index is None:
            return {}
        objects = list(self._geometry.objects)
        number = objects.index(shape.full_name) + 1 if shape.full_name in objects else -1
        visible = int(np.count_nonzero(self._geometry.index == number))
        covered = int(np.count_nonzero(self._silhouette(shape)))
        fraction = float(rounded(min(1.0, visible / covered))) if covered else 0.0
        return {"visible_pixels": visible, "silhouette_pixels": covered, "visible_fraction": fraction}

    def _silhouette(self, shape: Shape) -> npt.NDArray[np.bool_]:
        return silhouette(self._camera, shape.to_world(shape.vertices), shape.faces)

    def _pose(self, shape: Shape) -> FloatArray:
        return self._camera.world_to_cam @ rigid(shape.matrix_world)

    def _boxes(self, shape: Shape) -> tuple[Box, Box]:
        return boxes(self._camera, shape.to_world(shape.vertices), shape.triangles)


def _placed(shape: Shape, points: Points | npt.ArrayLike | None) -> Points:
    """An object's keypoints in the world; by default its bounding box's corners."""
    if isinstance(points, Points):
        return points
    if points is None:
        return Points(CORNERS, shape.to_world(shape.box))
    places = as_points(points, f"object {shape.name!r}: keypoints")
    return Points(numbered(len(places)), shape.to_world(places))
