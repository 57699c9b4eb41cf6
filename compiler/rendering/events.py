"""What the workers tell the main loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.errors import BlendshardError, Incomplete
from compiler.planning import schemas
from compiler.planning.sightings import Sightings
from compiler.storage.failures import Failure
from loaders.manifest import ShardInfo


@dataclass(frozen=True)
class SamplesKept:
    """Samples of a shard that an earlier run left: they need not be rendered."""

    shard: int
    samples: int


@dataclass(frozen=True)
class SampleDone:
    """One more sample is in a part file."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """A shard has its final name."""

    shard: ShardInfo
    annotations: schemas.Schema
    skipped: Mapping[str, str]
    """The keys of the samples that it lacks, and why."""
    seen: Sightings | None
    """What came into view in it; None where some of its samples are an earlier run's."""


@dataclass(frozen=True)
class Restarted:
    """An instance was lost; its order is rendered again."""

    failure: Failure
    samples_lost: int
    exclusive: bool
    """Rendered while no other instance works, as memory seems to have been short."""


@dataclass(frozen=True)
class EpisodeSkipped:
    """An episode was left out; its shard continues."""

    failure: Failure
    samples_lost: int


@dataclass(frozen=True)
class ShardFailed:
    """A shard was given up; the others continue."""

    failure: Failure
    error: Incomplete
    samples_lost: int


@dataclass(frozen=True)
class JobFailed:
    """The user's job failed in an episode: this build cannot continue."""

    failure: Failure


@dataclass(frozen=True)
class Noted:
    """Something that the user should know of the job, as rendering it tells."""

    note: str


@dataclass(frozen=True)
class Stopped:
    """This build cannot continue."""

    error: BlendshardError


Event = SamplesKept | SampleDone | ShardDone | Restarted | EpisodeSkipped | ShardFailed | JobFailed | Noted | Stopped
