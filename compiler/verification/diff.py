"""What differs between two datasets: plans, provenance, shards, samples. Samples stream by, one pair at a time.

A shard whose sha256 is the same in both manifests is not read: `compiler.verification.verify` is
what holds files to their manifests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compiler.errors import UsageError
from compiler.planning.plan import differences
from compiler.verification.compare import Difference, compare_members
from compiler.verification.reading import samples_of
from loaders.format import meaning_of
from loaders.manifest import Manifest
from loaders.tarstream import Sample

Field = tuple[str, Any, Any]
"""A path in JSON, and both values; None for what one lacks."""


@dataclass(frozen=True)
class SampleDifference:
    """How one sample differs."""

    key: str
    members: list[Difference]
    """Empty where only one dataset has the sample."""
    only_in: str = ""
    """``first`` or ``second``."""


@dataclass
class DatasetDifference:
    """How two datasets differ. Provenance changes no byte of a shard and does not count."""

    plan: list[Field]
    schema: list[Field]
    provenance: list[Field]
    shards_only_in_first: list[int] = field(default_factory=list)
    shards_only_in_second: list[int] = field(default_factory=list)
    shards_same: int = 0
    shards_different: list[int] = field(default_factory=list)
    samples_compared: int = 0
    """In the shards that differ."""
    samples_different: int = 0
    members_different: dict[str, int] = field(default_factory=dict)
    """In how many samples a member differs, images by ``image``."""
    described: list[SampleDifference] = field(default_factory=list)
    """The first samples that differ."""

    @property
    def equal(self) -> bool:
        """Whether the datasets are the same: plan, schema and every byte of every shard."""
        lone = self.shards_only_in_first or self.shards_only_in_second
        return not (self.plan or self.schema or lone or self.shards_different)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "equal": self.equal}


def diff(first: tuple[Path, Manifest], second: tuple[Path, Manifest], limit: int) -> DatasetDifference:
    """Compare two datasets, each a directory and its manifest; describe the first `limit` samples that differ.

    Raises:
        UsageError: a shard that must be read is missing or damaged; or one of the two, which differ, is a recording.
    """
    ours, theirs = first[1], second[1]
    if ours.digest != theirs.digest:
        _refuse_recordings(first, second)
    found = DatasetDifference(
        plan=list(differences(ours.plan, theirs.plan)),
        schema=list(differences(ours.schema, theirs.schema)),
        provenance=list(differences(ours.provenance, theirs.provenance)),
    )
    mine, others = ({shard.number: shard for shard in manifest.shards} for manifest in (ours, theirs))
    for number in sorted(mine.keys() | others.keys()):
        if number not in others:
            found.shards_only_in_first.append(number)
        elif number not in mine:
            found.shards_only_in_second.append(number)
        elif mine[number].sha256 == others[number].sha256:
            found.shards_same += 1
        else:
            found.shards_different.append(number)
            paths = first[0] / mine[number].name, second[0] / others[number].name
            _compare_shards(_ascending(paths[0]), _ascending(paths[1]), found, limit)
    return found


def _refuse_recordings(*datasets: tuple[Path, Manifest]) -> None:
    """Samples are paired shard by shard, as their keys ascend: in a recording they stand as they arrived."""
    for folder, manifest in datasets:
        if manifest.recorded:
            raise UsageError(
                f"{folder}: a recording of a live tee has no plan's order; its samples cannot be paired",
                "compile-dataset verify checks it; compile the dataset of its plan to compare that",
            )


def _compare_shards(ours: Iterator[Sample], theirs: Iterator[Sample], found: DatasetDifference, limit: int) -> None:
    """Compare two shards whose keys ascend, as those of one number do."""
    mine, other = next(ours, None), next(theirs, None)
    while mine or other:
        found.samples_compared += 1
        if other is None or (mine is not None and mine.key < other.key):
            assert mine is not None
            _note(SampleDifference(mine.key, [], "first"), found, limit)
            mine = next(ours, None)
        elif mine is None or other.key < mine.key:
            _note(SampleDifference(other.key, [], "second"), found, limit)
            other = next(theirs, None)
        else:
            if mine.members != other.members:
                _count_members(mine, other, found)
                described = len(found.described) < limit
                members = compare_members(mine.members, other.members) if described else []
                _note(SampleDifference(mine.key, members), found, limit)
            mine, other = next(ours, None), next(theirs, None)


def _note(difference: SampleDifference, found: DatasetDifference, limit: int) -> None:
    found.samples_different += 1
    if len(found.described) < limit:
        found.described.append(difference)


def _count_members(one: Sample, two: Sample, found: DatasetDifference) -> None:
    ours, theirs = ({meaning_of(name): content for name, content in sample.members.items()} for sample in (one, two))
    for meaning in ours.keys() | theirs.keys():
        if ours.get(meaning) != theirs.get(meaning):
            found.members_different[meaning] = found.members_different.get(meaning, 0) + 1


def _ascending(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples, whose keys must ascend: pairing rests on it."""
    last = ""
    for sample in samples_of(path):
        if sample.key <= last:
            raise UsageError(
                f"{path}: sample {sample.key} stands behind {last}", "compile-dataset verify tells what is damaged"
            )
        last = sample.key
        yield sample
