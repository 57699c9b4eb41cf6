"""What a view describes: an object, a copy, or a whole of many, with its members; and the ids that these get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import bpy

from blender_jobs._render.geometry import Label
from blender_jobs._vision.camera import FloatArray
from blender_jobs._vision.surfaces import Body, BodyId, Compound, Key, Snapshot, Surface
from blender_jobs.parts import suggestion

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
        raise ValueError("expected a Blender object, got one that has been removed") from None


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


@dataclass(frozen=True)
class _Thing:
    """What was described: an object, a copy, or a whole."""

    name: str
    frame: BodyId
    bodies: frozenset[BodyId]
    parts: tuple[tuple[str, frozenset[BodyId]], ...]
    first_part: int
    """The id of the first of the parts."""


class IdRegistry:
    """The things described so far, held against the declared categories.

    Args:
        categories: COCO's ``categories``; none where the job declares none, and then every category goes.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        self._categories = {category["name"]: category for category in categories}
        self._things: dict[BodyId, _Thing] = {}
        self._count, self._parts = 0, 0
        self.labels: dict[BodyId, Label] = {}
        """Of each body that was described, alone or as a member, in the order of their segmentation ids."""

    def enter(
        self,
        name: str,
        category: str,
        frame: BodyId,
        surface: Surface,
        parts: Mapping[str, frozenset[BodyId]] | None = None,
    ) -> tuple[dict[str, int], list[int]]:
        """Enter an object, one copy of it, or a whole.

        Args:
            name: the thing's.
            category: its.
            frame: whose frame it has.
            surface: all that belongs to it.
            parts: the bodies of its named parts.

        Returns:
            its ``segmentation_id``, and its ``category_id`` where categories are declared; and the ids of its parts.

        Raises:
            ValueError: the category is not declared, or the thing was described in another one; one of its bodies
                belongs to another thing, or to two of its parts; one line.
        """
        if self._categories and category not in self._categories:
            hint = suggestion(category, self._categories)
            raise ValueError(f"object {name!r}: category {category!r} is not declared by the job{hint}")
        ids = {"category_id": int(self._categories[category]["id"])} if self._categories else {}
        named = tuple((parts or {}).items())
        thing = _Thing(name, frame, surface.ids, named, self._parts + 1)
        known = self._known(thing)
        if known is None:
            _check_parts(thing)
            self._count, self._parts = self._count + 1, self._parts + len(named)
            label = Label(self._count, ids.get("category_id", 0), surface.matrix, surface.box)
            numbers = {body: number for number, (_, own) in enumerate(named, thing.first_part) for body in own}
            for body in surface.bodies:
                key = body.owner, body.key
                self._things[key] = thing
                self.labels[key] = replace(label, part_id=numbers[key]) if key in numbers else label
        else:
            thing, label = known
            if label.category_id != ids.get("category_id", 0):
                raise ValueError(f"object {name!r} is described already, in another category than {category!r}")
        numbers_of_parts = [thing.first_part + at for at in range(len(named))]
        return {"segmentation_id": label.segmentation_id, **ids}, numbers_of_parts

    def _known(self, thing: _Thing) -> tuple[_Thing, Label] | None:
        """The thing as it was described before; None for one that is new."""
        for body in sorted(thing.bodies & self._things.keys()):
            known = self._things[body]
            if replace(known, first_part=thing.first_part) == thing:
                return known, self.labels[body]
            raise ValueError(_conflict(thing, known, body[0]))
        return None

    def names(self, owner: str, category: str, given: Sequence[str] | None, default: Sequence[str]) -> list[str]:
        """Return the names of an object's keypoints.

        Args:
            owner: the object's name.
            category: its category, whose keypoints are the template if it has any.
            given: names to be held against the template; None: the template's, if there are as many.
            default: K names, where neither tells.

        Raises:
            ValueError: another number of names than keypoints, or other ones than the template's; one line.
        """
        if given is not None and len(given) != len(default):
            raise ValueError(f"object {owner!r}: {len(given)} keypoint_names for {len(default)} keypoints")
        template = list(self._categories.get(category, {}).get("keypoints", ()))
        if not template:
            return list(default if given is None else given)
        if len(template) != len(default):
            raise ValueError(
                f"object {owner!r}: category {category!r} has {len(template)} keypoints ({_few(template)}),"
                f" not {len(default)} ({_few(default)})"
            )
        for at, (name, wanted) in enumerate(zip(given or template, template, strict=True)):
            if name != wanted:
                raise ValueError(
                    f"object {owner!r}: keypoint {at} is named {name!r}, but {wanted!r} in category {category!r}:"
                    " give the same names in the same order"
                )
        return template


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "none"


def _conflict(thing: _Thing, known: _Thing, body: str) -> str:
    """Why a body cannot belong to two things, in one line."""
    alone, alone_before = thing.bodies == {thing.frame}, known.bodies == {known.frame}
    if known.frame == thing.frame and alone == alone_before:
        return f"object {thing.name!r} is described already, with other members or parts: describe it once"
    if alone:
        return (
            f"object {thing.name!r} is a member of {known.name!r} and cannot be described on its own, too:"
            f" for an id of its own, name it in members={{...}} of {known.name!r}"
        )
    if alone_before:
        return (
            f"object {known.name!r} is described on its own and cannot be a member of {thing.name!r}, too:"
            f" for an id of its own, name it in members={{...}} of {thing.name!r}"
        )
    return f"object {body!r} is a member of {known.name!r} and of {thing.name!r}: leave it out of one"


def _check_parts(thing: _Thing) -> None:
    """No body is in two parts."""
    owners: dict[BodyId, str] = {}
    for name, bodies in thing.parts:
        for body in sorted(bodies):
            if body in owners:
                two = f"{owners[body]!r} and {name!r}"
                raise ValueError(f"object {thing.name!r}: {body[0]!r} is in its parts {two}: leave it out of one")
            owners[body] = name
