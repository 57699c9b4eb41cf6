"""How often what fails is tried, and after which pauses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from compiler.errors import InstanceLost, JobBroken

LONGEST_BACKOFF_S = 30.0
_FIRST_BACKOFF_S = 0.5

OnPoison = Literal["fail", "skip"]


@dataclass(frozen=True)
class RetryPolicy:
    """How often an episode is tried, and what happens then."""

    attempts: int = 3
    """After this many tries an episode is poison."""
    on_poison: OnPoison = "fail"
    """What then happens to its shard: it is given up, or continues without the episode."""


def backoff_s(losses: int) -> float:
    """Return the pause after `losses` instances in a row that sent no sample: doubled each time, within bounds."""
    return min(_FIRST_BACKOFF_S * 2.0 ** min(losses - 1, 9), LONGEST_BACKOFF_S) if losses else 0.0


_MEMORY = re.compile(
    r"bad_alloc|out of (gpu )?memory|OUT_OF_MEMORY|[mc]alloc.* returns null|MemoryError|cannot allocate memory",
    re.IGNORECASE,
)
"""What the C++ library, Blender, Cycles' devices, Python and the system say when there is no memory left."""


def for_want_of_memory(loss: InstanceLost) -> bool:
    """Return whether the instance seems to have died because memory was short: Linux then sends SIGKILL."""
    return str(loss) == "died of SIGKILL" or any(_MEMORY.search(line) for line in (str(loss), *loss.log))


def memory_lost(error: JobBroken) -> InstanceLost | None:
    """Return the loss that a job's error is, where memory was short: alone it may succeed, unlike other errors."""
    return InstanceLost(f"ran out of memory: {error}", error.details) if _MEMORY.search(str(error)) else None
