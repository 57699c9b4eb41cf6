"""Hints on what to install name a command that works from where the user is: a clone, a wheel, an index."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from blender_jobs.orders import Hello
from compiler.blender.process import _explain_import
from loaders import installing

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import loaders; loaders.ShardDataset"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip needs of this repository, in a folder with a blank in its name."""
    copy = tmp_path_factory.mktemp("my projects") / "blendshard"
    for name in ("blender_jobs", "compiler", "loaders", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([*PIP, "wheel", "-q", *OFFLINE, "-w", folder, clone], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(params=["clone", "wheel"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What stands on Python's path of an installation."""
    if request.param == "clone":
        return Path(request.getfixturevalue("clone"))
    subprocess.run(
        [*PIP, "install", "-q", *OFFLINE, "--target", tmp_path, request.getfixturevalue("wheel")], check=True
    )
    return tmp_path


def test_what_needs_torch_says_which_extra_brings_it_by_a_command_that_works(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    line = [sys.executable, "-c", WITHOUT_TORCH]
    env = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(line, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("ModuleNotFoundError: loaders.ShardDataset needs torch, part of the extra 'loaders'; try")
    words = shlex.split(said.partition("; try: ")[2])
    assert words[:2] == ["pip", "install"]
    assert words[-1].endswith("[loaders]")
    tried = [*PIP, *words[1:], *OFFLINE, "--dry-run"]
    again = subprocess.run(tried, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({}, 'pip install "blendshard[loaders]"'),
        ({"url": "file:///gone/b-1.whl", "archive_info": {}}, f'pip install "{Path("path/to/b-1.whl")}[loaders]"'),
        ({"url": "https://host/b.whl", "archive_info": {}}, 'pip install "blendshard[loaders] @ https://host/b.whl"'),
        (
            {"url": "https://host/b.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            'pip install "blendshard[loaders] @ git+https://host/b.git@c0ffee"',
        ),
    ],
)
def test_other_origins(
    origin: dict[str, object], command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installing, "__file__", str(tmp_path / "loaders" / "installing.py"))
    monkeypatch.setattr(installing, "_origin", lambda: origin)
    assert installing.install_command("loaders") == command


def test_no_hint_and_no_page_names_an_index_that_the_distribution_may_not_be_in() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    sources = [path for name in ("blender_jobs", "compiler", "loaders") for path in (ROOT / name).rglob("*.py")]
    assert len(sources) > 100
    named = [path for path in [*pages, *sources] if re.search(r"install ['\"]?blendshard", path.read_text("utf-8"))]
    assert named == []


def test_without_the_wheel_of_bpy_the_hint_names_the_extra_for_any_python() -> None:
    for python in ("3.11.2", "3.12.1"):
        _, hint = _explain_import(Hello("", "", "", python, "", "", problem="No module named 'bpy'"), None)
        assert installing.install_command("blender") in hint


def test_there_is_one_build_of_blender_for_each_python_and_it_is_the_tested_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = re.findall(r"^(bpy==[\d.]+); python_version == '([\d.]+)'", "\n".join(extras["blender"]), re.M)
    assert len(asked) == len(extras["blender"]) == 2
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert asked == re.findall(r'^(bpy==[\d.]+); python_version == "([\d.]+)"', constraints, re.M)
