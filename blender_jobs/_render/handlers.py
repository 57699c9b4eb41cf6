"""Handlers that a job or a trusted ``.blend`` registers: they run once a frame, and no episode inherits another's.

State: Blender's own lists in `bpy.app.handlers`; `_INITIAL` are those before any job was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import bpy

_FRAME = ("frame_change_pre", "frame_change_post")
_RENDER = (
    "render_init",
    "render_pre",
    "render_post",
    "render_write",
    "render_complete",
    "render_cancel",
    "render_stats",
)

Registered = dict[str, list[Callable[..., Any]]]
"""The handlers by the name of their list in `bpy.app.handlers`."""


def _registered() -> Registered:
    """Return all handlers as they are now."""
    return {name: list(found) for name in dir(bpy.app.handlers) if isinstance(found := _list(name), list)}


def reset() -> None:
    """Leave only the handlers that were there before any scene: an episode inherits none from another."""
    _restore(_INITIAL)


def _restore(handlers: Registered) -> None:
    for name, wanted in handlers.items():
        _list(name)[:] = wanted


@contextmanager
def frame_handlers_off() -> Iterator[None]:
    """No frame handler runs: each render evaluates the frame again, where they would move things on."""
    with _off(_FRAME):
        yield


@contextmanager
def all_off() -> Iterator[None]:
    """No handler of frames or renders runs: for renders of which a job should not know."""
    with _off(_FRAME + _RENDER):
        yield


@contextmanager
def _off(names: Sequence[str]) -> Iterator[None]:
    before = {name: list(_list(name)) for name in names if hasattr(bpy.app.handlers, name)}
    try:
        for name in before:
            _list(name).clear()
        yield
    finally:
        _restore(before)


def _list(name: str) -> Any:
    return getattr(bpy.app.handlers, name)


_INITIAL = _registered()
