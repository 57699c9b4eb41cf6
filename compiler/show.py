"""Draw samples with their boxes and keypoints: one, or many on a contact sheet."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from compiler.content import IMAGES, decode_image
from compiler.errors import UsageError
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import Sample, TarStreamError, read_samples

_FINE = 2
"""Drawn at so many times the size, then scaled down: Pillow draws without anti-aliasing."""
_GAP = 8
_PAPER = (250, 250, 250)
_GOLDEN_ANGLE = 0.381966
"""Hues so far apart that neighbours differ, however many objects there are."""


def find_sample(folder: Path, manifest: Manifest, key: str) -> Sample:
    """Return the sample called `key`.

    Raises:
        UsageError: there is none, or its shard cannot be read.
    """
    number = int(key.split("-")[0]) if key.split("-")[0].isdecimal() else -1
    shard = next((shard for shard in manifest.shards if shard.number == number), None)
    if shard is not None:
        for sample in _samples(folder, shard):
            if sample.key == key:
                return sample
    example = f"{manifest.shards[0].number:06d}-000000" if manifest.shards else "none: no shard is finished"
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
            found += [sample for at, sample in enumerate(_samples(folder, shard)) if at in inside]
        start += shard.samples
    return found


def draw_sample(sample: Sample, width: int) -> Image.Image:
    """Return the sample's image, `width` pixels wide, with boxes and keypoints: filled visible, hollow occluded."""
    name = next(iter(IMAGES & set(sample.members)))
    image = decode_image(sample.members[name]).convert("RGB")
    scale = _FINE * width / image.width
    size = (_FINE * width, round(image.height * scale))
    canvas = image.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    for at, entry in enumerate(json.loads(sample.members["json"])["objects"]):
        _draw_object(draw, entry, _color(at), scale, dot=_FINE * min(max(width / 160, 1.5), 3.5))
    return canvas.resize((width, round(size[1] / _FINE)), Image.Resampling.LANCZOS)


def contact_sheet(samples: Sequence[Sample], columns: int, width: int) -> Image.Image:
    """Return the samples drawn in rows of `columns`, each `width` pixels wide."""
    tiles = [draw_sample(sample, width) for sample in samples]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height = max(tile.height for tile in tiles)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), _PAPER)
    for at, tile in enumerate(tiles):
        row, column = divmod(at, columns)
        sheet.paste(tile, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return sheet


def _samples(folder: Path, shard: ShardInfo) -> Iterator[Sample]:
    try:
        with (folder / shard.name).open("rb") as file:
            yield from read_samples(file)
    except (OSError, TarStreamError) as error:
        raise UsageError(f"{folder / shard.name}: {error}", "compile-dataset verify tells what is damaged") from None


def _color(at: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(at * _GOLDEN_ANGLE % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_object(
    draw: ImageDraw.ImageDraw, entry: dict[str, Any], color: tuple[int, int, int], scale: float, dot: float
) -> None:
    x, y, width, height = (scale * value for value in entry["bbox"])
    if width and height:
        draw.rectangle((x, y, x + width, y + height), outline=color, width=_FINE)
    flat = entry["keypoints"]
    for x, y, visibility in zip(flat[0::3], flat[1::3], flat[2::3], strict=True):
        if visibility:
            place = (scale * x - dot, scale * y - dot, scale * x + dot, scale * y + dot)
            inside = color if visibility == 2 else None
            draw.ellipse(place, fill=inside, outline=(255, 255, 255) if inside else color, width=_FINE)
