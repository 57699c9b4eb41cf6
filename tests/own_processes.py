"""A pytest plugin: whatever a test has started ends when the test fails, wherever in it that was.

Else a `compile-dataset` that a test meant to interrupt later, and its Blenders, would render on for ever.
`tests.conftest` loads this; so can ``pytest -p``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.commands import MARK

_TICKS = os.sysconf("SC_CLK_TCK")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Kill what the test started, also what has left its process group, if it did not come to its end."""
    began = now()
    try:
        return (yield)
    except pytest.skip.Exception:
        raise
    except BaseException:
        for process in started_since(began):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        raise


def now() -> tuple[int, int]:
    """Return the time in clock ticks since boot, as processes have theirs, and the newest process of all."""
    newest = int(Path("/proc/loadavg").read_text().split()[-1])
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS), newest


def started_since(began: tuple[int, int]) -> Iterator[int]:
    """Yield the running processes that these tests have started since then; what a fixture started is older."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and int(folder.name) != os.getpid() and _ours(folder):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if (int(fields[19]), int(folder.name)) > began:
                    yield int(folder.name)


def _ours(process: Path) -> bool:
    marked = MARK.encode() in (process / "environ").read_bytes().split(b"\0")
    return marked and b"multiprocessing.resource_tracker" not in (process / "cmdline").read_bytes()
