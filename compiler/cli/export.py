"""``compile-dataset export``: a dataset for tools that do not read shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from compiler.cli.reading import reading
from compiler.exports.export import FORMATS, Exported, export
from compiler.exports.labels import TASKS
from compiler.storage.published import Published
from compiler.terminal import say_json, say_lines


@click.command("export")
@click.argument("kind", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="Which labels to write besides boxes.  [default: coco: all that the dataset has; yolo: detect]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def export_command(kind: str, dataset: Path, out: Path, task: str | None, as_json: bool, quiet: bool) -> None:
    """Write the dataset DIR for another tool into the new folder OUT.

    FORMAT is coco (boxes, masks, keypoints), yolo (boxes or keypoints) or files (the members, loose). Splits are kept,
    and images are copied as they are. Until all is written, it is in OUT.part; run the same command again to continue.
    """
    published = Published.load(dataset)
    manifest = published.manifest
    with reading(manifest, "samples", manifest.samples, quiet, end=True) as progress:
        made = export(published, kind, task, out, progress.step)
    if as_json:
        say_json(made.as_json())
    else:
        say_lines(_lines(made))


def _lines(made: Exported) -> Iterator[str]:
    labels = f" ({', '.join(made.tasks)})" if made.tasks else ""
    for split, counts in made.splits.items():
        yield f"{split}: {', '.join(f'{count} {what}' for what, count in counts.items())}"
    for reason, count in made.left_out.items():
        yield f"left out: {count} objects, {reason}"
    yield f"{made.out}: {made.format}{labels}{', was there already' if made.already_there else ''}"
