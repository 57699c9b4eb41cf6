"""Lens distortion as OpenCV models it: numpy alone, no Blender.

The coefficients are OpenCV's, in its order: k1, k2, p1, p2[, k3[, k4, k5, k6]]. With (x, y) on the plane one metre
before the camera (OpenCV's camera frame, x right, y down) and s = x² + y², a lens shows the point at

    x (1 + k1 s + k2 s² + k3 s³) / (1 + k4 s + k5 s² + k6 s³) + 2 p1 x y + p2 (s + 2 x²)
    y (1 + k1 s + k2 s² + k3 s³) / (1 + k4 s + k5 s² + k6 s³) + p1 (s + 2 y²) + 2 p2 x y

Source: OpenCV's documentation of the module calib3d, "Camera Calibration and 3D Reconstruction".

Far from the axis such polynomials may turn back, so that two points share a pixel. The Jacobian of the model is
symmetric: where it is positive definite all over a disc, no two points of the disc do. `reach` is the radius of the
largest such disc around the axis on which the denominator is positive too. Points beyond it count as if they lay on
its rim, in the same direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Coefficients = tuple[float, ...]

COUNTS = (4, 5, 8)
"""How many coefficients there may be."""
OVERSCAN = 4
"""How many times as wide and as high as the image the undistorted one may be."""
_HORIZON = 100.0
"""The largest radius that is looked at: 89.4 degrees off the axis."""
_STEPS = 4096
_CLOSE = 1e-14
_SOLVED = 1e-11


def coefficients(values: Sequence[float]) -> Coefficients:
    """Return the coefficients as a tuple of 4, 5 or 8 floats.

    Raises:
        ValueError: another number of them, or something that is no finite number; one line.
    """
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(
            f"the distortion must be numbers (k1, k2, p1, p2[, k3[, k4, k5, k6]]), not {values!r}"
        ) from None
    if len(found) not in COUNTS:
        raise ValueError(
            f"the distortion has {len(found)} numbers: give 4, 5 or 8 (k1, k2, p1, p2[, k3[, k4, k5, k6]])"
        )
    if not all(map(math.isfinite, found)):
        raise ValueError(f"the distortion must be finite, not {found}")
    return found


def distort(lens: Coefficients, points: FloatArray) -> FloatArray:
    """Where the lens shows points: float64 (N, 2), ideal to distorted, both on the plane one metre before the camera.

    Points beyond `reach` are shown where the rim of the reach is.
    """
    return _shown(lens, _within_reach(lens, points))


def undistort(lens: Coefficients, points: FloatArray) -> FloatArray:
    """The inverse of `distort`, float64 (N, 2), by Newton's method with step halving, to rounding errors.

    Raises:
        ValueError: the lens shows nothing within its reach at one of the points; one line that names it.
    """
    found = _within_reach(lens, points)
    misses = _shown(lens, found) - points
    errors, steps = np.abs(misses).max(axis=1), np.ones(len(points))
    scales = 1 + np.abs(points).max(axis=1)
    for _ in range(100):
        if (todo := np.flatnonzero((errors > _CLOSE * scales) & (steps > 1e-9))).size == 0:
            break
        moves = _newton(lens, found[todo], misses[todo]) * steps[todo, None]
        tried = _within_reach(lens, found[todo] - moves)
        left = _shown(lens, tried) - points[todo]
        remaining = np.abs(left).max(axis=1)
        better = remaining < errors[todo]
        moved = todo[better]
        found[moved], misses[moved], errors[moved] = tried[better], left[better], remaining[better]
        steps[todo] = np.where(better, 1.0, steps[todo] / 2)
    if (lost := np.flatnonzero(errors > _SOLVED * scales)).size:
        x, y = points[lost[0]].tolist()
        raise ValueError(f"the distortion {list(lens)} shows nothing at x = {x:.6g}, y = {y:.6g} (in focal lengths)")
    return found


@lru_cache(maxsize=64)
def reach(lens: Coefficients) -> float:
    """The radius up to which the lens shows each point at a place of its own; at most 100, which is 89.4 degrees.

    Found on a grid that is finer near the axis, then by bisection.
    """
    radii = _HORIZON * (np.arange(_STEPS + 1) / _STEPS) ** 2
    folded = np.flatnonzero(~_unfolds(lens, radii))
    if not folded.size:
        return _HORIZON
    low, high = float(radii[folded[0] - 1]), float(radii[folded[0]])
    for _ in range(60):
        middle = (low + high) / 2
        if _unfolds(lens, np.array([middle]))[0]:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=64)
def canvas(
    lens: Coefficients, intrinsics: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The canvas that holds the undistorted image and a pixel more on each side: left, top, right, bottom.

    In pixels of the distorted image. The lens keeps neighbours together, so what the image's border encloses
    remains enclosed: the border tells all.

    Args:
        lens: the coefficients.
        intrinsics: fx, fy, cx, cy, pixels.
        size: the image's (width, height).

    Raises:
        ValueError: the lens shows two points at one place within the image, or nothing at one, or the canvas
            is more than `OVERSCAN` times as wide or as high as the image; one line.
    """
    fx, fy, cx, cy = intrinsics
    width, height = size
    across, down = np.arange(width + 1.0), np.arange(height + 1.0)
    border = [(across, 0 * across), (across, 0 * across + height), (0 * down, down), (0 * down + width, down)]
    pixels = np.concatenate([np.stack(pair, axis=1) for pair in border])
    try:
        plane = undistort(lens, (pixels - [cx, cy]) / [fx, fy])
    except ValueError:
        raise ValueError(f"the distortion {list(lens)} folds the image over within its borders") from None
    undone = plane * [fx, fy] + [cx, cy]
    left, top = (int(edge) for edge in np.floor(undone.min(axis=0)) - 1)
    right, bottom = (int(edge) for edge in np.ceil(undone.max(axis=0)) + 1)
    if right - left > OVERSCAN * width + 2 or bottom - top > OVERSCAN * height + 2:
        raise ValueError(
            f"the distortion {list(lens)} makes {width}x{height} pixels of {right - left}x{bottom - top},"
            f" more than {OVERSCAN} times as many a side"
        )
    return left, top, right, bottom


