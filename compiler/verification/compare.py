"""How two samples differ, member by member: pixels, arrays, annotations, keypoints. Pure: bytes in, findings out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.verification.structure import read_json
from loaders.content import decode_image, open_image, read_array
from loaders.format import IMAGES, kind_of, meaning_of

Array = npt.NDArray[Any]

_PATHS = 3
"""Paths in JSON that are spelled out."""


@dataclass(frozen=True)
class Difference:
    """One member that differs."""

    member: str
    what: str
    """One line."""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """What was measured, by name; None for what is not finite. See the functions below."""

    def __str__(self) -> str:
        return f"{self.member}: {self.what}"


def compare_members(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> list[Difference]:
    """Return how two samples' members differ, in the order of their names; empty where their bytes are the same.

    Images are paired by their meaning: one sample's ``left.png`` is compared with the other's ``left.webp``.

    - Images: `image_difference`. Arrays: `array_difference`. ``keypoints.npy``: `keypoint_difference`. JSON:
      `json_difference`. All else, and what cannot be read: the first byte that differs.
    """
    ours, theirs = ({meaning_of(name): name for name in members} for members in (a, b))
    found = []
    for meaning in sorted(ours.keys() | theirs.keys()):
        if meaning not in ours or meaning not in theirs:
            only = ours.get(meaning) or theirs[meaning]
            found.append(Difference(only, f"only in the {'first' if meaning in ours else 'second'}"))
            continue
        names = ours[meaning], theirs[meaning]
        if (one := a[names[0]]) != (two := b[names[1]]):
            found.append(_compare(names[0], names[1], one, two))
    return found


def image_difference(member: str, one: bytes, two: bytes) -> Difference:
    """Compare decoded pixels.

    Figures: ``max`` and ``mean`` absolute difference over all channels (of 255), ``psnr_db`` = 20 log10(255 / RMSE)
    (None for equal pixels), ``pixels`` that differ in any channel.

    Raises:
        ValueError: one cannot be decoded.
    """
    heads = [open_image(content) for content in (one, two)]
    shapes = [f"{image.width}x{image.height} {image.mode}" for image in heads]
    if shapes[0] != shapes[1]:
        return Difference(member, f"{shapes[0]} and {shapes[1]}")
    images = [decode_image(content) for content in (one, two)]
    pixels = [np.asarray(image).astype(np.int32).reshape(image.height * image.width, -1) for image in images]
    apart = np.abs(pixels[0] - pixels[1])
    if not apart.any():
        return Difference(member, "other bytes, the same pixels", {"max": 0, "mean": 0, "psnr_db": None, "pixels": 0})
    psnr = 20 * math.log10(255 / math.sqrt(float(np.square(apart).mean())))
    count = int(apart.any(axis=1).sum())
    figures = {"max": int(apart.max()), "mean": float(apart.mean()), "psnr_db": psnr, "pixels": count}
    text = f"differs by at most {apart.max()}, {apart.mean():.3g} in the mean (of 255), PSNR {psnr:.1f} dB"
    return Difference(member, f"{text}, in {count} of {len(apart)} pixels", figures)


def array_difference(member: str, one: bytes, two: bytes) -> Difference:
    """Compare the numbers of two ``.npy`` files; NaN equals NaN, infinity infinity.

    Figures: ``values`` that differ, ``max`` absolute difference (None where only one of the two is finite).

    Raises:
        ValueError: one cannot be read.
    """
    arrays = read_array(one), read_array(two)
    if shapes := _other_shape(*arrays):
        return Difference(member, shapes)
    apart, count = _apart(*arrays)
    if not count:
        return Difference(member, "other bytes, the same numbers", {"values": 0, "max": 0})
    most = float(apart.max())
    figures = {"values": count, "max": most if math.isfinite(most) else None}
    return Difference(member, f"{count} of {arrays[0].size} values differ, by at most {most:.6g}", figures)


def keypoint_difference(member: str, one: bytes, two: bytes) -> Difference:
    """Compare keypoints, rows x, y, visibility, depth.

    Figures: ``max_px`` and ``mean_px``, the distance between the same keypoint's places over those before the camera
    (depth > 0) in both; ``max_depth_m``; ``visibility``, how many have another one.

    Raises:
        ValueError: one cannot be read.
    """
    rows = read_array(one), read_array(two)
    if shapes := _other_shape(*rows):
        return Difference(member, shapes)
    if rows[0].ndim != 2 or rows[0].shape[1] != 4:
        return array_difference(member, one, two)
    a, b = (array.astype(np.float64) for array in rows)
    before = (a[:, 3] > 0) & (b[:, 3] > 0)
    places = np.hypot(*(a - b)[before, :2].T) if before.any() else np.zeros(1)
    flags = int((a[:, 2] != b[:, 2]).sum())
    depth = float(np.abs(a[:, 3] - b[:, 3]).max(initial=0))
    figures = {"max_px": float(places.max()), "mean_px": float(places.mean()), "max_depth_m": depth}
    text = f"up to {places.max():.3g} px apart, {places.mean():.3g} in the mean; depths up to {depth:.3g} m"
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return Difference(member, f"{text}; {flags} of {len(a)} visibilities differ", {**finite, "visibility": flags})


def json_difference(member: str, one: bytes, two: bytes) -> Difference:
    """Compare parsed JSON: the first paths that differ, with both values.

    Figures: ``paths``, how many values differ.

    Raises:
        ValueError: one is not JSON.
    """
    paths = _json_paths(read_json(one), read_json(two), "")
    first = list(itertools.islice(paths, _PATHS))
    if not first:
        return Difference(member, "other bytes, the same values", {"paths": 0})
    more = sum(1 for _ in paths)
    tail = f"; and {more} more" if more else ""
    return Difference(member, "; ".join(first) + tail, {"paths": len(first) + more})


def _compare(name: str, other: str, one: bytes, two: bytes) -> Difference:
    kind, member = kind_of(name), name if name == other else f"{name}/{other}"
    try:
        if kind in IMAGES:
            return image_difference(member, one, two)
        if kind == "npy":
            keypoints = kind_of(name.removesuffix(".npy")) == "keypoints"
            return (keypoint_difference if keypoints else array_difference)(member, one, two)
        if kind == "json":
            return json_difference(member, one, two)
    except (ValueError, RecursionError) as error:
        return Difference(member, f"cannot be compared: {error}")
    at = next((at for at, (mine, their) in enumerate(zip(one, two, strict=False)) if mine != their), None)
    if at is None:
        return Difference(member, f"{len(one)} and {len(two)} bytes")
    return Difference(member, f"differs from byte {at}", {"byte": at})


def _other_shape(a: Array, b: Array) -> str:
    if (a.dtype, a.shape) == (b.dtype, b.shape):
        return ""
    return f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"


def _apart(a: Array, b: Array) -> tuple[Array, int]:
    """Return the absolute differences as float64, infinite where only one is finite; and how many differ."""
    same = (a == b) | ((a != a) & (b != b))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    apart[np.isnan(apart)] = np.inf
    apart[same] = 0.0
    return apart, int(same.size - same.sum())


def _json_paths(a: Any, b: Any, path: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            below = f"{path}.{name}" if path else name
            if name not in a or name not in b:
                yield f"{below} only in the {'first' if name in a else 'second'}"
            else:
                yield from _json_paths(a[name], b[name], below)
    elif isinstance(a, list) and isinstance(b, list):
        for at, (one, two) in enumerate(zip(a, b, strict=False)):
            yield from _json_paths(one, two, f"{path}[{at}]")
        if len(a) != len(b):
            yield f"{path} has {len(a)} and {len(b)} items"
    elif type(a) is not type(b) or a != b:
        yield f"{path or 'the whole'}: {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
