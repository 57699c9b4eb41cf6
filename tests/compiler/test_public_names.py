"""What `compiler` and `loaders` give by name is what type checkers see, and is what it was whatever is imported."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import typing
from pathlib import Path

import click
import pytest

import compiler
from compiler.cli.build import build_command

ROOT = Path(__file__).resolve().parents[2]
LAZY = ["compiler", "loaders"]

LAUNCH = {"job", "settings", "shards", "out", "instances", "live_policy"}
"""Options of ``build`` that `launch` has by a name of its own; of these `port` is its ``--live``."""

LAUNCHED = {"live", "live_only", "live_ready_file", "end_with_parent", "quiet", "as_json", "dry_run"}
"""Options that `launch` gives itself, or that nothing could be launched with."""


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_see_every_name_where_it_is(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    seen = {
        alias.asname: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    module = importlib.import_module(package)
    assert seen == module._HOMES
    assert set(module.__all__) == seen.keys()
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("package", LAZY)
def test_no_module_has_the_name_of_what_its_package_gives(package: str) -> None:
    """Importing such a module puts it in the place of the function or class."""
    modules = {path.stem for path in (ROOT / package).iterdir()}
    assert not modules & set(importlib.import_module(package).__all__)


def test_launch_is_a_function_also_where_its_module_was_imported() -> None:
    program = "import compiler._launch, compiler; print(compiler.launch is compiler._launch.launch)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_launch_takes_the_options_of_build() -> None:
    """By name; and what is a choice there is a choice of the same words for type checkers."""
    options = {param.name: param for param in build_command.params}
    hints = typing.get_type_hints(compiler.BuildOptions)
    assert hints.keys() == options.keys() - LAUNCH - LAUNCHED
    for name, hint in hints.items():
        if isinstance(kind := options[name].type, click.Choice):
            assert typing.get_args(hint) == tuple(kind.choices), name
        assert (hint is bool) == getattr(options[name], "is_flag", False), name
