"""Listening to live tees through refusals, cuts and silence: one listener a tee, and an inbox for what they receive."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from loaders._tee.client import Address, ConnectionLost, StreamCut, TeeConnection, TeeStatus
from loaders._workers import SharedArray
from loaders.errors import LiveError, ShardError
from loaders.tarstream import DEFAULT_MAX_BYTES, Sample, TarStreamError

TIMEOUT_S = 60.0
"""How long to wait for a compiler that does not answer."""

_DIGEST_BYTES = 32
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(r"[!-~]+")
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_ROOM = 2
"""Samples of each tee that may wait to be taken."""

_FIRST_LOOK_S = 0.25
_LONGEST_LOOK_S = 2.0
_JOIN_S = 2.0


@dataclass(frozen=True)
class ListenOptions:
    """How to listen to a tee."""

    group: str
    token: str | None
    timeout_s: float
    reconnect: bool
    plan_digest: str | None
    """The plan that every tee must serve; None accepts any."""
    max_bytes: int


def listen_options(
    group: str | None = None,
    token: str | None = None,
    timeout_s: float = TIMEOUT_S,
    reconnect: bool = True,
    plan_digest: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> ListenOptions:
    """Return checked options; without a group, with a group of their own.

    Raises:
        ValueError: no tee accepts the group or the token, or the timeout is not positive.
    """
    chosen = f"listener-{secrets.token_hex(8)}" if group is None else group
    if not _GROUP.fullmatch(chosen):
        raise ValueError(f"group must be 1 to 64 of A-Z a-z 0-9 . _ -, not {group!r}")
    if token is not None and not _TOKEN.fullmatch(token):
        raise ValueError("the token must be printable ASCII without spaces")
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be above 0, not {timeout_s}")
    return ListenOptions(chosen, token, timeout_s, reconnect, plan_digest, max_bytes)


class TeeStates:
    """What the workers know of the tees: the plan each one serves, and the iteration in which its dataset ended."""

    def __init__(self, tees: int) -> None:
        self._plans = SharedArray(tees * _DIGEST_BYTES, torch.uint8)
        self._ends = SharedArray(tees, torch.int64)

    def plan(self, tee: int) -> str:
        """Return the digest of the plan that a tee serves; empty if it has not been seen yet."""
        digest = self._plan_bytes(tee)
        return digest.tobytes().hex() if digest.any() else ""

    def see_plan(self, tee: int, digest: str) -> None:
        """Remember the plan that the tee serves."""
        self._plan_bytes(tee)[:] = list(bytes.fromhex(digest))

    def ended_in(self, tee: int) -> int:
        """Return the iteration in which a tee's dataset was seen to end; 0 for none."""
        return int(self._ends.array[tee])

    def see_end(self, tee: int, iteration: int) -> None:
        """Remember that the tee's dataset ended in this iteration."""
        self._ends.array[tee] = iteration

    def _plan_bytes(self, tee: int) -> NDArray[np.uint8]:
        plans: NDArray[np.uint8] = self._plans.array
        return plans[tee * _DIGEST_BYTES : (tee + 1) * _DIGEST_BYTES]


class _Stopped(Exception):
    """The iteration has ended, so no more samples are wanted."""


