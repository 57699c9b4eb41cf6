"""Internal, shared with the compiler: child processes import what is installed, never from the working directory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Lock

_SAFE_PATH = "PYTHONSAFEPATH"


class _SafePath:
    """The environment's PYTHONSAFEPATH, set as long as any thread needs it.

    State: how many threads need it, and its value before the first of them.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._users = 0
        self._before: str | None = None

    def acquire(self) -> None:
        """Set it for one more user."""
        with self._changing:
            if not self._users:
                self._before = os.environ.get(_SAFE_PATH)
            self._users += 1
            os.environ[_SAFE_PATH] = "1"

    def release(self) -> None:
        """Restore the old value after the last user."""
        with self._changing:
            if self._users == 1:
                self._restore()
            self._users = max(0, self._users - 1)  # a forked process may have none left

    def reset(self) -> None:
        """Restore the old value in a forked process: the users are threads of its parent."""
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
    os.register_at_fork(after_in_child=_safe_path.reset)


@contextmanager
def safe_path() -> Iterator[None]:
    """Make `multiprocessing` start its processes (workers, its own helpers) as with ``python -P`` while inside.

    It starts them with ``-c``, for which Python puts the working directory before the standard library: a
    ``multiprocessing.py`` there would run. A process cannot change its own flags, but its children read the
    environment. Several threads may be inside at once; a process forked meanwhile gets the old environment.
    """
    _safe_path.acquire()
    try:
        yield
    finally:
        _safe_path.release()


def shared_lock() -> Lock:
    """Return a lock for both spawned and forked workers."""
    with safe_path():  # the first one starts Python's resource tracker
        return multiprocessing.get_context("spawn").Lock()
