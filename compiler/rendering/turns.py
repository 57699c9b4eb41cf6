"""Who may work when: all instances at once, one alone when memory is short, none of a slot whose instances die."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_PAUSE_S = 30.0
_FIRST_PAUSE_S = 0.5
_TICK_S = 0.2


class Turns:
    """A turn is shared or alone. Whoever asks for one alone waits until the others have given theirs back.

    State: how many share, whether someone is alone, how many ask to be, and how many wait in all.
    """

    def __init__(self, stop: threading.Event) -> None:
        """Turns are given until `stop`; after that all get one, to come to their end."""
        self.waiting = 0
        self.alone = False
        self._stop = stop
        self._change = threading.Condition()
        self._sharing = 0
        self._asking = 0

    @property
    def wanted(self) -> bool:
        """Whether those who share shall give their turn back, and leave the memory to one."""
        return self.alone or self._asking > 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Work beside others."""
        with self._change:
            self._wait(lambda: not self.wanted)
            self._sharing += 1
        try:
            yield
        finally:
            with self._change:
                self._sharing -= 1
                self._change.notify_all()

    @contextmanager
    def lone(self) -> Iterator[None]:
        """Work while no other does."""
        with self._change:
            self._asking += 1
            self._wait(lambda: not self.alone and not self._sharing)
            self._asking -= 1
            self.alone = True
        try:
            yield
        finally:
            with self._change:
                self.alone = False
                self._change.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the stop."""
        if seconds:
            with self._counted():
                self._stop.wait(seconds)

    def _wait(self, free: Callable[[], bool]) -> None:
        """Wait, holding the lock, until it is free or all shall stop."""
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


def pause_after(deaths: int) -> float:
    """Return how many seconds to wait after so many instances in a row that gave no sample: doubled, within bounds."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(deaths - 1, 9), LONGEST_PAUSE_S) if deaths else 0.0
