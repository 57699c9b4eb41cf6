"""``compile-dataset show``: look at samples."""

from __future__ import annotations

from pathlib import Path

import click

from compiler import preview
from compiler.errors import UsageError
from compiler.storage.published import Published, find_sample, spread
from compiler.terminal import say_lines


@click.command("show")
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("key", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The PNG file to write.  [default: ./<name>.png or ./<name>-<key>.png, named after DIR]",
)
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), default=12, show_default=True, help="Samples on the sheet."
)
@click.option(
    "--columns", metavar="N", type=click.IntRange(min=1), help="Samples in a row.  [default: 4, or what fits a screen]"
)
@click.option(
    "--width",
    metavar="N",
    type=click.IntRange(16, 8192),
    help="Width of each picture in pixels.  [default: 320, alone 960, or less]",
)
@click.option("--passes", "with_passes", is_flag=True, help="Also show the passes, in false colours.")
def show_command(
    dataset: Path,
    key: str | None,
    out: Path | None,
    count: int,
    columns: int | None,
    width: int | None,
    with_passes: bool,
) -> None:
    """Draw a sample (KEY, as 000003-000042) or a contact sheet with boxes, keypoints and skeletons into a PNG.

    Filled keypoints are visible, hollow ones occluded.
    """
    published = Published.load(dataset)
    manifest, folder = published.manifest, published.folder
    if key:
        picture = preview.draw_sample(find_sample(published, key), manifest, width, with_passes)
    else:
        samples = spread(published, count)
        picture = preview.contact_sheet(samples, manifest, columns, width, with_passes)
    name = folder.resolve().name
    path = out or Path(f"{name}-{key}.png" if key else f"{name}.png")
    if out is None and path.is_symlink():
        raise UsageError(f"{path} is a link", "name the file with --out")
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "name another place with --out") from None
    say_lines([path])
