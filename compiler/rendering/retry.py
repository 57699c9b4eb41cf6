"""How often what fails is tried, and after which pauses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LONGEST_BACKOFF_S = 30.0
_FIRST_BACKOFF_S = 0.5

OnPoison = Literal["fail", "skip"]


@dataclass(frozen=True)
class RetryPolicy:
    """How often an episode is tried, and what happens then."""

    attempts: int = 3
    """After so many an episode is poison."""
    on_poison: OnPoison = "fail"
    """What then becomes of its shard: it is given up, or goes on without the episode."""


def backoff_s(losses: int) -> float:
    """Return the pause after so many instances in a row that gave no sample: doubled each time, within bounds."""
    return min(_FIRST_BACKOFF_S * 2.0 ** min(losses - 1, 9), LONGEST_BACKOFF_S) if losses else 0.0
