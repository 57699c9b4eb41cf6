"""The instances at work: each thread drives one Blender, shard after shard, and tells the main loop what happened."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blender_jobs.orders import EpisodeOrder, Render
from compiler import schema
from compiler.errors import BlendshardError, Incomplete, InstanceLost, JobBroken, disk_error
from compiler.instances import Instance, Launch
from compiler.plan import SPLIT, Plan
from compiler.store import Store, Tee
from loaders.manifest import ShardInfo

_SIGNS_OF_NO_OPENGL = ("Couldn't find current GLX or EGL context", "Couldn't open libEGL", "headless GPU context")
"""What Blender says before it aborts for want of OpenGL. Lines with EGL_BAD_MATCH come in healthy runs, too."""


@dataclass(frozen=True)
class SampleDone:
    """One more sample stands in a part file."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """A shard has its final name."""

    shard: ShardInfo
    annotations: schema.Schema


@dataclass(frozen=True)
class Restarted:
    """An instance was lost; its order is rendered again."""

    shard: int
    episode: int
    reason: str
    samples_lost: int


@dataclass(frozen=True)
class ShardFailed:
    """A shard was given up; the others go on."""

    shard: int
    error: Incomplete
    samples_lost: int


@dataclass(frozen=True)
class Stopped:
    """Nothing more will come of this build."""

    error: BlendshardError


Event = SampleDone | ShardDone | Restarted | ShardFailed | Stopped


@dataclass(frozen=True)
class CrewOptions:
    """How many instances work, and how much is borne with."""

    instances: int
    launch: Launch
    attempts: int = 3
    """How often an episode is tried before its shard is given up."""
    recycle_episodes: int = 500
    """An instance makes way for a fresh one after so many episodes, so that Blender's memory stays flat."""


