"""Python processes that ours start: they import what is installed, never what lies in the working directory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Lock

_SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def safe_path() -> Iterator[None]:
    """What `multiprocessing` starts meanwhile (workers, its own helpers) is started as with ``python -P``.

    It starts its processes with ``-c``, for which Python puts the working directory before the standard library: a
    ``multiprocessing.py`` there would run. A process cannot change its own flags; its children read the environment.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def shared_lock() -> Lock:
    """Return a lock that serves spawned and forked workers alike."""
    with safe_path():  # the first one starts Python's resource tracker
        return multiprocessing.get_context("spawn").Lock()
