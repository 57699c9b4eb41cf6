"""What goes to the terminal: results on stdout, all else on stderr, as plain text, to streams that may be gone.

Every line that the command prints goes through `plain`, wherever it comes from: a key, a file name, a log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

import click

from compiler.errors import Incomplete


def plain(text: object) -> str:
    r"""Return a text as one line that moves no cursor, sets no colour and begins no other line.

    Controls, escapes, line breaks and marks of direction become ``\x1b``, ``\n``, ``\u202e``.
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() or sign == "\t" else _escaped(sign) for sign in line)


def counted(number: int, what: str) -> str:
    """Return ``1 shard``, ``2 shards``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def mend_streams() -> None:
    """Open what is closed of stdin, stdout and stderr (``2>&-``): else the next file that is opened has its number.

    What cannot be encoded is escaped.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def give_up(number: int) -> None:
    """Send what is still to be written there (1: stdout, 2: stderr) nowhere: it must not fail again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def say_lines(lines: Iterable[object]) -> None:
    """Print lines for people. Raises Incomplete where stdout is full."""
    for line in lines:
        _say(plain(line))


def say_json(value: object) -> None:
    """Print a result for a program. Raises Incomplete where stdout is full."""
    import json  # the help and people's lines need none

    _say(json.dumps(value, indent=1, sort_keys=True))


def announce(line: object) -> None:
    """Print a line that is no result, on stderr, if that can be written to."""
    with suppress(OSError):
        click.echo(plain(line), err=True)


def _say(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up(1)
        raise Incomplete(f"the result cannot be written to stdout: {error.strerror}", "make room there") from None
