"""Internal, shared with the compiler: the format of a dataset, its names and digests.

A dataset is a directory with a manifest, ``dataset.json``, and shards: tars of samples.

    falling_cubes-train-000003.tar      a shard: `shard_name`
    000003-000042.png                   a member of one of its samples: `SampleKey`, a dot, the member's name
    000003-000042.left.depth.npy        a member of the camera ``left``: `member_of`

`loaders.tarstream` has the tar, `loaders.content` the content of members, `loaders.manifest` the manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

SPLIT = "train"
"""The split that the compiler puts shards into."""

MOST_NUMBER = 10**9
"""The numbers of shards, and of samples in a shard, are below this."""

IMAGES = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
"""The kinds of members that hold an image, and Pillow's names of their formats."""

SAMPLE_DIGEST_DIGITS = 8
"""Hexadecimal digits of the digest of a sample's record: few, as a dataset may hold millions."""

SHARD_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar"
"""A pattern for the file names of shards. None leads out of the directory."""

_NUMBER = "[0-9]{6}|[1-9][0-9]{6,8}"
_KEY = re.compile(f"({_NUMBER})-({_NUMBER})")
_PLAIN = re.compile("[A-Za-z0-9_-]+")
_MEMBER = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_DATASET = re.compile("[A-Za-z0-9_][A-Za-z0-9_-]*")
_SHARD_FILE = re.compile(SHARD_FILE)


class SampleKey(NamedTuple):
    """A sample's key: ``000003-000042`` is sample 42 of shard 3. Unique in a dataset."""

    shard: int
    sample: int

    def __str__(self) -> str:
        return f"{self.shard:06d}-{self.sample:06d}"

    @classmethod
    def parse(cls, text: str) -> SampleKey | None:
        """Return the key whose canonical form this is; None for any other text."""
        match = _KEY.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match else None


def is_plain(text: str) -> bool:
    """Return whether a text has only characters of A-Z a-z 0-9 _ -, as all keys from a tee do."""
    return _PLAIN.fullmatch(text) is not None


def dataset_name(stem: str) -> str:
    """Return the name of a job file's dataset, in characters that suit file names; `stem` is without the suffix."""
    return re.sub(r"^-|[^A-Za-z0-9_-]+", "_", stem)


def is_dataset_name(text: str) -> bool:
    """Return whether this is a valid name for a dataset, with which its shards' file names begin."""
    return _DATASET.fullmatch(text) is not None


def shard_name(dataset: str, number: int) -> str:
    """Return the file name of a dataset's shard."""
    return f"{dataset}-{SPLIT}-{number:06d}.tar"


def is_shard_name(text: str, dataset: str) -> bool:
    """Return whether a file name is that of a shard of the dataset, of any number."""
    number = text.removeprefix(f"{dataset}-{SPLIT}-").removesuffix(".tar")
    return re.fullmatch(_NUMBER, number) is not None and text == shard_name(dataset, int(number))


def is_shard_file(text: str) -> bool:
    """Return whether a manifest may use this file name for a shard."""
    return _SHARD_FILE.fullmatch(text) is not None


def shard_file_in(url: str) -> str:
    """Return the last word in a URL that looks like a shard's file name; empty if there is none.

    URLs carry queries, and those that begin with ``pipe:`` are shell commands.
    """
    names = _SHARD_FILE.findall(url)
    return names[-1] if names else ""


def is_member(text: str) -> bool:
    """Return whether this is a valid member name: plain words with dots between them."""
    return _MEMBER.fullmatch(text) is not None


def member_of(camera: str, name: str) -> str:
    """Return a member's name with its camera: ``left.png``; with an empty camera, ``png``."""
    return f"{camera}.{name}" if camera else name


def kind_of(member: str) -> str:
    """Return a member's kind of file: ``npy`` for ``keypoints.npy``, ``png`` for ``png`` and ``left.png``."""
    return member.rpartition(".")[2]


def view_of(member: str) -> str:
    """Return the prefix of a view's member names: ``left.`` for ``left.json``, empty for ``json``.

    Args:
        member: the view's image or its annotations.
    """
    return member.removesuffix(kind_of(member))


def views_of(members: Iterable[str]) -> list[str]:
    """Return the sorted prefixes (see `view_of`) of a sample's views: those with both an image and annotations."""
    names = frozenset(members)
    images = {view_of(name) for name in names if kind_of(name) in IMAGES}
    return sorted(view for view in images if f"{view}json" in names)


def meaning_of(member: str) -> str:
    """Return a member's name without its image format: ``image`` for ``png``, ``left.image`` for ``left.jpg``."""
    return f"{view_of(member)}image" if kind_of(member) in IMAGES else member


def canonical_json(value: object) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys and no NaN: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def sample_digest(record: bytes) -> str:
    """Return the first digits of the sha256 of a sample's tar record, for `ShardInfo.sample_digests`."""
    return hashlib.sha256(record).hexdigest()[:SAMPLE_DIGEST_DIGITS]
