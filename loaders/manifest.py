"""Internal, shared with the compiler: the manifest, ``dataset.json``, with a dataset's plan, schema and shards."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from loaders.files import read_regular, write_atomically
from loaders.format import MOST_NUMBER, SAMPLE_DIGEST_DIGITS, SampleKey, canonical_json, is_shard_file

FORMAT = "blendshard-1"
FILE_NAME = "dataset.json"

RECORDED = "recorded"
"""A key in the provenance of recordings of a live tee, and of no other dataset."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAMPLE_DIGESTS = re.compile(rf"(?:[0-9a-f]{{{SAMPLE_DIGEST_DIGITS}}})*")
_MOST = {"number": MOST_NUMBER, "samples": MOST_NUMBER, "bytes": 2**63}
"""A shard's numbers are below these: the first two are part of keys, the third is a file's size."""

MOST_BYTES = 1 << 30
"""Largest manifest file: enough for 128 million samples."""

_MOST_VALUES = 1 << 23
"""Most values in a manifest's JSON, each of which takes over a hundred bytes of memory. Enough for 800 000 shards."""

_FIELDS = {"name": str, "plan": dict, "schema": dict, "provenance": dict, "shards": list, "skipped": dict}
_SEAL = re.compile(rb'(?<=\n "manifest_sha256": ")[^"]*(?=",\n)')


class ManifestError(ValueError):
    """The manifest is missing, cut, or not valid; the message names the file and the place."""


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Return what makes a schema unusable for readers, in one line; empty if nothing does.

    Args:
        schema: see `Manifest.schema`. Fields may be missing.
    """
    members = schema.get("members", {})
    if not isinstance(members, Mapping):
        return "schema.members is not an object"
    for name, entry in members.items():
        if not isinstance(entry, Mapping):
            return f"schema.members: {name!r} is not an object"
        if not isinstance(entry.get("dtype", ""), str):
            return f"schema.members: the dtype of {name!r} is not a str"
        shape = entry.get("shape", [])
        if not isinstance(shape, list) or not all(side is None or (type(side) is int and side >= 0) for side in shape):
            return f"schema.members: the shape of {name!r} is not a list of sizes"
    categories = schema.get("categories", [])
    if not isinstance(categories, list) or not all(isinstance(entry, Mapping) for entry in categories):
        return "schema.categories is not a list of objects"
    return ""


@dataclass(frozen=True)
class ShardInfo:
    """One finished shard."""

    name: str
    """File name in the manifest's folder, such as ``falling_cubes-train-000000.tar``."""
    split: str
    number: int
    """Numbered over all splits, so that sample keys are unique in the dataset."""
    samples: int
    bytes: int
    sha256: str
    """Digest of the file."""
    content_sha256: str
    """Digest of decoded pixels and annotations: the same after lossless re-encoding of the images."""
    sample_digests: str
    """`sample_digest` of each sample's record, concatenated in the order of the tar: they tell which samples of a
    damaged shard are damaged."""


