"""``compile-dataset``: the edge. Only here words go in and out and errors become exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import click

from blender_jobs.orders import ENGINE_SAMPLES, IMAGE_QUALITY
from compiler import doctor as checks
from compiler import options
from compiler import report as reports
from compiler import show as pictures
from compiler import verify as checking
from compiler.build import build, survey
from compiler.crew import CrewOptions
from compiler.directory import open_directory, peek
from compiler.errors import BlenderUnusable, BlendshardError, UsageError, VerificationFailed
from compiler.instances import Launch
from compiler.lifeline import end_with_parent
from compiler.live import live_tee
from compiler.plan import Plan
from compiler.prepare import Choices, cores, draw_up, provenance, share_cores, start_first
from compiler.progress import make_display
from compiler.replay import replay as replay_episode
from compiler.store import Nowhere, Store

INTERRUPTED = 130

_STALL_TIMEOUT_S = 600.0

_CHOICES = ("job", "seed", "samples_per_shard", "engine", "render_samples", "size", "image", "quality")


_HELP = """Compile a dataset: Blender instances render randomized scenes into WebDataset shards.

The same plan gives the same bytes, whatever the number of instances.

\b
compile-dataset --shards 4                 falling cubes into ./falling_cubes
compile-dataset my_job.py --shards 100     your own job
compile-dataset show falling_cubes         look at them
compile-dataset build --help               all options
"""


@click.group(cls=options.DefaultGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("blendshard"), prog_name="compile-dataset")
def cli() -> None:
    """Compile a dataset."""


@cli.command("build")
@click.argument("job", type=options.JobType(), default="falling_cubes")
@click.option(
    "--shards", metavar="N", type=click.IntRange(min=0), required=True, help="How many shards the dataset shall have."
)
@click.option("--out", type=click.Path(path_type=Path), help="The dataset's directory.  [default: ./<job>]")
@click.option("--samples-per-shard", metavar="N", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option("--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--set", "settings", type=options.FieldType(), multiple=True, help="Set a field of the job.")
@click.option("--engine", type=click.Choice(list(ENGINE_SAMPLES)), default="cycles", show_default=True)
@click.option("--render-samples", metavar="N", type=int, help="Per pixel.  [default: cycles 16, eevee 16, workbench 8]")
@click.option("--size", type=options.SizeType(), default=(640, 480), help="In pixels.  [default: 640x480]")
@click.option("--image", type=click.Choice(list(IMAGE_QUALITY)), default="png", show_default=True)
@click.option(
    "--quality", metavar="N", type=click.IntRange(1, 100), help="Of jpg and webp; webp 100 is lossless.  [default: 95]"
)
@click.option("--instances", type=options.InstancesType(), default="auto", show_default=True, help="Blenders at once.")
@click.option("--stall-timeout", metavar="N", type=click.FloatRange(min=1), default=_STALL_TIMEOUT_S, show_default=True)
@click.option(
    "--attempts", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Tries of an episode."
)
@click.option(
    "--recycle", metavar="N", type=click.IntRange(min=1), default=500, show_default=True, help="Episodes of a Blender."
)
@click.option("--fresh", is_flag=True, help="Remove the dataset in the directory first.")
@click.option("--dry-run", is_flag=True, help="Say what would be rendered; write nothing.")
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
    live, shards = options.live_options(given), given["shards"]
    settings = {**ctx.meta.get(options.CONFIG_FIELDS, {}), **dict(given["settings"])}
    choices = Choices(settings=settings, **{name: given[name] for name in _CHOICES})
    instances, threads = share_cores(given["instances"], shards)
    crew = CrewOptions(instances, Launch(threads, given["stall_timeout"]), given["attempts"], given["recycle"])
    first = start_first(crew.launch)
    try:
        plan = draw_up(choices, first)
        out = given["out"] or Path(plan.name)
        if given["dry_run"]:
            found = None if given["fresh"] else peek(out, plan, fresh=False)
            _say(reports.PlanReport(plan, shards, out, found), given["as_json"])
            return
        with _store(plan, out, given) as store:
            todo, display = survey(store, shards), make_display(given["quiet"], plan.name)
            with live_tee(live, plan, todo.report, _announce) if live else nullcontext() as tee:
                report = build(store, todo, crew, first, display, tee)
    finally:
        first.end()
    if given["as_json"]:
        _say_json(reports.report_json(report, store.manifest, out))
    else:
        _say_lines(reports.report_lines(report, store.manifest, out))
    if report.failed:
        raise reports.shards_missing(report, out)


@contextmanager
def _store(plan: Plan, out: Path, given: dict[str, Any]) -> Iterator[Store]:
    """Open the dataset's directory, or with ``--live-only`` none."""
    if given["live_only"]:
        yield Nowhere(plan, plan.manifest(provenance(plan)))
    else:
        with open_directory(out, plan, provenance(plan), given["fresh"]) as directory:
            yield directory


