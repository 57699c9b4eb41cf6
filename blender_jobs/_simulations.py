"""Physics and its caches: bodies that rendering does not disturb, files that stay in the process's folder.

Blender writes and deletes cache files without being asked, next to the ``.blend`` or wherever that says. What was baked
is only read, and stays where it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from blender_jobs._render import animation

_SWITCHES = ("use_disk_cache", "use_external")
_HARMLESS = re.compile(r"""[^'"\\\n\r]*""")
"""The folders of fluids end up in Python code that Blender runs."""


def contain_caches() -> None:
    """Let no cache of what is loaded be written outside this Blender's own temporary folder. Nothing is evaluated."""
    for _, cache in point_caches():
        if not cache.is_baked and not _is_ours(cache):
            _switch(cache, "use_disk_cache", False)
            _switch(cache, "use_external", False)
    for number, (_, cache) in enumerate(_painted()):
        if not cache.is_baked and not _is_ours(cache):  # dynamic paint knows files alone
            cache.filepath = str(_folder() / f"paint{number}")
            _switch(cache, "use_external", True)
    for block in [*bpy.data.objects, *bpy.data.scenes]:
        if block.animation_data is not None:
            animation.silence(block, lambda path: path.rpartition(".")[2] in _SWITCHES)
    for number, (_, domain) in enumerate(fluid_domains()):
        if domain.cache_type == "REPLAY" or not _HARMLESS.fullmatch(domain.cache_directory):
            folder = str(_folder() / f"fluid{number}")
            if domain.cache_directory != folder:
                domain.cache_directory = folder


def clear_caches() -> None:
    """Remove what was written for the scene before: what it left must not be taken for another's."""
    shutil.rmtree(_folder(), ignore_errors=True)


def point_caches() -> Iterator[tuple[bpy.types.ID, Any]]:
    """Yield each point cache (of particles, cloth, soft and rigid bodies, dynamic paint) after its owner."""
    for obj in bpy.data.objects:
        for system in obj.particle_systems:
            yield obj, system.point_cache
        for modifier in obj.modifiers:
            if (cache := getattr(modifier, "point_cache", None)) is not None:
                yield obj, cache
    for scene in bpy.data.scenes:
        if scene.rigidbody_world is not None and scene.rigidbody_world.point_cache is not None:
            yield scene, scene.rigidbody_world.point_cache
    yield from _painted()


def fluid_domains() -> Iterator[tuple[bpy.types.Object, Any]]:
    """Yield the settings of each fluid domain after its object."""
    for obj in bpy.data.objects:
        for modifier in obj.modifiers:
            if modifier.type == "FLUID" and modifier.fluid_type == "DOMAIN":
                yield obj, modifier.domain_settings


def _painted() -> Iterator[tuple[bpy.types.ID, Any]]:
    for obj in bpy.data.objects:
        for modifier in obj.modifiers:
            for surface in getattr(getattr(modifier, "canvas_settings", None), "canvas_surfaces", ()):
                yield obj, surface.point_cache


def _switch(cache: Any, name: str, value: bool) -> None:
    """Set what of a cache is in files without Blender noticing: it would remove or rename those that are there."""
    entries = cache.point_caches
    if any(getattr(entry, name) != value for entry in entries):
        entries.foreach_set(name, [value] * len(entries))


def _is_ours(cache: Any) -> bool:
    return bool(cache.use_external) and cache.filepath.startswith(str(_folder()))


def _folder() -> Path:
    return Path(bpy.app.tempdir) / "caches"


_ELSEWHERE = 7
"""Frames before the first: any number but 0."""


def begin_physics(scene: bpy.types.Scene, first: int, last: int) -> None:
    """Make the scene's frames, and its physics if it has any, run from `first` to `last`.

    Physics that is set to begin after frame 1 begins there, as in Blender: bodies rest until then.

    The rigid-body world is created again, with all its settings, while the scene seems to begin elsewhere. Every render
    works on a copy of the scene. In the copy Blender takes the physics for out of date, as it has counted no bodies
    yet, and in the frame after the first it then rebuilds the bodies from poses that other threads may be about
    to set: they go on from there otherwise than without the render, and not always alike. It does so only where a
    world believes that it is at the first frame. What it believes is set when it is created, and copied from there.
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
