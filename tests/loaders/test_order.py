"""The order of an epoch: a permutation that can be entered anywhere and never changes between versions."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loaders._shards.order import EpochOrder, ShuffleBuffer, permute, round_keys, shuffled

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(sum)
SEEDS = st.integers(-(2**70), 2**70)


def whole_epoch(order: EpochOrder, epoch: int) -> list[int]:
    numbers: list[int] = order.at(epoch, np.arange(order.size)).tolist()
    return numbers


@given(COUNTS, SEEDS, st.integers(0, 10**6), st.none() | st.integers(1, 14))
def test_an_epoch_gives_every_sample_once(counts: list[int], seed: int, epoch: int, window: int | None) -> None:
    order = EpochOrder(counts, seed=seed, window=window)
    assert sorted(whole_epoch(order, epoch)) == list(range(sum(counts)))


@given(COUNTS, SEEDS, st.none() | st.integers(1, 14), st.data())
def test_any_position_can_be_asked_for_alone(
    counts: list[int], seed: int, window: int | None, data: st.DataObject
) -> None:
    order = EpochOrder(counts, seed=seed, window=window)
    positions = data.draw(st.lists(st.integers(0, order.size - 1), max_size=20))
    asked = pickle.loads(pickle.dumps(order)).at(3, np.array(positions, np.int64)).tolist()
    assert asked == [whole_epoch(order, 3)[position] for position in positions]


def test_ten_million_samples_are_permuted_without_a_table() -> None:
    keys = round_keys(0, 0, "samples")
    positions = np.arange(9_999_000, 10_000_000)
    numbers = permute(positions, 10_000_000, keys)
    assert len(set(numbers.tolist())) == 1000
    assert 0 <= numbers.min() < 200_000, "drawn from the whole range"
    assert 9_800_000 < numbers.max() < 10_000_000


def test_the_order_is_the_same_in_every_version() -> None:
    # A state saved today is a position in this order: these numbers must never change.
    order = EpochOrder([5, 4, 3], seed=7)
    assert whole_epoch(order, 0) == ORDER_OF_12
    assert whole_epoch(EpochOrder([5, 4, 3], seed=7, window=2), 0) == ORDER_OF_12_BY_TWO_SHARDS
    assert list(shuffled(zip(range(12), range(12), strict=True), ShuffleBuffer(8, 7).time)) == STREAM_OF_12


ORDER_OF_12 = [2, 10, 6, 3, 9, 11, 8, 1, 7, 0, 4, 5]
ORDER_OF_12_BY_TWO_SHARDS = [11, 5, 6, 10, 9, 8, 7, 0, 3, 2, 4, 1]
STREAM_OF_12 = [0, 2, 3, 1, 8, 4, 9, 5, 6, 10, 11, 7]


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(whole_epoch(EpochOrder([40], seed=seed), epoch)) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64, "nor is seed 1, epoch 0 the same as seed 0, epoch 1"


def test_without_shuffle_samples_come_as_they_lie() -> None:
    assert whole_epoch(EpochOrder([3, 4], seed=1, shuffle=False), 5) == list(range(7))


def test_all_permutations_of_a_handful_are_equally_likely() -> None:
    counts = Counter(tuple(permute(np.arange(5), 5, round_keys(seed)).tolist()) for seed in range(6000))
    assert len(counts) == 120
    chi2 = sum((count - 50) ** 2 / 50 for count in counts.values())
    assert chi2 < 119 + 5 * math.sqrt(2 * 119), "five standard deviations above what chance gives"


@given(COUNTS, SEEDS, st.integers(1, 14))
def test_a_window_reads_few_shards_at_a_time(counts: list[int], seed: int, window: int) -> None:
    order = EpochOrder(counts, seed=seed, window=window)
    shard_of = np.repeat(np.arange(len(counts)), counts)
    visits = shard_of[whole_epoch(order, 0)].tolist()
    first = {shard: visits.index(shard) for shard in set(visits)}
    last = {shard: len(visits) - 1 - visits[::-1].index(shard) for shard in set(visits)}
    opened = [sum(first[shard] <= place <= last[shard] for shard in first) for place in range(len(visits))]
    assert max(opened) <= window


@given(st.integers(0, 300), st.integers(0, 40), SEEDS)
def test_a_stream_is_mixed_within_its_buffer(length: int, buffer: int, seed: int) -> None:
    delays = ShuffleBuffer(buffer, seed)
    held, most = 0, 0

    def stream() -> Iterator[tuple[int, int]]:
        nonlocal held, most
        for number in range(length):
            held += 1
            most = max(most, held)
            yield number, number

    given_out = []
    for number in shuffled(stream(), delays.time):
        held -= 1
        given_out.append(number)
    assert sorted(given_out) == list(range(length))
    assert most <= buffer + 1, "no more is held than the buffer's size and the one just read"
    for count in range(0, length + 1, 7):
        assert sorted(given_out[:count]) == delays.seen(length, count).nonzero()[0].tolist(), "known without reading"


def test_a_streams_buffer_mixes() -> None:
    given_out = list(shuffled(((number, number) for number in range(1000)), ShuffleBuffer(100, 0).time))
    moved = [abs(place - number) for place, number in enumerate(given_out)]
    assert 20 < sum(moved) / 1000 < 50
