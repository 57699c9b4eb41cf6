"""The surfaces that a render shows in one frame, as arrays: numpy alone, no Blender.

Boxes, silhouettes, visibility, object coordinates and flow are computed from these, and from nothing else of the scene.
`blender_jobs._render.snapshot` takes them out of Blender.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray, extent, inverse_transform, transform

Key = tuple[Any, ...]
"""Which of an object's bodies: () for itself; for a copy the full name of what makes it, then Blender's numbers."""
BodyId = tuple[str, Key]
"""The full name of an object, and which of its bodies."""

THROUGH, UNSURE, SOLID = 0, 1, 2
"""How a surface covers what is behind it: it is looked through; only the rendered pixels tell; it covers it."""

Cover = npt.NDArray[np.uint8]

_BOX_ENDS = np.array(
    [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=bool
)


@dataclass(frozen=True, eq=False)
class Faces:
    """A mesh's polygons, by which two states of one mesh are matched."""

    corners: npt.NDArray[np.int32]
    """(C,): the vertices of all faces, one face after another."""
    starts: npt.NDArray[np.int32]
    """(F,): where each face begins among the corners."""

    def same(self, other: Faces) -> bool:
        """Whether the other faces join the same vertices."""
        return np.array_equal(self.corners, other.corners) and np.array_equal(self.starts, other.starts)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in its object's own frame, shared by all copies of it."""

    vertices: npt.NDArray[np.float32]
    """(V, 3); among them those that no triangle has."""
    triangles: npt.NDArray[np.int32]
    """(T, 3) numbers of vertices."""
    faces: Faces | None = None
    """None where nobody asked for them, or where the surface is made of strands or points."""

    @cached_property
    def extent(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and the highest of x, y, z, (3,) each, of all vertices."""
        return extent(self.vertices)


@dataclass(frozen=True, eq=False)
class Body:
    """One surface in the scene: an object's own, or that of one copy of it."""

    owner: str
    """The object's full name (`bpy.types.ID.name_full`), which tells objects of several libraries apart."""
    name: str
    """The object's name."""
    key: Key
    matrix: FloatArray
    """(4, 4): its own frame to the world, scale included."""
    mesh: Mesh
    cover: Cover
    """(T,) of `THROUGH`, `UNSURE`, `SOLID`; or (1,) for all triangles alike."""
    unseen: str = ""
    """Why the picture does not show it, as the end of a sentence; empty: it does, where nothing hides it."""
    hides: bool = True
    """Whether it hides what is behind it; a holdout does, and is not seen itself."""
    displaced: bool = False
    """Whether its material moves its surface, which only the rendered pixels tell."""

    @property
    def bodies(self) -> tuple[Body, ...]:
        """Itself: what a `Compound` has several of."""
        return (self,)

    @property
    def ids(self) -> frozenset[BodyId]:
        """Which body it is."""
        return frozenset([(self.owner, self.key)])

    @cached_property
    def triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) numbers of `vertices`: the triangles that can be seen."""
        if len(self.cover) == 1:
            return self.mesh.triangles if self.cover[0] else self.mesh.triangles[:0]
        return self.mesh.triangles[self.cover > THROUGH]

    @cached_property
    def vertices(self) -> FloatArray:
        """(V, 3), world: the mesh's vertices, numbered as there."""
        return transform(self.matrix, self.mesh.vertices)

    @cached_property
    def outline(self) -> FloatArray:
        """(N, 3), world: the vertices that a visible triangle has."""
        return self.vertices if self._all_used else self.vertices[self._used]

    @cached_property
    def outline_triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) numbers of `outline`: the triangles that can be seen."""
        if self._all_used:
            return self.triangles
        return (np.cumsum(self._used, dtype=np.int32) - np.int32(1))[self.triangles]

    @cached_property
    def box(self) -> FloatArray:
        """(8, 3): the corners of the box around what can be seen, in its own frame, as Blender's `bound_box` has them.

        With - and + for the ends of x, y, z: ---, --+, -++, -+-, +--, +-+, +++, ++-.
        """
        low, high = self.extent
        return np.where(_BOX_ENDS, high, low)

    @cached_property
    def extent(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and the highest of x, y, z, (3,) each, of what can be seen, in its own frame."""
        return self.mesh.extent if self._all_used else extent(self.mesh.vertices[self._used])

    @cached_property
    def _used(self) -> npt.NDArray[np.bool_]:
        used = np.zeros(len(self.mesh.vertices), dtype=bool)
        used[self.triangles.ravel()] = True
        return used

    @cached_property
    def _all_used(self) -> bool:
        return bool(self._used.all())

    def to_world(self, points: FloatArray) -> FloatArray:
        """Points (N, 3) from its own frame to the world."""
        return transform(self.matrix, points)


