"""The files in examples/assets can be made anew by the scripts beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests import in_blender
from tests.in_blender import scene

ASSETS = Path(__file__).parents[2] / "examples" / "assets"

MODELS = [
    *("car.glb", "house.glb", "sheep.glb", "tree.glb"),
    *("toys/duck.glb", "toys/knot.ply", "toys/mug.obj", "toys/rook.stl"),
]

pytestmark = in_blender.needs_bpy


def _made(script: str, out: Path) -> Path:
    done = subprocess.run([sys.executable, ASSETS / script, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def _content(path: Path) -> dict[str, Any]:
    """What each object of a .blend is: its type and place, and its evaluated mesh."""
    import bpy

    from blender_jobs._worker import staging

    assert staging.open_blend(path, trusted=False) == []
    depsgraph = bpy.context.evaluated_depsgraph_get()
    found = {}
    for obj in bpy.context.scene.objects:
        made = obj.evaluated_get(depsgraph)
        points = [vertex.co[:] for vertex in made.data.vertices] if obj.type == "MESH" else []
        looks = [slot.material.name for slot in obj.material_slots]
        found[obj.name] = [obj.type, [list(row) for row in made.matrix_world], looks, points]
    return found


@scene
def still_life(folder: Path) -> list[dict[str, Any]]:
    anew = _made("make_still_life.py", folder / "anew.blend")
    return [_content(path) for path in (ASSETS / "still_life.blend", anew)]


@scene
def models(folder: Path) -> dict[str, Any]:
    """The sorted vertices of each model in the folder, and of those made anew."""
    import bpy

    from blender_jobs import assets, meshes

    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assets.begin(ASSETS)
    anew = _made("make_models.py", folder / "models")
    found = {}
    for name in MODELS:
        one, other = (meshes.load(place / name, name) for place in (ASSETS, anew))
        found[name] = [
            sorted([round(x, 4) for x in vertex.co] for vertex in made.data.vertices) for made in (one, other)
        ]
    return found


def test_the_still_life_is_what_its_script_makes(tmp_path: Path) -> None:
    """The same objects at the same places, whichever Blender ran the script; and small enough to be in git."""
    committed, anew = in_blender.play(__name__, tmp_path, ["still_life"])["still_life"]
    assert sorted(committed) == sorted(anew)
    assert len(committed["bottle"][3]) > 1000
    for name, (kind, matrix, looks, points) in committed.items():
        assert (kind, looks) == (anew[name][0], anew[name][2])
        assert np.allclose(matrix, anew[name][1], atol=1e-6)
        assert np.allclose(points, anew[name][3], atol=1e-6)
    assert (ASSETS / "still_life.blend").stat().st_size < 300_000


def test_the_monkey_is_what_its_script_makes(tmp_path: Path) -> None:
    """The same mesh; its header alone may name another Blender."""
    committed = (ASSETS / "monkey.ply").read_bytes()
    _, _, mesh = _made("make_monkey.py", tmp_path / "anew.ply").read_bytes().partition(b"element vertex")
    assert committed.partition(b"element vertex")[2] == mesh
    assert len(committed) < 150_000


def test_the_models_are_what_their_script_makes(tmp_path: Path) -> None:
    """The same vertices, in whatever order; and small. Nothing else is in the toys' folder but a material."""
    for name, (committed, anew) in in_blender.play(__name__, tmp_path, ["models"])["models"].items():
        assert len(committed) > 100
        assert np.allclose(committed, anew, atol=2e-4), name
        assert (ASSETS / name).stat().st_size < 70_000
    toys = {f"toys/{path.name}" for path in (ASSETS / "toys").iterdir()}
    assert toys == {name for name in MODELS if name.startswith("toys/")} | {"toys/mug.mtl"}
