"""How a build shows itself on stderr: a bar on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import Never, TextIO

from tqdm import tqdm

from compiler.build import Display, Report
from compiler.rendering.events import (
    EpisodeSkipped,
    Event,
    Noted,
    Restarted,
    SampleDone,
    SamplesKept,
    ShardDone,
    ShardFailed,
)
from compiler.rendering.pool import PoolStatus
from compiler.terminal import give_up, plain

_LINE_EVERY_S = 10.0


def make_display(quiet: bool, name: str) -> Display:
    """Return the display that fits where stderr goes."""
    if quiet:
        return Quiet()
    return _Lasting(Bar(name) if sys.stderr.isatty() else Lines(name, sys.stderr))


class _Lasting:
    """Shows a build until there is nobody to show it to: a terminal or a reader that has gone away must not end it.

    State: the display; nothing, once writing to it has failed.
    """

    def __init__(self, display: Display) -> None:
        self._display: Display = display

    def update(self, report: Report, workers: PoolStatus, event: Event | None) -> None:
        """Pass it on."""
        try:
            self._display.update(report, workers, event)
        except OSError:
            self._give_up()

    def close(self) -> None:
        """Leave the terminal as it was, if it is still there."""
        try:
            self._display.close()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        self._display = Quiet()
        give_up(2)  # what others still say there must not fail either


class Quiet:
    """Shows nothing."""

    def update(self, report: Report, workers: PoolStatus, event: Event | None) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to leave."""


class Bar:
    """One tqdm bar over samples, with rate, time left, shards done and instances alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm[Never] | None = None

    def update(self, report: Report, workers: PoolStatus, event: Event | None) -> None:
        """Move the bar; say above it what was lost."""
        if self._bar is None:
            self._bar = self._begin(report)
        if note := plain(_note(event)):
            self._bar.write(note, file=sys.stderr)
        self._bar.set_postfix_str(_state(report, workers), refresh=False)
        self._bar.update(report.samples_done - self._bar.n)
        if event is None:
            self._bar.refresh()  # who waits, and how long already

    def _begin(self, report: Report) -> tqdm[Never]:
        return tqdm(
            desc=self._name,
            total=report.samples_wanted or None,  # without an end tqdm shows the count, the rate and the time since
            initial=report.samples_done - report.samples_rendered - report.samples_kept,
            unit="sample",
            dynamic_ncols=True,
            smoothing=0.05,
            file=sys.stderr,
        )

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()


class Lines:
    """A plain line for each shard, and one every ten seconds."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream
        self._next = 0.0

    def update(self, report: Report, workers: PoolStatus, event: Event | None) -> None:
        """Print a line where it is time for one."""
        if note := plain(_note(event)):
            print(note, file=self._stream, flush=True)
        due = time.monotonic() >= self._next and (isinstance(event, SampleDone) or workers.waiting > 0)
        if due or isinstance(event, ShardDone):
            self._next = time.monotonic() + _LINE_EVERY_S
            wanted = f"/{report.samples_wanted}" if report.samples_wanted else ""
            rate, time_text = f"{report.rate:.2f} samples/s", _time_text(report)
            line = (
                f"{self._name}: {report.samples_done}{wanted} samples, {_state(report, workers)}, {rate}, {time_text}"
            )
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to leave."""


def _state(report: Report, workers: PoolStatus) -> str:
    alone = " alone" if workers.exclusive else ""
    waiting = f", {workers.waiting} waiting" if workers.waiting else ""
    restarts = f", {report.restarts} restarts" if report.restarts else ""
    failed = f", {len(report.failed)} failed" if report.failed else ""
    live = ", {connections} listeners, {samples_dropped} dropped".format(**report.live) if report.live else ""
    wanted = f"/{report.shards_wanted}" if report.shards_wanted else ""
    return f"shards {report.shards_done}{wanted}, instances {workers.alive}{alone}{waiting}{restarts}{failed}{live}"


def _time_text(report: Report) -> str:
    """Return how long it will take; where there is no end, how long it has taken."""
    if not report.samples_wanted:
        return f"{_clock(report.seconds)} since the start"
    if not report.rate:
        return "? left"
    return f"{_clock((report.samples_wanted - report.samples_done) / report.rate)} left"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _note(event: Event | None) -> str:
    match event:
        case SamplesKept(shard, samples):
            return f"shard {shard}: continues after {samples} samples of an earlier run"
        case Restarted(failure, lost, exclusive):
            again = f"rendering episode {failure.episode} again{', alone' if exclusive else ''}"
            short = ", apparently for lack of memory" if exclusive else ""
            return f"shard {failure.shard}: an instance {failure.reason}{short}; {again} ({lost} samples)"
        case EpisodeSkipped(failure):
            return f"shard {failure.shard}: episode {failure.episode} skipped: each instance {failure.reason}"
        case ShardFailed(failure):
            return f"shard {failure.shard}: given up; the others continue"
        case Noted(note):
            return f"Note: {note}"
    return ""
