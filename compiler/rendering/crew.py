"""The instances at work: each thread drives one Blender, shard after shard, and tells the main loop what happened."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from compiler.errors import BlendshardError, InstanceLost, JobBroken, disk_error
from compiler.rendering.events import Event, JobFailed, Noted, Stopped
from compiler.rendering.instances import Instance, Launch
from compiler.rendering.task import Endurance, NotStarted, ShardTask
from compiler.rendering.turns import Turns, pause_after
from compiler.storage.failures import JOB_FAILED, memory_lost
from compiler.storage.store import Store, Tee


@dataclass(frozen=True)
class CrewOptions:
    """How many instances work, and how much is borne with."""

    instances: int
    launch: Launch
    endurance: Endurance = field(default_factory=Endurance)
    recycle_episodes: int = 500
    """An instance makes way for a fresh one after so many episodes, so that Blender's memory stays flat."""


@dataclass(frozen=True)
class Hands:
    """How many work at a moment."""

    alive: int
    """Instances that run."""
    waiting: int = 0
    """Slots that pause: their instances died at once, or another works alone."""
    alone: bool = False
    """One works alone, as memory is short."""


@dataclass
class Crew:
    """Threads with one instance each. Use as a context manager: leaving it ends every instance.

    State: the numbers of the shards still to do, the running instances, how many in a row died in each slot without
    having given a sample, what was noted of the job, whose turn it is, and whether to stop.
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
    _deaths: dict[int, int] = field(default_factory=dict)
    _notes: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self._turns = Turns(self._stop)

    def start(self, shards: Iterable[int], first: Instance) -> None:
        """Set to work on `shards`, in this order; `first` is an instance that runs already."""
        self._instances[0] = first
        self._shards = iter(shards)
        for slot in range(self.options.instances):
            thread = threading.Thread(target=self._work, args=(slot,), name=f"instance-{slot}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def hands(self) -> Hands:
        """How many work now."""
        alive = sum(instance.alive for instance in list(self._instances.values()))
        return Hands(alive, self._turns.waiting, self._turns.alone)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still works, let go what is done, and wait for the threads, which keep what is whole."""
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
        blender = self.options.launch.blender
        task = ShardTask(self.store, number, self.options.endurance, self.events, self.offer, blender)
        try:
            while task.remaining and not self._stop.is_set():
                loss = self._take_turn(slot, task)
                if loss is None:
                    continue
                self._release(slot)
                if self._stop.is_set() or not task.survives(loss):
                    return
                self._turns.pause(pause_after(self._deaths.get(slot, 0)))
            if not self._stop.is_set():
                task.commit()
        except JobBroken as error:
            if task.remaining:
                self.events.put(JobFailed(task.failure(JOB_FAILED, str(error), error.details, attempt=1)))
            raise
        finally:
            task.close()

    def _take_turn(self, slot: int, task: ShardTask) -> InstanceLost | None:
        """Render beside the others or alone, until all is done, it is another's turn or the instance is lost."""
        alone = task.alone and self.options.instances > 1
        if alone or self._turns.wanted:
            self._release(slot)  # whoever waits leaves its memory to the others
        try:
            with self._turns.lone() if alone else self._turns.shared():
                self._render_some(slot, task, 1 if alone else len(task.remaining))
        except InstanceLost as loss:
            return loss
        except JobBroken as error:
            if (shortage := memory_lost(error)) is None:
                raise
            return shortage
        return None

    def _render_some(self, slot: int, task: ShardTask, most: int) -> None:
        """Render up to `most` episodes, as far as the instance may still play them; all where the scene is reused."""
        if self._stop.is_set():
            return
        instance = self._instance(slot)
        room = min(most, self.options.recycle_episodes - instance.episodes)
        episodes = task.remaining if self.store.plan.job.reuse_scene else task.remaining[:room]
        for rendered, members in instance.render(self.store.plan.order(episodes, self.options.launch.threads)):
            self._deaths[slot] = 0
            task.add(members)
            self._note(rendered.notes)
            if task.at_rest and task.remaining and not task.alone and most > 1 and self._turns.wanted:
                self._release(slot)
                return

    def _note(self, notes: Mapping[str, str]) -> None:
        """Tell each note once, though every shard and every instance has it."""
        for about, note in notes.items():
            if self._notes.setdefault(about, note) is note:
                self.events.put(Noted(note))

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
            instance = self._instances[slot] = self._started(slot)
        return instance

    def _started(self, slot: int) -> Instance:
        """Return a fresh instance. Raises NotStarted."""
        self._deaths[slot] = self._deaths.get(slot, 0) + 1  # until its first sample comes
        try:
            return Instance(self.options.launch)
        except InstanceLost as loss:
            raise NotStarted(str(loss), loss.log) from None
        except OSError as error:
            raise NotStarted(f"could not be started: {error.strerror}") from None

    def _release(self, slot: int) -> None:
        if (instance := self._instances.pop(slot, None)) is not None:
            instance.end()
