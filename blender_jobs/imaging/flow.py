"""Optical flow between two states of a scene, from where each surface is in both.

Not Cycles' vector pass, which knows of animation alone: what a job's `step` changes from frame to frame it would miss,
and it evaluates other frames, which disturbs physics. Here a state is a snapshot, taken when its frame is the present.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt
from mathutils.bvhtree import BVHTree

from blender_jobs.imaging.geometry import Geometry, have, points
from blender_jobs.vision.camera import Camera, FloatArray, rounded, transform

Key = tuple[Any, ...]
"""Which of an object's bodies: () for itself, otherwise who makes the copy, and Blender's number of it."""


@dataclass(frozen=True, eq=False)
class Shape:
    """An evaluated mesh in its object's own frame."""

    vertices: npt.NDArray[np.float32]
    """(V, 3)."""
    corners: npt.NDArray[np.int32]
    """(C,): the vertices of all faces, one face after another."""
    starts: npt.NDArray[np.int32]
    """(F,): where each face begins among the corners."""

    def same_faces(self, other: Shape) -> bool:
        """Whether the other shape is this one with its vertices moved."""
        return (
            len(self.vertices) == len(other.vertices)
            and np.array_equal(self.corners, other.corners)
            and np.array_equal(self.starts, other.starts)
        )

    def triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) numbers of vertices: each face as a fan around its first corner."""
        sizes = np.diff(self.starts, append=len(self.corners))
        first = np.repeat(self.starts, sizes - 2)
        within = np.arange(len(first)) - np.repeat(np.cumsum(sizes - 2) - (sizes - 2), sizes - 2)
        triangles: npt.NDArray[np.int32] = self.corners[
            np.stack([first, first + within + 1, first + within + 2], axis=1)
        ]
        return triangles


@dataclass(frozen=True, eq=False)
class Body:
    """A surface in the scene: an object, or one copy of it."""

    matrix: FloatArray
    """(4, 4): its own frame to the world."""
    box: tuple[FloatArray, FloatArray]
    """The lowest and the highest of x, y, z, (3,) each, in its own frame."""
    shape: Shape | None
    """None: not a mesh."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where all surfaces of a scene are at one time."""

    bodies: Mapping[str, Mapping[Key, Body]]
    """By the full name of the object."""


def snapshot(depsgraph: bpy.types.Depsgraph, before: Snapshot | None = None) -> Snapshot:
    """Return where everything in an evaluated depsgraph is now; it refers to nothing of Blender's.

    `before` saves memory and time: shapes that have not changed since are shared with it.
    """
    bodies: dict[str, dict[Key, Body]] = {}
    shapes: dict[int, Shape] = {}  # by the mesh's address: copies share one
    for instance in depsgraph.object_instances:
        obj = instance.object
        name, key = obj.original.name_full, _key(instance)
        last = before.bodies.get(name, {}).get(key) if before else None
        shape = None
        if obj.type == "MESH" and len(obj.data.polygons):
            address = obj.data.as_pointer()
            if address not in shapes:
                shapes[address] = _shape(obj.data, last.shape if last else None)
            shape = shapes[address]
        elif not any(obj.dimensions):
            continue
        matrix = np.array([row[:] for row in instance.matrix_world], dtype=np.float64)
        bodies.setdefault(name, {})[key] = Body(matrix, _box(obj, shape), shape)
    return Snapshot(bodies)


def flow(
    geometry: Geometry, camera: Camera, now: Snapshot, camera_then: Camera, then: Snapshot
) -> npt.NDArray[np.float32]:
    """Return how far each pixel's surface moves in the image, float32 (H, W, 2): x, y in pixels, 6 decimals.

    From `now` (the frame of `geometry` and `camera`) to `then` (the next frame for forward flow, the one before for
    backward flow); the camera's own motion is in it. Occluded then or not, in the image then or not.

    - Objects move by their matrices; meshes whose vertices moved, by those of the face nearest to the point. A mesh
      that has other faces then moves by its object's matrices alone.
    - What exists in one of the two states only is taken to stand still in the world.
    - (0, 0) where there is nothing, and where the surface is behind the camera then.
    - Among several copies of an object (collection instances, particles), the one in whose bounding box the pixel's
      point lies is followed; between states copies are told by Blender's persistent ids.
    """
    index = have(geometry.index)
    result = np.zeros((*index.shape, 2), dtype=np.float32)
    pixels, flat = points(geometry)
    if not len(flat):
        return result
    world = camera.unproject(pixels)
    seen = index.ravel()[flat]
    order = np.argsort(seen, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(seen[order])) + 1):
        name = geometry.objects[int(seen[chosen[0]]) - 1]
        world[chosen] = _moved(world[chosen], now.bodies.get(name, {}), then.bodies.get(name, {}))
    there = camera_then.project(world)
    shift = rounded(there[:, :2] - pixels[:, :2])
    shift[there[:, 2] <= 0] = 0
    result.reshape(-1, 2)[flat] = shift
    return result


