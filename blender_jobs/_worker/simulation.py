"""Rigid-body physics that rendering does not disturb."""

from __future__ import annotations

from typing import Any

import bpy

_ELSEWHERE = 7
"""Frames before the first: any number but 0."""


def begin(scene: bpy.types.Scene, first: int, last: int) -> None:
    """Make the scene's frames, and its physics if it has any, run from `first` to `last`.

    Physics that is set to begin after frame 1 begins there, as in Blender: bodies stand still until then.

    The rigid-body world is made anew, with all its settings, while the scene seems to begin elsewhere. Every render
    works on a copy of the scene. In the copy Blender takes the physics for out of date, as it has counted no bodies
    yet, and in the frame after the first it then builds the bodies anew, from poses that other threads may be about
    to set: they go on from there otherwise than without the render, and not always alike. It does so only where a
    world believes that it stands at the first frame. What it believes is set when it is made, and copied from there.
    """
    scene.frame_start, scene.frame_end = first, last
    world = scene.rigidbody_world
    if world is None or world.point_cache.is_baked:  # what is baked is read and never stepped
        return
    settings, weights = _values(world), _values(world.effector_weights)
    start = world.point_cache.frame_start if world.point_cache.frame_start > max(first, 1) else first
    scene.frame_start = first - _ELSEWHERE
    bpy.ops.rigidbody.world_remove()
    bpy.ops.rigidbody.world_add()
    scene.frame_start = first
    world = scene.rigidbody_world
    _set(world, settings)
    _set(world.effector_weights, weights)
    world.point_cache.frame_start, world.point_cache.frame_end = start, max(last, start + 1)


def _values(owner: Any) -> dict[str, Any]:
    """Return what can be set of an owner's own properties."""
    names = [entry.identifier for entry in owner.bl_rna.properties if not entry.is_readonly]
    return {name: getattr(owner, name) for name in names}


def _set(owner: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(owner, name, value)
