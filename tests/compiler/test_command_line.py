"""The command line loads what it needs, when it is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import click
import pytest

from compiler.cli import cli
from compiler.cli.build import BuildArguments, LiveArguments
from compiler.cli.verify import RerenderArguments
from compiler.resolve import Choices
from compiler.storage.published import Places

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

LIGHT = {"compiler", "compiler.cli", "compiler.errors", "compiler.terminal"}


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
    modules = {path.stem for path in Path(str(importlib.import_module("compiler.cli").__path__[0])).glob("*.py")}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help
        modules.remove(name)
    for other in modules - {"__init__"}:
        assert not hasattr(importlib.import_module(f"compiler.cli.{other}"), f"{other}_command")


EVERY_OPTION = {
    "build": (
        "cube --blend a.blend --missing-files allow --samples-per-shard 2 --seed 1 --set size=2 --passes depth"
        " --engine workbench --render-samples 5 --device cuda --size 64x48 --image jpg --quality 5 --blender b"
        " --shards 2 --out c --instances 3 --stall-timeout 4 --attempts 2 --on-poison skip --recycle 9 --live http://127.0.0.1:0"
        " --live-policy block --live-wait 1 --live-host ::1 --live-token t --live-token-file d --live-ready-file e"
    ),
    "verify": "d --jobs 2 --rerender all --pick 3 --job j.py --assets . --blender b",
    "reproduce": "d --out e --job j.py --assets . --instances 2 --blender b",
    "replay": "d --episode 1 --out e --job j.py --assets . --blender b",
}
FEWEST_OPTIONS = {"build": "", "verify": "d", "reproduce": "d --out e", "replay": "d --episode 1"}

TYPED = {
    "build": [BuildArguments, LiveArguments, Choices],
    "verify": [Places, RerenderArguments],
    "reproduce": [Places],
    "replay": [Places],
}
"""What commands make of the options that they do not name one by one: dataclasses that `mypy` reads."""


@pytest.mark.parametrize("words", [EVERY_OPTION, FEWEST_OPTIONS], ids=["every", "fewest"])
@pytest.mark.parametrize("name", sorted(TYPED))
def test_what_click_gives_has_the_types_that_commands_declare(name: str, words: dict[str, str]) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.callback is not None
    given = command.make_context(name, words[name].split()).params
    hints: dict[str, Any] = {}
    for kind in TYPED[name]:
        hints |= typing.get_type_hints(kind)
    left = given.keys() - hints.keys()
    assert left == typing.get_type_hints(command.callback).keys() - {"given", "placing", "rendering", "return", "ctx"}
    assert hints.keys() <= given.keys()
    wrong = {field: value for field, value in given.items() if field in hints and not _fits(value, hints[field])}
    if name == "build":
        wrong.pop("settings")  # pairs, of which a mapping is made together with those of a configuration file
    assert not wrong


def _fits(value: object, hint: Any) -> bool:
    if hint is float:
        return type(value) in (int, float)
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    return isinstance(value, typing.get_origin(hint) or hint)
