"""The rendering path holds nothing that differs from run to run, and the check for it finds what does."""

from __future__ import annotations

from pathlib import Path

import pytest

from blender_jobs._worker.lint import offences

ROOT = Path(__file__).resolve().parents[2]
PATH = [
    *sorted((ROOT / "blender_jobs").rglob("*.py")),
    *(ROOT / "compiler" / "planning" / name for name in ("plan.py", "schemas.py")),
    *(ROOT / "compiler" / "storage" / name for name in ("journal.py", "writer.py")),
    *(ROOT / "loaders" / name for name in ("content.py", "format.py", "tarstream.py")),
]
"""All that makes a shard's bytes."""

ALLOWED = {
    "seeds.py": {"imports random", "numpy.random.seed"},  # seeds the global generators, a safety net for jobs
}


@pytest.mark.parametrize("path", PATH, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_rendering_path_asks_no_clock_and_no_chance(path: Path) -> None:
    allowed = ALLOWED.get(path.name, set())
    found = [offence for offence in offences(path.read_text()) if offence.what.split(":")[0] not in allowed]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import uuid as u",
        "from datetime import datetime",
        "from random import choice",
        "x = np.random.rand(3)",
        "x = numpy.random.randint(3)",
        "rng = np.random.default_rng()",
        "x = hash('name')",
        "x = id(obj) % 7",
        "x = os.urandom(4)",
        "for file in folder.iterdir(): print(file)",
        "files = [f for f in os.listdir('.')]",
        "files = list(Path('hdris').glob('*.hdr'))",
        "for name in {'a', 'b'}: print(name)",
        "names = list(set(names))",
        "x = [n for n in {a for a in b}]",
        "x = ', '.join({'a', 'b'})",
        "chosen = set(names)\nfor name in chosen: print(name)",
    ],
)
def test_what_differs_from_run_to_run_is_found(line: str) -> None:
    assert offences(line)


@pytest.mark.parametrize(
    "line",
    [
        "rng = np.random.default_rng(seed)",
        "rng = np.random.Generator(np.random.PCG64(seed))",
        "for file in sorted(folder.iterdir()): print(file)",
        "files = sorted(f.name for f in Path('hdris').glob('*.hdr'))",
        "for name in sorted({'a', 'b'}): print(name)",
        "count = len(set(names))",
        "found = {n for n in {a for a in b}}",
        "chosen = set(names)\nif name in chosen: print(name)",
        "names = ['a']\nfor name in names: print(name)",
        "x = rng.uniform(0, 1)",
        "this is no Python",
    ],
)
def test_what_does_not_is_left_alone(line: str) -> None:
    assert offences(line) == []
