"""The dataset's directory: who may write there, what is finished in it, and its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compiler import schema
from compiler.errors import OtherPlan, UsageError, disk_error
from compiler.plan import Plan, differences
from compiler.shards import PART_SUFFIX, ShardWriter, write_atomically
from compiler.store import with_annotations
from loaders.manifest import FILE_NAME, Manifest, ManifestError, ShardInfo

LOCK_NAME = ".lock"


@dataclass
class DatasetDirectory:
    """A directory that this process alone writes to.

    State: `manifest`, always as it stands on the disk.
    """

    path: Path
    plan: Plan
    manifest: Manifest

    def damaged(self) -> list[ShardInfo]:
        """Return the shards of the manifest whose files are not what it says."""
        return [shard for shard in self.manifest.shards if shard_problem(self.path, shard)]

    def writer(self, number: int) -> ShardWriter:
        """Begin a shard in the directory. Raises OSError when its part file cannot be made."""
        return ShardWriter(self.path / self.plan.shard_name(number))

    def record(self, shard: ShardInfo, annotations: schema.Schema) -> None:
        """Enter a finished shard into the manifest.

        Raises:
            JobBroken: its annotations have other fields or types than those of the shards before.
            Incomplete: the manifest cannot be written.
        """
        described = with_annotations(self.manifest, self.plan, shard.name, annotations)
        manifest = replace(self.manifest, schema=described).with_shard(shard)
        try:
            write_atomically(self.path / FILE_NAME, manifest.to_json())
        except OSError as error:
            raise disk_error(error, self.path) from None
        self.manifest = manifest

    def forget_all(self) -> None:
        """Remove the dataset: first the manifest, so that no one takes what is left for whole."""
        (self.path / FILE_NAME).unlink(missing_ok=True)
        for shard in self.manifest.shards:
            (self.path / shard.name).unlink(missing_ok=True)


def shard_problem(folder: Path, shard: ShardInfo) -> str:
    """Return what is wrong with a shard's file: that it is missing, its size, its sha256; empty where nothing is."""
    path = folder / shard.name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if size != shard.bytes:
        return f"{path}: has {size} bytes, not {shard.bytes}"
    return "" if digest == shard.sha256 else f"{path}: its sha256 is {digest[:16]}..., not {shard.sha256[:16]}..."


@contextmanager
def open_directory(path: Path, plan: Plan, provenance: dict[str, Any], fresh: bool) -> Iterator[DatasetDirectory]:
    """Make `path` a dataset of `plan`, or continue the one there; hold its lock meanwhile.

    Raises:
        UsageError: it cannot be written, holds something else, or another process writes there.
        OtherPlan: it holds a dataset of another plan, and `fresh` is not set.
    """
    manifest = peek(path, plan, fresh)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_NAME)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{path} is being written by another compile-dataset", "wait for it, or use --out") from None
    except OSError as error:
        raise _not_writable(path, error) from None
    try:
        yield _take_over(path, plan, manifest, provenance, fresh)
    finally:
        lock.release()
        (path / LOCK_NAME).unlink(missing_ok=True)


def _take_over(
    path: Path, plan: Plan, found: Manifest | None, provenance: dict[str, Any], fresh: bool
) -> DatasetDirectory:
    try:
        if found is not None and fresh:
            DatasetDirectory(path, plan, found).forget_all()
        for part in path.glob(f"*{PART_SUFFIX}"):
            part.unlink()
        if found is None or fresh:
            found = plan.manifest(provenance)
            write_atomically(path / FILE_NAME, found.to_json())
    except OSError as error:
        raise _not_writable(path, error) from None
    return DatasetDirectory(path, plan, found)


def peek(path: Path, plan: Plan, fresh: bool) -> Manifest | None:
    """Return the manifest at `path` if it is a dataset of `plan` (of any, where `fresh`), None if it is free.

    Raises:
        UsageError, OtherPlan: as `open_directory`.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "name another place with --out")
    if not (path / FILE_NAME).exists():
        if others := sorted(entry.name for entry in path.iterdir() if entry.name != LOCK_NAME):
            raise UsageError(f"{path} holds something else ({others[0]})", "name another place with --out")
        return None
    try:
        manifest = Manifest.load(path)
    except ManifestError as error:
        raise UsageError(str(error), "move it away, or name another place with --out") from None
    if not fresh and (different := list(differences(plan.identity(), manifest.plan))):
        raise _other_plan(path, different)
    return manifest


def _other_plan(path: Path, different: list[tuple[str, Any, Any]]) -> OtherPlan:
    """Name what the user chose before what came with the installation."""
    different.sort(key=lambda difference: difference[0].startswith(("blender.", "code_sha256")))
    name, ours, theirs = different[0]
    more = f" (and {len(different) - 1} more: {', '.join(field for field, *_ in different[1:4])})"
    return OtherPlan(
        f"{path} holds another plan: {name} is {theirs!r} there, {ours!r} here{more if len(different) > 1 else ''}",
        "name another place with --out, or begin anew with --fresh",
    )


def _not_writable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {path}: {error.strerror}", "name another place with --out")
