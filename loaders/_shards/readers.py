"""The two ways to read an epoch: local shards by position, streamed shards by lane.

Both turn a plan (which samples, in which batches) into raw samples; a sample that could not be read and is to be
skipped is None, so that those behind it keep their places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Protocol, TypeVar

import numpy as np
import torch

from loaders._shards.lanes import Lane, Lanes, in_turns
from loaders._shards.order import SampleOrder, shard_order
from loaders._shards.sources import Shard
from loaders._shards.split import Share, Split
from loaders._shards.store import LocalShards
from loaders._shards.stream import Delays, delayed, stream_shard
from loaders.errors import ShardError
from loaders.format import canonical_json
from loaders.shared import SharedArray
from loaders.skips import Skips
from loaders.tarstream import Sample

Raw = tuple[str, Sample] | None
"""Where a sample comes from (a path or URL) and what it holds; None for one that is skipped."""

Seen = int | Sequence[Sequence[int]]
"""What of an epoch has been seen: a position of its order, or lanes as (number, samples seen)."""

_PERMUTED_AT_ONCE = 4096
"""Positions; a permutation costs 70 us a call and 0.1 us a position."""


class Plan(Protocol):
    """One rank's batches of an epoch."""

    @property
    def epoch(self) -> int:
        """Return which epoch, from 0."""

    def __len__(self) -> int:
        """Return how many there are."""

    def seen_after(self, batches: int) -> Seen:
        """Return what has been seen when each rank has had this many of them."""

    def over_after(self, batches: int) -> bool:
        """Tell whether no rank has any left when each has had this many of them."""


PlanT = TypeVar("PlanT", bound=Plan)


class Reader(Protocol[PlanT]):
    """Plans an epoch for one rank and reads a worker's part of it."""

    size: int | None
    """Samples in an epoch, all ranks together, where that is known."""
    identity: str
    """Changes with anything that changes the order: a place in it means nothing in another."""

    def plan(self, epoch: int, seen: Seen | None, share: Share, workers: int, batch: int, drop_last: bool) -> PlanT:
        """Return the batches of one rank, from `seen` on."""

    def read(self, plan: PlanT, worker: int, workers: int, skip: int) -> Iterator[list[Raw]]:
        """Yield the batches of one of `workers` workers, but the first `skip`."""


