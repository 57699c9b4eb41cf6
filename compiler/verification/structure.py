"""What is wrong within one sample: its members against the manifest's schema, the plan and each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Never

import numpy as np
import numpy.typing as npt

from compiler.planning import schemas
from compiler.planning.schemas import annotation_problem
from compiler.planning.sightings import Sightings
from loaders.content import decode_image, open_image, read_array
from loaders.format import IMAGES, kind_of, view_of
from loaders.layout import PlannedSample
from loaders.tarstream import Sample


class Finding(NamedTuple):
    """What is wrong with a member, empty for the whole sample."""

    member: str
    what: str
    damage: bool = True
    """Otherwise a job may have meant it so."""


Array = npt.NDArray[Any]


class SampleChecker:
    """Knows what every sample of a dataset must hold.

    Args:
        described: the manifest's ``schema``, as `compiler.planning.schemas.MANIFEST` has it.
        seed: the plan's; None where there is no plan to hold samples to.
    """

    def __init__(self, described: Mapping[str, Any], seed: int | None) -> None:
        self.members: Mapping[str, Any] = described["members"]
        """What each member is, by name."""
        self._annotations: schemas.Schema = described.get("annotations", "null")
        self._categories = [entry.get("id") for entry in described.get("categories", [])]
        self._seed = seed

    def findings(self, sample: Sample, due: PlannedSample | None, seen: Sightings) -> Iterator[Finding]:
        """Yield what is wrong with the members of a sample.

        Args:
            sample: the sample.
            due: what the plan says of it.
            seen: takes note of what comes into view in it.
        """
        arrays: dict[str, Array] = {}
        for name, content in sample.members.items():
            entry, kind = self.members.get(name, {}), kind_of(name)
            if kind in IMAGES:
                yield from _image_findings(name, content, entry)
            elif kind == "npy":
                try:
                    arrays[name] = read_array(content)
                    _check_array(arrays[name], entry)
                except ValueError as error:
                    yield Finding(name, str(error))
        for name, content in sample.members.items():
            if kind_of(name) == "json":
                yield from self._annotation_findings(name, content, arrays, due, seen)

    def _annotation_findings(
        self, name: str, content: bytes, arrays: Mapping[str, Array], due: PlannedSample | None, seen: Sightings
    ) -> Iterator[Finding]:
        view = view_of(name)  # "" or "left.": whose members belong to these annotations
        try:
            annotations = read_json(content)
            schema_of = schemas.schema_of(annotations)
            if schemas.merge(self._annotations, schema_of) != self._annotations:
                raise ValueError("the annotations hold more than the manifest's schema says")
        except (ValueError, RecursionError) as error:
            yield Finding(name, str(error))
            return
        if not (due or name in self.members):
            return  # other people's JSON
        if problem := annotation_problem(annotations):
            yield Finding(name, problem)
            return
        seen.add(annotations, arrays.get(f"{view}segmentation.npy"))
        yield from (Finding(name, text) for text in self._misplaced(annotations, view, due))
        yield from _keypoint_findings(f"{view}keypoints.npy", arrays, annotations["objects"])
        if strange := _strange(arrays.get(f"{view}categories.npy"), self._categories):
            yield Finding(f"{view}categories.npy", f"holds {strange}, which is not an id of the categories")
        parts = [part.get("part_id") for entry in annotations["objects"] for part in entry.get("parts", ())]
        if strange := _strange(arrays.get(f"{view}parts.npy"), parts):
            yield Finding(f"{view}parts.npy", f"holds {strange}, which is not a part_id of the objects", damage=False)
        ids = [entry.get("segmentation_id", at) for at, entry in enumerate(annotations["objects"], start=1)]
        if strange := _strange(
            arrays.get(f"{view}segmentation.npy"), ids
        ):  # the job has described more than it returned
            what = f"holds {strange}, which is not a segmentation_id of the objects"
            yield Finding(f"{view}segmentation.npy", what, damage=False)

    def _misplaced(self, annotations: dict[str, Any], view: str, due: PlannedSample | None) -> Iterator[str]:
        """Yield where the annotations name another place in the dataset, or another size."""
        if due is not None:
            for field, value in (("episode", due.episode), ("frame", due.frame), ("seed", self._seed)):
                if annotations[field] != value:
                    yield f"{field} is {annotations[field]}, in the plan {value}"
        for name in sorted(IMAGES):
            if shape := self.members.get(f"{view}{name}", {}).get("shape"):
                for field, value in (("height", shape[0]), ("width", shape[1])):
                    if {annotations["image"][field], annotations["camera"][field]} != {value}:
                        yield f"image.{field} or camera.{field} is not {value}, as in the schema"


def undecodable(sample: Sample, described: Mapping[str, Any]) -> Finding | None:
    """Return the first image of a sample that cannot be decoded, and why."""
    for name, content in sample.members.items():
        if kind_of(name) in IMAGES:
            try:
                decode_image(content, described.get(name, {}).get("shape"))
            except ValueError as error:
                return Finding(name, str(error))
    return None


def read_json(content: bytes) -> Any:
    """Return parsed JSON. Raises ValueError where it is none: NaN and infinity are none."""
    try:
        return json.loads(content, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no number of JSON's")


def _image_findings(name: str, content: bytes, entry: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where an image's head says another format, mode or size; decoding it is left to the content's digest."""
    try:
        image = open_image(content)
    except ValueError as error:
        yield Finding(name, str(error))
        return
    if image.format != IMAGES[kind_of(name)]:
        yield Finding(name, f"is a {image.format} file")
    if "shape" in entry and [image.height, image.width, len(image.getbands())] != list(entry["shape"]):
        shape = "x".join(map(str, entry["shape"]))
        yield Finding(name, f"is {image.height}x{image.width} {image.mode}, in the schema {shape}")


