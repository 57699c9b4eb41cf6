"""Local shards as one long list of samples, each read with one system call.

Shards are read with pread, not mapped: if a mapped file is truncated while it is read, the process is killed. pread
moves no file position and takes no lock, so threads and forked workers can share a store.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loaders._shards.sources import Shard
from loaders.errors import ShardError, located
from loaders.files import file_sha256, open_regular
from loaders.format import SampleKey
from loaders.tarstream import (
    BLOCK,
    DEFAULT_MAX_BYTES,
    MemberPlace,
    Sample,
    TarStreamError,
    UsualMembers,
    parse_sample,
    read_places,
)

if TYPE_CHECKING:
    from loaders._workers import SharedArray

Span = tuple[str, int, int]
"""A sample's key, first byte and end."""

_OPEN_FILES = 128
_SEEKING = Lock()
"""For systems without pread, none of which forks."""


def sample_spans(path: str, max_bytes: int, usual: Collection[str] | None = None) -> Iterator[Span]:
    """Yield the span of each whole sample in a shard, in order, up to where it is damaged.

    Args:
        path: the shard.
        max_bytes: largest record of one sample.
        usual: the member names of samples; by default those of the first one.

    Raises:
        TarStreamError: the shard is damaged or cut, or a sample's record is larger than `max_bytes`.
        OSError: the file cannot be read.
    """
    names, places = UsualMembers(usual), list[MemberPlace]()
    with open_regular(path) as file:
        try:
            for place in read_places(file, Path(path).stat().st_size):
                if places and place.key != places[0].key:
                    names.note([one.member for one in places])
                    yield _span(places, max_bytes)
                    places = []
                places.append(place)
        except (TarStreamError, OSError):
            if places and names.are([one.member for one in places]):
                yield _span(places, max_bytes)
            raise
        if places:
            yield _span(places, max_bytes)


def _span(places: list[MemberPlace], max_bytes: int) -> Span:
    key, start, end = places[0].key, places[0].offset, places[-1].end
    if end - start > max_bytes:
        raise TarStreamError(f"sample {key!r} is larger than {max_bytes} bytes (byte {start})")
    return key, start, end


class _OpenFile:
    """A file that is open for reading until it is no longer referenced."""

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        with open_regular(path) as file:
            self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, offset)
        with _SEEKING:  # Windows
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)


