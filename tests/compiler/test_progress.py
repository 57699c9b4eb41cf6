"""What is shown while a build runs: what there is of it, and how long it takes where it has an end."""

from __future__ import annotations

import io

import pytest

from compiler.build import Report
from compiler.cli.progress import Bar, Lines
from compiler.rendering.events import SampleDone
from compiler.rendering.pool import PoolStatus

ENDLESS = Report(0, 0, shards_done=3, samples_done=300, samples_rendered=300, seconds=7204.4)
BOUNDED = Report(4, 400, shards_done=3, samples_done=300, samples_rendered=300, seconds=600)


def line(report: Report) -> str:
    shown = io.StringIO()
    Lines("cube", shown).update(report, PoolStatus(alive=2), SampleDone(0))
    return shown.getvalue()


def bar(report: Report, capsys: pytest.CaptureFixture[str]) -> str:
    shown = Bar("cube")
    shown.update(report, PoolStatus(alive=2), SampleDone(0))
    shown.update(report, PoolStatus(alive=2), None)
    shown.close()
    return capsys.readouterr().err


def test_with_an_end_there_is_a_share_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert line(BOUNDED) == "cube: 300/400 samples, shards 3/4, instances 2, 0.50 samples/s, 0:03:20 left\n"
    assert "300/400" in bar(BOUNDED, capsys)


def test_without_an_end_there_is_a_count_the_rate_and_the_time_since_the_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert line(ENDLESS) == "cube: 300 samples, shards 3, instances 2, 0.04 samples/s, 2:00:04 since the start\n"
    shown = bar(ENDLESS, capsys)
    assert "cube: 300sample [00:00, " in shown
    assert "shards 3, instances 2" in shown
    assert "/0" not in shown
