"""Write one shard: canonical tar into a part file, which gets its name only when it is whole and on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from compiler.content import digest_sample
from loaders.manifest import ShardInfo
from loaders.tarstream import END, sample_record

PART_SUFFIX = ".part"


class ShardWriter:
    """Appends samples; `commit` gives the shard its name, `discard` leaves nothing.

    State: the part file's end and, for each sample in it, its record's length and content digest.
    """

    def __init__(self, path: Path) -> None:
        """Begin the shard that will be `path`.

        Raises:
            OSError: the part file cannot be made.
        """
        self.path = path
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._file = self._part.open("wb+")
        self._lengths: list[int] = []
        self._contents: list[bytes] = []

    @property
    def samples(self) -> int:
        """How many samples are in it."""
        return len(self._lengths)

    def add(self, key: str, members: Mapping[str, bytes]) -> bytes:
        """Append one sample; return its tar record, the bytes that the shard now holds.

        Raises:
            ValueError: an image that cannot be decoded; nothing is appended.
            OSError: no room, for instance.
        """
        content = digest_sample(key, members)
        record = sample_record(key, members)
        self._file.write(record)
        self._lengths.append(len(record))
        self._contents.append(content)
        return record

    def rewind(self, samples: int) -> None:
        """Keep the first `samples` samples only."""
        del self._lengths[samples:], self._contents[samples:]
        self._file.seek(sum(self._lengths))
        self._file.truncate()

    def commit(self, split: str, number: int) -> ShardInfo:
        """Close the tar, bring it to the disk, give it its name, and say what it is.

        Raises:
            OSError: it could not be written; the part file is gone.
        """
        try:
            self._file.write(END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.seek(0)
            sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
            size = self._file.tell()
            self._file.close()
            self._part.replace(self.path)
        except OSError:
            self.discard()
            raise
        sync_folder(self.path.parent)
        content = hashlib.sha256(b"".join(self._contents)).hexdigest()
        return ShardInfo(self.path.name, split, number, self.samples, size, sha256, content)

    def discard(self) -> None:
        """Close and remove the part file."""
        with suppress(OSError):  # no room for what was buffered; it is thrown away in any case
            self._file.close()
        self._part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; whatever happens, a reader finds the old or the new, whole.

    Raises:
        OSError: it could not be written; the old one is still there.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # an interrupt, too
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the system lets a folder be synced (Windows does not)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
