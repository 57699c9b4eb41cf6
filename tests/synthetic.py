"""Small datasets as the compiler writes them, without Blender."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaders.format import sample_digest
from loaders.manifest import FILE_NAME, Manifest, ShardInfo
from loaders.tarstream import END, sample_record

Members = Callable[[int], dict[str, bytes]]


def key_of(shard: int, sample: int) -> str:
    """Return the key of a sample."""
    return f"{shard:06d}-{sample:06d}"


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return `array` as a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def image_bytes(pixels: NDArray[np.uint8], image_format: str = "PNG", **options: Any) -> bytes:
    """Return `pixels` (uint8, (H, W, 3)) as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


def pixels_of(number: int) -> NDArray[np.uint8]:
    """Return the picture of sample `number` of a dataset: uint8, (6, 8, 3)."""
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def keypoints_of(number: int) -> NDArray[np.float32]:
    """Return the keypoints of sample `number`: float32, (8, 4)."""
    return np.random.default_rng(number).random((8, 4), dtype=np.float32)


def full_members(number: int) -> dict[str, bytes]:
    """Return all that a sample can hold."""
    return {
        "png": image_bytes(pixels_of(number)),
        "json": json.dumps({"frame": number, "objects": [{"name": "cube"}] * (number % 3)}).encode(),
        "keypoints.npy": npy_bytes(keypoints_of(number)),
        "depth.npy": npy_bytes(np.full((6, 8), number, np.float32)),
        "segmentation.npy": npy_bytes(np.full((6, 8), number, np.uint16)),
        "txt": f"sample {number}".encode(),
    }


def tiny_members(number: int) -> dict[str, bytes]:
    """Return the least that tells samples apart: quick to read, for tests of the order."""
    return {"json": b'{"frame": %d}' % number}


def shard_records(shard: int, samples: int, first: int, members: Members) -> list[bytes]:
    """Return the tar records of a shard whose samples are `first` and following of the dataset."""
    return [sample_record(key_of(shard, place), members(first + place)) for place in range(samples)]


def shard_bytes(shard: int, samples: int, first: int, members: Members) -> bytes:
    """Return a whole shard whose samples are `first` and following of the dataset."""
    return b"".join(shard_records(shard, samples, first, members)) + END


def make_dataset(
    folder: Path, counts: Sequence[int], members: Members = tiny_members, splits: Sequence[str] = ("train",)
) -> list[Path]:
    """Write shards with `counts` samples and their manifest; shard `i` is of split ``splits[i % len(splits)]``."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest, first = Manifest("cubes", {"seed": 0}, {"members": {}}, {}), 0
    for number, samples in enumerate(counts):
        split = splits[number % len(splits)]
        content = shard_bytes(number, samples, first, members)
        digest, name = hashlib.sha256(content).hexdigest(), f"cubes-{split}-{number:06d}.tar"
        each = "".join(sample_digest(record) for record in shard_records(number, samples, first, members))
        info = ShardInfo(name, split, number, samples, len(content), digest, digest, each)
        (folder / info.name).write_bytes(content)
        manifest, first = manifest.with_shard(info), first + samples
    (folder / FILE_NAME).write_bytes(manifest.to_json())
    return [folder / info.name for info in manifest.shards]
