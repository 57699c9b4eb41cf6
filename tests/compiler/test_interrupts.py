"""The main thread is interrupted from another one at once, once, and nobody's handling of SIGINT is changed by it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from compiler import process_control
from compiler.process_control import MainInterrupter, deferred_interrupts

LONG_S = 20.0
"""What nothing here may take: a wait that is not interrupted lasts as long."""


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that a user's own handler has got; it raises KeyboardInterrupt, as Python's does."""
    came: list[int] = []

    def handle(sign: int, _: object) -> None:
        came.append(sign)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    yield came
    signal.signal(signal.SIGINT, before)


def from_another_thread(action: Callable[[], object]) -> None:
    """Do it there, beginning now."""
    threading.Thread(target=action, name="another").start()


def sleep_until(interrupter: MainInterrupter) -> None:
    """Sleep until it interrupts, from another thread."""
    from_another_thread(interrupter.interrupt)
    time.sleep(LONG_S)


def await_it() -> None:
    """Wait until what was begun `from_another_thread` is done."""
    for thread in threading.enumerate():
        if thread.name == "another":
            thread.join()


def test_an_interrupt_that_came_just_before_the_wait_ends_the_wait(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that C's handler has noted, and that ends no system call, is what this race leaves."""
    send, sent = signal.pthread_kill, []

    def lose_the_first(thread: int, sign: int) -> None:
        sent.append(sign)
        if len(sent) == 1:
            signal.raise_signal(sign)  # in the sending thread: noted, but the main thread sleeps on
        else:
            send(thread, sign)

    monkeypatch.setattr(signal, "pthread_kill", lose_the_first)
    began = time.monotonic()
    with MainInterrupter() as interrupter:
        wait = threading.Timer(0.2, interrupter.interrupt)
        wait.start()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(LONG_S)
    assert time.monotonic() - began < LONG_S / 2
    wait.join()
    assert len(handled) == 1
    assert len(sent) == 2


def test_each_of_many_interrupts_is_handled_once(handled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent at any moment: before the wait, while it begins, and while the user cleans up after the first."""
    monkeypatch.setattr(process_control, "_AGAIN_S", 0.001)
    chance = random.Random(0)
    for number in range(1, 201):
        with MainInterrupter() as interrupter:
            began = time.monotonic()
            try:
                from_another_thread(interrupter.interrupt)
                for _ in range(chance.randrange(2000)):
                    pass
                time.sleep(LONG_S)
            except KeyboardInterrupt:
                await_it()  # a second one would end this
                interrupter.interrupt()
            assert time.monotonic() - began < LONG_S / 2
        assert len(handled) == number
    time.sleep(0.01)
    assert len(handled) == 200


def test_a_repeated_signal_that_is_still_under_way_is_swallowed(handled: list[int]) -> None:
    """Sent while the first one's handler begins, it is pending when that ends: it must not reach the user's cleanup.

    In a fork, which has one thread: another would take the signal that this one blocks.
    """
    child = os.fork()
    if child == 0:
        try:
            _two_pending_signals(handled)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _two_pending_signals(handled: list[int]) -> None:
    with MainInterrupter() as interrupter:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            assert interrupter._send()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [])  # the first is pending still
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            with pytest.raises(KeyboardInterrupt):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        assert not interrupter._send()
    assert len(handled) == 1


def test_the_users_own_ctrl_c_goes_to_the_users_handler(handled: list[int]) -> None:
    with MainInterrupter() as interrupter:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            sleep_until(interrupter)
        with pytest.raises(KeyboardInterrupt):  # impatient with the cleanup
            signal.raise_signal(signal.SIGINT)
    assert len(handled) == 4


def test_the_handler_is_put_back_and_nothing_comes_after_the_end(handled: list[int]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with MainInterrupter() as interrupter:
        assert signal.getsignal(signal.SIGINT) is interrupter
    assert signal.getsignal(signal.SIGINT) is before
    from_another_thread(interrupter.interrupt)
    await_it()
    assert handled == []


def test_of_two_in_each_other_each_interrupts_once(handled: list[int]) -> None:
    with MainInterrupter() as outer, MainInterrupter() as inner:
        for number, interrupter in enumerate((outer, inner), start=1):
            with pytest.raises(KeyboardInterrupt):
                sleep_until(interrupter)
            await_it()
            assert len(handled) == number


def test_a_handler_that_somebody_sets_meanwhile_gets_one_signal_and_stays(handled: list[int]) -> None:
    got: list[int] = []
    with MainInterrupter() as interrupter:
        signal.signal(signal.SIGINT, theirs := lambda *_: got.append(1))
        from_another_thread(interrupter.interrupt)
        await_it()
        time.sleep(0.3)
    assert signal.getsignal(signal.SIGINT) is theirs
    assert (got, handled) == ([1], [])


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_is_ignored_or_left_to_the_system_stays_so(handler: Any, handled: list[int]) -> None:
    signal.signal(signal.SIGINT, handler)
    with MainInterrupter() as interrupter:
        assert signal.getsignal(signal.SIGINT) is handler
        from_another_thread(interrupter.interrupt)  # with SIG_DFL a signal would end the tests here
        await_it()
    assert signal.getsignal(signal.SIGINT) is handler


def test_in_another_thread_nothing_is_interrupted(handled: list[int]) -> None:
    def within() -> None:
        with MainInterrupter() as interrupter:
            interrupter.interrupt()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(within).result()
    assert handled == []


def test_interrupts_that_are_held_back_are_told_once(handled: list[int]) -> None:
    with MainInterrupter() as interrupter, deferred_interrupts() as check:
        from_another_thread(interrupter.interrupt)
        await_it()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert handled == []


CHILD = """
import signal, threading, time
from compiler.process_control import ending_with_parent
try:
    with ending_with_parent():
        print("ready", flush=True)
        {wait}
except KeyboardInterrupt:
    time.sleep(0.5)  # to be interrupted again, if it were
    print("interrupted", flush=True)
"""
WAITS = {
    "sleep": f"time.sleep({LONG_S})",
    "lock": "gate = threading.Lock(); gate.acquire(); gate.acquire()",
    "pipe": "import os; os.read(os.pipe()[0], 1)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_child_that_blocks_is_interrupted_once_when_its_lifeline_ends(wait: str) -> None:
    """However it waits: a signal raised in another thread would be noted, and handled when the wait is over."""
    line, pipe = [sys.executable, "-P", "-c", CHILD.format(wait=WAITS[wait])], subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert child.communicate(timeout=LONG_S / 2)[0] == "interrupted\n"  # closes its stdin
