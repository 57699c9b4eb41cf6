"""``compile-dataset``: the edge. Here the commands come together and errors become exit codes."""

from __future__ import annotations

import io
import signal
import sys
from typing import NoReturn

import click

from compiler.cli.group import LazyGroup
from compiler.cli.output import announce
from compiler.errors import BlendshardError, Incomplete
from compiler.terminal import give_up, mend_streams

INTERRUPTED = 130

_COMMANDS = {
    "build": "Render a job into shards.",
    "show": "Draw samples with their annotations into a PNG.",
    "verify": "Read every byte again and name what is damaged.",
    "diff": "Say what differs between two datasets.",
    "reproduce": "Render the dataset of a manifest again.",
    "replay": "Render one episode again, in the foreground.",
    "examples": "List the examples, or write them into a folder.",
    "doctor": "Say which Blender is here and what renders.",
}
"""What each does; its module is loaded when it is called."""

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


@click.pass_context
def _remember(ctx: click.Context) -> None:
    ctx.ensure_object(list).append(ctx.invoked_subcommand)


cli = LazyGroup(
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
        going_on = invoked and invoked[0] in _GOING_ON
        announce(f"Interrupted{'; run the same command again to continue' if going_on else ''}.")
        code = INTERRUPTED
    except BlendshardError as error:
        _say_error(error)
        code = error.exit_code
    except BrokenPipeError:  # whoever read the output has left
        give_up(1)
        code = 1
    except (OSError, MemoryError, RuntimeError) as error:
        _say_error(_shortage(error))
        code = 1
    sys.exit(code)


def _shortage(error: OSError | MemoryError | RuntimeError) -> BlendshardError:
    """Return what to say where the system gives no more: a full disk under stdout, memory, processes.

    Raises:
        RuntimeError: it is another error, a defect of ours.
    """
    if isinstance(error, MemoryError):
        return Incomplete("there is not enough memory", "raise the limit (ulimit -v), or end what else takes memory")
    if isinstance(error, OSError):
        if error.filename is None:  # click prints the help by itself
            give_up(1)
        return Incomplete(f"{error.filename or 'the output'}: {error.strerror or error}", "mend that, and start again")
    if "start new thread" not in str(error):
        raise error
    return Incomplete("the system starts no further thread or process", "raise the limit (ulimit -u)")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say_error(error: BlendshardError) -> None:
    for line in error.details:
        announce(f"  | {line}")
    announce(f"Error: {error}")
    if error.hint:
        announce(f"Try: {error.hint}")
