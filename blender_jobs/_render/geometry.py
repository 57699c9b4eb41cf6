"""What is at each pixel's centre, as arrays, and the passes' members made of it: numpy alone, no Blender.

Image, camera and world as in `blender_jobs._vision.camera`. `geometry_render` takes the arrays out of Blender.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray, extent, rigid, transform
from blender_jobs.passes import PASSES

Array = npt.NDArray[Any]

_HALF_MAX = float(np.finfo(np.float16).max)
_HALF_MIN = float(np.finfo(np.float16).tiny)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What one camera sees in one frame, at the pixels' centres; arrays that nobody asked for are None."""

    objects: tuple[str, ...]
    """Full names (`bpy.types.ID.name_full`) in the order of `index`, which counts from 1."""
    depth: npt.NDArray[np.float32] | None = None
    """(H, W), metres along the optical axis (z in the camera frame); inf: nothing."""
    index: npt.NDArray[np.uint16] | None = None
    """(H, W): 0 nothing, k the k-th of `objects`."""
    normals: npt.NDArray[np.float32] | None = None
    """(H, W, 3), unit, world frame, towards the camera; smooth shading and bump maps count; 0, 0, 0: nothing."""
    albedo: npt.NDArray[np.float32] | None = None
    """(H, W, 3), linear RGB of diffuse reflection, without light."""
    alpha: npt.NDArray[np.uint8] | None = None
    """(H, W), 0 to 255: how much of the pixel is covered, anti-aliased as a Cycles image is."""

    def mapped(self, fn: Callable[[Array], Array]) -> Geometry:
        """Return the geometry with each array passed through `fn`: (H, W, ...) to (H2, W2, ...)."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "objects"}
        return Geometry(self.objects, **{name: fn(array) for name, array in arrays.items() if array is not None})


@dataclass(frozen=True, eq=False)
class Label:
    """What the passes say of an annotated object."""

    segmentation_id: int
    """From 1 to 65535."""
    category_id: int
    """From 1 to 65535."""
    matrix_world: FloatArray
    """(4, 4): the object's own frame to the world, scale included."""
    box: FloatArray
    """(N, 3), points around which the object's bounding box lies (its 8 corners, say), in its own frame."""
    part_id: int = 0
    """From 1 to 65535; 0: it is no part of its own."""


def points(geometry: Geometry) -> tuple[FloatArray, Array]:
    """Return where the surfaces are: their pixels (N, 3) (x, y, depth), and those pixels' flat positions (N,).

    x and y are the pixels' centres; the order is that of the rows. `Camera.unproject` makes world points of them.
    """
    index, depth = have(geometry.index), have(geometry.depth)
    flat = np.flatnonzero(index)
    rows, columns = np.divmod(flat, index.shape[1])
    return np.stack([columns + 0.5, rows + 0.5, depth.ravel()[flat].astype(np.float64)], axis=1), flat


def members(
    wanted: Collection[str],
    geometry: Geometry,
    camera: Camera,
    labels: Collection[Label],
    numbers: Callable[[Sequence[int]], Array],
    flows: Mapping[str, Array],
) -> dict[str, Array]:
    """Return the arrays of the passes wanted, exactly the members and dtypes of `passes.PASSES`.

    Args:
        wanted: names of `passes.PASSES`.
        geometry: rendered for those passes.
        camera: the one that it is of, of the same size.
        labels: what is annotated; all else has the ids 0.
        numbers: takes a number for each of `labels` and returns each pixel's, (H, W); 0 for what is not labelled.
        flows: the members of the pass ``flow``, as `flow.flow` makes them; all of them are taken over.
    """

    @cache
    def surface() -> tuple[FloatArray, FloatArray, Array]:
        pixels, flat = points(geometry)
        return pixels, camera.unproject(pixels), flat

    makers: dict[str, Callable[[], Array]] = {
        "depth": lambda: have(geometry.depth),
        "distance": lambda: _distance(camera, *surface()),
        "normals": lambda: _in_camera(camera, have(geometry.normals)),
        "normals_world": lambda: have(geometry.normals),
        "segmentation": lambda: numbers([label.segmentation_id for label in labels]),
        "categories": lambda: numbers([label.category_id for label in labels]),
        "parts": lambda: numbers([label.part_id for label in labels]),
        "nocs": lambda: _object_coordinates(numbers(range(1, len(labels) + 1)), *surface()[1:], list(labels)),
        "albedo": lambda: have(geometry.albedo).clip(-_HALF_MAX, _HALF_MAX),
        "alpha": lambda: have(geometry.alpha),
    }
    made = {f"{name}.npy": make() for name, make in makers.items() if name in wanted}
    if "flow" in wanted:
        made |= flows
    table = {name: member for described in PASSES.values() for name, member in described.items()}
    return {name: array.astype(table[name].dtype, copy=False) for name, array in made.items()}


def _in_camera(camera: Camera, directions: Array) -> Array:
    """Directions (H, W, 3) from the world's frame to the camera's, float32."""
    turned = directions @ camera.cam_to_world[:3, :3].astype(np.float32)
    turned[np.abs(turned) < _HALF_MIN] = 0  # rounding noise: numpy takes ten times as long to make float16 of it
    return turned


def _distance(camera: Camera, pixels: FloatArray, world: FloatArray, flat: Array) -> npt.NDArray[np.float32]:
    """(H, W) metres from the camera; parallel rays, an orthographic camera's, begin in its plane of depth 0."""
    distance = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    parallel = camera.type == "ORTHO"
    distance.flat[flat] = pixels[:, 2] if parallel else np.linalg.norm(world - camera.cam_to_world[:3, 3], axis=1)
    return distance


def _object_coordinates(
    shown: Array, world: FloatArray, flat: Array, labels: Sequence[Label]
) -> npt.NDArray[np.float16]:
    """(H, W, 3) NOCS of world points (N, 3) at flat positions (N,); `shown` counts the labels from 1, (H, W).

    Wang et al., Normalized Object Coordinate Space for Category-Level 6D Object Pose and Size Estimation, CVPR 2019.
    In the frame that an annotation's rigid ``pose`` moves, scale applied: (point - box centre) / box diagonal + 0.5.
    """
    coordinates = np.zeros((*shown.shape, 3), dtype=np.float16)
    seen = shown.ravel()[flat]
    for number in np.unique(seen[seen > 0]).tolist():
        label, chosen = labels[number - 1], seen == number
        to_own = np.linalg.inv(rigid(label.matrix_world))
        low, high = extent(transform(to_own @ label.matrix_world, label.box))
        diagonal = max(float(np.linalg.norm(high - low)), 1e-30)
        own = transform(to_own, world[chosen])
        coordinates.reshape(-1, 3)[flat[chosen]] = (own - (low + high) / 2) / diagonal + 0.5
    return coordinates


def have(array: Array | None) -> Array:
    """The array, which a pass wanted is made of."""
    if array is None:
        raise ValueError("the geometry was not rendered for this pass: give render_geometry all that are wanted")
    return array
