"""The job's own files, copied into the dataset's directory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from blender_jobs.orders import Asset
from compiler.errors import JobBroken, UsageError, disk_error
from compiler.planning.plan import Plan
from loaders.files import read_regular, write_atomically

FOLDER = "source"
"""Beside the shards: the job's file, and the modules beside it that it imports."""


MOST_BYTES = 16 << 20
"""Of one source file: what is larger is no code."""


def copy_sources(plan: Plan, folder: Path) -> None:
    """Write the job's sources under ``source/``: what the digest in the plan stands for.

    Nothing else stays there, unless the job runs from there: beside it may be what it reads.

    Raises:
        UsageError: a file cannot be read; nothing is touched.
        JobBroken: a file was changed since the plan was drawn up; nothing is touched.
        Incomplete: they cannot be written.
    """
    contents = {source.name: _read(source) for source in plan.job.sources}  # perhaps they are the copies themselves
    root = folder / FOLDER
    try:
        if root.is_symlink():
            root.unlink()  # what it points to is not ours
        root.mkdir(exist_ok=True)
        for name, content in contents.items():
            copy = root / name
            if links := [folder for folder in copy.parents if folder.is_relative_to(root) and folder.is_symlink()]:
                links[-1].unlink()
            if not _has_digest(copy, hashlib.sha256(content).hexdigest()):
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(copy, content)
        if not any(Path(source.path).resolve().is_relative_to(root.resolve()) for source in plan.job.sources):
            _remove_strangers(root, {root / name for name in contents})
    except OSError as error:
        raise disk_error(error, folder) from None


def _read(source: Asset) -> bytes:
    try:
        content = read_regular(source.path, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {source.path}: {error.strerror}", "restore it, and start again") from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise JobBroken(f"{source.path} was changed while its plan was drawn up", "start again")
    return content


def _remove_strangers(folder: Path, known: Collection[Path]) -> None:
    """Remove what is no copy: files of an earlier plan, and Python's caches."""
    for path in list(folder.iterdir()):
        if path.is_symlink() or not path.is_dir():
            if path not in known:
                path.unlink()
        elif any(copy.is_relative_to(path) for copy in known):
            _remove_strangers(path, known)
        else:
            shutil.rmtree(path)


def path_fields(plan: Plan) -> Mapping[str, str]:
    """Return the job's fields that are paths, with the places that they have here."""
    job = plan.job
    return {name: value for name, value in job.fields.items() if value != job.portable_fields[name]}


def _has_digest(path: Path, sha256: str | None) -> bool:
    try:
        return hashlib.sha256(read_regular(path, MOST_BYTES)).hexdigest() == sha256
    except OSError:
        return False
