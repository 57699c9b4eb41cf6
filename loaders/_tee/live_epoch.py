"""The epoch in which a dataset is compiled: from the tee what comes, from the disk what is there and did not come.

Rules:
1. A sample that has arrived goes before one that lies on the disk, so that the tee is kept waiting as little as can be.
2. Every sample is claimed before it is given (`loaders._tee.growing.Claims`): it does not matter how often it comes.
3. The epoch ends when all shards are on the disk and all samples are claimed, however the tee fares.
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
from loaders._shards.plans import Raw, Share
from loaders._shards.sources import Shard, listed
from loaders._shards.store import LocalShards
from loaders._tee.client import Address
from loaders._tee.listener import Listener, Reception, TeeStates, Terms
from loaders._workers import SharedArray, Skips, check_parent
from loaders.children import shared_lock
from loaders.errors import LiveError, ShardError
from loaders.format import SampleKey
from loaders.manifest import FILE_NAME, Manifest, ShardInfo
from loaders.tarstream import Sample

_TICK_S = 0.2
_LOOK_EVERY_S = 1.0
_OPEN_SHARDS = 8


class GrowingShards:
    """A dataset's directory in which shards appear, as one process sees it.

    State: the shards that were finished when it was looked at last, and the manifest's age then.
    """

    def __init__(self, folder: Path, plan_digest: str, shards: int, per_shard: int) -> None:
        """Take the directory and what the dataset shall become: so many shards with so many samples each."""
        self.folder, self.shards, self.per_shard = folder, shards, per_shard
        self.finished: NDArray[np.bool_] = np.zeros(shards, np.bool_)
        """Whether each shard is there."""
        self.begun = False
        """Whether there is a manifest."""
        self._plan_digest = plan_digest
        self._listed: dict[int, Shard] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return bool(self.finished.all())

    def look(self) -> None:
        """Find out which shards are finished by now.

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
                f"{self.folder} holds the plan {manifest.plan_digest[:16]}..., the compiler serves "
                f"{self._plan_digest[:16]}...; give the directory that it writes to (its --out)"
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

    def lacking(self) -> str:
        """Name the shards that are missing, or whose files are not what the manifest says."""
        missing = np.flatnonzero(~self.finished).tolist()
        return f"{', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''} of {self.shards}"

    def _is_whole(self, info: ShardInfo) -> bool:
        """Tell a shard from one that the compiler has found damaged and is going to replace."""
        try:
            size = (self.folder / info.name).stat().st_size
        except FileNotFoundError:
            return False
        return info.number < self.shards and info.samples == self.per_shard and size == info.bytes


class Claims:
    """Who gives which sample: the worker that claims it first.

    A sample can reach two workers, one from the tee and one from the disk. Each claims what it is about to give, and
    what is claimed already is not given again.
    """

    def __init__(self, size: int) -> None:
        self._claimed_in = SharedArray(size, torch.int32)
        """By position, the last iteration in which it was given."""
        self._lock = shared_lock()

    def claim(self, position: int, iteration: int) -> bool:
        """Return whether it is the caller that gives the sample at `position`."""
        with self._lock:
            claimed_in = self._claimed_in.array
            if claimed_in[position] == iteration:
                return False
            claimed_in[position] = iteration
            return True

    def unclaimed(self, iteration: int) -> NDArray[np.bool_]:
        """Return which positions nobody has claimed."""
        unclaimed: NDArray[np.bool_] = self._claimed_in.array != iteration
        return unclaimed


@dataclass(frozen=True)
class FirstEpochPlan:
    """One rank's batches of the first epoch. Which samples are in which is seen only as they come."""

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
        """Whether each position is this rank's: (n,) bool. Beyond `size`, the first samples come again."""
        rest, ranks = self.size % self.share.ranks, self.share.ranks
        added = {"keep": 0, "drop": -rest, "pad": -self.size % ranks}[self.share.remainder]
        mine: NDArray[np.bool_] = np.arange(self.size + added) % ranks == self.share.rank
        return mine

    def __len__(self) -> int:
        """Return the most batches that there can be: every worker may end with one that is not full."""
        samples = int(self.positions.sum())
        not_full = 0 if self.drop_last else min(self.workers, samples)
        return (samples - not_full) // self.batch + not_full

    def seen_after(self, batches: int) -> int:
        """Raise TypeError: there is no going back to the middle of what came live."""
        raise TypeError("the epoch that comes live cannot be resumed in its middle; save the state between epochs")

    def over_after(self, batches: int) -> bool:
        """Tell whether this rank has certainly none left; its workers' ends tell sooner."""
        return batches >= len(self)


@dataclass(frozen=True)
class Surroundings:
    """What all workers and epochs share."""

    address: Address
    terms: Terms
    states: TeeStates
    claims: Claims
    skips: Skips
    seed: int
    shuffle: bool
    verify: bool


