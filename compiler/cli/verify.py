"""``compile-dataset verify``: prove a dataset against its manifest, and by rendering samples again."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.cli.options import ask_for_trust, blender_option, place_options, require_objects, take
from compiler.cli.reading import reading
from compiler.errors import OtherPixels, UsageError, VerificationFailed
from compiler.machine import cores, share_cores
from compiler.planning.sightings import Sightings
from compiler.rendering.retry import RetryPolicy
from compiler.resolve import FirstBlender
from compiler.storage.published import Places, Published, folder_of
from compiler.terminal import announce, say_json, say_lines
from compiler.verification.findings import Outcome, ShardReport, look_around
from compiler.verification.rerender import Rerendered, prepare_rerender, refuse_recording, rerender
from compiler.verification.verify import Verifier, examine_all, intact_manifest
from loaders.manifest import Manifest


class _AmountType(click.ParamType[int]):
    """A number of samples, or ``all`` (0)."""

    name = "K|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, 0 for ``all``."""
        if value == "all":
            return 0
        number: int = click.IntRange(min=1).convert(value, param, ctx)
        return number


@click.command("verify")
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Shards to read at once.  [default: the cores]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--rerender",
    metavar="K|all",
    type=_AmountType(),
    help="Render the episodes of K random samples again, or all.",
)
@click.option(
    "--pick",
    metavar="N",
    type=click.IntRange(min=0),
    help="The seed of the random choice.  [default: a new one each time]",
)
@require_objects
@place_options
@blender_option
def verify_command(
    dataset: Path, jobs: int | None, as_json: bool, quiet: bool, require_objects: bool, **rendering: Any
) -> None:
    """Read every byte of a dataset again, and name the file, the sample and the member that is damaged.

    Any machine can do it, without Blender. With --rerender, samples are rendered in fresh processes as well and
    compared byte for byte: exit code 3 if they differ; 6 if they differ on another Blender build or processor. That
    runs the dataset's job: code that is not yours runs only with --trust-source. Without --rerender nothing runs.
    """
    places, asked = take(Places, rendering), RerenderArguments(**rendering)
    _check_together(asked, places)
    published = Published(folder_of(dataset), intact_manifest(dataset), places)
    manifest, folder = published.manifest, published.folder
    if asked.rerender is not None:
        refuse_recording(manifest)
        published = ask_for_trust(published)
    verifier = Verifier(folder, manifest)
    reports = _shown(examine_all(verifier, jobs or cores()), manifest, quiet)
    problems, notes, seen = list(verifier.problems), [], Sightings()
    for report in reports:
        problems += report.problems
        notes += report.notes
        seen.merge(report.seen)
    outcome = Outcome(folder, manifest, problems, notes, look_around(folder, manifest), seen)
    if not as_json:
        say_lines(outcome.lines())
    elif asked.rerender is None or problems:
        say_json(outcome.as_json())
    outcome.check()
    if require_objects:
        seen.check_objects(folder)
    if asked.rerender is not None:
        again = rerender_and_compare(published, asked, jobs or cores())
        if as_json:
            say_json({**outcome.as_json(), **again.as_json()})
        else:
            say_lines([again.line()])
        again.check()


def _check_together(asked: RerenderArguments, places: Places) -> None:
    """Refuse what would be ignored. `BLENDSHARD_BLENDER` may be set, and is no mistake."""
    if asked.rerender is not None:
        return
    for name, value in {"pick": asked.pick, **asdict(places)}.items():
        if value is not None and value is not False:
            raise UsageError(f"--{name.replace('_', '-')} needs --rerender", "say how many samples: --rerender 10")


def _shown(reports: Iterable[ShardReport], manifest: Manifest, quiet: bool) -> Iterator[ShardReport]:
    """Pass the reports on, and show how far they are; in a log, each damaged shard has a line."""
    with reading(manifest, "shards", len(manifest.shards), quiet) as progress:
        damaged = 0
        for done, report in enumerate(reports, start=1):
            damaged += bool(report.problems)
            remark = f", {report.name} damaged" if report.problems else ""
            progress.step(report.bytes, done, f", {damaged} damaged", remark)
            yield report


_SHOWN = 20
"""Samples that differ are spelled out up to this number; all are counted."""


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
            OtherPixels: the build or the processor differs.
        """
        if not self.different:
            return
        count = f"{len(self.different)} of {self.rerendered} samples that were rendered again have other bytes"
        if self.elsewhere:
            raise OtherPixels(
                f"{count}, as can happen on another installation ({self.elsewhere[0]})",
                "render on the Blender build and the processor of the manifest to prove the bytes",
            )
        raise VerificationFailed(
            f"{count}, on the same Blender build and processor", "compile-dataset replay shows one"
        )


def rerender_and_compare(published: Published, asked: RerenderArguments, jobs: int) -> RerenderOutcome:
    """Render samples again, and say which differ and how.

    Args:
        published: the dataset, where its job is now, and what is trusted.
        asked: which samples, and on which Blender.
        jobs: how many instances render at once.

    Raises:
        BlendshardError: as `prepare_rerender` and `rerender`.
    """
    seed = secrets.randbits(32) if asked.pick is None else asked.pick
    instances, threads = share_cores(jobs, shards=0)
    options = InstanceOptions(threads, STALL_TIMEOUT_S, blender=asked.blender)
    with FirstBlender(options, RetryPolicy().attempts, announce) as first:
        comparison = prepare_rerender(published, asked.rerender or None, seed, first)
    for line in comparison.elsewhere:
        announce(f"Note: this installation differs: {line}")
    compared, different = 0, []
    with closing(rerender(comparison, options, instances)) as samples:
        for sample in samples:
            compared += 1
            if sample.differences:
                different.append(sample)
                _say_differences(sample, len(different))
    return RerenderOutcome(compared, different, seed, comparison.elsewhere)


def _say_differences(sample: Rerendered, number: int) -> None:
    if number <= _SHOWN:
        for difference in sample.differences:
            announce(f"{sample.key}  {difference}")
