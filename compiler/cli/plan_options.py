"""The command line's options that choose a plan."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from blender_jobs.orders import DEVICES, ENGINE_SAMPLES, IMAGE_QUALITY, MISSING_FILES
from blender_jobs.passes import NONE, PASSES
from compiler.cli.options import CONFIG_FIELDS, FieldType, JobType, PassesType, SizeType
from compiler.errors import UsageError
from compiler.resolve import Choices
from compiler.terminal import announce

FIRST_JOB = """\
from dataclasses import dataclass

import bpy
from blender_jobs.job import Job


@dataclass
class SceneJob(Job):
    def setup(self):  # the scene is open: find in it what you need
        self.things = [thing for thing in bpy.context.scene.objects if thing.type == "MESH" and not thing.hide_render]

    def randomize(self, rng):  # all that is random comes from rng
        self.things[0].rotation_euler.z += rng.uniform(-0.5, 0.5)

    def annotate(self, view):
        return {"objects": [view.describe(thing, category="thing") for thing in self.things]}
"""
"""How a job for a scene is begun; it works as it stands wherever there is a mesh."""

blender_option = click.option(
    "--blender",
    type=click.Path(),
    envvar="BLENDSHARD_BLENDER",
    help="A Blender executable, or a Python with bpy, for the instances.  [default: the bpy wheel of this Python]",
)

_OPTIONS = [
    click.argument("job", type=JobType(), default="falling_cubes"),
    click.option(
        "--blend",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The .blend file in which the job's setup runs.  [default: the job's, or an empty scene]",
    ),
    click.option("--trust-blend", is_flag=True, help="Let scripts and drivers in the .blend run."),
    click.option(
        "--missing-files",
        type=click.Choice(MISSING_FILES),
        default=MISSING_FILES[0],
        show_default=True,
        help="Where a file that a render needs is not there: stop, or render without it.",
    ),
    click.option("--samples-per-shard", metavar="N", type=click.IntRange(1, 1_000_000), default=100, show_default=True),
    click.option("--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--set", "settings", type=FieldType(), multiple=True, help="Set a field of the job."),
    click.option(
        "--passes",
        type=PassesType(),
        default=(),
        help=f"Of {', '.join(PASSES)}, with commas; {NONE} for the image alone.  [default: the job's]",
    ),
    click.option("--engine", type=click.Choice(list(ENGINE_SAMPLES)), default="cycles", show_default=True),
    click.option(
        "--render-samples", metavar="N", type=int, help="Per pixel.  [default: cycles 16, eevee 16, workbench 8]"
    ),
    click.option(
        "--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="What Cycles renders on."
    ),
    click.option("--denoise", is_flag=True, help="Denoise Cycles' image."),
    click.option("--size", type=SizeType(), default=(640, 480), help="In pixels.  [default: 640x480]"),
    click.option("--image", type=click.Choice(list(IMAGE_QUALITY)), default="png", show_default=True),
    click.option(
        "--quality",
        metavar="N",
        type=click.IntRange(1, 100),
        help="Of jpg and webp; webp 100 is lossless.  [default: 95]",
    ),
    blender_option,
]


def add(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choices(ctx: click.Context, shards: int, settings: Sequence[tuple[str, str]], **chosen: Any) -> Choices:
    """Return what the user chose, a configuration file's job fields included.

    Args:
        ctx: the command's.
        shards: how many the user wants.
        settings: the job's fields that the command line sets.
        chosen: the other fields of `Choices`.

    Raises:
        UsageError: a value out of its range; a scene and no job: the default job has nothing to do with it.
    """
    made = Choices(settings={**ctx.meta.get(CONFIG_FIELDS, {}), **dict(settings)}, **chosen)
    if made.blend and ctx.get_parameter_source("job") is ParameterSource.DEFAULT:
        for line in FIRST_JOB.splitlines():
            announce(line)
        raise UsageError(
            f"--blend {made.blend} is a scene, and no job says what varies in it and what is annotated",
            "save the lines above as scene_job.py and change them; then compile-dataset scene_job.py"
            f" --blend {shlex.quote(str(made.blend))} --shards {shards}",
        )
    made.render_settings()  # what is out of its range is refused before Blender starts
    return made
