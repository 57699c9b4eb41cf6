"""What a job's class declares: its fields, with values of their types, and members that overwrite nothing."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from blender_jobs.job import Job, JobError
from blender_jobs.orders import Asset


def resolve_fields(job: type[Job], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every field of `job` with its value, from `settings` or its default, as its declared type has it.

    Raises:
        JobError: an unknown field, or a value or default that does not fit the declared type.
    """
    declared = {entry.name: entry for entry in dataclasses.fields(job) if entry.init}  # type: ignore[arg-type]
    for name in settings:
        if name not in declared:
            raise JobError(_unknown_field(job, name, list(declared)))
    try:
        hints = get_type_hints(job)
    except Exception as error:  # the user's annotations: anything may fail in them
        raise JobError(f"the field types of {job.__name__} cannot be resolved: {error}") from None
    return {
        name: _parse_field(job, name, settings[name], hints[name])
        if name in settings
        else _parse_default(job, entry, hints[name])
        for name, entry in declared.items()
    }


def json_value(value: Any) -> Any:
    """Return a field's value as JSON that `resolve_fields` reads back to an equal value.

    Raises:
        JobError: a type that no option can have.
    """
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, range):
        return f"{value.start}:{value.stop}:{value.step}"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise JobError(f"{value!r} is not a value that a job's field can have; use numbers, text, ranges or tuples")


def _unknown_field(job: type[Job], name: str, known: list[str]) -> str:
    if kind := _could_be_declared(job, name):
        value = getattr(job, name)
        value = f"Path({str(value)!r})" if kind == "Path" else repr(value)
        return f"{job.__name__}.{name} has no type, so it is no field; write `{name}: {kind} = {value}` in the class"
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known) or 'none'}"
    return f"{job.__name__} has no field {name!r}{hint}"


def _could_be_declared(job: type[Job], name: str) -> str:
    """Return the type with which a class attribute would be a field; empty where it would be none, or has one."""
    declared = [vars(owner).get("__annotations__", {}) for owner in job.__mro__ if owner is not Job]
    if name.startswith("_") or name == "reuse_scene" or any(name in annotations for annotations in declared):
        return ""
    value = getattr(job, name, None)
    if isinstance(value, tuple):
        entry = _kind_of(value[0]) if value else ""
        return f"tuple[{entry}, ...]" if entry and all(_kind_of(other) == entry for other in value) else ""
    return _kind_of(value)


def _kind_of(value: object) -> str:
    return next((kind.__name__ for kind in _SCALARS if isinstance(value, kind)), "")


def _parse_default(job: type[Job], entry: dataclasses.Field[Any], kind: Any) -> Any:
    """Return the default as if it had been set: a 1 declared float is 1.0, in the plan too."""
    where = f"{job.__name__}.{entry.name}"
    value = entry.default
    if entry.default_factory is not dataclasses.MISSING:
        try:
            value = entry.default_factory()
        except Exception as error:  # the user's function
            raise JobError(f"{where}: its default_factory fails: {type(error).__name__}: {error}") from None
    if value is dataclasses.MISSING:
        raise JobError(f"{where} has no default; set it with --set {entry.name}=VALUE")
    try:
        return _parse(json_value(value), kind)
    except (ValueError, JobError) as error:
        raise JobError(f"{where}: its default {value!r} is not {_spell(kind)}; {error}") from None


def _parse_field(job: type[Job], name: str, value: Any, kind: Any) -> Any:
    try:
        return _parse(value, kind)
    except ValueError as error:
        raise JobError(f"--set {name}: {str(value)!r} is not {_spell(kind)}; {error} ({job.__name__}.{name})") from None


def _spell(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind).replace("typing.", "")


