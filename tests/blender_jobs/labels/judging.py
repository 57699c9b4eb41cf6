"""Hold an object's labels against the colours of a picture in which it, and nothing else, is red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

PURE = 0.9
"""How much of a pixel, and of its neighbours, is one colour where the picture decides."""


def agreement(
    said: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    picture: np.ndarray,
    area: float,
    tolerance: float = 0.08,
    ghost: bool = False,
) -> Iterator[str]:
    """Yield what an annotation and the passes say otherwise than the picture, one line each.

    Args:
        said: the object's annotation; its keypoints are on what is red, or before it.
        arrays: the sample's passes.
        picture: linear colours (H, W, 3): the object red, nothing else with any red.
        area: how many pixels the object covers with nothing before it.
        tolerance: how far two areas may be apart, of the larger.
        ghost: it lets everything through: whether it has a silhouette, and keypoints that are seen, is not said.
    """
    red = picture[..., 0]
    inside, outside = eroded(red > PURE), eroded(red < 1 - PURE)
    own = arrays["segmentation"] == said["segmentation_id"]
    if missed := int((inside & ~own).sum()):
        yield f"segmentation misses {missed} of {int(inside.sum())} red pixels"
    if false := int((outside & own).sum()):
        yield f"segmentation holds {false} pixels that are not red"
    if gone := int((inside & ~np.isfinite(arrays["depth"])).sum()):
        yield f"depth is infinite in {gone} red pixels"
    if said["visible_pixels"] != int(own.sum()):
        yield f"visible_pixels is {said['visible_pixels']}, the segmentation has {int(own.sum())}"
    shown = float((red > 0.5).sum())
    if ghost:
        if max(said["visible_pixels"], said["visible_fraction"], shown) > 0:
            yield f"visible_pixels is {said['visible_pixels']}, the picture has {shown:.0f}"
        return
    yield from areas(said, shown, area, tolerance)
    yield from flags(said, inside, outside)


def areas(said: Mapping[str, Any], shown: float, area: float, tolerance: float) -> Iterator[str]:
    """Yield how the counts of pixels are wrong, given how many are red, and how many are with nothing before."""
    slack = 6 + tolerance * area
    if abs(said["visible_pixels"] - shown) > slack:
        yield f"visible_pixels is {said['visible_pixels']}, the picture has {shown:.0f}"
    if abs(said["silhouette_pixels"] - area) > slack:
        yield f"silhouette_pixels is {said['silhouette_pixels']}, the picture has {area:.0f} with nothing before it"
    if abs(said["visible_fraction"] - min(1.0, shown / area)) > slack / area:
        yield f"visible_fraction is {said['visible_fraction']}, the picture's is {min(1.0, shown / area):.3f}"


def flags(said: Mapping[str, Any], inside: np.ndarray, outside: np.ndarray) -> Iterator[str]:
    """Yield which keypoints' visibility is wrong, given the pixels that are surely red, or surely not."""
    height, width = inside.shape
    for name, (x, y, flag) in zip(said["keypoint_names"], np.reshape(said["keypoints"], (-1, 3)), strict=True):
        column, row = int(x), int(y)
        if not (0 <= column < width and 0 <= row < height):
            if flag != 0:
                yield f"keypoint {name} is outside, but {flag:.0f}"
        elif (inside[row, column] and flag != 2) or (outside[row, column] and flag != 1):
            shows = "it" if inside[row, column] else "something else"
            yield f"keypoint {name} is {flag:.0f}, the picture shows {shows}"


def eroded(mask: np.ndarray) -> np.ndarray:
    """The pixels whose eight neighbours, too, are in the mask; those at the border lack none."""
    padded = np.pad(mask, 1, constant_values=True)
    height, width = mask.shape
    return np.all([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
