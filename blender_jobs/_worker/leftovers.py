"""What earlier episodes made and left in a scene that is reused: it piles up, in the picture and in no label."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import bpy

_NAMED = 3
"""Objects that are spelled out."""


class Leftovers:
    """Watches a scene that `Job.reuse_scene` keeps, over the episodes of a shard.

    State: the objects that were there before the first `randomize`, and before the present one.
    """

    def __init__(self) -> None:
        """Take note of what `setup` has made: it is meant to stay."""
        self._built = list(bpy.context.scene.objects)
        self._before: list[Any] = []

    def begin(self) -> None:
        """Take note of what earlier episodes have made, before the next one is drawn."""
        built = _addresses(self._built)
        self._before = [obj for obj in bpy.context.scene.objects if obj.as_pointer() not in built]

    def note(self, described: Collection[str]) -> str:
        """Return one line on what piles up: it is still shown, nothing describes it, and more has come; or nothing.

        What a job keeps on purpose it describes, hides, or makes once.

        Args:
            described: the full names of the objects that the episode's views have described.
        """
        here = {obj.as_pointer(): obj for obj in bpy.context.scene.objects}
        kept = _addresses(self._before)
        left = [obj for at, obj in here.items() if at in kept and _shows(obj, described)]
        made = here.keys() - _addresses(self._built) - kept
        if not left or not made:
            return ""
        names = ", ".join(obj.name for obj in left[:_NAMED]) + ", ..." * (len(left) > _NAMED)
        return (
            f"reuse_scene: objects that randomize() makes pile up: {len(left)} of earlier episodes are still shown, and"
            f" nobody describes them ({names}), beside {len(made)} new ones; make them in setup() and only change them"
            " in randomize(), or remove them there first: bpy.data.objects.remove(obj)"
        )


def _addresses(objects: list[Any]) -> set[int]:
    """Return where the objects are that have not been removed: the address of one that has may be another's by now."""
    found = set()
    for obj in objects:
        with suppress(ReferenceError):
            found.add(obj.as_pointer())
    return found


def _shows(obj: Any, described: Collection[str]) -> bool:
    return not obj.hide_render and obj.name_full not in described
