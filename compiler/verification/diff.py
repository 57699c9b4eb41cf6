"""What differs between two datasets, and between two samples: plans, provenance, shards, members.

Samples stream by, one pair at a time. A shard whose sha256 is the same in both manifests is not read:
`compiler.verification.verify` holds files to their manifests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import UsageError
from compiler.planning.plan import differences
from compiler.storage.published import DAMAGED_HINT, Published, samples_of
from compiler.verification.shard import read_json
from loaders.content import decode_image, open_image, read_array
from loaders.format import IMAGES, kind_of, meaning_of
from loaders.tarstream import Sample

Field = tuple[str, Any, Any]
"""A path in JSON, and both values; None for what one lacks."""


@dataclass(frozen=True)
class SampleDifference:
    """How one sample differs."""

    key: str
    members: list[Difference]
    """Empty where only one dataset has the sample."""
    only_in: str = ""
    """``first`` or ``second``."""


@dataclass
class DatasetDifference:
    """How two datasets differ. Provenance changes no byte of a shard and does not count."""

    plan: list[Field]
    schema: list[Field]
    provenance: list[Field]
    shards_only_in_first: list[int] = field(default_factory=list)
    shards_only_in_second: list[int] = field(default_factory=list)
    shards_same: int = 0
    shards_different: list[int] = field(default_factory=list)
    samples_compared: int = 0
    """In the shards that differ."""
    samples_different: int = 0
    members_different: dict[str, int] = field(default_factory=dict)
    """In how many samples a member differs, images by ``image``."""
    described: list[SampleDifference] = field(default_factory=list)
    """The first samples that differ."""

    @property
    def equal(self) -> bool:
        """Whether the datasets are the same: plan, schema and every byte of every shard."""
        lone = self.shards_only_in_first or self.shards_only_in_second
        return not (self.plan or self.schema or lone or self.shards_different)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "equal": self.equal}


def diff(first: Published, second: Published, limit: int) -> DatasetDifference:
    """Compare two datasets; describe the first `limit` samples that differ.

    Raises:
        UsageError: a shard that must be read is missing or damaged; or one of the two, which differ, is a recording.
    """
    ours, theirs = first.manifest, second.manifest
    if ours.digest != theirs.digest:
        _refuse_recordings(first, second)
    found = DatasetDifference(
        plan=list(differences(ours.plan, theirs.plan)),
        schema=list(differences(ours.schema, theirs.schema)),
        provenance=list(differences(ours.provenance, theirs.provenance)),
    )
    mine, others = ({shard.number: shard for shard in manifest.shards} for manifest in (ours, theirs))
    for number in sorted(mine.keys() | others.keys()):
        if number not in others:
            found.shards_only_in_first.append(number)
        elif number not in mine:
            found.shards_only_in_second.append(number)
        elif mine[number].sha256 == others[number].sha256:
            found.shards_same += 1
        else:
            found.shards_different.append(number)
            paths = first.folder / mine[number].name, second.folder / others[number].name
            _compare_shards(_ascending(paths[0]), _ascending(paths[1]), found, limit)
    return found


def _refuse_recordings(*datasets: Published) -> None:
    """Samples are paired shard by shard, as their keys ascend: a recording has them in the order of arrival."""
    for dataset in datasets:
        if dataset.manifest.recorded:
            raise UsageError(
                f"{dataset.folder}: a recording of a live tee has no plan's order; its samples cannot be paired",
                "compile-dataset verify checks it; compile the dataset of its plan to compare that",
            )


def _compare_shards(ours: Iterator[Sample], theirs: Iterator[Sample], found: DatasetDifference, limit: int) -> None:
    """Compare two shards whose keys ascend, as those of one number do."""
    mine, other = next(ours, None), next(theirs, None)
    while mine or other:
        found.samples_compared += 1
        if other is None or (mine is not None and mine.key < other.key):
            assert mine is not None
            _note(SampleDifference(mine.key, [], "first"), found, limit)
            mine = next(ours, None)
        elif mine is None or other.key < mine.key:
            _note(SampleDifference(other.key, [], "second"), found, limit)
            other = next(theirs, None)
        else:
            if mine.members != other.members:
                _count_members(mine, other, found)
                described = len(found.described) < limit
                members = compare_members(mine.members, other.members) if described else []
                _note(SampleDifference(mine.key, members), found, limit)
            mine, other = next(ours, None), next(theirs, None)


def _note(difference: SampleDifference, found: DatasetDifference, limit: int) -> None:
    found.samples_different += 1
    if len(found.described) < limit:
        found.described.append(difference)


def _count_members(one: Sample, two: Sample, found: DatasetDifference) -> None:
    ours, theirs = ({meaning_of(name): content for name, content in sample.members.items()} for sample in (one, two))
    for meaning in ours.keys() | theirs.keys():
        if ours.get(meaning) != theirs.get(meaning):
            found.members_different[meaning] = found.members_different.get(meaning, 0) + 1


def _ascending(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples, whose keys must ascend: pairing rests on it."""
    last = ""
    for sample in samples_of(path):
        if sample.key <= last:
            raise UsageError(f"{path}: sample {sample.key} comes after {last}", DAMAGED_HINT)
        last = sample.key
        yield sample


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
