"""Comparison: what differs is named and measured, what does not is not; equal datasets compare as equal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compiler.cli.diff import _ranges
from compiler.errors import UsageError
from compiler.storage.published import Published, folder_of
from compiler.verification.diff import DatasetDifference, Difference, compare_members, diff
from loaders.layout import ShardLayout
from loaders.manifest import FILE_NAME, RECORDED, Manifest
from loaders.tarstream import read_samples
from tests.commands import TINY, forked, ok
from tests.planned_dataset import Recipe, make, write_manifest, write_shard
from tests.synthetic import image_bytes, npy_bytes

_PIXELS = np.full((4, 6, 3), 100, np.uint8)


def only(a: dict[str, bytes], b: dict[str, bytes]) -> Difference:
    """Return the one difference of two samples."""
    (difference,) = compare_members(a, b)
    return difference


def compared(a: Path, b: Path, limit: int = 10) -> DatasetDifference:
    """Return how two datasets differ."""
    return diff(Published.load(a), Published.load(b), limit)


@given(st.dictionaries(st.sampled_from(["png", "json", "left.json", "depth.npy", "txt"]), st.binary(), max_size=5))
def test_equal_bytes_are_equal_whatever_they_are(members: dict[str, bytes]) -> None:
    assert compare_members(members, dict(members)) == []


@given(
    st.dictionaries(st.sampled_from(["png", "json", "depth.npy", "keypoints.npy", "txt"]), st.binary(), max_size=5),
    st.dictionaries(st.sampled_from(["jpg", "json", "depth.npy", "keypoints.npy", "txt"]), st.binary(), max_size=5),
)
def test_garbage_is_compared_too(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    found = [difference.member for difference in compare_members(a, b)]
    lone = {name for name in {*a} ^ {*b} if name not in ("png", "jpg")}
    other = {name for name in {*a} & {*b} if a[name] != b[name]}
    assert lone | other <= set(found)
    assert len(found) == len(set(found))


def test_pixels_are_measured() -> None:
    other = _PIXELS.copy()
    other[0, 0] = (103, 99, 100)
    found = only({"png": image_bytes(_PIXELS)}, {"png": image_bytes(other)})
    rmse = np.sqrt((9 + 1) / _PIXELS.size)
    assert found.figures == {
        "max": 3,
        "mean": pytest.approx(4 / _PIXELS.size),
        "psnr_db": pytest.approx(20 * np.log10(255 / rmse)),
        "pixels": 1,
    }
    assert "differs by at most 3" in found.what
    assert "in 1 of 24 pixels" in found.what


def test_images_are_paired_by_what_they_are() -> None:
    found = only({"left.png": image_bytes(_PIXELS)}, {"left.webp": image_bytes(_PIXELS, "WEBP", lossless=True)})
    assert (found.member, found.what) == ("left.png/left.webp", "other bytes, the same pixels")
    assert found.figures["psnr_db"] is None


def test_images_of_other_sizes_are_not_subtracted() -> None:
    found = only({"png": image_bytes(_PIXELS)}, {"png": image_bytes(_PIXELS[:, :5])})
    assert found.what == "6x4 RGB and 5x4 RGB"


_FLOATS = arrays.arrays(np.float32, (3, 4), elements=st.floats(width=32))


@given(_FLOATS, _FLOATS)
def test_arrays_are_measured_nan_and_infinity_included(a: Any, b: Any) -> None:
    members = [{"depth.npy": npy_bytes(array)} for array in (a, b)]
    if members[0] == members[1]:
        return
    differing = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    found = only(*members).figures
    assert found["values"] == differing.sum()
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))[differing]
    finite = bool(np.isfinite(apart).all())
    assert found["max"] == (pytest.approx(apart.max(initial=0)) if finite else None)


def test_arrays_of_another_kind_are_told_by_their_shapes() -> None:
    a, b = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float16)
    assert only({"x.npy": npy_bytes(a)}, {"x.npy": npy_bytes(b)}).what == "float32 [2, 3] and float16 [2, 3]"


def test_keypoints_are_measured_in_pixels_where_they_are_before_the_camera() -> None:
    rows = np.array([[1, 1, 2, 5], [2, 2, 2, 5], [0, 0, 0, -1]], np.float32)
    other = rows.copy()
    other[0, :2] += (3, 4)
    other[1, 2:] = (1, 5.5)
    other[2, :2] = (900, 900)
    found = only({"left.keypoints.npy": npy_bytes(rows)}, {"left.keypoints.npy": npy_bytes(other)})
    assert found.figures == {"max_px": 5.0, "mean_px": 2.5, "max_depth_m": 0.5, "visibility": 1}


def test_annotations_are_told_by_their_paths() -> None:
    a = {"objects": [{"bbox": [1.0, 2.0]}, {"bbox": []}], "frame": 1, "seed": 0, "only": 1}
    b = {"objects": [{"bbox": [1.0, 2.5]}], "frame": 1.0, "seed": 0}
    found = only({"json": json.dumps(a).encode()}, {"json": json.dumps(b).encode()})
    assert found.what == ("frame: 1 and 1.0; objects[0].bbox[1]: 2.0 and 2.5; objects has 2 and 1 items; and 1 more")
    assert found.figures == {"paths": 4}


def test_other_bytes_are_told_by_their_place() -> None:
    assert only({"txt": b"abc"}, {"txt": b"abd"}).what == "differs from byte 2"
    assert only({"txt": b"abc"}, {"txt": b"ab"}).what == "3 and 2 bytes"
    assert only({"txt": b"", "json": b""}, {"json": b""}).what == "only in the first"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of one shape: ``a``, ``same``, ``longer`` with a shard more, ``seed`` with another seed."""
    folder = tmp_path_factory.mktemp("datasets")
    recipe = Recipe(cameras=("left", "right"), passes=("depth",))
    for name, changes in {"a": {}, "same": {}, "longer": {"shards": 4}, "seed": {"seed": 1}}.items():
        make(folder / name, replace(recipe, **changes))
    return folder


