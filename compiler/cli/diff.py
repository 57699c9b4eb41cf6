"""``compile-dataset diff``: what differs between two datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from compiler.storage.published import Published
from compiler.terminal import say_json, say_lines
from compiler.verification.diff import DatasetDifference, Field, diff

_VALUE = 60
"""Characters of a value that are shown."""


@click.command("diff")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many samples to describe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def diff_command(ctx: click.Context, first: Path, second: Path, limit: int, as_json: bool) -> None:
    """Say what differs between the datasets A and B: plan, shards, samples, pixels, annotations.

    Exit code: 0 if they are the same, 1 if they differ, 2 if they cannot be compared.
    """
    found = diff(Published.load(first), Published.load(second), limit)
    if as_json:
        say_json(found.as_json())
    else:
        say_lines(_lines(found))
    ctx.exit(0 if found.equal else 1)


def _lines(found: DatasetDifference) -> Iterator[str]:
    for title in ("plan", "schema", "provenance"):
        yield from (_field(title, entry) for entry in getattr(found, title))
    for where in ("first", "second"):
        if numbers := getattr(found, f"shards_only_in_{where}"):
            yield f"shards only in the {where}: {_ranges(numbers)}"
    for sample in found.described:
        if sample.only_in:
            yield f"sample {sample.key} only in the {sample.only_in}"
        yield from (f"sample {sample.key} {member}" for member in sample.members)
    if left := found.samples_different - len(found.described):
        yield f"and {left} more samples"
    for member, count in sorted(found.members_different.items()):
        yield f"{member} differs in {count} of {found.samples_compared} samples of the shards that differ"
    yield f"{found.shards_same} shards are the same, {len(found.shards_different)} differ"


def _field(title: str, entry: Field) -> str:
    path, ours, theirs = entry
    return f"{title}: {path} is {_short(ours)} in the first, {_short(theirs)} in the second"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers with their runs drawn together: 0, 3 to 9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in runs)
