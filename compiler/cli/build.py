"""``compile-dataset build``: render a job into shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.build import build, find_outstanding
from compiler.cli import options
from compiler.cli import report as reports
from compiler.cli.progress import make_display
from compiler.errors import UsageError
from compiler.live.tee import DEFAULT_URL, LiveOptions, Policy, live_tee, tee_options
from compiler.machine import share_cores
from compiler.planning.plan import Plan
from compiler.process_control import ending_with_parent
from compiler.rendering.pool import PoolOptions
from compiler.rendering.retry import OnPoison, RetryPolicy
from compiler.resolve import FirstBlender, provenance, resolve_plan
from compiler.storage.destination import Destination, LiveOnly
from compiler.storage.directory import open_directory
from compiler.storage.existing import peek
from compiler.storage.sources import copy_sources
from compiler.terminal import announce, say_json, say_lines
from compiler.trust import remember
from loaders.files import read_regular

_TOKEN_VARIABLE = "BLENDSHARD_LIVE_TOKEN"

_MOST_TOKEN_BYTES = 4096


@dataclass(frozen=True)
class LiveArguments:
    """The options of ``build`` for the live tee."""

    live: str | None
    live_only: bool
    live_policy: Policy
    live_wait: int
    live_host: str | None
    live_token: str | None
    live_token_file: Path | None
    live_ready_file: Path | None


def _live_options(given: LiveArguments, shards: int) -> LiveOptions | None:
    """Return how a build of `shards` shards goes live, None if it does not.

    Raises:
        UsageError: options that do not go together, or an address that cannot be listened at.
    """
    url = given.live or (DEFAULT_URL if given.live_only else None)
    if not shards and not given.live_only:
        raise UsageError("--shards 0 renders without end", "it needs --live-only, which writes nothing")
    if url is None:
        token_in_vain = given.live_token and given.live_token != os.environ.get(_TOKEN_VARIABLE)  # which is no mistake
        unused = {
            "--live-host": given.live_host,
            "--live-token": token_in_vain,
            "--live-token-file": given.live_token_file,
            "--live-wait": given.live_wait,
        }
        if words := [word for word, value in unused.items() if value]:
            raise UsageError(f"{words[0]} needs --live", f"add --live {DEFAULT_URL}")
        return None
    token = _token(given)
    tee = tee_options(url, given.live_host, given.live_policy, token)
    made = tee.token is not None and token is None
    return LiveOptions(tee, given.live_wait, made, given.live_ready_file)


def _token(given: LiveArguments) -> str | None:
    """Return the token that is given: in words, in the environment, or in a file.

    Raises:
        UsageError: in two places, or the file cannot be read.
    """
    if given.live_token_file is None:
        return given.live_token
    try:
        return read_regular(given.live_token_file, _MOST_TOKEN_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--live-token-file {given.live_token_file}: {reason}", "write the token there") from None


_LIVE_OPTIONS = [
    click.option(
        "--live",
        metavar="URL",
        is_flag=False,
        flag_value=DEFAULT_URL,
        help=f"Serve the samples to listeners as they are made.  [alone: {DEFAULT_URL}]",
    ),
    click.option("--live-only", is_flag=True, help="Write nothing; with --shards 0, render without end."),
    click.option(
        "--live-policy",
        type=click.Choice(["drop", "block"]),
        default="drop",
        show_default=True,
        help="What a slow listener causes: dropped samples, which are counted, or waiting.",
    ),
    click.option(
        "--live-wait",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        help="Wait for N listeners before rendering.",
    ),
    click.option("--live-host", help="Listen at this address, for other machines too; needs a token."),
    click.option(
        "--live-token",
        envvar=_TOKEN_VARIABLE,
        help="What listeners must show; others on this machine see it in the list of processes: better in the"
        " environment as BLENDSHARD_LIVE_TOKEN, or in a file.  [default: made, for other machines]",
    ),
    click.option(
        "--live-token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file that holds the token.",
    ),
    click.option("--live-ready-file", type=click.Path(path_type=Path), hidden=True),
    click.option("--end-with-parent", is_flag=True, hidden=True),
]


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
        """Return how many instances render `shards` shards, and how."""
        instances, threads = share_cores(self.instances, shards)
        instance_options = InstanceOptions(threads, self.stall_timeout, blender=self.blender)
        return PoolOptions(instances, instance_options, RetryPolicy(self.attempts, self.on_poison), self.recycle)


@click.command("build")
@options.add_plan_options
@click.option("--shards", metavar="N", type=click.IntRange(min=0), help="How many shards the dataset gets.  [required]")
@click.option("--out", type=click.Path(path_type=Path), help="The dataset's directory.  [default: ./<job>]")
@click.option(
    "--instances", type=options.InstancesType(), default="auto", show_default=True, help="Blenders that render at once."
)
@click.option(
    "--stall-timeout",
    metavar="N",
    type=click.FloatRange(min=1),
    default=STALL_TIMEOUT_S,
    show_default=True,
    help="Seconds of silence after which a busy Blender is replaced.",
)
@click.option(
    "--attempts",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often to try an episode.",
)
@click.option(
    "--on-poison",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="An episode that fails every try: give up its shard, or leave it out and list it.",
)
@options.require_objects
@click.option(
    "--recycle",
    metavar="N",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Episodes before a Blender is replaced.",
)
@click.option("--fresh", is_flag=True, help="Remove the dataset in the directory first.")
@click.option("--dry-run", is_flag=True, help="Say what would be rendered (one shard without --shards); write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@options.adding(_LIVE_OPTIONS)
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
    live_asked = options.take(LiveArguments, given)
    live = _live_options(live_asked, shards)
    choices = options.choices(ctx, shards, **given)
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
            work = find_outstanding(store, shards, endless=not shards, require_objects=asked.require_objects)
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
    """Return how many shards to build: with ``--dry-run`` you need not say yet."""
    if asked.shards is None and not asked.dry_run:
        raise click.MissingParameter(
            ctx=ctx, param=next(entry for entry in ctx.command.params if entry.name == "shards")
        )
    return 1 if asked.shards is None else asked.shards


def _say_plan(plan: Plan, shards: int, out: Path, asked: BuildArguments) -> None:
    """Print what would be rendered."""
    found = None if asked.fresh else peek(out, plan, fresh=False)
    if found and found.started_over:
        announce(f"Note: {found.started_over}")
    planned = reports.PlanReport(plan, shards, out, found.manifest if found and not found.started_over else None)
    if asked.as_json:
        say_json(planned.as_json())
    else:
        say_lines(planned.lines())


@contextmanager
def _store(plan: Plan, out: Path, fresh: bool, live_only: bool) -> Iterator[Destination]:
    """Open the dataset's directory, or with ``--live-only`` none."""
    if live_only:
        yield LiveOnly(plan, plan.manifest(provenance(plan)), out)
    else:
        with open_directory(out, plan, provenance(plan), fresh) as directory:
            if directory.started_over:
                announce(f"Note: {directory.started_over}")
            copy_sources(plan, out)
            yield directory