class LocalShards:
    """All samples of some local shards, numbered in order.

    A shard that a manifest lists is indexed when its first sample is read, any other at once.

    Args:
        shards: what to read.
        lenient: reports damage, which is then skipped instead of raised. The whole samples before the damage can still
            be read.
        verify: first compare each shard's sha256 with the manifest, which reads every byte once.
        max_bytes: largest record of one sample.

    Raises:
        ShardError: a shard is missing, or its length differs from the manifest; without a manifest, any damage;
            with `verify`, another digest.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        lenient: Callable[[str], None] | None = None,
        verify: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.shards = list(shards)
        self._lenient, self._max_bytes = lenient, max_bytes
        self._damage: dict[int, str] = {}
        """By shard, why some or all of its samples cannot be read; filled only if `lenient`."""
        for number in range(len(self.shards)):
            self._check_file(number, verify)
        walked = {number: self._walk(number) for number, shard in enumerate(self.shards) if shard.info is None}
        self.counts = [
            shard.info.samples if shard.info else len(walked[number]) for number, shard in enumerate(self.shards)
        ]
        """Samples by shard, including damaged ones that a manifest lists."""
        self._first = [0, *accumulate(self.counts)]
        self._shared: SharedArray | None = None
        self._ends: NDArray[np.int32] = np.zeros(len(self), np.int32)
        """Where each sample's record ends in its file, in blocks of 512 bytes; 0 if not known yet."""
        for number, ends in walked.items():
            self._ends[self._first[number] : self._first[number + 1]] = ends
        self._open = lru_cache(_OPEN_FILES)(_OpenFile)

    def __len__(self) -> int:
        return self._first[-1]

    @property
    def damaged_uncounted(self) -> int:
        """Damaged shards whose number of samples is unknown, as no manifest lists them."""
        return sum(self.shards[number].info is None for number in self._damage)

    def share_index(self, ends: SharedArray) -> None:
        """Keep the index in `ends` (int32, one for each sample), so that all processes share it."""
        ends.array[:] = self._ends
        self._shared, self._ends = ends, ends.array

    def path_of(self, number: int) -> str:
        """Return the path of the shard that holds sample `number`."""
        return self.shards[bisect_right(self._first, number) - 1].location

    def read(self, number: int) -> Sample:
        """Return sample `number` with all its members.

        Raises:
            ShardError: the shard is damaged; the message names the file and the byte.
        """
        shard = bisect_right(self._first, number) - 1
        start, end = self._span(shard, number)
        path = self.shards[shard].location
        with located(path):
            file = self._open(path)  # referenced while it is read: another thread may evict it from the cache
            record = file.read_at(start, end - start)
            if len(record) < end - start:
                raise TarStreamError(f"cut short (byte {start + len(record)})")
            return parse_sample(record, start)

    def find(self, key: str) -> int:
        """Return the number of the sample with this key.

        Raises:
            KeyError: there is no such sample.
        """
        guess = self._guess(key)
        if guess is not None and self.read(guess).key == key:
            return guess
        try:
            return self._numbers_by_key[key]
        except KeyError:
            raise KeyError(f"no sample {key!r} among the {len(self)} of {self.shards[0].location} ...") from None

    def _guess(self, key: str) -> int | None:
        """Return the number that the key implies: ``000003-000042`` is sample 42 of shard 3."""
        parsed = SampleKey.parse(key)
        shard = self._shards_by_number.get(parsed.shard) if parsed else None
        if parsed is None or shard is None or parsed.sample >= self.counts[shard]:
            return None
        return self._first[shard] + parsed.sample

    @cached_property
    def _shards_by_number(self) -> dict[int, int]:
        return {shard.info.number: place for place, shard in enumerate(self.shards) if shard.info}

    @cached_property
    def _numbers_by_key(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for first, shard in zip(self._first, self.shards, strict=False):
            with located(shard.location):
                spans = sample_spans(shard.location, self._max_bytes, shard.members)
                numbers |= {key: first + place for place, (key, _, _) in enumerate(spans)}
        return numbers

    def _check_file(self, number: int, verify: bool) -> None:
        """Compare a shard's file with its manifest."""
        path, info = self.shards[number].location, self.shards[number].info
        try:
            with located(path):
                size = Path(path).stat().st_size
                if info and size != info.bytes:
                    raise TarStreamError(f"{size} bytes long, but its manifest says {info.bytes}")
                if verify and info and (found := file_sha256(path)) != info.sha256:
                    raise TarStreamError(f"sha256 is {found}, but its manifest says {info.sha256}")
        except ShardError as error:
            if self._lenient is None:
                raise
            self._lenient(str(error))
            if verify or not Path(path).exists():
                self._damage[number] = str(error)

    def _span(self, shard: int, number: int) -> tuple[int, int]:
        """Return where the record of a sample begins and ends in its file, in bytes."""
        if not self._known(shard, number):
            if shard not in self._damage:
                ends = self._walk(shard)
                self._ends[self._first[shard] : self._first[shard] + len(ends)] = ends
            if not self._known(shard, number):
                raise ShardError(self._damage[shard])
        start = int(self._ends[number - 1]) if number > self._first[shard] else 0
        return start * BLOCK, int(self._ends[number]) * BLOCK

    def _known(self, shard: int, number: int) -> bool:
        # Each entry is either whole or zero, and all processes write the same, so no lock is needed.
        return bool(self._ends[number]) and (number == self._first[shard] or bool(self._ends[number - 1]))

    def _walk(self, number: int) -> list[int]:
        """Return where the whole samples of a shard end, in blocks; raise or record damage."""
        shard, ends = self.shards[number], list[int]()
        if number in self._damage:
            return ends
        try:
            with located(shard.location):
                for _, _, end in sample_spans(shard.location, self._max_bytes, shard.members):
                    ends.append(end // BLOCK)
                if shard.info and len(ends) != shard.info.samples:
                    raise TarStreamError(f"holds {len(ends)} samples, but its manifest says {shard.info.samples}")
        except ShardError as error:
            if self._lenient is None:
                raise
            self._lenient(str(error))
            self._damage[number] = str(error)
        return ends[: shard.info.samples] if shard.info else ends

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to one process: open files, and the index unless it is shared."""
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._ends = self._shared.array if self._shared else np.zeros(len(self), np.int32)
        self._open = lru_cache(_OPEN_FILES)(_OpenFile)
