"""The command line loads what it needs, when it is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from compiler.cli import cli

LISTING = """
import json, sys
from compiler.cli import main
sys.argv = ["compile-dataset", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
json.dump(sorted(sys.modules), sys.stderr)
"""

LIGHT = {
    "compiler",
    "compiler.cli",
    "compiler.commands",
    "compiler.commands.group",
    "compiler.commands.output",
    "compiler.errors",
    "compiler.terminal",
}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]])
def test_help_and_version_load_no_command_and_nothing_that_only_commands_need(words: list[str]) -> None:
    line = [sys.executable, "-c", LISTING, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("Usage: compile-dataset", "compile-dataset, version"))
    loaded = set(json.loads(done.stderr))
    ours = {name for name in loaded if name.partition(".")[0] in ("blender_jobs", "compiler", "loaders")}
    assert ours == LIGHT
    assert not loaded & {"numpy", "PIL", "tqdm", "aiohttp", "asyncio", "fastjsonschema", "filelock", "multiprocessing"}


def test_every_command_is_found_where_the_group_looks_for_it() -> None:
    context = click.Context(cli)
    modules = {path.stem for path in Path(str(importlib.import_module("compiler.commands").__path__[0])).glob("*.py")}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help
        modules.remove(name)
    for other in modules - {"__init__"}:
        assert not hasattr(importlib.import_module(f"compiler.commands.{other}"), f"{other}_command")
