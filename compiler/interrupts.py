"""Ctrl-C, SIGTERM and SIGHUP at a moment of our choosing, so that nothing is left half-done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold interrupts back; the function that is given raises KeyboardInterrupt if one has come.

    SIGHUP comes when the terminal goes away. What is ignored stays so: under nohup a build is to survive that.
    Outside the main thread, which alone gets signals, nothing changes.
    """
    came = threading.Event()

    def check() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    heeded = [sign for sign in _SIGNALS if signal.getsignal(sign) != signal.SIG_IGN]
    before = {sign: signal.signal(sign, lambda *_: came.set()) for sign in heeded}
    try:
        yield check
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
