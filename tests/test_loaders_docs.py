"""The code in docs/loaders.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.synthetic import full_members, make_dataset

PAGE = Path(__file__).resolve().parents[1] / "docs" / "loaders.md"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_code_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "falling_cubes", [6, 2, 7], full_members, splits=["train", "val"])
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert Path("checkpoint.pt").exists()
