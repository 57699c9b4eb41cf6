"""Which camera and which view layer frames are rendered with, whatever the scene's timeline says."""

from __future__ import annotations

import bpy

from blender_jobs.job import JobError
from blender_jobs.parts import suggestion


def aim(camera: str, job_path: str) -> bpy.types.Object:
    """Make a camera the scene's, or make sure that the scene has one of its own; return it.

    Raises:
        JobError: there is none.
    """
    scene = bpy.context.scene
    if camera:
        found = scene.objects.get(camera)
        if found is None or found.type != "CAMERA":
            raise JobError(f"{job_path}: the scene has no camera {camera!r}, which the job's `cameras` names")
        scene.camera = found
    elif scene.camera is None:
        raise JobError(f"{job_path}: the scene has no camera; make one in setup(): stage.camera(...)")
    return scene.camera


def choose(view_layer: str, job_path: str) -> list[str]:
    """Render one view layer, and let no timeline marker set the camera; return what the user should know of it.

    Args:
        view_layer: the layer's name; empty: the active one.
        job_path: for messages.

    Raises:
        JobError: there is no such layer.
    """
    scene, notes = bpy.context.scene, []
    if view_layer and view_layer not in scene.view_layers:
        hint = suggestion(view_layer, scene.view_layers.keys())
        raise JobError(
            f"{job_path}: the scene has no view layer {view_layer!r}, which the job's `view_layer` names{hint}"
        )
    chosen = scene.view_layers[view_layer] if view_layer else bpy.context.view_layer
    if bpy.context.view_layer != chosen:
        bpy.context.window.view_layer = chosen
    for layer in scene.view_layers:
        if layer.use != (layer == chosen):
            layer.use = layer == chosen
    if len(scene.view_layers) > 1 and not view_layer:
        others = ", ".join(repr(layer.name) for layer in scene.view_layers if layer != chosen)
        notes.append(
            f"the scene has several view layers: picture and annotations are of {chosen.name!r}, the active one,"
            f" and not of {others}; the job's `view_layer` chooses"
        )
    if bound := _unbind_markers(scene):
        notes.append(
            f"timeline markers switch to {', '.join(map(repr, bound))}: they are not followed;"
            " the scene's camera or the job's `cameras` count"
        )
    return notes


def _unbind_markers(scene: bpy.types.Scene) -> list[str]:
    """Take the cameras from the scene's timeline markers, which would win over the chosen one; return their names."""
    bound = [marker for marker in scene.timeline_markers if marker.camera is not None]
    names = sorted({marker.camera.name for marker in bound})
    camera = scene.camera
    for marker in bound:
        marker.camera = None  # which sets the scene's camera to another marker's
    scene.camera = camera
    return names
