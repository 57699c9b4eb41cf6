"""The code of the guides to training runs as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.synthetic import full_members, make_dataset

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGES = [GUIDES / f"{name}.md" for name in ("training", "frameworks", "depth-cameras")]

FRAMEWORKS = r"^(?:from|import) (?:accelerate|albumentations|kornia|pytorch_lightning|torchdata|torchvision)\b"


def blocks() -> list[str]:
    """Return the pages' pieces of Python."""
    return [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


def needs_a_framework(block: str) -> bool:
    """Tell what tests/frameworks runs, each piece by itself, from what needs torch and webdataset alone."""
    return re.search(FRAMEWORKS, block, re.MULTILINE) is not None


def with_camera(number: int) -> dict[str, bytes]:
    """Return all that a sample can hold, with a K."""
    members = full_members(number)
    camera = {"K": [[10, 0, 4], [0, 10, 3], [0, 0, 1]]}
    return {**members, "json": json.dumps({**json.loads(members["json"]), "camera": camera}).encode()}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_code_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "falling_cubes", [6, 2, 7], with_camera, splits=["train", "val"])
    plain = [block for block in blocks() if not needs_a_framework(block)]
    assert len(plain) == 6
    names: dict[str, object] = {}
    for block in plain:
        exec(compile(block, "page", "exec"), names)
    assert Path("checkpoint.pt").exists()
