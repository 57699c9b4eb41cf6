"""Where all randomness comes from: one independent stream for each episode, from the plan's seed alone."""

from __future__ import annotations

import random

import numpy as np


def episode_rng(seed: int, episode: int) -> np.random.Generator:
    """Return the generator that `Job.randomize` and `Job.step` draw from in this episode.

    `numpy.random.SeedSequence` keeps streams apart: seed 7 of episode 1 is not seed 8 of episode 0.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(episode,)))


def frame_seed(seed: int, episode: int, frame: int, camera: int = 0) -> int:
    """Return the renderer's noise seed (31 bits), another one in each frame so that no noise pattern repeats.

    Cameras count from 0; each but the first has a seed of its own, too.
    """
    word = frame % (1 << 32)  # frames may be negative, spawn keys may not
    key = (episode, word, camera) if camera else (episode, word)
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1)
    return int(state[0]) & 0x7FFFFFFF


def seed_global_generators(seed: int, episode: int) -> None:
    """Seed `random` and `numpy.random`: a safety net for jobs, or their libraries, that draw from them."""
    state = np.random.SeedSequence(seed, spawn_key=(episode, 0, 0)).generate_state(8)
    random.seed(int.from_bytes(state[:4].tobytes(), "little"))
    np.random.seed(state[4:])  # noqa: NPY002  (the legacy generator is the one to seed)
