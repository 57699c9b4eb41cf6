"""What a dataset is: the plan it was made from, its schema, and its shards with their digests (``dataset.json``)."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

FORMAT = "blendshard-1"
FILE_NAME = "dataset.json"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar")


class ManifestError(ValueError):
    """The manifest is missing, cut, or not one; the message names the file and the place."""


def canonical_json(value: object) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys and no NaN: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class ShardInfo:
    """One finished shard."""

    name: str
    """File name beside the manifest, e.g. ``falling_cubes-train-000000.tar``."""
    split: str
    number: int
    """Counts over all splits, so that sample keys are unique in the dataset."""
    samples: int
    bytes: int
    sha256: str
    """Digest of the file."""
    content_sha256: str
    """Digest of decoded pixels and annotations: the same after lossless re-encoding of the images."""


@dataclass(frozen=True)
class Manifest:
    """A dataset's identity and inventory. Immutable; `with_shard` gives the next one."""

    name: str
    plan: Mapping[str, Any]
    """Every resolved value that can change a byte."""
    schema: Mapping[str, Any]
    """``members`` (dtype, shape, description by member name), ``annotations`` (the JSON's fields and types)."""
    provenance: Mapping[str, Any]
    """What made it and how to find it again; changes no byte of a shard."""
    shards: tuple[ShardInfo, ...] = ()

    @property
    def plan_digest(self) -> str:
        """Sha256 over the canonical JSON of the plan: the dataset's identity."""
        return hashlib.sha256(canonical_json(self.plan)).hexdigest()

    @property
    def digest(self) -> str:
        """One sha256 over all shards' digests, in order: equal digests, equal datasets."""
        return hashlib.sha256("".join(f"{shard.sha256}\n" for shard in self.shards).encode()).hexdigest()

    @property
    def samples(self) -> int:
        """Samples in all finished shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all finished shards."""
        return sum(shard.bytes for shard in self.shards)

    def with_shard(self, shard: ShardInfo) -> Manifest:
        """Return the manifest with `shard` added, or put in the place of the one with its number."""
        others = [other for other in self.shards if other.number != shard.number]
        return replace(self, shards=tuple(sorted([*others, shard], key=lambda info: info.number)))

    def to_json(self) -> builtins.bytes:
        """Return the file's content: sorted, indented, ending in a newline."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown |= {
            "format": FORMAT,
            "plan_digest": self.plan_digest,
            "digest": self.digest,
            "samples": self.samples,
            "bytes": self.bytes,
            "shards": [asdict(shard) for shard in self.shards],
        }
        text = json.dumps(shown, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        return text.encode() + b"\n"

    @classmethod
    def from_json(cls, content: builtins.bytes, source: str = FILE_NAME) -> Manifest:
        """Parse and check a manifest; `source` names it in errors.

        Raises:
            ManifestError: not JSON, another format, a field missing or of the wrong type, digests or counts that
                disagree with the shards, a shard twice.
        """
        try:
            value = json.loads(content)
            canonical_json(value)  # Python reads NaN, infinity and halves of characters, which are no JSON
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{source} is not JSON: {error}") from None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ManifestError(f"{source} is not a {FORMAT} manifest")
        for name, kind in (("name", str), ("plan", dict), ("schema", dict), ("provenance", dict), ("shards", list)):
            if not isinstance(value.get(name), kind):
                raise ManifestError(f"{source}: field {name!r} is missing or not a {kind.__name__}")
        shards = tuple(_shard(entry, f"{source}: shards[{at}]") for at, entry in enumerate(value["shards"]))
        _check_distinct(shards, source)
        manifest = cls(value["name"], value["plan"], value["schema"], value["provenance"], shards)
        for name in ("plan_digest", "digest", "samples", "bytes"):
            if value.get(name) != getattr(manifest, name):
                raise ManifestError(f"{source}: {name} does not fit its content; the file was changed or damaged")
        return manifest

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read the manifest at `path`: the file or the directory that holds it.

        Raises:
            ManifestError: there is none, or it is not valid.
        """
        file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ManifestError(f"no dataset at {path}: {error.strerror or error} ({file})") from None
        return cls.from_json(content, str(file))


def _check_distinct(shards: tuple[ShardInfo, ...], source: str) -> None:
    """Check that shards ascend and none stands twice: sample keys would not be unique."""
    numbers = [shard.number for shard in shards]
    if numbers != sorted(set(numbers)) or len({shard.name for shard in shards}) < len(shards):
        raise ManifestError(f"{source}: a shard stands twice, or shards are not in the order of their numbers")


def _shard(entry: object, where: str) -> ShardInfo:
    """Check one entry: names come from foreign files and must never leave the dataset's directory."""
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is not an object")
    for field in fields(ShardInfo):
        kind = int if field.type == "int" else str
        if type(entry.get(field.name)) is not kind:
            raise ManifestError(f"{where}.{field.name} is missing or not a {kind.__name__}")
    shard = ShardInfo(**{field.name: entry[field.name] for field in fields(ShardInfo)})
    if not _SHARD_NAME.fullmatch(shard.name):
        raise ManifestError(f"{where}.name {shard.name!r} is not a plain file name ending in .tar")
    if not (_DIGEST.fullmatch(shard.sha256) and _DIGEST.fullmatch(shard.content_sha256)):
        raise ManifestError(f"{where} has a digest that is not sha256 in hexadecimal")
    if min(shard.number, shard.samples, shard.bytes) < 0:
        raise ManifestError(f"{where} has a negative number")
    return shard
