"""Tar records: the same bytes for the same sample, the same sample from the same bytes, and an error for all else."""

from __future__ import annotations

import hashlib
import io
import string
import tarfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from loaders.tarstream import (
    BLOCK,
    END,
    MAX_NAME,
    MemberPlace,
    Sample,
    TarStreamError,
    parse_sample,
    read_places,
    read_samples,
    sample_record,
)

Members = dict[str, bytes]

SAMPLES: list[tuple[str, Members]] = [
    ("000003-000000", {"png": b"\x89PNG" + bytes(600), "json": b'{"frame": 1}', "keypoints.npy": b""}),
    ("000003-000001", {"png": bytes(range(256)) * 2, "json": b"{}", "keypoints.npy": b"\x93NUMPY"}),
]
"""Contents of all lengths that matter: none, less than a block, a block exactly, more than one."""
NAMES = {"png", "json", "keypoints.npy"}

_NAME = st.text(string.ascii_letters + string.digits + "-_ ~", min_size=1, max_size=40)
_MEMBER = st.builds(".".join, st.lists(_NAME, min_size=1, max_size=2)).filter(lambda name: len(name) <= 50)
_MEMBERS = st.dictionaries(_MEMBER, st.binary(max_size=3 * BLOCK), min_size=1, max_size=4)


def tar(samples: list[tuple[str, Members]]) -> bytes:
    """Return a shard of these samples."""
    return b"".join(sample_record(key, members) for key, members in samples) + END


def read(content: bytes) -> list[tuple[str, Members]]:
    """Return all samples of a shard in memory."""
    return [(sample.key, sample.members) for sample in read_samples(io.BytesIO(content))]


