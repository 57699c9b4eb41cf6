"""An object as Blender evaluates it in this frame: its place, its mesh, its bounding box."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs.vision.camera import FloatArray, extent, transform

_BOX_ENDS = np.array(
    [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=bool
)
_BOX_FACES = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [2, 3, 7, 6], [0, 3, 7, 4], [1, 2, 6, 5]])
_BOX_TRIANGLES: npt.NDArray[np.int32] = np.concatenate(
    [_BOX_FACES[:, [0, 1, 2]], _BOX_FACES[:, [0, 2, 3]]], dtype=np.int32
)
_SURFACES = ("CURVE", "SURFACE", "FONT", "META")  # of which Blender makes meshes


class Shape:
    """One object as evaluated in this frame: its mesh, that of its curve, text or metaballs, or its bounding box.

    Refers to Blender's evaluated data: not to be kept after the frame changes.

    Args:
        obj: the object.
        depsgraph: the scene's, evaluated.

    Raises:
        ValueError: it is no object, or not in the scene; one line.
    """

    def __init__(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> None:
        self.evaluated = evaluated(obj, depsgraph)
        self.name: str = self.evaluated.name
        self.full_name: str = self.evaluated.name_full
        """Also tells objects of one name in several linked libraries apart."""
        self.original: bpy.types.Object = self.evaluated.original
        self.matrix_world = as_array(self.evaluated.matrix_world)
        self._mesh = mesh_of(self.evaluated)
        self._faces: npt.NDArray[np.int32] | None = None
        if self._mesh is not None:
            self.vertices = vertices(self._mesh)
        else:
            self.vertices, self._faces = _converted(self.evaluated)
        """(N, 3) in the object's own frame, N > 0."""

    @cached_property
    def box(self) -> FloatArray:
        """(8, 3) the bounding box's corners in the object's own frame, ordered as Blender's `bound_box`.

        Not `bound_box` itself, which leaves out a subdivision surface.
        """
        low, high = extent(self.vertices)
        return np.where(_BOX_ENDS, high, low)

    @property
    def faces(self) -> npt.NDArray[np.int32]:
        """(T, 3) indices into `vertices`: the mesh's faces as triangles, or the bounding box's."""
        if self._faces is None:
            self._faces = triangles(self._mesh)
        return self._faces

    def triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) indices into `vertices`; among them each vertex by itself, so that loose ones count."""
        alone = np.arange(len(self.vertices), dtype=np.int32).repeat(3).reshape(-1, 3)
        return np.concatenate([alone, self.faces])

    def to_world(self, points: FloatArray) -> FloatArray:
        """Points (N, 3) from the object's own frame to the world."""
        return transform(self.matrix_world, points)


def evaluated(obj: Any, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
    """Return the object as the depsgraph evaluates it.

    Raises:
        ValueError: it is no object, or none of the depsgraph's; one line.
    """
    if not isinstance(obj, bpy.types.Object):
        raise ValueError(f"expected a Blender object, got {type(obj).__name__} {obj!r}")
    try:
        found = obj.original.evaluated_get(depsgraph)
    except ReferenceError:
        raise ValueError("expected a Blender object, got one that was removed from Blender") from None
    if not found.is_evaluated:
        raise ValueError(f"object {obj.name!r} is not in this view's scene, or hidden (hide_viewport): leave it out")
    return found


def original(obj: Any, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
    """Return the object itself, of which the depsgraph has an evaluated copy; ValueError as `evaluated`."""
    return evaluated(obj, depsgraph).original


def mesh_of(obj: bpy.types.Object) -> bpy.types.Mesh | None:
    """Return an evaluated object's mesh, None if it has none or an empty one."""
    return obj.data if obj.type == "MESH" and len(obj.data.vertices) else None


def vertices(mesh: bpy.types.Mesh) -> FloatArray:
    """Return a mesh's vertices, (N, 3), in its own frame."""
    flat = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", flat)
    return flat.reshape(-1, 3).astype(np.float64)


def triangles(mesh: bpy.types.Mesh) -> npt.NDArray[np.int32]:
    """Return a mesh's faces as triangles: (T, 3) numbers of its vertices."""
    mesh.calc_loop_triangles()
    flat = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", flat)
    found: npt.NDArray[np.int32] = flat.reshape(-1, 3)
    return found


def _converted(obj: bpy.types.Object) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """The vertices and triangles of what is no mesh but has a surface; of the bounding box for anything else."""
    mesh = obj.to_mesh() if obj.type in _SURFACES else None
    try:
        if mesh is not None and len(mesh.vertices):
            return vertices(mesh), triangles(mesh)
    finally:
        obj.to_mesh_clear()
    return as_array(obj.bound_box), _BOX_TRIANGLES


def as_array(rows: Any) -> FloatArray:
    """Return Blender's matrix or vectors as float64 (rows, columns); numpy alone takes four times as long."""
    return np.array([row[:] for row in rows], dtype=np.float64)
