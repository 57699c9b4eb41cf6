"""The tee's queues and groups, without a socket: who gets what, what makes way, who waits and for how long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from compiler.live.groups import Groups, Member, TooManyGroups, Turn
from compiler.live.options import Policy, QueueLimits

GRACE_S = 60.0


class Clock:
    """Time that moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(policy: Policy = "block", queue_bytes: int = 100, queue_samples: int = 100) -> tuple[Groups, Clock]:
    clock = Clock()
    limits = QueueLimits(policy=policy, queue_bytes=queue_bytes, queue_samples=queue_samples, grace_s=GRACE_S)
    return Groups(limits, max_groups=4, clock=clock), clock


def join(groups: Groups, name: str | None = "a") -> Member:
    return groups.join(name, lambda: None)


def offer(groups: Groups, *records: bytes) -> list[bool]:
    """Offer each, without waiting: with `block`, False says that it would have waited."""
    return [groups.offer(record, lambda: True) for record in records]


def take_all(groups: Groups, member: Member) -> list[bytes]:
    taken = []
    while isinstance(record := groups.take(member), bytes):
        taken.append(record)
        groups.handed(member)
    return taken


def noting(event: threading.Event) -> Callable[[], bool]:
    """Return an `interrupted` that never is, and shows that somebody waits."""

    def interrupted() -> bool:
        event.set()
        return False

    return interrupted


def ends(groups: Groups) -> bool:
    """Finish; a defect must not hang the tests."""
    due = time.monotonic() + 20
    return groups.finish(lambda: time.monotonic() > due)


class AnyHistory(RuleBasedStateMachine):
    """Whatever comes in whatever order, no sample of a group is lost or given twice unless it is counted."""

    members = Bundle("members")

    @initialize(policy=st.sampled_from(["drop", "block"]))
    def begin(self, policy: Policy) -> None:
        self.limits = QueueLimits(policy=policy, queue_bytes=20, queue_samples=5)
        self.groups = Groups(self.limits, clock=Clock())
        self.offered = 0
        self.since: dict[str, int] = {}  # by group: samples offered before it came
        self.handed: dict[str, list[bytes]] = {}
        self.connected: set[Member] = set()
        self.woken: set[Member] = set()

    @rule(size=st.integers(1, 30))
    def offer(self, size: int) -> None:
        self.offered += self.groups.offer(self.offered.to_bytes(4, "big") + bytes(size), lambda: True)

    @rule(target=members, name=st.sampled_from("ab"))
    def join(self, name: str) -> Member:
        self.since.setdefault(name, self.offered)
        self.handed.setdefault(name, [])
        member = self.groups.join(name, lambda: self.woken.add(member))
        self.connected.add(member)
        self.woken.add(member)
        return member

    @rule(member=members)
    def take(self, member: Member) -> None:
        """A connection takes when it has been woken, and goes on until it is told to wait."""
        if member in self.woken and member.record is None and self.groups.take(member) is Turn.WAIT:
            self.woken.discard(member)

    @rule(member=members)
    def hand(self, member: Member) -> None:
        if member.record is not None:
            self.handed[str(member.group.name)].append(member.record)
            self.groups.handed(member)

    @rule(member=consumes(members))
    def leave(self, member: Member) -> None:
        self.groups.leave(member)
        self.connected.discard(member)

    @invariant()
    def every_sample_is_somewhere_once(self) -> None:
        for shown in self.groups.status()["groups"]:
            name = shown["group"]
            in_hand = sum(member.record is not None for member in self.connected if member.group.name == name)
            known = len(self.handed[name]) + in_hand + shown["queued_samples"] + shown["samples_dropped"]
            assert known == self.offered - self.since[name]
            assert len(set(self.handed[name])) == len(self.handed[name]) == shown["samples_sent"]
            assert self.limits.policy == "drop" or not shown["samples_dropped"]

    @invariant()
    def nobody_sleeps_while_something_waits(self) -> None:
        for shown in self.groups.status()["groups"]:
            mine = {member for member in self.connected if member.group.name == shown["group"]}
            free = {member for member in mine if member.record is None}
            assert not shown["queued_samples"] or not free or free & self.woken


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=150, stateful_step_count=40)


