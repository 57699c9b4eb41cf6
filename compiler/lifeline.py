"""A process that another has started ends with that one, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from compiler.interrupts import MainInterrupter

_LOOK_EVERY_S = 0.3


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Meanwhile be interrupted (as by Ctrl-C) when stdin closes or the parent process is gone.

    Stdin alone would not do where processes fork: the parent's other children hold its pipes, too.
    """
    with MainInterrupter() as interrupter:
        threading.Thread(target=_watch_stdin, args=(interrupter,), daemon=True).start()
        if os.name == "posix":
            threading.Thread(target=_watch_parent, args=(interrupter, os.getppid()), daemon=True).start()
        yield


def die_with_pool() -> None:
    """In a process of `multiprocessing`: from now on end at once when the one that started it is gone."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _watch_stdin(interrupter: MainInterrupter) -> None:
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    interrupter.interrupt()


def _watch_parent(interrupter: MainInterrupter, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    interrupter.interrupt()
