"""Options that commands share: their types, a configuration file, what chooses a plan, and what may run."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from blender_jobs.orders import DEVICES, ENGINE_SAMPLES, IMAGE_QUALITY, MISSING_FILES
from blender_jobs.passes import NONE, PASSES, in_order
from compiler.errors import UsageError
from compiler.planning.jobs import builtin_jobs, find_job
from compiler.resolve import Choices
from compiler.storage.published import Published
from compiler.terminal import announce
from compiler.trust import find_trusted, look_up

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_Given = TypeVar("_Given", bound="DataclassInstance")


_CONFIG_FIELDS = "blendshard.config_fields"
"""Where `load_config` leaves the ``[set]`` table in `click.Context.meta`: its values are typed already."""


def take(kind: type[_Given], given: dict[str, Any]) -> _Given:
    """Return the options that are the fields of a dataclass as one, taken out of what click gives a command."""
    return kind(**{entry.name: given.pop(entry.name) for entry in fields(kind)})


def adding(options: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command these options, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class _SizeType(click.ParamType[tuple[int, int]]):
    """``WxH`` in pixels, as ``640x480``."""

    name = "wxh"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return width and height."""
        parts = value.lower().split("x") if isinstance(value, str) else value
        try:
            width, height = (int(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, as 640x480", param, ctx)
        return width, height


class InstancesType(click.ParamType[int]):
    """A number of instances, or ``auto`` (0)."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, 0 for ``auto``."""
        if value == "auto":
            return 0
        number: int = click.IntRange(min=0).convert(value, param, ctx)
        return number


class _FieldType(click.ParamType[tuple[str, str]]):
    """``field=value``."""

    name = "FIELD=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and text; the job's field gives the type."""
        name, equals, text = str(value).partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not FIELD=VALUE, as count=20", param, ctx)
        return name, text


class _PassesType(click.ParamType[tuple[str, ...]]):
    """Names of passes with commas between them."""

    name = "PASS,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the passes in the table's order; `NONE` alone as it is, for no pass is not the job's passes."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        try:
            return (NONE,) if list(names) == [NONE] else tuple(in_order(names))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _JobType(click.ParamType[str]):
    """A built-in job's name or ``path/to/job.py[:Class]``."""

    name = "JOB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as it is. Raises UsageError where there is no such job, before anything is started."""
        find_job(str(value))
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the built-in jobs, then files."""
        names = [CompletionItem(name) for name in builtin_jobs() if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


def load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Let a TOML file give the options' defaults: their long names as keys, job fields in a table ``[set]``."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", ctx, param) from None
    fields = values.pop("set", {})
    if not isinstance(fields, dict):
        raise click.BadParameter(f"{path}: write job fields as a table [set]", ctx, param)
    ctx.meta[_CONFIG_FIELDS] = fields
    known = {_config_name(entry): str(entry.name) for entry in ctx.command.params}
    for name in values:
        if name.replace("_", "-") not in known:
            raise click.BadParameter(f"{path}: unknown key {name!r}; known are {', '.join(known)}", ctx, param)
    ctx.default_map = {known[name.replace("_", "-")]: value for name, value in values.items()}
    return path


def _config_name(param: click.Parameter) -> str:
    longest = max(param.opts, key=len)
    return longest.lstrip("-").replace("_", "-").lower()


require_objects = click.option(
    "--require-objects", is_flag=True, help="Fail with exit code 3 if no sample has an object in view."
)
"""Of commands that render a dataset or read it."""


_FIRST_JOB = """\
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
"""How a job for a scene begins; it works unchanged in any scene with a mesh."""

blender_option = click.option(
    "--blender",
    type=click.Path(),
    envvar="BLENDSHARD_BLENDER",
    help="A Blender executable, or a Python with bpy, for the instances.  [default: the bpy wheel of this Python]",
)

_PLAN_OPTIONS = [
    click.argument("job", type=_JobType(), default="falling_cubes"),
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
        help="If a file that a render needs is missing: stop, or render without it.",
    ),
    click.option(
        "--samples-per-shard",
        metavar="N",
        type=click.IntRange(1, 1_000_000),
        default=100,
        show_default=True,
        help="Samples in each shard.",
    ),
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="The seed of all that is random.",
    ),
    click.option("--set", "settings", type=_FieldType(), multiple=True, help="Set a field of the job."),
    click.option(
        "--passes",
        type=_PassesType(),
        default=(),
        help=f"Passes to render, with commas between them: {', '.join(PASSES)};"
        f" {NONE} for the image alone.  [default: the job's]",
    ),
    click.option(
        "--engine", type=click.Choice(list(ENGINE_SAMPLES)), default="cycles", show_default=True, help="What renders."
    ),
    click.option(
        "--render-samples",
        metavar="N",
        type=int,
        help="Samples per pixel.  [default: cycles 16, eevee 16, workbench 8]",
    ),
    click.option(
        "--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="What Cycles renders on."
    ),
    click.option("--denoise", is_flag=True, help="Denoise Cycles' image."),
    click.option(
        "--size", type=_SizeType(), default=(640, 480), help="The image's size in pixels.  [default: 640x480]"
    ),
    click.option(
        "--image", type=click.Choice(list(IMAGE_QUALITY)), default="png", show_default=True, help="Image format."
    ),
    click.option(
        "--quality",
        metavar="N",
        type=click.IntRange(1, 100),
        help="Quality of jpg and webp; webp 100 is lossless.  [default: 95]",
    ),
    blender_option,
]


add_plan_options = adding(_PLAN_OPTIONS)
"""Gives a command the options of a plan: the fields of `Choices`."""


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
    made = Choices(settings={**ctx.meta.get(_CONFIG_FIELDS, {}), **dict(settings)}, **chosen)
    if made.blend and ctx.get_parameter_source("job") is ParameterSource.DEFAULT:
        for line in _FIRST_JOB.splitlines():
            announce(line)
        raise UsageError(
            f"--blend {made.blend} is a scene, and no job says what varies in it and what is annotated",
            "save the lines above as scene_job.py and change them; then compile-dataset scene_job.py"
            f" --blend {shlex.quote(str(made.blend))} --shards {shards}",
        )
    made.render_settings()  # what is out of its range is refused before Blender starts
    return made


_PLACE_OPTIONS = [
    click.option("--job", type=click.Path(path_type=Path, dir_okay=False), help="The job's file, if it has moved."),
    click.option(
        "--assets",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder that holds the job's assets.",
    ),
    click.option("--trust-source", is_flag=True, help="Let the dataset's code run, though it is not yours."),
    click.option("--trust-blend", is_flag=True, help="Let scripts and drivers in its .blend run."),
]


place_options = adding(_PLACE_OPTIONS)
"""Gives a command the options that say where things are now, and what is trusted: the fields of `Places`."""


def ask_for_trust(published: Published) -> Published:
    """Return the dataset with what is trusted; on a terminal, ask before a stranger's code runs.

    Raises:
        UsageError, OtherPlan: as `compiler.trust.find_trusted`; nothing was run.
    """
    if published.manifest.recorded:  # it cannot be rendered again: the caller says so
        return published
    _, code = look_up(published)
    if code and sys.stdin.isatty() and sys.stderr.isatty():
        announce("Rendering this dataset again runs its code, which is not yours:")
        for file in code:
            announce(f"  {file}")
        announce("It can do whatever you can. Read it first.")
        if not click.confirm("Run it?", default=False, err=True):
            raise UsageError("the dataset's code was not run", "the other checks of compile-dataset verify run none")
        published = replace(published, places=replace(published.places, trust_source=True))
    find_trusted(published)
    return published
