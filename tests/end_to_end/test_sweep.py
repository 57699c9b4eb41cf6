"""`scripts/sweep`: what it calls a contradiction, and that it goes on after a file that cannot be compiled."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import ROOT, needs_bpy, scene


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_blends", ROOT / "scripts" / "sweep_blends.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


sweep = load()
Sample = tuple[dict[str, Any], np.ndarray, np.ndarray]


def sound() -> Sample:
    """A sample of 40x30 pixels that is sound: a box at depths 4 to 6 before a wall at depth 10."""
    depth = np.full((30, 40), 10.0, dtype=np.float32)
    segmentation = np.zeros((30, 40), dtype=np.uint16)
    segmentation[10:20, 12:24], depth[10:20, 12:24] = 1, 4.0
    entry = {
        "name": "box",
        "segmentation_id": 1,
        "bbox": [12.0, 10.0, 12.0, 10.0],
        "visible_pixels": 120,
        "silhouette_pixels": 120,
        "visible_fraction": 1.0,
        "box3d": [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (4, 6)],
        "keypoints": [18.0, 15.0, 2, 18.0, 15.0, 1, 3.0, 3.0, 2, 0.0, 0.0, 0],
        "keypoint_depths": [4.0, 6.0, 9.0, 5.0],
    }
    return {"objects": [entry], "camera": {"cam_to_world": np.eye(4).tolist()}, "holdouts": False}, depth, segmentation


def changed(**fields: Any) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        sample[0]["objects"][0].update(fields)

    return change


def moved_pixels(sample: Sample) -> None:
    sample[2][10:20, 30:32] = 1
    sample[1][10:20, 30:32] = 4.0
    sample[0]["objects"][0].update(visible_pixels=140, silhouette_pixels=140)


def a_stranger(sample: Sample) -> None:
    sample[2][0, 0] = 7


def no_depth(sample: Sample) -> None:
    sample[1][12, 15] = np.inf


def deeper(sample: Sample) -> None:
    sample[1][10:20, 12:24] = 8.0


def gone(sample: Sample) -> None:
    sample[2][:] = 0
    sample[1][:] = 10.0
    sample[0]["objects"][0].update(visible_pixels=0, visible_fraction=0.0, keypoints=[], keypoint_depths=[])


PLANTED: dict[str, Callable[[Sample], None]] = {
    "ids": a_stranger,
    "depth": no_depth,
    "counts": changed(visible_pixels=119),
    "silhouette": changed(silhouette_pixels=60),
    "outside": moved_pixels,
    "far": changed(bbox=[12.0, 10.0, 27.0, 10.0]),
    "space": deeper,
    "unseen": gone,
    "seen": changed(keypoints=[18.0, 15.0, 2], keypoint_depths=[5.0]),
    "hidden": changed(keypoints=[3.0, 3.0, 1], keypoint_depths=[9.0]),
}


def test_a_sound_sample_has_no_contradiction() -> None:
    assert list(sweep.contradictions(*sound())) == []


@pytest.mark.parametrize("kind", list(PLANTED))
def test_a_planted_contradiction_is_found(kind: str) -> None:
    """Each kind is told by its own name, and names the object where there is one."""
    sample = sound()
    PLANTED[kind](sample)
    found = list(sweep.contradictions(*sample))
    assert kind in {line.partition(":")[0] for line in found}
    assert kind in ("ids", "depth") or any(line.startswith(f"{kind}: box: ") for line in found)


def test_what_hides_without_depth_is_no_contradiction() -> None:
    """A holdout hides keypoints and pixels, and leaves no depth."""
    sample = sound()
    PLANTED["hidden"](sample)
    sample[0]["holdouts"] = True
    assert list(sweep.contradictions(*sample)) == []


@scene
def two_blends(place: Path) -> None:
    import bpy

    from blender_jobs import stage

    stage.clear()
    cube = stage.cube("crate")
    stage.sun()
    bpy.ops.wm.save_as_mainfile(filepath=str(place / "crate.blend"))
    stage.camera(at=(0, -5, 0)).data.type = "ORTHO"
    cube.hide_render = True
    stage.cube("seen").location.x = 1
    bpy.ops.wm.save_as_mainfile(filepath=str(place / "deep.blend"))


@pytest.mark.slow
@needs_bpy
def test_every_blend_below_a_folder_is_compiled_or_told(tmp_path: Path) -> None:
    """One that is no .blend is refused with a reason, and the others are compiled nevertheless."""
    in_blender.play(__name__, tmp_path, ["two_blends"])
    folder = tmp_path / "two_blends"
    (folder / "below").mkdir()
    (folder / "deep.blend").rename(folder / "below" / "deep.blend")
    (folder / "broken.blend").write_bytes(b"this is no scene")
    line = [sys.executable, "scripts/sweep_blends.py", str(folder), "--json", str(tmp_path / "found.json")]
    done = subprocess.run([*line, "--size", "64x48"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["totals"] == {
        "files": 3, "compiled": 2, "refused": 1, "failed": 0, "late": 0, "contradicting": 0
    }  # fmt: skip
    by_name = {entry["blend"]: entry for entry in found["files"]}
    assert by_name["crate.blend"]["objects"] == by_name["below/deep.blend"]["objects"] == 1
    assert "broken.blend" in by_name["broken.blend"]["reason"]
    assert "3 files: 2 compiled, 1 refused" in done.stdout
    assert "0 samples contradict themselves" in done.stdout


@pytest.mark.slow
@needs_bpy
def test_a_file_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    in_blender.play(__name__, tmp_path, ["two_blends"])
    line = [sys.executable, "scripts/sweep_blends.py", str(tmp_path / "two_blends"), "--most", "1"]
    done = subprocess.run([*line, "--time-limit", "0.2"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "late" in done.stdout
    assert "1 files: 1 late" in done.stdout