@dataclass(frozen=True, eq=False)
class Compound:
    """Several surfaces as one thing, in one frame; what it says is what `Body` says of one."""

    bodies: tuple[Body, ...]
    """Such as the camera could see; at least one, or there is nothing to say."""
    matrix: FloatArray
    """(4, 4): its own frame to the world, scale included."""

    @property
    def ids(self) -> frozenset[BodyId]:
        """Which bodies it is made of."""
        return frozenset((body.owner, body.key) for body in self.bodies)

    @property
    def displaced(self) -> bool:
        """Whether a material moves one of the surfaces."""
        return any(body.displaced for body in self.bodies)

    @cached_property
    def vertices(self) -> FloatArray:
        """(V, 3), world."""
        return np.concatenate([body.vertices for body in self.bodies])

    @cached_property
    def triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) numbers of `vertices`: the triangles that can be seen."""
        return _numbered([body.triangles for body in self.bodies], [body.vertices for body in self.bodies])

    @cached_property
    def outline(self) -> FloatArray:
        """(N, 3), world: the vertices that a visible triangle has."""
        return np.concatenate([body.outline for body in self.bodies])

    @cached_property
    def outline_triangles(self) -> npt.NDArray[np.int32]:
        """(T, 3) numbers of `outline`: the triangles that can be seen."""
        return _numbered([body.outline_triangles for body in self.bodies], [body.outline for body in self.bodies])

    @cached_property
    def box(self) -> FloatArray:
        """(8, 3): the corners of the box around all that can be seen, in its own frame, in the order of `Body.box`."""
        ends = [self._extent_of(body) for body in self.bodies]
        low, high = (fold([end[at] for end in ends], axis=0) for at, fold in ((0, np.min), (1, np.max)))
        return np.where(_BOX_ENDS, high, low)

    def to_world(self, points: FloatArray) -> FloatArray:
        """Points (N, 3) from its own frame to the world."""
        return transform(self.matrix, points)

    def _extent_of(self, body: Body) -> tuple[FloatArray, FloatArray]:
        if np.array_equal(body.matrix, self.matrix):
            return body.extent
        return extent(inverse_transform(self.matrix, body.outline))


Surface: TypeAlias = "Body | Compound"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One frame as a render evaluates it; refers to nothing of Blender's."""

    camera: Camera
    layer: str
    """The view layer's name."""
    bodies: Mapping[str, Mapping[Key, Body]] = field(default_factory=dict)
    """By the full name of the object; what has no surface is not among them."""
    matrices: Mapping[str, FloatArray] = field(default_factory=dict)
    """(4, 4), own frame to world, by the full name: all objects that take part in the render, copies apart."""
    bones: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]] = field(default_factory=dict)
    """Head and tail (3,) of each bone by name, in the armature's own frame, by the armature's full name."""

    @cached_property
    def all_bodies(self) -> list[Body]:
        """All bodies, in Blender's order."""
        return [body for bodies in self.bodies.values() for body in bodies.values()]


def _numbered(triangles: list[npt.NDArray[np.int32]], vertices: list[FloatArray]) -> npt.NDArray[np.int32]:
    """The triangles (T, 3) of several surfaces, as numbers of all their vertices one after another."""
    starts = np.cumsum([0, *map(len, vertices[:-1])]).tolist()
    shifted = [entry + np.int32(start) for entry, start in zip(triangles, starts, strict=True)]
    numbers: npt.NDArray[np.int32] = np.concatenate(shifted).astype(np.int32)
    return numbers


