"""What a directory holds of a dataset: what would be lost if it were begun anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compiler.storage import failures
from compiler.storage.journal import JOURNAL_SUFFIX, read_entries
from loaders.manifest import Manifest


@dataclass(frozen=True)
class Remains:
    """Finished shards, and whole episodes of shards that were begun."""

    shards: int
    """Finished: the manifest knows them."""
    samples: int
    """In these."""
    begun: int
    """Shards of which whole episodes are kept."""
    kept: int
    """Samples in these."""
    unknown: int
    """Further .tar files, of which nothing tells what they are."""
    failed_in: int | None
    """The episode in which the job failed, and behind which nobody has come since; None: in none."""

    @property
    def of_use(self) -> bool:
        """Whether a build could go on with it.

        A job that fails stops every build of its plan at the same episode: the plan is given up with the job.
        """
        return bool(self.shards or self.unknown or (self.kept and self.failed_in is None))

    def __str__(self) -> str:
        finished = f"{_count(self.shards, 'finished shard')} with {_count(self.samples, 'sample')}"
        begun = f"{_count(self.begun, 'shard')} begun, with {_count(self.kept, 'sample')} in whole episodes"
        unknown = f"{_count(self.unknown, '.tar file')} that the manifest does not know"
        found = [finished] * bool(self.shards) + [begun] * bool(self.begun) + [unknown] * bool(self.unknown)
        return ", and ".join(found) or "nothing whole"


def find(folder: Path, manifest: Manifest) -> Remains:
    """Return what is there of the dataset that the manifest describes.

    Raises:
        OSError: it cannot be read.
    """
    known = {shard.name for shard in manifest.shards}
    journals = _journals(folder, manifest.plan_digest)
    begun = {name: keys for name, keys in journals if keys and name not in known}
    whole = {key for keys in begun.values() for key in keys}
    unknown = sum(path.name not in known and path.name not in begun for path in folder.glob("*.tar"))
    return Remains(len(known), manifest.samples, len(begun), len(whole), unknown, _failed_in(folder, whole))


def _journals(folder: Path, plan_digest: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each shard's name, and the keys of the samples that its journal says are whole."""
    for path in sorted(folder.glob(f"*.tar{JOURNAL_SUFFIX}")):
        entries = read_entries(path, plan_digest)
        yield path.name.removesuffix(JOURNAL_SUFFIX), [k for entry in entries if not entry.skipped for k in entry.keys]


def _failed_in(folder: Path, whole: set[str]) -> int | None:
    """Return where the job failed, unless a later run has come past it: then something passing was the cause."""
    for entry in failures.read(folder):
        key, episode = entry.get("sample"), entry.get("episode")
        if entry.get("what") != failures.JOB_FAILED or not isinstance(key, str) or not isinstance(episode, int):
            continue
        if key not in whole:
            return episode
    return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
