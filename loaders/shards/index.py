"""Where the samples of a local shard lie, read from its headers alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from loaders.files import open_regular
from loaders.tarstream import TarStreamError, read_places


def sample_spans(path: str, max_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Yield the key, first byte and byte behind of each whole sample in a shard, in order.

    Raises:
        TarStreamError: the shard is damaged or cut, or a sample's record is larger than `max_bytes`.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        for key, group in groupby(read_places(file, Path(path).stat().st_size), attrgetter("key")):
            places = list(group)
            start, end = places[0].offset, places[-1].end
            if end - start > max_bytes:
                raise TarStreamError(f"sample {key!r} is larger than {max_bytes} bytes (byte {start})")
            yield key, start, end


def file_sha256(path: str) -> str:
    """Return the hexadecimal digest of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
