"""``compile-dataset reproduce``: the dataset of a manifest once more, from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.build import build, find_outstanding
from compiler.cli import options
from compiler.cli.options import ask_for_trust, blender_option, place_options
from compiler.cli.progress import make_display
from compiler.cli.report import look_for_the_unseen, report_lines, shards_missing
from compiler.errors import UsageError, VerificationFailed
from compiler.machine import share_cores
from compiler.planning.plan import Plan
from compiler.rendering.pool import PoolOptions
from compiler.rendering.retry import RetryPolicy
from compiler.resolve import FirstBlender, provenance, restore_identical
from compiler.storage.directory import open_directory
from compiler.storage.published import Places, Published
from compiler.storage.sources import copy_sources
from compiler.terminal import announce, say_lines
from loaders.format import SAMPLE_DIGEST_DIGITS
from loaders.manifest import Manifest, ShardInfo

_SHOWN = 8
"""Keys that are spelled out."""


@click.command("reproduce")
@click.argument("manifest_path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new dataset's directory.")
@place_options
@click.option(
    "--instances", type=options.InstancesType(), default="auto", show_default=True, help="Blenders that render at once."
)
@blender_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def reproduce_command(
    manifest_path: Path,
    out: Path,
    instances: int,
    blender: str | None,
    quiet: bool,
    **placing: Any,
) -> None:
    """Render the dataset of MANIFEST (a dataset.json or its directory) again, and compare the digests.

    You need the manifest, the job's file (the copy next to the manifest, or --job) and the assets. The job runs: code
    that is not yours runs only with --trust-source.
    """
    published = Published.load(manifest_path, Places(**placing))
    manifest, folder = published.manifest, published.folder
    if out.exists() and out.resolve() == folder.resolve():
        raise UsageError(f"{out} is the dataset itself", "name another place with --out")
    if not manifest.shards:
        raise UsageError("the manifest has no finished shard", "there is nothing to reproduce: build the dataset first")
    published = ask_for_trust(published)
    shards = 1 + max(shard.number for shard in manifest.shards)
    count, threads = share_cores(instances, shards)
    # What is published without an episode comes out without it again, if it fails here as well.
    retry = RetryPolicy(on_poison="skip" if manifest.skipped else "fail")
    pool = PoolOptions(count, InstanceOptions(threads, STALL_TIMEOUT_S, blender=blender), retry)
    with FirstBlender(pool.instance_options, retry.attempts, announce) as first:
        plan = restore_identical(published, first, doing="reproduce it")
        with open_directory(out, plan, provenance(plan), fresh=None) as store:
            if store.started_over:
                announce(f"Note: {store.started_over}")
            copy_sources(plan, out)
            report = build(store, find_outstanding(store, shards), pool, first.instance, make_display(quiet, plan.name))
            look_for_the_unseen(report, store)
    say_lines(report_lines(report, store.manifest, out))
    if report.failed:
        raise shards_missing(report)
    _compare(plan, manifest, store.manifest)


def _compare(plan: Plan, published: Manifest, made: Manifest) -> None:
    """Compare the published shards with those made now; not all of the plan may have been published.

    Of shards that were published without some samples, compare the samples that they have.
    """
    ours = {shard.number: shard for shard in made.shards}
    other = []
    for shard in published.shards:
        here, there = _digests(plan, made, ours[shard.number]), _digests(plan, published, shard)
        kept_same = shard.number in published.incomplete and there and there.items() <= here.items()
        if ours[shard.number].sha256 != shard.sha256 and not kept_same:
            other.append(shard.name)
    if other:
        raise VerificationFailed(
            f"{len(other)} of {len(published.shards)} shards have other bytes than the manifest says ({other[0]})",
            "compile-dataset diff says what differs; the processor may be the cause",
        )
    incomplete = [shard for shard in published.shards if shard.number in published.incomplete]
    say_lines([f"the same bytes as the manifest says: {len(published.shards) - len(incomplete)} shards"])
    if incomplete:
        skipped = f"{len(published.skipped)} samples: {', '.join(sorted(published.skipped)[:_SHOWN])}"
        more = ", ..." if len(published.skipped) > _SHOWN else ""
        say_lines([f"was published without {skipped}{more}; all other samples are the same"])


def _digests(plan: Plan, manifest: Manifest, shard: ShardInfo) -> dict[str, str]:
    """Return the `sample_digest` of each sample that the shard has, by key; none if some are missing."""
    keys = [sample.key for sample in plan.layout.samples(shard.number, manifest.skipped)]
    digits = range(0, len(shard.sample_digests), SAMPLE_DIGEST_DIGITS)
    each = [shard.sample_digests[start : start + SAMPLE_DIGEST_DIGITS] for start in digits]
    return dict(zip(keys, each, strict=True)) if len(keys) == len(each) else {}
