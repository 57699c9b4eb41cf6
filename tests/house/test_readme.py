"""What the README shows works as it is, and it names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import click
import pytest

from compiler.cli import cli
from tests.commands import TINY, run
from tests.in_blender import needs_bpy
from tests.pages import PAGES, ROOT, blocks, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")

EXCERPT = """
from dataclasses import dataclass
from blender_jobs import stage
from blender_jobs.builtin import falling_cubes
from blender_jobs.job import Job

{shown}
    _drop = falling_cubes.FallingCubes._drop
    _free_place = falling_cubes.FallingCubes._free_place
"""


@pytest.mark.slow
@needs_bpy
def test_the_commands_and_the_code_of_the_readme(tmp_path: Path) -> None:
    """In order, in one directory, as a reader types them; renders are made cheap."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    given = commands("README.md")
    assert len(given) >= 9
    assert ["doctor"] in given
    for words in given:
        if words == ["doctor"]:
            continue  # half a minute of EEVEE's shaders, and `test_doctor` runs the very line
        done = run(*_cheap(words), cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    excerpt, *scripts = [block.text for block in blocks("README.md", "python")]
    (tmp_path / "excerpt.py").write_text(EXCERPT.format(shown=excerpt), encoding="utf-8")
    done = run("excerpt.py", "--shards", 1, "--samples-per-shard", 1, "--out", "excerpt", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = ""
    for code in scripts:
        assert code.startswith("import ")
        guarded = f"if __name__ == '__main__':\n{textwrap.indent(_quick(code), '    ')}"
        done = subprocess.run(
            [sys.executable, "-c", guarded], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout
    assert said.startswith("000000-000000 cube0 [")


def _cheap(words: list[str]) -> list[str]:
    """Return a command with few small renders; one that serves a hundred shards makes one, elsewhere, on any port."""
    if "--live" in words:
        words = ["1" if word == "100" else word for word in words]
        at = words.index("--live") + 1
        words = [*words[:at], "http://127.0.0.1:0", *words[at:], "--samples-per-shard", "2", "--out", "served"]
    words = [
        "5" if before == "--samples-per-shard" and word == "10" else word for before, word in pairwise(["", *words])
    ]
    return [*words, *(TINY if "--shards" in words else [])]


def _quick(code: str) -> str:
    """Return the code with one cheap Blender in place of the four that it launches, and eight samples."""
    cheap = 'instances=1, engine="workbench", render_samples=0, size="64x48"'
    return code.replace("instances=4", cheap).replace("stream_length(1000)", "stream_length(8)")


def test_the_readme_and_the_guides_read_the_tee_by_the_same_command() -> None:
    """`tests.house.test_pages` runs the guide's lines against a tee."""
    lines = [line for block in blocks("README.md", "bash") for line in block.lines if line.startswith("curl")]
    guide = [line for block in blocks("docs/how-to/live.md", "bash") for line in block.lines]
    assert lines
    assert set(lines) <= set(guide)


def test_contributing_begins_with_the_command_of_the_readme_and_the_documentation() -> None:
    (block,) = blocks("CONTRIBUTING.md", "bash")
    tests = next(line for readme in blocks("README.md", "bash") for line in readme.lines if line.endswith("&& pytest"))
    assert block.lines == [tests.replace("test]", "test,docs]").replace("&& pytest", "&& scripts/check")]


def test_the_readme_names_every_command() -> None:
    """The reference, which is made from the commands themselves, describes their options."""
    names = cli.list_commands(click.Context(cli))
    assert "build" in names
    for name in names:
        row = "JOB" if name == "build" else name
        assert re.search(rf"^\| `compile-dataset {row}\b", README, re.M), name


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in [_slug(heading) for heading in headings], target


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
