"""``compile-dataset export``: a dataset for tools that do not read shards."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from compiler.exports.export import FORMATS, Exported, Progress, export
from compiler.exports.labels import TASKS
from compiler.storage.published import Published
from compiler.terminal import announce, plain, say_json, say_lines
from loaders.manifest import Manifest

_LINE_EVERY_S = 10.0


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
    with _shown(published.manifest, quiet) as progress:
        made = export(published, kind, task, out, progress)
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


@contextmanager
def _shown(manifest: Manifest, quiet: bool) -> Iterator[Progress]:
    """Yield what shows the progress: a bar on a terminal, a line every ten seconds in a log."""
    if quiet or not sys.stderr.isatty():
        yield _nothing if quiet else _Lines(manifest).show
        return
    total, name = manifest.bytes, plain(manifest.name)
    with tqdm(desc=name, total=total, unit="B", unit_scale=True, dynamic_ncols=True, file=sys.stderr) as bar:

        def move(size: int, done: int) -> None:
            bar.set_postfix_str(f"samples {done}/{manifest.samples}", refresh=False)
            bar.update(size)

        yield move


def _nothing(size: int, done: int) -> None:
    """Show nothing."""


class _Lines:
    """A line every ten seconds, and one at the end.

    State: what was read, and when the last line was printed.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._started = self._said = time.monotonic()
        self._read = 0

    def show(self, size: int, done: int) -> None:
        """Print a line where it is time for one."""
        self._read += size
        now = time.monotonic()
        if now > self._said + _LINE_EVERY_S or done == self._manifest.samples:
            rate = self._read / 1e6 / max(now - self._started, 1e-3)
            announce(f"{self._manifest.name}: {done}/{self._manifest.samples} samples, {rate:.0f} MB/s")
            self._said = now