@dataclass(frozen=True)
class Manifest:
    """A dataset's identity and inventory. Immutable; `with_shard` returns the next one."""

    name: str
    plan: Mapping[str, Any]
    """Every resolved value that can change a byte."""
    schema: Mapping[str, Any]
    """``members`` (dtype, shape, description by member name), ``annotations`` (the JSON's fields and types)."""
    provenance: Mapping[str, Any]
    """What made the dataset and how to reproduce it; does not affect the bytes of shards."""
    shards: tuple[ShardInfo, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """The keys of samples that finished shards lack because their episode could not be rendered, and why."""

    @property
    def plan_digest(self) -> str:
        """Sha256 of the canonical JSON of the plan: the dataset's identity."""
        return hashlib.sha256(canonical_json(self.plan)).hexdigest()

    @property
    def digest(self) -> str:
        """One sha256 over all shards' digests, in order: equal digests, equal datasets."""
        return hashlib.sha256("".join(f"{shard.sha256}\n" for shard in self.shards).encode()).hexdigest()

    @property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """Each member's ``dtype``, ``shape`` and ``description``, by member name; empty if the schema has none."""
        members: Mapping[str, Mapping[str, Any]] = self.schema.get("members", {})
        return members

    @property
    def recorded(self) -> bool:
        """Whether this is the recording of a live tee: its samples are in the order of arrival, not of the plan."""
        return RECORDED in self.provenance

    @property
    def samples(self) -> int:
        """Samples in all finished shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all finished shards."""
        return sum(shard.bytes for shard in self.shards)

    def with_shard(self, shard: ShardInfo, skipped: Mapping[str, str] | None = None) -> Manifest:
        """Return the manifest with `shard` added, or replaced if it has one with the same number.

        Args:
            shard: the shard.
            skipped: the keys of the samples that it lacks, and why.
        """
        others = [other for other in self.shards if other.number != shard.number]
        kept = [str(key) for key in self.skipped_keys if key.shard != shard.number]
        shards = tuple(sorted([*others, shard], key=lambda info: info.number))
        return replace(self, shards=shards, skipped={**{key: self.skipped[key] for key in kept}, **(skipped or {})})

    @property
    def skipped_keys(self) -> list[SampleKey]:
        """The keys of `skipped`, parsed."""
        return [key for text in self.skipped if (key := SampleKey.parse(text))]

    @property
    def incomplete(self) -> frozenset[int]:
        """The numbers of the shards that lack samples."""
        return frozenset(key.shard for key in self.skipped_keys)

    def to_json(self) -> builtins.bytes:
        """Return the file's content: sorted, indented, ending in a newline, sealed with `manifest_sha256`.

        The seal is the sha256 of the file without the seal's own 64 digits.
        """
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown |= {
            "format": FORMAT,
            "plan_digest": self.plan_digest,
            "digest": self.digest,
            "samples": self.samples,
            "bytes": self.bytes,
            "manifest_sha256": "",
            "shards": [asdict(shard) for shard in self.shards],
        }
        text = json.dumps(shown, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        content = text.encode() + b"\n"
        return _SEAL.sub(hashlib.sha256(content).hexdigest().encode(), content, count=1)

    def as_json(self) -> dict[str, Any]:
        """Return the file's content, parsed."""
        shown: dict[str, Any] = json.loads(self.to_json())
        return shown

    @classmethod
    def from_json(cls, content: builtins.bytes, source: str = FILE_NAME) -> Manifest:
        """Parse and check a manifest; `source` names it in errors.

        Raises:
            ManifestError: not JSON, another format, a field missing or of the wrong type, an unusable schema, digests
                or counts that disagree with the shards, a shard twice, or any byte that differs from what `to_json`
                writes.
        """
        value = _parse(content, source)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ManifestError(f"{source} is not a {FORMAT} manifest")
        for name, kind in _FIELDS.items():
            if not isinstance(value.get(name), kind):
                raise ManifestError(f"{source}: field {name!r} is missing or not a {kind.__name__}")
        if problem := schema_problem(value["schema"]):
            raise ManifestError(f"{source}: {problem}")
        if not all(SampleKey.parse(key) and isinstance(why, str) for key, why in value["skipped"].items()):
            raise ManifestError(f"{source}: skipped is not an object of sample keys and reasons")
        shards = tuple(_shard(entry, f"{source}: shards[{at}]") for at, entry in enumerate(value["shards"]))
        _check_distinct(shards, source)
        manifest = cls(value["name"], value["plan"], value["schema"], value["provenance"], shards, value["skipped"])
        for name in ("plan_digest", "digest", "samples", "bytes"):
            if value.get(name) != getattr(manifest, name):
                raise ManifestError(f"{source}: {name} does not match its content; the file was changed or damaged")
        if "manifest_sha256" not in value or value["manifest_sha256"] != _seal(content):
            raise ManifestError(f"{source}: manifest_sha256 does not match the file: it was edited or damaged")
        if content != manifest.to_json():
            raise ManifestError(f"{source} was changed by hand or by another program")
        return manifest

    def save(self, folder: Path) -> None:
        """Write the file into a dataset's directory; whatever happens, readers find the whole old or the whole new one.

        Raises:
            OSError: it could not be written; the old one is still there.
        """
        write_atomically(folder / FILE_NAME, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read the manifest at `path`: its file or its directory.

        Raises:
            ManifestError: there is no manifest, or it is not valid.
        """
        file = Path(path)
        try:
            file = file / FILE_NAME if file.is_dir() else file
            content = read_regular(file, MOST_BYTES)
        except OSError as error:
            raise ManifestError(f"no dataset at {path}: {error.strerror or error} ({file})") from None
        return cls.from_json(content, str(file))


def _parse(content: builtins.bytes, source: str) -> Any:
    if sum(map(content.count, b"[{,")) > _MOST_VALUES:
        raise ManifestError(f"{source} holds more than {_MOST_VALUES} values")
    try:
        value = json.loads(content)
        canonical_json(value)  # Python reads NaN, infinity and halves of characters, which are no JSON
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{source} is not JSON: {error}") from None
    return value


def _seal(content: builtins.bytes) -> str:
    """Return the `manifest_sha256` that a manifest's file must have."""
    return hashlib.sha256(_SEAL.sub(b"", content, count=1)).hexdigest()


def _check_distinct(shards: tuple[ShardInfo, ...], source: str) -> None:
    """Check that shards ascend and none is listed twice, as sample keys would not be unique."""
    numbers = [shard.number for shard in shards]
    if numbers != sorted(set(numbers)) or len({shard.name for shard in shards}) < len(shards):
        raise ManifestError(f"{source}: a shard is listed twice, or shards are not in the order of their numbers")


def _check_numbers(shard: ShardInfo, where: str) -> None:
    if min(shard.number, shard.samples, shard.bytes) < 0:
        raise ManifestError(f"{where} has a negative number")
    for name, most in _MOST.items():
        if getattr(shard, name) >= most:
            raise ManifestError(f"{where}.{name} is not below {most}")


def _shard(entry: object, where: str) -> ShardInfo:
    """Parse one entry: names come from foreign files and must never lead out of the dataset's directory."""
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is not an object")
    for known in fields(ShardInfo):
        kind = int if known.type == "int" else str
        if type(entry.get(known.name)) is not kind:
            raise ManifestError(f"{where}.{known.name} is missing or not a {kind.__name__}")
    shard = ShardInfo(**{field.name: entry[field.name] for field in fields(ShardInfo)})
    if not is_shard_file(shard.name):
        raise ManifestError(f"{where}.name {shard.name!r} is not a plain file name ending in .tar")
    if not (_DIGEST.fullmatch(shard.sha256) and _DIGEST.fullmatch(shard.content_sha256)):
        raise ManifestError(f"{where} has a digest that is not sha256 in hexadecimal")
    _check_numbers(shard, where)
    if not _SAMPLE_DIGESTS.fullmatch(shard.sample_digests):
        raise ManifestError(f"{where}.sample_digests is not hexadecimal, {SAMPLE_DIGEST_DIGITS} digits a sample")
    if len(shard.sample_digests) != SAMPLE_DIGEST_DIGITS * shard.samples:
        raise ManifestError(f"{where}.sample_digests does not have {shard.samples} digests, one for each sample")
    return shard
