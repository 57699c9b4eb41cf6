"""``compile-dataset build``: render a job into shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from compiler import report as reports
from compiler.build import build, survey
from compiler.commands import options, plan_options
from compiler.commands.output import announce, say_json, say_lines
from compiler.lifeline import end_with_parent
from compiler.live.serving import live_tee
from compiler.planning.plan import Plan
from compiler.prepare import FirstBlender, draw_up, provenance, share_cores
from compiler.progress import make_display
from compiler.rendering.crew import CrewOptions
from compiler.rendering.instances import STALL_TIMEOUT_S, Launch
from compiler.rendering.task import Endurance
from compiler.storage.directory import open_directory, peek
from compiler.storage.sources import copy_sources
from compiler.storage.store import Nowhere, Store
from compiler.trust import remember


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
    if given["end_with_parent"]:
        end_with_parent()
    shards = given["shards"] = _wanted(ctx, given)
    live = options.live_options(given)
    choices = plan_options.choices(ctx, given)
    instances, threads = share_cores(given["instances"], shards)
    crew = CrewOptions(
        instances,
        Launch(threads, given["stall_timeout"], blender=given["blender"]),
        Endurance(given["attempts"], given["on_poison"]),
        given["recycle"],
    )
    first = FirstBlender(crew.launch, given["attempts"], announce)
    try:
        plan = draw_up(choices, first)
        remember(plan)
        for note in plan.job.notes:
            announce(f"Note: {note}")
        out = given["out"] or Path(plan.name)
        if given["dry_run"]:
            found = None if given["fresh"] else peek(out, plan, fresh=False)
            if found and found.anew:
                announce(f"Note: {found.anew}")
            planned = reports.PlanReport(plan, shards, out, found.manifest if found and not found.anew else None)
            if given["as_json"]:
                say_json(planned.as_json())
            else:
                say_lines(planned.lines())
            return
        with _store(plan, out, given) as store:
            todo = replace(survey(store, shards, endless=not shards), require_objects=given["require_objects"])
            display = make_display(given["quiet"], plan.name)
            with live_tee(live, plan, todo.report, announce) if live else nullcontext() as tee:
                report = build(store, todo, crew, first.instance, display, tee)
            reports.look_for_the_unseen(report, store)
    finally:
        first.end()
    if given["as_json"]:
        say_json(reports.report_json(report, store.manifest, out))
    else:
        say_lines(reports.report_lines(report, store.manifest, out))
    if report.failed:
        raise reports.shards_missing(report)
    if given["require_objects"]:
        reports.check_objects(report, store)


def _wanted(ctx: click.Context, given: dict[str, Any]) -> int:
    """Return how many shards there shall be: whoever tries a job with ``--dry-run`` need not know it yet."""
    if given["shards"] is None and not given["dry_run"]:
        raise click.MissingParameter(
            ctx=ctx, param=next(entry for entry in ctx.command.params if entry.name == "shards")
        )
    return 1 if given["shards"] is None else int(given["shards"])


@contextmanager
def _store(plan: Plan, out: Path, given: dict[str, Any]) -> Iterator[Store]:
    """Open the dataset's directory, or with ``--live-only`` none."""
    if given["live_only"]:
        yield Nowhere(plan, plan.manifest(provenance(plan)), out)
    else:
        with open_directory(out, plan, provenance(plan), given["fresh"]) as directory:
            if directory.anew:
                announce(f"Note: {directory.anew}")
            copy_sources(plan, out)
            yield directory
