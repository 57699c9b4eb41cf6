"""Many properties set at once, by their paths, and set back."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from blender_jobs.job import JobError

Settings = dict[str, Any]
"""Values by their path in `bpy.types.Scene`, as ``render.resolution_x``."""


def has(owner: Any, path: str) -> bool:
    """Whether this Blender version has the property."""
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def value_at(owner: Any, path: str) -> Any:
    """Return the property's value."""
    return functools.reduce(getattr, path.split("."), owner)


def apply(owner: Any, settings: Settings) -> None:
    """Set each value of a scene, or of what else has such paths; those that this Blender version lacks are left out.

    Raises:
        JobError: a setting is there but not the value, which names an engine for instance that was not built in.
    """
    for path, value in settings.items():
        if has(owner, path):
            *folders, name = path.split(".")
            try:
                setattr(functools.reduce(getattr, folders, owner), name, value)
            except TypeError:  # an engine or an image format that was not built in
                raise JobError(
                    f"Blender {bpy.app.version_string} has no {value!r} for {path}; choose another, or another Blender"
                ) from None


@contextmanager
def temporarily(owner: Any, settings: Settings) -> Iterator[None]:
    """Set each value, and set what was there before in the end; those that this Blender version lacks are left out."""
    before = {path: value_at(owner, path) for path in settings if has(owner, path)}
    apply(owner, settings)
    try:
        yield
    finally:
        apply(owner, before)
