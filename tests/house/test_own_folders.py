"""The tests can be started anywhere, also in a folder full of datasets, and leave nothing there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own_folders import ROOT
from tests.planned_dataset import make

SAMPLE = [
    "end_to_end/test_build.py::test_config_file_and_command_line_mean_the_same",
    "end_to_end/test_build.py::test_dry_run_writes_nothing",
    "compiler/test_mistakes.py::test_a_wrong_configuration_names_its_key",
    "house/test_loaders_docs.py",
    "house/test_readme.py::test_links_of_the_pages_lead_somewhere",
    "blender_jobs/test_seeds.py",
    "compiler/test_show.py::test_a_user_who_asks_for_columns_and_a_width_gets_them",
]
"""Tests that name datasets by relative paths, or none; that draw examples; that write files."""

STRAYS = """
import os
from pathlib import Path

ROOT = {root!r}

def test_keeps_to_its_folder(tmp_path):
    (tmp_path / "file").touch()

def test_leaves_a_file_where_it_runs():
    Path("stray").touch()

def test_leaves_a_folder_where_it_was_started():
    Path({started!r}, "folder").mkdir()

def test_is_not_blamed_for_another():
    assert os.listdir() == []
"""


def pytest_in(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow
def test_a_sample_of_the_suite_passes_in_a_folder_full_of_datasets(tmp_path: Path) -> None:
    for name in ("falling_cubes", "cube", "dominoes", "job", "small", "out"):
        make(tmp_path / name)
    before = contents(tmp_path)
    done = pytest_in(tmp_path, *(ROOT / "tests" / test for test in SAMPLE))
    assert done.returncode == 0, done.stdout
    assert contents(tmp_path) == before


def test_a_test_that_leaves_something_fails_and_is_named(tmp_path: Path) -> None:
    started, tests = tmp_path / "started", tmp_path / "tests"
    started.mkdir()
    tests.mkdir()
    (tests / "test_strays.py").write_text(STRAYS.format(root=str(ROOT), started=str(started)))
    done = pytest_in(started, "-p", "tests.own_folders", "-rE", tests / "test_strays.py")
    assert "4 passed, 2 errors" in done.stdout
    assert "ERROR at teardown of test_leaves_a_file_where_it_runs" in done.stdout
    assert "ERROR at teardown of test_leaves_a_folder_where_it_was_started" in done.stdout
    assert "working_directory0/stray; write to tmp_path" in done.stdout
    assert f"left behind: {started / 'folder'}; write to tmp_path" in done.stdout


def test_the_repository_is_watched_below_its_folders_too(tmp_path: Path) -> None:
    """A copy of the plugin takes the folder above its own for the repository."""
    for folder in ("tests", "docs/images"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests" / "own_folders.py").write_text((ROOT / "tests" / "own_folders.py").read_text())
    touch = "(Path(__file__).parents[1] / 'docs/images/new.png').touch()"
    stray = f"from pathlib import Path\n\ndef test_draws():\n    {touch}\n"
    (tmp_path / "tests" / "test_draws.py").write_text(stray)
    (tmp_path / "tests" / "conftest.py").write_text(
        "from own_folders import *\nfrom own_folders import _nothing_is_left, _working_directory\n"
    )
    done = pytest_in(tmp_path, "tests")
    assert f"left behind: {tmp_path / 'docs/images/new.png'}" in done.stdout
