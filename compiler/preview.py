"""Samples as pictures for people: boxes, keypoints and skeletons over the image, passes in false colours."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from blender_jobs.passes import PASSES
from compiler.errors import UsageError
from compiler.storage.published import DAMAGED_HINT
from loaders.content import decode_image, read_array
from loaders.format import IMAGES, views_of
from loaders.manifest import Manifest
from loaders.tarstream import Sample

_SCREEN = 1920
"""Pixels of width: what fits a screen without scrolling sideways."""
_COLUMNS = 4
_WIDTH_ALONE, _WIDTH_ON_A_SHEET, _NARROWEST = 960, 320, 200
"""Of a picture, in pixels; on a sheet it is narrower where a sample's pictures fit a row then."""
_MOST_IN_A_ROW = 3
"""Pictures side by side of a sample that is drawn alone: more would be small."""
_GAP, _SEAM = 8, 2
"""Between samples, and between the pictures of one."""
_PAPER = (250, 250, 250)
_ARRAYS = [name for members in PASSES.values() for name in members]


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
        count = min(_pictures_in_a_row(sample, with_passes), _MOST_IN_A_ROW)
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
        raise UsageError(what, DAMAGED_HINT) from None
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
    """Return how many pictures go side by side if there is room."""
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


_FINE = 2
"""Drawn at this many times the size, then scaled down: Pillow draws without anti-aliasing."""

RGB = tuple[int, int, int]


def annotated(
    image: Image.Image, objects: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], width: int
) -> Image.Image:
    """Return the image, `width` pixels wide, with its objects drawn over it.

    Args:
        image: RGB.
        objects: as in the annotations; pixels of the image.
        categories: as in the manifest's schema, COCO's with their skeletons.
        width: of the result.
    """
    scale = _FINE * width / image.width
    size = (_FINE * width, round(image.height * scale))
    canvas = image.resize(size, Image.Resampling.LANCZOS)
    templates = {category["name"]: category for category in categories}
    pen = _Pen(ImageDraw.Draw(canvas), scale, dot=_FINE * min(max(width / 160, 1.5), 3.5))
    for at, entry in enumerate(objects):
        pen.draw(entry, templates.get(entry["category"], {}), color(at))
    return canvas.resize((width, round(size[1] / _FINE)), Image.Resampling.LANCZOS)


class _Pen:
    """Draws objects onto one canvas."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float, dot: float) -> None:
        self._draw, self._scale, self._dot = draw, scale, dot

    def draw(self, entry: Mapping[str, Any], template: Mapping[str, Any], tint: RGB) -> None:
        x, y, width, height = (self._scale * value for value in entry["bbox"])
        if width and height:
            self._draw.rectangle((x, y, x + width, y + height), outline=tint, width=_FINE)
        flat = entry["keypoints"]
        points = list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
        tints = [tuple(rgb) for rgb in template.get("colors", [])] or [tint] * len(points)
        for first, second in template.get("skeleton", []):
            if points[first - 1][2] and points[second - 1][2]:
                self._edge(points[first - 1], points[second - 1], tints[second - 1])
        for point, inside in zip(points, tints, strict=True):
            if point[2]:
                self._point(point, inside)

    def _edge(self, start: Sequence[float], end: Sequence[float], tint: RGB) -> None:
        places = [(self._scale * x, self._scale * y) for x, y, _ in (start, end)]
        self._draw.line(places, fill=tint, width=round(self._dot))

    def _point(self, point: Sequence[float], tint: RGB) -> None:
        x, y, visibility = point
        left, top = self._scale * x - self._dot, self._scale * y - self._dot
        place = (left, top, left + 2 * self._dot, top + 2 * self._dot)
        visible = visibility == 2
        outline = (255, 255, 255) if visible else tint
        self._draw.ellipse(place, fill=tint if visible else None, outline=outline, width=_FINE)


Array = npt.NDArray[Any]
_Colors = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""

_GOLDEN_ANGLE = 0.381966
"""Of the circle of hues: so far apart that neighbours in a list differ, however many there are."""

_NEAR, _FAR = np.array([255, 236, 170.0]), np.array([30, 40, 90.0])
_NOTHING = (12, 12, 16)


def color(at: int) -> tuple[int, int, int]:
    """Return the RGB that shows the object of this number, from 0."""
    red, green, blue = colorsys.hsv_to_rgb(at * _GOLDEN_ANGLE % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def picture(name: str, content: bytes) -> Image.Image:
    """Return an array of a sample as an RGB image.

    Args:
        name: the member's, as ``depth.npy``; one of `blender_jobs.passes`.
        content: the ``.npy`` file.
    """
    array = read_array(content)
    return Image.fromarray(_PAINTERS[name.removesuffix(".npy")](array), "RGB")


def _distances(array: Array) -> _Colors:
    """Near is light, far is dark, over the range that is there."""
    seen = np.isfinite(array)
    low, high = (array[seen].min(), array[seen].max()) if seen.any() else (0.0, 1.0)
    t = np.where(seen, (array - low) / max(high - low, 1e-9), 0.0)[..., None]
    colors = _NEAR + (_FAR - _NEAR) * np.sqrt(t)
    return np.where(seen[..., None], colors, _NOTHING).astype(np.uint8)


def _directions(array: Array) -> _Colors:
    seen = np.any(array != 0, axis=2, keepdims=True)
    return np.where(seen, (array.astype(np.float32) + 1) * 127.5, _NOTHING).astype(np.uint8)


def _unit(array: Array) -> _Colors:
    return (array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def _linear(array: Array) -> _Colors:
    return (array.astype(np.float32).clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def _numbers(array: Array) -> _Colors:
    table = np.array([_NOTHING, *(color(number) for number in range(int(array.max(initial=0))))], dtype=np.uint8)
    colors: _Colors = table[array]
    return colors


def _motion(array: Array) -> _Colors:
    """The hue is the direction, the saturation the length, the longest full."""
    flow = array.astype(np.float32)
    length = np.linalg.norm(flow, axis=2)
    hue = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1.0
    saturation = length / max(float(length.max(initial=0)), 1e-6)
    hsv = np.stack([hue * 255, saturation * 255, np.full_like(hue, 255)], axis=2).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def _gray(array: Array) -> _Colors:
    return np.repeat(array[..., None], 3, axis=2).astype(np.uint8)


_PAINTERS: dict[str, Callable[[Array], _Colors]] = {
    "depth": _distances,
    "distance": _distances,
    "normals": _directions,
    "normals_world": _directions,
    "segmentation": _numbers,
    "categories": _numbers,
    "parts": _numbers,
    "flow_forward": _motion,
    "flow_backward": _motion,
    "nocs": _unit,
    "albedo": _linear,
    "alpha": _gray,
}
