"""How reading a dataset shows itself on stderr: a bar over bytes on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm

from compiler.terminal import announce, plain
from loaders.manifest import Manifest

_LINE_EVERY_S = 10.0


class Reading(Protocol):
    """Shows how far a command has read."""

    def step(self, size: int, done: int, tally: str = "", remark: str = "") -> None:
        """Take note of another piece.

        Args:
            size: its bytes.
            done: how many pieces have been read.
            tally: what the bar says after this number.
            remark: what is worth a line of its own in a log, and ends it.
        """


@contextmanager
def reading(manifest: Manifest, what: str, count: int, quiet: bool, end: bool = False) -> Iterator[Reading]:
    """Yield what shows how far a dataset is read.

    Args:
        manifest: the dataset's.
        what: the pieces: ``shards`` or ``samples``.
        count: how many there are.
        quiet: show nothing.
        end: whether a log has a line for the last piece, however soon it comes.
    """
    if quiet:
        yield _Nothing()
    elif sys.stderr.isatty():
        total, name = manifest.bytes, plain(manifest.name)
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, dynamic_ncols=True, file=sys.stderr) as bar:
            yield _Bar(bar, what, count)
    else:
        yield _Lines(manifest.name, what, count, end)


class _Nothing:
    """Shows nothing."""

    def step(self, size: int, done: int, tally: str = "", remark: str = "") -> None:
        """Show nothing."""


class _Bar:
    """Moves a bar."""

    def __init__(self, bar: tqdm[Any], what: str, count: int) -> None:
        self._bar, self._what, self._count = bar, what, count

    def step(self, size: int, done: int, tally: str = "", remark: str = "") -> None:
        """Move it."""
        self._bar.set_postfix_str(f"{self._what} {done}/{self._count}{tally}", refresh=False)
        self._bar.update(size)


class _Lines:
    """A line every ten seconds, and for each remark.

    State: what was read, and when the last line was printed.
    """

    def __init__(self, name: str, what: str, count: int, end: bool) -> None:
        self._name, self._what, self._count, self._end = name, what, count, end
        self._started = self._said = time.monotonic()
        self._read = 0

    def step(self, size: int, done: int, tally: str = "", remark: str = "") -> None:
        """Print a line where it is time for one."""
        self._read += size
        now = time.monotonic()
        if remark or now > self._said + _LINE_EVERY_S or (self._end and done == self._count):
            rate = self._read / 1e6 / max(now - self._started, 1e-3)
            announce(f"{self._name}: {done}/{self._count} {self._what}, {rate:.0f} MB/s{remark}")
            self._said = now
