"""The tables of the docs say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from blender_jobs.passes import PASSES
from compiler.planning.schemas import ANNOTATIONS

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "docs" / "how-to" / f"{name}.md" for name in ("jobs", "scenes", "blend-files", "cameras", "labels")]
JOBS = "\n".join(page.read_text(encoding="utf-8") for page in GUIDES)
DATASET = (ROOT / "docs" / "reference" / "dataset.md").read_text(encoding="utf-8")


def test_the_table_of_passes_is_that_of_the_code() -> None:
    rows = []
    for name, members in PASSES.items():
        for file, member in members.items():
            shape = f"(H, W, {member.channels})" if member.channels else "(H, W)"
            rows.append(f"| `{name}` | `{file}` | {member.dtype} {shape} | {member.description} |")
    assert re.findall(r"^\| `\w+` \| `\w+\.npy` .*$", DATASET, re.M) == rows


def test_the_table_of_annotations_names_every_field() -> None:
    """Those of a camera and of an object in rows of their own: `camera.K`, `objects[].pose`."""
    fields = ANNOTATIONS["properties"]
    table = DATASET.partition("## Annotations")[2].partition("\n## ")[0]
    named: dict[str, set[str]] = {"": set(), "camera.": set(), "objects[].": set()}
    for cell in re.findall(r"^\| (`.*?) \|", table, re.M):
        names = re.findall(r"`([^`]+)`", cell)
        group = next(group for group in reversed(named) if names[0].startswith(group))
        named[group] |= {name.removeprefix(group) for name in names}
    assert named["camera."] == set(fields["camera"]["properties"])
    assert named["objects[]."] >= set(fields["objects"]["items"]["properties"])
    assert named[""] == set(fields) - {"camera", "objects"}


def test_the_guides_to_jobs_name_functions_that_there_are() -> None:
    named = re.findall(r"\b(stage|meshes|rigs|materials|lights|physics|scatter|assets|lens|parts)\.(\w+)\b", JOBS)
    assert len(named) > 40
    for module, function in named:
        text = (ROOT / "blender_jobs" / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^(?:def|class) {function}\b", text, re.M), f"{module}.{function}"


@pytest.mark.parametrize("module", ["stage", "meshes", "rigs", "materials", "lights", "physics", "scatter", "assets"])
def test_the_command_that_shows_a_modules_functions_does(module: str) -> None:
    written = re.search(r"`python -c '([^']*help\((\w+)\))'`", JOBS)
    assert written
    code = written[1].replace(written[2], module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert f"blender_jobs.{module}" in done.stdout, done.stderr
    assert "FUNCTIONS" in done.stdout
