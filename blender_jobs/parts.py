"""Keypoints from the scene: vertices, vertex groups, bones, empties, points of an object's own frame.

Each function takes the view and returns `Points`, in the world as a render evaluates it in this frame: they follow
physics, animation, armatures and modifiers. What no render shows (a hidden marker, say) is where the viewport
shows it. `Points` are joined with `+`::

    joints = parts.bones(view, rig, {"left_knee": "shin.L", "left_ankle": ("shin.L", 1.0)})
    face = parts.vertices(view, body, {"nose": 331})
    view.describe(body, "person", keypoints=face + joints, self_tolerance_m=0.15)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blender_jobs import _lettering
from blender_jobs._render.snapshot import evaluate
from blender_jobs._vision.camera import FloatArray, transform

if TYPE_CHECKING:
    import bpy

    from blender_jobs._targets import Target
    from blender_jobs.view import View

__all__ = ["Points", "bones", "corners", "glyph_names", "glyphs", "origins", "own_frame", "vertex_groups", "vertices"]

CORNERS = tuple(f"corner{number}" for number in range(8))
"""The names of a bounding box's corners, in the order of `View.corners`."""


@dataclass(frozen=True, eq=False)
class Points:
    """Named points in the world."""

    names: Sequence[str]
    """K names; kept as a tuple."""
    positions: FloatArray
    """(K, 3), Blender's world, metres."""
    owners: tuple[Target, ...] = ()
    """What the points belong to: `self_tolerance_m` tolerates the surfaces of these objects before them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "positions", as_points(self.positions, "Points: positions"))
        if len(self.names) != len(self.positions):
            raise ValueError(f"Points: {len(self.names)} names for {len(self.positions)} positions")
        if twice := [name for at, name in enumerate(self.names) if name in self.names[:at]]:
            raise ValueError(f"Points: {twice[0]!r} names two points")

    def __add__(self, other: Points) -> Points:
        """These points, then the other ones."""
        positions = np.concatenate([self.positions, other.positions])
        return Points((*self.names, *other.names), positions, self.owners + other.owners)


def vertices(view: View, obj: Target, indices: Mapping[str, int]) -> Points:
    """Vertices of an object's evaluated mesh.

    Args:
        view: the view.
        obj: a mesh object, or a copy of one.
        indices: the number of each keypoint's vertex, counted after the modifiers.

    Raises:
        ValueError: the object has no mesh, or no such vertex; one line.
    """
    places = _vertices(view, obj)
    for name, index in indices.items():
        if not 0 <= index < len(places):
            raise ValueError(
                f"object {obj.name!r} has no vertex {index} for {name!r}: with its modifiers it has 0 to"
                f" {len(places) - 1}"
            )
    chosen = places[list(indices.values())]
    return Points(tuple(indices), transform(view.matrix_world(obj), chosen), (obj,))


def vertex_groups(view: View, obj: Target, groups: Mapping[str, str] | Sequence[str]) -> Points:
    """Centroids of the vertices of vertex groups, weighted, on an object's evaluated mesh.

    Args:
        view: the view.
        obj: a mesh object, or a copy of one.
        groups: each keypoint's group; or the groups, whose names the keypoints take.

    Raises:
        ValueError: the object has no mesh or no such group, or no vertex has a weight in it; one line.
    """
    wanted = _named(groups)
    places = _vertices(view, obj)
    numbers = {group.name: group.index for group in view.source(obj).vertex_groups}
    for group in wanted.values():
        _require(group, numbers, f"object {obj.name!r}", "vertex group")
    weights = _read(view, obj, lambda found: _weights(found.data, [numbers[group] for group in wanted.values()]))
    totals = weights.sum(axis=1)
    for group, total in zip(wanted.values(), totals.tolist(), strict=True):
        if not total > 0:
            raise ValueError(f"object {obj.name!r}: no vertex has a weight in its vertex group {group!r}")
    # Summed along the vertices one after another (cumsum), so that the order never depends on the processor.
    sums = [np.cumsum(row[:, None] * places, axis=0)[-1] for row in weights]
    centroids = np.array(sums).reshape(-1, 3) / totals[:, None]
    return Points(tuple(wanted), transform(view.matrix_world(obj), centroids), (obj,))


def origins(view: View, objects: Mapping[str, bpy.types.Object] | Iterable[bpy.types.Object]) -> Points:
    """The origins of objects: empties as markers, wheels, anything.

    Args:
        view: the view.
        objects: each keypoint's object; or the objects, whose names the keypoints take.

    Raises:
        ValueError: one of them is no object of the scene; one line.
    """
    chosen: dict[str, Any]
    chosen = dict(objects) if isinstance(objects, Mapping) else {getattr(obj, "name", ""): obj for obj in objects}
    places = [view.matrix_world(obj)[:3, 3] for obj in chosen.values()]
    return Points(tuple(chosen), np.array(places).reshape(-1, 3), tuple(chosen.values()))


def bones(
    view: View, armature: bpy.types.Object, chosen: Mapping[str, str | tuple[str, float]] | Sequence[str]
) -> Points:
    """Places along the bones of a posed armature.

    The armature and the meshes that it moves (armature modifier, or parent) are the points' owners.

    Args:
        view: the view.
        armature: an armature object.
        chosen: each keypoint's bone, at its head; or (bone, fraction): 0 its head, 1 its tail, in between along
            it. Or the bones, whose names the keypoints take, at their heads.

    Raises:
        ValueError: the object is no armature, or has no such bone; one line.
    """
    matrix = view.matrix_world(armature)
    if armature.type != "ARMATURE":
        raise ValueError(f"object {armature.name!r} is not an armature but {armature.type}: it has no bones")
    posed = view.bones(armature)
    places = []
    for entry in _named(chosen).values():
        name, fraction = (entry, 0.0) if isinstance(entry, str) else entry
        _require(name, posed, f"armature {armature.name!r}", "bone")
        head, tail = posed[name]
        places.append(head + (tail - head) * float(fraction))
    positions = transform(matrix, np.array(places).reshape(-1, 3))
    return Points(tuple(_named(chosen)), positions, _moved_by(view, armature))


def corners(view: View, obj: Target) -> Points:
    """The corners of an object's oriented bounding box, in the order of `View.corners`."""
    return Points(CORNERS, view.corners(obj), (obj,))


