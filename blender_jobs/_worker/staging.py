"""Build the scene of a job, the same way whenever: an empty Blender or the ``.blend``, pinned settings, `Job.setup`."""

from __future__ import annotations

from pathlib import Path

import bpy

from blender_jobs import caches, stage
from blender_jobs._render import pins, properties, render
from blender_jobs._worker.blend import open_blend
from blender_jobs._worker.loading import blame
from blender_jobs.job import Job
from blender_jobs.orders import Described, JobSource, RenderSettings


def leave_edit_mode() -> None:
    """Apply what is being edited: files are saved so. Cycles renders it, but it is evaluated as empty."""
    for obj in bpy.context.scene.objects:
        if obj.mode == "EDIT":
            with bpy.context.temp_override(object=obj, active_object=obj):
                bpy.ops.object.mode_set(mode="OBJECT")


def build_scene(job: Job, source: JobSource, described: Described, settings: RenderSettings) -> list[str]:
    """Replace all that is in Blender by the job's scene; return what the user should know about its ``.blend``.

    The render settings are pinned before `Job.setup` too, so that it finds the image's size.

    Raises:
        JobError: the ``.blend`` cannot be used, or `setup` fails.
    """
    notes = []
    if described.blend:
        notes = open_blend(Path(described.blend), described.trust_blend)
    else:
        stage.clear()
        properties.apply(bpy.context.scene, render.DEFAULTS)
    notes += _pinned(settings)
    with blame(source.path, "setup"):
        job.setup()
    caches.contain()  # of what `setup` has added
    return notes


def _pinned(settings: RenderSettings) -> list[str]:
    settled = render.pinned(settings)
    animated = pins.silence_animation(bpy.context.scene, settled)
    properties.apply(bpy.context.scene, settled)
    if not animated:
        return []
    return [f"the animation of {', '.join(animated)} in {Path(bpy.data.filepath).name} is left out: the plan sets it"]
