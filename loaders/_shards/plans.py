"""How streamed shards fall to ranks, workers and batches: arithmetic alone, no data.

A stream can only be read from its start, so a shard belongs to one reader. An epoch's shards are dealt out to lanes,
one for each worker of each rank, and each lane gives its batches by itself. What has been seen is then a number of
samples by lane. A run that resumes keeps the lanes of the one that was interrupted, in the order in which their next
batches were due, and deals them out to the ranks and workers that there are now.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from loaders._shards.order import SampleOrder
from loaders.format import canonical_json
from loaders.tarstream import Sample

Raw = tuple[str, Sample] | None
"""Where a sample comes from (a path or URL) and what it holds; None for one that is skipped."""

Seen = int | Sequence[Sequence[int]]
"""What of an epoch has been seen: a position of its order, or lanes as (number, samples seen)."""

Remainder = Literal["keep", "pad", "drop"]
T = TypeVar("T")


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


def positions_identity(order: SampleOrder) -> str:
    """Return the identity of a `LocalReader` of shards in this order."""
    return identity_of("positions", order.seed, order.shuffle, order.window, order.counts.tolist())


def identity_of(*parts: object) -> str:
    return hashlib.sha256(canonical_json(parts)).hexdigest()


@dataclass(frozen=True)
class Share:
    """Which part of an epoch one process gets."""

    rank: int = 0
    ranks: int = 1
    remainder: Remainder = "keep"
    """What becomes of the samples by which the ranks' numbers would differ: "keep" them (every sample exactly once),
    "pad" with the epoch's first ones, or "drop" them (ranks equal in number)."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank {self.rank} is not one of {self.ranks} ranks")
        if self.remainder not in ("keep", "pad", "drop"):
            raise ValueError(f"remainder must be 'keep', 'pad' or 'drop', not {self.remainder!r}")


@dataclass(frozen=True)
class Split:
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
        """Positions from `start` on that all ranks share out; beyond `size` they begin anew (see `span`)."""
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
        """First position and position behind this rank's even part of what full batches leave over."""
        done = self._full * self.share.ranks * self.batch
        first, rest = self.start + done, self.total - done
        rank, ranks = self.share.rank, self.share.ranks
        return first + rest * rank // ranks, first + rest * (rank + 1) // ranks

    def span(self, number: int) -> tuple[int, int]:
        """Return the first position and the position behind batch `number`; modulo `size` where they exceed it."""
        if number >= self._full:
            return self._last
        first = self.start + (number * self.share.ranks + self.share.rank) * self.batch
        return first, first + self.batch

    def seen_after(self, batches: int) -> int:
        """Return the first position that no rank has seen when each has had this many batches more."""
        return min(self.start + batches * self.share.ranks * self.batch, max(self.size, self.start))

    def over_after(self, batches: int) -> bool:
        """Tell whether no rank has any left when each has had this many batches."""
        return batches * self.share.ranks * self.batch >= self.total


@dataclass(frozen=True)
class Lane:
    """One sequence of samples that one worker reads."""

    number: int
    """Which of the epoch's lanes: says which shards it reads."""
    seen: int
    """Samples of it that have been seen."""
    length: int | None
    """Samples of it, where a manifest tells."""

    def batches(self, batch: int, drop_last: bool) -> int:
        """Return how many batches are left in it.

        Raises:
            TypeError: no manifest tells how many samples there are.
        """
        if self.length is None:
            raise TypeError("the number of samples in these streams is not known; give the dataset's manifest=")
        rest = self.length - self.seen
        return rest // batch if drop_last else -(-rest // batch)

    def after(self, batches: int, batch: int) -> tuple[int, int]:
        """Return its number and the samples seen of it after some more batches."""
        return self.number, min(self.seen + batches * batch, self.length or 0)


@dataclass(frozen=True)
class Lanes:
    """One rank's batches of an epoch of streamed samples."""

    epoch: int
    lanes: tuple[Lane, ...]
    """Of all ranks, in the order of their next turns."""
    share: Share
    workers: int = 1
    batch: int = 1
    drop_last: bool = False

    def of_worker(self, worker: int, rank: int | None = None) -> tuple[Lane, ...]:
        """Return the lanes that one worker of a rank (this one by default) reads."""
        return self.lanes[self.share.rank if rank is None else rank :: self.share.ranks][worker :: self.workers]

    def quota(self, worker: int) -> int | None:
        """Return the batches that a worker makes, where they are fewer than its lanes have."""
        if self.share.remainder != "drop":
            return None
        return taken_in_turns(self._by_worker(self.share.rank), len(self))[worker]

    def __len__(self) -> int:
        """Return the batches of this rank.

        Raises:
            TypeError: no manifest tells how many samples there are.
        """
        totals = self._by_rank()
        return min(totals) if self.share.remainder == "drop" else totals[self.share.rank]

    def over_after(self, batches: int) -> bool:
        """Tell whether no rank has any left when each has had this many batches.

        Raises:
            TypeError: no manifest tells how many samples there are.
        """
        totals = self._by_rank()
        return batches >= (min(totals) if self.share.remainder == "drop" else max(totals))

    def seen_after(self, batches: int) -> list[tuple[int, int]]:
        """Return number and samples seen of all lanes when each rank has had this many batches more, or all it has.

        Raises:
            TypeError: no manifest tells how many samples there are.
        """
        return list(in_turns([iter(self._rank_after(rank, batches)) for rank in range(self.share.ranks)]))

    def _rank_after(self, rank: int, batches: int) -> list[tuple[int, int]]:
        totals = self._by_worker(rank)
        taken = taken_in_turns(totals, min(batches, sum(totals)))
        workers = [self._worker_after(rank, worker, taken[worker]) for worker in next_turns(taken, totals)]
        return list(in_turns([iter(lanes) for lanes in workers]))

    def _worker_after(self, rank: int, worker: int, batches: int) -> list[tuple[int, int]]:
        lanes = self.of_worker(worker, rank)
        totals = [lane.batches(self.batch, self.drop_last) for lane in lanes]
        taken = taken_in_turns(totals, batches)
        return [lanes[place].after(taken[place], self.batch) for place in next_turns(taken, totals)]

    def _by_rank(self) -> list[int]:
        return [sum(self._by_worker(rank)) for rank in range(self.share.ranks)]

    def _by_worker(self, rank: int) -> list[int]:
        """Return the batches of each worker of a rank."""
        return [
            sum(lane.batches(self.batch, self.drop_last) for lane in self.of_worker(worker, rank))
            for worker in range(self.workers)
        ]


def taken_in_turns(lengths: Iterable[int], taken: int) -> list[int]:
    """Return how many of the first `taken` items each sequence gives where they are taken in turns.

    A sequence that has ended is left out of the turns. `taken` is at most the sum of `lengths`.
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


def next_turns(taken: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the places of the sequences in the order of their next turns; the ended ones come last."""
    return sorted(range(len(taken)), key=lambda place: (taken[place] == lengths[place], taken[place]))


def in_turns(sequences: Sequence[Iterator[T]]) -> Iterator[T]:
    """Yield from each in turns, leaving out the ones that have ended."""
    waiting = list(sequences)
    while waiting:
        for sequence in list(waiting):
            try:
                item = next(sequence)
            except StopIteration:
                waiting.remove(sequence)
            else:
                yield item
