"""The curves that set a data-block's properties from frame to frame: keyframes, NLA strips and drivers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import bpy

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
