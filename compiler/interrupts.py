"""Ctrl-C and SIGTERM at a moment of our choosing, so that nothing is left half-done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back; the function that is given raises KeyboardInterrupt if one has come.

    Outside the main thread, which alone gets signals, nothing changes.
    """
    came = threading.Event()

    def check() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {sign: signal.signal(sign, lambda *_: came.set()) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