def _key(instance: bpy.types.DepsgraphObjectInstance) -> Key:
    if not instance.is_instance:
        return ()
    return (instance.parent.original.name_full, *instance.persistent_id)


def _shape(mesh: bpy.types.Mesh, last: Shape | None) -> Shape:
    vertices = _column(mesh.vertices, "co", np.float32, 3).reshape(-1, 3)
    same_size = last is not None and len(last.corners) == len(mesh.loops) and len(last.starts) == len(mesh.polygons)
    if last is not None and same_size and np.array_equal(vertices, last.vertices):
        return last
    corners = _column(mesh.loops, "vertex_index", np.int32, 1)
    shape = Shape(vertices, corners, _column(mesh.polygons, "loop_start", np.int32, 1))
    if last is not None and shape.same_faces(last):
        return Shape(vertices, last.corners, last.starts)
    return shape


def _column(collection: Any, name: str, dtype: Any, width: int) -> npt.NDArray[Any]:
    values = np.empty(width * len(collection), dtype=dtype)
    collection.foreach_get(name, values)
    return values


def _box(obj: bpy.types.Object, shape: Shape | None) -> tuple[FloatArray, FloatArray]:
    ends = np.array([corner[:] for corner in obj.bound_box]) if shape is None else shape.vertices
    return ends.min(axis=0).astype(np.float64), ends.max(axis=0).astype(np.float64)


def _moved(world: FloatArray, now: Mapping[Key, Body], then: Mapping[Key, Body]) -> FloatArray:
    """World points (N, 3) on the bodies of one object, where they are then."""
    if not now:
        return world
    bodies = list(now.items())
    owners = _owners(world, [body for _, body in bodies])
    result = world.copy()
    for number in np.unique(owners).tolist():
        key, body = bodies[number]
        if key in then:
            result[owners == number] = _carried(world[owners == number], body, then[key])
    return result


def _owners(world: FloatArray, bodies: list[Body]) -> npt.NDArray[np.intp]:
    """(N,): the body whose bounding box each point (N, 3) is in, or least far out of."""
    owners = np.zeros(len(world), dtype=np.intp)
    if len(bodies) == 1:
        return owners
    least: FloatArray = np.full(len(world), np.inf)
    for number, body in enumerate(bodies):
        own = _to_own(body.matrix, world)
        low, high = body.box
        scale = np.linalg.norm(body.matrix[:3, :3], axis=0)
        outside = np.linalg.norm(np.maximum(np.maximum(low - own, own - high), 0) * scale, axis=1)
        nearer = outside < least
        owners[nearer] = number
        least = np.minimum(least, outside)
    return owners


def _carried(world: FloatArray, now: Body, then: Body) -> FloatArray:
    """World points (N, 3) on a body, where they are once it is as `then`."""
    bends = now.shape is not None and then.shape is not None and now.shape is not then.shape
    if not bends and np.array_equal(now.matrix, then.matrix):
        return world
    own = _to_own(now.matrix, world)
    if now.shape is not None and then.shape is not None and bends:
        own = _bent(own, now.shape, then.shape)
    return transform(then.matrix, own)


def _to_own(matrix: FloatArray, world: FloatArray) -> FloatArray:
    """World points (N, 3) in a body's own frame; a flattened body (a scale of 0) has an inverse, too."""
    inverse: FloatArray = np.linalg.pinv(matrix[:3, :3])
    own: FloatArray = (world - matrix[:3, 3]) @ inverse.T
    return own


def _bent(own: FloatArray, now: Shape, then: Shape) -> FloatArray:
    """Points (N, 3) moved as the vertices of the face nearest to each, weighted by its barycentric coordinates."""
    if np.array_equal(now.vertices, then.vertices) or not now.same_faces(then):
        return own
    triangles = now.triangles()
    tree = BVHTree.FromPolygons(now.vertices.tolist(), triangles.tolist(), all_triangles=True)
    nearest = triangles[[tree.find_nearest(point)[2] for point in own.tolist()]]
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
