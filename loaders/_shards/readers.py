"""The two ways to read an epoch: local shards by position, streamed shards by partition.

Both turn a plan (which samples are in which batches) into raw samples. A skipped sample becomes None, so that those
after it keep their places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

import numpy as np
import torch

from loaders._shards.order import EpochOrder, ShuffleBuffer, shard_order, shuffled
from loaders._shards.plans import (
    Batching,
    IndexedPlan,
    Partition,
    Progress,
    RawSample,
    Share,
    StreamedPlan,
    identity_of,
    positions_identity,
    round_robin,
)
from loaders._shards.sources import Shard, opened
from loaders._shards.store import LocalShards
from loaders._workers import ErrorPolicy, SharedArray
from loaders.errors import ShardError
from loaders.manifest import ShardInfo
from loaders.tarstream import (
    DEFAULT_MAX_BYTES,
    Readable,
    Sample,
    TarStreamError,
    read_samples,
)

_PERMUTED_AT_ONCE = 4096
"""Positions; a permutation costs 70 us a call and 0.1 us a position."""

_PADDING_BYTES = 1 << 20
"""Bytes read after a tar's end mark: tar programs pad their files, and a command that is cut off fails."""


class LocalReader:
    """Reads local shards: any sample at any time."""

    def __init__(self, store: LocalShards, order: EpochOrder, policy: ErrorPolicy) -> None:
        store.share_index(SharedArray(len(store), torch.int32))
        self._store, self._order, self._policy = store, order, policy
        self.size: int | None = len(store)
        self.identity = positions_identity(order)

    def plan(self, epoch: int, seen: Progress | None, batching: Batching) -> IndexedPlan:
        """Return the batches of one rank, for any number of workers."""
        start = seen if isinstance(seen, int) else 0
        return IndexedPlan(epoch, len(self._store), batching.share, batching.size, start, batching.drop_last)

    def read(self, plan: IndexedPlan, worker: int, workers: int, skip: int) -> Iterator[list[RawSample]]:
        """Yield the batches ``worker``, ``worker + workers`` ..."""
        mine = range(worker, len(plan), workers)[skip:]
        step = max(1, _PERMUTED_AT_ONCE // plan.batch)
        for some in (mine[first : first + step] for first in range(0, len(mine), step)):
            spans = [np.arange(*plan.span(number)) for number in some]
            numbers = self._order.at(plan.epoch, np.concatenate(spans) % plan.size).tolist()
            of_batch = iter(numbers)
            for span in spans:
                yield [self._read(number) for number in islice(of_batch, len(span))]

    def _read(self, number: int) -> RawSample:
        sample = self._policy.attempt(lambda: self._store.read(number))
        return None if sample is None else (self._store.path_of(number), sample)


class _Measured:
    """A stream that counts and hashes what is read from it."""

    def __init__(self, stream: Readable, hashed: bool) -> None:
        self._stream = stream
        self.bytes = 0
        self.sha256 = hashlib.sha256() if hashed else None

    def read(self, size: int, /) -> bytes:
        part = self._stream.read(size)
        self.bytes += len(part)
        if self.sha256:
            self.sha256.update(part)
        return part

    def check(self, info: ShardInfo | None) -> None:
        """Compare what has been read with the manifest.

        Raises:
            TarStreamError: the length or the digest differs.
        """
        if info and self.bytes != info.bytes:
            raise TarStreamError(f"{self.bytes} bytes long, but its manifest says {info.bytes}")
        if info and self.sha256 and (found := self.sha256.hexdigest()) != info.sha256:
            raise TarStreamError(f"sha256 is {found}, but its manifest says {info.sha256}")


def stream_shard(shard: Shard, *, verify: bool = False, max_bytes: int = DEFAULT_MAX_BYTES) -> Iterator[Sample]:
    """Yield a streamed shard's samples, and compare it with its manifest.

    Args:
        shard: what to read.
        verify: also compare its sha256. A mismatch shows only at the end of the shard.
        max_bytes: largest sum of member sizes in one sample.

    Raises:
        ShardError: the shard cannot be opened, is damaged or cut, or differs from its manifest.
    """
    count, info = 0, shard.info
    with opened(shard.location) as stream:
        measured = _Measured(stream, hashed=verify)
        for sample in read_samples(measured, usual=shard.members, max_bytes=max_bytes):
            count += 1
            if info and count > info.samples:
                raise TarStreamError(f"holds more than the {info.samples} samples that its manifest says")
            yield sample
        if info and count < info.samples:
            raise TarStreamError(f"holds {count} samples, but its manifest says {info.samples}")
        measured.read(_PADDING_BYTES)
        measured.check(info)


class StreamReader:
    """Reads streamed shards: in a permuted order, each from start to end, through a shuffle buffer."""

    def __init__(
        self,
        shards: Sequence[Shard],
        policy: ErrorPolicy,
        *,
        seed: int,
        shuffle: bool,
        buffer: int,
        verify: bool,
        max_bytes: int,
    ) -> None:
        self._shards, self._policy, self._verify, self._max_bytes = list(shards), policy, verify, max_bytes
        self._seed, self._shuffle, self._buffer = seed, shuffle, buffer if shuffle else 0
        infos = [shard.info for shard in shards if shard.info]
        self._counts = [info.samples for info in infos] if len(infos) == len(shards) else None
        self.size = None if self._counts is None else sum(self._counts)
        counts: Sequence[int | str] = self._counts or [shard.location for shard in shards]
        self.identity = identity_of("lanes", seed, shuffle, buffer, counts)

    def plan(self, epoch: int, seen: Progress | None, batching: Batching) -> StreamedPlan:
        """Return the batches of one rank. A new epoch has a partition for each worker, a resumed one keeps its own.

        Raises:
            ValueError: these streams cannot be divided equally among the ranks.
        """
        share, workers = batching.share, batching.workers
        self._check(share)
        fresh = [(number, 0) for number in range(share.ranks * workers)]
        given = fresh if seen is None or isinstance(seen, int) else seen
        partitions = tuple(Partition(number, done, self._length(epoch, number, len(given))) for number, done in given)
        return StreamedPlan(epoch, partitions, share, workers, batching.size, batching.drop_last)

    def _check(self, share: Share) -> None:
        if share.remainder == "pad":
            raise ValueError("streamed shards cannot be padded; use remainder='keep' or 'drop'")
        if share.remainder == "drop" and self._counts is None:
            raise ValueError("remainder='drop' needs the number of samples; pass the dataset's manifest=")
        if share.remainder == "drop" and len(self._shards) < share.ranks:
            raise ValueError(f"{len(self._shards)} streamed shards cannot be divided equally among {share.ranks} ranks")

    def _length(self, epoch: int, partition: int, partitions: int) -> int | None:
        counts = self._counts
        return None if counts is None else sum(counts[shard] for shard in self._shards_of(epoch, partition, partitions))

    def _shards_of(self, epoch: int, partition: int, partitions: int) -> list[int]:
        return list(shard_order(len(self._shards), self._seed, epoch, self._shuffle).tolist()[partition::partitions])

    def read(self, plan: StreamedPlan, worker: int, workers: int, skip: int) -> Iterator[list[RawSample]]:
        """Yield the batches of a worker's partitions in turn. Skipped batches are streamed, but not decoded."""
        partitions = [self._batches(plan, partition) for partition in plan.of_worker(worker)]
        yield from islice(round_robin(partitions), skip, plan.quota(worker))

    def _batches(self, plan: StreamedPlan, partition: Partition) -> Iterator[list[RawSample]]:
        samples = self._partition(plan, partition)
        while batch := list(islice(samples, plan.batch)):
            if len(batch) < plan.batch and plan.drop_last:
                return
            yield batch

    def _partition(self, plan: StreamedPlan, partition: Partition) -> Iterator[RawSample]:
        """Yield a partition's samples that have not been seen, in the order in which they leave the buffer."""
        shards = self._shards_of(plan.epoch, partition.number, len(plan.partitions))
        delays = ShuffleBuffer(self._buffer, self._seed, plan.epoch, partition.number)
        if self._counts is None or partition.length is None:
            yield from shuffled(self._uncounted(shards), delays.time)
            return
        seen = delays.seen(partition.length, partition.seen)
        yield from shuffled(self._unseen(shards, self._counts, seen), delays.time)

    def _unseen(
        self, shards: list[int], counts: list[int], seen: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> Iterator[tuple[int, RawSample]]:
        """Yield each unseen sample with its number in the partition; open only shards that hold some."""
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
                self._policy.add(1)
                yield first + found + lost, None

    def _uncounted(self, shards: list[int]) -> Iterator[tuple[int, RawSample]]:
        yield from enumerate(raw for shard in shards for raw in self._samples(shard))

    def _samples(self, shard: int) -> Iterator[RawSample]:
        """Yield a shard's samples, up to where it is damaged if that is skipped."""
        location = self._shards[shard].location
        try:
            for sample in stream_shard(self._shards[shard], verify=self._verify, max_bytes=self._max_bytes):
                yield location, sample
        except ShardError as error:
            if not self._policy.lenient:
                raise
            self._policy.report(str(error))
            if self._counts is None:
                self._policy.add(1)  # at least one: the number of samples is unknown