class LocalReader:
    """Any sample at any time."""

    def __init__(self, store: LocalShards, order: SampleOrder, skips: Skips) -> None:
        store.share_index(SharedArray(len(store), torch.int32))
        self._store, self._order, self._skips = store, order, skips
        self.size: int | None = len(store)
        self.identity = positions_identity(order)

    def plan(self, epoch: int, seen: Seen | None, share: Share, workers: int, batch: int, drop_last: bool) -> Split:
        """Return the batches of one rank; `workers` changes nothing."""
        start = seen if isinstance(seen, int) else 0
        return Split(epoch, len(self._store), share, batch, start, drop_last)

    def read(self, plan: Split, worker: int, workers: int, skip: int) -> Iterator[list[Raw]]:
        """Yield the batches ``worker``, ``worker + workers`` ..."""
        mine = range(worker, len(plan), workers)[skip:]
        step = max(1, _PERMUTED_AT_ONCE // plan.batch)
        for some in (mine[first : first + step] for first in range(0, len(mine), step)):
            spans = [np.arange(*plan.span(number)) for number in some]
            numbers = self._order.at(plan.epoch, np.concatenate(spans) % plan.size).tolist()
            of_batch = iter(numbers)
            for span in spans:
                yield [self._read(number) for number in islice(of_batch, len(span))]

    def _read(self, number: int) -> Raw:
        sample = self._skips.attempt(lambda: self._store.read(number))
        return None if sample is None else (self._store.path_of(number), sample)


class StreamReader:
    """Shards in a permuted order, each from its start, through a shuffle buffer."""

    def __init__(
        self,
        shards: Sequence[Shard],
        skips: Skips,
        *,
        seed: int,
        shuffle: bool,
        buffer: int,
        verify: bool,
        max_bytes: int,
    ) -> None:
        self._shards, self._skips, self._verify, self._max_bytes = list(shards), skips, verify, max_bytes
        self._seed, self._shuffle, self._buffer = seed, shuffle, buffer if shuffle else 0
        infos = [shard.info for shard in shards if shard.info]
        self._counts = [info.samples for info in infos] if len(infos) == len(shards) else None
        self.size = None if self._counts is None else sum(self._counts)
        counts: Sequence[int | str] = self._counts or [shard.location for shard in shards]
        self.identity = _identity("lanes", seed, shuffle, buffer, counts)

    def plan(self, epoch: int, seen: Seen | None, share: Share, workers: int, batch: int, drop_last: bool) -> Lanes:
        """Return the batches of one rank. A fresh epoch has a lane for each worker, a resumed one those it had.

        Raises:
            ValueError: the ranks cannot be given equal shares of these streams.
        """
        self._check(share)
        fresh = [(number, 0) for number in range(share.ranks * workers)]
        given = fresh if seen is None or isinstance(seen, int) else seen
        lanes = tuple(Lane(number, done, self._length(epoch, number, len(given))) for number, done in given)
        return Lanes(epoch, lanes, share, workers, batch, drop_last)

    def _check(self, share: Share) -> None:
        if share.remainder == "pad":
            raise ValueError("streamed shards cannot be padded: use remainder='keep' or 'drop'")
        if share.remainder == "drop" and self._counts is None:
            raise ValueError("remainder='drop' needs the number of samples: give the dataset's manifest=")
        if share.remainder == "drop" and len(self._shards) < share.ranks:
            raise ValueError(f"{len(self._shards)} streamed shards cannot feed {share.ranks} ranks equally")

    def _length(self, epoch: int, lane: int, lanes: int) -> int | None:
        counts = self._counts
        return None if counts is None else sum(counts[shard] for shard in self._shards_of(epoch, lane, lanes))

    def _shards_of(self, epoch: int, lane: int, lanes: int) -> list[int]:
        return list(shard_order(len(self._shards), self._seed, epoch, self._shuffle).tolist()[lane::lanes])

    def read(self, plan: Lanes, worker: int, workers: int, skip: int) -> Iterator[list[Raw]]:
        """Yield the batches of a worker's lanes in turns. What is skipped is streamed, but not decoded."""
        lanes = [self._batches(plan, lane) for lane in plan.of_worker(worker)]
        yield from islice(in_turns(lanes), skip, plan.quota(worker))

    def _batches(self, plan: Lanes, lane: Lane) -> Iterator[list[Raw]]:
        samples = self._lane(plan, lane)
        while batch := list(islice(samples, plan.batch)):
            if len(batch) < plan.batch and plan.drop_last:
                return
            yield batch

    def _lane(self, plan: Lanes, lane: Lane) -> Iterator[Raw]:
        """Yield a lane's samples that have not been seen, in the order in which they leave the buffer."""
        shards = self._shards_of(plan.epoch, lane.number, len(plan.lanes))
        delays = Delays(self._buffer, self._seed, plan.epoch, lane.number)
        if self._counts is None or lane.length is None:
            yield from delayed(self._uncounted(shards), delays.time)
            return
        seen = delays.seen(lane.length, lane.seen)
        yield from delayed(self._unseen(shards, self._counts, seen), delays.time)

    def _unseen(
        self, shards: list[int], counts: list[int], seen: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> Iterator[tuple[int, Raw]]:
        """Yield each sample that has not been seen with its number in the lane; open no shard without such."""
        firsts = accumulate((counts[shard] for shard in shards), initial=0)
        for first, shard in zip(firsts, shards, strict=False):
            wanted = ~seen[first : first + counts[shard]]
            if not wanted.any():
                continue
            found = 0
            for found, raw in enumerate(self._samples(shard), 1):
                if wanted[found - 1]:
                    yield first + found - 1, raw
            for lost in np.flatnonzero(wanted[found:]).tolist():
                self._skips.add(1)
                yield first + found + lost, None

    def _uncounted(self, shards: list[int]) -> Iterator[tuple[int, Raw]]:
        yield from enumerate(raw for shard in shards for raw in self._samples(shard))

    def _samples(self, shard: int) -> Iterator[Raw]:
        """Yield a shard's samples up to its end or to where it is damaged."""
        location = self._shards[shard].location
        try:
            for sample in stream_shard(self._shards[shard], verify=self._verify, max_bytes=self._max_bytes):
                yield location, sample
        except ShardError as error:
            if not self._skips.lenient:
                raise
            self._skips.report(str(error))
            if self._counts is None:
                self._skips.add(1)  # at least: nothing tells how many there were


def positions_identity(order: SampleOrder) -> str:
    """Return the identity of a `LocalReader` of shards in this order."""
    return _identity("positions", order.seed, order.shuffle, order.window, order.counts.tolist())


def _identity(*parts: object) -> str:
    return hashlib.sha256(canonical_json(parts)).hexdigest()
