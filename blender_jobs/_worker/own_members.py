"""What a job's class holds beside what `Job` knows: the user's own, or a slip of the pen that would do nothing."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blender_jobs.job import Job, JobError
from blender_jobs.orders import Asset

_CLOSE = 0.77
"""Of difflib's ratio: `category` and `categories` have 0.78, `stop` and `step` 0.75."""

KNOWN = tuple(name for name in vars(Job) if not name.startswith("_"))
"""The hooks and attributes of a job."""


def check_names(job: type[Job], sources: Iterable[Asset]) -> None:
    """Hold the members of the user's classes against what `Job` knows.

    A name like a known one is the user's own if the job's code reads it: `self.steps` somewhere is no misspelt `step`.

    Args:
        job: the class that is used.
        sources: the job's file, and the modules beside it.

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
            " setup(), and compute what the fields give in __post_init__()"
        ) from None


def notes(job: type[Job]) -> list[str]:
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
