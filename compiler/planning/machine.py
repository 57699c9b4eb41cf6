"""What of this machine may show in a dataset's pixels or numbers: the processor's model and vector instructions."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

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
