"""The dataset's directory: who may write there, what is finished in it, and its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compiler.errors import UsageError, disk_error
from compiler.planning import schemas
from compiler.planning.plan import Plan
from compiler.storage import failures
from compiler.storage.destination import with_annotations
from compiler.storage.existing import LOCK_NAME, not_writable, peek
from compiler.storage.failures import Failure
from compiler.storage.journal import JOURNAL_SUFFIX, journal_of
from compiler.storage.writer import ShardWriter, find_kept, part_of
from loaders.files import PART_SUFFIX, open_regular
from loaders.format import is_shard_name
from loaders.manifest import FILE_NAME, Manifest, ShardInfo


@dataclass
class DatasetDirectory:
    """A directory that this process alone writes to.

    State: `manifest`, always as it is on the disk.
    """

    path: Path
    plan: Plan
    manifest: Manifest
    started_over: str = ""
    """Why what was there was removed unasked, in a line; empty if it was not."""

    def damaged(self) -> list[ShardInfo]:
        """Return the shards of the manifest whose files are not what it says.

        The journal of one that is whole has served, if there is no part file: a crash left it.
        """
        damaged = [shard for shard in self.manifest.shards if _shard_problem(self.path, shard)]
        whole = {shard.name for shard in self.manifest.shards} - {shard.name for shard in damaged}
        for journal in self.path.glob(f"*{JOURNAL_SUFFIX}"):
            shard_path = journal.with_name(journal.name.removesuffix(JOURNAL_SUFFIX))
            if shard_path.name in whole and not part_of(shard_path).exists():
                journal.unlink()
        return damaged

    def writer(self, number: int, skipping: bool) -> ShardWriter:
        """Begin a shard in the directory, or continue after what an earlier run left of it.

        Raises:
            OSError: its part file cannot be made.
        """
        path, digest = self.path / self.plan.layout.shard_name(number), self.plan.digest
        units = [[sample.key for sample in episode.samples] for episode in self.plan.episodes(number)]
        if self.plan.job.reuse_scene:
            units = [[key for keys in units for key in keys]]
        return ShardWriter(path, digest, find_kept(path, digest, units, self.plan.members(), skipping))

    def record(self, shard: ShardInfo, annotations: schemas.Schema, skipped: Mapping[str, str]) -> None:
        """Enter a finished shard into the manifest; then its journal has served.

        Args:
            shard: the shard.
            annotations: their schema.
            skipped: the keys of samples that it lacks, and why.

        Raises:
            JobBroken: its annotations have other fields or types than those of the shards before.
            Incomplete: the manifest cannot be written.
        """
        described = with_annotations(self.manifest, self.plan, shard.name, annotations)
        manifest = replace(self.manifest, schema=described).with_shard(shard, skipped)
        try:
            manifest.save(self.path)
        except OSError as error:
            raise disk_error(error, self.path) from None
        self.manifest = manifest
        journal_of(self.path / shard.name).unlink(missing_ok=True)

    def note(self, failure: Failure) -> None:
        """Enter what was lost on the way into the file of failures."""
        with suppress(OSError):  # it was said on the screen, and must not end a build that gets over it
            failures.append(self.path, failure)

    def forget_all(self) -> None:
        """Remove the dataset: first the manifest, so that no one takes what is left for whole.

        A compiler that was killed may have left shards that have their name and are in no manifest.
        """
        (self.path / FILE_NAME).unlink(missing_ok=True)
        known = {shard.name for shard in self.manifest.shards}
        for path in sorted(self.path.iterdir()):
            if path.name in known or is_shard_name(path.name, self.manifest.name):
                path.unlink()
        for pattern in (f"*{PART_SUFFIX}", f"*{JOURNAL_SUFFIX}", failures.FILE_NAME):
            for path in self.path.glob(pattern):
                path.unlink()

    def clear_up(self) -> None:
        """Remove what a compiler that was killed left half-written, except the parts of shards."""
        for half in (f"{FILE_NAME}{PART_SUFFIX}", f"*{JOURNAL_SUFFIX}{PART_SUFFIX}"):
            for path in self.path.glob(half):
                path.unlink()


def _shard_problem(folder: Path, shard: ShardInfo) -> str:
    """Return what is wrong with a shard's file: that it is missing, its size, its sha256; empty where nothing is."""
    path = folder / shard.name
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if size != shard.bytes:
        return f"{path}: has {size} bytes, not {shard.bytes}"
    return "" if digest == shard.sha256 else f"{path}: its sha256 is {digest[:16]}..., not {shard.sha256[:16]}..."


@contextmanager
def open_directory(
    path: Path, plan: Plan, provenance: dict[str, Any], fresh: bool | None
) -> Iterator[DatasetDirectory]:
    """Make `path` a dataset of `plan`, or continue the one there; hold its lock meanwhile.

    Args:
        path: the directory.
        plan: the dataset's plan.
        provenance: what else a new manifest says.
        fresh: remove the dataset that is there first; None: no, and the user cannot choose it.

    Raises:
        UsageError: it cannot be written, holds something else, or another process writes there.
        OtherPlan: it holds a dataset of another plan, and `fresh` is not set.
    """
    peek(path, plan, fresh)  # nothing is made in a directory that is not ours
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_NAME)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{path} is being written by another compile-dataset", "wait for it, or use --out") from None
    except OSError as error:
        raise not_writable(path, error) from None
    try:
        yield _take_over(path, plan, provenance, fresh)
    finally:
        with suppress(OSError):  # Windows keeps what is open; after the release it might be another's lock
            (path / LOCK_NAME).unlink()
        lock.release()


def _take_over(path: Path, plan: Plan, provenance: dict[str, Any], fresh: bool | None) -> DatasetDirectory:
    found = peek(path, plan, fresh)  # again: until it was locked, another may have written there
    manifest, started_over = (found.manifest, found.started_over) if found else (None, "")
    try:
        _check_shards(path, manifest)
        if manifest is not None and (fresh or started_over):
            DatasetDirectory(path, plan, manifest).forget_all()
        if manifest is None or fresh or started_over:
            (path / failures.FILE_NAME).unlink(missing_ok=True)
            manifest = plan.manifest(provenance)
            manifest.save(path)
        directory = DatasetDirectory(path, plan, manifest, started_over)
        directory.clear_up()
    except OSError as error:
        raise not_writable(path, error) from None
    return directory


def _check_shards(path: Path, manifest: Manifest | None) -> None:
    """Find what must not be in the place of a shard. Raises UsageError as `_check_places`."""
    known = {shard.name for shard in manifest.shards} if manifest else set()
    for entry in sorted(path.glob("*.tar")):
        kind = "folder" if entry.is_dir() else "link" if entry.is_symlink() else ""
        if kind == "folder" or (kind and entry.name not in known):
            raise UsageError(
                f"{entry} is a {kind}, where a shard must go", "move it away, or name another place with --out"
            )
