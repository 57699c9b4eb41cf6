"""The group of commands: each is loaded when it is called, and one is meant where none is named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called: help and version need none of them.

    A line that begins with neither a command nor an option of the group's own is the default command's.

    Args:
        summaries: what each command does, by its name; ``compiler.cli.<name>`` holds it as ``<name>_command``.
        default: the command that is meant where none is named: ``compile-dataset --shards 4``.
        settings: as `click.Group` takes them.
    """

    def __init__(self, summaries: Mapping[str, str], default: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._summaries, self._default = summaries, default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, loaded; None where there is none of this name."""
        if cmd_name not in self._summaries:
            return None
        module = importlib.import_module(f"compiler.cli.{cmd_name}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, with what each does, into the help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command's name in front of arguments that do not begin with a command.

        Raises:
            UsageError: the first word is neither a command nor a job.
        """
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args and args[0] not in own and args[0] not in self._summaries:
            if not args[0].startswith("-"):
                self._check_job(args[0])
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def _check_job(self, word: str) -> None:
        from compiler.planning.jobs import find_job  # a command's name needs none of it

        find_job(word, commands=self._summaries)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands and whatever the default command takes: its arguments and options."""
        from click.shell_completion import CompletionItem  # the help needs none of it

        offered = [CompletionItem(name, help=text) for name, text in self._summaries.items()]
        offered = [item for item in offered if item.value.startswith(incomplete)]
        offered += click.Command.shell_complete(self, ctx, incomplete)
        command = self.get_command(ctx, self._default)
        assert command is not None, "the default command is one of them"
        inner = click.Context(command, parent=ctx, info_name=self._default, resilient_parsing=True)
        offered += command.shell_complete(inner, incomplete)
        for param in command.params:
            if isinstance(param, click.Argument) and not incomplete.startswith("-"):
                offered += param.shell_complete(inner, incomplete)
        return offered
