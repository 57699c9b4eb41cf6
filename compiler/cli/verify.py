"""``compile-dataset verify``: prove a dataset against its manifest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from compiler.cli.options import require_objects, take
from compiler.cli.plan_options import blender_option
from compiler.cli.rerendering import AmountType, RerenderArguments, rerender_and_compare
from compiler.cli.trusting import place_options, places_asked
from compiler.errors import UsageError
from compiler.machine import cores
from compiler.planning.sightings import Sightings
from compiler.storage.manifests import folder_of
from compiler.storage.places import Places
from compiler.terminal import announce, plain, say_json, say_lines
from compiler.verification.rerender import refuse_recording
from compiler.verification.shard_walk import ShardReport
from compiler.verification.verify import Verifier, examine_all, intact_manifest
from compiler.verification.verify_report import Outcome, look_around
from loaders.manifest import Manifest

_LINE_EVERY_S = 10.0


@click.command("verify")
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Shards read at once.  [default: the cores]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--rerender", metavar="K|all", type=AmountType(), help="Render K samples' episodes again, chosen at random, or all."
)
@click.option(
    "--pick", metavar="N", type=click.IntRange(min=0), help="The choice's seed.  [default: another each time]"
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
    runs the dataset's job: code that is not your own runs only with --trust-source. Without --rerender nothing runs.
    """
    places, asked = take(Places, rendering), RerenderArguments(**rendering)
    _check_together(asked, places)
    manifest, folder = intact_manifest(dataset), folder_of(dataset)
    if asked.rerender is not None:
        refuse_recording(manifest)
        places = places_asked(manifest, folder, places)
    verifier = Verifier(folder, manifest)
    reports = examine_all(verifier, jobs or cores())
    if not quiet:
        reports = _bar(reports, manifest) if sys.stderr.isatty() else _log(reports, manifest)
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
        again = rerender_and_compare(folder, manifest, asked, places, jobs or cores())
        if as_json:
            say_json({**outcome.as_json(), **again.as_json()})
        else:
            say_lines([again.line()])
        again.check()


def _check_together(asked: RerenderArguments, places: Places) -> None:
    """Refuse what would be ignored. Which Blender to use may stand in the environment, and is no mistake."""
    if asked.rerender is not None:
        return
    for name, value in {"pick": asked.pick, **asdict(places)}.items():
        if value is not None and value is not False:
            raise UsageError(f"--{name.replace('_', '-')} needs --rerender", "say how many samples: --rerender 10")


def _bar(reports: Iterable[ShardReport], manifest: Manifest) -> Iterator[ShardReport]:
    """Pass the reports on and move a bar over bytes."""
    with tqdm(
        desc=plain(manifest.name), total=manifest.bytes, unit="B", unit_scale=True, dynamic_ncols=True, file=sys.stderr
    ) as bar:
        damaged = 0
        for done, report in enumerate(reports, start=1):
            damaged += bool(report.problems)
            bar.set_postfix_str(f"shards {done}/{len(manifest.shards)}, {damaged} damaged", refresh=False)
            bar.update(report.bytes)
            yield report


def _log(reports: Iterable[ShardReport], manifest: Manifest) -> Iterator[ShardReport]:
    """Pass the reports on; print a line for each damaged shard, and one every ten seconds."""
    started = said = time.monotonic()
    read = 0
    for done, report in enumerate(reports, start=1):
        read += report.bytes
        now = time.monotonic()
        if report.problems or now > said + _LINE_EVERY_S:
            rate = read / 1e6 / (now - started)
            name = f", {report.name} damaged" if report.problems else ""
            announce(f"{manifest.name}: {done}/{len(manifest.shards)} shards, {rate:.0f} MB/s{name}")
            said = now
        yield report
