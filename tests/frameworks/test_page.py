"""docs/how-to/frameworks.md: its code runs with the frameworks as they are, its table names the versions tested."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.frameworks import REQUIREMENTS, framework
from tests.frameworks.markers import make
from tests.house.test_loaders_docs import GUIDES, blocks, needs_a_framework

for _name in ("torchvision", "albumentations", "kornia", "pytorch_lightning", "accelerate", "torchdata"):
    framework(_name)

PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.M))
RECIPES = [block for block in blocks() if needs_a_framework(block)]


def test_there_is_a_recipe_for_each_framework() -> None:
    assert len(RECIPES) == 7


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.split()[1].partition(".")[0])
def test_the_code_of_the_page(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "falling_cubes", samples=14)
    exec(compile(recipe, "frameworks.md", "exec"), {"__name__": "recipe"})


def test_the_table_names_what_is_pinned_and_installed() -> None:
    table = (GUIDES / "frameworks.md").read_text(encoding="utf-8").partition("## ")[0]
    rows = re.findall(r"^\| ([\w-]+)[^|]*\| (\d[\d.]+) \|", table, re.M)
    named = {name: number for name, number in rows if name in PINS}
    assert named == {name: PINS[name] for name in named}
    assert len(named) == 6
    for name, number in PINS.items():
        assert version(name) == number, f"{name}: install what {REQUIREMENTS.name} names"
