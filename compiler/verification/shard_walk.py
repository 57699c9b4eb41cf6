"""One shard, read once from end to end: what in it is not as it was written, and in which sample."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import BinaryIO

from compiler.planning.sightings import Sightings
from compiler.verification.structure import Finding, SampleChecker, undecodable
from loaders.content import content_digest
from loaders.format import SAMPLE_DIGEST_DIGITS, kind_of, sample_digest
from loaders.layout import PlannedSample
from loaders.manifest import ShardInfo
from loaders.tarstream import BLOCK, Sample, TarStreamError, padded, read_samples, sample_record

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written."""

    file: str
    what: str
    key: str = ""
    """The sample in which it lies; empty for the file as a whole."""
    member: str = ""

    def __str__(self) -> str:
        sample = f" sample {self.key}:" if self.key else ""
        return f"{self.file}:{sample}{f' {self.member}:' if self.member else ''} {self.what}"


@dataclass
class ShardReport:
    """What was found in one shard."""

    name: str
    bytes: int
    """As in the manifest."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no damage, but should be known."""
    seen: Sightings = field(default_factory=Sightings)
    """What came into view, of annotations that are in order."""


class Tap:
    """A file that is digested as it is read.

    State: the digest, how much was read, and what was read since the last `take`.
    """

    def __init__(self, file: BinaryIO, due: int) -> None:
        self._due = due
        """Bytes that it should have; what is longer is measured, not read: a sparse file may be endless."""
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._file = file
        self._kept: list[bytes] = []

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and keep them."""
        content = self._file.read(size)
        self.sha256.update(content)
        self.size += len(content)
        self._kept.append(content)
        return content

    def take(self, size: int) -> bytes:
        """Return the first bytes that are kept, and keep them no longer."""
        content = b"".join(self._kept)
        self._kept = [content[size:]]
        return content[:size]

    def drain(self) -> int:
        """Read to the end, or beyond where it should be; return how much that was, to its very end."""
        before = self.size
        while self.size <= self._due and self.read(_CHUNK):
            self._kept.clear()
        if self.size > self._due:
            self.size = max(self.size, self._file.seek(0, os.SEEK_END))
        return self.size - before


class Walk:
    """The way through one shard.

    State: the report, which grows; how many samples were passed; the digest of their contents.
    """

    def __init__(
        self, shard: ShardInfo, due: list[PlannedSample], checker: SampleChecker | None, tap: Tap, report: ShardReport
    ) -> None:
        self._shard, self._due, self._checker, self._tap, self._report = shard, due, checker, tap, report
        self._passed = 0
        self._key = ""
        self._content = hashlib.sha256()

    def run(self) -> None:
        """Pass all samples, then compare what is said of the file as a whole."""
        whole = self._checker.members.keys() if self._checker else ()
        try:
            for sample in read_samples(self._tap, whole=whole or None):
                self._pass(sample, self._tap.take(sample.end - sample.offset))
        except TarStreamError as error:
            due = self._due[self._passed].key if self._passed < len(self._due) else ""
            after = f" (after sample {self._key})" if self._key and not due else ""
            self._blame(f"{error}{after}", due)
            self._tap.drain()
        else:
            if self._passed != self._shard.samples:
                self._blame(f"holds {self._passed} samples, not {self._shard.samples}")
            if beyond := self._tap.drain():
                self._blame(f"{beyond} bytes stand behind its end mark")
        self._conclude()

    def _conclude(self) -> None:
        shard, digest = self._shard, self._tap.sha256.hexdigest()
        if self._tap.size != shard.bytes:
            self._blame(f"has {self._tap.size} bytes, not {shard.bytes}")
        elif digest != shard.sha256:
            self._blame(f"its sha256 is {digest[:16]}..., not {shard.sha256[:16]}...")
        elif not self._report.problems and self._content.hexdigest() != shard.content_sha256:
            lossy = sorted(
                {"jpg", "webp"} & {kind_of(name) for name in (self._checker.members if self._checker else ())}
            )
            if lossy:  # their decoders may round otherwise in another release
                self._report.notes.append(f"{shard.name}: Pillow decodes {lossy[0]} to other pixels here")
            else:
                self._blame("its content_sha256 is another, though its sha256 is right")

    def _pass(self, sample: Sample, record: bytes) -> None:
        at, self._passed, self._key = self._passed, self._passed + 1, sample.key
        due = self._due[at] if at < len(self._due) else None
        if self._due and (due is None or sample.key != due.key):
            self._blame(f"stands where {due.key} is due" if due else "is one too many", sample.key)
            due = None
        known = len(self._report.problems)
        self._check_record(sample, record)
        for finding in self._checker.findings(sample, due, self._report.seen) if self._checker else ():
            if finding.damage:
                self._blame(finding.what, sample.key, finding.member)
            elif not self._report.notes:  # one a shard will do
                self._report.notes.append(str(Problem(self._shard.name, finding.what, sample.key, finding.member)))
        try:
            if self._checker is not None:  # else nothing tells how large an image may be, and the manifest is blamed
                self._content.update(content_digest(sample.key, sample.members, self._checker.members))
        except ValueError:
            described = self._checker.members if self._checker else {}
            finding = undecodable(sample, described) or Finding("", "cannot be decoded")
            if finding.member not in {problem.member for problem in self._report.problems[known:]}:
                self._blame(finding.what, sample.key, finding.member)
        digest = self._shard.sample_digests[at * SAMPLE_DIGEST_DIGITS :][:SAMPLE_DIGEST_DIGITS]
        if digest != sample_digest(record) and len(self._report.problems) == known:
            self._blame(f"is not as it was written (bytes {sample.offset} to {sample.end})", sample.key)

    def _check_record(self, sample: Sample, record: bytes) -> None:
        """Hold a sample's headers and padding to the bytes that alone are canonical."""
        try:
            canonical = sample_record(sample.key, sample.members)
        except ValueError as error:
            self._blame(str(error), sample.key)
            return
        if record != canonical:
            at = next(
                (at for at, (one, two) in enumerate(zip(record, canonical, strict=False)) if one != two), len(canonical)
            )
            place = f"byte {sample.offset + at}"
            self._blame(f"a header or a padding is not canonical ({place})", sample.key, _member_at(sample, at))

    def _blame(self, what: str, key: str = "", member: str = "") -> None:
        self._report.problems.append(Problem(self._shard.name, what, key, member))


def _member_at(sample: Sample, at: int) -> str:
    """Return the member in whose part of the record a byte lies."""
    for name, content in sorted(sample.members.items()):
        at -= BLOCK + padded(len(content))
        if at < 0:
            return name
    return ""
