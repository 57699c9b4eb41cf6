"""Internal, shared with the compiler: the errors of shards and their samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loaders.tarstream import TarStreamError


class ShardError(ValueError):
    """A shard is missing, damaged, cut, or differs from its manifest; the message names the file and the place."""


class SampleError(ShardError):
    """One sample's content cannot be used; the message names the key and the member."""


class LiveError(ShardError):
    """A live tee does not answer, serves another dataset, or its stream was cut; the message says what to do."""


class SkipWarning(UserWarning):
    """With ``on_error="skip"``: something was skipped; the message is the error's."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix errors raised inside with the file's name.

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
