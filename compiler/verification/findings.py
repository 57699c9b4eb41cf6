"""What a verification found, as lines for people and JSON for programs."""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compiler.errors import VerificationFailed
from compiler.planning.document import source_digests
from compiler.planning.sightings import Sightings
from compiler.storage import failures, sources
from compiler.storage.existing import LOCK_NAME
from compiler.storage.journal import JOURNAL_SUFFIX
from compiler.terminal import counted
from loaders.files import PART_SUFFIX
from loaders.manifest import FILE_NAME, Manifest


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


_SHOWN = 5
"""Problems of one file that are spelled out for people; JSON has all."""


@dataclass(frozen=True)
class DirectoryListing:
    """What else is in a dataset's directory, and what is not: no damage, but worth a word."""

    missing: list[tuple[int, int]]
    """Runs of numbers below the highest that the manifest does not list: the first and the last of each."""
    unfinished: list[str]
    """Part files and their journals: a build that was interrupted, or that runs."""
    unknown: list[str]
    """Files that are no part of the dataset."""


def look_around(folder: Path, manifest: Manifest) -> DirectoryListing:
    """Compare a directory's listing with the manifest."""
    numbers = [shard.number for shard in manifest.shards]
    known = {FILE_NAME, LOCK_NAME, failures.FILE_NAME, sources.FOLDER, *(shard.name for shard in manifest.shards)}
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in known)
    strangers += _strange_sources(folder / sources.FOLDER, manifest)
    unfinished = [name for name in strangers if name.endswith((PART_SUFFIX, JOURNAL_SUFFIX))]
    return DirectoryListing(
        [(low + 1, high - 1) for low, high in itertools.pairwise([-1, *numbers]) if high > low + 1],
        unfinished,
        [name for name in strangers if name not in unfinished],
    )


def _strange_sources(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files among the copies of the job's sources that are none of them: code without a digest.

    It is never run: see `blender_jobs._worker.loading`. Links are named, not followed.
    """
    known, found = source_digests(manifest), []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*files, *links]:
            path = Path(place, name)
            if path.is_symlink() or path.relative_to(folder).as_posix() not in known:
                found.append(f"{sources.FOLDER}/{path.relative_to(folder).as_posix()}")
    return sorted(found)


@dataclass(frozen=True)
class Outcome:
    """All that a verification found."""

    folder: Path
    manifest: Manifest
    problems: list[Problem]
    notes: list[str]
    around: DirectoryListing
    seen: Sightings = field(default_factory=Sightings)

    @property
    def damaged(self) -> list[str]:
        """The names of the damaged files."""
        return sorted({problem.file for problem in self.problems})

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "shards": len(self.manifest.shards),
            "samples": self.manifest.samples,
            "bytes": self.manifest.bytes,
            "digest": self.manifest.digest,
            "damaged": self.damaged,
            "problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
            **self.seen.as_json(),
            "missing_shards": self.around.missing,
            "skipped_samples": len(self.manifest.skipped),
            "unfinished_files": self.around.unfinished,
            "unknown_files": self.around.unknown,
        }

    def lines(self) -> list[str]:
        """Return it for people."""
        lines = []
        for file in self.damaged:
            found = [str(problem) for problem in self.problems if problem.file == file]
            lines += found[:_SHOWN]
            if len(found) > _SHOWN:
                lines.append(f"{file}: and {len(found) - _SHOWN} more")
        lines += [f"Note: {note}" for note in (*self.notes, *self.seen.notes())]
        if self.around.missing:
            lines.append(f"Note: {_runs(self.around.missing)} not rendered yet")
        if self.manifest.skipped:
            lines.append(f"Note: skipped while rendering: {counted(len(self.manifest.skipped), 'sample')}")
        lines += [f"Note: {name} is unfinished" for name in self.around.unfinished]
        lines += [f"Note: {name} is not in the manifest" for name in self.around.unknown]
        state = counted(len(self.damaged), "damaged file") if self.problems else "ok"
        held = f"{counted(len(self.manifest.shards), 'shard')}, {counted(self.manifest.samples, 'sample')}"
        return [*lines, f"{held}, digest {self.manifest.digest}: {state}"]

    def check(self) -> None:
        """Raise VerificationFailed where anything is damaged."""
        if self.problems:
            more = f" and {len(self.damaged) - _SHOWN} more" if len(self.damaged) > _SHOWN else ""
            raise VerificationFailed(
                f"{self.folder}: damaged: {', '.join(self.damaged[:_SHOWN])}{more}",
                "run the command that made the dataset again: it renders damaged shards again",
            )


def _runs(runs: list[tuple[int, int]]) -> str:
    shown = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in runs[:_SHOWN])
    more = f" and {left} more" if (left := sum(high - low + 1 for low, high in runs[_SHOWN:])) else ""
    lone = len(runs) == 1 and runs[0][0] == runs[0][1]
    return f"{'shard' if lone else 'shards'} {shown}{more}"