class FirstEpoch:
    """One worker's part of the first epoch.

    State: the reception while the tee gives, the positions to be read from the disk next, and when to look there
    again.
    """

    def __init__(self, plan: FirstEpochPlan, around: Surroundings, growing: GrowingShards, iteration: int) -> None:
        self._around, self._growing, self._iteration = around, growing, iteration
        self._size, self._mine = plan.size, plan.positions
        self._reception: Reception | None = None
        self._live_until: float | None = None
        self._backlog: deque[int] = deque()
        self._look_at = 0.0
        self._done = False
        self._store = lru_cache(_OPEN_SHARDS)(self._open)

    def __iter__(self) -> Iterator[Raw]:
        """Yield samples with where they are from; None for one that is skipped.

        Raises:
            LiveError: the tee is gone and shards are missing.
            ShardError: a shard is damaged, or the directory is another dataset's.
        """
        self._growing.look()
        with ExitStack() as stack:
            if not self._growing.complete:
                stop = threading.Event()
                listener = Listener(
                    self._around.address, 0, self._around.terms, self._around.states, self._iteration, stop
                )
                self._reception = stack.enter_context(Reception([listener], stop, None))
            while not self._done:
                if (sample := self._arrived()) is not None:
                    yield str(self._around.address), sample
                elif (position := self._stored()) is not None:
                    yield self._read(position % self._size)

    def _arrived(self) -> Sample | None:
        """Return a sample that has arrived and is this worker's to give; wait a moment if there is nothing to read."""
        while (arrival := self._take(0.0 if self._backlog else _TICK_S)) is not None:
            if isinstance(arrival, ShardError):
                self._around.skips.attempt(partial(_raise, arrival))
            elif self._is_given_here(self._number(arrival.key)):
                return arrival
        return None

    def _take(self, timeout_s: float) -> Sample | ShardError | None:
        if self._reception is None:
            self._wait_for_shards(timeout_s)
            return None
        try:
            arrival = self._reception.take(timeout_s)
        except LiveError:
            self._look()
            if not self._growing.complete:
                raise
            self._reception = None
            return None
        if arrival is not None:
            return arrival[1]
        if self._reception.over:
            self._reception, self._live_until, self._look_at = None, time.monotonic(), 0.0
        check_parent()
        return None

    def _wait_for_shards(self, pause_s: float) -> None:
        """Give the compiler time to finish its last shards.

        Raises:
            LiveError: it took too long.
        """
        if self._growing.complete or not pause_s:
            return
        timeout_s = self._around.terms.timeout_s
        if self._live_until is not None and time.monotonic() > self._live_until + timeout_s:
            raise LiveError(
                f"{self._around.address}: its stream ended, but {timeout_s:g} s later {self._growing.folder} still "
                f"lacks the shards {self._growing.lacking()}; run the same compile-dataset again"
            )
        check_parent()
        time.sleep(pause_s)
        self._look_at = 0.0

    def _stored(self) -> int | None:
        """Return a position to be read from the disk by this worker, or None if there is none by now."""
        while self._backlog or self._find_backlog():
            position = self._backlog.popleft()
            if self._around.claims.claim(position, self._iteration):
                return position
        return None

    def _find_backlog(self) -> bool:
        if time.monotonic() < self._look_at:
            return False
        self._look()
        unclaimed = self._mine & self._around.claims.unclaimed(self._iteration)[: len(self._mine)]
        positions = np.flatnonzero(unclaimed)
        self._done = self._growing.complete and not len(positions)
        shards = positions % self._size // self._growing.per_shard
        there = self._growing.finished[shards]
        self._backlog.extend(self._ordered(positions[there], shards[there]).tolist())
        return bool(self._backlog)

    def _look(self) -> None:
        self._growing.look()
        self._look_at = time.monotonic() + (0.0 if self._growing.complete else _LOOK_EVERY_S)

    def _ordered(self, positions: NDArray[np.int64], shards: NDArray[np.int64]) -> NDArray[np.int64]:
        """Mix the shards and the samples of each; one shard is read after another."""
        if not self._around.shuffle:
            return positions
        salt = round_keys(self._around.seed, self._iteration, "first epoch")[0]
        order = np.lexsort((mix(positions.astype(np.uint64) ^ salt), mix(shards.astype(np.uint64) ^ salt)))
        ordered: NDArray[np.int64] = positions[order]
        return ordered

    def _is_given_here(self, number: int) -> bool:
        is_mine = number < len(self._mine) and bool(self._mine[number])
        return is_mine and self._around.claims.claim(number, self._iteration)

    def _number(self, key: str) -> int:
        parsed, per_shard = SampleKey.parse(key), self._growing.per_shard
        if parsed is None or parsed.shard >= self._growing.shards or parsed.sample >= per_shard:
            raise LiveError(f"{self._around.address}: the sample {key!r} is none of the dataset that it serves")
        return parsed.shard * per_shard + parsed.sample

    def _read(self, number: int) -> Raw:
        shard, place = divmod(number, self._growing.per_shard)
        sample = self._around.skips.attempt(lambda: self._store(shard).read(place))
        return None if sample is None else (self._growing.shard(shard).location, sample)

    def _open(self, shard: int) -> LocalShards:
        around = self._around
        lenient = around.skips.report if around.skips.lenient else None
        return LocalShards(
            [self._growing.shard(shard)], lenient=lenient, verify=around.verify, max_bytes=around.terms.max_bytes
        )


def _raise(error: Exception) -> None:
    raise error
