"""A process that another has started ends with that one, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

_LOOK_EVERY_S = 0.3


def end_with_parent() -> None:
    """From now on be interrupted (as by Ctrl-C) when stdin closes or the parent process is gone.

    Stdin alone would not do where processes fork: the parent's other children hold its pipes, too.
    """
    threading.Thread(target=_watch_stdin, daemon=True).start()
    if os.name == "posix":
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def die_with_pool() -> None:
    """In a process of `multiprocessing`: from now on end at once when the one that started it is gone."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _watch_stdin() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    signal.raise_signal(signal.SIGINT)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    signal.raise_signal(signal.SIGINT)
