"""Play one episode: scene, randomness, physics, frames; one sample for each frame that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_jobs import render, sample, seeds, stage
from blender_jobs.job import Job, JobError
from blender_jobs.loading import blame
from blender_jobs.orders import EpisodeOrder, Render
from blender_jobs.view import View


@dataclass
class Player:
    """Plays the episodes of one order in this Blender.

    State: `_job`, the scene's owner; made anew for each episode unless the job reuses its scene.
    """

    job_class: type[Job]
    fields: dict[str, Any]
    order: Render
    scratch: Path
    """Folder for the image file that Blender writes."""
    _job: Job | None = None

    def play(self, wanted: EpisodeOrder) -> Iterator[tuple[str, int, dict[str, bytes]]]:
        """Yield key, frame and members of each sample of the episode.

        Raises:
            JobError: the user's code failed, or the scene cannot be rendered.
        """
        rng = seeds.episode_rng(self.order.seed, wanted.episode)
        seeds.seed_global_generators(self.order.seed, wanted.episode)
        job = self._staged()
        with self._blame("randomize"):
            job.randomize(rng)
        scene = bpy.context.scene
        render.apply(scene, render.pinned(self.order.render))
        scene.render.threads = self.order.threads
        keys = {entry.frame: entry.key for entry in wanted.samples}
        for frame in self._frames(job, rng, list(keys)):
            if frame in keys:
                yield keys[frame], frame, self._sample(job, wanted.episode, frame)

    def _staged(self) -> Job:
        """Return the job with its scene built and nothing drawn yet."""
        if self._job is not None and self.job_class.reuse_scene:
            return self._job
        stage.clear()
        render.apply(bpy.context.scene, render.DEFAULTS)
        with self._blame("setup"):
            self._job = self.job_class(**self.fields)
            self._job.setup()
        return self._job

    def _frames(self, job: Job, rng: np.random.Generator, wanted: Sequence[int]) -> Iterator[int]:
        """Step physics and animation through every frame up to the last one wanted: skipping one changes them."""
        scene = bpy.context.scene
        first, last = min(1, wanted[0]), wanted[-1]
        scene.frame_start, scene.frame_end = first, last
        if scene.rigidbody_world is not None:
            cache = scene.rigidbody_world.point_cache
            cache.frame_start, cache.frame_end = first, max(last, first + 1)
        for frame in range(first, last + 1):
            with self._blame("step"):
                job.step(rng, frame)
            scene.frame_set(frame)
            yield frame

    def _sample(self, job: Job, episode: int, frame: int) -> dict[str, bytes]:
        scene, settings = bpy.context.scene, self.order.render
        if hasattr(scene, "cycles"):
            scene.cycles.seed = seeds.frame_seed(self.order.seed, episode, frame)
        if scene.camera is None:
            raise JobError(f"{self.order.job.path}: the scene has no camera; make one in setup(): stage.camera(...)")
        image = render.render_image(scene, settings.image, self.scratch)
        with self._blame("annotate"):
            view = View(scene)
            annotations = job.annotate(view)
            common = {
                "camera": view.camera,
                "image": {"width": view.width, "height": view.height},
                "episode": episode,
                "frame": frame,
                "seed": self.order.seed,
            }
            return sample.members(settings.image, image, common, annotations)

    def _blame(self, hook: str) -> Any:
        return blame(self.order.job.path, hook)
