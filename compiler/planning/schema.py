"""The annotations' schema, gathered from the samples: the same fields with the same types in every one.

A schema is JSON itself: ``"int"``, ``"float"``, ``"str"``, ``"bool"``, ``"null"``; a list's is a list with its items'
schema, or empty where nothing is known yet; an object's is an object. Loaders of columnar tools infer types from the
first samples, so a number that is 1 here and 1.5 there would break them far from its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        if len(kinds := set(map(type, value))) == 1 and kinds <= _PLAIN:  # most of what annotations hold, told at once
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
            " give all the same fields, None where there is nothing to say"
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
