"""A pytest plugin: tests read and write in folders of their own, and one that leaves anything elsewhere fails.

The tests run in an empty folder, wherever they are started: what lies there, datasets as a rule, is never read by a
relative path, and what a test writes by one is found. `tests.conftest` loads this; so can ``pytest -p``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_CACHES = {"__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
"""What Python and the tools keep for themselves."""


@pytest.fixture(scope="session", autouse=True)
def _working_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run all tests in an empty folder."""
    empty = tmp_path_factory.mktemp("working_directory")
    os.chdir(empty)
    yield empty
    os.chdir(request.config.invocation_params.dir)


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest, _working_directory: Path) -> Iterator[None]:
    """Fail a test that leaves anything in the working directory, where pytest was started, or in the repository."""
    started_in = Path(request.config.invocation_params.dir)
    before = _around(started_in)
    yield
    left = sorted(_around(started_in) - before)
    left += sorted(_names(_working_directory, deep=False))
    for path in _working_directory.iterdir():  # the next test is not to blame
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if left:
        pytest.fail(f"left behind: {', '.join(left)}; write to tmp_path", pytrace=False)


def _around(started_in: Path) -> set[str]:
    """Return what is in the repository and in the folder in which pytest was started."""
    found = _names(ROOT, deep=True)
    if started_in.resolve() != Path(tempfile.gettempdir()).resolve():  # in which every program has its files
        found |= _names(started_in, deep=False)
    return found


def _names(folder: Path, deep: bool) -> set[str]:
    """Return the paths of what is in a folder; `deep`: below it, too, but in no folder that is not ours."""
    found: set[str] = set()
    _gather(str(folder), _listed(str(folder)), deep, found)
    return found


def _gather(folder: str, entries: dict[str, bool], deep: bool, found: set[str]) -> None:
    for name, is_folder in entries.items():
        path = f"{folder}/{name}"
        found.add(path)
        if deep and is_folder and name != ".git":
            below = _listed(path)
            if not _FOREIGN & below.keys():
                _gather(path, below, deep, found)


_FOREIGN = {"pyvenv.cfg", "dataset.json"}
"""What a virtual environment or a dataset has: thousands of files that no test knows of."""

_LISTINGS: dict[str, tuple[int, dict[str, bool]]] = {}
"""When a folder last changed, and what it held then: this runs twice for each of thousands of tests."""


def _listed(folder: str) -> dict[str, bool]:
    """Return the names in a folder, and whether they are folders."""
    changed = Path(folder).stat().st_mtime_ns
    if folder in _LISTINGS and _LISTINGS[folder][0] == changed:
        return _LISTINGS[folder][1]
    with os.scandir(folder) as entries:
        found = {
            entry.name: entry.is_dir(follow_symlinks=False)
            for entry in entries
            if entry.name not in _CACHES and not entry.name.endswith(".egg-info")
        }
    if time.time_ns() - changed > 2_000_000_000:  # else it may change again within one tick of the file system's clock
        _LISTINGS[folder] = (changed, found)
    return found
