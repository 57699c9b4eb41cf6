"""The order of samples in an epoch: permutations that are computed, not stored.

An epoch's order is a function of seed, epoch and the shards' sample counts. Any position can be looked up directly, so
a run resumes at position 9,000,000 as fast as at 0, and ten million samples take no memory. NumPy's generators offer
neither, and may change their streams between versions.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import isqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
T = TypeVar("T")

_ROUNDS = 8
_MIN_SIDE = 4
"""Of the Feistel grid: on smaller ones eight rounds leave some permutations of a handful of samples likelier."""


def round_keys(*parts: int | str) -> Words:
    """Return 8 words that depend on every part: ``(1, 23)`` and ``(12, 3)`` have nothing in common."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def mix(words: Words) -> Words:
    """Hash each word: the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Generators, OOPSLA 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed


def permute(positions: Ints, size: int, keys: Words) -> Ints:
    """Return the values at `positions` of the permutation of ``range(size)`` that `keys` choose.

    A Feistel network over the smallest near-square grid that holds `size`, repeated until the value is below `size`
    (cycle walking; Black, Rogaway: Ciphers with Arbitrary Finite Domains, 2002).

    Args:
        positions: (n,) int64, each in ``range(size)``.
        size: length of the permutation.
        keys: 8 words from `round_keys`.
    """
    if not len(positions):
        return positions
    rows = max(isqrt(size - 1) + 1, _MIN_SIDE)
    columns = max(-(-size // rows), _MIN_SIDE)
    values = _feistel(positions.astype(np.uint64), rows, columns, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], rows, columns, keys)
    return values.astype(np.int64)


def _feistel(values: Words, rows: int, columns: int, keys: Words) -> Words:
    left, right = np.divmod(values, np.uint64(columns))
    for key_left, key_right in keys.reshape(-1, 2):
        left = (left + mix(right ^ key_left) % np.uint64(rows)) % np.uint64(rows)
        right = (right + mix(left ^ key_right) % np.uint64(columns)) % np.uint64(columns)
    values = left * np.uint64(columns) + right
    return values


def shard_order(shards: int, seed: int, epoch: int, shuffle: bool) -> Ints:
    """Return the numbers of the shards in the order in which an epoch reads them."""
    numbers = np.arange(shards)
    return permute(numbers, shards, round_keys(seed, epoch, "shards")) if shuffle else numbers


class EpochOrder:
    """The order of all samples of indexed shards.

    Without a window, it is a permutation of all samples. With one, shards are permuted and taken `window` at a time,
    and each group's samples are permuted: reads stay within a few files, which helps slow disks.
    """

    def __init__(self, counts: Sequence[int], *, seed: int, shuffle: bool = True, window: int | None = None) -> None:
        """Take the shards' numbers of samples in order; `window` is in shards."""
        if window is not None and window < 1:
            raise ValueError(f"window must be at least one shard, not {window}")
        self.counts = np.asarray(counts, np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.counts)])
        self.size = int(self.first[-1])
        self.seed, self.shuffle, self.window = seed, shuffle, window
        self._groups = lru_cache(maxsize=2)(self._make_groups)

    def at(self, epoch: int, positions: Ints) -> Ints:
        """Return the sample numbers (counted over all shards) at `positions` of `epoch`.

        Args:
            epoch: counts from 0.
            positions: (n,) int64, each in ``range(size)``.
        """
        if not self.shuffle:
            return positions
        if self.window is None:
            return permute(positions, self.size, round_keys(self.seed, epoch, "samples"))
        shards, ends = self._groups(epoch)
        numbers = np.empty_like(positions)
        group_of = np.searchsorted(ends, positions, side="right")
        for group in np.unique(group_of).tolist():
            chosen = group_of == group
            numbers[chosen] = self._in_group(epoch, group, shards, ends, positions[chosen])
        return numbers

    def _make_groups(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the shards' order and each group's end position."""
        assert self.window is not None
        shards = shard_order(len(self.counts), self.seed, epoch, shuffle=True)
        ends = np.cumsum(self.counts[shards])
        last = np.minimum(np.arange(self.window, len(shards) + self.window, self.window), len(shards)) - 1
        return shards, ends[last]

    def _in_group(self, epoch: int, group: int, shards: Ints, ends: Ints, positions: Ints) -> Ints:
        assert self.window is not None
        start = int(ends[group - 1]) if group else 0
        members = shards[group * self.window : (group + 1) * self.window]
        keys = round_keys(self.seed, epoch, group)
        places = permute(positions - start, int(ends[group]) - start, keys)
        member_ends = np.cumsum(self.counts[members])
        member = np.searchsorted(member_ends, places, side="right")
        numbers: Ints = self.first[members[member]] + places - (member_ends - self.counts[members])[member]
        return numbers

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_groups"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._groups = lru_cache(maxsize=2)(self._make_groups)


class ShuffleBuffer:
    """The order in which the items of a partition leave the shuffle buffer.

    Item `i` leaves at time `i` plus a random fraction of the buffer's size. So at most the buffer's size of items is
    held, and the order is known without reading any.
    """

    def __init__(self, buffer: int, *key: int | str) -> None:
        """Take the buffer's size in items, and the values that seed the order."""
        self._buffer, self._salt = buffer, round_keys(*key)[0]
        self._block = lru_cache(maxsize=4)(lambda block: self.times(block << 10, block + 1 << 10).tolist())

    def times(self, first: int, end: int) -> Ints:
        """Return the times of the items in ``range(first, end)``, in 1 / 2**32 of an item."""
        items = np.arange(first, end, dtype=np.uint64)
        fractions = mix(items ^ self._salt) >> np.uint64(32)
        return ((items << np.uint64(32)) + fractions * np.uint64(self._buffer)).astype(np.int64)

    def time(self, item: int) -> int:
        """Return the time of one item."""
        return int(self._block(item >> 10)[item & 1023])

    def seen(self, length: int, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which of a partition's `length` items are among the first `count` to leave; (length,) bool."""
        seen = np.zeros(length, np.bool_)
        seen[np.argsort(self.times(0, length), kind="stable")[:count]] = True
        return seen


def shuffled(items: Iterator[tuple[int, T]], time: Callable[[int], int]) -> Iterator[T]:
    """Yield numbered items by time, then by number; hold those whose time has not come."""
    waiting: list[tuple[int, int, T]] = []
    for number, item in items:
        heapq.heappush(waiting, (time(number), number, item))
        while waiting and waiting[0][0] <= number + 1 << 32:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]
