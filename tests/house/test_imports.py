"""The house's imports run one way: held by reading the sources, and by what fresh interpreters load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"blender_jobs", "compiler", "loaders"}
BLENDER = {"bmesh", "bpy", "gpu", "mathutils"}

CONTRACTS = {
    "blender_jobs.orders",
    "blender_jobs.passes",
    "blender_jobs.seeds",
    "blender_jobs.wire",
    "loaders.children",
    "loaders.content",
    "loaders.errors",
    "loaders.files",
    "loaders.format",
    "loaders.installing",
    "loaders.layout",
    "loaders.manifest",
    "loaders.tarstream",
}
"""What the host shares with the two other sides: modules that load neither bpy nor torch."""

STDLIB_3_10 = sys.stdlib_module_names - {"tomllib"}
"""The standard library as the oldest Blender in use has it."""


def sources(*folders: str) -> list[Path]:
    """Return the Python files below `folders`, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def source_of(module: str) -> Path:
    """Return where the source of a module of ours is, relative to the root."""
    path = Path(*module.split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def imported(source: str) -> set[str]:
    """Return the full names of all modules that `source` imports, anywhere in it."""
    return {name for node in ast.walk(ast.parse(source)) for name in _imported_by(node)}


def _imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: imports are absolute in this house"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if (ROOT / source_of(name)).is_file() else str(node.module)


def imported_by_file(path: Path) -> set[str]:
    """Return the full names of all modules that the file imports."""
    return imported((ROOT / path).read_text(encoding="utf-8"))


def roots(modules: set[str]) -> set[str]:
    """Return the top-level packages of `modules`."""
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("import numpy.random, os", {"numpy.random", "os"}),
        ("from blender_jobs import orders", {"blender_jobs.orders"}),
        ("from blender_jobs.orders import Render", {"blender_jobs.orders"}),
        ("def late():\n    import torch", {"torch"}),
    ],
)
def test_the_reader_sees_every_form_of_import(line: str, modules: set[str]) -> None:
    # A reader that overlooks imports would let all the tests below pass.
    assert imported(line) == modules


@pytest.mark.parametrize("path", sources("blender_jobs"), ids=str)
def test_blender_jobs_needs_blender_alone(path: Path) -> None:
    allowed = BLENDER | {"blender_jobs", "numpy"} | STDLIB_3_10
    assert roots(imported_by_file(path)) <= allowed


@pytest.mark.parametrize("path", sources("blender_jobs"), ids=str)
def test_blender_jobs_is_written_in_the_python_of_the_oldest_blender(path: Path) -> None:
    ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


@pytest.mark.parametrize("path", sources("blender_jobs"), ids=str)
def test_bpy_is_imported_before_what_comes_with_it(path: Path) -> None:
    """`bmesh`, `gpu` and `mathutils` can be imported once `bpy` is: a job may import our modules before it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    order = [root for node in tree.body for root in sorted(roots(set(_imported_by(node)))) if root in BLENDER]
    assert order[:1] in ([], ["bpy"])


@pytest.mark.parametrize("path", sources("loaders"), ids=str)
def test_loaders_stand_alone(path: Path) -> None:
    assert roots(imported_by_file(path)) & (OURS | BLENDER) <= {"loaders"}


@pytest.mark.parametrize("path", sources("compiler"), ids=str)
def test_the_compiler_imports_the_contracts_alone(path: Path) -> None:
    modules = imported_by_file(path)
    assert {module for module in modules if roots({module}) & (OURS - {"compiler"})} <= CONTRACTS
    assert not roots(modules) & (BLENDER | {"torch", "webdataset"})


@pytest.mark.parametrize("level", [2, 9], ids=["folders", "modules"])
@pytest.mark.parametrize("package", sorted(OURS))
def test_what_is_in_a_package_is_built_up_in_one_direction(package: str, level: int) -> None:
    """Modules and folders of a package, and all of its modules: none needs itself by way of others.

    An import inside a function is a need like any other. What only type checkers read is none.
    """
    needs = _needs({path: (ROOT / path).read_text(encoding="utf-8") for path in sources(package)}, level)
    for part in needs:
        assert part not in _reached(part, needs), f"{part} needs itself"


def test_a_circle_is_seen_also_inside_a_function_and_inside_a_folder() -> None:
    """Else the test above could hold nothing."""
    files = {
        Path("loaders/_shards/order.py"): "def late():\n    from loaders._shards.plans import Share",
        Path("loaders/_shards/plans.py"): "from loaders._shards import order",
    }
    assert _needs(files, level=2) == {"loaders._shards": set()}
    circle = _needs(files, level=9)
    assert "loaders._shards.order" in _reached("loaders._shards.order", circle)


def _needs(files: dict[Path, str], level: int) -> dict[str, set[str]]:
    """Return what each part of a package imports of it: a part is a module's name, cut after so many words."""
    needs: dict[str, set[str]] = {}
    for path, source in files.items():
        here, package = _part(_module_at(path), level), path.parts[0]
        there = {_part(name, level) for node in _walk_at_runtime(ast.parse(source)) for name in _imported_by(node)}
        needs.setdefault(here, set()).update(part for part in there - {here} if roots({part}) == {package})
    return needs


def _module_at(path: Path) -> str:
    return ".".join(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts)


def _part(module: str, level: int) -> str:
    return ".".join(module.split(".")[:level])


def _reached(start: str, needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        ahead += sorted(new := needs.get(ahead.pop(), set()) - found)
        found |= new
    return found


def _walk_at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield from _walk_at_runtime(child)


@pytest.mark.parametrize("path", sources("examples"), ids=str)
def test_examples_use_what_users_may(path: Path) -> None:
    """Of the compiler that is `compiler.launch`; the packages are held to importing none of it by the tests above."""
    modules = imported_by_file(path)
    assert {name for name in modules if roots({name}) == {"compiler"}} <= {"compiler"}
    assert not {"blender_jobs", "torch"} <= roots(modules), "a job runs in Blender, a training outside of it"


@pytest.mark.parametrize("module", sorted(CONTRACTS))
def test_contracts_rest_on_contracts(module: str) -> None:
    path = source_of(module)
    assert (ROOT / path).is_file(), f"{path}, which other packages build on, does not exist"
    modules = imported_by_file(path)
    assert {name for name in modules if roots({name}) & OURS} <= CONTRACTS
    assert roots(modules) <= OURS | {"PIL", "numpy"} | STDLIB_3_10


@pytest.mark.parametrize("module", [*sorted(CONTRACTS), "loaders", "compiler.cli"])
def test_loads_neither_blender_nor_torch(module: str) -> None:
    # Reading cannot tell what others' packages and lazy attributes pull in; a fresh interpreter can.
    program = f"import json, sys, {module}; json.dump(sorted(sys.modules), sys.stdout)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not roots(set(json.loads(run.stdout))) & (BLENDER | {"torch"})
