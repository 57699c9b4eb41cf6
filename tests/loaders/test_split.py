"""Who gets which samples: exactly once or equally many, resumed anywhere by any number of ranks and workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from loaders._shards.plans import IndexedPlan, Partition, Share, StreamedPlan, round_robin, round_robin_counts
from loaders._workers import resolve_rank

SIZES = st.integers(0, 60)
RANKS = st.integers(1, 4)
WORKERS = st.integers(1, 4)
BATCHES = st.integers(1, 5)
KEPT = st.sampled_from(["keep", "pad", "drop"])


def batches_of(plan: IndexedPlan, workers: int = 1) -> list[list[int]]:
    """Return a rank's batches as a DataLoader gives them: its workers' in turns."""
    of_worker = [(list(range(*plan.span(number))) for number in range(w, len(plan), workers)) for w in range(workers)]
    return list(round_robin(of_worker))


def all_in_turns(plans: list[IndexedPlan], workers: int = 1) -> list[int]:
    """Return the positions of all ranks' batches, taken in turns."""
    return [
        position for batch in round_robin([iter(batches_of(plan, workers)) for plan in plans]) for position in batch
    ]


def plans_of(size: int, ranks: int, batch: int, start: int = 0, **options: object) -> list[IndexedPlan]:
    remainder = options.pop("remainder", "keep")
    shares = [Share(rank, ranks, remainder) for rank in range(ranks)]  # type: ignore[arg-type]
    return [IndexedPlan(0, size, share, batch, start, **options) for share in shares]  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@given(size=SIZES, batch=BATCHES)
def test_every_position_comes_once_and_in_order(ranks: int, workers: int, size: int, batch: int) -> None:
    assert all_in_turns(plans_of(size, ranks, batch), workers) == list(range(size))


@given(SIZES, RANKS, BATCHES, st.data())
def test_any_number_of_ranks_goes_on_where_others_were(size: int, ranks: int, batch: int, data: st.DataObject) -> None:
    plans = plans_of(size, ranks, batch)
    for done in range(len(plans[0]) + 1):
        seen = [
            position
            for plan in plans
            for number in range(min(done, len(plan)))
            for position in batches_of(plan)[number]
        ]
        starts = {plan.progress_after(done) for plan in plans}
        assert len(starts) == 1, "all ranks save the same state"
        start = starts.pop()
        assert sorted(seen) == list(range(start))
        later = plans_of(size, data.draw(RANKS), data.draw(BATCHES), start)
        assert all_in_turns(later, data.draw(WORKERS)) == list(range(start, size))


@given(SIZES, RANKS, BATCHES, st.integers(0, 60), st.sampled_from(["pad", "drop"]))
def test_ranks_are_equal_in_number(size: int, ranks: int, batch: int, start: int, remainder: str) -> None:
    plans = plans_of(size, ranks, batch, min(start, size), remainder=remainder)
    shapes = {tuple(map(len, batches_of(plan))) for plan in plans}
    assert len(shapes) == 1, "batch by batch"
    positions = all_in_turns(plans)
    whole = range(min(start, size), size)
    short = -len(whole) % ranks if remainder == "pad" else -(len(whole) % ranks)
    assert positions == list(range(whole.start, size + short))


@given(SIZES, RANKS, BATCHES, KEPT)
def test_drop_last_leaves_full_batches_equal_in_number(size: int, ranks: int, batch: int, remainder: str) -> None:
    plans = plans_of(size, ranks, batch, remainder=remainder, drop_last=True)
    assert all_in_turns(plans) == list(range(size - size % (ranks * batch)))


@given(st.lists(st.integers(0, 9), max_size=6), st.data())
def test_turns_are_counted_as_they_are_taken(lengths: list[int], data: st.DataObject) -> None:
    taken = data.draw(st.integers(0, sum(lengths)))
    order = list(round_robin([iter([place] * length) for place, length in enumerate(lengths)]))
    counts = Counter(order[:taken])
    assert round_robin_counts(lengths, taken) == [counts[place] for place in range(len(lengths))]


