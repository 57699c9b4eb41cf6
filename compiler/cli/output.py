"""How results are printed: lines for people, JSON for programs, on stdout. The one place that prints."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import click

from compiler.errors import Incomplete
from compiler.terminal import give_up, plain


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