@pytest.mark.parametrize("policy", ["drop", "block"])
@pytest.mark.parametrize(("queue_bytes", "queue_samples"), [(5, 100), (100, 5)])
def test_a_queue_is_bounded_in_bytes_and_in_samples(policy: Policy, queue_bytes: int, queue_samples: int) -> None:
    groups, _ = make(policy, queue_bytes, queue_samples)
    slow = join(groups)
    accepted = offer(groups, *(bytes([number]) for number in range(8)))
    kept = range(3, 8) if policy == "drop" else range(5)
    assert accepted == [True] * 8 if policy == "drop" else [True] * 5 + [False] * 3
    assert take_all(groups, slow) == [bytes([number]) for number in kept]
    assert groups.status()["samples_dropped"] == (3 if policy == "drop" else 0)


@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_sample_larger_than_the_queue_goes_through_alone(policy: Policy) -> None:
    groups, _ = make(policy, queue_bytes=10)
    member = join(groups)
    assert offer(groups, bytes(50)) == [True]
    assert take_all(groups, member) == [bytes(50)]


def test_a_slow_group_under_drop_costs_the_others_nothing() -> None:
    groups, _ = make("drop", queue_bytes=3)
    join(groups, "slow")
    quick = join(groups, "quick")
    records = [bytes([number]) for number in range(50)]
    assert [taken for record in records if offer(groups, record) for taken in take_all(groups, quick)] == records


def test_block_waits_until_the_slowest_group_has_taken_one() -> None:
    groups, _ = make("block", queue_samples=2)
    slow, quick = join(groups, "slow"), join(groups, "quick")
    assert offer(groups, b"0", b"1", b"2") == [True, True, False]
    take_all(groups, quick)
    waiting = threading.Event()
    waiter = threading.Thread(target=lambda: groups.offer(b"2", noting(waiting)), daemon=True)
    waiter.start()
    assert waiting.wait(10)
    assert take_all(groups, quick) == []
    groups.take(slow)
    waiter.join(10)
    assert take_all(groups, quick) == [b"2"]


@pytest.mark.parametrize("release", [Groups.close, lambda groups: groups.finish(lambda: True)])
def test_a_waiting_offer_returns_when_all_is_over(release: Callable[[Groups], object]) -> None:
    groups, _ = make("block", queue_samples=1)
    join(groups)
    offer(groups, b"0")
    waiting, accepted = threading.Event(), []
    waiter = threading.Thread(target=lambda: accepted.append(groups.offer(b"1", noting(waiting))), daemon=True)
    waiter.start()
    assert waiting.wait(10)
    release(groups)
    waiter.join(10)
    assert accepted == [False]


def test_a_group_that_comes_back_in_time_has_missed_nothing() -> None:
    groups, clock = make("block")
    groups.leave(join(groups))
    offer(groups, b"0", b"1")
    clock.now += GRACE_S - 1
    offer(groups, b"2")
    assert take_all(groups, join(groups)) == [b"0", b"1", b"2"]


def test_a_group_that_does_not_come_back_holds_nobody_for_ever_and_is_counted() -> None:
    groups, clock = make("block", queue_samples=1)
    groups.leave(join(groups))
    assert offer(groups, b"0", b"1") == [True, False]
    clock.now += GRACE_S
    assert offer(groups, b"1") == [True]
    assert groups.status()["samples_abandoned"] == 1
    assert take_all(groups, join(groups)) == []


def test_an_offer_that_waits_for_a_group_that_is_away_goes_on_when_the_grace_is_over() -> None:
    groups, clock = make("block", queue_samples=1)
    groups.leave(join(groups))
    offer(groups, b"0")
    patience = iter([False] * 3 + [True] * 3)

    def later() -> bool:
        clock.now += GRACE_S / 2
        return next(patience)

    assert groups.offer(b"1", later)


def test_a_connection_without_a_group_leaves_nothing_behind() -> None:
    groups, _ = make("block", queue_samples=1)
    groups.leave(join(groups, None))
    assert offer(groups, b"0", b"1") == [True, True]
    assert groups.status()["groups"] == []


def test_a_sample_that_was_not_handed_over_is_the_groups_next() -> None:
    groups, _ = make("block")
    first, second = join(groups), join(groups)
    offer(groups, b"0", b"1")
    assert groups.take(first) == b"0"
    groups.leave(first)
    assert take_all(groups, second) == [b"0", b"1"]


def test_a_connection_that_was_woken_and_leaves_wakes_another() -> None:
    groups, _ = make("block")
    woken: list[str] = []
    first, second = (groups.join("a", partial(woken.append, name)) for name in ("first", "second"))
    assert [groups.take(first), groups.take(second)] == [Turn.WAIT, Turn.WAIT]
    offer(groups, b"0")
    groups.leave(first)
    assert woken == ["first", "second"]


