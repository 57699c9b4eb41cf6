"""Draw places and rotations: in a box, in a shell around a target, on a surface, apart from one another.

World axes as Blender: z up, metres. Angles in degrees, but rotations are Blender's own, ready for
`obj.rotation_euler`. Every draw comes from the `rng` that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Euler, Quaternion
from mathutils.bvhtree import BVHTree

from blender_jobs import physics
from blender_jobs._targets import Members, below, related
from blender_jobs.job import JobError
from blender_jobs.stage import Range, Triple

__all__ = ["in_box", "in_shell", "on_surface", "place_apart", "rotation", "show_some"]

FloatArray = npt.NDArray[np.float64]
Belonging: TypeAlias = "Members | Callable[[Any], Members | None] | None"
"""What belongs to objects: the same for each, or a function of the object."""
_SHAPELESS = frozenset(["ARMATURE", "CAMERA", "EMPTY", "LATTICE", "LIGHT", "LIGHT_PROBE", "SPEAKER"])
_HIDDEN = "hidden_by_show_some"
"""A property of what `show_some` hid with the object that it belongs to: as it was before."""


def in_box(rng: np.random.Generator, low: Triple, high: Triple) -> FloatArray:
    """Return a place (3,) in metres, uniform in the box between the corners `low` and `high`."""
    return rng.uniform(low, high)


def in_shell(
    rng: np.random.Generator,
    target: Triple = (0, 0, 0),
    radius: Range = (1.0, 2.0),
    elevation: Range = (0.0, 90.0),
    azimuth: Range = (0.0, 360.0),
) -> FloatArray:
    """Return a place (3,) in metres around `target`: for cameras and lamps.

    Its direction is uniform over the solid angle that `elevation` (degrees above the horizon) and `azimuth` (degrees
    from the x axis towards y) leave, which by Archimedes is uniform in the sine of the elevation; its distance is
    uniform in `radius`.
    """
    height = rng.uniform(math.sin(math.radians(elevation[0])), math.sin(math.radians(elevation[1])))
    turn = math.radians(rng.uniform(*azimuth))
    flat = math.sqrt(1 - height * height)
    direction = np.array([flat * math.cos(turn), flat * math.sin(turn), height])
    return np.asarray(target, dtype=np.float64) + rng.uniform(*radius) * direction


def rotation(rng: np.random.Generator) -> Euler:
    """Return a rotation, uniform over SO(3); three draws.

    K. Shoemake, Uniform random rotations, Graphics Gems III (1992).
    """
    u, turn_1, turn_2 = rng.uniform(high=(1, 2 * math.pi, 2 * math.pi))
    a, b = math.sqrt(1 - u), math.sqrt(u)
    return Quaternion(
        (b * math.cos(turn_2), a * math.sin(turn_1), a * math.cos(turn_1), b * math.sin(turn_2))
    ).to_euler()


def on_surface(rng: np.random.Generator, obj: Any, count: int) -> tuple[FloatArray, FloatArray]:
    """Return points on the evaluated mesh of `obj`, uniform over its area in the world, and their unit normals.

    Within a triangle as R. Osada et al., Shape distributions (2002), equation 1.

    Returns:
        Points (count, 3) in metres and normals (count, 3) of the faces that they are on, both in world axes.

    Raises:
        JobError: `obj` has no faces.
    """
    vertices, triangles = _world_mesh(obj)
    corners = vertices[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(cross, axis=1)
    if not doubled.sum() > 0:
        raise JobError(f"object {obj.name!r} has no faces to scatter points on")
    edges = np.cumsum(doubled)
    draws = rng.uniform(size=(count, 3))
    face = np.minimum(np.searchsorted(edges, draws[:, 0] * edges[-1], side="right"), len(edges) - 1)
    root, along = np.sqrt(draws[:, 1:2]), draws[:, 2:3]
    a, b, c = corners[face].transpose(1, 0, 2)
    points = (1 - root) * a + root * (1 - along) * b + root * along * c
    outwards = -1.0 if obj.matrix_world.determinant() < 0 else 1.0  # mirrored, a triangle turns the other way
    return points, outwards * cross[face] / doubled[face, None]


def place_apart(
    rng: np.random.Generator,
    objects: Sequence[Any],
    propose: Callable[[np.random.Generator, Any], object],
    others: Iterable[Any] = (),
    tries: int = 100,
    *,
    misfits: Literal["error", "hide"] = "error",
    members: Belonging = None,
) -> list[Any]:
    """Place objects one by one so that none touches or is inside another, or one of `others`.

    Returns those shown, as `show_some` does.

    The evaluated meshes are compared, triangle by triangle.

    Args:
        rng: passed to `propose`.
        objects: meshes to place, in this order.
        propose: ``propose(rng, obj)`` draws a pose and sets it: `obj.location`, `obj.rotation_euler`.
        others: meshes that stay where they are.
        tries: poses drawn for an object before it is given up.
        misfits: what becomes of an object that does not fit: an error, or it is hidden as by `show_some`, and those
            that fit are shown.
        members: what belongs to each of `objects` and `others`, for things of many meshes: ``"children"``, all that is
            parented below it, with the copies that are made there; or a function of the object that returns this word,
            a collection or objects, or None for the object alone. An empty or an armature may then represent the whole.
            Members are placed with it, parented or not; what renders do not show is left out.

    Returns:
        The objects that fit, in the order of `objects`.

    Raises:
        JobError: an object does not fit, or is no mesh; `misfits` is another word.
    """
    if misfits not in ("error", "hide"):
        raise JobError(f'place_apart: misfits is {misfits!r}; it takes "error" or "hide"')
    placed = [_Thing(other, members).solid() for other in others]
    fitting = []
    for obj in objects:
        thing = _Thing(obj, members)
        if misfits == "hide":
            _show(thing, True)
        for _ in range(tries):
            propose(rng, obj)
            thing.follow()
            solid = thing.solid()
            if not any(solid.meets(other) for other in placed):
                placed.append(solid)
                fitting.append(obj)
                break
        else:
            if misfits == "error":
                raise JobError(
                    f"place_apart: no place for {obj.name!r} in {tries} tries among {len(placed)} others: "
                    'give more room, fewer objects, more tries, or misfits="hide"'
                )
            _show(thing, False)
            bpy.context.view_layer.update()
    return fitting


def show_some(rng: np.random.Generator, pool: Sequence[Any], count: int, members: Belonging = None) -> list[Any]:
    """Show `count` objects of `pool`, all equally likely, and hide all others; return those shown.

    Those hidden are out of renders, of views and of the rigid-body world, which they join again when they are shown.
    They are returned in the order of `pool`. `members`, as for `place_apart`, are hidden with the object that
    they belong to, and are as before when it is shown.

    Raises:
        JobError: the pool is smaller than `count`.
    """
    if not 0 <= count <= len(pool):
        raise JobError(f"show_some: cannot show {count} of {len(pool)} objects")
    chosen = set(rng.choice(len(pool), size=count, replace=False).tolist())
    for index, obj in enumerate(pool):
        _show(_Thing(obj, members), index in chosen)
    bpy.context.view_layer.update()
    return [pool[index] for index in sorted(chosen)]


def _show(thing: _Thing, shown: bool) -> None:
    """Let an object and its members be in renders, views and the rigid-body world, or in none of them."""
    obj, *others = thing.objects
    obj.hide_render = obj.hide_viewport = not shown
    if obj.rigid_body is not None:
        physics.take_part(obj, shown)
    for member in others:
        _hide(member, not shown)


def _hide(obj: Any, hidden: bool) -> None:
    """Hide a member, or have it as it was before; rigid bodies leave the simulation meanwhile."""
    if hidden == (_HIDDEN in obj):
        return
    if hidden:
        obj[_HIDDEN] = [obj.hide_render, obj.hide_viewport]
        obj.hide_render = obj.hide_viewport = True
    else:
        obj.hide_render, obj.hide_viewport = map(bool, obj[_HIDDEN])
        del obj[_HIDDEN]
    if obj.rigid_body is not None:
        physics.take_part(obj, not hidden)


class _Thing:
    """An object, alone or with its members, and where these are relative to it."""

    def __init__(self, obj: Any, members: Belonging) -> None:
        chosen = members(obj) if callable(members) else members
        try:
            self.objects = [obj] if chosen is None else related(obj, chosen)
        except ValueError as error:
            raise JobError(str(error)) from None
        self._alone = chosen is None
        self._loose: list[tuple[Any, Any]] = []
        if len(self.objects) > 1:
            carried = set(below(obj))
            members_alone = [m for m in self.objects if m not in carried and m.parent not in self.objects]
            if members_alone:
                bpy.context.view_layer.update()
                back = obj.matrix_world.inverted_safe()
                self._loose = [(member, back @ member.matrix_world) for member in members_alone]

    def follow(self) -> None:
        """Place the members that are not parented below the object as they were relative to it in the beginning."""
        if self._loose:
            bpy.context.view_layer.update()
        for member, place in self._loose:
            member.matrix_world = self.objects[0].matrix_world @ place

    def solid(self) -> _Solid:
        """Its surfaces, as they are now."""
        name = self.objects[0].name
        if self._alone:
            return _Solid(name, [_world_mesh(self.objects[0])])
        shown = [obj for obj in self.objects if not obj.hide_render]
        meshes = [_world_mesh(obj) for obj in shown if obj.type not in _SHAPELESS]
        return _Solid(name, [*meshes, *_copies(shown)])


class _Solid:
    """Evaluated meshes in the world, as they are now: where they are, and what they meet."""

    def __init__(self, name: str, meshes: Sequence[tuple[FloatArray, npt.NDArray[np.int32]]]) -> None:
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)]).tolist()
        self._vertices = np.concatenate([np.zeros((0, 3)), *(vertices for vertices, _ in meshes)])
        parts = [triangles + np.int32(start) for (_, triangles), start in zip(meshes, starts, strict=False)]
        self._triangles = np.concatenate([np.zeros((0, 3), dtype=np.int32), *parts])
        if not len(self._triangles):
            raise JobError(f"object {name!r} has no faces, so nothing can be apart from it")
        points = self._vertices[self._triangles.ravel()]
        self._low, self._high = points.min(axis=0), points.max(axis=0)

    def meets(self, other: _Solid) -> bool:
        """Whether the surfaces touch or one is inside the other."""
        if (self._low > other._high).any() or (other._low > self._high).any():
            return False
        return bool(self._tree.overlap(other._tree)) or self._holds(other) or other._holds(self)

    @cached_property
    def _tree(self) -> BVHTree:
        return BVHTree.FromPolygons(self._vertices.tolist(), self._triangles.tolist(), all_triangles=True)

    @cached_property
    def _parts(self) -> FloatArray:
        """A vertex (P, 3) of each loose part: where surfaces do not touch, it speaks for the whole part."""
        labels = np.arange(len(self._vertices))
        while True:
            lower = labels.copy()
            np.minimum.at(lower, self._triangles, labels[self._triangles].min(axis=1, keepdims=True))
            lower = lower[lower]
            if (lower == labels).all():
                points: FloatArray = self._vertices[np.unique(labels[self._triangles])]
                return points
            labels = lower

    def _holds(self, other: _Solid) -> bool:
        """Whether any part of `other`, whose surface does not touch this one, is inside."""
        within = ((other._parts > self._low) & (other._parts < self._high)).all(axis=1)
        return any(abs(self._winding_number(point)) > 0.5 for point in other._parts[within])

    def _winding_number(self, point: FloatArray) -> float:
        """How often the surface winds around a point: 0 outside, 1 or -1 inside, between if there are holes.

        A. Jacobson et al., Robust inside-outside segmentation using generalized winding numbers (2013); a
        triangle's solid angle after A. van Oosterom and J. Strackee, The solid angle of a plane triangle (1983).
        """
        a, b, c = (self._vertices - point)[self._triangles].transpose(1, 0, 2)
        length_a, length_b, length_c = (np.linalg.norm(side, axis=1) for side in (a, b, c))
        volume = (a * np.cross(b, c)).sum(axis=1)
        dot_ab, dot_bc, dot_ca = ((one * two).sum(axis=1) for one, two in ((a, b), (b, c), (c, a)))
        below = length_a * length_b * length_c + dot_ab * length_c + dot_bc * length_a + dot_ca * length_b
        return float(np.arctan2(volume, below).sum() / (2 * math.pi))


def _world_mesh(obj: Any) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """The evaluated mesh in the world: vertices (V, 3), float64, and triangles (T, 3), indices of vertices."""
    if obj.type != "MESH":
        raise JobError(f"object {obj.name!r} is of the type {obj.type}; use a mesh")
    bpy.context.view_layer.update()
    evaluated = obj.evaluated_get(bpy.context.evaluated_depsgraph_get())
    if not evaluated.is_evaluated:
        raise JobError(f"object {obj.name!r} is hidden (hide_viewport), so Blender does not know where it is: show it")
    return _placed(evaluated.data, evaluated.matrix_world)


def _copies(objects: Sequence[Any]) -> list[tuple[FloatArray, npt.NDArray[np.int32]]]:
    """The meshes of the copies that objects make: collection instances, geometry nodes, vertices."""
    makers = {obj for obj in objects if obj.is_instancer or any(m.type == "NODES" for m in obj.modifiers)}
    if not makers:
        return []
    bpy.context.view_layer.update()
    instances = bpy.context.evaluated_depsgraph_get().object_instances
    made = (entry for entry in instances if entry.is_instance and entry.parent.original in makers)
    return [_placed(entry.object.data, entry.matrix_world) for entry in made if entry.object.type == "MESH"]


def _placed(mesh: Any, matrix_world: Any) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """A mesh placed by a matrix: as `_world_mesh`."""
    mesh.calc_loop_triangles()
    points = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    triangles = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    matrix = np.array(matrix_world, dtype=np.float64)
    vertices = points.reshape(-1, 3).astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    return vertices, triangles.reshape(-1, 3)
