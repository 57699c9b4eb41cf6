"""How results are printed: lines for people, JSON for programs, on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click


def say_lines(lines: Iterable[str]) -> None:
    """Print lines for people."""
    for line in lines:
        click.echo(line)


def say_json(value: object) -> None:
    """Print a result for a program."""
    click.echo(json.dumps(value, indent=1, sort_keys=True))


def announce(line: str) -> None:
    """Print a line that is no result, on stderr."""
    click.echo(line, err=True)
