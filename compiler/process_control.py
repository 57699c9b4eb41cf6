"""How this process ends: interrupts held back, the main thread interrupted from another, ending with the parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_AGAIN_S = 0.1


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold interrupts back; the function that is given raises KeyboardInterrupt if one has come.

    SIGHUP comes when the terminal goes away. What is ignored stays so: under nohup a build must survive that.
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


class MainInterrupter:
    """Interrupts the main thread from another one as Ctrl-C does: once, and also where it waits in a system call.

    A signal that arrives after the main thread has last looked for one, but before its system call begins, does not
    end that call. So SIGINT is sent again until its handler has run, and what arrives after that is swallowed.

    Use it as a context manager in the main thread: until its end it takes the place of SIGINT's handler and calls that.
    It interrupts nothing in another thread, on Windows, or where SIGINT is ignored or has no handler in Python.

    State: the handler it replaces, and whether a signal was sent, has arrived, or must be swallowed.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._process = os.getpid()
        self._sending = threading.Lock()
        self._sent = self._settled = self._swallowing = False

    def __enter__(self) -> MainInterrupter:
        handler = signal.getsignal(signal.SIGINT)
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and callable(handler) and hasattr(signal, "pthread_kill"):
            self._handler = handler
            signal.signal(signal.SIGINT, self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop interrupting, and restore SIGINT's handler."""
        if (before := self._handler) is None:
            return
        try:
            self._settle()
        finally:
            if signal.getsignal(signal.SIGINT) is self:  # else somebody has set another meanwhile
                signal.signal(signal.SIGINT, before)

    def interrupt(self) -> None:
        """Interrupt the main thread, and return when it has been; later calls do nothing."""
        while self._send():
            time.sleep(_AGAIN_S)

    def __call__(self, sign: int, frame: FrameType | None) -> None:
        """Handle SIGINT: the handler before it is called, but not twice for one interrupt of ours."""
        if self._sent and self._process == os.getpid():  # in a forked process all of them are others'
            if self._swallowing:
                return
            if not self._settled:
                self._settle()
        assert self._handler is not None
        self._handler(sign, frame)

    def _send(self) -> bool:
        """Send the signal unless one has arrived; return whether it may have to be sent again."""
        with self._sending:
            if self._settled or self._handler is None:
                return False
            self._sent = True
            with suppress(ProcessLookupError):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return self._hears()

    def _settle(self) -> None:
        """Send no more, and let what was sent before arrive now."""
        self._swallowing = True
        try:
            with self._sending:
                self._settled = True
            signal.pthread_sigmask(signal.SIG_BLOCK, ())  # changes nothing, but handles what is pending
        finally:
            self._swallowing = False

    def _hears(self) -> bool:
        """Return whether SIGINT still comes here; where it does not, nothing shows that it has arrived."""
        handler: object = signal.getsignal(signal.SIGINT)
        while isinstance(handler, MainInterrupter) and handler is not self:
            handler = handler._handler
        return handler is self


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
