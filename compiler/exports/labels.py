"""The objects of a view as detectors learn them: those in sight, with their category, box, mask and keypoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compiler.errors import UsageError
from compiler.exports.rle import Runs, pixels
from compiler.exports.samples import View
from compiler.storage.published import Published
from loaders.content import read_array

OUTSIDE, HIDDEN = "outside the image", "hidden"
"""Why an object is left out: its box has no area, or no pixel shows it, where the dataset has masks."""

TASKS = ("detect", "segment", "pose")


@dataclass(frozen=True)
class Category:
    """One of COCO's categories."""

    number: int
    """Its place among them, from 0."""
    id: int
    name: str
    keypoints: list[str]
    skeleton: list[list[int]]
    """Edges: pairs of numbers of keypoints, from 1."""


@dataclass(frozen=True)
class Label:
    """One object."""

    category: Category
    box: list[float]
    """x, y, width, height in pixels, within the image."""
    counts: list[int] | None
    """The runs of its mask (see `compiler.exports.rle`); None where the dataset has no masks."""
    keypoints: list[float]
    """[x, y, visibility] * K for the category's K keypoints, in pixels; x and y are 0 where the visibility is."""


def categories_of(published: Published) -> list[Category]:
    """Return the dataset's categories.

    Raises:
        UsageError: it has none, or they are not COCO's.
    """
    entries = published.manifest.schema.get("categories") or []
    if not entries:
        raise UsageError(
            f"{published.folder}: its objects have no category_id",
            "declare categories in the job, and compile it again",
        )
    try:
        found = [_category(number, entry) for number, entry in enumerate(entries)]
        if len({entry.id for entry in found}) < len(found):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{published.folder}: the manifest's categories are not COCO's") from None
    return found


def _category(number: int, entry: Mapping[str, Any]) -> Category:
    keypoints, skeleton = entry.get("keypoints", []), entry.get("skeleton", [])
    texts = [entry["name"], *keypoints]
    if not all(isinstance(text, str) and text.isprintable() for text in texts) or type(entry["id"]) is not int:
        raise ValueError
    for one, other in skeleton:
        if not {type(one), type(other)} == {int} or not 1 <= min(one, other) <= max(one, other) <= len(keypoints):
            raise ValueError
    return Category(number, entry["id"], entry["name"], list(keypoints), [list(edge) for edge in skeleton])


def require(published: Published, categories: list[Category], task: str) -> None:
    """Refuse a task that the dataset lacks something for.

    Raises:
        UsageError: no masks, or no category with keypoints; the hint names what would give them.
    """
    if task == "segment" and not has_masks(published):
        raise UsageError(
            f"{published.folder} has no masks: it lacks the pass segmentation",
            "compile it with --passes segmentation into another folder",
        )
    if task == "pose" and not any(category.keypoints for category in categories):
        raise UsageError(
            f"{published.folder}: none of its categories names keypoints",
            "declare them in the job: Category(name, keypoints), or box_category(name)",
        )


def has_masks(published: Published) -> bool:
    """Return whether the dataset has the pass that masks come from."""
    return any(name.endswith("segmentation.npy") for name in published.manifest.members)


def labels_of(view: View, categories: Mapping[int, Category], left_out: Counter[str]) -> Iterator[Label]:
    """Yield the objects in sight.

    Args:
        view: the view.
        categories: by their ids.
        left_out: counts the objects that are not in sight, by the reason.

    Raises:
        ValueError: an object has no box or none of the categories, or its mask or keypoints do not fit.
    """
    runs = None
    if view.segmentation is not None:
        segmentation = read_array(view.segmentation)
        if segmentation.shape != (view.height, view.width) or segmentation.dtype.kind not in "iu":
            raise ValueError(f"its segmentation is {segmentation.dtype} {list(segmentation.shape)}")
        runs = Runs(segmentation)
    for entry in view.objects:
        if missing := {"bbox", "category_id", *(["segmentation_id"] if runs else [])} - entry.keys():
            raise ValueError(f"an object has no {min(missing)}: return what view.describe gives")
        if entry["category_id"] not in categories:
            raise ValueError(f"category_id {entry['category_id']} is none of the categories")
        category, box = categories[entry["category_id"]], entry["bbox"]
        counts = runs.counts(entry["segmentation_id"]) if runs else None
        if not min(box[2:]) > 0:
            left_out[OUTSIDE] += 1
        elif counts is not None and not pixels(counts):
            left_out[HIDDEN] += 1
        else:
            yield Label(category, box, counts, _keypoints(entry, category))


def _keypoints(entry: Mapping[str, Any], category: Category) -> list[float]:
    """Return the keypoints of the category. A category without any takes none: an object has always some."""
    given = entry["keypoints"] if category.keypoints else []
    if not given:
        return [0.0, 0.0, 0] * len(category.keypoints)
    if len(given) != 3 * len(category.keypoints):
        raise ValueError(f"an object has {len(given) / 3:g} keypoints, its category {len(category.keypoints)}")
    triples = zip(given[::3], given[1::3], given[2::3], strict=True)
    return [value for x, y, seen in triples for value in ((x, y, int(seen)) if seen > 0 else (0.0, 0.0, 0))]
