"""The epoch during which a dataset is compiled: samples come from the tee, and from the disk what the tee did not send.

1. A sample that has arrived goes before one on the disk, so that the tee waits as little as possible.
2. Each sample is marked as delivered before it is yielded (`DeliveredSamples`), so duplicates do no harm.
3. The epoch ends when all shards are on the disk and all samples are delivered, whatever happens to the tee.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from loaders._shards.order import mix, round_keys
from loaders._shards.plans import RawSample, Share
from loaders._shards.sources import Shard, listed
from loaders._shards.store import LocalShards
from loaders._tee.client import Address
from loaders._tee.listener import Inbox, Listener, ListenOptions, TeeStates
from loaders._workers import ErrorPolicy, SharedArray, check_parent
from loaders.children import shared_lock
from loaders.errors import LiveError, ShardError
from loaders.format import SampleKey
from loaders.manifest import FILE_NAME, Manifest, ShardInfo
from loaders.tarstream import Sample

_TICK_S = 0.2
_LOOK_EVERY_S = 1.0
_OPEN_SHARDS = 8


class PartialDataset:
    """The directory of a dataset that is being compiled, as one process sees it.

    State: the shards that were finished at the last refresh, and the manifest's modification time.
    """

    def __init__(self, folder: Path, plan_digest: str, shards: int, per_shard: int) -> None:
        """Take the directory, and the number of shards and of samples in each that the finished dataset will have."""
        self.folder, self.shards, self.per_shard = folder, shards, per_shard
        self.finished: NDArray[np.bool_] = np.zeros(shards, np.bool_)
        """(shards,) bool: whether each shard is finished."""
        self.begun = False
        """Whether there is a manifest yet."""
        self._plan_digest = plan_digest
        self._listed: dict[int, Shard] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether all shards are finished."""
        return bool(self.finished.all())

    def refresh(self) -> None:
        """Update which shards are finished.

        Raises:
            ManifestError: the manifest is damaged.
            ShardError: the directory holds another dataset.
        """
        try:
            state = (self.folder / FILE_NAME).stat()
        except FileNotFoundError:
            return
        if (seen := (state.st_mtime_ns, state.st_ino)) == self._seen and self.complete:
            return
        manifest = Manifest.load(self.folder)
        if manifest.plan_digest != self._plan_digest:
            raise ShardError(
                f"{self.folder} holds plan {manifest.plan_digest[:16]}..., but the compiler serves "
                f"{self._plan_digest[:16]}...; pass the directory it writes to (its --out)"
            )
        self.begun, self._seen = True, seen
        shards = listed(manifest).values()
        self._listed = {shard.info.number: shard for shard in shards if shard.info and self._is_whole(shard.info)}
        for number in range(self.shards):
            self.finished[number] = number in self._listed

    def shard(self, number: int) -> Shard:
        """Return a finished shard."""
        shard = self._listed[number]
        return replace(shard, location=str(self.folder / shard.location))

    def all_shards(self) -> list[Shard]:
        """Return the shards of a complete dataset, in order."""
        return [self.shard(number) for number in range(self.shards)]

    def missing(self) -> str:
        """Return, for a message, the shards that are missing or whose files differ from the manifest."""
        missing = np.flatnonzero(~self.finished).tolist()
        return f"{', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''} of {self.shards}"

    def _is_whole(self, info: ShardInfo) -> bool:
        """Return whether a shard is complete: the compiler replaces those that it finds damaged."""
        try:
            size = (self.folder / info.name).stat().st_size
        except FileNotFoundError:
            return False
        return info.number < self.shards and info.samples == self.per_shard and size == info.bytes


