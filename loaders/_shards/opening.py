"""What is read from its start to its end is opened as webdataset does: over HTTP, from a command, from a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen, TimeoutExpired
from typing import Any

from loaders.errors import ShardError, located
from loaders.tarstream import Readable, TarStreamError

_GOOD_EXITS = (None, 0, 23, 141, -13, -9)
"""Exit statuses of commands that ended well or because nobody read on (curl, the shell, SIGPIPE, killed here)."""

_PATIENCE_SECONDS = 2.0
"""For a command that nobody reads from any more to notice it."""


@contextmanager
def opened(url: str) -> Iterator[Readable]:
    """Open `url` as webdataset does.

    Raises:
        ShardError: it cannot be opened, or what reads it fails (a missing page, a command's exit status).
    """
    import webdataset  # slow to import, and only streams need it

    with located(url):
        try:
            stream = webdataset.gopen(url)
        except ValueError as error:  # no opener for the scheme
            raise ShardError(str(error)) from None
    try:
        # webdataset's Pipe looks after its command at each read: what the command wrote before it failed would be
        # lost or not, as it happens. So its own stream is read, and the command is asked for its status at the end.
        yield getattr(stream, "stream", stream)
        stream.close()
    except (TarStreamError, OSError) as error:
        raise ShardError(f"{url}: {_reason(stream, error)}") from None
    except BaseException:
        _end(stream)
        raise


def _reason(stream: Any, error: Exception) -> str:
    """Close a stream that failed and return why: how its command ended says more than that bytes are missing."""
    status = _end(stream)
    told = "" if isinstance(error, OSError) else str(error)
    ended = f"what reads it ended with exit status {status}" if status not in _GOOD_EXITS else ""
    return "; ".join(filter(None, [told, ended])) or str(error)


def _end(stream: Any) -> int | None:
    """Close a stream before its end and return its command's exit status, if it has one; it may hang, we must not."""
    command: Popen[bytes] | None = getattr(stream, "proc", None)
    if command is None:
        stream.close()
        return None
    stream.stream.close()
    try:
        return command.wait(_PATIENCE_SECONDS)
    except TimeoutExpired:
        command.kill()
        return command.wait()
