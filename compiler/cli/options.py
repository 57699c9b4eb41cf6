"""Parameter types of the command line, its configuration file, and what commands are given, as values with types."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from blender_jobs.passes import NONE, in_order
from compiler.errors import UsageError
from compiler.live.options import Policy
from compiler.live.serving import DEFAULT_URL, LiveOptions, tee_options
from compiler.planning.jobs import builtin_jobs, find_job
from loaders.files import read_regular

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Given = TypeVar("Given", bound="DataclassInstance")

_TOKEN_VARIABLE = "BLENDSHARD_LIVE_TOKEN"
_MOST_TOKEN_BYTES = 4096

CONFIG_FIELDS = "blendshard.config_fields"
"""Where `load_config` leaves the ``[set]`` table in `click.Context.meta`: its values are typed already."""


def take(kind: type[Given], given: dict[str, Any]) -> Given:
    """Return the options that are the fields of a dataclass as one, taken out of what click gives a command."""
    return kind(**{entry.name: given.pop(entry.name) for entry in fields(kind)})


class SizeType(click.ParamType[tuple[int, int]]):
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


class FieldType(click.ParamType[tuple[str, str]]):
    """``field=value``."""

    name = "FIELD=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and text; the job's field gives the type."""
        name, equals, text = str(value).partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not FIELD=VALUE, as count=20", param, ctx)
        return name, text


class PassesType(click.ParamType[tuple[str, ...]]):
    """Names of passes with commas between them."""

    name = "PASS,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the passes in the table's order; `NONE` alone as it is, for no pass is not the job's passes."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        try:
            return (NONE,) if list(names) == [NONE] else tuple(in_order(names))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class JobType(click.ParamType[str]):
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
    ctx.meta[CONFIG_FIELDS] = fields
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
    "--require-objects", is_flag=True, help="Fail, with exit code 3, where no sample has an object in view."
)
"""Of commands that render a dataset or read it."""


def add_live_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the live tee to the build command."""
    for option in reversed(_LIVE_OPTIONS):
        command = option(command)
    return command


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


def live_options(given: LiveArguments, shards: int) -> LiveOptions | None:
    """Return how the build of so many shards goes live, None if it does not.

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
        help="What a slow listener causes: lost samples, counted, or waiting.",
    ),
    click.option(
        "--live-wait",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        help="Begin when so many listeners are there.",
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
