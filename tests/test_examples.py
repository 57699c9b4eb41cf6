"""Each example runs as its first lines say, made small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.commands import TINY, ok

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(name: str, *args: object, cwd: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, args)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
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


@pytest.mark.slow
@pytest.mark.parametrize("source", ["shards", "live", "live-then-shards"])
def test_a_network_learns_the_corners(source: str, tmp_path: Path) -> None:
    """On a shard that it has not seen it errs by far less than the mean, wherever its samples came from."""
    said = _run("train_keypoints.py", "--source", source, "--shards", 4, "--epochs", 2, cwd=tmp_path)
    losses = [float(value) for value in re.findall(r"loss +([\d.]+) px", said)]
    assert losses[-1] < 0.8 * losses[0]
    found = re.search(r"held-out shard: ([\d.]+) px; predicting the mean: ([\d.]+) px", said)
    assert found is not None
    assert float(found[1]) < 0.75 * float(found[2])
