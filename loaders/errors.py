"""What can be wrong with shards and their samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loaders.tarstream import TarStreamError


class ShardError(ValueError):
    """A shard is missing, damaged, cut, or not what its manifest says; the message names the file and the place."""


class SampleError(ShardError):
    """One sample's content cannot be used; the message names the key and the member."""


class LiveError(ShardError):
    """A live tee cannot be read: nobody is there, it serves something else, its stream was cut; it says what to do."""


class SkipWarning(UserWarning):
    """With ``on_error="skip"``: something was left out; the message is the error's."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the file's name before what goes wrong inside.

    Raises:
        SampleError, ShardError: in place of a SampleError, or of a TarStreamError or OSError.
    """
    try:
        yield
    except SampleError as error:
        raise SampleError(f"{where}: {error}") from None
    except TarStreamError as error:
        raise ShardError(f"{where}: {error}") from None
    except OSError as error:
        raise ShardError(f"{where}: {error.strerror or error}") from None
