"""Internal, shared with the compiler: samples written to and read from tars, in shards on disk and in the live tee.

A sample is a key and named bytes. In a tar it is a run of regular files called ``<key>.<member>``, sorted by member;
the member is what follows the first dot (WebDataset's rule). Headers are canonical ustar: mtime 0, uid and gid 0, no
user names, mode 0644, so the bytes depend only on the sample.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two zero blocks, which end a tar. A shard without them was cut."""

MAX_NAME = 100
"""Longest ``<key>.<member>`` in bytes that a ustar header holds without a prefix."""

DEFAULT_MAX_BYTES = 1 << 30
"""Largest sample (without headers) that a reader accepts by default."""


class TarStreamError(ValueError):
    """The bytes are not a stream of whole samples; the message says where and why."""


class Readable(Protocol):
    """Anything with a blocking ``read(n)`` that returns fewer bytes only at the end or as they arrive."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


@dataclass(frozen=True)
class Sample:
    """A key and its named bytes, with their place in the stream."""

    key: str
    members: dict[str, bytes]
    """Member name (``png``, ``json``, ``keypoints.npy``) to content, in the order of the tar."""
    offset: int
    """Bytes from the start of the stream to the sample's first header."""
    end: int
    """Bytes from the start of the stream to the end of the sample's last padding block."""