class Dribble:
    """A stream that gives 1 to n bytes a read, as a socket does."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._file, self._sizes = io.BytesIO(content), cycle(sizes)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, next(self._sizes)))


def test_the_format_stays() -> None:
    # Shards of the same plan must be equal across releases of Blendshard, Python and its tarfile.
    assert (
        hashlib.sha256(tar(SAMPLES)).hexdigest() == "5b95f0d2607038d4e953260e265550dd6dfd187c5c3eee0ce4f13c5c9a0924dd"
    )


def test_pythons_tarfile_reads_canonical_headers(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(tar(SAMPLES))
    with tarfile.open(path, "r:") as archive:
        entries = archive.getmembers()
        found = {entry.name: archive.extractfile(entry).read() for entry in entries}  # type: ignore[union-attr]
    assert list(found.items()) == [
        (f"{key}.{name}", members[name]) for key, members in SAMPLES for name in sorted(members)
    ]
    for entry in entries:
        assert entry.isreg()
        assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, 0, "", "", 0o644)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves files to the collector
def test_webdataset_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(tar(SAMPLES))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    for (key, members), sample in zip(SAMPLES, found, strict=True):
        assert sample["__key__"] == key
        assert {name: content for name, content in sample.items() if not name.startswith("__")} == members


@given(st.dictionaries(_NAME, _MEMBERS, max_size=4), st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_what_was_written_is_read_through_any_stream(samples: dict[str, Members], sizes: list[int]) -> None:
    content = tar(list(samples.items()))
    found = list(read_samples(Dribble(content, sizes)))
    assert [(sample.key, sample.members) for sample in found] == list(samples.items())
    for sample in found:
        record = content[sample.offset : sample.end]
        assert record == sample_record(sample.key, sample.members)
        assert parse_sample(record, sample.offset) == sample
    places = list(read_places(io.BytesIO(content), len(content)))
    assert [place.key for place in places] == [key for key, members in samples.items() for _ in members]
    assert [0, *(place.end for place in places)] == [*(place.offset for place in places), len(content) - len(END)]


@given(st.text(max_size=120), st.text(max_size=120))
def test_a_name_is_written_only_if_it_reads_back(key: str, member: str) -> None:
    try:
        record = sample_record(key, {member: b"content"})
    except ValueError:
        return
    assert read(record + END) == [(key, {member: b"content"})]


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("", "png"),
        ("a.b", "png"),
        ("a/b", "png"),
        ("a\0b", "png"),
        ("ä", "png"),
        ("a", ""),
        ("a", "b/c"),
        ("a", "\n"),
        ("k" * (MAX_NAME - len(".png") + 1), "png"),
    ],
)
def test_a_name_that_would_not_read_back_is_refused(key: str, member: str) -> None:
    with pytest.raises(ValueError, match=r"sample key|member name"):
        sample_record(key, {member: b""})


def test_the_longest_name_reads_back() -> None:
    samples = [("k" * (MAX_NAME - len(".png")), {"png": b"content"})]
    assert read(tar(samples)) == samples


def test_a_sample_without_members_is_refused() -> None:
    # It would vanish.
    with pytest.raises(ValueError, match="no members"):
        sample_record("a", {})


@pytest.mark.parametrize("known", ["nothing", "whole", "usual"])
def test_every_cut_is_an_error_behind_the_whole_samples(known: str) -> None:
    content = tar(SAMPLES)
    complete = list(read_samples(io.BytesIO(content)))
    names: dict[str, Any] = {} if known == "nothing" else {known: NAMES}
    # Where nothing is known, the first sample ends where the next header stands, and shows what the second must have.
    given_at = [complete[0].end + (0 if names else BLOCK), complete[1].end]
    for size in range(len(content)):
        found: list[Sample] = []
        with pytest.raises(TarStreamError, match=f"cut short.* {size}"):
            found.extend(read_samples(io.BytesIO(content[:size]), **names))
        assert found == [sample for sample, at in zip(complete, given_at, strict=True) if at <= size]
        places: list[MemberPlace] = []
        with pytest.raises(TarStreamError, match="cut short"):
            places.extend(read_places(io.BytesIO(content[:size]), size))
        assert all(place.end <= size for place in places)


def test_where_samples_differ_the_one_before_damage_is_not_taken_for_whole() -> None:
    members: list[tuple[str, Members]] = [("a", {"x": b"", "y": b""}), ("b", {"x": b""}), ("c", {"x": b"", "y": b""})]
    content = tar(members)
    for blocks, expected in ((2, []), (3, ["a"]), (4, ["a", "b"]), (5, ["a", "b"])):
        found: list[str] = []
        with pytest.raises(TarStreamError, match="cut short"):
            found.extend(sample.key for sample in read_samples(io.BytesIO(content[: blocks * BLOCK])))
        assert found == expected


def test_every_cut_record_is_an_error() -> None:
    record = sample_record(*SAMPLES[0])
    assert parse_sample(record) == Sample(*SAMPLES[0], offset=0, end=len(record))
    with pytest.raises(TarStreamError, match=rf"cut short .*\(byte {7 + len(record) - 1}\)"):
        parse_sample(record[:-1], offset=7)
    boundaries = set()
    for size in range(len(record)):
        try:
            parse_sample(record[:size])
        except TarStreamError:
            continue
        boundaries.add(size)
    # A record may end behind any member; who asks for it knows how long it is.
    assert boundaries == {place.end for place in read_places(io.BytesIO(record + END), len(record))} - {len(record)}


def test_every_flipped_bit_of_a_header_is_an_error_or_changes_nothing() -> None:
    content = tar(SAMPLES[:1])
    whole = read(content)
    accepted = 0
    for bit in range(8 * BLOCK):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert read(bytes(damaged)) == whole
            accepted += 1
        except TarStreamError:
            pass
    assert accepted < 32  # spaces and zeros around the checksum's own digits


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: object) -> bytes:
    """Return any ustar or GNU header."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in more.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE = {
    "symbolic link": (header("a.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "not a regular file"),
    "hard link": (header("a.png", tarfile.LNKTYPE, linkname="a.json"), "not a regular file"),
    "device": (header("a.png", tarfile.CHRTYPE), "not a regular file"),
    "folder": (header("a.png/", tarfile.DIRTYPE), "not a regular file"),
    "sparse file": (header("a.png", tarfile.GNUTYPE_SPARSE), "not a regular file"),
    "pax header": (header("a.png", tarfile.XHDTYPE), "not a regular file"),
    "global pax header": (header("a.png", tarfile.XGLTYPE), "not a regular file"),
    "GNU long name": (header("a" * 101 + ".png"), "not a regular file"),
    "absolute name": (header("/etc/a.png"), "leads out"),
    "absolute name at the root": (header("/a.png"), "leads out"),
    "parent folder": (header("data/../../a.png"), "leads out"),
    "no member": (header("a"), "not <key>.<member>"),
    "hidden file": (header("data/.png"), "not <key>.<member>"),
    "member twice": (header("a.png") * 2, "appears twice"),
    "too large": (header("a.png", size=2000), "larger than 1000 bytes"),
    "too large together": (header("a.json", size=600) + bytes(1024) + header("a.png", size=600), "larger than"),
    "larger than any disk": (header("a.png", size=1 << 80), "larger than"),
    "negative size": (header("a.png", size=-5), "not a regular file"),
    "lone zero block": (header("a.png") + bytes(BLOCK) + header("b.png"), "lone zero block"),
    "not a tar": (b"<!DOCTYPE html>".ljust(BLOCK), "not a tar header"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_tars_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(TarStreamError, match=reason):
        list(read_samples(io.BytesIO(content + END), max_bytes=1000))


def test_the_largest_size_is_that_of_all_members_together() -> None:
    size = max(sum(map(len, members.values())) for _, members in SAMPLES)
    assert len(list(read_samples(io.BytesIO(tar(SAMPLES)), max_bytes=size))) == len(SAMPLES)
    with pytest.raises(TarStreamError, match=f"larger than {size - 1} bytes"):
        list(read_samples(io.BytesIO(tar(SAMPLES)), max_bytes=size - 1))


READERS: list[Callable[[bytes], object]] = [
    lambda content: list(read_samples(io.BytesIO(content), max_bytes=1 << 20)),
    lambda content: list(read_samples(io.BytesIO(content), whole=NAMES, max_bytes=1 << 20)),
    lambda content: list(read_places(io.BytesIO(content), len(content))),
    parse_sample,
]


def with_checksum(block: bytes) -> bytes:
    """Return a header whose checksum is right, whatever else it says."""
    plain = block[:148] + b" " * 8 + block[156:]
    return plain[:148] + b"%06o\0 " % sum(plain) + plain[156:]


@given(st.lists(st.tuples(st.integers(0, BLOCK - 1), st.binary(min_size=1, max_size=16)), min_size=1, max_size=4))
def test_no_header_gives_another_error(patches: list[tuple[int, bytes]]) -> None:
    content = bytearray(tar(SAMPLES[:1]))
    for place, patch in patches:
        content[place : place + len(patch)] = patch
    content[:BLOCK] = with_checksum(bytes(content[:BLOCK]))
    for reader in READERS:
        try:
            reader(bytes(content))
        except TarStreamError:
            continue


class Arriving:
    """A stream on which no more than `arrived` bytes have come; to wait for others is a failure."""

    def __init__(self, content: bytes) -> None:
        self._content, self._position = content, 0
        self.arrived = 0

    def read(self, size: int, /) -> bytes:
        part = self._content[self._position : min(self.arrived, self._position + size)]
        assert part, "waits for bytes beyond the sample"
        self._position += len(part)
        return part


def test_a_sample_known_to_be_whole_is_given_as_its_last_byte_arrives() -> None:
    stream = Arriving(tar(SAMPLES))
    samples: Iterator[Sample] = read_samples(stream, whole=NAMES)
    for key, members in SAMPLES:
        stream.arrived += len(sample_record(key, members))
        assert next(samples).members == members


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_sample_with_other_members_is_not_whole(lacking: int) -> None:
    samples = [(key, dict(members)) for key, members in SAMPLES]
    del samples[lacking][1]["json"]
    with pytest.raises(TarStreamError, match=f"'{samples[lacking][0]}' lacks .*json"):
        list(read_samples(io.BytesIO(tar(samples)), whole=NAMES))
    with pytest.raises(TarStreamError, match="is not one of"):
        list(read_samples(io.BytesIO(tar(SAMPLES)), whole=NAMES - {"json"}))


def test_a_record_holds_one_sample() -> None:
    with pytest.raises(TarStreamError, match="is in the record of"):
        parse_sample(tar(SAMPLES)[: -len(END)])
    with pytest.raises(TarStreamError, match="no sample"):
        parse_sample(b"")
