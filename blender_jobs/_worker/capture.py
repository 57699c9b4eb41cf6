"""One camera's look at the present frame: image, annotations and passes, as a sample's members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs import _annotations, lens, seeds
from blender_jobs._render import animation, geometry, render, snapshot
from blender_jobs._render.geometry_render import render_geometry
from blender_jobs._render.segments import Segments
from blender_jobs._vision.surfaces import Snapshot
from blender_jobs._worker import staging
from blender_jobs._worker.loading import blame
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
    segments: Callable[[], Segments]
    members: dict[str, bytes]
    """The image and the annotations."""

    def with_passes(self, passes: list[str], flows: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
        """Return the sample's members, named after the camera where it has a name.

        Args:
            passes: those wanted.
            flows: the members of the pass ``flow``, where it is wanted.
        """
        arrays = self._arrays(passes, flows) if passes else {}
        members = {**self.members, **{name: _annotations.npy(array) for name, array in arrays.items()}}
        return {f"{self.camera}.{name}" if self.camera else name: content for name, content in members.items()}

    def _arrays(self, passes: list[str], flows: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        segments, labels = self.segments(), self.view.labels

        def numbers(values: Sequence[int]) -> npt.NDArray[np.uint16]:
            return segments.numbers(dict(zip(labels, values, strict=True)))

        return geometry.members(passes, segments.geometry, self.view.lens, labels.values(), numbers, flows)


def take(job: Job, order: Render, camera: str, moment: Moment, scratch: Path) -> Shot:
    """Render the present frame with a camera and annotate it.

    Args:
        job: the scene's owner.
        order: what to render, and how.
        camera: the camera object's name; empty for the scene's own.
        moment: which frame this is.
        scratch: folder for the files that Blender writes.

    Raises:
        JobError: there is no such camera, the scene cannot be rendered, or `annotate` fails.
    """
    scene, described, settings = bpy.context.scene, order.described, order.render
    aimed = staging.aim_camera(camera, order.job.path)
    if hasattr(scene, "cycles"):
        number = described.cameras.index(camera) if camera else 0
        scene.cycles.seed = seeds.frame_seed(order.seed, moment.episode, moment.frame, number)
    with blame(order.job.path, "camera"):
        seen = snapshot.take(scene)
        with animation.frame_handlers_off(), lens.ideal(scene, seen.camera) as warp:
            image = render.render_image(scene, settings, scratch, warp)
    if scene.camera != aimed:
        raise JobError(f"{order.job.path}: the scene's camera changed during the render; a handler or a marker set it")
    look = _Look(order, seen, scratch)
    if described.passes:
        look()
    with blame(order.job.path, "annotate"):
        view = View(
            scene,
            seen,
            look,
            counted="segmentation" in described.passes,
            categories=described.categories,
            episode=moment.episode,
            frame=moment.frame,
        )
        annotations = job.annotate(view)
        common = {
            "camera": view.camera,
            "image": {"width": view.width, "height": view.height},
            "episode": view.episode,
            "frame": view.frame,
            "seed": order.seed,
        }
        return Shot(camera, view, look, _annotations.sample_members(settings.image, image, common, annotations))


class _Look:
    """Renders what each pixel shows, once it is asked for: for the passes, and where the pixels alone tell."""

    def __init__(self, order: Render, seen: Snapshot, scratch: Path) -> None:
        self._order, self._seen, self._scratch = order, seen, scratch
        self._camera = bpy.context.scene.camera

    def __call__(self) -> Segments:
        return self._segments

    @cached_property
    def _segments(self) -> Segments:
        scene, seen, before = bpy.context.scene, self._seen, bpy.context.scene.camera
        wanted = self._order.described.passes or ["segmentation"]
        catchers = {name for name, bodies in seen.bodies.items() if all(b.unseen and b.hides for b in bodies.values())}
        scene.camera = self._camera
        try:
            with blame(self._order.job.path, "camera"), lens.ideal(scene, seen.camera) as warp:
                return Segments(render_geometry(scene, wanted, self._scratch, catchers), seen, warp)
        finally:
            scene.camera = before
