"""Coverage-guided fuzzing of one parser: ``pip install atheris``, then ``python -m tests.fuzz TARGET [SECONDS]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["blender_jobs", "compiler", "loaders"]):
    from tests.fuzz.seeds import SEEDS
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the time is up or something is found."""
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(SEEDS[name]):
            (Path(folder) / str(number)).write_bytes(content)
        atheris.Setup(["fuzz", folder, f"-max_total_time={seconds}", "-print_final_stats=1"], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
