"""Where surfaces and cameras are from frame to frame, and the optical flow between two frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt
from mathutils.bvhtree import BVHTree

from blender_jobs._render import snapshot
from blender_jobs._render.geometry import Geometry, points
from blender_jobs._render.segments import Segments
from blender_jobs._vision.camera import Camera, FloatArray, inverse_transform, rounded, transform
from blender_jobs._vision.surfaces import Body, Mesh, Snapshot
from blender_jobs._worker import capture, staging
from blender_jobs._worker.loading import blame
from blender_jobs.orders import Render

State = Mapping[str, Snapshot]
"""One frame, by the names in `Described.cameras`, or under the empty name for the scene's own camera."""


def present(order: Render) -> State:
    """Return the state of the present frame.

    Raises:
        JobError: a camera is missing, or cannot be described.
    """
    states = {}
    for name in order.described.cameras or [""]:
        staging.aim_camera(name, order.job.path)
        with blame(order.job.path, "camera"):
            states[name] = snapshot.take(bpy.context.scene, faces=True)
    return states


@dataclass(frozen=True)
class Window:
    """A frame with its neighbours."""

    before: State | None
    """None in an episode's first frame."""
    now: State
    following: State

    def flows(self, shot: capture.Shot) -> dict[str, npt.NDArray[Any]]:
        """Return the members of the pass ``flow`` for a shot of the frame `now`.

        Without a frame before, nothing has moved: the backward flow is zero.
        """
        forward = self._flow(shot, self.following)
        backward = np.zeros_like(forward) if self.before is None else self._flow(shot, self.before)
        return {"flow_forward.npy": forward, "flow_backward.npy": backward}

    def _flow(self, shot: capture.Shot, then: State) -> npt.NDArray[np.float32]:
        segments, now, after = shot.segments(), self.now[shot.camera], then[shot.camera]
        return flow(segments.geometry, segments, now.camera, now, after.camera, after)


def flow(
    geometry: Geometry, segments: Segments, camera: Camera, now: Snapshot, camera_then: Camera, then: Snapshot
) -> npt.NDArray[np.float32]:
    """Return how far each pixel's surface moves in the image, float32 (H, W, 2): x, y in pixels, 6 decimals.

    From `now` (the frame of `geometry`, `segments` and `camera`) to `then` (the next frame for forward flow, the one
    before for backward flow); the camera's own motion is in it. Occluded then or not, in the image then or not. Both
    snapshots are taken with faces.

    - Objects move by their matrices; meshes whose vertices moved, by those of the face nearest to the point. A mesh
      that has other faces then moves by its object's matrices alone.
    - What exists in one of the two states only is taken to be at rest in the world.
    - (0, 0) where there is nothing, and where the surface is behind the camera then.
    - Copies of an object are distinguished by `segments`, and between the states by Blender's persistent ids.
    """
    index = segments.resolved()
    result = np.zeros((*index.shape, 2), dtype=np.float32)
    pixels, flat = points(geometry)
    if not len(flat):
        return result
    world = camera.unproject(pixels)
    seen = index.ravel()[flat]
    for number in np.unique(seen[seen > 0]).tolist():
        chosen, body = seen == number, segments.bodies[number - 1]
        before, after = (state.bodies.get(body.owner, {}).get(body.key) for state in (now, then))
        if before and after:
            world[chosen] = _carried(world[chosen], before, after)
    there = camera_then.project(world)
    shift = rounded(there[:, :2] - pixels[:, :2])
    shift[there[:, 2] <= 0] = 0
    result.reshape(-1, 2)[flat] = shift
    return result


def _carried(world: FloatArray, now: Body, then: Body) -> FloatArray:
    """World points (N, 3) on a body, where they are once it is as `then`."""
    bends = now.mesh is not then.mesh and not np.array_equal(now.mesh.vertices, then.mesh.vertices)
    if not bends and np.array_equal(now.matrix, then.matrix):
        return world
    own = inverse_transform(now.matrix, world)
    return transform(then.matrix, _bent(own, now.mesh, then.mesh) if bends else own)


def _bent(own: FloatArray, now: Mesh, then: Mesh) -> FloatArray:
    """Points (N, 3) moved as the vertices of the face nearest to each, weighted by its barycentric coordinates."""
    if now.faces is None or then.faces is None or not now.faces.same(then.faces):
        return own
    tree = BVHTree.FromPolygons(now.vertices.tolist(), now.triangles.tolist(), all_triangles=True)
    nearest = now.triangles[[tree.find_nearest(point)[2] for point in own.tolist()]]
    start = now.vertices.astype(np.float64)
    motion = then.vertices.astype(np.float64) - start
    weights = _barycentric(own, start[nearest])
    moved: FloatArray = own + (weights[:, :, None] * motion[nearest]).sum(axis=1)
    return moved


def _barycentric(at: FloatArray, triangles: FloatArray) -> FloatArray:
    """Weights (N, 3) of the corners of triangles (N, 3, 3) for the points (N, 3) dropped onto their planes.

    Ericson, Real-Time Collision Detection, 3.4: by Cramer's rule.
    """
    first, second, to = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0], at - triangles[:, 0]
    aa, ab, bb, ta, tb = (
        (u * v).sum(axis=1) for u, v in ((first, first), (first, second), (second, second), (to, first), (to, second))
    )
    area = np.maximum(aa * bb - ab * ab, 1e-30)
    v, w = (bb * ta - ab * tb) / area, (aa * tb - ab * ta) / area
    return np.stack([1 - v - w, v, w], axis=1)
