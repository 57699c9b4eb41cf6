"""Parameter types and the configuration file of the command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from compiler.jobs import builtin_jobs

CONFIG_FIELDS = "blendshard.config_fields"
"""Where `load_config` leaves the ``[set]`` table in `click.Context.meta`: its values are typed already."""


class SizeType(click.ParamType[tuple[int, int]]):
    """``WxH`` in pixels, as ``640x480``."""

    name = "WxH"

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


class JobType(click.ParamType[str]):
    """A built-in job's name or ``path/to/job.py[:Class]``."""

    name = "JOB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as it is; `compiler.jobs` finds it."""
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


class DefaultGroup(click.Group):
    """A group whose first command is meant where none is named: ``compile-dataset --shards 4``."""

    default = "build"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command's name in front of arguments that do not begin with a command."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands and whatever the default command takes: its arguments and options."""
        command = self.commands[self.default]
        inner = click.Context(command, parent=ctx, info_name=self.default, resilient_parsing=True)
        offered = [*super().shell_complete(ctx, incomplete), *command.shell_complete(inner, incomplete)]
        for param in command.params:
            if isinstance(param, click.Argument) and not incomplete.startswith("-"):
                offered += param.shell_complete(inner, incomplete)
        return offered
