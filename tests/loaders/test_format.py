"""The format has one home: its names are read as they are written, and no other module spells them out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs.orders import IMAGE_QUALITY, LONGEST_SIDE, MOST_PIXELS
from loaders.content import MAX_PIXELS
from loaders.format import (
    IMAGES,
    MOST_NUMBER,
    SampleKey,
    dataset_name,
    is_dataset_name,
    is_shard_file,
    is_shard_name,
    meaning_of,
    member_of,
    shard_file_in,
    shard_name,
    view_of,
    views_of,
)

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = st.integers(0, MOST_NUMBER - 1)


@given(NUMBERS, NUMBERS)
def test_a_key_is_read_as_it_is_written(shard: int, sample: int) -> None:
    assert SampleKey.parse(str(SampleKey(shard, sample))) == (shard, sample)


@pytest.mark.parametrize(
    "text",
    [
        *("", "000003", "000003-", "3-42", "000003-42", "0000003-000042", "000003-0000042", "-00003-000042"),
        *("000003-000042 ", "000003-000042\n", " 000003-000042", "000003_000042", "000003-000042-000001"),
        *("٠٠٠٠٠٣-٠٠٠٠٤٢", "000003-00004２", "1000000000-000000", "000000-1000000000", "0" * 5000 + "-000000"),
    ],
)
def test_no_other_spelling_is_a_key(text: str) -> None:
    assert SampleKey.parse(text) is None


@given(st.text(max_size=14) | st.from_regex(r"\d{5,10}-\d{5,10}", fullmatch=True))
def test_what_is_read_as_a_key_is_spelled_as_one(text: str) -> None:
    parsed = SampleKey.parse(text)
    assert parsed is None or str(parsed) == text


@given(st.text(min_size=1, max_size=20), NUMBERS)
def test_a_shards_name_is_known_by_its_dataset(stem: str, number: int) -> None:
    dataset = dataset_name(stem)
    name = shard_name(dataset, number)
    assert is_dataset_name(dataset)
    assert is_shard_file(name)
    assert is_shard_name(name, dataset)
    assert not is_shard_name(name, f"{dataset}2")
    assert not is_shard_name(f"{name}.part", dataset)
    assert shard_file_in(f"https://example.org/data/{name}?token=a.b") == name


@pytest.mark.parametrize(
    "name", ["cubes-train-7.tar", "cubes-train-0000007.tar", "cubes-train-00000٣.tar", "cubes-train-.tar", "x.tar"]
)
def test_no_other_file_is_a_shard_of_the_dataset(name: str) -> None:
    assert not is_shard_name(name, "cubes")


def test_members_of_a_view_begin_alike() -> None:
    for camera, prefix in (("", ""), ("left", "left.")):
        members = [member_of(camera, name) for name in ("png", "json", "keypoints.npy", "depth.npy")]
        assert {view_of(members[0]), view_of(members[1])} == {prefix}
        assert views_of(members) == [prefix]
        assert views_of(members[1:]) == views_of([members[0], *members[2:]]) == []
        assert [meaning_of(name) for name in members] == [f"{prefix}image", *members[1:]]


def test_images_are_those_that_blender_is_asked_for() -> None:
    assert IMAGES.keys() == IMAGE_QUALITY.keys() == LONGEST_SIDE.keys()
    assert MAX_PIXELS == MOST_PIXELS


HOMES = {
    "loaders/format.py": "names, keys and digests",
    "loaders/content.py": "images and arrays",
    "loaders/manifest.py": "the manifest",
    "loaders/files.py": "files that are replaced as a whole",
}

OF_THE_FORMAT = {
    "a sample's key in a pattern": r"(\\d|\[0-9\])(\{\d,?\d*\}|\+)\)?-\(?(\\d|\[0-9\])",
    "a key or a shard's number spelled out": r"^0[69]d$|:06d",
    "a shard's file name in a pattern": r"\\\.tar",
    "the name of the split": r"^train$",
    "a Pillow format": r"^(JPEG|WEBP)$",
}
"""Texts that only a home may hold, as patterns."""

CALLS = {"load", "read_magic", "read_array_header_1_0", "read_array_header_2_0"}
"""Of numpy: they read arrays."""


def strays(tree: ast.AST) -> Iterator[str]:
    """Yield what in a module belongs to a home of the format, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for what, pattern in OF_THE_FORMAT.items():
                if "\n" not in node.value and re.search(pattern, node.value):
                    yield f"line {node.lineno}: {what}"
        elif isinstance(node, ast.Attribute):
            if node.attr in CALLS and isinstance(node.value, ast.Name) and node.value.id in ("np", "npy", "numpy"):
                yield f"line {node.lineno}: an array is read"
            if node.attr == "to_json":
                yield f"line {node.lineno}: a manifest is written"
        elif isinstance(node, ast.ImportFrom) and re.search(r"PIL\.\w+ImagePlugin", node.module or ""):
            yield f"line {node.lineno}: a decoder of images"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (r"re.compile(r'(\d{6,})-(\d{6,})')", "a sample's key in a pattern"),
        (r"re.compile('[0-9]+-[0-9]+')", "a sample's key in a pattern"),
        ("f'{shard:06d}-{at:06d}'", "a key or a shard's number spelled out"),
        (r"re.compile(r'[a-z]*\.tar')", "a shard's file name in a pattern"),
        ("SPLIT = 'train'", "the name of the split"),
        ("kinds = {'jpg': 'JPEG'}", "a Pillow format"),
        ("np.load(file)", "an array is read"),
        ("(target / FILE_NAME).write_bytes(self.manifest.to_json())", "a manifest is written"),
        ("from PIL.PngImagePlugin import PngImageFile", "a decoder of images"),
    ],
)
def test_the_reader_sees_each_stray(line: str, what: str) -> None:
    # A reader that overlooks them would let the next test pass.
    assert what in "".join(strays(ast.parse(line)))


@pytest.mark.parametrize("home", HOMES)
def test_each_home_holds_something_of_the_format(home: str) -> None:
    assert (ROOT / home).is_file()


def test_the_format_has_one_home() -> None:
    found = {}
    for package in ("compiler", "loaders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in HOMES and (stray := list(strays(ast.parse(path.read_text(encoding="utf-8"))))):
                found[name] = stray
    assert not found
