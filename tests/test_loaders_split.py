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

from loaders._shards.plans import Lane, Lanes, Share, Split, in_turns, taken_in_turns
from loaders._workers import resolve_rank

SIZES = st.integers(0, 60)
RANKS = st.integers(1, 4)
WORKERS = st.integers(1, 4)
BATCHES = st.integers(1, 5)
KEPT = st.sampled_from(["keep", "pad", "drop"])


def batches_of(plan: Split, workers: int = 1) -> list[list[int]]:
    """Return a rank's batches as a DataLoader gives them: its workers' in turns."""
    of_worker = [(list(range(*plan.span(number))) for number in range(w, len(plan), workers)) for w in range(workers)]
    return list(in_turns(of_worker))


def all_in_turns(plans: list[Split], workers: int = 1) -> list[int]:
    """Return the positions of all ranks' batches, taken in turns."""
    return [position for batch in in_turns([iter(batches_of(plan, workers)) for plan in plans]) for position in batch]


def plans_of(size: int, ranks: int, batch: int, start: int = 0, **options: object) -> list[Split]:
    remainder = options.pop("remainder", "keep")
    shares = [Share(rank, ranks, remainder) for rank in range(ranks)]  # type: ignore[arg-type]
    return [Split(0, size, share, batch, start, **options) for share in shares]  # type: ignore[arg-type]


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
        starts = {plan.seen_after(done) for plan in plans}
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
    order = list(in_turns([iter([place] * length) for place, length in enumerate(lengths)]))
    counts = Counter(order[:taken])
    assert taken_in_turns(lengths, taken) == [counts[place] for place in range(len(lengths))]


# Streams: a sample is (lane, number in the lane).


def lane_batches(plan: Lanes, lane: Lane) -> Iterator[list[tuple[int, int]]]:
    assert lane.length is not None
    for first in range(lane.seen, lane.length, plan.batch):
        numbers = range(first, min(first + plan.batch, lane.length))
        if len(numbers) == plan.batch or not plan.drop_last:
            yield [(lane.number, number) for number in numbers]


def rank_batches(plan: Lanes) -> list[list[tuple[int, int]]]:
    """Return a rank's batches as its workers read them and a DataLoader takes them."""
    workers = []
    for worker in range(plan.workers):
        batches = list(in_turns([lane_batches(plan, lane) for lane in plan.of_worker(worker)]))
        workers.append(iter(batches[: plan.quota(worker)]))
    return list(in_turns(workers))


@given(RANKS, WORKERS, BATCHES, st.booleans(), st.sampled_from(["keep", "drop"]), st.data())
def test_lanes_are_read_once_and_resumed_anywhere(
    ranks: int, workers: int, batch: int, drop_last: bool, remainder: str, data: st.DataObject
) -> None:
    number = data.draw(st.sampled_from([ranks * workers, 1, 5]))
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=number, max_size=number))
    share = Share(0, ranks, remainder)  # type: ignore[arg-type]
    lanes = tuple(Lane(number, 0, length) for number, length in enumerate(lengths))
    plan = Lanes(0, lanes, share, workers, batch, drop_last)
    plans = [replace(plan, share=replace(share, rank=rank)) for rank in range(ranks)]
    given_out = [rank_batches(one) for one in plans]
    assert [len(batches) for batches in given_out] == [len(one) for one in plans]
    if remainder == "drop":
        assert len({len(one) for one in plans}) == 1, "ranks have equally many batches"
    elif not drop_last:
        samples = [sample for batches in given_out for batch in batches for sample in batch]
        assert sorted(samples) == [(lane, number) for lane, length in enumerate(lengths) for number in range(length)]

    done = data.draw(st.integers(0, max(map(len, given_out))))
    counts = Counter(lane for batches in given_out for some in batches[:done] for lane, _ in some)
    seen = {tuple(one.seen_after(done)) for one in plans}
    assert len(seen) == 1, "any rank's state tells of all lanes"
    state = seen.pop()
    assert dict(state) == {lane: counts[lane] for lane in range(len(lengths))}

    now = Share(0, data.draw(RANKS))
    left = tuple(Lane(number, done, lengths[number]) for number, done in state)
    if len(lengths) == ranks * workers:
        same = [rank_batches(replace(one, lanes=left)) for one in plans]
        assert same == [batches[done:] for batches in given_out], "as many workers go on in the same order"
    later = Lanes(0, left, now, data.draw(WORKERS), data.draw(BATCHES))
    rest = [rank_batches(replace(later, share=replace(now, rank=rank))) for rank in range(now.ranks)]
    for lane, length in enumerate(lengths):
        tail = [number for batches in rest for some in batches for of, number in some if of == lane]
        assert tail == list(range(counts[lane], length)), "each lane goes on in order"


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