class DeliveredSamples:
    """Which samples have been delivered in an epoch, over all workers.

    A sample can reach two workers, one through the tee and one from the disk. The first to add it delivers it.
    """

    def __init__(self, size: int) -> None:
        self._delivered_in = SharedArray(size, torch.int32)
        """By position, the last iteration that delivered it."""
        self._lock = shared_lock()

    def add(self, position: int, iteration: int) -> bool:
        """Mark a sample as delivered. Return False if it already was."""
        with self._lock:
            delivered_in = self._delivered_in.array
            if delivered_in[position] == iteration:
                return False
            delivered_in[position] = iteration
            return True

    def pending(self, iteration: int) -> NDArray[np.bool_]:
        """Return which positions have not been delivered yet; (n,) bool."""
        pending: NDArray[np.bool_] = self._delivered_in.array != iteration
        return pending


@dataclass(frozen=True)
class LivePlan:
    """One rank's batches of the first epoch. Which samples a batch holds shows only as they arrive."""

    size: int
    """Samples in the whole dataset."""
    share: Share
    workers: int = 1
    batch: int = 1
    drop_last: bool = False

    @property
    def epoch(self) -> int:
        """Return 0, the only epoch that comes live."""
        return 0

    @property
    def positions(self) -> NDArray[np.bool_]:
        """Whether each position is this rank's: (n,) bool. Beyond `size`, the first samples repeat."""
        rest, ranks = self.size % self.share.ranks, self.share.ranks
        added = {"keep": 0, "drop": -rest, "pad": -self.size % ranks}[self.share.remainder]
        mine: NDArray[np.bool_] = np.arange(self.size + added) % ranks == self.share.rank
        return mine

    def __len__(self) -> int:
        """Return the largest possible number of batches: each worker may end with one that is not full."""
        samples = int(self.positions.sum())
        not_full = 0 if self.drop_last else min(self.workers, samples)
        return (samples - not_full) // self.batch + not_full

    def progress_after(self, batches: int) -> int:
        """Raise TypeError: a live stream cannot be rewound."""
        raise TypeError("the live epoch cannot be resumed in the middle; save the state between epochs")

    def exhausted_after(self, batches: int) -> bool:
        """Return whether this rank has certainly none left; its workers may end earlier."""
        return batches >= len(self)


@dataclass(frozen=True)
class LiveContext:
    """What all workers and epochs of a `LiveThenShards` share."""

    address: Address
    options: ListenOptions
    states: TeeStates
    delivered: DeliveredSamples
    policy: ErrorPolicy
    seed: int
    shuffle: bool
    verify: bool


