"""Where finished samples go, as the workers see it: a dataset's directory, or nowhere but to live listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compiler.errors import JobBroken
from compiler.planning import schemas
from compiler.planning.plan import Plan
from compiler.storage.failures import Failure
from compiler.storage.journal import Recovered
from loaders.content import content_digest
from loaders.format import SPLIT
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import sample_record


class Writer(Protocol):
    """One shard on its way: see `compiler.storage.writer.ShardWriter`."""

    kept: Recovered
    """What an earlier run left of it."""

    @property
    def samples(self) -> int:
        """How many samples are in it."""

    def add(self, key: str, members: Mapping[str, bytes]) -> bytes:
        """Append one sample; return its tar record. Raises ValueError for an image that cannot be decoded."""

    def seal(self) -> None:
        """Make the samples since the last seal last."""

    def skip(self, keys: list[str], reason: str) -> None:
        """Leave samples out."""

    def rollback(self) -> None:
        """Throw away the samples since the last seal."""

    def commit(self, number: int) -> ShardInfo:
        """Finish the shard."""

    def close(self) -> None:
        """Leave what is sealed for the next run, unless the shard was committed."""


class Destination(Protocol):
    """Takes shards; knows which are there."""

    plan: Plan
    manifest: Manifest
    path: Path

    def damaged(self) -> list[ShardInfo]:
        """Return the shards that must be rendered again."""

    def writer(self, number: int, skipping: bool) -> Writer:
        """Begin a shard, or continue it; `skipping`: keep episodes skipped that an earlier run skipped."""

    def record(self, shard: ShardInfo, annotations: schemas.Schema, skipped: Mapping[str, str]) -> None:
        """Enter a finished shard; `skipped`: the keys of samples that it lacks, and why."""

    def note(self, failure: Failure) -> None:
        """Enter what was lost on the way."""


class SampleSink(Protocol):
    """Hands samples to live listeners: see `compiler.live.tee.Tee`."""

    def offer(self, key: str, record: bytes, interrupted: Callable[[], bool] = ...) -> bool:
        """Send one sample; False when interrupted."""

    def status(self) -> dict[str, Any]:
        """Return what the tee says of itself."""


def with_annotations(manifest: Manifest, plan: Plan, shard: str, annotations: schemas.Schema) -> dict[str, object]:
    """Return the manifest's schema with the annotations of one more shard.

    Raises:
        JobBroken: they have other fields or types than those of the shards before.
    """
    known = manifest.schema.get("annotations", "null")
    try:
        return {**manifest.schema, "annotations": schemas.merge(known, annotations)}
    except schemas.SchemaConflict as conflict:
        raise JobBroken(f"{plan.source.path}: annotate: {conflict} (in {shard})") from None


@dataclass
class LiveOnly:
    """Keeps nothing: for samples that only live listeners get.

    State: `manifest`, without shards; only its schema grows.
    """

    plan: Plan
    manifest: Manifest
    path: Path = Path()

    def damaged(self) -> list[ShardInfo]:
        """Return none: nothing is kept."""
        return []

    def writer(self, number: int, skipping: bool) -> Writer:
        """Begin a shard that is counted, checked and forgotten."""
        return _Counter(self.plan.layout.shard_name(number))

    def record(self, shard: ShardInfo, annotations: schemas.Schema, skipped: Mapping[str, str]) -> None:
        """Check that the annotations go with those before. Raises JobBroken as `with_annotations`."""
        described = with_annotations(self.manifest, self.plan, shard.name, annotations)
        self.manifest = Manifest(self.plan.name, self.manifest.plan, described, self.manifest.provenance)

    def note(self, failure: Failure) -> None:
        """Keep nothing."""


class _Counter:
    """Counts the samples of one shard, and those of them that are sealed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept = Recovered()
        self.samples = 0
        self._sealed = 0

    def add(self, key: str, members: Mapping[str, bytes]) -> bytes:
        content_digest(key, members)  # an image that cannot be decoded is garbage here as well
        self.samples += 1
        return sample_record(key, members)

    def seal(self) -> None:
        self._sealed = self.samples

    def skip(self, keys: list[str], reason: str) -> None:
        self.rollback()

    def rollback(self) -> None:
        self.samples = self._sealed

    def commit(self, number: int) -> ShardInfo:
        return ShardInfo(self.name, SPLIT, number, self.samples, 0, sha256="", content_sha256="", sample_digests="")

    def close(self) -> None:
        """Nothing was kept."""
