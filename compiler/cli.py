"""``compile-dataset``: the edge. Here the commands come together and errors become exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from typing import NoReturn

import click

from compiler.commands import options
from compiler.commands.build import build_command
from compiler.commands.diff import diff_command
from compiler.commands.doctor import doctor_command
from compiler.commands.replay import replay_command
from compiler.commands.reproduce import reproduce_command
from compiler.commands.show import show_command
from compiler.commands.verify import verify_command
from compiler.errors import BlendshardError

INTERRUPTED = 130

_COMMANDS = (
    build_command,
    show_command,
    verify_command,
    diff_command,
    reproduce_command,
    replay_command,
    doctor_command,
)

_GOING_ON = ("build", "reproduce")
"""Commands that take up what an earlier run has left."""

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
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Compile a dataset."""
    ctx.ensure_object(list).append(ctx.invoked_subcommand)


for command in _COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command; every error of a user's is one line and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    invoked: list[str] = []
    try:
        code = cli.main(standalone_mode=False, obj=invoked) or 0
    except click.exceptions.Exit as asked:
        code = asked.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        going_on = invoked and invoked[0] in _GOING_ON
        click.echo(f"Interrupted{'; run the same command again to continue' if going_on else ''}.", err=True)
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


def _say_error(error: BlendshardError) -> None:
    for line in error.details:
        click.echo(f"  | {line}", err=True)
    click.echo(f"Error: {error}", err=True)
    if error.hint:
        click.echo(f"Try: {error.hint}", err=True)
