"""Write one shard: canonical tar into a part file, which gets its name only when it is whole and on the disk.

What is sealed meanwhile survives the compiler: see `compiler.storage.journal`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from io import BufferedRandom, BufferedWriter
from pathlib import Path

from compiler.storage.journal import Entry, Recovered, Stored, header, journal_of, read_entries, recover
from loaders.content import content_digest
from loaders.files import PART_SUFFIX, open_own, sync_folder, write_atomically
from loaders.format import SPLIT, sample_digest
from loaders.manifest import ShardInfo
from loaders.tarstream import END, sample_record


class ShardWriter:
    """Appends samples; `seal` makes them last, `commit` gives the shard its name, `close` leaves what is sealed.

    State: the samples that are in the part file, those after the last seal among them, and the journal's entries.
    """

    def __init__(self, path: Path, plan_digest: str, kept: Recovered | None = None) -> None:
        """Begin the shard that will be `path`, or continue after what was kept of it (`find_kept`).

        Raises:
            OSError: the part file or its journal cannot be made.
        """
        self.path = path
        self.kept = kept or Recovered()
        self._part = part_of(path)
        if self.kept.entries and not self._part.exists():
            path.replace(self._part)  # the compiler died before the manifest knew the shard
        self._file = open_own(self._part, "rb+" if self._part.exists() else "wb+")
        self._samples = list(self.kept.samples)
        self._sealed = len(self._samples)
        self._go_to_end()
        lines = [header(plan_digest), *(entry.line() for entry in self.kept.entries)]
        write_atomically(journal_of(path), b"".join(lines))
        self._journal = open_own(journal_of(path), "ab+")
        self._unit = _Unit()

    @property
    def samples(self) -> int:
        """How many samples are in it."""
        return len(self._samples)

    def add(self, key: str, members: Mapping[str, bytes]) -> bytes:
        """Append one sample; return its tar record, the bytes that the shard now holds.

        Raises:
            ValueError: an image that cannot be decoded; nothing is appended.
            OSError: no room, for instance.
        """
        content = content_digest(key, members)
        record = sample_record(key, members)
        self._file.write(record)
        self._samples.append(Stored(len(record), sample_digest(record), content))
        self._unit.add(key, record)
        return record

    def seal(self) -> None:
        """Bring the samples since the last seal to the disk and enter them as one unit: a crash cannot take them.

        Raises:
            OSError: no room, for instance; the unit is not sealed.
        """
        _sync(self._file)
        self._enter(Entry(self._unit.keys, self._unit.digest.hexdigest()))
        self._sealed, self._unit = len(self._samples), _Unit()

    def skip(self, keys: list[str], reason: str) -> None:
        """Enter that a unit is left out. Raises OSError as `seal`."""
        self.rollback()
        self._enter(Entry(keys, skipped=reason))

    def rollback(self) -> None:
        """Throw away the samples after the last seal."""
        del self._samples[self._sealed :]
        self._unit = _Unit()
        self._go_to_end()

    def commit(self, number: int) -> ShardInfo:
        """Close the tar, bring it to the disk, give it its name, and say what it is.

        The journal stays: until the manifest knows the shard, it alone can tell that the file is whole.

        Raises:
            OSError: it could not be written; what was sealed stays as a part.
        """
        try:
            if self._unit.keys:
                self.seal()
            self._file.write(END)
            _sync(self._file)
            self._file.seek(0)
            sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
            size = self._file.tell()
            self._file.close()
            self._part.replace(self.path)
        except OSError:
            self.close()
            raise
        self._journal.close()
        sync_folder(self.path.parent)
        content = hashlib.sha256(b"".join(sample.content for sample in self._samples)).hexdigest()
        records = "".join(sample.record for sample in self._samples)
        return ShardInfo(self.path.name, SPLIT, number, self.samples, size, sha256, content, records)

    def close(self) -> None:
        """Leave what is sealed for the next run, and nothing else; nothing changes once the shard is committed."""
        if self._journal.closed:
            return
        for file in (self._file, self._journal):
            with suppress(OSError):  # no room for what was buffered, which is thrown away in any case
                file.close()
        if self._sealed:
            with suppress(OSError):  # a tail that stays is cut off by the next run
                os.truncate(self._part, self._end(self._sealed))
        else:
            self._part.unlink(missing_ok=True)
            journal_of(self.path).unlink(missing_ok=True)

    def _enter(self, entry: Entry) -> None:
        self._journal.write(entry.line())
        _sync(self._journal)

    def _end(self, samples: int) -> int:
        return sum(sample.length for sample in self._samples[:samples])

    def _go_to_end(self) -> None:
        self._file.seek(self._end(self.samples))
        self._file.truncate()


class _Unit:
    """The samples after the last seal: their keys, and a digest over their records."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.digest = hashlib.sha256()

    def add(self, key: str, record: bytes) -> None:
        self.keys.append(key)
        self.digest.update(record)


def part_of(shard: Path) -> Path:
    """Return where a shard is while it is written."""
    return shard.with_name(shard.name + PART_SUFFIX)


def find_kept(
    shard: Path, plan_digest: str, due: Sequence[list[str]], whole: Collection[str], skipping: bool
) -> Recovered:
    """Return what an earlier run left of a shard that no manifest knows; see `compiler.storage.journal.recover`.

    The compiler may have died between the shard's getting its name and its entry into the manifest.

    Raises:
        OSError: the journal cannot be read.
    """
    part = part_of(shard)
    entries = read_entries(journal_of(shard), plan_digest)
    return recover(part if part.exists() else shard, entries, due, whole, skipping)


def _sync(file: BufferedRandom | BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