class LiveEpochReader:
    """One worker's part of the first epoch.

    State: the inbox while the tee sends, the positions to read from the disk next, and when to refresh them.
    """

    def __init__(self, plan: LivePlan, context: LiveContext, dataset: PartialDataset, iteration: int) -> None:
        self._context, self._dataset, self._iteration = context, dataset, iteration
        self._size, self._mine = plan.size, plan.positions
        self._inbox: Inbox | None = None
        self._live_until: float | None = None
        self._backlog: deque[int] = deque()
        self._look_at = 0.0
        self._done = False
        self._store = lru_cache(_OPEN_SHARDS)(self._open)

    def __iter__(self) -> Iterator[RawSample]:
        """Yield samples with their source; None for one that was skipped.

        Raises:
            LiveError: the tee is gone and shards are missing.
            ShardError: a shard is damaged, or the directory holds another dataset.
        """
        self._dataset.refresh()
        with ExitStack() as stack:
            if not self._dataset.complete:
                stop = threading.Event()
                listener = Listener(
                    self._context.address, 0, self._context.options, self._context.states, self._iteration, stop
                )
                self._inbox = stack.enter_context(Inbox([listener], stop, None))
            while not self._done:
                if (sample := self._arrived()) is not None:
                    yield str(self._context.address), sample
                elif (position := self._stored()) is not None:
                    yield self._read(position % self._size)

    def _arrived(self) -> Sample | None:
        """Return a sample that has arrived for this worker; wait a moment if there is nothing on the disk to read."""
        while (arrival := self._take(0.0 if self._backlog else _TICK_S)) is not None:
            if isinstance(arrival, ShardError):
                self._context.policy.attempt(partial(_raise, arrival))
            elif self._is_delivered_here(self._number(arrival.key)):
                return arrival
        return None

    def _take(self, timeout_s: float) -> Sample | ShardError | None:
        if self._inbox is None:
            self._wait_for_shards(timeout_s)
            return None
        try:
            arrival = self._inbox.take(timeout_s)
        except LiveError:
            self._look()
            if not self._dataset.complete:
                raise
            self._inbox = None
            return None
        if arrival is not None:
            return arrival[1]
        if self._inbox.over:
            self._inbox, self._live_until, self._look_at = None, time.monotonic(), 0.0
        check_parent()
        return None

    def _wait_for_shards(self, pause_s: float) -> None:
        """Wait for the compiler to finish its last shards.

        Raises:
            LiveError: that took longer than the timeout.
        """
        if self._dataset.complete or not pause_s:
            return
        timeout_s = self._context.options.timeout_s
        if self._live_until is not None and time.monotonic() > self._live_until + timeout_s:
            raise LiveError(
                f"{self._context.address}: the stream ended, but {timeout_s:g} s later {self._dataset.folder} still "
                f"lacks shards {self._dataset.missing()}; run the same compile-dataset again"
            )
        check_parent()
        time.sleep(pause_s)
        self._look_at = 0.0

    def _stored(self) -> int | None:
        """Return a position for this worker to read from the disk, or None if there is none yet."""
        while self._backlog or self._find_backlog():
            position = self._backlog.popleft()
            if self._context.delivered.add(position, self._iteration):
                return position
        return None

    def _find_backlog(self) -> bool:
        if time.monotonic() < self._look_at:
            return False
        self._look()
        pending = self._mine & self._context.delivered.pending(self._iteration)[: len(self._mine)]
        positions = np.flatnonzero(pending)
        self._done = self._dataset.complete and not len(positions)
        shards = positions % self._size // self._dataset.per_shard
        there = self._dataset.finished[shards]
        self._backlog.extend(self._ordered(positions[there], shards[there]).tolist())
        return bool(self._backlog)

    def _look(self) -> None:
        self._dataset.refresh()
        self._look_at = time.monotonic() + (0.0 if self._dataset.complete else _LOOK_EVERY_S)

    def _ordered(self, positions: NDArray[np.int64], shards: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shuffle the shards and the samples of each; shards are read one after another."""
        if not self._context.shuffle:
            return positions
        salt = round_keys(self._context.seed, self._iteration, "first epoch")[0]
        order = np.lexsort((mix(positions.astype(np.uint64) ^ salt), mix(shards.astype(np.uint64) ^ salt)))
        ordered: NDArray[np.int64] = positions[order]
        return ordered

    def _is_delivered_here(self, number: int) -> bool:
        is_mine = number < len(self._mine) and bool(self._mine[number])
        return is_mine and self._context.delivered.add(number, self._iteration)

    def _number(self, key: str) -> int:
        parsed, per_shard = SampleKey.parse(key), self._dataset.per_shard
        if parsed is None or parsed.shard >= self._dataset.shards or parsed.sample >= per_shard:
            raise LiveError(f"{self._context.address} sent sample {key!r}, which is not in the dataset it serves")
        return parsed.shard * per_shard + parsed.sample

    def _read(self, number: int) -> RawSample:
        shard, place = divmod(number, self._dataset.per_shard)
        sample = self._context.policy.attempt(lambda: self._store(shard).read(place))
        return None if sample is None else (self._dataset.shard(shard).location, sample)

    def _open(self, shard: int) -> LocalShards:
        context = self._context
        return LocalShards(
            [self._dataset.shard(shard)],
            lenient=context.policy.reporter,
            verify=context.verify,
            max_bytes=context.options.max_bytes,
        )


def _raise(error: Exception) -> None:
    raise error
