"""How an epoch is divided among ranks, workers and batches: arithmetic, no data.

Indexed shards: the ranks' batches, taken round-robin, are consecutive runs of the epoch's order. What has been seen
after `k` batches a rank is a prefix of that order, so one number records it, and any other number of ranks can continue
from it. The number of workers does not matter: worker `w` of `W` makes the batches `w`, `w + W`, ..., and a DataLoader
takes its workers' batches round-robin.

Streamed shards: a stream can only be read from its start, so each shard belongs to one reader. An epoch's shards are
dealt out to partitions, one for each worker of each rank, and each partition makes its own batches. What has been seen
is a number of samples for each partition. A run that resumes keeps the partitions of the interrupted one, in the order
in which their next batches were due, and deals them out to its own ranks and workers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from loaders._shards.order import EpochOrder
from loaders.format import canonical_json
from loaders.tarstream import Sample

RawSample = tuple[str, Sample] | None
"""A sample's path or URL and its members; None where it was skipped."""

Progress = int | Sequence[Sequence[int]]
"""How much of an epoch has been seen: a position in its order, or (number, samples seen) of each partition."""

Remainder = Literal["keep", "pad", "drop"]
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Which part of an epoch one process gets."""

    rank: int = 0
    ranks: int = 1
    remainder: Remainder = "keep"
    """What happens when the samples do not divide evenly: "keep" gives each sample exactly once, "pad" repeats the
    epoch's first ones, "drop" leaves out its last ones; after "pad" and "drop" all ranks have equally many."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank {self.rank} is not one of {self.ranks} ranks")
        if self.remainder not in ("keep", "pad", "drop"):
            raise ValueError(f"remainder must be 'keep', 'pad' or 'drop', not {self.remainder!r}")


@dataclass(frozen=True)
class Batching:
    """How a rank's samples become batches."""

    share: Share
    workers: int = 1
    """Processes that make them."""
    size: int = 1
    """Samples in a batch."""
    drop_last: bool = False
    """Whether to leave out batches that are not full."""


class EpochPlan(Protocol):
    """One rank's batches of an epoch."""

    @property
    def epoch(self) -> int:
        """Return which epoch, from 0."""

    def __len__(self) -> int:
        """Return how many there are."""

    def progress_after(self, batches: int) -> Progress:
        """Return the progress after this many batches of each rank."""

    def exhausted_after(self, batches: int) -> bool:
        """Return whether no rank has any left after this many batches of each."""


PlanT = TypeVar("PlanT", bound=EpochPlan)


class EpochReader(Protocol[PlanT]):
    """Plans an epoch for one rank and reads a worker's part of it."""

    size: int | None
    """Samples in an epoch over all ranks, if known."""
    identity: str
    """Changes with anything that changes the order of samples: progress in one order means nothing in another."""

    def plan(self, epoch: int, seen: Progress | None, batching: Batching) -> PlanT:
        """Return the batches of one rank, after what has been `seen`."""

    def read(self, plan: PlanT, worker: int, workers: int, skip: int) -> Iterator[list[RawSample]]:
        """Yield the batches of one of `workers` workers, without the first `skip`."""


def positions_identity(order: EpochOrder) -> str:
    """Return the identity of a `LocalReader` of shards in this order."""
    return identity_of("positions", order.seed, order.shuffle, order.window, order.counts.tolist())


def identity_of(*parts: object) -> str:
    return hashlib.sha256(canonical_json(parts)).hexdigest()


@dataclass(frozen=True)
class IndexedPlan:
    """One rank's batches of an epoch of indexed samples."""

    epoch: int
    size: int
    """Samples in the whole epoch."""
    share: Share
    batch: int = 1
    """Samples in a batch."""
    start: int = 0
    """Position of the first sample that has not been seen."""
    drop_last: bool = False
    """Whether to leave out the last batches where they are not full."""

    @property
    def total(self) -> int:
        """Positions from `start` on for all ranks together; beyond `size` they start over (see `span`)."""
        rest, ranks = max(self.size - self.start, 0), self.share.ranks
        if self.drop_last:
            return rest - rest % (ranks * self.batch)
        if self.share.remainder == "keep" or not rest % ranks:
            return rest
        return rest - rest % ranks + (ranks if self.share.remainder == "pad" else 0)

    def __len__(self) -> int:
        """Return the batches of this rank."""
        return self._full + (self._last[1] > self._last[0])

    @property
    def _full(self) -> int:
        """Batches that every rank has in full."""
        return self.total // (self.share.ranks * self.batch)

    @property
    def _last(self) -> tuple[int, int]:
        """First and end position of this rank's even part of what full batches leave over."""
        done = self._full * self.share.ranks * self.batch
        first, rest = self.start + done, self.total - done
        rank, ranks = self.share.rank, self.share.ranks
        return first + rest * rank // ranks, first + rest * (rank + 1) // ranks

    def span(self, number: int) -> tuple[int, int]:
        """Return the first and the end position of batch `number`; take them modulo `size`."""
        if number >= self._full:
            return self._last
        first = self.start + (number * self.share.ranks + self.share.rank) * self.batch
        return first, first + self.batch

    def progress_after(self, batches: int) -> int:
        """Return the first position that no rank has seen after this many more batches of each."""
        return min(self.start + batches * self.share.ranks * self.batch, max(self.size, self.start))

    def exhausted_after(self, batches: int) -> bool:
        """Return whether no rank has any left after this many batches of each."""
        return batches * self.share.ranks * self.batch >= self.total


