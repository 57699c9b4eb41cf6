"""Schemas: of the annotations of one dataset, gathered from its samples, and of what every dataset holds.

A gathered schema is JSON itself: ``"int"``, ``"float"``, ``"str"``, ``"bool"``, ``"null"``; a list's is a list with its
items' schema, or empty if nothing is known yet; an object's is an object. Loaders of columnar tools infer types from
the first samples, so a number that is 1 here and 1.5 there would break them far from its cause.

The published JSON Schemas (draft 7) describe a sample's annotations and ``dataset.json``. The files in
``docs/schema`` are `published` written out; a test holds them equal.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import fastjsonschema

from loaders.format import SAMPLE_DIGEST_DIGITS, SHARD_FILE
from loaders.manifest import FORMAT

Schema = Any

_NAMED = 4
"""Items of a list that are spelled out for people."""
_PLAIN = {bool, int, float, str}


class SchemaConflict(ValueError):
    """Two values of one field do not go together; the message names the path and says what to return."""


def schema_of(value: Any, path: str = "annotations") -> Schema:
    """Return the schema of parsed JSON.

    Raises:
        SchemaConflict: a list's items differ in type.
    """
    if isinstance(value, dict):
        return {name: schema_of(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        if len(kinds := set(map(type, value))) == 1 and kinds <= _PLAIN:  # the common case, decided at once
            return [kinds.pop().__name__]
        _check_alike(value, f"{path}[]")
        items: Schema = []
        for item in value:
            items = merge(items, [schema_of(item, f"{path}[]")], path)
        return items
    return "null" if value is None else type(value).__name__


def _check_alike(items: Sequence[Any], path: str) -> None:
    """Name the items of a list that have a field, and those that do not. Raises SchemaConflict."""
    entries = {at: item for at, item in enumerate(items) if isinstance(item, dict)}
    every = set.intersection(*map(set, entries.values())) if entries else set()
    lone = min((name for item in entries.values() for name in item if name not in every), default=None)
    if lone is not None:
        names = {at: str(item.get("name", f"item {at}")) for at, item in entries.items()}
        having, lacking = ([names[at] for at in names if (lone in entries[at]) is has] for has in (True, False))
        raise SchemaConflict(
            f"{path}.{lone} is in some items only: {_few(having)} with it, {_few(lacking)} without;"
            " return the same fields in all of them, None if there is nothing to say"
        )


def merge(one: Schema, other: Schema, path: str = "annotations") -> Schema:
    """Return the schema that both fit. The order does not matter; None goes with any type, an empty list with any.

    Raises:
        SchemaConflict: a field is missing on one side, or the types differ.
    """
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, list) and isinstance(other, list):
        if not (one and other):
            return one or other
        return [merge(one[0], other[0], f"{path}[]")]
    if isinstance(one, dict) and isinstance(other, dict):
        if lone := sorted(one.keys() ^ other.keys()):
            raise SchemaConflict(f"{path}.{lone[0]} is in some samples only; return the same fields in every sample")
        return {name: merge(item, other[name], f"{path}.{name}") for name, item in one.items()}
    names = sorted(_spell(schema) for schema in (one, other))
    hint = "; return float(...) in every sample" if names == ["float", "int"] else ""
    raise SchemaConflict(f"{path} is {names[0]} in one place and {names[1]} in another{hint}")


def _spell(schema: Schema) -> str:
    return schema if isinstance(schema, str) else "a list" if isinstance(schema, list) else "an object"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)


_JsonSchema = dict[str, Any]
Fields = dict[str, _JsonSchema]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_NUMBER: _JsonSchema = {"type": "number"}
_TEXT: _JsonSchema = {"type": "string"}
_FRACTION: _JsonSchema = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT: _JsonSchema = {"type": "integer", "minimum": 0}
_POSITIVE: _JsonSchema = {"type": "integer", "minimum": 1}
_SHA256: _JsonSchema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _list(items: _JsonSchema, length: int | None = None, **more: Any) -> _JsonSchema:
    bounds = {} if length is None else {"minItems": length, "maxItems": length}
    return {"type": "array", "items": items, **bounds, **more}


def _matrix(rows: int, columns: int, description: str) -> _JsonSchema:
    return _list(_list(_NUMBER, columns), rows, description=description)


def _object(required: Fields, optional: Fields | None = None, **more: Any) -> _JsonSchema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


_CAMERA = _object(
    {
        "name": _TEXT,
        "type": {"enum": ["PERSP", "ORTHO"]},
        "width": _POSITIVE,
        "height": _POSITIVE,
        "K": _matrix(3, 3, "pixel = K (x/z, y/z, 1) for a point (x, y, z) in the camera frame; ORTHO: K (x, y, 1)"),
        "cam_to_world": _matrix(4, 4, "rigid: camera frame (x right, y down, z forward) to world (z up), metres"),
        "clip_start": _NUMBER,
        "clip_end": _NUMBER,
    },
    {"distortion": _list(_NUMBER, description="OpenCV's coefficients; none for an ideal lens")},
)

_BOX = _list(_NUMBER, 4, description="[x, y, width, height] of the projection, pixels")

_COUNTS: Fields = {
    "visible_pixels": _COUNT,
    "silhouette_pixels": {**_COUNT, "description": "never fewer than the visible ones"},
    "visible_fraction": {**_FRACTION, "description": "visible of silhouette pixels"},
}
_PLACE: Fields = {
    "pose": _matrix(4, 4, "rigid: object to camera frame, metres"),
    "matrix_world": _matrix(4, 4, "object to world, scale included, metres"),
    "dimensions": _list(_NUMBER, 3, description="of the oriented bounding box, metres"),
    "bbox": _BOX,
    "bbox_unclipped": _BOX,
    "box3d": _matrix(8, 3, "corners of the oriented bounding box, world, metres"),
    "truncation": {**_FRACTION, "description": "of the unclipped box, outside the image"},
}
_PART = _object({"name": _TEXT, "part_id": _POSITIVE, **_PLACE}, _COUNTS)

_OBJECT = _object(
    {
        "keypoints": _list(_NUMBER, description="[x, y, visibility] * K as COCO, pixels"),
        "keypoint_depths": _list(_NUMBER, description="K depths, metres"),
    },
    {
        "name": _TEXT,
        "category": _TEXT,
        "category_id": _COUNT,
        "segmentation_id": _COUNT,
        **_PLACE,
        "keypoint_names": _list(_TEXT),
        "num_keypoints": _COUNT,
        **_COUNTS,
        "parts": _list(_PART, description="of an object whose members were given by name"),
    },
)

ANNOTATIONS: _JsonSchema = {
    "$schema": _DRAFT,
    "title": "Annotations of a sample (its json member)",
    **_object(
        {
            "camera": _CAMERA,
            "image": _object({"width": _POSITIVE, "height": _POSITIVE}),
            "episode": _COUNT,
            "frame": {"type": "integer"},
            "seed": _COUNT,
            "objects": _list(_OBJECT),
        }
    ),
}
"""Further fields are the job's."""

