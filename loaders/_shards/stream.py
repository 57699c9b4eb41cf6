"""Shards that can only be read from their start to their end: over HTTP, from a command, from a bucket."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from loaders._shards.opening import opened
from loaders._shards.order import Ints, mix, round_keys
from loaders._shards.sources import Shard
from loaders.manifest import ShardInfo
from loaders.tarstream import DEFAULT_MAX_BYTES, Readable, Sample, TarStreamError, read_samples

T = TypeVar("T")

_PADDING_BYTES = 1 << 20
"""How much is read behind a tar's end mark: tar programs pad their files, and a command that is cut off fails."""


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
        """Compare what has been read with what a manifest says.

        Raises:
            TarStreamError: the length or the digest is another.
        """
        if info and self.bytes != info.bytes:
            raise TarStreamError(f"{self.bytes} bytes long, its manifest says {info.bytes}")
        if info and self.sha256 and (found := self.sha256.hexdigest()) != info.sha256:
            raise TarStreamError(f"sha256 is {found}, its manifest says {info.sha256}")


def stream_shard(shard: Shard, *, verify: bool = False, max_bytes: int = DEFAULT_MAX_BYTES) -> Iterator[Sample]:
    """Yield a streamed shard's samples and hold them against its manifest.

    Args:
        shard: what to read.
        verify: compare its sha256, too. A digest that does not fit shows only at the end of the shard.
        max_bytes: largest sum of member sizes in one sample.

    Raises:
        ShardError: the shard cannot be opened, is damaged or cut, or is not what its manifest says.
    """
    count, info = 0, shard.info
    with opened(shard.location) as stream:
        measured = _Measured(stream, hashed=verify)
        for sample in read_samples(measured, usual=shard.members, max_bytes=max_bytes):
            count += 1
            if info and count > info.samples:
                raise TarStreamError(f"holds more samples than the {info.samples} that its manifest says")
            yield sample
        if info and count < info.samples:
            raise TarStreamError(f"holds {count} samples, its manifest says {info.samples}")
        measured.read(_PADDING_BYTES)
        measured.check(info)


class Delays:
    """When each item of a lane comes out of the shuffle buffer.

    Item `i` gets the time `i` plus a random part of the buffer's size, and items come out by time. That needs at most
    the buffer's size of items held, and the order is known without reading any.
    """

    def __init__(self, buffer: int, *key: int | str) -> None:
        """Take the buffer's size in items, and whatever the order shall depend on."""
        self._buffer, self._salt = buffer, round_keys(*key)[0]
        self._block = lru_cache(maxsize=4)(lambda block: self.times(block << 10, block + 1 << 10).tolist())

    def times(self, first: int, behind: int) -> Ints:
        """Return the times of the items in ``range(first, behind)``, in 1 / 2**32 of an item."""
        items = np.arange(first, behind, dtype=np.uint64)
        fractions = mix(items ^ self._salt) >> np.uint64(32)
        return ((items << np.uint64(32)) + fractions * np.uint64(self._buffer)).astype(np.int64)

    def time(self, item: int) -> int:
        """Return the time of one item."""
        return int(self._block(item >> 10)[item & 1023])

    def seen(self, length: int, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which of the `length` items of a lane are among the first `count` that come out; (length,) bool."""
        seen = np.zeros(length, np.bool_)
        seen[np.argsort(self.times(0, length), kind="stable")[:count]] = True
        return seen


def delayed(items: Iterator[tuple[int, T]], time: Callable[[int], int]) -> Iterator[T]:
    """Yield numbered items by their time (then by number), holding those whose time has not come."""
    waiting: list[tuple[int, int, T]] = []
    for number, item in items:
        heapq.heappush(waiting, (time(number), number, item))
        while waiting and waiting[0][0] <= number + 1 << 32:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]
