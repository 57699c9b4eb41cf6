"""What of the described objects, their keypoints and the episodes comes into view, and whether labels and pixels agree.

What never comes into view may be a mistake of the job's; an object that is seen outside its box is one of ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from compiler.errors import NothingInView
from loaders.content import read_array
from loaders.format import kind_of, view_of

Key = TypeVar("Key", str, int)

_NO_LABELS = "annotate() returns none under 'objects'"
_SLACK = 1
"""Pixels around a box in which an object may still be seen."""
_NAMED = 5
"""Names that are spelled out for people; JSON has all."""


def annotated_views(members: Mapping[str, bytes]) -> Iterator[tuple[Any, npt.NDArray[Any] | None]]:
    """Yield the annotations of each view of a sample, with the segmentation that belongs to them, where there is one.

    Raises:
        ValueError: a member is not what its name says.
    """
    for name, content in members.items():
        if kind_of(name) == "json":
            segmentation = members.get(f"{view_of(name)}segmentation.npy")
            yield json.loads(content), None if segmentation is None else read_array(segmentation)


@dataclass
class Sightings:
    """Gathered from annotations, in any order; adding the same twice changes nothing.

    In view is an object of which a pixel is visible, where the pass ``segmentation`` tells, or whose box is within the
    image; a keypoint whose visibility is not 0.
    """

    objects: dict[str, bool] = field(default_factory=dict)
    """Whether it was in view, by name."""
    keypoints: dict[str, bool] = field(default_factory=dict)
    """Whether it was in view, of objects that were, by category and name: ``dog.tail``."""
    episodes: dict[int, bool] = field(default_factory=dict)
    """Whether any object was in view, by number."""

    strays: dict[str, int] = field(default_factory=dict)
    """The most pixels in one view that show an object outside its 2D box, by name; none where all is right."""

    def add(self, annotations: Mapping[str, Any], segmentation: npt.NDArray[Any] | None = None) -> None:
        """Take note of one view of a sample; its annotations fit their schema.

        Args:
            annotations: the view's.
            segmentation: its pass of that name, uint16 (H, W), if it has one.
        """
        any_in_view = False
        for entry in annotations["objects"]:
            seen = _in_view(entry)
            name = str(entry.get("name") or entry.get("category") or "without a name")
            self.objects[name] = self.objects.get(name, False) or seen
            if segmentation is not None and (stray := _stray(entry, segmentation)):
                self.strays[name] = max(stray, self.strays.get(name, 0))
            if seen:
                any_in_view = True
                self._add_keypoints(entry, str(entry.get("category") or name))
        episode = annotations["episode"]
        self.episodes[episode] = self.episodes.get(episode, False) or any_in_view

    def _add_keypoints(self, entry: Mapping[str, Any], owner: str) -> None:
        flags = entry["keypoints"][2::3]
        names = entry.get("keypoint_names", ())
        if len(names) != len(flags):
            names = range(len(flags))
        for name, flag in zip(names, flags, strict=True):
            known = f"{owner}.{name}"
            self.keypoints[known] = self.keypoints.get(known, False) or flag > 0

    def merge(self, other: Sightings) -> None:
        """Take note of all that another has noted."""
        _merge(self.objects, other.objects)
        _merge(self.keypoints, other.keypoints)
        _merge(self.episodes, other.episodes)
        for name, stray in other.strays.items():
            self.strays[name] = max(stray, self.strays.get(name, 0))

    @property
    def emptiness(self) -> str:
        """Why it is of no use for training: no sample shows any object; empty where one does."""
        if not self.objects:
            return f"no sample has any object: {_NO_LABELS}"
        return "" if any(self.objects.values()) else f"none of {len(self.objects)} objects is in view in any sample"

    def check_objects(self, where: object) -> None:
        """Make sure that some sample shows an object.

        Args:
            where: the dataset, for the message.

        Raises:
            NothingInView: none does.
        """
        if why := self.emptiness:
            raise NothingInView(
                f"{where}: {why}, but --require-objects needs one in view",
                "fix annotate(), or whatever hides the objects from the camera; compile-dataset show draws the samples",
            )

    def as_json(self) -> dict[str, list[Any]]:
        """Return what was never in view, for programs. Where a job describes no objects, that is no episode."""
        return {
            "episodes_with_nothing_in_view": _never(self.episodes) if self.objects else [],
            "keypoints_never_in_view": _never(self.keypoints),
            "objects_never_in_view": _never(self.objects),
            "objects_seen_outside_their_boxes": sorted(self.strays),
        }

    def notes(self, where: str = "") -> Iterator[str]:
        """Yield it for people; `where` says what they hold for: ``in the samples rendered now``."""
        empty, keypoints, objects, strays = self.as_json().values()
        place = f" {where}" if where else ""
        if self.episodes and not self.objects:
            yield f"no sample has any object{place}: {_NO_LABELS}"
        if empty:
            yield f"{len(empty)} of {len(self.episodes)} episodes have no object in view{place}: {_named(empty)}"
        if objects:
            yield f"{len(objects)} of {len(self.objects)} objects are never in view{place}: {_named(objects)}"
        if keypoints:
            yield f"{len(keypoints)} of {len(self.keypoints)} keypoints are never in view{place}: {_named(keypoints)}"
        if strays:
            yield (
                f"{len(strays)} of {len(self.objects)} objects are seen outside their boxes{place}, by up to"
                f" {max(self.strays.values())} pixels: {_named(strays)}; do not trust these boxes, and report the scene"
            )


def _merge(ours: dict[Key, bool], theirs: Mapping[Key, bool]) -> None:
    for key, seen in theirs.items():
        ours[key] = ours.get(key, False) or seen


def _in_view(entry: Mapping[str, Any]) -> bool:
    if "visible_pixels" in entry:
        return bool(entry["visible_pixels"])
    if "bbox" in entry:
        return any(entry["bbox"][2:])  # zeros where nothing of it is in the image
    flags = entry["keypoints"][2::3]
    return not flags or any(flag > 0 for flag in flags)


def _stray(entry: Mapping[str, Any], segmentation: npt.NDArray[Any]) -> int:
    """Return how many pixels show an object outside its box; 0 where the entry does not tell."""
    number, box = entry.get("segmentation_id"), entry.get("bbox")
    if not isinstance(number, int) or not isinstance(box, list) or len(box) != 4 or not entry.get("visible_pixels"):
        return 0
    x, y, width, height = box
    left, top = (max(0, math.floor(start) - _SLACK) for start in (x, y))
    right, bottom = (max(0, math.ceil(end) + _SLACK) for end in (x + width, y + height))
    inside = int(np.count_nonzero(segmentation[top:bottom, left:right] == number)) if any(box) else 0
    return max(0, int(entry["visible_pixels"]) - inside)


def _never(seen: Mapping[Any, bool]) -> list[Any]:
    return sorted(key for key, was in seen.items() if not was)


def _named(names: list[Any]) -> str:
    return ", ".join(map(str, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)
