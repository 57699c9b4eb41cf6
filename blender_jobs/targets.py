"""What a view describes: an object, a copy of one, or a whole of many; and which objects belong to a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import bpy

from blender_jobs._vision.camera import FloatArray
from blender_jobs._vision.surfaces import Body, BodyId, Compound, Key, Snapshot

CHILDREN = "children"
"""The word for all that is parented below an object, at any depth."""


@dataclass(frozen=True, eq=False)
class Copy:
    """One rendered copy of an object: `View.copies` lists them, and takes the place of an object for `View`."""

    object: bpy.types.Object
    """What it is a copy of."""
    instancer: bpy.types.Object
    """What makes it: an empty, an emitter, an object with geometry nodes."""
    number: int
    """From 0, in the order of `View.copies`."""
    key: Key
    """What tells it from other copies, the same in each frame."""
    matrix_world: FloatArray
    """(4, 4): the object's own frame to Blender's world, scale included."""

    @property
    def name(self) -> str:
        """The object's name and the number: ``leaf:12``."""
        return f"{self.object.name}:{self.number}"


@dataclass(frozen=True, eq=False)
class Whole:
    """A thing of many surfaces in one view: `View.whole` makes it, and there it takes the place of an object."""

    target: Single
    """Whose frame and name it has; an empty or an armature, too."""
    surface: Compound
    """Of all that belongs to it and that the camera could see."""
    parts: Mapping[str, Whole] | None
    """The members that have a name, each with its own frame; None where they were not given by name."""
    snapshot: Snapshot
    """Of the view that made it."""

    @property
    def name(self) -> str:
        """The target's."""
        return str(self.target.name)


Single: TypeAlias = "Copy | bpy.types.Object"
"""What has a frame of its own."""
Target: TypeAlias = "Single | Whole"
"""What a view describes."""
Group: TypeAlias = "Target | bpy.types.Collection | Iterable[Target | bpy.types.Collection]"
"""Members, as they are given: one, a collection, or several of both."""
Members: TypeAlias = "str | Group | Mapping[str, Group]"
"""The word `CHILDREN`, members, or members by the names of the parts that they are."""


def checked(obj: Any) -> bpy.types.Object:
    """Return the object; ValueError in one line if it is none, or was removed."""
    if not isinstance(obj, bpy.types.Object):
        raise ValueError(f"expected a Blender object, got {type(obj).__name__} {obj!r}")
    try:
        return obj.original
    except ReferenceError:
        raise ValueError("expected a Blender object, got one that was removed from Blender") from None


def id_of(obj: Target) -> BodyId:
    """Which body an object or a copy is; of a whole, the one whose frame it has."""
    if isinstance(obj, Whole):
        return id_of(obj.target)
    if isinstance(obj, Copy):
        return obj.object.name_full, obj.key
    return checked(obj).name_full, ()


def ids_of(obj: Target) -> frozenset[BodyId]:
    """All bodies that a target is."""
    return obj.surface.ids if isinstance(obj, Whole) else frozenset([id_of(obj)])


def below(obj: bpy.types.Object) -> list[bpy.types.Object]:
    """Return an object and all that is parented below it, at any depth."""
    return [checked(obj), *obj.children_recursive]


def related(obj: bpy.types.Object, members: Members) -> list[bpy.types.Object]:
    """Return an object and its members, given as for `View.whole`, but for copies and wholes, which only a view has.

    Raises:
        ValueError: a member is no object and no collection; one line.
    """
    if isinstance(members, str):
        if members != CHILDREN:
            raise ValueError(f"object {obj.name!r}: members is {members!r}; give 'children', a collection or objects")
        return below(obj)
    groups = members.values() if isinstance(members, Mapping) else [members]
    found = [checked(obj)]
    for member in (member for group in groups for member in spread(group)):
        found += member.all_objects if isinstance(member, bpy.types.Collection) else [checked(member)]
    return list(dict.fromkeys(found))


def spread(given: Any) -> Iterator[Any]:
    """Yield members as they are given, one by one: a list's entries, or the one that is no list."""
    alone = isinstance(given, (Copy, Whole, bpy.types.ID)) or not hasattr(given, "__iter__")
    yield from [given] if alone else given


def belonging(snapshot: Snapshot, objects: Sequence[bpy.types.Object]) -> list[Body]:
    """Return what the camera could see of objects and of the copies that they make, in their order."""
    names = {obj.name_full: None for obj in objects}
    own = [snapshot.bodies[name][()] for name in names if () in snapshot.bodies.get(name, {})]
    made = [body for body in snapshot.all_bodies if body.key and body.key[0] in names]
    return [body for body in own + made if not body.unseen]