def test_equal_datasets_are_equal_without_being_read(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.verification.diff.samples_of", None)
    found = compared(datasets / "a", datasets / "same")
    assert found.equal
    assert (found.shards_same, found.samples_compared) == (3, 0)


def test_a_longer_dataset_begins_with_the_shorter(datasets: Path) -> None:
    found = compared(datasets / "a", datasets / "longer")
    assert not found.equal
    assert (found.plan, found.shards_same, found.shards_only_in_second) == ([], 3, [3])
    assert compared(datasets / "longer", datasets / "a").shards_only_in_first == [3]


def test_another_seed_is_another_dataset_in_every_sample(datasets: Path) -> None:
    found = compared(datasets / "a", datasets / "seed", limit=2)
    assert found.plan == [("seed", 0, 1)]
    assert (found.samples_compared, found.samples_different, len(found.described)) == (15, 15, 2)
    assert set(found.members_different.values()) == {15}
    members = [difference.member for difference in found.described[0].members]
    kinds = ["depth.npy", "json", "keypoints.npy", "png"]
    assert sorted(members) == sorted(f"{view}.{kind}" for view in ("left", "right") for kind in kinds)


def test_provenance_is_told_but_does_not_count(datasets: Path, tmp_path: Path) -> None:
    manifest = make(tmp_path / "b", Recipe(cameras=("left", "right"), passes=("depth",)))
    (tmp_path / "b" / "dataset.json").write_bytes(replace(manifest, provenance={"python": "3.13"}).to_json())
    found = compared(datasets / "a", tmp_path / "b")
    assert found.equal
    assert [path for path, *_ in found.provenance] == ["job_path", "python"]


def test_a_lone_sample_is_told(tmp_path: Path) -> None:
    make(tmp_path / "a", Recipe(shards=1))
    make(tmp_path / "b", Recipe(shards=1, samples_per_shard=4))
    for one, other, where in (("a", "b", "first"), ("b", "a", "second")):
        found = compared(tmp_path / one, tmp_path / other)
        assert [(sample.key, sample.only_in) for sample in found.described] == [("000000-000004", where)]
        assert (found.samples_compared, found.samples_different) == (5, 1)


def test_a_damaged_shard_is_trouble_not_a_difference(datasets: Path, tmp_path: Path) -> None:
    manifest = make(tmp_path / "b")
    path = tmp_path / "b" / manifest.shards[1].name
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match=path.name):
        compared(datasets / "a", tmp_path / "b")


