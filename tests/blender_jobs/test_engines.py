"""Where pictures of an engine are otherwise than the labels, and where a unit is no metre, the user is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaders.manifest import Manifest
from tests.commands import run, write_job
from tests.in_blender import needs_bpy

pytestmark = needs_bpy

ODD = """
def randomize(self, rng):
    pass

def setup(self):
    import bpy
    self.cube = stage.cube("cube")
    for name in ("catcher", "ghost"):
        stage.cube(name).location.x = 2
    bpy.data.objects["catcher"].is_shadow_catcher = True
    bpy.data.objects["ghost"].visible_camera = False
    bpy.context.scene.unit_settings.scale_length = 0.001
    stage.motion_blur(0.5)
    stage.camera(at=(4, -4, 3))
"""


@pytest.mark.parametrize(
    ("engine", "named"),
    [("workbench", "'catcher', 'ghost'"), ("eevee", "'catcher'"), ("cycles", "")],
)
def test_objects_that_an_engine_draws_otherwise_are_named(tmp_path: Path, engine: str, named: str) -> None:
    done = run(write_job(tmp_path, ODD), "--shards", 1, "--engine", engine, "--dry-run")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if " as solid " in line]
    assert len(told) == bool(named)
    assert not named or f"{named})" in told[0]
    assert ("workbench has no motion blur, which the scene asks for" in done.stderr) == (engine == "workbench")


def test_a_unit_that_is_no_metre_is_told_and_kept_in_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--samples-per-shard", 1, "--engine", "workbench", "--render-samples", 0, "--size", "32x24"]
    done = run(write_job(tmp_path, ODD), "--shards", 1, *small, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "a Blender unit is 0.001 m in this scene" in done.stderr
    settings = Manifest.load(out).plan["render"]["settings"]
    assert settings["unit_settings.scale_length"] == pytest.approx(0.001)
