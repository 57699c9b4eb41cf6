"""Which body each pixel shows: the objects that a render tells apart, and their copies, which it does not.

An object and all its copies have one index in the render. Where there are several, the pixel's surface point tells: it
lies on the copy whose mesh is nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import bpy  # noqa: F401 - brings mathutils
import numpy as np
import numpy.typing as npt
from mathutils.bvhtree import BVHTree

from blender_jobs._render.geometry import Geometry, have, points
from blender_jobs._vision.camera import FloatArray, inverse_transform, transform
from blender_jobs._vision.silhouette import Patch
from blender_jobs._vision.surfaces import Body, BodyId, Mesh, Snapshot, Surface
from blender_jobs._vision.visibility import Occluders, hides, image_bounds
from blender_jobs._vision.warp import Warp

_MARGIN = 1e-3
"""Of a box's diagonal: a point so far out of the box may still be on the body."""
_NEIGHBOURHOOD = 2
"""Pixels by which a body's bounds in the image are widened."""


class Segments:
    """The body that each pixel's centre shows.

    Args:
        geometry: as rendered, undistorted, with depth and index.
        snapshot: of the same frame and camera.
        warp: from the rendered image to the one with the lens's distortion; None: there is none.
    """

    def __init__(self, geometry: Geometry, snapshot: Snapshot, warp: Warp | None = None) -> None:
        self._rendered_geometry, self._snapshot, self._warp = geometry, snapshot, warp
        self._camera = snapshot.camera.ideal
        self.bodies = snapshot.all_bodies
        self._numbers = {(body.owner, body.key): number for number, body in enumerate(self.bodies, 1)}
        self._trees: dict[Mesh, BVHTree] = {}
        table = np.zeros(len(geometry.objects) + 1, dtype=np.int32)
        self._pending: dict[str, int] = {}
        for index, name in enumerate(geometry.objects, 1):
            found = snapshot.bodies.get(name, {})
            if len(found) == 1:
                table[index] = self._numbers[name, next(iter(found))]
            elif found:
                self._pending[name] = index
        self._rendered: npt.NDArray[np.int32] = table[have(geometry.index)]

    def mask(self, surface: Surface) -> npt.NDArray[np.bool_]:
        """The pixels that show a surface, bool (H, W)."""
        return _among(self.image, self._numbers_of(surface))

    def count(self, surface: Surface) -> int:
        """How many pixels show a surface."""
        numbers = self._numbers_of(surface)
        return int(self._counts[numbers].sum())

    def silhouette(self, surface: Surface, patch: Patch, occluders: Callable[[], Occluders]) -> Patch:
        """The pixels that show a surface, and those at which something nearer hides it: undistorted.

        What the picture shows decides where arithmetic alone cannot: at pixels whose centres an edge of the surface
        runs through, and at those of its holes that a texture makes.

        Args:
            surface: one whose materials do not displace it.
            patch: the pixels that it covers by arithmetic, undistorted.
            occluders: gives all of the frame.
        """
        numbers = self._numbers_of(surface)
        rows, columns = patch.covered.shape
        place = slice(patch.top, patch.top + rows), slice(patch.left, patch.left + columns)
        shown = _among(self._rendered[place], numbers)
        covered = patch.covered & ~shown
        if covered.any():
            row, column = np.nonzero(covered)
            depth = have(self._rendered_geometry.depth)[place][row, column]
            pixels = np.stack([column + patch.left + 0.5, row + patch.top + 0.5], axis=1)
            covered[row, column] = hides(self._camera, surface, pixels, depth.astype(np.float64), occluders)
        covered |= shown
        if np.count_nonzero(shown) == self._rendered_counts[numbers].sum():
            return Patch(patch.top, patch.left, covered)
        everywhere = _among(self._rendered, numbers)  # rounding also shows it next to where arithmetic puts it
        everywhere[place] |= covered
        return Patch(0, 0, everywhere)

    def numbers(self, ids: Mapping[BodyId, int]) -> npt.NDArray[np.uint16]:
        """The number that `ids` gives to each pixel's body, (H, W); 0 for nothing and for bodies without one."""
        for owner, _ in ids:
            self._resolve(owner)
        table = np.zeros(len(self.bodies) + 1, dtype=np.uint16)
        for body, number in ids.items():
            if body in self._numbers:
                table[self._numbers[body]] = number
        return table[self.image]

    def nearer(self, pixels: FloatArray, depths: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether the pixels (N, 2) show something nearer than depths (N,)."""
        depth = have(self.geometry.depth)
        column, row = np.floor(pixels).astype(np.int64).T
        found: npt.NDArray[np.bool_] = (
            depth[row.clip(0, depth.shape[0] - 1), column.clip(0, depth.shape[1] - 1)] < depths
        )
        return found

    def extent(self, surface: Surface) -> list[float]:
        """The box [x, y, width, height] around the pixels that show a surface, zeros for none."""
        mask = self.mask(surface)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return [0.0] * 4
        left, top = float(columns[0]), float(rows[0])
        return [left, top, columns[-1] + 1 - left, rows[-1] + 1 - top]

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry as the lens shows it."""
        return self._rendered_geometry if self._warp is None else self._rendered_geometry.mapped(self._warp.nearest)

    def resolved(self) -> npt.NDArray[np.int32]:
        """The image with all copies distinguished, (H, W): 0 nothing, k the k-th of `bodies`."""
        for name in list(self._pending):
            self._resolve(name)
        return self.image

    @cached_property
    def image(self) -> npt.NDArray[np.int32]:
        """(H, W): 0 nothing (or not yet distinguished), k the k-th of `bodies`."""
        return self._rendered if self._warp is None else self._warp.nearest(self._rendered)

    @cached_property
    def _counts(self) -> npt.NDArray[np.int64]:
        return self._rendered_counts if self._warp is None else self._counted(self.image)

    @cached_property
    def _rendered_counts(self) -> npt.NDArray[np.int64]:
        return self._counted(self._rendered)

    def _counted(self, image: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        return np.bincount(image.ravel(), minlength=len(self.bodies) + 1)

    def _numbers_of(self, surface: Surface) -> list[int]:
        """The numbers of a surface's bodies, distinguished from all copies of the same objects."""
        for body in surface.bodies:
            self._resolve(body.owner)
        return [self._numbers[body.owner, body.key] for body in surface.bodies]

    def _resolve(self, name: str) -> None:
        """Tell the copies of an object apart."""
        index = self._pending.pop(name, None)
        if index is None:
            return
        pixels, flat = self._surface
        chosen = have(self._rendered_geometry.index).ravel()[flat] == index
        if chosen.any():
            bodies = list(self._snapshot.bodies[name].values())
            owners = self._owners(bodies, pixels[chosen])
            numbers = np.array([self._numbers[name, body.key] for body in bodies], dtype=np.int32)
            self._rendered.reshape(-1)[flat[chosen]] = numbers[owners]
            for stale in ("image", "_counts", "_rendered_counts"):
                self.__dict__.pop(stale, None)

    @cached_property
    def _surface(self) -> tuple[FloatArray, npt.NDArray[Any]]:
        return points(self._rendered_geometry)

    def _owners(self, bodies: list[Body], pixels: FloatArray) -> npt.NDArray[np.int64]:
        """Which of the bodies pixels (N, 3) (x, y, depth) show, (N,)."""
        world = self._camera.unproject(pixels)
        low, high, _ = image_bounds(self._camera, bodies)
        bounds = np.stack([low - _NEIGHBOURHOOD, high + _NEIGHBOURHOOD], axis=1)
        owners, outside, claims = _nearest(bodies, bounds, pixels, world, _outside)
        lost = np.flatnonzero(np.isinf(outside))  # a material moved the surface out of all bounds
        if len(lost):
            everywhere = np.broadcast_to([[-np.inf], [np.inf]], bounds.shape)
            owners[lost] = _nearest(bodies, everywhere, pixels[lost], world[lost], _outside)[0]
        contested = np.flatnonzero(claims > 1)
        if len(contested):
            owners[contested] = _nearest(bodies, bounds, pixels[contested], world[contested], self._away)[0]
        return owners

    def _away(self, body: Body, world: FloatArray) -> FloatArray:
        """How far world points (N, 3) are from a body's surface, metres, (N,)."""
        own = inverse_transform(body.matrix, world)
        tree = self._tree(body.mesh)
        nearest = np.array([tree.find_nearest(point)[0][:] for point in own.tolist()])
        away: FloatArray = np.linalg.norm(transform(body.matrix, nearest) - world, axis=1)
        return away

    def _tree(self, mesh: Mesh) -> BVHTree:
        if mesh not in self._trees:
            vertices, triangles = mesh.vertices.tolist(), mesh.triangles.tolist()
            self._trees[mesh] = BVHTree.FromPolygons(vertices, triangles, all_triangles=True)
        return self._trees[mesh]


def _among(image: npt.NDArray[np.int32], numbers: list[int]) -> npt.NDArray[np.bool_]:
    """Where an image holds one of the numbers."""
    if len(numbers) == 1:
        alone: npt.NDArray[np.bool_] = image == numbers[0]
        return alone
    table = np.zeros(max(numbers, default=0) + 2, dtype=bool)
    table[numbers] = True
    several: npt.NDArray[np.bool_] = table[np.minimum(image, len(table) - 1)]
    return several


def _nearest(
    bodies: list[Body],
    bounds: FloatArray,
    pixels: FloatArray,
    world: FloatArray,
    distance: Callable[[Body, FloatArray], FloatArray],
) -> tuple[npt.NDArray[np.int64], FloatArray, npt.NDArray[np.int64]]:
    """Give points (N, 3) to the bodies that they are nearest to.

    Args:
        bodies: B of them.
        bounds: (B, 2, 2), where in the image each is looked for: the lowest and the highest x, y.
        pixels: (N, 3), where in the image the points are.
        world: the points.
        distance: how far points are from a body, metres.

    Returns:
        (N,) each: which body it is, the distance to it (infinite where none was near), and how many it may be on.
    """
    owners, claims = np.zeros(len(world), dtype=np.int64), np.zeros(len(world), dtype=np.int64)
    least: FloatArray = np.full(len(world), np.inf)
    for number, (body, (low, high)) in enumerate(zip(bodies, bounds, strict=True)):
        at = np.flatnonzero(((pixels[:, :2] >= low) & (pixels[:, :2] <= high)).all(axis=1))
        if not len(at):
            continue
        found = distance(body, world[at])
        nearer = found < least[at]
        owners[at[nearer]] = number
        least[at[nearer]] = found[nearer]
        ends = np.stack(body.mesh.extent) * np.linalg.norm(body.matrix[:3, :3], axis=0)
        claims[at[found <= _MARGIN * float(np.linalg.norm(ends[1] - ends[0]))]] += 1
    return owners, least, claims


def _outside(body: Body, world: FloatArray) -> FloatArray:
    """How far world points (N, 3) are out of a body's box, metres, (N,)."""
    own = inverse_transform(body.matrix, world)
    low, high = body.mesh.extent
    scale = np.linalg.norm(body.matrix[:3, :3], axis=0)
    result: FloatArray = np.linalg.norm(np.maximum(np.maximum(low - own, own - high), 0) * scale, axis=1)
    return result