_MEMBER = _object(
    {"description": _TEXT},
    {
        "dtype": {"enum": ["bool", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64"]},
        "shape": _list({"type": ["integer", "null"], "minimum": 0}, description="null where it varies"),
    },
    dependencies={"dtype": ["shape"], "shape": ["dtype"]},
)

_SHARD = _object(
    {
        "name": {"type": "string", "pattern": f"^{SHARD_FILE}$"},
        "split": _TEXT,
        "number": _COUNT,
        "samples": _COUNT,
        "bytes": _COUNT,
        "sha256": {**_SHA256, "description": "of the file"},
        "content_sha256": {**_SHA256, "description": "over decoded pixels and all other members"},
        "sample_digests": {
            "type": "string",
            "pattern": f"^([0-9a-f]{{{SAMPLE_DIGEST_DIGITS}}})*$",
            "description": f"first {SAMPLE_DIGEST_DIGITS} digits of the sha256 of each sample's tar record",
        },
    },
    additionalProperties=False,
)

MANIFEST: _JsonSchema = {
    "$schema": _DRAFT,
    "title": "A dataset's manifest (dataset.json)",
    **_object(
        {
            "format": {"const": FORMAT},
            "name": _TEXT,
            "plan": {"type": "object", "description": "every value that can change a byte"},
            "plan_digest": {**_SHA256, "description": "over the canonical JSON of plan: the dataset's identity"},
            "schema": _object(
                {"members": {"type": "object", "additionalProperties": _MEMBER}},
                {
                    "annotations": {"description": "fields and types, gathered from all samples"},
                    "categories": _list({"type": "object"}, description="as COCO's"),
                },
            ),
            "provenance": {"type": "object", "description": "what made it; changes no byte of a shard"},
            "samples": _COUNT,
            "bytes": _COUNT,
            "digest": {**_SHA256, "description": "over all shards' sha256"},
            "manifest_sha256": {**_SHA256, "description": "of this file with these 64 digits left out"},
            "shards": _list(_SHARD, description="by number"),
            "skipped": {
                "type": "object",
                "additionalProperties": _TEXT,
                "description": "keys of the samples that finished shards lack, and why",
            },
        },
        additionalProperties=False,
    ),
}


def published() -> dict[str, bytes]:
    """Return the schemas' files by name."""
    schemas = {"annotations.schema.json": ANNOTATIONS, "dataset.schema.json": MANIFEST}
    return {name: json.dumps(schema, indent=2).encode() + b"\n" for name, schema in schemas.items()}


def annotation_problem(annotations: Any) -> str:
    """Return where parsed annotations break their schema, in one line; empty where they do not."""
    return _problem(_validators()[0], annotations, "annotations")


def manifest_problem(manifest: Any) -> str:
    """Return where a parsed manifest breaks its schema, in one line; empty where it does not."""
    return _problem(_validators()[1], manifest, "dataset")


@functools.cache
def _validators() -> list[Callable[..., Any]]:
    return [fastjsonschema.compile(schema) for schema in (ANNOTATIONS, MANIFEST)]


def _problem(validate: Callable[..., Any], value: Any, name: str) -> str:
    try:
        validate(value, name_prefix=name)
    except fastjsonschema.JsonSchemaValueException as error:
        return str(error.message)
    return ""