class Listener:
    """Receives the samples of one tee for one iteration.

    State: the tee's last status, whether its dataset has ended, when the current attempt began, and since when attempts
    have failed.
    """

    def __init__(
        self,
        address: Address,
        tee: int,
        options: ListenOptions,
        states: TeeStates,
        iteration: int,
        stop: threading.Event,
    ) -> None:
        self.address = address
        self.status: TeeStatus | None = None
        """Set before the first sample comes."""
        self.ended = False
        self._tee, self._options, self._states, self._iteration, self._stop = tee, options, states, iteration, stop
        self._began = 0.0
        self._failing_since: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._patience_s = options.timeout_s

    def listen(self, wanted: int | None) -> Iterator[Sample | ShardError]:
        """Yield `wanted` samples, or all until the dataset ends (see `ended`), each as it arrives.

        If the stream is damaged, yield the error, and reconnect if asked for more.

        Raises:
            LiveError: there was no connection for `timeout_s`, or the tee serves another dataset.
        """
        received = 0
        while not self._stop.is_set() and (wanted is None or received < wanted):
            if self._states.ended_in(self._tee) == self._iteration:
                self.ended = True
                return
            try:
                for sample in self._stream(None if wanted is None else wanted - received):
                    received += 1
                    yield sample
                if wanted is None or received < wanted:
                    self._states.see_end(self._tee, self._iteration)
            except _Stopped:
                return
            except ConnectionLost as loss:
                self._back_off(loss)
            except TarStreamError as error:
                yield ShardError(f"{self.address}: {error}")
                self._back_off(error)

    def wait_for_status(self) -> TeeStatus:
        """Wait for the tee and return its status.

        Raises:
            LiveError: it does not answer in time, or serves another dataset.
        """
        while True:
            self._began = time.monotonic()
            try:
                return self._ask()
            except ConnectionLost as loss:
                self._back_off(loss)

    def has_finished(self) -> bool | None:
        """Ask whether the last sample has been made; None without an answer."""
        try:
            return self._ask().finished
        except (ConnectionLost, LiveError, _Stopped):
            return None

    def _stream(self, wanted: int | None) -> Iterator[Sample]:
        self._began = time.monotonic()
        with TeeConnection(self.address, self._options.token, self._options.timeout_s, self._watch) as connection:
            self.status = self._verified(connection.status())
            for sample in connection.samples(self.status, self._options.group, wanted, self._options.max_bytes):
                self._failing_since, self._pause_s, self._patience_s = None, _FIRST_PAUSE_S, self._options.timeout_s
                yield sample

    def _watch(self, silence_s: float) -> None:
        """Wait on while the tee answers status requests: a sample may take long to render."""
        if self._stop.is_set():
            raise _Stopped
        if silence_s < self._patience_s:
            return
        try:
            self._ask()
        except ConnectionLost as loss:
            raise StreamCut(f"silent for {silence_s:.0f} s, and a status request failed: {loss}") from None
        self._patience_s = silence_s + self._options.timeout_s

    def _ask(self) -> TeeStatus:
        with TeeConnection(self.address, self._options.token, self._options.timeout_s, self._check_stop) as connection:
            return self._verified(connection.status())

    def _check_stop(self, _: float) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _verified(self, status: TeeStatus) -> TeeStatus:
        """Check that the tee serves the expected plan: another compiler may have taken its port."""
        seen = self._states.plan(self._tee)
        expected = self._options.plan_digest or seen
        if expected and status.plan_digest != expected:
            since = "as requested" if self._options.plan_digest else "as before"
            raise LiveError(
                f"{self.address} serves plan {status.plan_digest[:16]}..., not {expected[:16]}... {since}: it is "
                "another compiler, or one started with other settings"
            )
        if not seen:
            self._states.see_plan(self._tee, status.plan_digest)
        return status

    def _back_off(self, trouble: Exception) -> None:
        """Pause before the next attempt.

        Raises:
            LiveError: attempts have failed for `timeout_s`.
        """
        now, timeout_s = time.monotonic(), self._options.timeout_s
        if isinstance(trouble, StreamCut) and not self._options.reconnect:
            raise LiveError(f"{self.address}: the stream was cut before the dataset's end: {trouble}")
        if self._failing_since is None:
            unanswered = isinstance(trouble, ConnectionLost) and not isinstance(trouble, StreamCut)
            self._failing_since = self._began if unanswered else now
        left_s = self._failing_since + timeout_s - now
        if left_s <= 0:
            raise LiveError(self._gave_up(trouble))
        self._stop.wait(min(self._pause_s, left_s))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _gave_up(self, trouble: Exception) -> str:
        hint = f"start one there: compile-dataset --shards N --live {self.address}"
        waited = f"in {self._options.timeout_s:g} s ({trouble}); {hint}"
        if self._states.ended_in(self._tee):
            return f"{self.address}: its dataset ended in an earlier epoch, and no compiler answered {waited}"
        if self.status is not None:
            return f"{self.address}: the stream was cut before the dataset's end and did not resume {waited}"
        return f"no compiler at {self.address} {waited}"


Arrival = tuple[Listener, Sample | ShardError]


class Inbox:
    """Samples of several tees, in the order of arrival: a thread for each tee. Use as a context manager.

    An iteration that is not asked for its next sample leaves its inbox full and one sample in transit. At the end of
    the dataset the tee waits until that sample is taken before it releases the rest of the group, while a DataLoader
    may be waiting for just these. So a thread that finds the inbox full asks the tee now and then whether the last
    sample has been made. If so, it takes in all that is left, at most what the tee's queue held.

    State, under one lock: what has arrived, how many threads still listen, and their first error.
    """

    def __init__(self, listeners: Sequence[Listener], stop: threading.Event, wanted: int | None) -> None:
        """Take listeners that end when `stop` is set, and the number of samples that each receives."""
        self._listeners, self._stop, self._wanted = listeners, stop, wanted
        self._changed = threading.Condition()
        self._arrived: deque[Arrival] = deque()
        self._room = _ROOM * len(listeners)
        self._listening = len(listeners)
        self._error: BaseException | None = None
        self._over: set[Listener] = set()
        """Those whose tees will send no more samples."""
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Inbox:
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
        """Whether all samples have been taken and no more will arrive."""
        with self._changed:
            return not self._arrived and not self._listening and self._error is None

    def take(self, timeout_s: float) -> Arrival | None:
        """Return the next arrival, or None if there is none within the time.

        Raises:
            LiveError: a listener failed, and all that had arrived before has been taken.
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
        """Add an arrival when there is room; False if the iteration has ended."""
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
