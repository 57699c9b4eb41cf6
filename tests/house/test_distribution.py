"""The sdist and the wheel hold what they must; the metadata says the same everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.commands import run

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUBSET = [
    "tests/house/test_imports.py",
    "tests/house/test_docs.py::test_the_table_of_passes_is_that_of_the_code",
    "tests/compiler/test_verify.py::test_the_published_schemas_are_the_ones_that_are_used",
    "tests/house/test_readme.py::test_the_readme_names_every_command",
]
"""Quick tests that read what else the repository holds."""


def _build(what: str, source: Path, out: Path) -> Path:
    code = f"import sys; from setuptools import build_meta; build_meta.build_{what}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, out], cwd=source, check=True, capture_output=True)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, built in a copy: setuptools writes beside the sources."""
    ignored = shutil.ignore_patterns(
        ".git", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build", "venv", ".venv"
    )
    copy = Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "clone", ignore=ignored))
    return _build("sdist", copy, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the sdist, as `python -m build` makes it."""
    return _build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_every_file_of_the_repository(unpacked: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no clone")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert len(tracked) > 300
    packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert tracked - packed == set()
    made = {"PKG-INFO", "setup.cfg"}
    untracked = packed - tracked - made
    assert [name for name in untracked if "egg-info" not in name and not _is_new(name)] == []


def _is_new(name: str) -> bool:
    """Whether a file is in the working tree and not yet in Git: no fault of the sdist's."""
    return (ROOT / name).exists() and "__pycache__" not in name


@pytest.mark.slow
def test_tests_pass_in_an_unpacked_sdist(unpacked: Path) -> None:
    line = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *SUBSET]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 100
    assert "skipped" not in done.stdout


def test_the_wheel_holds_the_packages_their_types_and_the_examples(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    wanted = set()
    for package in ("blender_jobs", "compiler", "loaders"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")} | {f"{package}/py.typed"}
    examples = [path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*") if path.is_file()]
    wanted |= {f"compiler/_examples/{path.as_posix()}" for path in examples if "__pycache__" not in path.parts}
    assert held == wanted


def test_the_readme_in_the_metadata_has_no_link_that_an_index_cannot_follow(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    targets = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    repository = PROJECT["urls"]["Homepage"]
    for target in targets:
        ours = re.match(
            rf"{repository}/blob/main/([^#]*)|https://raw\.githubusercontent\.com/[^/]+/[^/]+/main/(.*)", target
        )
        assert not ours or (ROOT / (ours[1] or ours[2])).exists(), target


@pytest.mark.parametrize("place", ["clone", "wheel"])
def test_the_examples_are_listed_and_written_and_never_overwritten(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    environment = {}
    if place == "wheel":
        with zipfile.ZipFile(request.getfixturevalue("wheel")) as archive:
            archive.extractall(tmp_path / "site")
        environment = {"PYTHONPATH": str(tmp_path / "site")}
    listed = run("examples", env=environment, cwd=tmp_path)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert names == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    written = run("examples", "mine", env=environment, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    for line in written.stdout.splitlines():
        copy = tmp_path / line
        assert copy.read_bytes() == (ROOT / "examples" / copy.relative_to(tmp_path / "mine")).read_bytes()
    assert len(written.stdout.splitlines()) > len(names)
    (tmp_path / "mine" / names[0]).write_text("mine")
    (tmp_path / "mine" / names[-1]).unlink()
    again = run("examples", "mine", env=environment, cwd=tmp_path)
    assert again.returncode == 2
    assert re.fullmatch(r"Error: mine\S+ and \d+ more would be overwritten\nTry: name a new folder\n", again.stderr)
    assert (tmp_path / "mine" / names[0]).read_text() == "mine"
    assert not (tmp_path / "mine" / names[-1]).exists()


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    newest = re.search(r"^## (\d[\d.]*) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest
    assert newest[1] == PROJECT["version"]
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    assert f"repository-code: {PROJECT['urls']['Homepage']}\n" in citation


def test_the_documentation_tools_bring_no_torch() -> None:
    asked = " ".join(PROJECT["optional-dependencies"]["docs"])
    assert "mkdocs" in asked
    assert not re.search(r"torch|bpy|blendshard", asked)