def _check_array(array: Array, entry: Mapping[str, Any]) -> None:
    if "dtype" not in entry:
        return
    shape = entry["shape"]
    if array.dtype != np.dtype(entry["dtype"]):
        raise ValueError(f"is of {array.dtype}, in the schema {entry['dtype']}")
    if len(shape) != array.ndim or any(due not in (None, size) for due, size in zip(shape, array.shape, strict=True)):
        raise ValueError(f"has the shape {list(array.shape)}, in the schema {shape}")


def _keypoint_findings(name: str, arrays: Mapping[str, Array], objects: list[dict[str, Any]]) -> Iterator[Finding]:
    """Yield where the rows x, y, visibility, depth are not those of the annotations, as float32."""
    if (rows := arrays.get(name)) is None:
        return
    if not np.isfinite(rows).all():
        yield Finding(name, "holds values that are not finite")
    try:
        with np.errstate(over="ignore"):
            depths = np.array([depth for entry in objects for depth in entry["keypoint_depths"]], np.float32)
            flat = np.array([value for entry in objects for value in entry["keypoints"]], np.float32)
    except OverflowError:
        yield Finding(name, "cannot be that of the annotations: their numbers are too large")
        return
    if flat.size != 3 * depths.size or rows.shape != (depths.size, 4):
        found = f"{len(rows)} rows" if rows.ndim == 2 and rows.shape[1] == 4 else f"the shape {list(rows.shape)}"
        yield Finding(name, f"has {found}, the annotations {flat.size / 3:g} keypoints and {depths.size} depths")
        return
    other = np.column_stack((flat.reshape(-1, 3), depths)) != rows
    if other.any():
        yield Finding(name, f"row {int(other.any(axis=1).argmax())} is not that of the annotations")


def _strange(labels: Array | None, ids: list[Any]) -> int:
    """Return the lowest label that is none of the ids, 0 where there is none."""
    return 0 if labels is None else min(set(np.unique(labels).tolist()) - {0, *ids}, default=0)
