"""Which workers may render now: all of them, or a single one when memory is short."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TICK_S = 0.2


class MemoryGate:
    """A lock that many may share or one may hold exclusively, as memory is short.

    Whoever asks for it exclusively waits until the others have let it go, and those who ask to share it wait for that.

    State: how many share it, whether one has it exclusively, how many ask for that, and how many wait in all.
    """

    def __init__(self, stop: threading.Event) -> None:
        """Hold workers back until `stop`; after that let all through, to come to their end."""
        self.waiting = 0
        self.exclusive = False
        """Whether one has it exclusively."""
        self._stop = stop
        self._change = threading.Condition()
        self._sharing = 0
        self._asking = 0

    @property
    def exclusively_wanted(self) -> bool:
        """Whether those who share it should let it go, and leave the memory to one."""
        return self.exclusive or self._asking > 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Render while others do."""
        with self._change:
            self._wait(lambda: not self.exclusively_wanted)
            self._sharing += 1
        try:
            yield
        finally:
            with self._change:
                self._sharing -= 1
                self._change.notify_all()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Render while nobody else does."""
        with self._change:
            self._asking += 1
            self._wait(lambda: not self.exclusive and not self._sharing)
            self._asking -= 1
            self.exclusive = True
        try:
            yield
        finally:
            with self._change:
                self.exclusive = False
                self._change.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the stop."""
        if seconds:
            with self._counted():
                self._stop.wait(seconds)

    def _wait(self, free: Callable[[], bool]) -> None:
        """Wait, holding the condition's lock, until it is free or all should stop."""
        if free():
            return
        with self._counted():
            while not free() and not self._stop.is_set():
                self._change.wait(_TICK_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._change:
            self.waiting += 1
        try:
            yield
        finally:
            with self._change:
                self.waiting -= 1
