"""Play a test file's scenes inside Blender, in a process of their own: bpy may crash as its process ends.

A scene is a function that is marked with `scene`; it gets an empty folder and returns what JSON can hold, which the
file's tests judge.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

Scene = Callable[[Path], Any]
_SCENES: dict[str, dict[str, Scene]] = {}

needs_bpy = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs the bpy wheel")


def scene(function: Scene) -> Scene:
    """Mark what runs inside Blender."""
    _SCENES.setdefault(function.__module__, {})[function.__name__] = function
    return function


def play(module: str, folder: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the scenes of a test module (by default all) return, by name."""
    line = [sys.executable, "-m", "tests.in_blender", module, str(folder), *names]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    found = folder / "seen.json"
    assert found.exists(), done.stderr[-4000:]
    result: dict[str, Any] = json.loads(found.read_text())
    return result


def main(module: str, folder: Path, names: Sequence[str]) -> None:
    """What the process does."""
    importlib.import_module("tests.conftest")  # for the settings of hypothesis, which pytest is not here to load
    importlib.import_module(module)
    seen = {}
    for name, function in _SCENES[module].items():
        if not names or name in names:
            place = folder / name
            place.mkdir()
            seen[name] = function(place)
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    from tests import in_blender

    try:
        in_blender.main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(0)
