"""The classes of objects that a job annotates, as COCO's ``categories``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blender_jobs.job import Category, JobError

__all__ = ["box_category"]

_BOX_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]


def box_category(name: str) -> Category:
    """Return a category whose keypoints are the corners of the oriented bounding box, as `View.describe` has them."""
    corners = [f"corner{number}" for number in range(8)]
    return Category(name, corners, [(corners[start], corners[end]) for start, end in _BOX_EDGES])


def as_coco(declared: Sequence[Category | str]) -> list[dict[str, Any]]:
    """Return COCO's ``categories``: ``id`` from 1 in the order declared, ``name``, ``keypoints``, ``skeleton``.

    The skeleton's edges are pairs of keypoint numbers that count from 1, as in COCO. ``colors``, [r, g, b] for each
    keypoint, is an addition to COCO.

    Raises:
        JobError: a name occurs twice, an edge ends at no keypoint, or the colours are not one for each keypoint.
    """
    entries = [Category(entry) if isinstance(entry, str) else entry for entry in declared]
    for entry in entries:
        if not isinstance(entry, Category):
            raise JobError(f"categories: {entry!r} is not a Category or a name")
    _check_distinct([entry.name for entry in entries], "categories")
    return [{"id": number, **_coco(entry)} for number, entry in enumerate(entries, start=1)]


def _coco(category: Category) -> dict[str, Any]:
    where, names = f"category {category.name!r}", list(category.keypoints)
    _check_distinct(names, f"{where}: keypoints")
    for end in [name for edge in category.skeleton for name in edge]:
        if end not in names:
            raise JobError(f"{where}: its skeleton names {end!r}, which is not one of its keypoints")
    if category.colors and len(category.colors) != len(names):
        raise JobError(f"{where}: {len(category.colors)} colors for {len(names)} keypoints")
    return {
        "name": category.name,
        "keypoints": names,
        "skeleton": [[names.index(end) + 1 for end in edge] for edge in category.skeleton],
        "colors": [[int(channel) for channel in color] for color in category.colors],
    }


def _check_distinct(names: list[str], where: str) -> None:
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise JobError(f"{where}: {name!r} is not a name")
        if name in names[:at]:
            raise JobError(f"{where}: {name!r} is there twice")
