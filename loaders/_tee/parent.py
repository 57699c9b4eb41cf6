"""A worker that waits for the tee ends with the process that it works for."""

from __future__ import annotations

import multiprocessing

from loaders.errors import LiveError


def check_parent() -> None:
    """Raise LiveError if the process that this is a worker of has died: nobody would end a worker that waits."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise LiveError("the process that started this worker is gone")
