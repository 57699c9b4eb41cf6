"""Annotations drawn over an image: boxes, keypoints (filled visible, hollow occluded) and their skeletons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from compiler.preview.false_color import color

_FINE = 2
"""Drawn at so many times the size, then scaled down: Pillow draws without anti-aliasing."""

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
