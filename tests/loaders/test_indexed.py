"""Random access: by number, key and slice; from threads and other processes; with clear errors."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders import IndexedShards, Manifest, ManifestError, SampleError, ShardError
from loaders.manifest import FILE_NAME
from loaders.tarstream import BLOCK
from tests.synthetic import full_members, key_of, make_dataset, pixels_of

COUNTS = [5, 0, 3, 8]
KEYS = [key_of(shard, sample) for shard, samples in enumerate(COUNTS) for sample in range(samples)]


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files slow to open, so that threads meet there."""
    open_file = os.open

    def open_slowly(*args: Any, **options: Any) -> int:
        time.sleep(0.01)
        return open_file(*args, **options)

    monkeypatch.setattr(os, "open", open_slowly)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "cubes", COUNTS, full_members)
    return tmp_path / "cubes"


def test_samples_by_number_key_and_slice(dataset: Path) -> None:
    shards = IndexedShards(dataset)
    assert len(shards) == 16
    assert [sample["key"] for sample in shards[:]] == KEYS
    assert [sample["key"] for sample in shards[-2:3:-4]] == KEYS[-2:3:-4]
    assert [shards[key]["annotations"]["frame"] for key in reversed(KEYS)] == list(reversed(range(16)))
    assert torch.equal(shards[-1]["image"], torch.from_numpy(pixels_of(15).transpose(2, 0, 1)))
    assert shards.record("000002-000001").members == full_members(6)
    for wrong in (16, -17):
        with pytest.raises(IndexError):
            shards[wrong]
    for unknown in ("000001-000000", "000009-000000", "cube"):
        with pytest.raises(KeyError, match=unknown):
            shards[unknown]


def test_shards_without_a_manifest_are_read_too(dataset: Path) -> None:
    (dataset / FILE_NAME).unlink()
    shards = IndexedShards(f"{dataset}/cubes-train-{{000000..000003}}.tar")
    assert [sample["key"] for sample in shards] == KEYS
    assert shards["000003-000007"]["annotations"]["frame"] == 15


@pytest.mark.usefixtures("slow_disk")
def test_it_reads_at_once_from_threads_and_after_pickling(dataset: Path) -> None:
    shards = IndexedShards(dataset, output="numpy", members=["annotations"])
    numbers = np.random.default_rng(0).integers(0, 16, 100).tolist()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):  # the first reads of a fresh copy are where threads meet
            copy = pickle.loads(pickle.dumps(shards))
            assert list(pool.map(partial(frame, copy), numbers)) == numbers


@pytest.mark.usefixtures("slow_disk")
def test_it_reads_at_once_from_threads_where_there_is_no_pread(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    shards = IndexedShards(dataset, output="numpy", members=["annotations"])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(partial(frame, shards), [*range(16)] * 5)) == [*range(16)] * 5


def frame(shards: IndexedShards, number: int) -> int:
    found: int = shards[number]["annotations"]["frame"]
    return found


def test_files_are_closed(dataset: Path) -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("counts open files in /proc")
    IndexedShards(dataset)[0]
    before = open_files()
    for _ in range(5):
        shards = IndexedShards(dataset)
        assert len(shards[:]) == 16
        del shards
    assert open_files() == before


@pytest.mark.usefixtures("slow_disk")
def test_many_shards_need_few_open_files(tmp_path: Path) -> None:
    make_dataset(tmp_path, [1] * 200)
    shards = IndexedShards(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(partial(frame, shards), range(200))) == list(range(200))
    after = len(os.listdir("/proc/self/fd")) if before else 0  # noqa: PTH208
    assert after - before <= 128


