"""One shard, read once from end to end: what in it is not as it was written, in which sample and member."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Never

import numpy as np
import numpy.typing as npt

from compiler.planning import schemas
from compiler.planning.schemas import annotation_problem
from compiler.planning.sightings import Sightings
from compiler.verification.findings import Problem, ShardReport
from loaders.content import content_digest, decode_image, open_image, read_array
from loaders.format import IMAGES, SAMPLE_DIGEST_DIGITS, kind_of, sample_digest, view_of
from loaders.layout import PlannedSample
from loaders.manifest import ShardInfo
from loaders.tarstream import BLOCK, Sample, TarStreamError, padded, read_samples, sample_record


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
            return  # JSON that is not ours
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


def _undecodable(sample: Sample, described: Mapping[str, Any]) -> Finding | None:
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


_CHUNK = 1 << 20


class Tap:
    """A file that is digested as it is read.

    State: the digest, how much was read, and what was read since the last `take`.
    """

    def __init__(self, file: BinaryIO, due: int) -> None:
        self._due = due
        """Bytes that it should have; what is longer is measured, not read: a sparse file may be endless."""
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._file = file
        self._kept: list[bytes] = []

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and keep them."""
        content = self._file.read(size)
        self.sha256.update(content)
        self.size += len(content)
        self._kept.append(content)
        return content

    def take(self, size: int) -> bytes:
        """Return the first bytes that are kept, and keep them no longer."""
        content = b"".join(self._kept)
        self._kept = [content[size:]]
        return content[:size]

    def drain(self) -> int:
        """Read to the end, or beyond where it should be; return how much that was, to its very end."""
        before = self.size
        while self.size <= self._due and self.read(_CHUNK):
            self._kept.clear()
        if self.size > self._due:
            self.size = max(self.size, self._file.seek(0, os.SEEK_END))
        return self.size - before


class Walk:
    """The way through one shard.

    State: the report, which grows; how many samples were passed; the digest of their contents.
    """

    def __init__(
        self, shard: ShardInfo, due: list[PlannedSample], checker: SampleChecker | None, tap: Tap, report: ShardReport
    ) -> None:
        self._shard, self._due, self._checker, self._tap, self._report = shard, due, checker, tap, report
        self._passed = 0
        self._key = ""
        self._content = hashlib.sha256()

    def run(self) -> None:
        """Pass all samples, then compare what is said of the file as a whole."""
        whole = self._checker.members.keys() if self._checker else ()
        try:
            for sample in read_samples(self._tap, whole=whole or None):
                self._pass(sample, self._tap.take(sample.end - sample.offset))
        except TarStreamError as error:
            due = self._due[self._passed].key if self._passed < len(self._due) else ""
            after = f" (after sample {self._key})" if self._key and not due else ""
            self._blame(f"{error}{after}", due)
            self._tap.drain()
        else:
            if self._passed != self._shard.samples:
                self._blame(f"holds {self._passed} samples, not {self._shard.samples}")
            if beyond := self._tap.drain():
                self._blame(f"{beyond} bytes follow its end mark")
        self._conclude()

    def _conclude(self) -> None:
        shard, digest = self._shard, self._tap.sha256.hexdigest()
        if self._tap.size != shard.bytes:
            self._blame(f"has {self._tap.size} bytes, not {shard.bytes}")
        elif digest != shard.sha256:
            self._blame(f"its sha256 is {digest[:16]}..., not {shard.sha256[:16]}...")
        elif not self._report.problems and self._content.hexdigest() != shard.content_sha256:
            lossy = sorted(
                {"jpg", "webp"} & {kind_of(name) for name in (self._checker.members if self._checker else ())}
            )
            if lossy:  # their decoders may round otherwise in another release
                self._report.notes.append(f"{shard.name}: Pillow decodes {lossy[0]} to other pixels here")
            else:
                self._blame("its content_sha256 differs, though its sha256 is right")

    def _pass(self, sample: Sample, record: bytes) -> None:
        at, self._passed, self._key = self._passed, self._passed + 1, sample.key
        due = self._due[at] if at < len(self._due) else None
        if self._due and (due is None or sample.key != due.key):
            self._blame(f"is where {due.key} should be" if due else "is one too many", sample.key)
            due = None
        known = len(self._report.problems)
        self._check_record(sample, record)
        for finding in self._checker.findings(sample, due, self._report.seen) if self._checker else ():
            if finding.damage:
                self._blame(finding.what, sample.key, finding.member)
            elif not self._report.notes:  # one a shard will do
                self._report.notes.append(str(Problem(self._shard.name, finding.what, sample.key, finding.member)))
        try:
            if self._checker is not None:  # else nothing tells how large an image may be, and the manifest is blamed
                self._content.update(content_digest(sample.key, sample.members, self._checker.members))
        except ValueError:
            described = self._checker.members if self._checker else {}
            finding = _undecodable(sample, described) or Finding("", "cannot be decoded")
            if finding.member not in {problem.member for problem in self._report.problems[known:]}:
                self._blame(finding.what, sample.key, finding.member)
        digest = self._shard.sample_digests[at * SAMPLE_DIGEST_DIGITS :][:SAMPLE_DIGEST_DIGITS]
        if digest != sample_digest(record) and len(self._report.problems) == known:
            self._blame(f"is not as it was written (bytes {sample.offset} to {sample.end})", sample.key)

    def _check_record(self, sample: Sample, record: bytes) -> None:
        """Check that a sample's headers and padding are canonical."""
        try:
            canonical = sample_record(sample.key, sample.members)
        except ValueError as error:
            self._blame(str(error), sample.key)
            return
        if record != canonical:
            at = next(
                (at for at, (one, two) in enumerate(zip(record, canonical, strict=False)) if one != two), len(canonical)
            )
            place = f"byte {sample.offset + at}"
            self._blame(f"a header or a padding is not canonical ({place})", sample.key, _member_at(sample, at))

    def _blame(self, what: str, key: str = "", member: str = "") -> None:
        self._report.problems.append(Problem(self._shard.name, what, key, member))


def _member_at(sample: Sample, at: int) -> str:
    """Return the member in whose part of the record a byte lies."""
    for name, content in sorted(sample.members.items()):
        at -= BLOCK + padded(len(content))
        if at < 0:
            return name
    return ""