def glyphs(view: View, obj: Target) -> Points:
    """The corners of the glyphs' boxes of a text that `meshes.text` made, in reading order.

    Four a glyph: ``glyph0_top_left``, ``glyph0_top_right``, ``glyph0_bottom_right``, ``glyph0_bottom_left``, as one
    reads it, on the side that is read; the box is tight around the ink. Spaces are no glyphs. The points move with the
    object, not with its modifiers. For a category: `glyph_names`.

    Raises:
        ValueError: the object was not made by `meshes.text`; one line.
    """
    matrix = view.matrix_world(obj)
    places = _lettering.corners(view.source(obj).data)
    return Points(_lettering.names(len(places)), transform(matrix, places.reshape(-1, 3)), (obj,))


def glyph_names(count: int) -> tuple[str, ...]:
    """The names of the keypoints of a text of so many glyphs: for a category's ``keypoints``."""
    return _lettering.names(count)


def own_frame(view: View, obj: Target, positions: npt.ArrayLike, names: Sequence[str] | None = None) -> Points:
    """Points (K, 3) given in an object's own frame, in its units before scale.

    They move with the object, not with its modifiers. The names are ``keypoint0``... unless given.
    """
    matrix = view.matrix_world(obj)
    places = as_points(positions, f"object {obj.name!r}: keypoints")
    return Points(names or numbered(len(places)), transform(matrix, places), (obj,))


def numbered(count: int) -> tuple[str, ...]:
    """The names of points that were given none."""
    return tuple(f"keypoint{number}" for number in range(count))


def as_points(points: npt.ArrayLike, what: str) -> FloatArray:
    """`points` as float64 (N, 3).

    Raises:
        ValueError: they are no such thing; one line that begins with `what`.
    """
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


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what a message about an unknown name ends with: the name that is like it, or those there are."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, 1):
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"; there are {', '.join(map(repr, names[:8]))}{more}" if names else "; there are none"


def _require(name: str, known: Mapping[str, Any], owner: str, kind: str) -> None:
    if name not in known:
        raise ValueError(f"{owner} has no {kind} {name!r}{suggestion(name, known)}")


def _named(chosen: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """By the keypoints' names; a sequence's entries name themselves."""
    return dict(chosen) if isinstance(chosen, Mapping) else {name: name for name in chosen}


def _vertices(view: View, obj: Target) -> FloatArray:
    """An object's vertices with its modifiers, (N, 3), in its own frame."""
    view.matrix_world(obj)  # what is not an object of the scene is reported here
    if (kind := view.source(obj).type) != "MESH":
        raise ValueError(f"object {obj.name!r} ({kind}) has no mesh, so it has no vertices")
    if body := view.rendered(obj):
        return body.mesh.vertices.astype(np.float64)
    return _read(view, obj, _places)


def _places(obj: bpy.types.Object) -> FloatArray:
    flat = np.empty(3 * len(obj.data.vertices), dtype=np.float32)
    obj.data.vertices.foreach_get("co", flat)
    return flat.reshape(-1, 3).astype(np.float64)


def _read(view: View, obj: Target, read: Callable[[bpy.types.Object], FloatArray]) -> FloatArray:
    """What `read` says of an object as a render evaluates it, or as the viewport does where no render has it."""
    source = view.source(obj)
    if source.name_full in view.snapshot.matrices:
        return evaluate(view.scene, lambda depsgraph: read(source.evaluated_get(depsgraph)))
    return read(view.evaluated(source))


def _weights(mesh: bpy.types.Mesh, groups: Sequence[int]) -> FloatArray:
    """The vertices' weights (G, N) in groups."""
    rows = {group: row for row, group in enumerate(dict.fromkeys(groups))}
    weights = np.zeros((len(rows), len(mesh.vertices)))
    for index, vertex in enumerate(mesh.vertices):
        for member in vertex.groups:
            if member.group in rows:
                weights[rows[member.group], index] = member.weight
    chosen: FloatArray = weights[[rows[group] for group in groups]]
    return chosen


def _moved_by(view: View, armature: bpy.types.Object) -> tuple[bpy.types.Object, ...]:
    """The armature and the mesh objects that it moves, in the scene's order."""
    rig = armature.original

    def moved(obj: bpy.types.Object) -> bool:
        return obj.parent == rig or any(m.type == "ARMATURE" and m.object == rig for m in obj.modifiers)

    return (rig, *(obj for obj in view.scene.objects if obj.type == "MESH" and moved(obj)))
