"""``compile-dataset``: the edge. Only here words go in and out and errors become exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from blender_jobs.orders import ENGINE_SAMPLES, IMAGE_QUALITY, Describe, RenderSettings
from compiler import doctor as checks
from compiler import options
from compiler import show as pictures
from compiler import verify as checking
from compiler.build import Report, build
from compiler.crew import CrewOptions
from compiler.directory import open_directory, peek
from compiler.errors import BlenderUnusable, BlendshardError, Incomplete, InstanceLost, UsageError, VerificationFailed
from compiler.instances import Instance, Launch
from compiler.jobs import find_job
from compiler.plan import Plan
from compiler.progress import make_display
from compiler.replay import replay as replay_episode
from loaders.manifest import Manifest

MOST_INSTANCES = 16
"""What ``--instances auto`` does not exceed; each holds 300 to 500 MB."""

INTERRUPTED = 130

_STALL_TIMEOUT_S = 600.0


@click.group(
    cls=options.DefaultGroup, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=False
)
@click.version_option(importlib.metadata.version("blendshard"), prog_name="compile-dataset")
def cli() -> None:
    r"""Compile a dataset: Blender instances render randomized scenes into WebDataset shards.

    The same plan gives the same bytes, whatever the number of instances.

    \b
    compile-dataset --shards 4                      falling cubes into ./falling_cubes
    compile-dataset my_job.py --shards 100          your own job
    compile-dataset build --help                    all options
    compile-dataset show falling_cubes              look at them
    """


@cli.command("build")
@click.argument("job", type=options.JobType(), default="falling_cubes")
@click.option("--shards", type=click.IntRange(min=1), required=True, help="How many shards the dataset shall have.")
@click.option("--out", type=click.Path(path_type=Path), help="The dataset's directory.  [default: ./<job>]")
@click.option("--samples-per-shard", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--set", "settings", type=options.FieldType(), multiple=True, help="Set a field of the job.")
@click.option("--engine", type=click.Choice(list(ENGINE_SAMPLES)), default="cycles", show_default=True)
@click.option("--render-samples", type=int, help="Per pixel.  [default: cycles 16, eevee 16, workbench 8]")
@click.option("--size", type=options.SizeType(), default=(640, 480), help="In pixels.  [default: 640x480]")
@click.option("--image", type=click.Choice(list(IMAGE_QUALITY)), default="png", show_default=True)
@click.option("--quality", type=click.IntRange(1, 100), help="Of jpg and webp; webp 100 is lossless.  [default: 95]")
@click.option("--instances", type=options.InstancesType(), default="auto", show_default=True, help="Blenders at once.")
@click.option("--stall-timeout", type=click.FloatRange(min=1), default=_STALL_TIMEOUT_S, show_default=True)
@click.option("--attempts", type=click.IntRange(min=1), default=3, show_default=True, help="Tries of an episode.")
@click.option("--recycle", type=click.IntRange(min=1), default=500, show_default=True, help="Episodes of a Blender.")
@click.option("--fresh", is_flag=True, help="Remove the dataset in the directory first.")
@click.option("--dry-run", is_flag=True, help="Say what would be rendered; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
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
    launch, instances = _share_cores(given["instances"], given["shards"], given["stall_timeout"])
    first = _start(launch)
    try:
        plan = _make_plan(first, given, ctx.meta.get(options.CONFIG_FIELDS, {}))
        out = given["out"] or Path(plan.name)
        if given["dry_run"]:
            _say_plan(plan, out, given, peek(out, plan, given["fresh"]))
            return
        with open_directory(out, plan, _provenance(plan), given["fresh"]) as directory:
            crew = CrewOptions(instances, launch, given["attempts"], given["recycle"])
            report = build(directory, given["shards"], crew, first, make_display(given["quiet"], plan.name))
            _say_report(report, directory.manifest, out, given["as_json"])
    finally:
        first.end()
    if report.failed:
        raise _shards_missing(report, out)


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
@click.option("--count", type=click.IntRange(min=1), default=12, show_default=True, help="Samples on the sheet.")
@click.option("--columns", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--width", type=click.IntRange(16, 8192), help="Of each sample, in pixels.  [default: 320, alone 960]")
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
@click.option("--episode", type=click.IntRange(min=0), required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: ./episode-<number>]")
def replay_command(folder: Path, episode: int, out: Path | None) -> None:
    """Render one episode again, alone, showing all that Blender says; its samples become files."""
    manifest = checking.load_manifest(folder)
    launch = Launch(_cores(), _STALL_TIMEOUT_S, echo=True)
    for path in replay_episode(manifest, episode, out or Path(f"episode-{episode}"), launch):
        click.echo(path)


@cli.command("doctor")
def doctor_command() -> None:
    """Say which Blender is here, which engines render, and what to do about those that do not."""
    launch = Launch(_cores(), stall_timeout=120)
    hello = checks.find_blender(launch)
    click.echo(f"blender    {hello.version} ({hello.build_hash}), {hello.platform}, Python {hello.python}")
    click.echo(f"cores      {_cores()}")
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


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_cores(instances: int, shards: int, stall_timeout: float) -> tuple[Launch, int]:
    """Return how each instance is launched and how many there are."""
    instances = min(instances or min(_cores(), MOST_INSTANCES), shards)
    return Launch(max(1, _cores() // instances), stall_timeout), instances


def _start(launch: Launch) -> Instance:
    try:
        return Instance(launch)
    except InstanceLost as loss:
        details = loss.log[-8:]
        raise BlenderUnusable(f"Blender did not start: it {loss}", "compile-dataset doctor", details) from None


def _make_plan(instance: Instance, given: Mapping[str, Any], config_fields: Mapping[str, Any]) -> Plan:
    source = find_job(given["job"])
    engine, image = given["engine"], given["image"]
    samples = given["render_samples"] if given["render_samples"] is not None else ENGINE_SAMPLES[engine]
    try:
        width, height = given["size"]
        render = RenderSettings(engine, samples, width, height, image, given["quality"] or IMAGE_QUALITY[image])
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        described = instance.describe(Describe(source, {**config_fields, **dict(given["settings"])}, render))
    except InstanceLost as loss:
        raise UsageError(f"{source.path}: loading it, Blender {loss}", details=loss.log) from None
    return Plan(source, described, render, given["seed"], given["samples_per_shard"], instance.hello)


def _provenance(plan: Plan) -> dict[str, Any]:
    return {
        "blendshard": importlib.metadata.version("blendshard"),
        "job_path": plan.source.path,
        "python": platform.python_version(),
        "numpy": plan.blender.numpy,
        "pillow": importlib.metadata.version("pillow"),
    }


def _say_plan(plan: Plan, out: Path, given: Mapping[str, Any], found: Manifest | None) -> None:
    manifest = found or Manifest(plan.name, plan.identity(), {}, {})
    done = 0 if given["fresh"] else sum(shard.number < given["shards"] for shard in manifest.shards)
    digest = Manifest(plan.name, plan.identity(), {}, {}).plan_digest
    samples = (given["shards"] - done) * plan.samples_per_shard
    if given["as_json"]:
        _say_json({"out": str(out), "plan": plan.identity(), "plan_digest": digest, "samples_to_render": samples})
        return
    render, frames = plan.render, plan.job.frames
    click.echo(f"job        {plan.name}: {plan.job.doc}")
    click.echo(f"fields     {', '.join(f'{name}={value}' for name, value in plan.job.fields.items()) or 'none'}")
    click.echo(
        f"frames     {len(frames)} of each episode ({', '.join(map(str, frames[:8]))}{', ...' * (len(frames) > 8)})"
    )
    click.echo(f"image      {render.width}x{render.height} {render.image}, {render.engine}, {render.samples} samples")
    click.echo(f"blender    {plan.blender.version} ({plan.blender.build_hash})")
    click.echo(f"plan       {digest}")
    click.echo(f"would render {samples} samples ({given['shards'] - done} of {given['shards']} shards) into {out}")
    if cut := plan.samples_per_shard % len(frames):
        click.echo(f"note: the last episode of each shard keeps {cut} of {len(frames)} frames")


def _say_report(report: Report, manifest: Manifest, out: Path, as_json: bool) -> None:
    if as_json:
        shown = {name: value for name, value in asdict(report).items() if name != "failed"}
        failed = [str(error) for error in report.failed]
        shards = [asdict(shard) for shard in manifest.shards]
        digests = {"digest": manifest.digest, "plan_digest": manifest.plan_digest}
        _say_json({**shown, "failed": failed, "out": str(out), "shards": shards, **digests})
        return
    for name in report.damaged:
        click.echo(f"{name} was damaged and has been rendered again")
    restarts = f", {report.restarts} restarts" if report.restarts else ""
    click.echo(
        f"{out}: {report.shards_done}/{report.shards_wanted} shards, {report.samples_done} samples"
        f" ({report.samples_rendered} rendered now in {report.seconds:.1f} s, {report.rate:.2f}/s{restarts})"
    )
    click.echo(f"digest {manifest.digest}")


def _shards_missing(report: Report, out: Path) -> Incomplete:
    first = report.failed[0]
    count = f"{len(report.failed)} of {report.shards_wanted} shards are missing"
    return Incomplete(f"{count}: {first}", first.hint.format(directory=out), first.details)


def _say_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True))


def _say_error(error: BlendshardError) -> None:
    for line in error.details:
        click.echo(f"  | {line}", err=True)
    click.echo(f"Error: {error}", err=True)
    if error.hint:
        click.echo(f"Try: {error.hint}", err=True)
