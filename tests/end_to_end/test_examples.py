"""Each example runs as its first lines say, made small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaders.manifest import Manifest
from tests.commands import TINY, compiled, ok

EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(name: str, *args: object, cwd: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # of two processes, the threads of one would spin for the other's
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_minimal_prints_the_shapes(tmp_path: Path) -> None:
    lines = _run("minimal.py", "--batches", 4, "--size", "64x48", cwd=tmp_path).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("(4, 3, 48, 64) (4, 8, 4) ['0000") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_generate_saves_batches_with_their_keypoints(tmp_path: Path) -> None:
    _run("generate.py", "falling_cubes", "--batches", 4, "--size", "160x120", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"output_{at:02d}.png" for at in range(4)]
    with Image.open(tmp_path / "output_00.png") as sheet:
        assert sheet.size == (320, 240)
        assert (255, 255, 255) in {color for _, color in sheet.getcolors(1 << 20) or []}, "dots have white rims"


@pytest.mark.slow
def test_ddp_sees_every_sample_once_an_epoch(tmp_path: Path) -> None:
    ok("cube", *TINY, "--shards", 3, "--samples-per-shard", 15, "--out", tmp_path / "cube")
    said = _run("ddp.py", "cube", "--epochs", 2, "--port", 29517, cwd=tmp_path)
    assert re.findall(r"(\d+) samples on 2 ranks, (\d+) different ones", said) == [("46", "45")] * 2


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all three: each source has its own in it, and the held-out shard is rendered once."""
    return tmp_path_factory.mktemp("lessons")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["shards", "live", "live-then-shards"])
def test_a_network_learns_the_corners(source: str, lessons: Path) -> None:
    """On a shard that it has not seen it errs by far less than the mean, wherever its samples came from."""
    said = _run("train_keypoints.py", "--source", source, "--shards", 4, "--epochs", 2, cwd=lessons)
    losses = [float(value) for value in re.findall(r"loss +([\d.]+) px", said)]
    assert losses[-1] < 0.8 * losses[0]
    found = re.search(r"held-out shard: ([\d.]+) px; predicting the mean: ([\d.]+) px", said)
    assert found is not None
    assert float(found[1]) < 0.75 * float(found[2])


@pytest.mark.slow
def test_blend_scene_moves_the_things_of_its_file(tmp_path: Path) -> None:
    """Each sample has all of them elsewhere on the table; the apples in the bowl go where the bowl goes."""
    samples = [sample["json"] for sample in compiled(EXAMPLES / "blend_scene.py", tmp_path / "out", 2)]
    places = [
        {entry["name"]: np.array(entry["matrix_world"])[:3, 3] for entry in sample["objects"]} for sample in samples
    ]
    assert all(len(place) == 9 for place in places)
    for name in places[0]:
        assert len({tuple(place[name]) for place in places}) == 2
    for place in places:
        assert all(np.linalg.norm(place[f"apple in the bowl {at}"] - place["bowl"]) < 0.1 for at in range(3))
    assert {entry["category"] for entry in samples[0]["objects"]} == {"bowl", "bottle", "mug", "candle", "fruit"}


@pytest.mark.slow
def test_skeleton_shows_the_joints_through_the_skin(tmp_path: Path) -> None:
    """Each person has the category's joints; the manifest joins them; most are visible, and they move."""
    samples = compiled(EXAMPLES / "skeleton.py", tmp_path / "out", 2)
    person = Manifest.load(tmp_path / "out").schema["categories"][0]
    names = person["keypoints"]
    assert ["left_knee", "left_ankle"] in [[names[at - 1] for at in edge] for edge in person["skeleton"]]
    first, second = (np.array([entry["keypoints"] for entry in one["json"]["objects"]]) for one in samples)
    assert first.shape == (3, 3 * len(names))
    assert all(entry["keypoint_names"] == names for one in samples for entry in one["json"]["objects"])
    assert (first[:, 2::3] == 2).mean() > 0.6
    assert np.abs(first - second).max() > 1.0


@pytest.mark.slow
def test_stereo_sees_every_point_in_one_row_of_both_images(tmp_path: Path) -> None:
    """What is before both cameras has the disparity that its depth and the baseline ask for."""
    sample = compiled(EXAMPLES / "stereo.py", tmp_path / "out", 1)[0]
    assert set(sample) == {
        f"{side}.{member}" for side in ("left", "right") for member in ("png", "json", "keypoints.npy", "depth.npy")
    }
    left, right = (sample[f"{side}.keypoints.npy"] for side in ("left", "right"))
    focal = sample["left.json"]["camera"]["K"][0][0]
    assert np.allclose(left[:, 1], right[:, 1], atol=1e-3)
    assert np.allclose(left[:, 0] - right[:, 0], focal * 0.3 / left[:, 3], atol=1e-3)
    assert np.isfinite(sample["left.depth.npy"]).all()


@pytest.mark.slow
def test_turntable_says_in_two_ways_where_a_pixel_is_on_the_object(tmp_path: Path) -> None:
    """Its depth, taken through the pose, and its NOCS, taken from the box, are one place, to a millimetre or two."""
    poses = []
    for sample in compiled(EXAMPLES / "turntable.py", tmp_path / "out", 2):
        thing, nocs, depth = sample["json"]["objects"][0], sample["nocs.npy"], sample["depth.npy"]
        rows, columns = np.nonzero(nocs.any(axis=2))
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        seen = np.linalg.inv(sample["json"]["camera"]["K"]) @ pixels * depth[rows, columns]
        pose = np.array(thing["pose"])
        from_depth = (pose[:3, :3].T @ (seen - pose[:3, 3:])).T
        corners = np.c_[thing["box3d"], np.ones(8)] @ np.linalg.inv(thing["matrix_world"]).T
        from_nocs = corners[:, :3].mean(axis=0) + (nocs[rows, columns] - 0.5) * np.linalg.norm(thing["dimensions"])
        assert len(rows) > 100
        assert np.abs(from_depth - from_nocs).max() < 0.002
        poses.append(pose)
    assert not np.allclose(poses[0], poses[1], atol=0.1)