def test_those_who_waited_for_the_last_hand_to_be_empty_are_woken() -> None:
    groups, _ = make("block")
    woken: list[str] = []
    first, second = join(groups), groups.join("a", partial(woken.append, "second"))
    offer(groups, b"0")
    groups.take(first)
    groups.finish(lambda: True)
    assert groups.take(second) is Turn.WAIT
    groups.handed(first)
    assert woken == ["second"]
    assert groups.take(second) is Turn.END


def test_the_end_waits_for_what_others_of_the_group_have_in_hand() -> None:
    groups, _ = make("block")
    first, second = join(groups), join(groups)
    offer(groups, b"0")
    groups.take(first)
    groups.finish(lambda: True)
    assert groups.take(second) is Turn.WAIT
    groups.leave(first)
    assert groups.take(second) == b"0"
    groups.handed(second)
    assert groups.take(second) is Turn.END


def test_finish_waits_until_every_group_has_come_to_its_end() -> None:
    groups, _ = make("block")
    members = [join(groups, "a"), join(groups, "a"), join(groups, None)]
    offer(groups, b"0", b"1")

    def read(member: Member) -> None:
        take_all(groups, member)
        groups.leave(member)

    done: list[bool] = []
    finisher = threading.Thread(target=lambda: done.append(ends(groups)), daemon=True)
    finisher.start()
    for member in members:
        assert not done
        read(member)
    finisher.join(10)
    assert done == [True]
    assert groups.status()["samples_sent"] == 4


def test_finish_gives_up_a_group_that_takes_nothing_and_counts_it() -> None:
    groups, clock = make("block")
    stuck = join(groups)
    offer(groups, b"0", b"1")
    groups.take(stuck)

    def later() -> bool:
        clock.now += GRACE_S
        return False

    assert not groups.finish(later)
    assert groups.status()["samples_abandoned"] == 2


@pytest.mark.parametrize(("policy", "comes_back"), [("block", [b"0"]), ("drop", [])])
def test_only_block_waits_at_the_end_for_a_group_that_is_away(policy: Policy, comes_back: list[bytes]) -> None:
    groups, _ = make(policy)
    groups.leave(join(groups))
    offer(groups, b"0")
    taken: list[bytes] = []

    def meanwhile() -> bool:
        member = join(groups)
        taken.extend(take_all(groups, member))
        groups.leave(member)
        return False

    assert groups.finish(meanwhile) == (policy == "block")
    assert taken == comes_back


def test_the_number_of_groups_is_bounded() -> None:
    groups, _ = make()
    members = [join(groups, name) for name in (None, None, "a", "b")]
    with pytest.raises(TooManyGroups):
        join(groups, None)
    join(groups, "a")  # one more connection of a group that is there
    groups.leave(members[0])
    join(groups, None)


def test_waits_for_connections() -> None:
    groups, _ = make()
    assert not groups.wait_for(1, None, lambda: True)
    assert not groups.wait_for(1, 0.0, lambda: False)
    join(groups, "a")
    join(groups, "a")
    assert groups.wait_for(2, None, lambda: True)


def test_many_threads_on_both_sides_lose_nothing() -> None:
    groups, _ = make("block", queue_samples=3)
    names = ["a", "a", "a", "b"]
    got: dict[str, Counter[bytes]] = {"a": Counter(), "b": Counter()}
    events = [threading.Event() for _ in names]
    members = [groups.join(name, event.set) for name, event in zip(names, events, strict=True)]

    def read(member: Member, woken: threading.Event) -> None:
        while (turn := groups.take(member)) is not Turn.END:
            if isinstance(turn, bytes):
                got[str(member.group.name)][turn] += 1
                groups.handed(member)
            else:
                assert woken.wait(20)
                woken.clear()
        groups.leave(member)

    def write(first: int) -> None:
        for number in range(200):
            groups.offer(b"%d-%d" % (first, number), lambda: False)

    readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in zip(members, events, strict=True)]
    writers = [threading.Thread(target=write, args=(first,), daemon=True) for first in range(3)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(30)
    assert ends(groups)
    expected = Counter(b"%d-%d" % (first, number) for first in range(3) for number in range(200))
    assert got == {"a": expected, "b": expected}