@dataclass
class Crew:
    """Threads with one instance each. Use as a context manager: leaving it ends every instance.

    State: the numbers of the shards still to do, the running instances, and whether to stop.
    """

    store: Store
    options: CrewOptions
    tee: Tee | None = None
    """Gets each sample once, as it is written."""
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    _shards: Iterator[int] = field(default_factory=lambda: iter(()))
    _taking: threading.Lock = field(default_factory=threading.Lock)
    _instances: dict[int, Instance] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self, shards: Iterable[int], first: Instance) -> None:
        """Set to work on `shards`, in this order; `first` is an instance that runs already."""
        self._instances[0] = first
        self._shards = iter(shards)
        for slot in range(self.options.instances):
            thread = threading.Thread(target=self._work, args=(slot,), name=f"instance-{slot}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def alive(self) -> int:
        """How many instances run."""
        return sum(instance.alive for instance in list(self._instances.values()))

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still works, let go what is done, and wait for the threads: no part file stays behind."""
        self._stop.set()
        for thread in self._threads:
            while thread.is_alive():
                for instance in list(self._instances.values()):
                    instance.kill()
                thread.join(0.1)
        for slot in list(self._instances):
            self._release(slot)

    def _work(self, slot: int) -> None:
        while not self._stop.is_set() and (number := self._next_shard()) is not None:
            try:
                self._render_shard(slot, number)
            except BlendshardError as error:
                self.events.put(Stopped(error))
                break
            except OSError as error:
                self.events.put(Stopped(disk_error(error, self.store.path)))
                break
            except Exception as error:  # a defect of ours must end the build, not leave it waiting
                self.events.put(Stopped(BlendshardError(f"internal error: {type(error).__name__}: {error}")))
                raise
        if not self._stop.is_set():
            self._release(slot)

    def _next_shard(self) -> int | None:
        with self._taking:
            return next(self._shards, None)

    def _render_shard(self, slot: int, number: int) -> None:
        """Render one shard to its end, over as many instances as it takes, or give it up."""
        task = _ShardTask(self, number)
        try:
            while task.remaining and not self._stop.is_set():
                try:
                    self._render_some(self._instance(slot), task)
                except InstanceLost as loss:
                    self._release(slot)
                    if self._stop.is_set() or not task.survives(loss, self.options.attempts):
                        return
            if not self._stop.is_set():
                task.commit()
        finally:
            task.close()

    def _render_some(self, instance: Instance, task: _ShardTask) -> None:
        """Render as many of the remaining episodes as the instance may still play, or all where the scene is kept."""
        room = self.options.recycle_episodes - instance.episodes
        episodes = task.remaining if self.store.plan.job.reuse_scene else task.remaining[:room]
        for _, members in instance.render(self._order(episodes)):
            task.add(members)

    def _order(self, episodes: list[EpisodeOrder]) -> Render:
        plan = self.store.plan
        digest, threads = plan.job.source_sha256, self.options.launch.threads
        return Render(plan.source, digest, plan.job.fields, plan.seed, plan.render, threads, episodes)

    def offer(self, key: str, record: bytes) -> None:
        """Hand a sample to the tee; with its policy `block` this waits for slow listeners."""
        if self.tee is not None:
            self.tee.offer(key, record, self._stop.is_set)

    def _instance(self, slot: int) -> Instance:
        """Return the slot's instance; a fresh one where there is none or the old one has played enough."""
        instance = self._instances.get(slot)
        if instance is not None and instance.episodes >= self.options.recycle_episodes:
            self._release(slot)
            instance = None
        if instance is None:
            instance = self._instances[slot] = Instance(self.options.launch)
        return instance

    def _release(self, slot: int) -> None:
        if (instance := self._instances.pop(slot, None)) is not None:
            instance.end()


class _ShardTask:
    """One shard on its way.

    State: the writer, the episodes not yet whole in it (the first of them perhaps begun), the annotations' schema so
    far, how often the current episode was tried, and how many samples the tee has got: what is rendered again after
    a crash, it does not get again.
    """

    def __init__(self, crew: Crew, number: int) -> None:
        self.plan = crew.store.plan
        self.number = number
        self.remaining = self.plan.episodes(number)
        self._crew = crew
        self._writer = crew.store.writer(number)
        self._annotations: schema.Schema = "null"
        self._begun = 0  # samples of remaining[0] that are written
        self._tries = 1
        self._offered = 0
        self._expected = set(self.plan.members())

    def add(self, members: dict[str, bytes]) -> None:
        """Append the next sample due.

        Raises:
            InstanceLost: the members are not what the plan says.
            JobBroken: the annotations do not fit those of other samples.
        """
        due = self.remaining[0].samples[self._begun]
        if set(members) != self._expected:
            raise InstanceLost(f"sent {sorted(members)} for {due.key} where {sorted(self._expected)} were due")
        try:
            annotations = json.loads(members["json"])
            record = self._writer.add(due.key, members)
        except ValueError as error:
            raise InstanceLost(f"sent garbage for {due.key}: {error}") from None
        try:
            self._annotations = schema.merge(self._annotations, schema.schema_of(annotations))
        except schema.SchemaConflict as conflict:
            raise JobBroken(f"{self.plan.source.path}: annotate: {conflict} (at {due.key})") from None
        if self._writer.samples > self._offered:
            self._crew.offer(due.key, record)
            self._offered += 1
        self._crew.events.put(SampleDone(self.number))
        self._begun += 1
        if self._begun == len(self.remaining[0].samples):
            self.remaining, self._begun, self._tries = self.remaining[1:], 0, 1

    def survives(self, loss: InstanceLost, attempts: int) -> bool:
        """Go back to where rendering can begin again; False, and the shard given up, when that was tried enough."""
        if not self.remaining:
            return True  # it was lost after its last sample
        episode = self.remaining[0].episode
        kept = 0 if self.plan.job.reuse_scene else self._writer.samples - self._begun
        lost = self._writer.samples - kept
        if self._tries >= attempts:
            error = _given_up(self.plan, self.number, episode, loss, attempts)
            self._crew.events.put(ShardFailed(self.number, error, self._writer.samples))
            return False
        self._crew.events.put(Restarted(self.number, episode, str(loss), lost))
        self._writer.rewind(kept)
        if self.plan.job.reuse_scene:
            self.remaining = self.plan.episodes(self.number)
        self._begun, self._tries = 0, self._tries + 1
        return True

    def commit(self) -> None:
        """Give the shard its name."""
        self._crew.events.put(ShardDone(self._writer.commit(SPLIT, self.number), self._annotations))

    def close(self) -> None:
        """Leave no part file behind, unless the shard was committed."""
        self._writer.discard()


def _given_up(plan: Plan, shard: int, episode: int, loss: InstanceLost, attempts: int) -> Incomplete:
    replay = f"compile-dataset replay {{directory}} --episode {episode}"
    no_gl = any(mark in line for line in loss.log for mark in _SIGNS_OF_NO_OPENGL)
    return Incomplete(
        f"shard {shard}: episode {episode} was tried {attempts} times; the last instance {loss}",
        hint=f"compile-dataset doctor, as OpenGL seems to be missing; or {replay}" if no_gl else replay,
        details=loss.log,
    )
