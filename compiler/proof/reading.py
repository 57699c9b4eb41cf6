"""A finished shard, opened and read where its samples are wanted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from compiler.errors import UsageError
from loaders.tarstream import Sample, TarStreamError, read_samples

_HINT = "compile-dataset verify tells what is damaged"


def open_shard(path: Path) -> BinaryIO:
    """Open a shard. Raises OSError where it is no regular file, too: a pipe or a device might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
    return path.open("rb")


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
