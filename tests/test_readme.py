"""What the README and the docs show works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

from compiler.cli import cli
from tests.commands import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHEAP = ["--engine", "workbench", "--render-samples", "0", "--size", "64x48"]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def _commands() -> list[list[str]]:
    """Every `compile-dataset` of the README's shell blocks, words without the command's own name."""
    parts = [part.strip() for block in _blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("compile-dataset ")]


@pytest.mark.slow
def test_the_commands_and_the_code_of_the_readme(tmp_path: Path) -> None:
    """In order, in one directory, as a reader types them; renders are made cheap."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = _commands()
    assert len(commands) >= 8
    assert ["doctor"] in commands
    for words in commands:
        if words == ["doctor"]:
            continue  # half a minute of EEVEE's shaders, and `test_doctor` runs the very line
        builds = "--shards" in words
        done = run(*words, *(CHEAP if builds else []), cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    for code in (block for block in _blocks("python") if block.startswith("import")):
        guarded = f"if __name__ == '__main__':\n{textwrap.indent(code, '    ')}"
        done = subprocess.run(
            [sys.executable, "-c", guarded], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("000000-000000 cube0 [")


def test_the_readme_names_every_command_and_option() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert name in README
        if name == "build":
            rare = {"--stall-timeout", "--attempts", "--recycle", "--render-samples"}
            for param in command.params:
                hidden = getattr(param, "hidden", False) or param.opts[0] in rare
                assert hidden or not param.opts[0].startswith("--") or param.opts[0] in README


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
