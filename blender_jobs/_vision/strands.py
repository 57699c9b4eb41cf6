"""Surfaces of what has no faces, as triangles: hair as tubes, point clouds as balls. numpy alone, no Blender."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import FloatArray
from blender_jobs._vision.surfaces import Mesh

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