def sample_record(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return the canonical tar bytes of one sample, padding included.

    Raises:
        ValueError: a key or a member name that readers could not return, or no members.
    """
    if not key or "." in key or "/" in key:
        raise ValueError(f"sample key {key!r} must not be empty or hold a dot or a slash")
    if not members:
        raise ValueError(f"sample {key!r} has no members")
    return b"".join(_member_record(key, member, members[member]) for member in sorted(members))


def _member_record(key: str, member: str, content: bytes) -> bytes:
    name = f"{key}.{member}"
    if not member or "/" in member:
        raise ValueError(f"member name {name!r} must have something after its dot, and no slash")
    if not (name.isascii() and name.isprintable()) or len(name) > MAX_NAME:
        raise ValueError(f"member name {name!r} must be at most {MAX_NAME} printable ASCII characters")
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + content + bytes(-len(content) % BLOCK)


def read_samples(
    stream: Readable,
    *,
    whole: Collection[str] | None = None,
    usual: Collection[str] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Iterator[Sample]:
    """Yield whole samples in the order of the stream, holding one at a time.

    Args:
        stream: a tar as bytes: an open file, a socket's file, an HTTP response.
        whole: the member names of a complete sample, if known. Each sample is then yielded as its last byte arrives,
            and one with other members is an error. Otherwise a sample ends where the next begins, or where the stream
            is damaged, if it has its usual members by then.
        usual: the member names that samples usually have; by default those of the first one. Samples may have others.
        max_bytes: largest sum of member sizes in one sample.

    Raises:
        TarStreamError: not ustar, cut short, a name that leads out of the tar, a member twice, or a sample that is too
            large or incomplete.
    """
    expected = frozenset(whole) if whole is not None else None
    draft, position, names = None, 0, UsualMembers(usual)
    try:
        while (header := _read_header(stream, position)) is not None:
            key, member = _split_name(header.name, position)
            if draft and draft.key != key:
                names.note(draft.members)
                yield draft.finished(expected)
                draft = None
            draft = draft or _Draft(key, position)
            draft.admit(header, member, expected, max_bytes)
            draft.members[member] = _read_content(stream, header, position)
            position = draft.end
            if draft.members.keys() == expected:
                yield draft.finished()
                draft = None
    except (TarStreamError, OSError):
        if draft and draft.end == position and names.are(draft.members):
            yield draft.finished()
        raise
    if draft:
        yield draft.finished(expected)


class UsualMembers:
    """The names that all samples of a tar have. They tell whether the last sample before damage is whole."""

    def __init__(self, names: Collection[str] | None = None) -> None:
        """Take the names, if known; otherwise the first sample's are used."""
        self._names = frozenset(names or ())
        self._known, self._differ = bool(names), False

    def note(self, names: Collection[str]) -> None:
        """Learn from a whole sample."""
        if not self._names:
            self._names = frozenset(names)
        self._differ = self._differ or (not self._known and self._names != frozenset(names))

    def are(self, names: Collection[str]) -> bool:
        """Return whether a sample that may lack some of its members has them all."""
        return bool(self._names) and not self._differ and self._names == frozenset(names)


def parse_sample(record: bytes, offset: int = 0) -> Sample:
    """Return the sample whose whole record, headers and padding included, is in memory.

    Args:
        record: the bytes of one sample, as from `sample_record`.
        offset: where the record was in its stream, for errors and the sample's place.

    Raises:
        TarStreamError: not ustar, cut short, a member twice, or more than one sample.
    """
    draft, position = None, offset
    while position < offset + len(record):
        start = position - offset + BLOCK
        header = _parse_header(record[start - BLOCK : start], position)
        key, member = _split_name(header.name, position)
        draft = draft or _Draft(key, offset)
        if key != draft.key:
            raise TarStreamError(f"sample {key!r} is in the record of {draft.key!r} (byte {position})")
        draft.admit(header, member)
        position = draft.end
        if position > offset + len(record):
            raise TarStreamError(f"cut short in {header.name!r} (byte {offset + len(record)})")
        draft.members[member] = record[start : start + header.size]
    if not draft:
        raise TarStreamError(f"no sample (byte {offset})")
    return draft.finished()


class _Draft:
    """The sample that is being read.

    State: the contents of its members so far, the sum of their sizes, and where the last admitted one ends.
    """

    def __init__(self, key: str, offset: int) -> None:
        self.key, self.offset, self.end = key, offset, offset
        self.size = 0
        self.members: dict[str, bytes] = {}

    def admit(
        self,
        header: tarfile.TarInfo,
        member: str,
        expected: Collection[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        """Check the member whose header is at `end`, and move `end` past it."""
        if member in self.members:
            raise TarStreamError(f"member {header.name!r} appears twice (byte {self.end})")
        if expected is not None and member not in expected:
            raise TarStreamError(f"member {header.name!r} is not one of {sorted(expected)} (byte {self.end})")
        if self.size + header.size > max_bytes:
            raise TarStreamError(f"sample of {header.name!r} is larger than {max_bytes} bytes (byte {self.end})")
        self.size += header.size
        self.end += BLOCK + padded(header.size)

    def finished(self, expected: Collection[str] | None = None) -> Sample:
        """Return the sample, which must have the expected members."""
        if lacking := sorted(set(expected or ()) - self.members.keys()):
            raise TarStreamError(f"sample {self.key!r} lacks {lacking} (byte {self.end})")
        return Sample(self.key, self.members, self.offset, self.end)


@dataclass(frozen=True)
class MemberPlace:
    """Where one member is in a tar."""

    key: str
    """Its sample's key."""
    member: str
    offset: int
    """Bytes from the start of the tar to its header."""
    end: int
    """Bytes from the start of the tar to the end of its padding."""


def read_places(file: BinaryIO, size: int) -> Iterator[MemberPlace]:
    """Yield the place of each member in a file of `size` bytes, of which only headers are read.

    Raises:
        TarStreamError: not ustar, or cut short.
    """
    position = 0
    while (header := _read_header(file, position)) is not None:
        key, member = _split_name(header.name, position)
        end = position + BLOCK + padded(header.size)
        if end > size:
            raise TarStreamError(f"cut short in {header.name!r} (byte {size})")
        yield MemberPlace(key, member, position, end)
        position = file.seek(end)


def padded(size: int) -> int:
    """Return the size in a tar of content of `size` bytes, without its header."""
    return size + -size % BLOCK


def _read_exactly(stream: Readable, size: int) -> bytes:
    """Read until there are `size` bytes or the stream ends: a socket returns what has arrived so far."""
    first = stream.read(size) if size > 0 else b""
    if len(first) in (0, size):
        return first
    gathered = io.BytesIO()  # unlike a list of parts, it returns its bytes without another copy
    gathered.write(first)
    while gathered.tell() < size and (part := stream.read(size - gathered.tell())):
        gathered.write(part)
    return gathered.getvalue()


def _read_header(stream: Readable, position: int) -> tarfile.TarInfo | None:
    """Return the next member's header, or None at the end mark."""
    block = _read_exactly(stream, BLOCK)
    if len(block) < BLOCK:
        raise TarStreamError(f"cut short: no end mark (byte {position + len(block)})")
    if any(block):
        return _parse_header(block, position)
    second = _read_exactly(stream, BLOCK)
    if any(second):
        raise TarStreamError(f"a lone zero block among the members (byte {position})")
    if len(second) < BLOCK:
        raise TarStreamError(f"cut short in the end mark (byte {position + BLOCK + len(second)})")
    return None


def _parse_header(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise TarStreamError(f"not a tar header: {error} (byte {position})") from None
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.size < 0:
        raise TarStreamError(f"{header.name!r} is not a regular file (byte {position})")
    return header


def _split_name(name: str, position: int) -> tuple[str, str]:
    folder, slash, basename = name.rpartition("/")
    stem, _, member = basename.partition(".")
    if not name.isprintable():  # in a message it would move the terminal's cursor
        raise TarStreamError(f"member name {name!r} is not printable (byte {position})")
    if not stem or not member:
        raise TarStreamError(f"member name {name!r} is not <key>.<member> (byte {position})")
    if slash and (not folder or folder[0] == "/" or ".." in folder.split("/")):
        raise TarStreamError(f"member name {name!r} leads out of the tar (byte {position})")
    return folder + slash + stem, member


def _read_content(stream: Readable, header: tarfile.TarInfo, position: int) -> bytes:
    content = _read_exactly(stream, header.size)
    padding = _read_exactly(stream, -header.size % BLOCK) if len(content) == header.size else b""
    if len(content) + len(padding) < padded(header.size):
        raise TarStreamError(f"cut short in {header.name!r} (byte {position + BLOCK + len(content) + len(padding)})")
    return content
