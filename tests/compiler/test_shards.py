"""Shards: the same bytes whatever was thrown away, all or nothing under the final name, digests of what is meant."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from compiler.storage.writer import ShardWriter
from loaders.content import content_digest, decode_image
from loaders.files import write_atomically
from loaders.manifest import ShardInfo
from loaders.tarstream import END, read_samples, sample_record

Sample = tuple[str, dict[str, bytes]]

PIXELS = Image.linear_gradient("L").resize((12, 8)).convert("RGB")
NAME = "cubes-train-000000.tar"
PLAN = "5" * 64
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where syncing costs nothing."""


def encode(image_format: str = "PNG", picture: Image.Image = PIXELS, **options: Any) -> bytes:
    """Return the picture as a file."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def sample(number: int, size: int = 100) -> Sample:
    """Return a sample like no other, with so many bytes of keypoints."""
    members = {"png": encode(), "json": b'{"frame":%d}' % number, "keypoints.npy": bytes([number % 256]) * size}
    return f"000000-{number:06d}", members


def written(folder: Path, samples: list[Sample]) -> tuple[bytes, ShardInfo]:
    """Return the shard of these samples as it is written in one go."""
    writer = ShardWriter(folder / NAME, PLAN)
    for key, members in samples:
        writer.add(key, members)
    info = writer.commit(0)
    return (folder / NAME).read_bytes(), info


def test_a_shard_is_its_samples_records_and_says_what_it_is(tmp_path: Path) -> None:
    samples = [sample(number) for number in range(3)]
    content, info = written(tmp_path, samples)
    assert content == b"".join(sample_record(key, members) for key, members in samples) + END
    assert [(found.key, found.members) for found in read_samples(io.BytesIO(content))] == samples
    assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert (info.name, info.split, info.number, info.samples, info.bytes) == (NAME, "train", 0, 3, len(content))


_SIZES = st.lists(st.integers(0, 20_000), max_size=6)
_DETOURS = st.lists(st.tuples(st.lists(st.integers(0, 20_000), max_size=3), st.integers(0, 6)), max_size=3)


@given(_SIZES, _DETOURS)
def test_what_was_thrown_away_leaves_no_trace(sizes: list[int], detours: list[tuple[list[int], int]]) -> None:
    """Detours: so many samples are sealed, then others are written and thrown away."""
    samples = [sample(number, size) for number, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        straight = written(Path(folder), samples)
        writer = ShardWriter(Path(folder) / NAME, PLAN)
        for wrong, sealed in detours:
            for key, members in samples[writer.samples : sealed]:
                writer.add(key, members)
            writer.seal()
            kept = writer.samples
            for size in wrong:
                writer.add(*sample(99, size))
            writer.rollback()
            assert writer.samples == kept
        for key, members in samples[writer.samples :]:
            writer.add(key, members)
        info = writer.commit(0)
        assert ((Path(folder) / NAME).read_bytes(), info) == straight


def watch_syncs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Return a list that grows, with each fsync, by the sizes of all files in the folder at that time."""
    seen: list[dict[str, int]] = []
    monkeypatch.setattr(
        os, "fsync", lambda _: seen.append({path.name: path.stat().st_size for path in folder.iterdir()})
    )
    return seen


def test_nothing_has_the_final_name_before_it_is_whole_and_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(tmp_path / NAME, PLAN)
    writer.add(*sample(0))
    writer.seal()
    assert names(tmp_path) == [f"{NAME}.journal", f"{NAME}.part"]
    synced = watch_syncs(tmp_path, monkeypatch)
    size = writer.commit(0).bytes
    journal = {f"{NAME}.journal": (tmp_path / f"{NAME}.journal").stat().st_size}
    assert synced == [{**journal, f"{NAME}.part": size}, {**journal, NAME: size}]  # the file, then its folder
    writer.close()
    assert names(tmp_path) == [NAME, f"{NAME}.journal"]


def test_a_unit_is_on_the_disk_before_the_journal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ShardWriter(tmp_path / NAME, PLAN)
    key, members = sample(0)
    writer.add(key, members)
    synced = watch_syncs(tmp_path, monkeypatch)
    header, size = (tmp_path / f"{NAME}.journal").stat().st_size, len(sample_record(key, members))
    writer.seal()
    assert synced[0] == {f"{NAME}.part": size, f"{NAME}.journal": header}
    assert synced[1][f"{NAME}.journal"] > header
    writer.close()


