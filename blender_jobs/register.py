"""What a view's annotations share: segmentation ids, and the categories that the job declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blender_jobs._render.geometry import Label
from blender_jobs._vision.surfaces import BodyId, Surface
from blender_jobs.parts import suggestion


@dataclass(frozen=True)
class _Thing:
    """What was described: an object, a copy, or a whole."""

    name: str
    frame: BodyId
    bodies: frozenset[BodyId]
    parts: tuple[tuple[str, frozenset[BodyId]], ...]
    first_part: int
    """The id of the first of the parts."""


class Register:
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
