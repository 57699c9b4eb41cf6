"""What users may import: `__all__` lists it, the reference shows it, and examples and pages use nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts import house
from tests.pages import PAGES, ROOT, blocks

REFERENCE = [ROOT / "docs" / "reference" / name for name in ("job-api.md", "loaders-api.md")]


@pytest.fixture(scope="module")
def tree() -> house.Tree:
    paths = [path for package in house.PACKAGES for path in (ROOT / package).rglob("*.py")]
    return house.Tree({path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths})


@pytest.fixture(scope="module")
def face(tree: house.Tree) -> dict[str, set[str]]:
    """The names that each module of the face lists."""
    found: dict[str, set[str]] = {}
    for full in tree.listed():
        module, _, name = full.rpartition(".")
        found.setdefault(module, set()).add(name)
    return found


def _documented() -> list[str]:
    """Return the modules that the reference shows."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    return re.findall(r"^::: (\S+)$", text, re.M)


def test_the_reference_shows_what_is_listed(face: dict[str, set[str]]) -> None:
    assert len(face) > 10
    assert sorted(_documented()) == sorted(face)


def test_what_is_listed_is_there_and_says_what_it_is(tree: house.Tree, face: dict[str, set[str]]) -> None:
    for module, names in face.items():
        assert names
        nodes = {getattr(node, "name", ""): node for node in tree.modules[module].tree.body}
        for name in names & nodes.keys():
            node = nodes[name]
            assert isinstance(node, ast.FunctionDef | ast.ClassDef)
            assert ast.get_docstring(node), f"{module}.{name}"
        if module.startswith("blender_jobs"):
            assert names <= {*house.defined(tree.modules[module])}, module


USERS = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "blender_jobs" / "builtin").glob("*.py")]


@pytest.mark.parametrize("path", [*USERS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_and_pages_use_the_face_alone(path: Path, face: dict[str, set[str]]) -> None:
    name = str(path.relative_to(ROOT))
    codes = [path.read_text(encoding="utf-8")] if path.suffix == ".py" else _python(name)
    for code in codes:
        used = set(_used(ast.parse(code)))
        assert [f"{module}.{inner}" for module, inner in used if inner not in face.get(module, ())] == []


def _python(page: str) -> list[str]:
    return [block.text for block in blocks(page, "python")]


def _used(code: ast.Module) -> list[tuple[str, str]]:
    """Return each name of ours that the code uses, with its module."""
    modules: dict[str, str] = {}
    found = []
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.module == "blender_jobs":
            modules |= {alias.asname or alias.name: f"blender_jobs.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in house.PACKAGES:
            found += [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            modules |= {alias.name: alias.name for alias in node.names if alias.name in ("compiler", "loaders")}
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.append((modules[node.value.id], node.attr))
    return found
