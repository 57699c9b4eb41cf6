"""What changes a scene from frame to frame: keyframes, NLA strips, drivers; and handlers, which end with their episode.

State: Blender's own lists in `bpy.app.handlers`; `_INITIAL` are those before any job was loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

Vector = Sequence[float] | npt.NDArray[np.float64]

_BY_NAME = re.compile(r"""\[(["'])(.*?)\1\]""")


def curves(block: bpy.types.ID) -> Iterator[bpy.types.FCurve]:
    """Yield all curves that a data-block's animation can use, muted or not."""
    data = block.animation_data
    if data is None:
        return
    yield from data.drivers
    strips = (strip for track in data.nla_tracks for strip in _with_inner(track.strips))
    actions = [data.action, getattr(data, "action_tweak_storage", None), *(strip.action for strip in strips)]
    for action in dict.fromkeys(filter(None, actions)):
        yield from _of_action(action)


def plain_path(curve: bpy.types.FCurve) -> str:
    """Return what a curve sets with a dot before each name: ``["cycles"]["samples"]`` is ``cycles.samples``, too."""
    return _BY_NAME.sub(r".\2", curve.data_path).lstrip(".")


def keyframe(obj: bpy.types.Object, path: str, values: Mapping[int, Vector], interpolation: str) -> None:
    """Let the vector at `path` be `values`, by frame, and between them in between; earlier keyframes of it go.

    In the end the object is where it is in the first of these frames.
    """
    fixed = {frame: [float(part) for part in value] for frame, value in values.items()}  # `obj.location` moves along
    for curve in _keyed(obj, path):
        for frame in [point.co[0] for point in curve.keyframe_points]:
            obj.keyframe_delete(path, index=curve.array_index, frame=frame)
    for frame in sorted(fixed, reverse=True):
        setattr(obj, path, fixed[frame])
        obj.keyframe_insert(path, frame=float(frame))
    for curve in _keyed(obj, path):
        for point in curve.keyframe_points:
            point.interpolation = interpolation


def _keyed(obj: bpy.types.Object, path: str) -> list[bpy.types.FCurve]:
    return [curve for curve in curves(obj) if curve.data_path == path and curve.driver is None]


def silence(block: bpy.types.ID, chosen: Callable[[str], bool]) -> list[str]:
    """Take the curves away whose `plain_path` is chosen; return these paths, sorted."""
    found = {curve: path for curve in curves(block) if chosen(path := plain_path(curve))}
    for curve in found:
        if curve.driver is None:
            curve.mute = True
    if found:  # a driver that is muted still sets what it set before
        drivers = block.animation_data.drivers
        for curve in [curve for curve in drivers if chosen(plain_path(curve))]:
            drivers.remove(curve)
    return sorted(set(found.values()))


def _with_inner(strips: Any) -> Iterator[Any]:
    for strip in strips:
        yield strip
        yield from _with_inner(strip.strips)


def _of_action(action: bpy.types.Action) -> Iterator[bpy.types.FCurve]:
    layers = getattr(action, "layers", ())  # from Blender 4.4
    bags = [bag for layer in layers for strip in layer.strips for bag in getattr(strip, "channelbags", ())]
    for bag in bags or [action]:
        yield from getattr(bag, "fcurves", ())


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


def reset_handlers() -> None:
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
def all_handlers_off() -> Iterator[None]:
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
