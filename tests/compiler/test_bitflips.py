"""Damage anywhere in a dataset is found; one bit is placed: in its file, and in its sample where it lies in one."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import VerificationFailed
from compiler.verification.findings import Problem
from compiler.verification.verify import Verifier, intact_manifest
from loaders.manifest import FILE_NAME, Manifest
from loaders.tarstream import read_samples
from tests.planned_dataset import Recipe, make

FLIPS = 500
RECIPES = {
    "one view": Recipe(),
    "two cameras and passes": Recipe(
        shards=2, samples_per_shard=3, size=(8, 6), cameras=("left", "right"), passes=("depth", "segmentation")
    ),
}


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def sample_at(path: Path, byte: int) -> str:
    """Return the key of the sample in a healthy shard in which a byte lies, empty where it lies in none."""
    with path.open("rb") as file:
        return next((sample.key for sample in read_samples(file) if byte < sample.end), "")


def problems_of(folder: Path, name: str) -> list[Problem]:
    """Return what is found in one file of a dataset."""
    if name != FILE_NAME:
        manifest = Manifest.load(folder)
        return (
            Verifier(folder, manifest).examine(next(shard for shard in manifest.shards if shard.name == name)).problems
        )
    with pytest.raises(VerificationFailed, match=re.escape(str(folder / FILE_NAME))) as caught:
        intact_manifest(folder)
    return [Problem(FILE_NAME, str(caught.value))]


@pytest.mark.parametrize("name", RECIPES)
def test_every_flipped_bit_is_found_and_placed(tmp_path: Path, name: str) -> None:
    make(tmp_path, RECIPES[name])
    files = sorted(path for path in tmp_path.iterdir())
    ends = np.cumsum([path.stat().st_size for path in files])
    places = np.random.default_rng(0).integers(0, 8 * ends[-1], FLIPS)
    flipped = set()
    for place in places.tolist():
        number = int(np.searchsorted(ends, place // 8, side="right"))
        path, bit = files[number], place - 8 * int(ends[number - 1] if number else 0)
        key = sample_at(path, bit // 8) if path.suffix == ".tar" else ""
        flip(path, bit)
        problems = problems_of(tmp_path, path.name)
        flip(path, bit)
        where = f"bit {bit} of {path.name}: {[str(problem) for problem in problems]}"
        assert {problem.file for problem in problems} == {path.name}, where
        assert {problem.key for problem in problems} - {""} == ({key} if key else set()), where
        flipped.add(path.name)
    assert len(flipped) == len(files)  # no file was spared
    assert not any(problems_of(tmp_path, path.name) for path in files if path.suffix == ".tar")


@given(st.data())
def test_whatever_a_shard_becomes_is_told_and_never_an_error(data: st.DataObject) -> None:
    """A stretch of a shard is replaced by something else, of another length or its own, headers included."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = make(Path(folder), Recipe(shards=1, samples_per_shard=2, passes=("segmentation",), size=(8, 6)))
        path = Path(folder) / manifest.shards[0].name
        whole = path.read_bytes()
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, min(start + 600, len(whole))))
        other = data.draw(st.binary(max_size=600) | st.sampled_from([whole[:512], whole[1024:1536], bytes(512)]))
        path.write_bytes(whole[:start] + other + whole[stop:])
        if path.read_bytes() != whole:
            assert {problem.file for problem in problems_of(Path(folder), path.name)} == {path.name}
