"""Play one episode: scene, randomness, physics, frames; one sample for each frame that is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_jobs import _simulations, assets, lens, seeds
from blender_jobs._render import animation, properties, render
from blender_jobs._worker import capture, motion, scene_files, staging
from blender_jobs._worker.capture import Shot
from blender_jobs._worker.loading import blame
from blender_jobs._worker.staging import build_scene, leave_edit_mode
from blender_jobs.job import Job
from blender_jobs.orders import EpisodeOrder, Render

FrameMembers = tuple[int, dict[str, bytes]]
"""A frame and its members."""


@dataclass
class Player:
    """Plays the episodes of one order in this Blender.

    State: `_job`, the scene's owner; created for each episode unless the job reuses its scene. What the plan sets in
    the scene, the files that the scene reads, and what a reused one has kept of earlier episodes.
    """

    job_class: type[Job]
    fields: dict[str, Any]
    order: Render
    scratch: Path
    """Folder for the files that Blender writes."""
    notes: dict[str, str] = field(default_factory=dict)
    """What the user should know of the last sample, by what it is about; of each, one note is enough."""
    _job: Job | None = None
    _pins: properties.Settings = field(default_factory=dict)
    _files: scene_files.SceneFiles = field(default_factory=lambda: scene_files.SceneFiles(()))
    _leftovers: Leftovers | None = None

    def play(self, wanted: EpisodeOrder) -> Iterator[tuple[str, int, dict[str, bytes]]]:
        """Yield key, frame and members of each sample of the episode.

        Raises:
            JobError: the user's code failed, or the scene cannot be rendered.
        """
        described, rng = self.order.described, seeds.episode_rng(self.order.seed, wanted.episode)
        assets.begin(self.order.job.base, {asset.path: asset.sha256 for asset in described.assets})
        seeds.seed_global_generators(self.order.seed, wanted.episode)
        job = self._staged()
        if self._leftovers is not None:
            self._leftovers.begin()
        with self._blame("randomize"):
            job.randomize(rng)
        scene = bpy.context.scene
        leave_edit_mode()
        staging.choose_view_layer(job.view_layer, self.order.job.path)
        _simulations.contain_caches()
        self._files = scene_files.collect(described.frames)
        for file in self._files.present(scene):
            assets.use(file)
        self._pins = render.pinned(self.order.render)
        properties.silence_animation(scene, self._pins)
        properties.apply(scene, self._pins)
        scene.render.threads = self.order.threads
        if self.order.save_blend:  # now, for the frames may be what Blender does not survive
            with self._blame("camera"), lens.own_pixels(scene):
                bpy.ops.wm.save_as_mainfile(filepath=self.order.save_blend, copy=True, compress=True)
        keys = {entry.frame: entry.key for entry in wanted.samples}
        samples = self._moving_samples if "flow" in described.passes else self._samples
        for frame, members in samples(job, rng, wanted.episode, list(keys)):
            yield keys[frame], frame, members

    def _samples(self, job: Job, rng: np.random.Generator, episode: int, wanted: list[int]) -> Iterator[FrameMembers]:
        for frame in self._frames(job, rng, wanted[0], wanted[-1]):
            if frame in wanted:
                yield frame, self._members(self._shots(job, capture.Moment(episode, frame)))

    def _moving_samples(
        self, job: Job, rng: np.random.Generator, episode: int, wanted: list[int]
    ) -> Iterator[FrameMembers]:
        """Yield each frame wanted once the next one is there, to which its surfaces flow."""
        shots: list[Shot] = []
        before: motion.State | None = None
        now: motion.State | None = None
        for frame in self._frames(job, rng, wanted[0], wanted[-1] + 1):
            following = motion.present(self.order)
            if now is not None and shots:
                yield frame - 1, self._members(shots, motion.Window(before, now, following))
            shots = self._shots(job, capture.Moment(episode, frame)) if frame in wanted else []
            before, now = now, following

    def _staged(self) -> Job:
        """Return the job with its scene built and nothing drawn yet."""
        if self._job is not None and self.job_class.reuse_scene:
            return self._job
        animation.reset_handlers()
        with self._blame("__init__"):
            self._job = self.job_class(**self.fields)
        build_scene(self._job, self.order.job, self.order.described, self.order.render)
        self._leftovers = Leftovers() if self.job_class.reuse_scene else None
        return self._job

    def _frames(self, job: Job, rng: np.random.Generator, first: int, last: int) -> Iterator[int]:
        """Step physics and animation through every frame up to the last: skipping one changes those after it."""
        first = min(1, first)
        _simulations.begin_physics(bpy.context.scene, first, last)
        for frame in range(first, last + 1):
            with self._blame("step"):
                job.step(rng, frame)
            scene = bpy.context.scene
            properties.hold(scene, self._pins)
            scene.frame_set(frame)
            properties.check(scene, self._pins)
            if self.order.described.missing_files == "refuse" and (frame == first or type(job).step is not Job.step):
                self._files.check(scene, self.order.described.blend)
            yield frame

    def _shots(self, job: Job, moment: capture.Moment) -> list[Shot]:
        cameras = self.order.described.cameras or [""]
        shots = [capture.take(job, self.order, camera, moment, self.scratch) for camera in cameras]
        self.notes = self._told(shots)
        return shots

    def _told(self, shots: list[Shot]) -> dict[str, str]:
        """Return what only a frame and its labels tell of the job."""
        if self._leftovers is None:
            return {}
        note = self._leftovers.note({owner for shot in shots for owner, _ in shot.view.labels})
        return {"reuse_scene": note} if note else {}

    def _members(self, shots: list[Shot], window: motion.Window | None = None) -> dict[str, bytes]:
        members: dict[str, bytes] = {}
        for shot in shots:
            flows = window.flows(shot) if window else {}
            members |= shot.with_passes(self.order.described.passes, flows)
        return members

    def _blame(self, hook: str) -> Any:
        return blame(self.order.job.path, hook)


_NAMED = 3
"""Objects that are spelled out."""


class Leftovers:
    """Watches a scene that `Job.reuse_scene` keeps, over the episodes of a shard.

    State: the objects that were there before the first `randomize`, and before the present one.
    """

    def __init__(self) -> None:
        """Take note of what `setup` has made: it is meant to stay."""
        self._built = list(bpy.context.scene.objects)
        self._before: list[Any] = []

    def begin(self) -> None:
        """Take note of what earlier episodes have made, before the next one is drawn."""
        built = _addresses(self._built)
        self._before = [obj for obj in bpy.context.scene.objects if obj.as_pointer() not in built]

    def note(self, described: Collection[str]) -> str:
        """Return one line on what piles up: it is still shown, nothing describes it, and more has come; or nothing.

        What a job keeps on purpose it describes, hides, or makes once.

        Args:
            described: the full names of the objects that the episode's views have described.
        """
        here = {obj.as_pointer(): obj for obj in bpy.context.scene.objects}
        kept = _addresses(self._before)
        left = [obj for at, obj in here.items() if at in kept and _shows(obj, described)]
        made = here.keys() - _addresses(self._built) - kept
        if not left or not made:
            return ""
        names = ", ".join(obj.name for obj in left[:_NAMED]) + ", ..." * (len(left) > _NAMED)
        return (
            f"reuse_scene: objects that randomize() makes pile up: {len(left)} of earlier episodes are still shown,"
            f" no annotation describes them ({names}), and {len(made)} new ones come on top; make them in setup() and"
            " only change them in randomize(), or remove them there first: bpy.data.objects.remove(obj)"
        )


def _addresses(objects: list[Any]) -> set[int]:
    """Return where the objects are that have not been removed: the address of one that has may be another's by now."""
    found = set()
    for obj in objects:
        with suppress(ReferenceError):
            found.add(obj.as_pointer())
    return found


def _shows(obj: Any, described: Collection[str]) -> bool:
    return not obj.hide_render and obj.name_full not in described
