"""Rendering again: what is chosen is there, what differs is told to programs, too, and an interrupt ends it at once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs.orders import Rendered
from compiler.blender.process import InstanceOptions
from compiler.cli.verify import RerenderOutcome, verify_command
from compiler.errors import InstanceLost, OtherPixels, UsageError, VerificationFailed
from compiler.planning.plan import Plan
from compiler.storage.published import Published, samples_of
from compiler.verification.diff import Difference
from compiler.verification.rerender import (
    Comparison,
    Rerendered,
    Task,
    all_tasks,
    choose_tasks,
    prepare_rerender,
    rerender,
)
from loaders.manifest import RECORDED, Manifest, ShardInfo
from tests.commands import run
from tests.planned_dataset import Recipe, make, write_manifest

PLAN = Recipe().plan
"""Five samples in a shard, of three episodes with the frames 1 and 26; the last is cut short."""


def described(*skipped: str, plan: Plan = PLAN) -> Manifest:
    """Return a manifest of four shards without these samples; there are no files."""
    manifest = plan.manifest({})
    for number in range(4):
        lacking = {key: "died" for key in skipped if int(key[:6]) == number}
        samples = plan.samples_per_shard - len(lacking)
        entry = ShardInfo(plan.layout.shard_name(number), "train", number, samples, 0, "", "", "")
        manifest = manifest.with_shard(entry, lacking)
    return manifest


def keys(tasks: list[Task]) -> list[str]:
    """Return the keys of all samples that the tasks render."""
    return [sample.key for _, episodes in tasks for order in episodes for sample in order.samples]


EPISODES = [[sample.key for sample in PLAN.episode(number).samples] for number in range(12)]


@given(st.sets(st.integers(0, 11)), st.integers(1, 20), st.integers(0, 50))
def test_only_episodes_that_are_there_are_chosen(skipped: set[int], amount: int, seed: int) -> None:
    """Behind a gap positions shift: each sample that is there can be chosen, and one that is not, never."""
    manifest = described(*(key for number in skipped for key in EPISODES[number]))
    there = {number: EPISODES[number] for number in range(12) if number not in skipped}
    tasks = choose_tasks(PLAN, manifest, amount, seed)
    chosen = [order.episode for _, episodes in tasks for order in episodes]
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= there.keys()
    assert keys(tasks) == [key for number in chosen for key in there[number]]
    assert len(keys(tasks)) >= min(amount, manifest.samples)
    assert all(shard.number == order.episode // 3 for shard, episodes in tasks for order in episodes)
    assert keys(all_tasks(PLAN, manifest)) == [key for names in there.values() for key in names]


def test_every_sample_can_be_chosen() -> None:
    manifest = described(*EPISODES[1], *EPISODES[3])
    chosen = {tuple(keys(choose_tasks(PLAN, manifest, 1, seed))) for seed in range(200)}
    assert chosen == {tuple(names) for number, names in enumerate(EPISODES) if number not in (1, 3)}


def test_a_scene_that_serves_a_shard_is_rendered_from_the_shards_beginning() -> None:
    plan = replace(PLAN, job=replace(PLAN.job, reuse_scene=True))
    manifest = described(plan=plan)
    (task,) = choose_tasks(plan, manifest, 1, 3)
    assert keys([task]) == [due.key for due in plan.layout.samples(task[0].number)]


def test_a_recording_is_not_rendered_again(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, replace(make(tmp_path, Recipe(shards=1)), provenance={RECORDED: ""}))
    with pytest.raises(UsageError, match="a recording of a live tee has no plan's order"):
        prepare_rerender(Published(tmp_path, manifest), 1, 0, cast(Any, None))
    refused = run("verify", tmp_path, "--rerender", 1)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: a recording of a live tee has no plan's order; ")


@pytest.mark.parametrize(("elsewhere", "error"), [([], VerificationFailed), (["another Blender"], OtherPixels)])
def test_what_differs_is_told_to_programs_before_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: list[str], error: type[Exception]
) -> None:
    make(tmp_path, Recipe(shards=1))
    differing = Rerendered("000000-000001", [Difference("png", "differs", {"max": 3})])
    outcome = RerenderOutcome(2, [differing], 7, elsewhere)
    monkeypatch.setattr("compiler.cli.verify.ask_for_trust", lambda published: published)
    monkeypatch.setattr("compiler.cli.verify.rerender_and_compare", lambda *_: outcome)
    result = CliRunner().invoke(verify_command, [str(tmp_path), "--rerender", "2", "--json", "--quiet"])
    told = json.loads(result.stdout)
    assert (told["rerendered"], told["pick"], told["elsewhere"], told["samples"]) == (2, 7, elsewhere, 5)
    assert told["different"] == [
        {"key": "000000-000001", "differences": [{"member": "png", "what": "differs", "figures": {"max": 3}}]}
    ]
    assert isinstance(result.exception, error)


class FakeInstance:
    """An instance that gives the published samples back, or hangs until it is killed.

    State: whether it was killed, and whether it was let go.
    """

    def __init__(self, samples: dict[str, dict[str, bytes]] | None) -> None:
        self.samples = samples
        self.killed, self.ended = threading.Event(), threading.Event()

    def render(self, order: Any) -> Iterator[tuple[Rendered, dict[str, bytes]]]:
        """Give each sample back."""
        if self.samples is None:
            assert self.killed.wait(30)
            raise InstanceLost("died")
        for episode in order.episodes:
            for entry in episode.samples:
                yield Rendered(entry.key, episode.episode, entry.frame, {}), self.samples[entry.key]

    def kill(self) -> None:
        """End it at once."""
        self.killed.set()

    def __enter__(self) -> FakeInstance:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """All of a small dataset is to be rendered again."""
    manifest = make(tmp_path)
    return Comparison(tmp_path, PLAN, all_tasks(PLAN, manifest), [])


Starting = Callable[[dict[str, dict[str, bytes]] | None], list[FakeInstance]]


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Starting:
    """Return what lets fake instances be started, and gives the list into which they come."""

    def give(samples: dict[str, dict[str, bytes]] | None) -> list[FakeInstance]:
        started: list[FakeInstance] = []

        def start(_: InstanceOptions) -> FakeInstance:
            started.append(FakeInstance(samples))
            return started[-1]

        monkeypatch.setattr("compiler.verification.rerender.Instance", start)
        return started

    return give


def test_samples_come_in_the_order_of_the_shards_with_what_differs(comparison: Comparison, starting: Starting) -> None:
    there = {
        sample.key: sample.members
        for shard, _ in comparison.tasks
        for sample in samples_of(comparison.folder / shard.name)
    }
    started = starting({**there, "000001-000002": {**there["000001-000002"], "txt": b""}})
    found = list(rerender(comparison, InstanceOptions(1, 10.0), 2))
    assert [sample.key for sample in found] == sorted(there)
    assert [sample.key for sample in found if sample.differences] == ["000001-000002"]
    assert len(started) == 3
    assert all(instance.ended.is_set() for instance in started)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_kills_the_instances_at_once(
    comparison: Comparison, starting: Starting, sign: signal.Signals
) -> None:
    started, begun = starting(None), time.monotonic()
    threading.Timer(0.3, lambda: os.kill(os.getpid(), sign)).start()
    with pytest.raises(KeyboardInterrupt):
        list(rerender(comparison, InstanceOptions(1, 10.0), 2))
    assert time.monotonic() - begun < 1.5
    assert len(started) == 2
    assert all(instance.killed.is_set() and instance.ended.is_set() for instance in started)


def test_a_pipe_in_a_shards_place_is_not_waited_for(comparison: Comparison, starting: Starting) -> None:
    path = comparison.folder / comparison.tasks[0][0].name
    path.unlink()
    os.mkfifo(path)
    starting({})
    with pytest.raises(UsageError, match="is not a regular file"):
        list(rerender(comparison, InstanceOptions(1, 10.0), 1))
