"""Samples on their way to listeners: one log, which groups of connections read at their own pace. No I/O.

Rules:
1. The connections of a group share the samples, each group gets all: a group is a position in the log.
2. The log holds what the slowest group has yet to take, and so no more than that group's queue may hold. When it is
   full, the oldest sample makes way (``drop``) or the compiler waits (``block``).
3. A sample is in a connection's hand from `Groups.take` to `Groups.handed`. A connection that leaves before gives it
   back, and it is the group's next.
4. A named group outlives its connections by a period of grace. One without a name ends with its connection.
5. A group has come to its end when the dataset has, nothing waits, and no sample of it is in anybody's hand.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import Any

from compiler.live.options import QueueLimits

_TICK_S = 0.2
"""How long a wait lasts at once: an interrupt and the clock get their turn."""


class TooManyGroups(Exception):
    """No further group is taken in."""


class Turn(Enum):
    """What a connection gets that gets no sample."""

    WAIT = auto()
    """Nothing is there yet; the connection will be woken."""
    END = auto()
    """Nothing will come any more."""


@dataclass
class Tally:
    """What became of a group's samples."""

    samples_sent: int = 0
    bytes_sent: int = 0
    samples_dropped: int = 0
    """Made way for newer ones."""
    samples_abandoned: int = 0
    """Waited for a group that was given up."""

    def add(self, other: Tally) -> None:
        """Count another's samples, too."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass(eq=False)
class _Group:
    name: str | None
    position: int
    """Number of the next sample to take from the log."""
    moved_at: float
    """When a connection last came, went, took a sample or was done with one."""
    members: set[Member] = field(default_factory=set)
    idle: dict[Member, None] = field(default_factory=dict)
    """Members that wait to be woken, the longest first."""
    returned: deque[bytes] = field(default_factory=deque)
    """Samples that a connection took and could not hand over."""
    tally: Tally = field(default_factory=Tally)

    def wake_one(self) -> None:
        if member := next(iter(self.idle), None):
            del self.idle[member]
            member.wake()

    def wake_all(self) -> None:
        while self.idle:
            self.wake_one()

    def in_hand(self) -> int:
        return sum(member.record is not None for member in self.members)


@dataclass(eq=False)
class Member:
    """One connection of a group; made by `Groups.join`."""

    group: _Group
    wake: Callable[[], object]
    """Called, from any thread, when there may be something to take."""
    record: bytes | None = None
    """The sample in hand."""


class _Log:
    """Consecutive records, numbered from `first` up to `end`."""

    def __init__(self) -> None:
        self.first = 0
        self.end = 0
        self.bytes = 0
        self._records: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, number: int) -> bytes:
        return self._records[number]

    def append(self, record: bytes) -> None:
        self._records[self.end] = record
        self.end += 1
        self.bytes += len(record)

    def trim(self, first: int) -> bool:
        """Let go all before `first`; say whether there were any."""
        begun_at = self.first
        while self.first < first:
            self.bytes -= len(self._records.pop(self.first))
            self.first += 1
        return self.first > begun_at


class Groups:
    """The log and its groups. All methods may be called from any thread; none but the waits named so takes time.

    State, under one lock: the log, the groups, what became of the samples of groups that are gone, and whether the
    dataset has ended or all has been called off.
    """

    def __init__(self, limits: QueueLimits, max_groups: int = 256, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._max_groups = max_groups
        self._clock = clock
        self._changed = threading.Condition()
        self._log = _Log()
        self._groups: list[_Group] = []
        self._gone = Tally()
        self._samples = 0
        self._bytes = 0
        self._finished = False
        self._closed = False

    # The compiler's side

    def offer(self, record: bytes, interrupted: Callable[[], bool]) -> bool:
        """Append a sample to what every group will get; with ``block`` wait until there is room.

        Returns False, and appends nothing, when it was interrupted, or after `finish` or `close`.
        """
        with self._changed:
            self._forget_absent()
            if not self._make_room(len(record), interrupted) or self._finished or self._closed:
                return False
            self._samples += 1
            self._bytes += len(record)
            if self._groups:
                self._log.append(record)
            for group in self._groups:
                group.wake_one()
            return True

    def wait_for(self, connections: int, timeout: float | None, interrupted: Callable[[], bool]) -> bool:
        """Wait until so many connections are there; False when it was interrupted or took too long."""
        due = None if timeout is None else self._clock() + timeout
        with self._changed:
            while sum(len(group.members) for group in self._groups) < connections:
                if self._closed or interrupted() or (due is not None and self._clock() >= due):
                    return False
                self._changed.wait(_TICK_S)
            return True

    def finish(self, interrupted: Callable[[], bool]) -> bool:
        """Let every group come to its end, and wait for it; False when a group was given up, now or before.

        Each group may take as long as it takes samples; one that has taken none for the period of grace is given up.
        With ``drop``, so is at once a group that has no connection.
        """
        with self._changed:
            self._finished = True
            ended_at = self._clock()
            for group in self._groups:
                group.wake_all()
            while not self._closed and not interrupted():
                self._forget_absent()
                if not any(self._is_moving(group, ended_at) for group in self._groups):
                    break
                self._changed.wait(_TICK_S)
            for group in self._groups:
                group.tally.samples_abandoned += self._waiting(group) + group.in_hand()
            return not self._groups and not self._tally().samples_abandoned

    def close(self) -> None:
        """Abort: every wait ends, nothing more is accepted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def status(self) -> dict[str, Any]:
        """Return what was offered and what became of it, in all and by group, ready for JSON."""
        with self._changed:
            return {
                "finished": self._finished,
                "policy": self._limits.policy,
                "queue_bytes": self._limits.queue_bytes,
                "queue_samples": self._limits.queue_samples,
                "connections": sum(len(group.members) for group in self._groups),
                "samples_offered": self._samples,
                "bytes_offered": self._bytes,
                **asdict(self._tally()),
                "groups": [self._describe(group) for group in self._groups],
            }

    # The connections' side

    def join(self, name: str | None, wake: Callable[[], object]) -> Member:
        """Add a connection to the group `name`, or to its own group.

        Raises:
            TooManyGroups: it would be a new group, and there are enough that have connections.
        """
        with self._changed:
            self._forget_absent()
            group = next((group for group in self._groups if name is not None and group.name == name), None)
            if group is None:
                if len(self._groups) >= self._max_groups:
                    self._make_way()
                group = _Group(name, self._log.end, self._clock())
                self._groups.append(group)
            member = Member(group, wake)
            group.members.add(member)
            self._moved(group)
            return member

    def take(self, member: Member) -> bytes | Turn:
        """Put the group's next sample into the connection's hand and return it, or say that there is none."""
        group = member.group
        with self._changed:
            if group.returned:
                member.record = group.returned.popleft()
            elif group.position < self._log.end:
                member.record = self._log[group.position]
                group.position += 1
                self._trim()
            elif self._finished and not group.in_hand():
                return Turn.END
            else:
                group.idle[member] = None
                return Turn.WAIT
            group.moved_at = self._clock()
            return member.record

    def handed(self, member: Member) -> None:
        """Take note that the sample in hand has been handed over whole."""
        with self._changed:
            if member.record is not None:
                member.group.tally.samples_sent += 1
                member.group.tally.bytes_sent += len(member.record)
                member.record = None
            member.group.moved_at = self._clock()
            if self._finished:  # others may have waited for this hand to be empty
                member.group.wake_all()

    def leave(self, member: Member) -> None:
        """Remove a connection; what it has in hand goes back to its group."""
        group = member.group
        with self._changed:
            group.members.discard(member)
            group.idle.pop(member, None)
            if member.record is not None:
                group.returned.append(member.record)
                member.record = None
            ended = self._finished and not self._waiting(group)
            if not group.members and (group.name is None or ended):
                self._forget(group)
            group.wake_all()  # this member may have been woken for a sample that it did not take
            self._moved(group)

    # Under the lock

    def _make_way(self) -> None:
        """Give up the absent group that has received least, of these the one that left first: names are cheap.

        Raises:
            TooManyGroups: each has a connection.
        """
        absent = [group for group in self._groups if not group.members]
        if not absent:
            raise TooManyGroups
        least = min(absent, key=lambda group: (group.tally.samples_sent, group.moved_at))
        least.tally.samples_abandoned += self._waiting(least)
        self._forget(least)

    def _make_room(self, size: int, interrupted: Callable[[], bool]) -> bool:
        while not self._fits(size):
            if self._limits.policy == "drop":
                self._drop_oldest()
            elif self._finished or self._closed or interrupted():
                return False
            else:
                self._changed.wait(_TICK_S)
                self._forget_absent()
        return True

    def _fits(self, size: int) -> bool:
        limits, log = self._limits, self._log
        return not log or (log.bytes + size <= limits.queue_bytes and len(log) < limits.queue_samples)

    def _drop_oldest(self) -> None:
        for group in self._groups:
            if group.position == self._log.first:
                group.position += 1
                group.tally.samples_dropped += 1
        self._trim()

    def _trim(self) -> None:
        if self._log.trim(min((group.position for group in self._groups), default=self._log.end)):
            self._changed.notify_all()

    def _moved(self, group: _Group) -> None:
        group.moved_at = self._clock()
        self._changed.notify_all()

    def _waiting(self, group: _Group) -> int:
        return len(group.returned) + self._log.end - group.position

    def _is_moving(self, group: _Group, ended_at: float) -> bool:
        return self._clock() - max(group.moved_at, ended_at) <= self._limits.grace_s

    def _forget_absent(self) -> None:
        """Give up groups whose listeners have not come back."""
        grace = 0.0 if self._finished and self._limits.policy == "drop" else self._limits.grace_s
        for group in [group for group in self._groups if not group.members]:
            if self._clock() - group.moved_at >= grace or (self._finished and not self._waiting(group)):
                group.tally.samples_abandoned += self._waiting(group)
                self._forget(group)

    def _forget(self, group: _Group) -> None:
        self._groups.remove(group)
        self._gone.add(group.tally)
        self._trim()

    def _tally(self) -> Tally:
        total = Tally()
        for tally in (self._gone, *(group.tally for group in self._groups)):
            total.add(tally)
        return total

    def _describe(self, group: _Group) -> dict[str, Any]:
        waiting = [*group.returned, *(self._log[number] for number in range(group.position, self._log.end))]
        return {
            "group": group.name,
            "connections": len(group.members),
            "queued_samples": len(waiting),
            "queued_bytes": sum(map(len, waiting)),
            **asdict(group.tally),
        }