def _announce(line: str) -> None:
    click.echo(line, err=True)


@cli.command("verify")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify_command(folder: Path, as_json: bool) -> None:
    """Hash every shard of a dataset again and name what is damaged."""
    manifest = checking.load_manifest(folder)
    problems = {}
    for shard, problem in checking.verify(folder, manifest):
        if problem:
            problems[shard.name] = problem
        if not as_json:
            click.echo(f"{shard.name}  {'DAMAGED' if problem else 'ok'}  {problem or f'{shard.samples} samples'}")
    strangers = checking.strangers(folder, manifest)
    if as_json:
        _say_json({"shards": len(manifest.shards), "damaged": problems, "unknown_files": strangers})
    else:
        for name in strangers:
            click.echo(f"{name}  not in the manifest")
        click.echo(f"{len(manifest.shards)} shards, {manifest.samples} samples, digest {manifest.digest}")
    if problems:
        raise VerificationFailed(
            f"{folder}: {len(problems)} of {len(manifest.shards)} shards are damaged ({', '.join(problems)})",
            "run the command that made the dataset again: it renders damaged shards anew",
        )


@cli.command("show")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("key", required=False)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="[default: <dir>.png or <key>.png]")
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), default=12, show_default=True, help="Samples on the sheet."
)
@click.option("--columns", metavar="N", type=click.IntRange(min=1), default=4, show_default=True)
@click.option(
    "--width", metavar="N", type=click.IntRange(16, 8192), help="Of each sample, in pixels.  [default: 320, alone 960]"
)
def show_command(folder: Path, key: str | None, out: Path | None, count: int, columns: int, width: int | None) -> None:
    """Draw a sample (KEY, as 000003-000042) or a contact sheet with boxes and keypoints into a PNG.

    Filled keypoints are visible, hollow ones occluded.
    """
    manifest = checking.load_manifest(folder)
    if key:
        picture = pictures.draw_sample(pictures.find_sample(folder, manifest, key), width or 960)
    else:
        picture = pictures.contact_sheet(pictures.spread(folder, manifest, count), columns, width or 320)
    path = out or Path(f"{key or folder.resolve().name}.png")
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "name another place with --out") from None
    click.echo(path)


@cli.command("replay")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--episode", metavar="N", type=click.IntRange(min=0), required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: ./episode-<number>]")
def replay_command(folder: Path, episode: int, out: Path | None) -> None:
    """Render one episode again, alone, showing all that Blender says; its samples become files."""
    manifest = checking.load_manifest(folder)
    launch = Launch(cores(), _STALL_TIMEOUT_S, echo=True)
    for path in replay_episode(manifest, episode, out or Path(f"episode-{episode}"), launch):
        click.echo(path)


@cli.command("doctor")
def doctor_command() -> None:
    """Say which Blender is here, which engines render, and what to do about those that do not."""
    launch = Launch(cores(), stall_timeout=120)
    hello = checks.find_blender(launch)
    click.echo(f"blender    {hello.version} ({hello.build_hash}), {hello.platform}, Python {hello.python}")
    click.echo(f"cores      {cores()}")
    works = {}
    for check in checks.check_engines(launch):
        works[check.engine] = check.works
        click.echo(f"{check.engine:<10} {'ok' if check.works else 'FAILED'}  {check.text}")
    if not works["cycles"]:
        raise BlenderUnusable("Cycles, the default engine, does not render here", "see the line above")


def main() -> NoReturn:
    """Run the command; every error of a user's is one line and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.exceptions.Exit as asked:
        code = asked.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; run the same command again to continue.", err=True)
        code = INTERRUPTED
    except BlendshardError as error:
        _say_error(error)
        code = error.exit_code
    except BrokenPipeError:  # whoever read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(report: reports.PlanReport, as_json: bool) -> None:
    if as_json:
        _say_json(report.as_json())
    else:
        _say_lines(report.lines())


def _say_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _say_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True))


def _say_error(error: BlendshardError) -> None:
    for line in error.details:
        click.echo(f"  | {line}", err=True)
    click.echo(f"Error: {error}", err=True)
    if error.hint:
        click.echo(f"Try: {error.hint}", err=True)