def _parse(value: Any, kind: Any) -> Any:
    """Return `value` as `kind`.

    Raises:
        ValueError: it does not fit; the message says what would.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse_union(value, arguments)
    if origin is Literal:
        return _parse_choice(value, {str(json_value(choice)): choice for choice in arguments})
    if origin is Sequence:  # as `Job.frames` is declared
        return _parse_union(value, (range, types.GenericAlias(tuple, (*arguments, ...))))
    if origin in (tuple, list):
        return _parse_sequence(value, origin, arguments)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _parse_choice(value, {member.name: member for member in kind})
    if kind in _SCALARS:
        return _SCALARS[kind](value)
    raise ValueError(f"fields of type {_spell(kind)} cannot be set")


def _parse_union(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and (value is None or str(value).lower() == "none"):
        return None
    problems = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _parse(value, kind)
            except ValueError as error:
                problems.append(str(error))
    raise ValueError(" or ".join(problems))


def _parse_choice(value: Any, choices: dict[str, Any]) -> Any:
    if str(value) not in choices:
        raise ValueError(f"choose one of {', '.join(choices)}")
    return choices[str(value)]


def _parse_sequence(value: Any, container: type, kinds: tuple[Any, ...]) -> Any:
    items = value
    if isinstance(value, str):
        items = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(items, (list, tuple)):
        raise ValueError("give values separated by commas")
    if container is list or (len(kinds) == 2 and kinds[1] is Ellipsis):
        return container(_parse(item, kinds[0]) for item in items)
    if len(items) != len(kinds):
        raise ValueError(f"give {len(kinds)} values separated by commas")
    return tuple(_parse(item, kind) for item, kind in zip(items, kinds, strict=True))


def _parse_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError("give true or false")
    return words[str(value).lower()]


def _parse_int(value: Any) -> int:
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
    elif type(value) is int:
        return value
    raise ValueError("give a whole number")


def _parse_float(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("give a finite number")
    return number


def _parse_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("give text")
    return value


def _parse_range(value: Any) -> range:
    if isinstance(value, str):
        with suppress(ValueError):
            parts = [int(part) for part in value.split(":")]
            if 1 < len(parts) <= 3:
                return range(*parts)
    raise ValueError("give start:stop or start:stop:step")


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: _parse_str,
    range: _parse_range,
    Path: lambda value: Path(_parse_str(value)),
}

_CLOSE = 0.77
"""Of difflib's ratio: `category` and `categories` have 0.78, `stop` and `step` 0.75."""

KNOWN = tuple(name for name in vars(Job) if not name.startswith("_"))
"""The hooks and attributes of a job."""


def check_member_names(job: type[Job], sources: Iterable[Asset]) -> None:
    """Hold the members of the user's classes against what `Job` knows.

    A name like a known one is the user's own if the job's code reads it: `self.steps` somewhere is no misspelt `step`.

    Args:
        job: the class that is used.
        sources: the job's file, and the modules next to it.

    Raises:
        JobError: a member is called nearly as one that `Job` knows, and nothing reads it.
    """
    trees = [ast.parse(Path(source.path).read_bytes()) for source in sources]
    read = {name for tree in trees for name in _read(tree)}
    for owner in own_classes(job):
        for name in [*vars(owner), *vars(owner).get("__annotations__", {})]:
            if name.startswith("_") or name in KNOWN or name in read:
                continue
            if close := difflib.get_close_matches(name, KNOWN, 1, _CLOSE):
                raise JobError(
                    f"{owner.__name__}.{name} is not known to Job; did you mean {close[0]!r}?"
                    " Nothing here reads it: remove it, or call it something else"
                )


def check_init(job: type[Job], fields: Mapping[str, Any]) -> None:
    """Hold the class's `__init__`, which `dataclass` writes from the fields, against these.

    Raises:
        JobError: it is the user's, or there is none, and it does not take the fields.
    """
    try:
        inspect.signature(job).bind(**fields)
    except (TypeError, ValueError):
        raise JobError(
            f"{job.__name__} has no __init__ that takes its fields; leave __init__ to @dataclass, build the scene in"
            " setup(), and compute what follows from the fields in __post_init__()"
        ) from None


def member_notes(job: type[Job]) -> list[str]:
    """Return what is missing, and need not be a mistake."""
    if job.annotate is Job.annotate:
        return [f"{job.__name__} has no annotate(): its samples have no labels"]
    return []


def own_classes(job: type[Job]) -> Iterator[type]:
    """Yield the class and its bases as far as they are the user's."""
    for owner in job.__mro__:
        if owner is not Job and owner is not object:
            yield owner


def _read(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a source reads of a job: `self.name`, or the bare name in the body of a class."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    owners = {"self", "cls", "job", *(node.name for node in classes)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _bare(node.value) in owners:
            yield node.attr
    for statement in [statement for node in classes for statement in node.body]:
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            yield from map(_bare, ast.walk(statement))


def _bare(node: ast.AST) -> str:
    """Return the bare name that a node reads; empty where it is none."""
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else ""