def recording_of(folder: Path, source: Path) -> Path:
    """Write a copy of a dataset that claims to be a recording, its samples in another order."""
    manifest = Manifest.load(source)
    shard = manifest.shards[0]
    with (source / shard.name).open("rb") as file:
        samples = [(sample.key, sample.members) for sample in read_samples(file)]
    folder.mkdir()
    there = write_shard(folder, ShardLayout.parse(manifest.plan), 0, samples[::-1])
    write_manifest(folder, replace(manifest, provenance={RECORDED: ""}, shards=(there,)))
    return folder


def test_recordings_are_not_paired_by_place(tmp_path: Path) -> None:
    """They stand in the order of arrival; what is byte by byte the same needs no pairing."""
    make(tmp_path / "a", Recipe(shards=1))
    recording = recording_of(tmp_path / "b", tmp_path / "a")
    for one, other in ((tmp_path / "a", recording), (recording, tmp_path / "a")):
        with pytest.raises(UsageError, match=r"b: a recording of a live tee has no plan's order"):
            compared(one, other)
    assert compared(recording, recording).equal


def test_samples_out_of_order_are_trouble_not_a_difference(tmp_path: Path) -> None:
    make(tmp_path / "a", Recipe(shards=1))
    recording = recording_of(tmp_path / "b", tmp_path / "a")
    write_manifest(recording, replace(Manifest.load(recording), provenance={}))
    with pytest.raises(UsageError, match="sample 000000-000003 comes after 000000-000004"):
        compared(tmp_path / "a", recording)


def test_a_dataset_is_named_by_its_directory_or_its_manifest(datasets: Path) -> None:
    ours, theirs = datasets / "a" / FILE_NAME, datasets / "seed" / FILE_NAME
    assert folder_of(ours) == datasets / "a" == folder_of(datasets / "a")
    by_file = forked("diff", ours, theirs, "--json")
    assert by_file.returncode == 1
    assert by_file.stdout == forked("diff", datasets / "a", datasets / "seed", "--json").stdout


def test_numbers_are_drawn_together() -> None:
    assert _ranges([0, 3, 4, 5, 9, 10]) == "0, 3 to 5, 9 to 10"


@pytest.mark.slow
def test_two_builds_of_one_plan_are_equal_and_of_two_seeds_are_not(tmp_path: Path) -> None:
    for name, seed, instances in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        chosen = ["--seed", seed, "--instances", instances, "--out", tmp_path / name]
        ok(*TINY, "--shards", 2, "--samples-per-shard", 3, *chosen)
        ok("verify", tmp_path / name)
    assert forked("diff", tmp_path / "a", tmp_path / "b").returncode == 0
    other = forked("diff", tmp_path / "a", tmp_path / "c", "--limit", 1, "--json")
    found = json.loads(other.stdout)
    assert (other.returncode, found["equal"], found["shards_different"]) == (1, False, [0, 1])
    assert [path for path, *_ in found["plan"]] == ["seed"]
    (sample,) = found["described"]
    figures = {member["member"]: member["figures"] for member in sample["members"]}
    assert figures["png"]["max"] > 0
    assert figures["keypoints.npy"]["max_px"] > 0
    assert "sample 000000-000000 png: differs by at most" in forked("diff", tmp_path / "a", tmp_path / "c").stdout
    assert forked("diff", tmp_path / "a", tmp_path / "nowhere").returncode == 2
    assert Manifest.load(tmp_path / "a") == Manifest.load(tmp_path / "b")
