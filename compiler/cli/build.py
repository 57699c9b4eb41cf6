"""``compile-dataset build``: render a job into shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.build import build, find_outstanding
from compiler.cli import options, plan_options
from compiler.cli import report as reports
from compiler.cli.progress import make_display
from compiler.live.serving import live_tee
from compiler.machine import share_cores
from compiler.planning.plan import Plan
from compiler.process_control import ending_with_parent
from compiler.rendering.pool import PoolOptions
from compiler.rendering.retry import OnPoison, RetryPolicy
from compiler.resolve import FirstBlender, provenance, resolve_plan
from compiler.storage.directory import open_directory, peek
from compiler.storage.sources import copy_sources
from compiler.storage.store import Nowhere, Store
from compiler.terminal import announce, say_json, say_lines
from compiler.trust import remember


@dataclass(frozen=True)
class BuildArguments:
    """The options of ``build``, but those of the plan and of the live tee."""

    shards: int | None
    out: Path | None
    instances: int
    """0: choose."""
    blender: str | None
    stall_timeout: float
    attempts: int
    on_poison: OnPoison
    recycle: int
    require_objects: bool
    fresh: bool
    dry_run: bool
    as_json: bool
    quiet: bool
    end_with_parent: bool

    def pool(self, shards: int) -> PoolOptions:
        """Return how many instances render so many shards, and how."""
        instances, threads = share_cores(self.instances, shards)
        instance_options = InstanceOptions(threads, self.stall_timeout, blender=self.blender)
        return PoolOptions(instances, instance_options, RetryPolicy(self.attempts, self.on_poison), self.recycle)


@click.command("build")
@plan_options.add
@click.option(
    "--shards", metavar="N", type=click.IntRange(min=0), help="How many shards the dataset shall have.  [required]"
)
@click.option("--out", type=click.Path(path_type=Path), help="The dataset's directory.  [default: ./<job>]")
@click.option("--instances", type=options.InstancesType(), default="auto", show_default=True, help="Blenders at once.")
@click.option("--stall-timeout", metavar="N", type=click.FloatRange(min=1), default=STALL_TIMEOUT_S, show_default=True)
@click.option(
    "--attempts", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Tries of an episode."
)
@click.option(
    "--on-poison",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="An episode that every try fails: give its shard up, or leave it out and list it.",
)
@options.require_objects
@click.option(
    "--recycle", metavar="N", type=click.IntRange(min=1), default=500, show_default=True, help="Episodes of a Blender."
)
@click.option("--fresh", is_flag=True, help="Remove the dataset in the directory first.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be rendered, of one shard without --shards; write nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@options.add_live_options
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=options.load_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with these options, job fields in a table [set].",
)
@click.pass_context
def build_command(ctx: click.Context, /, **given: Any) -> None:
    """Render JOB, a built-in name or path/to/job.py[:Class], into shards.

    Run the same command again to continue; with more --shards to extend.
    """
    asked = options.take(BuildArguments, given)
    if asked.end_with_parent:
        ctx.with_resource(ending_with_parent())
    shards = _wanted(ctx, asked)
    live_asked = options.take(options.LiveArguments, given)
    live = options.live_options(live_asked, shards)
    choices = plan_options.choices(ctx, shards, **given)
    pool = asked.pool(shards)
    with FirstBlender(pool.instance_options, asked.attempts, announce) as first:
        plan = resolve_plan(choices, first)
        remember(plan)
        for note in plan.job.notes:
            announce(f"Note: {note}")
        out = asked.out or Path(plan.name)
        if asked.dry_run:
            _say_plan(plan, shards, out, asked)
            return
        with _store(plan, out, asked.fresh, live_asked.live_only) as store:
            work = find_outstanding(store, shards, endless=not shards)
            work = replace(work, require_objects=asked.require_objects)
            display = make_display(asked.quiet, plan.name)
            with live_tee(live, plan, work.report, announce) if live else nullcontext() as tee:
                report = build(store, work, pool, first.instance, display, tee)
            reports.look_for_the_unseen(report, store)
    if asked.as_json:
        say_json(reports.report_json(report, store.manifest, out))
    else:
        say_lines(reports.report_lines(report, store.manifest, out))
    if report.failed:
        raise reports.shards_missing(report)
    if asked.require_objects:
        reports.check_objects(report, store)


def _wanted(ctx: click.Context, asked: BuildArguments) -> int:
    """Return how many shards there shall be: whoever tries a job with ``--dry-run`` need not know it yet."""
    if asked.shards is None and not asked.dry_run:
        raise click.MissingParameter(
            ctx=ctx, param=next(entry for entry in ctx.command.params if entry.name == "shards")
        )
    return 1 if asked.shards is None else asked.shards


def _say_plan(plan: Plan, shards: int, out: Path, asked: BuildArguments) -> None:
    """Print what would be rendered."""
    found = None if asked.fresh else peek(out, plan, fresh=False)
    if found and found.anew:
        announce(f"Note: {found.anew}")
    planned = reports.PlanReport(plan, shards, out, found.manifest if found and not found.anew else None)
    if asked.as_json:
        say_json(planned.as_json())
    else:
        say_lines(planned.lines())


@contextmanager
def _store(plan: Plan, out: Path, fresh: bool, live_only: bool) -> Iterator[Store]:
    """Open the dataset's directory, or with ``--live-only`` none."""
    if live_only:
        yield Nowhere(plan, plan.manifest(provenance(plan)), out)
    else:
        with open_directory(out, plan, provenance(plan), fresh) as directory:
            if directory.anew:
                announce(f"Note: {directory.anew}")
            copy_sources(plan, out)
            yield directory
