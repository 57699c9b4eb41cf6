"""Render samples of a finished dataset again, in fresh processes, and compare them with the published bytes."""

from __future__ import annotations

import bisect
import itertools
import random
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blender_jobs.orders import EpisodeOrder
from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import Incomplete, InstanceLost, UsageError
from compiler.machine import processor
from compiler.planning.plan import Plan
from compiler.process_control import deferred_interrupts
from compiler.resolve import FirstBlender, restore_checked
from compiler.storage.published import Published, samples_of
from compiler.verification.diff import Difference, compare_members
from loaders.manifest import Manifest, ShardInfo

_TICK_S = 0.2
"""How long is waited for a task at once: an interrupt gets its turn."""

Task = tuple[ShardInfo, list[EpisodeOrder]]
"""Episodes of one shard that a fresh instance renders."""


@dataclass(frozen=True)
class Rerendered:
    """One sample, rendered again."""

    key: str
    differences: list[Difference]
    """Empty: the same bytes in every member."""


@dataclass(frozen=True)
class Comparison:
    """What to render again, and how this installation differs from the one that made the dataset."""

    folder: Path
    plan: Plan
    tasks: list[Task]
    elsewhere: list[str]
    """One line for each difference of Blender build, packages or processor; empty: the bytes must be the same."""


def prepare_rerender(published: Published, amount: int | None, seed: int, first: FirstBlender) -> Comparison:
    """Choose what to render again.

    Args:
        published: the dataset.
        amount: how many samples; the whole episodes of them are rendered. None: every shard.
        seed: of the choice.
        first: the Blender that describes the job.

    Raises:
        OtherPlan: the job, its fields or its assets have changed, not only Blender and the packages.
        UsageError: it is a recording; or as `restore_checked`.
        JobBroken: as `restore_checked`.
    """
    manifest = published.manifest
    refuse_recording(manifest)
    plan, elsewhere = restore_checked(published, first, doing="render it again")
    elsewhere += _other_processor(manifest)
    tasks = all_tasks(plan, manifest) if amount is None else choose_tasks(plan, manifest, amount, seed)
    return Comparison(published.folder, plan, tasks, elsewhere)


def refuse_recording(manifest: Manifest) -> None:
    """Raise UsageError for a recording of a live tee."""
    if manifest.recorded:
        raise UsageError(
            "a recording of a live tee has no plan's order; its samples cannot be rendered again",
            "leave out --rerender, or reproduce the dataset that it was recorded from",
        )


def all_tasks(plan: Plan, manifest: Manifest) -> list[Task]:
    """Return one task for each shard: all of its episodes that are there."""
    tasks = [(shard, plan.episodes(shard.number, manifest.skipped)) for shard in manifest.shards]
    return [(shard, episodes) for shard, episodes in tasks if episodes]


def choose_tasks(plan: Plan, manifest: Manifest, amount: int, seed: int) -> list[Task]:
    """Choose `amount` of the samples that are there; return one task for each of their episodes.

    Where a scene serves all episodes of a shard, these are one task, as they were when they were made.
    """
    ends = list(itertools.accumulate(shard.samples for shard in manifest.shards))
    total = ends[-1] if ends else 0
    chosen = sorted(random.Random(seed).sample(range(total), min(amount, total)))
    tasks: list[Task] = []
    for at, indices in itertools.groupby(chosen, key=lambda index: bisect.bisect_right(ends, index)):
        shard = manifest.shards[at]
        due, start = plan.layout.samples(shard.number, manifest.skipped), ends[at] - shard.samples
        wanted = {due[index - start].episode for index in indices}
        episodes = plan.episodes(shard.number, manifest.skipped)
        if plan.job.reuse_scene:
            tasks.append((shard, episodes))
        else:
            tasks += [(shard, [episode]) for episode in episodes if episode.episode in wanted]
    return tasks


def rerender(comparison: Comparison, options: InstanceOptions, instances: int) -> Generator[Rerendered]:
    """Yield each sample with what differs, in the order of the shards; each task runs in a fresh instance.

    Close the generator where it is not read to its end: that kills the instances.

    Raises:
        Incomplete: an instance was lost.
        UsageError: a shard cannot be read.
        JobBroken: the job fails.
        KeyboardInterrupt: the instances were killed.
    """
    with deferred_interrupts() as check_interrupts, ThreadPoolExecutor(instances) as pool:
        running = _Instances(options)
        ahead: deque[Future[list[Rerendered]]] = deque(
            pool.submit(_render_task, comparison, running, *task) for task in comparison.tasks
        )
        try:
            while ahead:
                check_interrupts()
                if wait([ahead[0]], _TICK_S).done:
                    yield from ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()


class _Instances:
    """The instances at work in all threads, so that another thread can end them.

    State: the instances, and whether to stop.
    """

    def __init__(self, options: InstanceOptions) -> None:
        self.options = options
        self._instances: set[Instance] = set()
        self._stopped = False
        self._changing = threading.Lock()

    @contextmanager
    def instance(self) -> Iterator[Instance]:
        """Lend a fresh instance.

        Raises:
            InstanceLost: it did not start, or `stop` was called.
        """
        if self._stopped:
            raise InstanceLost("was not started, as all were stopped")
        with Instance(self.options) as instance:
            with self._changing:
                self._instances.add(instance)
                if self._stopped:
                    instance.kill()
            try:
                yield instance
            finally:
                with self._changing:
                    self._instances.discard(instance)

    def stop(self) -> None:
        """Kill all instances, and those that are just being started as soon as they are."""
        with self._changing:
            self._stopped = True
            for instance in self._instances:
                instance.kill()


def _other_processor(manifest: Manifest) -> list[str]:
    then, now = manifest.provenance.get("cpu"), processor()
    return [] if then == now else [f"the processor was {_name(then)}, is {_name(now)}"]


def _name(cpu: object) -> str:
    return str(cpu.get("model", "unknown")) if isinstance(cpu, dict) else "unknown"


def _render_task(
    comparison: Comparison, running: _Instances, shard: ShardInfo, episodes: list[EpisodeOrder]
) -> list[Rerendered]:
    order = comparison.plan.order(episodes, running.options.threads)
    published = _published(comparison.folder / shard.name, {entry.key for task in episodes for entry in task.samples})
    try:
        with running.instance() as instance:
            return [
                Rerendered(rendered.key, compare_members(published[rendered.key], members))
                for rendered, members in instance.render(order)
            ]
    except InstanceLost as loss:
        raise Incomplete(f"{shard.name}: while it was rendered again, the instance {loss}", details=loss.log) from None


def _published(path: Path, keys: set[str]) -> dict[str, dict[str, bytes]]:
    """Return the members of the samples with these keys.

    Raises:
        UsageError: the shard cannot be read, or lacks one.
    """
    found = {}
    for sample in samples_of(path):
        if sample.key in keys:
            found[sample.key] = sample.members
        if len(found) == len(keys):
            return found
    raise UsageError(f"{path} lacks sample {min(keys - found.keys())}", "it is damaged; compile the dataset again")