def joined(meshes: list[Mesh], covers: list[Cover]) -> tuple[Mesh, Cover]:
    """Several surfaces of one object as one: its mesh and its hair, say."""
    if len(meshes) == 1:
        return meshes[0], covers[0]
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, starts.tolist(), strict=True)]
    spread = [
        np.broadcast_to(cover, len(mesh.triangles)).astype(np.uint8) for mesh, cover in zip(meshes, covers, strict=True)
    ]
    mesh = Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(triangles).astype(np.int32))
    return mesh, np.concatenate(spread)


_SIDES = 6
_WIDER = (1 + 1 / np.cos(np.pi / _SIDES)) / 2
"""Of the radius: where the corners of a tube are, so that it covers about as much as a round one."""
_OCTAHEDRON = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)
_OCTAHEDRON_FACES = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], dtype=np.int32
)
_MOST_BALLS = 10_000
"""More points than these are drawn as octahedra, of 8 triangles each instead of 128."""


def tubes(points: FloatArray, sizes: npt.NDArray[np.int64], radii: FloatArray) -> Mesh:
    """Return strands as tubes of six sides; a strand of fewer than two points is left out.

    Args:
        points: (P, 3), the points of all strands, one strand after another.
        sizes: (S,), how many points each strand has.
        radii: (P,).
    """
    strand = np.arange(len(sizes)).repeat(sizes)
    links = np.flatnonzero(strand[1:] == strand[:-1])
    along = np.zeros_like(points)
    along[links] = points[links + 1] - points[links]
    ends = np.setdiff1d(np.arange(len(points)), links)
    before = ends[ends > 0]
    same = strand[before - 1] == strand[before]
    along[before[same]] = along[before[same] - 1]
    around = _ring(along) * (_WIDER * radii)[:, None, None]  # (P, sides, 3)
    vertices = (points[:, None] + around).reshape(-1, 3)
    side = np.arange(_SIDES)
    following = (side + 1) % _SIDES
    here, there = links[:, None] * _SIDES, (links[:, None] + 1) * _SIDES
    first = np.stack([here + side, here + following, there + side], axis=-1)
    second = np.stack([here + following, there + following, there + side], axis=-1)
    triangles = np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])
    return Mesh(vertices.astype(np.float32), triangles.astype(np.int32))


def balls(centres: FloatArray, radii: FloatArray) -> Mesh:
    """Return points (P, 3) with radii (P,) as balls, whose ends along the axes are exact."""
    vertices, faces = _OCTAHEDRON, _OCTAHEDRON_FACES
    for _ in range(2 if len(centres) <= _MOST_BALLS else 0):
        vertices, faces = _divided(vertices, faces)
    placed = centres[:, None] + vertices * radii[:, None, None]
    starts = np.arange(len(centres), dtype=np.int64) * len(vertices)
    triangles = (starts[:, None, None] + faces).reshape(-1, 3)
    return Mesh(placed.reshape(-1, 3).astype(np.float32), triangles.astype(np.int32))


def _ring(along: FloatArray) -> FloatArray:
    """Unit directions (P, sides, 3) around directions (P, 3)."""
    lengths = np.maximum(np.sqrt((along * along).cumsum(axis=1)[:, -1:]), 1e-30)
    ahead = along / lengths
    other = np.where(np.abs(ahead[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    across = _cross(ahead, other)
    across /= np.maximum(np.sqrt((across * across).cumsum(axis=1)[:, -1:]), 1e-30)
    up = _cross(ahead, across)
    turns = [2 * math.pi * side / _SIDES for side in range(_SIDES)]
    return np.stack([math.cos(turn) * across + math.sin(turn) * up for turn in turns], axis=1)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    turned: FloatArray = a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]
    return turned


def _divided(vertices: FloatArray, faces: npt.NDArray[np.int32]) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Each face as four, the new vertices on the unit ball."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, number = np.unique(sides, axis=0, return_inverse=True)
    middle = vertices[edges[:, 0]] + vertices[edges[:, 1]]
    middle /= np.sqrt((middle * middle).cumsum(axis=1)[:, -1:])
    ab, bc, ca = (number.reshape(3, -1) + len(vertices)).astype(np.int32)
    a, b, c = faces.T
    corners = [[a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]]
    divided = np.concatenate([np.stack(corner, axis=1) for corner in corners])
    return np.concatenate([vertices, middle]), divided.astype(np.int32)
