"""Draw samples with their boxes and keypoints: one, or many on a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from blender_jobs.passes import PASSES
from compiler.errors import UsageError
from compiler.preview.false_color import picture
from compiler.preview.overlay import annotated
from compiler.verification.reading import samples_of
from loaders.content import decode_image
from loaders.format import IMAGES, SampleKey, views_of
from loaders.manifest import Manifest
from loaders.tarstream import Sample

_DAMAGED = "compile-dataset verify tells what is damaged"
_SCREEN = 1920
"""Pixels of width: what is shown on a screen without scrolling aside."""
_COLUMNS = 4
_WIDTH_ALONE, _WIDTH_ON_A_SHEET, _NARROWEST = 960, 320, 200
"""Of a picture, in pixels; on a sheet it is narrower where a sample's pictures fit a row then."""
_BESIDE = 3
"""Pictures side by side of a sample that is drawn alone: more would be small."""
_GAP, _SEAM = 8, 2
"""Between samples, and between the pictures of one."""
_PAPER = (250, 250, 250)
_ARRAYS = [name for members in PASSES.values() for name in members]


def find_sample(folder: Path, manifest: Manifest, key: str) -> Sample:
    """Return the sample called `key`.

    Raises:
        UsageError: there is none, or its shard cannot be read.
    """
    wanted = SampleKey.parse(key)
    shard = next((shard for shard in manifest.shards if wanted and shard.number == wanted.shard), None)
    if shard is not None:
        for sample in samples_of(folder / shard.name):
            if sample.key == key:
                return sample
    example = SampleKey(manifest.shards[0].number, 0) if manifest.shards else "none: no shard is finished"
    raise UsageError(f"{folder} has no sample {key!r}", f"a key is as {example}")


def spread(folder: Path, manifest: Manifest, count: int) -> list[Sample]:
    """Return `count` samples evenly spread over the dataset.

    Raises:
        UsageError: there is no finished shard, or one cannot be read.
    """
    if not manifest.samples:
        raise UsageError(f"{folder} has no finished shard yet", "run compile-dataset first")
    count = min(count, manifest.samples)
    wanted = {at * manifest.samples // count for at in range(count)}
    found, start = [], 0
    for shard in manifest.shards:
        inside = {index - start for index in wanted if start <= index < start + shard.samples}
        if inside:
            found += [sample for at, sample in enumerate(samples_of(folder / shard.name)) if at in inside]
        start += shard.samples
    if len(found) < count:
        raise UsageError(f"{folder}: shards hold fewer samples than the manifest says", _DAMAGED)
    return found


def draw_sample(sample: Sample, manifest: Manifest, width: int | None, with_passes: bool = False) -> Image.Image:
    """Return the sample's image with its annotations; those of several cameras, and the passes, side by side.

    Rows that would be wider than a screen are wrapped.

    Args:
        sample: of the dataset.
        manifest: the dataset's.
        width: of each picture, in pixels; None: as fits.
        with_passes: whether the passes are shown, too, in false colours.

    Raises:
        UsageError: it cannot be drawn.
    """
    if width is None:
        count = min(_pictures_in_a_row(sample, with_passes), _BESIDE)
        width = min(_WIDTH_ALONE, (_SCREEN - _SEAM * (count - 1)) // count)
    return _tile(sample, manifest, width, with_passes, _SCREEN)


def contact_sheet(
    samples: Sequence[Sample], manifest: Manifest, columns: int | None, width: int | None, with_passes: bool = False
) -> Image.Image:
    """Return the samples drawn in rows.

    Args:
        samples: of the dataset.
        manifest: the dataset's.
        columns: samples in a row; None: `_COLUMNS`, or fewer that fit a screen.
        width: of each picture, in pixels; None: as fits.
        with_passes: whether the passes are shown, too, in false colours.

    Raises:
        UsageError: one cannot be drawn.
    """
    room = _SCREEN - 2 * _GAP
    if width is None:
        most = max(_pictures_in_a_row(sample, with_passes) for sample in samples)
        width = max(_NARROWEST, min(_WIDTH_ON_A_SHEET, (room - _SEAM * (most - 1)) // most))
    tiles = [_tile(sample, manifest, width, with_passes, room) for sample in samples]
    if columns is None:
        columns = max(1, min(_COLUMNS, (room + _GAP) // (max(tile.width for tile in tiles) + _GAP)))
    sheet = _grid([tiles[at : at + columns] for at in range(0, len(tiles), columns)], _GAP)
    framed = Image.new("RGB", (sheet.width + 2 * _GAP, sheet.height + 2 * _GAP), _PAPER)
    framed.paste(sheet, (_GAP, _GAP))
    return framed


def _tile(sample: Sample, manifest: Manifest, width: int, with_passes: bool, room: int) -> Image.Image:
    """Return the pictures of a sample, each `width` pixels wide, in rows of up to `room` pixels."""
    try:
        rows = _rows(sample, manifest, width, with_passes)
    except Exception as error:  # annotations and arrays come from a file that may hold anything
        what = f"sample {sample.key} cannot be drawn: {type(error).__name__}: {error}"
        raise UsageError(what, _DAMAGED) from None
    return _grid([part for row in rows for part in _wrapped(row, (room + _SEAM) // (width + _SEAM))])


def _rows(sample: Sample, manifest: Manifest, width: int, with_passes: bool) -> list[list[Image.Image]]:
    """Return the pictures of each camera; without passes, those of all cameras in one row."""
    rows = []
    if not views_of(sample.members):
        raise ValueError("it has no image with annotations")
    for view in views_of(sample.members):
        name = next(f"{view}{kind}" for kind in IMAGES if f"{view}{kind}" in sample.members)
        image = decode_image(sample.members[name], manifest.members.get(name, {}).get("shape")).convert("RGB")
        objects = json.loads(sample.members[f"{view}json"])["objects"]
        pictures = [annotated(image, objects, manifest.schema.get("categories", []), width)]
        if with_passes:
            arrays = {name: sample.members.get(f"{view}{name}") for name in _ARRAYS}
            painted = [picture(name, content) for name, content in arrays.items() if content is not None]
            pictures += [entry.resize(pictures[0].size, Image.Resampling.NEAREST) for entry in painted]
        rows.append(pictures)
    return rows if with_passes else [[entry for row in rows for entry in row]]


def _wrapped(row: list[Image.Image], most: int) -> list[list[Image.Image]]:
    """Return the row in as many rows as it takes, all equally long but the last."""
    count = -(-len(row) // max(1, most))
    length = -(-len(row) // count)
    return [row[at : at + length] for at in range(0, len(row), length)]


def _pictures_in_a_row(sample: Sample, with_passes: bool) -> int:
    """Return how many pictures stand side by side where there is room."""
    views = views_of(sample.members)
    if not with_passes:
        return max(1, len(views))
    return 1 + max((sum(f"{view}{array}" in sample.members for array in _ARRAYS) for view in views), default=0)


def _grid(rows: Sequence[Sequence[Image.Image]], gap: int = _SEAM) -> Image.Image:
    width = max(sum(entry.width for entry in row) + gap * (len(row) - 1) for row in rows)
    heights = [max(entry.height for entry in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + gap * (len(rows) - 1)), _PAPER)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for entry in row:
            sheet.paste(entry, (x, y))
            x += entry.width + gap
        y += height + gap
    return sheet
