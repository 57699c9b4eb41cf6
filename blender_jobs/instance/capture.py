"""One camera's look at the present frame: image, annotations and passes, as a sample's members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy.typing as npt

from blender_jobs import lens, seeds
from blender_jobs.imaging import geometry, render
from blender_jobs.imaging.geometry import Geometry
from blender_jobs.imaging.geometry_render import render_geometry
from blender_jobs.instance import sample
from blender_jobs.instance.loading import blame
from blender_jobs.job import Job, JobError
from blender_jobs.orders import Render
from blender_jobs.view import View


@dataclass(frozen=True)
class Moment:
    """Where in the dataset a frame is."""

    episode: int
    frame: int


@dataclass(frozen=True)
class Shot:
    """What one camera saw of one frame."""

    camera: str
    """The camera object's name; empty for the scene's own."""
    view: View
    geometry: Geometry
    members: dict[str, bytes]
    """The image and the annotations."""

    def with_passes(self, passes: list[str], flows: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
        """Return the sample's members, named after the camera where it has a name.

        Args:
            passes: those wanted.
            flows: the members of the pass ``flow``, where it is wanted.
        """
        arrays = geometry.members(passes, self.geometry, self.view.lens, self.view.labels, flows) if passes else {}
        members = {**self.members, **{name: sample.npy(array) for name, array in arrays.items()}}
        return {f"{self.camera}.{name}" if self.camera else name: content for name, content in members.items()}


def take(job: Job, order: Render, camera: str, moment: Moment, scratch: Path) -> Shot:
    """Render the present frame with a camera and annotate it.

    Args:
        job: the scene's owner.
        order: what is to be rendered, and how.
        camera: the camera object's name; empty for the scene's own.
        moment: which frame this is.
        scratch: folder for the files that Blender writes.

    Raises:
        JobError: there is no such camera, the scene cannot be rendered, or `annotate` fails.
    """
    scene, described, settings = bpy.context.scene, order.described, order.render
    aim(camera, order.job.path)
    if hasattr(scene, "cycles"):
        number = described.cameras.index(camera) if camera else 0
        scene.cycles.seed = seeds.frame_seed(order.seed, moment.episode, moment.frame, number)
    with blame(order.job.path, "camera"), lens.ideal(scene) as warp:
        image = render.render_image(scene, settings, scratch, warp)
        seen = render_geometry(scene, described.passes, scratch)
    if warp is not None:
        seen = seen.mapped(warp.nearest)
    with blame(order.job.path, "annotate"):
        counted = seen if "segmentation" in described.passes else None
        view = View(scene, geometry=counted, categories=described.categories)
        annotations = job.annotate(view)
        common = {
            "camera": view.camera,
            "image": {"width": view.width, "height": view.height},
            "episode": moment.episode,
            "frame": moment.frame,
            "seed": order.seed,
        }
        return Shot(camera, view, seen, sample.members(settings.image, image, common, annotations))


def aim(camera: str, job_path: str) -> None:
    """Make a camera the scene's, or make sure that the scene has one of its own.

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
