"""Passes as pictures for people: each array of a sample in colours that show it."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from loaders.content import read_array

Array = npt.NDArray[Any]
Colors = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""

GOLDEN_ANGLE = 0.381966
"""Of the circle of hues: so far apart that neighbours in a list differ, however many there are."""

_NEAR, _FAR = np.array([255, 236, 170.0]), np.array([30, 40, 90.0])
_NOTHING = (12, 12, 16)


def color(at: int) -> tuple[int, int, int]:
    """Return the RGB that shows the object of this number, from 0."""
    red, green, blue = colorsys.hsv_to_rgb(at * GOLDEN_ANGLE % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def picture(name: str, content: bytes) -> Image.Image:
    """Return an array of a sample as an RGB image.

    Args:
        name: the member's, as ``depth.npy``; one of `blender_jobs.passes`.
        content: the ``.npy`` file.
    """
    array = read_array(content)
    return Image.fromarray(_PAINTERS[name.removesuffix(".npy")](array), "RGB")


def _distances(array: Array) -> Colors:
    """Near is light, far is dark, over the range that is there."""
    seen = np.isfinite(array)
    low, high = (array[seen].min(), array[seen].max()) if seen.any() else (0.0, 1.0)
    t = np.where(seen, (array - low) / max(high - low, 1e-9), 0.0)[..., None]
    colors = _NEAR + (_FAR - _NEAR) * np.sqrt(t)
    return np.where(seen[..., None], colors, _NOTHING).astype(np.uint8)


def _directions(array: Array) -> Colors:
    seen = np.any(array != 0, axis=2, keepdims=True)
    return np.where(seen, (array.astype(np.float32) + 1) * 127.5, _NOTHING).astype(np.uint8)


def _unit(array: Array) -> Colors:
    return (array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def _linear(array: Array) -> Colors:
    return (array.astype(np.float32).clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def _numbers(array: Array) -> Colors:
    table = np.array([_NOTHING, *(color(number) for number in range(int(array.max(initial=0))))], dtype=np.uint8)
    colors: Colors = table[array]
    return colors


def _motion(array: Array) -> Colors:
    """The hue is the direction, the saturation the length, the longest full."""
    flow = array.astype(np.float32)
    length = np.linalg.norm(flow, axis=2)
    hue = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1.0
    saturation = length / max(float(length.max(initial=0)), 1e-6)
    hsv = np.stack([hue * 255, saturation * 255, np.full_like(hue, 255)], axis=2).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def _gray(array: Array) -> Colors:
    return np.repeat(array[..., None], 3, axis=2).astype(np.uint8)


_PAINTERS: dict[str, Callable[[Array], Colors]] = {
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
