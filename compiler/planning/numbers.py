"""The numbers by which a plan counts, held to what the command line takes: those of a manifest come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_SAMPLES_PER_SHARD = 1_000_000


def check_numbers(plan: Mapping[str, Any]) -> None:
    """Check a manifest's plan before anything is counted by it.

    Args:
        plan: as `compiler.planning.plan.Plan.identity` gives it.

    Raises:
        ValueError: the seed, the samples of a shard or the frames are none that a plan can have; one line.
    """
    seed, per_shard = plan.get("seed"), plan.get("samples_per_shard")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}, not a whole number from 0")
    if type(per_shard) is not int or not 1 <= per_shard <= MOST_SAMPLES_PER_SHARD:
        raise ValueError(f"samples_per_shard is {per_shard!r}, not a whole number from 1 to {MOST_SAMPLES_PER_SHARD}")
    job = plan.get("job")
    frames = job.get("frames") if isinstance(job, Mapping) else None
    if not isinstance(frames, list) or not frames or any(type(frame) is not int for frame in frames):
        raise ValueError("job.frames is not a list of whole numbers")
