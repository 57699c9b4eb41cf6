"""How streamed shards fall to ranks, workers and batches: arithmetic alone, no data.

A stream can only be read from its start, so a shard belongs to one reader. An epoch's shards are dealt out to lanes,
one for each worker of each rank, and each lane gives its batches by itself. What has been seen is then a number of
samples by lane. A run that resumes keeps the lanes of the one that was interrupted, in the order in which their next
batches were due, and deals them out to the ranks and workers that there are now.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loaders._shards.split import Share

T = TypeVar("T")


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
