"""Python processes that ours start: they import what is installed, never what lies in the working directory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Lock

_SAFE_PATH = "PYTHONSAFEPATH"


class _SafePath:
    """The environment's PYTHONSAFEPATH, for as long as any thread wants it.

    State: how many want it, and what it was before the first of them.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._users = 0
        self._before: str | None = None

    def want(self) -> None:
        """Set it, for one more."""
        with self._changing:
            if not self._users:
                self._before = os.environ.get(_SAFE_PATH)
            self._users += 1
            os.environ[_SAFE_PATH] = "1"

    def leave(self) -> None:
        """Put back what was before, after the last."""
        with self._changing:
            if self._users == 1:
                self._restore()
            self._users = max(0, self._users - 1)  # of a forked process none may be left

    def forget(self) -> None:
        """Put back what was before, in a forked process: those who wanted it are in the other one."""
        self._changing = threading.Lock()
        if self._users:
            self._restore()
        self._users = 0

    def _restore(self) -> None:
        if self._before is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = self._before


_safe_path = _SafePath()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_safe_path.forget)


@contextmanager
def safe_path() -> Iterator[None]:
    """What `multiprocessing` starts meanwhile (workers, its own helpers) is started as with ``python -P``.

    It starts its processes with ``-c``, for which Python puts the working directory before the standard library: a
    ``multiprocessing.py`` there would run. A process cannot change its own flags; its children read the environment.
    Threads may be in it at once; a process that is forked meanwhile has the environment as it was before.
    """
    _safe_path.want()
    try:
        yield
    finally:
        _safe_path.leave()


def shared_lock() -> Lock:
    """Return a lock that serves spawned and forked workers alike."""
    with safe_path():  # the first one starts Python's resource tracker
        return multiprocessing.get_context("spawn").Lock()
