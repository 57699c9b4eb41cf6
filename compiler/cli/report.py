"""What the command says of plans and builds, as lines for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compiler.build import Report
from compiler.errors import Incomplete
from compiler.planning.plan import Plan
from compiler.planning.sightings import Sightings, annotated_views
from compiler.storage import failures
from compiler.storage.destination import Destination
from compiler.storage.published import samples_of
from loaders.manifest import Manifest
from loaders.tarstream import Sample


class PlanReport:
    """What ``--dry-run`` tells: the plan, and what of it is still to be rendered."""

    def __init__(self, plan: Plan, shards: int, out: Path, found: Manifest | None) -> None:
        self.plan, self.shards, self.out = plan, shards, out
        finished = {shard.number for shard in found.shards} - found.incomplete if found else set()
        self.missing = shards - sum(number < shards for number in finished)
        self.samples = self.missing * plan.samples_per_shard
        self.digest = plan.digest

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "out": str(self.out),
            "plan": self.plan.identity(),
            "plan_digest": self.digest,
            "samples_to_render": self.samples,
        }

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        render, job, frames = self.plan.render, self.plan.job, self.plan.job.frames
        fields = ", ".join(f"{name}={value}" for name, value in job.fields.items())
        shown = ", ".join(map(str, frames[:8])) + ", ..." * (len(frames) > 8)
        yield f"job        {self.plan.name}: {job.doc}"
        yield f"fields     {fields or 'none'}"
        yield f"frames     {len(frames)} of each episode ({shown})"
        yield f"image      {render.width}x{render.height} {render.image}, {render.engine}, {render.samples} samples"
        yield f"blender    {self.plan.blender.version} ({self.plan.blender.build_hash})"
        yield f"plan       {self.digest}"
        yield f"would render {self.samples} samples ({self.missing} of {self.shards} shards) into {self.out}"
        if cut := self.plan.samples_per_shard % len(frames):
            yield f"note: the last episode of each shard keeps {cut} of {len(frames)} frames"


def look_for_the_unseen(report: Report, store: Destination) -> None:
    """Add what came into view in the shards of earlier runs, so that `report.seen` holds for the whole dataset.

    Nothing is read where nothing was rendered: ``verify`` tells of such a dataset.

    Raises:
        UsageError: a shard cannot be read.
    """
    for shard in store.manifest.shards:
        if report.samples_rendered and shard.number not in report.seen_in:
            for sample in samples_of(store.path / shard.name):
                _look_at(sample, report.seen)


def _look_at(sample: Sample, seen: Sightings) -> None:
    for view, segmentation in annotated_views(sample.members):
        seen.add(view, segmentation)


def check_objects(report: Report, store: Destination) -> None:
    """Make sure that some sample of the dataset shows an object; where nothing was rendered, its shards are read.

    Raises:
        NothingInView: none does.
        UsageError: a shard cannot be read.
    """
    seen = report.seen
    for shard in store.manifest.shards if not report.samples_rendered else ():
        for sample in samples_of(store.path / shard.name):
            _look_at(sample, seen)
        if not seen.emptiness:
            return
    seen.check_objects(store.path if store.path.is_dir() else store.plan.name)


def report_json(report: Report, manifest: Manifest, out: Path) -> dict[str, Any]:
    """Return a build's result for a program."""
    return {
        **{name: value for name, value in asdict(report).items() if name not in ("failed", "seen", "seen_in")},
        "rate": report.rate,
        **(report.seen.as_json() if report.samples_rendered else {}),
        "failed": [str(error) for error in report.failed],
        "out": str(out),
        "shards": [asdict(shard) for shard in manifest.shards],
        "digest": manifest.digest,
        "plan_digest": manifest.plan_digest,
    }


def report_lines(report: Report, manifest: Manifest, out: Path) -> Iterator[str]:
    """Yield a build's result for people."""
    for name in report.damaged:
        yield f"{name} was damaged and has been rendered again"
    kept = f"{report.samples_kept} kept of an earlier run, " if report.samples_kept else ""
    restarts = f", {report.restarts} restarts" if report.restarts else ""
    yield (
        f"{out}: {report.shards_done}/{report.shards_wanted} shards, {report.samples_done} samples"
        f" ({kept}{report.samples_rendered} rendered now in {report.seconds:.1f} s, {report.rate:.2f}/s{restarts})"
    )
    if report.skipped:
        yield (
            f"skipped {len(report.skipped)} samples whose episodes could not be rendered, the first"
            f" {min(report.skipped)}; dataset.json lists them, and the same command tries them again"
        )
    yield from (f"Note: {note}" for note in (*report.notes, *report.seen.notes()))
    if report.failures and out.is_dir():
        yield f"{report.failures} failures are described in {out / failures.FILE_NAME}"
    if report.live is not None:
        counts = (
            "{samples_offered} offered, {samples_sent} sent, {samples_dropped} dropped, {samples_abandoned} abandoned"
        )
        yield "live: " + counts.format(**report.live)
    if manifest.shards:
        yield f"digest {manifest.digest}"


def shards_missing(report: Report) -> Incomplete:
    """Return the error for a build that gave shards up."""
    first = report.failed[0]
    count = f"{len(report.failed)} of {report.shards_wanted} shards are missing"
    return Incomplete(f"{count}: {first}", first.hint, first.details)
