"""``compile-dataset``: loads the command that is called, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import io
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import click

from compiler.errors import BlendshardError, Incomplete
from compiler.terminal import announce, give_up, mend_streams

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _LazyGroup(click.Group):
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


_INTERRUPTED = 130

_COMMANDS = {
    "build": "Render a job into shards.",
    "show": "Draw samples with their annotations into a PNG.",
    "verify": "Read every byte again and name what is damaged.",
    "diff": "Say what differs between two datasets.",
    "export": "Write a dataset for another tool: COCO, YOLO, loose files.",
    "reproduce": "Render the dataset of a manifest again.",
    "replay": "Render one episode again, in the foreground.",
    "examples": "List the examples, or write them into a folder.",
    "doctor": "Say which Blender is here and what renders.",
}
"""What each does; its module is loaded when it is called."""

_CONTINUE = ("build", "export", "reproduce")
"""Commands that continue what an earlier run left."""

_HELP = """Compile a dataset: Blender instances render randomized scenes into WebDataset shards.

The same plan gives the same bytes, whatever the number of instances.

\b
compile-dataset --shards 4                 falling cubes into ./falling_cubes
compile-dataset my_job.py --shards 100     your own job
compile-dataset show falling_cubes         look at them
compile-dataset build --help               all options
"""


@click.pass_context
def _remember(ctx: click.Context) -> None:
    ctx.ensure_object(list).append(ctx.invoked_subcommand)


cli = _LazyGroup(
    _COMMANDS,
    default="build",
    name="cli",
    callback=_remember,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(package_name="blendshard", prog_name="compile-dataset")(cli)


def main() -> NoReturn:
    """Run the command; every error of a user's is one line and an exit code."""
    mend_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    invoked: list[str] = []
    try:
        code = cli.main(standalone_mode=False, obj=invoked) or 0
    except click.exceptions.Exit as asked:
        code = asked.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(file=said)
        for line in said.getvalue().rstrip().split("\n"):
            announce(line)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        continues = invoked and invoked[0] in _CONTINUE
        announce(f"Interrupted{'; run the same command again to continue' if continues else ''}.")
        code = _INTERRUPTED
    except BlendshardError as error:
        _say_error(error)
        code = error.exit_code
    except BrokenPipeError:  # the reader of the output has gone
        give_up(1)
        code = 1
    except (OSError, MemoryError, RuntimeError) as error:
        _say_error(_shortage(error))
        code = 1
    sys.exit(code)


def _shortage(error: OSError | MemoryError | RuntimeError) -> BlendshardError:
    """Return the error for a lack of resources: a full disk for stdout, memory, processes.

    Raises:
        RuntimeError: it is another error, a defect of ours.
    """
    if isinstance(error, MemoryError):
        return Incomplete("there is not enough memory", "raise the limit (ulimit -v), or end other programs")
    if isinstance(error, OSError):
        if error.filename is None:  # click prints the help by itself
            give_up(1)
        return Incomplete(f"{error.filename or 'the output'}: {error.strerror or error}", "fix that, then start again")
    if "start new thread" not in str(error):
        raise error
    return Incomplete("the system cannot start another thread or process", "raise the limit (ulimit -u)")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say_error(error: BlendshardError) -> None:
    for line in error.details:
        announce(f"  | {line}")
    announce(f"Error: {error}")
    if error.hint:
        announce(f"Try: {error.hint}")
