"""A scene's render settings by their paths: set, set back, and held against its animation and a job's hooks.

A render takes its own evaluation of the scene, in which animation wins over whatever is set: so curves on these
settings are removed, and what the render found is compared with what was set.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from blender_jobs._render import animation
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


_ALSO = frozenset(["cycles.seed", "frame_current", "render.threads"])
"""Not in the plan by a value, but not the animation's to set either."""


def hold(scene: bpy.types.Scene, pins: Settings) -> None:
    """Set what is not as it must be. What is right is not touched: Blender would evaluate the scene for it."""
    for path, value in pins.items():
        if not _same(value_at(scene, path), value):
            *folders, name = path.split(".")
            setattr(value_at(scene, ".".join(folders)) if folders else scene, name, value)
    for layer in scene.view_layers:
        if layer.samples:
            layer.samples = 0  # would count instead of the scene's


def silence_animation(scene: bpy.types.Scene, pins: Collection[str]) -> list[str]:
    """Take away keyframes, NLA strips' and drivers that set what is pinned; return the settings' paths, sorted."""
    return animation.silence(scene, lambda path: path in pins or path in _ALSO or _is_samples_of_a_layer(path))


def check(scene: bpy.types.Scene, pins: Settings) -> None:
    """Make sure that everything is as it was set.

    Raises:
        JobError: something is not.
    """
    for path, value in pins.items():
        if not _same(found := value_at(scene, path), value):
            raise _other(path, found, value)


@contextmanager
def as_set(scene: bpy.types.Scene, paths: Collection[str]) -> Iterator[None]:
    """Make sure that a render within finds the settings as the scene has them.

    Raises:
        JobError: something in the scene made them otherwise, in the evaluation that was rendered.
    """
    wrong: dict[str, tuple[Any, Any]] = {}
    open_frames = shutter(scene)
    set_to = {path: value_at(scene, path) for path in sorted({*paths, *_ALSO}) if has(scene, path)}

    def look(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
        if depsgraph is None or depsgraph.mode != "RENDER":
            return
        evaluated = depsgraph.scene_eval
        for path, value in set_to.items():
            if path == "frame_current" and abs(evaluated.frame_current_final - value) <= open_frames:
                continue  # the shutter's opening or closing
            if not _same(found := value_at(evaluated, path), value):
                wrong[path] = (found, value)

    handlers = bpy.app.handlers.frame_change_post
    handlers.append(look)
    try:
        yield
    finally:
        handlers.remove(look)
    for path, (found, value) in wrong.items():
        raise _other(path, found, value)


def shutter(scene: bpy.types.Scene) -> float:
    """Return for how many frames the shutter is open; 0 without motion blur."""
    owners = [scene.render, scene.eevee]  # EEVEE's own: before Blender 4.2
    return max(
        float(owner.motion_blur_shutter) if getattr(owner, "use_motion_blur", False) else 0.0
        for owner in owners
        if hasattr(owner, "motion_blur_shutter")
    )


def _other(path: str, found: Any, value: Any) -> JobError:
    return JobError(
        f"the scene makes {path} {found!r}, where the plan says {value!r};"
        " remove what sets it: a driver, a keyframe or a handler"
    )


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, float):  # Blender holds 32 bits of it
        return bool(abs(found - value) <= 1e-6 * abs(value))
    return bool(found == value)


def _is_samples_of_a_layer(path: str) -> bool:
    return path.startswith("view_layers") and path.endswith(".samples")