@dataclass(frozen=True)
class Partition:
    """One sequence of samples that one worker reads."""

    number: int
    """Its index among the epoch's partitions, which determines its shards."""
    seen: int
    """Samples of it seen so far."""
    length: int | None
    """Samples in it, if a manifest says."""

    def batches(self, batch: int, drop_last: bool) -> int:
        """Return how many batches are left in it.

        Raises:
            TypeError: no manifest says how many samples there are.
        """
        if self.length is None:
            raise TypeError("the number of samples in these streams is unknown; pass the dataset's manifest=")
        rest = self.length - self.seen
        return rest // batch if drop_last else -(-rest // batch)

    def after(self, batches: int, batch: int) -> tuple[int, int]:
        """Return its number and the samples seen after some more batches."""
        return self.number, min(self.seen + batches * batch, self.length or 0)


@dataclass(frozen=True)
class StreamedPlan:
    """One rank's batches of an epoch of streamed samples."""

    epoch: int
    partitions: tuple[Partition, ...]
    """Of all ranks, in the order in which their next batches are due."""
    share: Share
    workers: int = 1
    batch: int = 1
    drop_last: bool = False

    def of_worker(self, worker: int, rank: int | None = None) -> tuple[Partition, ...]:
        """Return the partitions that one worker of a rank (this one by default) reads."""
        return self.partitions[self.share.rank if rank is None else rank :: self.share.ranks][worker :: self.workers]

    def quota(self, worker: int) -> int | None:
        """Return how many batches a worker makes, if fewer than its partitions have."""
        if self.share.remainder != "drop":
            return None
        return round_robin_counts(self._by_worker(self.share.rank), len(self))[worker]

    def __len__(self) -> int:
        """Return the batches of this rank.

        Raises:
            TypeError: no manifest says how many samples there are.
        """
        totals = self._by_rank()
        return min(totals) if self.share.remainder == "drop" else totals[self.share.rank]

    def exhausted_after(self, batches: int) -> bool:
        """Return whether no rank has any left when each has had this many batches.

        Raises:
            TypeError: no manifest says how many samples there are.
        """
        totals = self._by_rank()
        return batches >= (min(totals) if self.share.remainder == "drop" else max(totals))

    def progress_after(self, batches: int) -> list[tuple[int, int]]:
        """Return (number, samples seen) of all partitions after this many more batches of each rank, or all it has.

        Raises:
            TypeError: no manifest says how many samples there are.
        """
        return list(round_robin([iter(self._rank_after(rank, batches)) for rank in range(self.share.ranks)]))

    def _rank_after(self, rank: int, batches: int) -> list[tuple[int, int]]:
        totals = self._by_worker(rank)
        taken = round_robin_counts(totals, min(batches, sum(totals)))
        workers = [self._worker_after(rank, worker, taken[worker]) for worker in round_robin_order(taken, totals)]
        return list(round_robin([iter(partitions) for partitions in workers]))

    def _worker_after(self, rank: int, worker: int, batches: int) -> list[tuple[int, int]]:
        partitions = self.of_worker(worker, rank)
        totals = [partition.batches(self.batch, self.drop_last) for partition in partitions]
        taken = round_robin_counts(totals, batches)
        return [partitions[place].after(taken[place], self.batch) for place in round_robin_order(taken, totals)]

    def _by_rank(self) -> list[int]:
        return [sum(self._by_worker(rank)) for rank in range(self.share.ranks)]

    def _by_worker(self, rank: int) -> list[int]:
        """Return the batches of each worker of a rank."""
        return [
            sum(partition.batches(self.batch, self.drop_last) for partition in self.of_worker(worker, rank))
            for worker in range(self.workers)
        ]


def round_robin_counts(lengths: Iterable[int], taken: int) -> list[int]:
    """Return how many of the first `taken` items come from each sequence when they are taken round-robin.

    Sequences that have ended are passed over. `taken` is at most the sum of `lengths`.
    """
    lengths = list(lengths)
    rounds = range(max(lengths, default=0) + 1)
    whole = bisect_right(rounds, taken, key=lambda turns: sum(min(length, turns) for length in lengths)) - 1
    counts = [min(length, whole) for length in lengths]
    over = taken - sum(counts)
    for place, length in enumerate(lengths):
        if over and length > whole:
            counts[place] += 1
            over -= 1
    return counts


def round_robin_order(taken: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the indices of the sequences in the order of their next turns; ended ones come last."""
    return sorted(range(len(taken)), key=lambda place: (taken[place] == lengths[place], taken[place]))


def round_robin(sequences: Sequence[Iterator[T]]) -> Iterator[T]:
    """Yield from each in turn, passing over those that have ended."""
    waiting = list(sequences)
    while waiting:
        for sequence in list(waiting):
            try:
                item = next(sequence)
            except StopIteration:
                waiting.remove(sequence)
            else:
                yield item
