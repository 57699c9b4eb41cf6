"""What of this machine may show in a dataset's pixels or numbers: the processor's model and vector instructions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_MOST_INSTANCES = 16
"""What automatic choice does not exceed; each instance holds 300 to 500 MB."""

_FEWEST_THREADS = 2
"""With a single render thread, Cycles' main thread spins while it waits: a tenth to a third of the time is lost."""

_FEATURES = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "asimd", "sve")
"""By these Cycles and numpy choose among their kernels; Linux's names."""


def processor() -> dict[str, Any]:
    """Return ``model``, and ``features``: which of the vector instructions that renderers choose by it has.

    Where the system does not tell (it does on Linux), the features are an empty list.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first = text.split("\n\n")[0].splitlines()
    facts = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in first) if colon}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    model = facts.get("model name") or platform.processor() or platform.machine()
    return {"model": model, "features": [name for name in _FEATURES if name in flags]}


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(instances: int, shards: int) -> tuple[int, int]:
    """Return how many instances to run (0: choose) for `shards` shards (0: no end), and how many threads each gets."""
    instances = instances or min(cores(), _MOST_INSTANCES)
    if shards:
        instances = min(instances, shards)
    return instances, max(_FEWEST_THREADS, cores() // instances)