def _unfolds(lens: Coefficients, radii: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether the Jacobian's determinant is positive in all directions at each radius (N,).

    With a = radius * |(p2, p1)| and c the cosine of the angle between the point and (p2, p1) it is
    (slope + 6 a c) (ratio + 2 a c) - 4 a² (1 - c²): a parabola in c, lowest at the c below.
    """
    _, _, p1, p2, *_ = lens
    squares = radii * radii
    with np.errstate(over="ignore", invalid="ignore"):  # where the denominator vanishes
        ratio, change, denominator = _radial(lens, squares)
        slope = ratio + 2 * squares * change
        a = radii * math.sqrt(p1 * p1 + p2 * p2)
        c = (-(slope + 3 * ratio) / np.maximum(16 * a, 1e-300)).clip(-1, 1)
        lowest = (slope + 6 * a * c) * (ratio + 2 * a * c) - 4 * a * a * (1 - c * c)
    unfolds: npt.NDArray[np.bool_] = (lowest > 0) & (denominator > 0) & (ratio > 0)
    return unfolds


def _radial(lens: Coefficients, s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The radial ratio at squared radii (N,), its derivative by them, and its denominator."""
    k1, k2, _, _, k3, k4, k5, k6 = lens + (0.0,) * (8 - len(lens))
    above, below = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    above_change, below_change = k1 + s * (2 * k2 + s * 3 * k3), k4 + s * (2 * k5 + s * 3 * k6)
    safe = np.where(below == 0, 1e-300, below)
    ratio: FloatArray = above / safe
    change: FloatArray = (above_change - ratio * below_change) / safe
    return ratio, change, np.asarray(below, dtype=np.float64)


def _within_reach(lens: Coefficients, points: FloatArray) -> FloatArray:
    """Points (N, 2), those beyond the reach drawn back to its rim."""
    radii = np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2)
    limit = reach(lens)
    return points * (limit / np.maximum(radii, limit))[:, None]


def _shown(lens: Coefficients, points: FloatArray) -> FloatArray:
    x, y = points.T
    _, _, p1, p2, *_ = lens
    s = x * x + y * y
    ratio, _, _ = _radial(lens, s)
    along = 2 * (p2 * x + p1 * y)
    return np.stack([x * ratio + x * along + p2 * s, y * ratio + y * along + p1 * s], axis=1)


def _newton(lens: Coefficients, points: FloatArray, misses: FloatArray) -> FloatArray:
    """The inverse of the Jacobian at points (N, 2), applied to misses (N, 2)."""
    x, y = points.T
    _, _, p1, p2, *_ = lens
    ratio, change, _ = _radial(lens, x * x + y * y)
    diagonal = ratio + 2 * (p2 * x + p1 * y)
    xx = diagonal + 2 * change * x * x + 4 * p2 * x
    yy = diagonal + 2 * change * y * y + 4 * p1 * y
    xy = 2 * change * x * y + 2 * (p2 * y + p1 * x)
    determinant = np.maximum(xx * yy - xy * xy, 1e-12)
    dx, dy = misses.T
    return np.stack([(yy * dx - xy * dy) / determinant, (xx * dy - xy * dx) / determinant], axis=1)
