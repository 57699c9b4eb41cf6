"""Where randomness comes from: the same numbers in every release, other numbers in every episode and frame."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs.seeds import episode_rng, frame_seed, seed_global_generators

_SEEDS = st.integers(0, 1 << 70)
_EPISODES = st.integers(0, 1 << 31)
_FRAMES = st.integers(-(1 << 20), 1 << 20)


def test_the_streams_stay() -> None:
    # A dataset is extended and repaired with the numbers that it was begun with.
    assert episode_rng(7, 3).bit_generator.random_raw(2).tolist() == [18120657278049907532, 1124353887512634286]
    assert [frame_seed(0, 0, 1), frame_seed(7, 3, 26), frame_seed(7, 3, -1)] == [1433790897, 1849815961, 1885290065]


@given(_SEEDS, _EPISODES)
def test_an_episode_draws_the_same_whatever_was_drawn_before(seed: int, episode: int) -> None:
    first = episode_rng(seed, episode)
    drawn = first.uniform(size=3).tolist()
    episode_rng(seed, episode + 1).uniform(size=5)
    assert episode_rng(seed, episode).uniform(size=3).tolist() == drawn
    assert first.uniform(size=3).tolist() != drawn


@given(st.lists(st.tuples(_SEEDS, _EPISODES), min_size=2, max_size=4, unique=True))
def test_no_two_episodes_of_any_seeds_share_a_stream(pairs: list[tuple[int, int]]) -> None:
    streams = {tuple(episode_rng(*pair).bit_generator.random_raw(2).tolist()) for pair in pairs}
    assert len(streams) == len(pairs)


def test_neighbouring_seeds_and_episodes_do_not_meet() -> None:
    # The classic mistake: seed + episode, where seed 7 of episode 1 is seed 8 of episode 0.
    states = {episode_rng(seed, episode).bit_generator.random_raw() for seed in range(30) for episode in range(30)}
    assert len(states) == 900


@given(_SEEDS, _EPISODES, _FRAMES)
def test_a_frames_noise_is_a_seed_that_blender_takes_and_not_the_next_ones(seed: int, episode: int, frame: int) -> None:
    one, other = frame_seed(seed, episode, frame), frame_seed(seed, episode, frame + 1)
    assert 0 <= one < 1 << 31
    assert one == frame_seed(seed, episode, frame)
    assert one != other


@pytest.fixture
def _kept_global_generators() -> object:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002


@pytest.mark.usefixtures("_kept_global_generators")
def test_even_the_global_generators_repeat() -> None:
    def draw(seed: int, episode: int) -> tuple[float, float]:
        seed_global_generators(seed, episode)
        return random.random(), np.random.rand()  # noqa: NPY002

    assert draw(7, 3) == (0.5129401518589226, 0.39840007247638154)
    drawn = {(seed, episode): draw(seed, episode) for seed in (0, 1) for episode in (0, 1)}
    assert drawn == {pair: draw(*pair) for pair in drawn}
    assert len({number for pair in drawn.values() for number in pair}) == 8