# Streams: a sample is (partition, number in the partition).


def partition_batches(plan: StreamedPlan, partition: Partition) -> Iterator[list[tuple[int, int]]]:
    assert partition.length is not None
    for first in range(partition.seen, partition.length, plan.batch):
        numbers = range(first, min(first + plan.batch, partition.length))
        if len(numbers) == plan.batch or not plan.drop_last:
            yield [(partition.number, number) for number in numbers]


def rank_batches(plan: StreamedPlan) -> list[list[tuple[int, int]]]:
    """Return a rank's batches as its workers read them and a DataLoader takes them."""
    workers = []
    for worker in range(plan.workers):
        batches = list(round_robin([partition_batches(plan, partition) for partition in plan.of_worker(worker)]))
        workers.append(iter(batches[: plan.quota(worker)]))
    return list(round_robin(workers))


@given(RANKS, WORKERS, BATCHES, st.booleans(), st.sampled_from(["keep", "drop"]), st.data())
def test_lanes_are_read_once_and_resumed_anywhere(
    ranks: int, workers: int, batch: int, drop_last: bool, remainder: str, data: st.DataObject
) -> None:
    number = data.draw(st.sampled_from([ranks * workers, 1, 5]))
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=number, max_size=number))
    share = Share(0, ranks, remainder)  # type: ignore[arg-type]
    partitions = tuple(Partition(number, 0, length) for number, length in enumerate(lengths))
    plan = StreamedPlan(0, partitions, share, workers, batch, drop_last)
    plans = [replace(plan, share=replace(share, rank=rank)) for rank in range(ranks)]
    given_out = [rank_batches(one) for one in plans]
    assert [len(batches) for batches in given_out] == [len(one) for one in plans]
    if remainder == "drop":
        assert len({len(one) for one in plans}) == 1, "ranks have equally many batches"
    elif not drop_last:
        samples = [sample for batches in given_out for batch in batches for sample in batch]
        assert sorted(samples) == [
            (partition, number) for partition, length in enumerate(lengths) for number in range(length)
        ]

    done = data.draw(st.integers(0, max(map(len, given_out))))
    counts = Counter(partition for batches in given_out for some in batches[:done] for partition, _ in some)
    seen = {tuple(one.progress_after(done)) for one in plans}
    assert len(seen) == 1, "any rank's state tells of all partitions"
    state = seen.pop()
    assert dict(state) == {partition: counts[partition] for partition in range(len(lengths))}

    now = Share(0, data.draw(RANKS))
    left = tuple(Partition(number, done, lengths[number]) for number, done in state)
    if len(lengths) == ranks * workers:
        same = [rank_batches(replace(one, partitions=left)) for one in plans]
        assert same == [batches[done:] for batches in given_out], "as many workers go on in the same order"
    later = StreamedPlan(0, left, now, data.draw(WORKERS), data.draw(BATCHES))
    rest = [rank_batches(replace(later, share=replace(now, rank=rank))) for rank in range(now.ranks)]
    for partition, length in enumerate(lengths):
        tail = [number for batches in rest for some in batches for of, number in some if of == partition]
        assert tail == list(range(counts[partition], length)), "each partition goes on in order"


def test_the_rank_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert resolve_rank() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_rank() == (2, 4)
    assert resolve_rank(1, 3) == (1, 3)
    with pytest.raises(ValueError, match="both rank and world_size"):
        resolve_rank(rank=1)
    with pytest.raises(ValueError, match="rank 3 is not one of 3"):
        Share(3, 3)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="RANK=first WORLD_SIZE=4 are not numbers"):
        resolve_rank()


def test_torch_distributed_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert resolve_rank() == (0, 1)
    finally:
        dist.destroy_process_group()