def names(folder: Path) -> list[str]:
    """Return what is in the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_shard_without_a_sealed_unit_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / NAME, PLAN)
    writer.add(*sample(0))
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_decoded_is_not_appended(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / NAME, PLAN)
    key, members = sample(0)
    writer.add(key, members)
    for broken in (members["png"][:60], b"", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(ValueError, match="not a readable image"):
            writer.add("000000-000001", {**members, "png": broken})
    info = writer.commit(0)
    assert (info, (tmp_path / NAME).read_bytes()) == tuple(reversed(written(tmp_path, [sample(0)])))


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: writing more fails as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(("free", "left"), [(200, []), (3000, []), (6000, [f"{NAME}.journal", f"{NAME}.part"])])
def test_on_a_full_disk_a_shard_fails_and_leaves_what_was_sealed(tmp_path: Path, free: int, left: list[str]) -> None:
    writer = ShardWriter(tmp_path / NAME, PLAN)
    with full_disk(free):
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):  # noqa: PT012  (buffers choose which of them fails)
            writer.add(*sample(0, 3000))
            writer.commit(0)
        writer.close()
    assert names(tmp_path) == left


def test_a_shard_that_cannot_be_synced_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = written(tmp_path, [sample(0)])
    writer = ShardWriter(tmp_path / NAME, PLAN)
    writer.add(*sample(1))
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="lost"):
        writer.commit(0)
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == old


def failing(*_: object) -> None:
    """As a system call fails when the disk does."""
    raise OSError(errno.EIO, "the disk is lost")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    for content in (b"old", b"", b"new" * 100_000):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "dataset.json", b"old")
    synced = watch_syncs(tmp_path, monkeypatch)
    write_atomically(tmp_path / "dataset.json", b"newer")
    assert synced == [{"dataset.json": 3, "dataset.json.part": 5}, {"dataset.json": 5}]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "dataset.json"
    write_atomically(path, b"old")
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", failing)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", failing)
    with full_disk(free=1000 if step == "write" else 1 << 20), pytest.raises(OSError, match=r"lost|too large"):
        write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def told(text: str) -> PngImagePlugin.PngInfo:
    """Return a text chunk."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return info


MEMBERS = {"json": b"{}", "segmentation.npy": b"numbers"}
IMAGE_FILES = {
    "hardly compressed": {"png": encode(compress_level=1)},
    "well compressed": {"png": encode(compress_level=9)},
    "with text": {"png": encode(pnginfo=told("rendered at 12:34"))},
    "as lossless WebP": {"webp": encode("WEBP", lossless=True)},
}


def test_encodings_of_the_same_pixels_are_the_same_content() -> None:
    assert len({tuple(image.items()) for image in IMAGE_FILES.values()}) == len(IMAGE_FILES)
    assert len({content_digest("key", {**MEMBERS, **image}) for image in IMAGE_FILES.values()}) == 1


def test_another_pixel_annotation_key_or_member_is_another_content() -> None:
    pixel = PIXELS.copy()
    pixel.putpixel((11, 7), (254, 0, 0))
    image = {"png": encode()}
    samples = [
        ("key", {**MEMBERS, **image}),
        ("kez", {**MEMBERS, **image}),
        ("key", {**MEMBERS, "png": encode(picture=pixel)}),
        ("key", {**MEMBERS, "png": encode(picture=PIXELS.convert("L"))}),
        ("key", {**MEMBERS, "png": encode(picture=Image.frombytes("RGB", (8, 12), PIXELS.tobytes()))}),
        ("key", {**MEMBERS, **image, "json": b"[]"}),
        ("key", {"json": b"{}", **image, "depth.npy": b"numbers"}),
        ("key", {"json": b"{}", **image}),
        ("key", MEMBERS),
        ("key", {**MEMBERS, **image, "json": b"", "segmentation.npy": b"{}numbers"}),
    ]
    assert len({content_digest(key, members) for key, members in samples}) == len(samples)


def test_a_shards_content_digest_is_over_its_samples_in_order(tmp_path: Path) -> None:
    one, other = sample(0), sample(1)
    _, info = written(tmp_path, [one, other])
    assert info.content_sha256 == hashlib.sha256(content_digest(*one) + content_digest(*other)).hexdigest()
    again = {**other[1], "png": encode(compress_level=0)}
    _, recoded = written(tmp_path, [one, (other[0], again)])
    assert recoded.sha256 != info.sha256
    assert recoded.content_sha256 == info.content_sha256


@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6))
def test_a_damaged_image_gives_no_other_error(image_format: str, patches: list[tuple[int, int]]) -> None:
    content = bytearray(encode(image_format))
    for place, byte in patches:
        content[place % len(content)] = byte
    with suppress(ValueError):
        decode_image(bytes(content))


def test_only_the_three_formats_are_ever_decoded() -> None:
    # Pillow knows dozens of formats, and hands EPS to Ghostscript: a foreign dataset must not choose among them.
    for other in ("BMP", "GIF", "TIFF", "PPM"):
        with pytest.raises(ValueError, match="not a readable image"):
            decode_image(encode(other))
