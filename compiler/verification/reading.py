"""A finished shard, opened and read where its samples are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from compiler.errors import UsageError
from loaders.files import open_regular
from loaders.tarstream import Sample, TarStreamError, read_samples

_HINT = "compile-dataset verify tells what is damaged"


def open_shard(path: Path) -> BinaryIO:
    """Open a shard. Raises OSError where it is no regular file, too: a pipe or a device might never end."""
    return BufferedReader(open_regular(path))


def samples_of(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open_shard(path) as file:
            yield from read_samples(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", _HINT) from None
    except TarStreamError as error:
        raise UsageError(f"{path}: {error}", _HINT) from None
