"""The journal of a part file: which of its bytes are whole and on the disk, so that a build continues after them.

JSON lines: first the plan's digest, then one for each unit after which rendering can continue: an episode, or the whole
shard where the job reuses its scene. A line is written when the unit's bytes are on the disk, and holds their sha256:
whatever a power failure leaves of the part file or of the journal, what passes `recover` is what was rendered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from compiler.planning import schemas
from loaders.content import content_digest
from loaders.files import read_regular
from loaders.format import kind_of, sample_digest
from loaders.tarstream import TarStreamError, read_samples, sample_record

JOURNAL_SUFFIX = ".journal"

_MOST_BYTES = 256 << 20
"""Of a journal: of a million samples it has 30 MB."""


@dataclass(frozen=True)
class Entry:
    """One unit of a shard, as its line in the journal says."""

    keys: list[str]
    """Of its samples, in order."""
    sha256: str = ""
    """Over the unit's bytes in the part file."""
    skipped: str = ""
    """Why the unit was left out; such a one has no bytes."""

    def line(self) -> bytes:
        """Return it as the journal holds it."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Stored:
    """A sample in a part file."""

    length: int
    """Of its record, bytes."""
    record: str
    """`sample_digest` of the record."""
    content: bytes
    """`content_digest`."""


@dataclass
class Recovered:
    """What an earlier run left of a shard and this one need not render again."""

    entries: list[Entry] = field(default_factory=list)
    samples: list[Stored] = field(default_factory=list)
    annotations: schemas.Schema = "null"
    """Gathered from all samples."""

    def add(self, entry: Entry, unit: Recovered) -> None:
        """Append one more unit.

        Raises:
            SchemaConflict: its annotations do not go with those before; nothing is appended.
        """
        self.annotations = schemas.merge(self.annotations, unit.annotations)
        self.entries.append(entry)
        self.samples += unit.samples


def journal_of(shard: Path) -> Path:
    """Return where the journal of a shard is."""
    return shard.with_name(shard.name + JOURNAL_SUFFIX)


def header(plan_digest: str) -> bytes:
    """Return a journal's first line."""
    return json.dumps({"plan": plan_digest}).encode() + b"\n"


def read_entries(journal: Path, plan_digest: str) -> list[Entry]:
    """Return the journal's entries up to the first line that is not whole; none where it is of another plan.

    Raises:
        OSError: it is there, but cannot be read.
    """
    try:
        first, *lines = read_regular(journal, _MOST_BYTES).split(b"\n")[:-1] or [b""]
    except FileNotFoundError:
        return []
    if first + b"\n" != header(plan_digest):
        return []
    entries = []
    for line in lines:
        try:
            entries.append(_parse(line))
        except (ValueError, TypeError, RecursionError):
            break
    return entries


def recover(
    part: Path, entries: Sequence[Entry], due: Sequence[list[str]], whole: Collection[str], skipping: bool
) -> Recovered:
    """Return the units at the start of `part` that can be kept; reads one sample at a time.

    Args:
        part: the part file, or the shard under its final name that no manifest knows yet.
        entries: the journal's.
        due: the keys of each unit, as the plan numbers them.
        whole: the members of each sample, as the plan says; a mapping tells their shapes, too.
        skipping: keep skipped units skipped; otherwise nothing after the first of them is kept.
    """
    found = Recovered()
    try:
        with part.open("rb") as file:
            source = _Digesting(file)
            samples = _checked(source, whole)
            for entry, keys in zip(entries, due, strict=False):
                if entry.keys != keys or (entry.skipped and not skipping):
                    break
                found.add(entry, Recovered() if entry.skipped else _unit(entry, source, samples))
    except (OSError, TarStreamError, ValueError, StopIteration):
        pass  # it ends where it is damaged; what is kept ends before
    return found


class _Digesting:
    """Reads a file; `digest` is over all bytes read since it was set, padding included."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _parse(line: bytes) -> Entry:
    entry = Entry(**json.loads(line))
    if not (isinstance(entry.keys, list) and isinstance(entry.sha256, str) and isinstance(entry.skipped, str)):
        raise ValueError(f"not an entry: {line!r}")
    return entry


def _checked(source: _Digesting, whole: Collection[str]) -> Iterator[tuple[str, Stored, schemas.Schema]]:
    """Yield each sample's key, what is known of it and its annotations' schema, as its last byte is read.

    Raises:
        TarStreamError, ValueError: it is not whole, an image cannot be decoded, annotations are not JSON.
    """
    for sample in read_samples(source, whole=whole):
        views = [json.loads(content) for name, content in sample.members.items() if kind_of(name) == "json"]
        gathered: schemas.Schema = "null"
        for view in views:
            gathered = schemas.merge(gathered, schemas.schema_of(view))
        record = sample_digest(sample_record(sample.key, sample.members))
        content = content_digest(sample.key, sample.members, whole if isinstance(whole, Mapping) else {})
        stored = Stored(sample.end - sample.offset, record, content)
        yield sample.key, stored, gathered


def _unit(entry: Entry, source: _Digesting, samples: Iterator[tuple[str, Stored, schemas.Schema]]) -> Recovered:
    """Read one unit.

    Raises:
        ValueError, StopIteration: it is not the one that the journal says.
    """
    unit, source.digest = Recovered(), hashlib.sha256()
    for due in entry.keys:
        key, stored, annotations = next(samples)
        if key != due:
            raise ValueError(f"{key} is where {due} was written")
        unit.samples.append(stored)
        unit.annotations = schemas.merge(unit.annotations, annotations)
    if source.digest.hexdigest() != entry.sha256:
        raise ValueError(f"the bytes of {entry.keys[0]} and of the samples after it are not those that were written")
    return unit
