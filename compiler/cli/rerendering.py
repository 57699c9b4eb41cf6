"""``compile-dataset verify --rerender``: samples rendered again and held against the published ones."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.errors import OtherPixels, VerificationFailed
from compiler.machine import share_cores
from compiler.rendering.retry import RetryPolicy
from compiler.resolve import FirstBlender
from compiler.storage.places import Places
from compiler.terminal import announce
from compiler.verification.rerender import Rerendered, prepare_rerender, rerender
from loaders.manifest import Manifest

_SHOWN = 20
"""Samples that differ are spelled out up to this number; all are counted."""


class AmountType(click.ParamType[int]):
    """A number of samples, or ``all`` (0)."""

    name = "K|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, 0 for ``all``."""
        if value == "all":
            return 0
        number: int = click.IntRange(min=1).convert(value, param, ctx)
        return number


@dataclass(frozen=True)
class RerenderArguments:
    """The options of ``verify --rerender``."""

    rerender: int | None
    """How many samples; 0 for all, None for no rendering."""
    pick: int | None
    """The seed of the choice; None: any."""
    blender: str | None


@dataclass(frozen=True)
class RerenderOutcome:
    """What came of rendering samples again."""

    rerendered: int
    different: list[Rerendered]
    pick: int
    """The seed of the choice."""
    elsewhere: list[str]
    """How this installation differs from the one that made the dataset."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)

    def line(self) -> str:
        """Return it for people."""
        return f"{self.rerendered} samples rendered again, {len(self.different)} differ (--pick {self.pick})"

    def check(self) -> None:
        """Raise where samples differ.

        Raises:
            VerificationFailed: on the same Blender build and processor.
            OtherPixels: the build or the processor is another.
        """
        if not self.different:
            return
        count = f"{len(self.different)} of {self.rerendered} samples that were rendered again have other bytes"
        if self.elsewhere:
            raise OtherPixels(
                f"{count}; so may it be on another installation ({self.elsewhere[0]})",
                "render on the Blender build and the processor of the manifest to prove the bytes",
            )
        raise VerificationFailed(
            f"{count}, on the same Blender build and processor", "compile-dataset replay shows one"
        )


def rerender_and_compare(
    dataset: Path, manifest: Manifest, asked: RerenderArguments, places: Places, jobs: int
) -> RerenderOutcome:
    """Render samples again, and say which differ and how.

    Args:
        dataset: its directory.
        manifest: its manifest.
        asked: which samples, and on which Blender.
        places: where the job and its assets are, and what is trusted.
        jobs: how many instances render at once.

    Raises:
        BlendshardError: as `prepare_rerender` and `rerender`.
    """
    seed = secrets.randbits(32) if asked.pick is None else asked.pick
    instances, threads = share_cores(jobs, shards=0)
    options = InstanceOptions(threads, STALL_TIMEOUT_S, blender=asked.blender)
    with FirstBlender(options, RetryPolicy().attempts, announce) as first:
        comparison = prepare_rerender(dataset, manifest, asked.rerender or None, seed, first, places)
    for line in comparison.elsewhere:
        announce(f"Note: another installation: {line}")
    compared, different = 0, []
    with closing(rerender(comparison, options, instances)) as samples:
        for sample in samples:
            compared += 1
            if sample.differences:
                different.append(sample)
                _say(sample, len(different))
    return RerenderOutcome(compared, different, seed, comparison.elsewhere)


def _say(sample: Rerendered, number: int) -> None:
    if number <= _SHOWN:
        for difference in sample.differences:
            announce(f"{sample.key}  {difference}")
