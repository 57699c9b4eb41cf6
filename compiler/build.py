"""The one-way loop: what is missing goes to the worker pool, what comes back into the manifest and onto the display."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from compiler.blender.process import Instance
from compiler.errors import Incomplete
from compiler.planning.sightings import Sightings
from compiler.process_control import deferred_interrupts
from compiler.rendering.events import (
    EpisodeSkipped,
    Event,
    JobFailed,
    Noted,
    Restarted,
    SampleDone,
    SamplesKept,
    ShardDone,
    ShardFailed,
    Stopped,
)
from compiler.rendering.pool import PoolOptions, PoolStatus, WorkerPool
from compiler.storage.destination import Destination, SampleSink

_LIVE_COUNTS = ("connections", "samples_offered", "samples_sent", "samples_dropped", "samples_abandoned")
_LOOK_EVERY_S = 1.0
_TICK_S = 0.2
"""How long the loop waits at once: so that interrupts are noticed on every platform."""


@dataclass
class Report:
    """What a build did; grows while it runs."""

    shards_wanted: int
    """0: there is no end."""
    samples_wanted: int
    shards_done: int = 0
    samples_done: int = 0
    samples_rendered: int = 0
    samples_kept: int = 0
    """Of shards that an earlier run had begun."""
    restarts: int = 0
    seconds: float = 0.0
    damaged: list[str] = field(default_factory=list)
    """Finished shards that had been damaged and were rendered again."""
    failed: list[Incomplete] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """The keys of samples that were left out, and why."""
    failures: int = 0
    """How much was noted in the directory's `failures.jsonl`."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of the job, learned by rendering it."""
    seen: Sightings = field(default_factory=Sightings)
    """What came into view in the shards that were rendered now as a whole."""
    seen_in: set[int] = field(default_factory=set)
    """Which these are."""
    live: dict[str, int] | None = None
    """The tee's counts (`live_counts`), where there is one."""

    @property
    def rate(self) -> float:
        """Samples rendered in a second, over the whole build."""
        return self.samples_rendered / self.seconds if self.seconds else 0.0


class Display(Protocol):
    """Shows the progress of a build."""

    def update(self, report: Report, workers: PoolStatus, event: Event | None) -> None:
        """Take note of an event (None: a moment without one)."""

    def close(self) -> None:
        """Leave the terminal as it was."""


@dataclass(frozen=True)
class Outstanding:
    """What a build has to do."""

    report: Report
    """As it is before anything is rendered."""
    missing: Iterable[int]
    """Numbers of the shards to render."""
    endless: bool = False
    require_objects: bool = False
    """For a build without end: stop unless the first shard that is done shows an object."""


def find_outstanding(
    store: Destination, shards: int, endless: bool = False, require_objects: bool = False
) -> Outstanding:
    """Find out what is missing of the first `shards` shards; where there is no end, of all that there can be."""
    if endless:
        return Outstanding(Report(0, 0), itertools.count(), endless=True, require_objects=require_objects)
    damaged = store.damaged()
    finished = {shard.number for shard in store.manifest.shards if shard.number < shards}
    finished -= {shard.number for shard in damaged} | store.manifest.incomplete
    missing = (number for number in range(shards) if number not in finished)
    per_shard = store.plan.samples_per_shard
    report = Report(shards, shards * per_shard, damaged=[shard.name for shard in damaged if shard.number < shards])
    report.shards_done = len(finished)
    report.samples_done = report.shards_done * per_shard
    return Outstanding(report, missing, require_objects=require_objects)


def build(
    store: Destination,
    work: Outstanding,
    options: PoolOptions,
    first: Instance,
    display: Display,
    tee: SampleSink | None = None,
) -> Report:
    """Render what is outstanding; `first` is an instance that runs already.

    Returns:
        `work.report`, which grows meanwhile.

    Raises:
        BlendshardError: the build cannot continue; what was finished is kept.
        KeyboardInterrupt: what was finished is kept, too.
    """
    report, pool, started, looked = work.report, WorkerPool(store, options, tee), time.monotonic(), 0.0
    first_to_show = work.endless and work.require_objects
    with ExitStack() as ending:
        check_interrupts = ending.enter_context(deferred_interrupts())
        ending.callback(_account_for_the_rest, pool, report, store)
        ending.callback(display.close)
        with pool:
            pool.start(work.missing, first)
            while work.endless or len(report.failed) + report.shards_done < report.shards_wanted:
                event = _next_event(pool)
                report.seconds = time.monotonic() - started
                if isinstance(event, Stopped):
                    raise event.error
                if event is not None:
                    _account(event, report, store)
                    first_to_show = first_to_show and not _shows(event, store)
                if tee is not None and report.seconds > looked + _LOOK_EVERY_S:
                    looked, report.live = report.seconds, live_counts(tee)
                display.update(report, pool.status, event)
                check_interrupts()
    return report


def live_counts(tee: SampleSink) -> dict[str, int]:
    """Return how many listen, and what became of the samples that they were offered."""
    status = tee.status()
    return {name: status[name] for name in _LIVE_COUNTS}


def _account_for_the_rest(pool: WorkerPool, report: Report, store: Destination) -> None:
    """Enter what came to its end while the build was being stopped."""
    while not pool.events.empty():
        _account(pool.events.get(), report, store)


def _next_event(pool: WorkerPool) -> Event | None:
    try:
        return pool.events.get(timeout=_TICK_S)
    except queue.Empty:
        return None


def _shows(event: Event, store: Destination) -> bool:
    """Whether a shard is done that shows an object. Raises NothingInView where it shows none."""
    if not isinstance(event, ShardDone) or event.seen is None:
        return False
    event.seen.check_objects(store.plan.name)
    return True


def _account(event: Event, report: Report, store: Destination) -> None:
    """Enter an event where it is kept: in the store, and in the report."""
    match event:
        case SamplesKept(samples=samples):
            report.samples_done += samples
            report.samples_kept += samples
        case SampleDone():
            report.samples_done += 1
            report.samples_rendered += 1
        case ShardDone(shard, annotations, skipped, seen):
            store.record(shard, annotations, skipped)
            report.shards_done += 1
            report.skipped |= skipped
            if seen is not None and report.shards_wanted:  # a build without end never reports it
                report.seen.merge(seen)
                report.seen_in.add(shard.number)
        case Restarted() | EpisodeSkipped() | ShardFailed():
            _account_loss(event, report, store)
        case JobFailed(failure):  # and `Stopped` follows
            store.note(failure)
        case Noted(note):
            report.notes.append(note)


def _account_loss(loss: Restarted | EpisodeSkipped | ShardFailed, report: Report, store: Destination) -> None:
    store.note(loss.failure)
    report.failures += 1
    report.samples_done -= loss.samples_lost
    if isinstance(loss, Restarted):
        report.restarts += 1
    elif isinstance(loss, ShardFailed):
        report.failed.append(loss.error)