def test_numpy_needs_no_torch(dataset: Path) -> None:
    program = f"""
import sys, loaders
sample = loaders.IndexedShards({str(dataset)!r}, output="numpy")[3]
assert sample["image"].shape == (3, 6, 8)
assert "torch" not in sys.modules and "webdataset" not in sys.modules
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


def damaged(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_damage_is_an_error_that_names_the_file_and_the_place(dataset: Path) -> None:
    first, _, third, last = sorted(dataset.glob("*.tar"))
    shards = IndexedShards(dataset)
    damaged(third, 0, b"broken")
    with pytest.raises(ShardError, match=rf"^{third}: not a tar header: .* \(byte 0\)"):
        shards["000002-000000"]
    size = last.stat().st_size
    os.truncate(last, size - 3 * BLOCK)
    with pytest.raises(ShardError, match=rf"^{last}: cut short in '000003-000007.txt' \(byte {size - 3 * BLOCK}\)"):
        shards["000003-000007"]
    first.unlink()
    with pytest.raises(ShardError, match=rf"^{first}: No such file"):
        shards[0]


def test_a_shard_that_is_cut_while_it_is_read_is_an_error(dataset: Path) -> None:
    shards = IndexedShards(dataset)
    assert len(shards[:]) == 16
    last = sorted(dataset.glob("*.tar"))[-1]
    os.truncate(last, 4 * BLOCK)
    with pytest.raises(ShardError, match=rf"^{last}: cut short"):
        shards[-1]


def test_what_a_manifest_says_is_checked_when_the_shards_are_opened(dataset: Path) -> None:
    paths = sorted(dataset.glob("*.tar"))
    content = paths[2].read_bytes()
    paths[2].write_bytes(content.replace(b'"frame": 6', b'"frame": 9'))
    assert len(IndexedShards(dataset)) == 16, "as long as it should be"
    with pytest.raises(ShardError, match=rf"^{paths[2]}: sha256 is .*, but its manifest says"):
        IndexedShards(dataset, verify=True)
    paths[2].write_bytes(content[:-BLOCK])
    with pytest.raises(ShardError, match=rf"^{paths[2]}: {len(content) - BLOCK} bytes long, but its manifest says"):
        IndexedShards(dataset)
    paths[2].unlink()
    with pytest.raises(ShardError, match=rf"^{paths[2]}: No such file"):
        IndexedShards(dataset)


def test_a_wrong_number_of_samples_is_an_error(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    info = manifest.shards[3]
    for said in (7, 9):
        shorter = manifest.with_shard(type(info)(**(vars(info) | {"samples": said})))
        shards = IndexedShards(sorted(dataset.glob("*.tar")), manifest=shorter)
        with pytest.raises(ShardError, match=rf"holds 8 samples, but its manifest says {said}"):
            shards[-1]


def test_a_bad_sample_is_an_error_that_names_its_member(tmp_path: Path) -> None:
    make_dataset(tmp_path, [2], lambda number: {"png": b"none", "json": b"{}"})
    with pytest.raises(SampleError, match=rf"^{tmp_path}/cubes-train-000000.tar: 000000-000001.png: not a readable"):
        IndexedShards(tmp_path)[1]
    assert IndexedShards(tmp_path, members=["annotations"])[1]["annotations"] == {}


def test_a_sample_that_is_too_large_is_not_read(dataset: Path) -> None:
    with pytest.raises(ShardError, match=r"sample '000000-000000' is larger than 2000 bytes \(byte 0\)"):
        IndexedShards(dataset, max_bytes=2000)[0]
    with pytest.raises(SampleError, match="8 x 6 pixels are more than 47"):
        IndexedShards(dataset, max_pixels=47)[0]


@pytest.mark.parametrize(
    ("source", "split", "kind", "message"),
    [
        ("nowhere", None, ShardError, "nowhere: No such file"),
        ("empty", None, ManifestError, "no dataset at .*empty"),
        ("{cubes", None, ShardError, "{cubes: "),
        ("cubes", "test", ShardError, "no shard of split 'test'; there is train"),
        ("http://127.0.0.1:1/a.tar", None, ShardError, "random access needs local files"),
    ],
)
def test_a_wrong_source_is_one_clear_line(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, source: str, split: str | None, kind: type[Exception], message: str
) -> None:
    monkeypatch.chdir(dataset.parent)
    Path("empty").mkdir()
    with pytest.raises(kind, match=message) as caught:
        IndexedShards(source, split=split)
    assert "\n" not in str(caught.value)
