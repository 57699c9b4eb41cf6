"""The instances at work: each thread drives one Blender, shard after shard, and tells the main loop what happened."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import BlendshardError, InstanceLost, JobBroken, disk_error
from compiler.rendering.events import Event, JobFailed, Noted, Stopped
from compiler.rendering.retry import RetryPolicy, backoff_s, memory_lost
from compiler.rendering.shard import NotStarted, ShardTask
from compiler.storage.destination import Destination, SampleSink
from compiler.storage.failures import JOB_FAILED

_TICK_S = 0.2


class MemoryGate:
    """A lock that many may share or one may hold exclusively, as memory is short.

    A worker that asks for it exclusively waits until the others have released it; those who then ask to share it wait.

    State: how many share it, whether one has it exclusively, how many ask for that, and how many wait in all.
    """

    def __init__(self, stop: threading.Event) -> None:
        """Hold workers back until `stop`; after that let all through, to come to their end."""
        self.waiting = 0
        self.exclusive = False
        """Whether one has it exclusively."""
        self._stop = stop
        self._change = threading.Condition()
        self._sharing = 0
        self._asking = 0

    @property
    def exclusively_wanted(self) -> bool:
        """Whether those who share it should let it go, and leave the memory to one."""
        return self.exclusive or self._asking > 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Render while others do."""
        with self._change:
            self._wait(lambda: not self.exclusively_wanted)
            self._sharing += 1
        try:
            yield
        finally:
            with self._change:
                self._sharing -= 1
                self._change.notify_all()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Render while no other worker does."""
        with self._change:
            self._asking += 1
            self._wait(lambda: not self.exclusive and not self._sharing)
            self._asking -= 1
            self.exclusive = True
        try:
            yield
        finally:
            with self._change:
                self.exclusive = False
                self._change.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the stop."""
        if seconds:
            with self._counted():
                self._stop.wait(seconds)

    def _wait(self, free: Callable[[], bool]) -> None:
        """Wait, holding the condition's lock, until it is free or all should stop."""
        if free():
            return
        with self._counted():
            while not free() and not self._stop.is_set():
                self._change.wait(_TICK_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._change:
            self.waiting += 1
        try:
            yield
        finally:
            with self._change:
                self.waiting -= 1


@dataclass(frozen=True)
class PoolOptions:
    """How many instances there are, how they are started, and how often what fails is tried."""

    instances: int
    instance_options: InstanceOptions
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    recycle_episodes: int = 500
    """An instance is replaced after this many episodes, so that Blender's memory stays flat."""


@dataclass(frozen=True)
class PoolStatus:
    """How many workers are at work at a moment."""

    alive: int
    """Instances that run."""
    waiting: int = 0
    """Workers that pause: their instances died at once, or another works alone."""
    exclusive: bool = False
    """One works alone, as memory is short."""


class _Worker:
    """One thread's Blender: started when there is work for it, replaced when it has played enough.

    State: the instance, while one runs, and how many in a row died without having given a sample.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.deaths = 0
        self.running: Instance | None = None
        self._options = options

    @property
    def alive(self) -> bool:
        """Whether its instance runs."""
        return (instance := self.running) is not None and instance.alive

    def instance(self) -> Instance:
        """Return the instance; a fresh one where there is none or the old one has played enough. Raises NotStarted."""
        if self.running is not None and self.running.episodes >= self._options.recycle_episodes:
            self.release()
        if self.running is None:
            self.running = self._started()
        return self.running

    def _started(self) -> Instance:
        self.deaths += 1  # until its first sample comes
        try:
            return Instance(self._options.instance_options)
        except InstanceLost as loss:
            raise NotStarted(str(loss), loss.log) from None
        except OSError as error:
            raise NotStarted(f"could not be started: {error.strerror}") from None

    def kill(self) -> None:
        """End the instance at once, from another thread."""
        if (instance := self.running) is not None:
            instance.kill()

    def release(self) -> None:
        """Let the instance go."""
        instance, self.running = self.running, None
        if instance is not None:
            instance.end()


class WorkerPool:
    """Threads with one instance each. Use as a context manager: leaving it ends every instance.

    Args:
        store: what says which samples a shard has, and takes them.
        options: how many instances there are, how they are started, and how often what fails is tried.
        tee: gets each sample once, as it is written.

    State: the numbers of the shards still to do, the workers, which of them may render, what was noted of the job,
    and whether to stop.
    """

    def __init__(self, store: Destination, options: PoolOptions, tee: SampleSink | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        """What happens, in the order in which it does."""
        self._store, self._options, self._tee = store, options, tee
        self._shards: Iterator[int] = iter(())
        self._taking = threading.Lock()
        self._workers = [_Worker(options) for _ in range(options.instances)]
        self._threads: list[threading.Thread] = []
        self._notes: dict[str, str] = {}
        self._stop = threading.Event()
        self._gate = MemoryGate(self._stop)

    def start(self, shards: Iterable[int], first: Instance) -> None:
        """Set to work on `shards`, in this order; `first` is an instance that runs already."""
        self._workers[0].running = first
        self._shards = iter(shards)
        for number, worker in enumerate(self._workers):
            thread = threading.Thread(target=self._work, args=(worker,), name=f"instance-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def status(self) -> PoolStatus:
        """How many work now."""
        return PoolStatus(sum(worker.alive for worker in self._workers), self._gate.waiting, self._gate.exclusive)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still works, let go what is done, and wait for the threads, which keep what is whole."""
        self._stop.set()
        for thread in self._threads:
            while thread.is_alive():
                for worker in self._workers:
                    worker.kill()
                thread.join(0.1)
        for worker in self._workers:
            worker.release()

    def _work(self, worker: _Worker) -> None:
        while not self._stop.is_set() and (number := self._next_shard()) is not None:
            try:
                self._render_shard(worker, number)
            except BlendshardError as error:
                self.events.put(Stopped(error))
                break
            except OSError as error:
                self.events.put(Stopped(disk_error(error, self._store.path)))
                break
            except Exception as error:  # a defect of ours must end the build, not leave it waiting
                self.events.put(Stopped(BlendshardError(f"internal error: {type(error).__name__}: {error}")))
                raise
        if not self._stop.is_set():
            worker.release()

    def _next_shard(self) -> int | None:
        with self._taking:
            return next(self._shards, None)

    def _render_shard(self, worker: _Worker, number: int) -> None:
        """Render one shard completely, with as many instances as that takes, or give it up."""
        blender = self._options.instance_options.blender
        task = ShardTask(self._store, number, self._options.retry, self.events, self._offer, blender)
        try:
            while task.remaining and not self._stop.is_set():
                loss = self._render_due(worker, task)
                if loss is None:
                    continue
                worker.release()
                if self._stop.is_set() or not task.recover(loss):
                    return
                self._gate.pause(backoff_s(worker.deaths))
            if not self._stop.is_set():
                task.commit()
        except JobBroken as error:
            if task.remaining:
                self.events.put(JobFailed(task.failure(JOB_FAILED, str(error), error.details, attempt=1)))
            raise
        finally:
            task.close()

    def _render_due(self, worker: _Worker, task: ShardTask) -> InstanceLost | None:
        """Render until all is done, another needs the memory or the instance is lost; return the loss."""
        exclusive = task.exclusive and self._options.instances > 1
        if exclusive or self._gate.exclusively_wanted:
            worker.release()  # a waiting worker leaves its memory to the others
        try:
            with self._gate.exclusively() if exclusive else self._gate.shared():
                self._render_some(worker, task, 1 if exclusive else len(task.remaining))
        except InstanceLost as loss:
            return loss
        except JobBroken as error:
            if (shortage := memory_lost(error)) is None:
                raise
            return shortage
        return None

    def _render_some(self, worker: _Worker, task: ShardTask, most: int) -> None:
        """Render up to `most` episodes, as far as the instance may still play them; all where the scene is reused."""
        if self._stop.is_set():
            return
        instance, plan = worker.instance(), self._store.plan
        room = min(most, self._options.recycle_episodes - instance.episodes)
        episodes = task.remaining if plan.job.reuse_scene else task.remaining[:room]
        for rendered, members in instance.render(plan.order(episodes, self._options.instance_options.threads)):
            worker.deaths = 0
            task.add(members)
            self._note(rendered.notes)
            if task.at_rest and task.remaining and not task.exclusive and most > 1 and self._gate.exclusively_wanted:
                worker.release()
                return

    def _note(self, notes: Mapping[str, str]) -> None:
        """Report each note once, though every shard and every instance sends it."""
        for about, note in notes.items():
            if self._notes.setdefault(about, note) is note:
                self.events.put(Noted(note))

    def _offer(self, key: str, record: bytes) -> None:
        """Hand a sample to the tee; with its policy `block` this waits for slow listeners."""
        if self._tee is not None:
            self._tee.offer(key, record, self._stop.is_set)
