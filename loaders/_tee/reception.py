"""Samples of several tees, taken as they come: a thread for each tee, and an inbox that holds few."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from loaders._tee.listener import Listener
from loaders.errors import ShardError
from loaders.tarstream import Sample

Arrival = tuple[Listener, Sample | ShardError]

_ROOM = 2
"""Samples of each tee that wait to be taken."""

_FIRST_LOOK_S = 0.25
_LONGEST_LOOK_S = 2.0
_JOIN_S = 2.0


class Reception:
    """Receives for as long as it is entered.

    An iteration that is not asked for its next sample leaves its inbox full, and then one sample on the way from the
    tee. At the end of the dataset the tee waits for that one before it lets anybody else of the group go, while a
    DataLoader may wait for just these others. So a thread that finds no room asks the tee now and then whether the
    last sample has been made, and if so takes in what there is, which is no more than the tee's queue held.

    State, under one lock: what has arrived, how many threads still listen, and the first error of theirs.
    """

    def __init__(self, listeners: Sequence[Listener], stop: threading.Event, wanted: int | None) -> None:
        """Take listeners that heed `stop`; each shall receive as many as are `wanted`."""
        self._listeners, self._stop, self._wanted = listeners, stop, wanted
        self._changed = threading.Condition()
        self._arrived: deque[Arrival] = deque()
        self._room = _ROOM * len(listeners)
        self._listening = len(listeners)
        self._error: BaseException | None = None
        self._over: set[Listener] = set()
        """Those whose tees make no more samples."""
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Reception:
        for listener in self._listeners:
            thread = threading.Thread(target=self._receive, args=(listener,), name=f"live {listener.address}")
            thread.daemon = True
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_JOIN_S)

    @property
    def over(self) -> bool:
        """Whether nothing has arrived and nothing will."""
        with self._changed:
            return not self._arrived and not self._listening and self._error is None

    def take(self, timeout_s: float) -> Arrival | None:
        """Return what has arrived next, or None if nothing does within the time.

        Raises:
            LiveError: a listener's, once all that had arrived is taken.
        """
        with self._changed:
            if not self._arrived and self._listening and self._error is None:
                self._changed.wait(timeout_s)
            if self._arrived:
                self._changed.notify_all()
                return self._arrived.popleft()
            if self._error is not None:
                raise self._error
            return None

    def _receive(self, listener: Listener) -> None:
        error: BaseException | None = None
        try:
            for item in listener.listen(self._wanted):
                if not self._put((listener, item)):
                    break
        except BaseException as raised:
            error = raised
        with self._changed:
            self._listening -= 1
            self._error = self._error or error
            self._changed.notify_all()

    def _put(self, arrival: Arrival) -> bool:
        """Wait for room; False when nobody wants it any more."""
        listener, look_s = arrival[0], _FIRST_LOOK_S
        while True:
            with self._changed:
                if self._stop.is_set():
                    return False
                if listener in self._over or len(self._arrived) < self._room:
                    self._arrived.append(arrival)
                    self._changed.notify_all()
                    return True
                waited = not self._changed.wait(look_s)
            if waited and listener.has_finished():
                self._over.add(listener)
            look_s = min(2 * look_s, _LONGEST_LOOK_S)
