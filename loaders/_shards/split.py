"""How the positions of an epoch fall to ranks and batches: arithmetic alone, no data.

The batches of all ranks, taken in turns, are consecutive runs of the epoch's order. So what has been seen after `k`
batches a rank is a prefix of that order, one number says it, and any other number of ranks can go on from there. The
number of workers does not enter: worker `w` of `W` makes the batches `w`, `w + W`, ..., and a DataLoader takes its
workers' batches in turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Remainder = Literal["keep", "pad", "drop"]


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
