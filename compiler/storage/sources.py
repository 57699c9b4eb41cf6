"""The job's own files: copied into the dataset's directory, and found again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blender_jobs.orders import Asset, JobSource
from compiler.errors import JobBroken, UsageError, disk_error
from compiler.planning.plan import Plan
from compiler.storage.shards import write_atomically
from loaders.manifest import Manifest

FOLDER = "source"
"""Beside the shards: the job's file, and the modules beside it that it imports."""


@dataclass(frozen=True)
class Places:
    """Where things are now that the manifest knows by name and digest; None: where they were."""

    job: Path | None = None
    """The job's file."""
    assets: Path | None = None
    """The folder in which the job's assets lie as they lay beside its file."""


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
            if not _has_digest(copy, hashlib.sha256(content).hexdigest()):
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(copy, content)
        if not any(Path(source.path).resolve().is_relative_to(root.resolve()) for source in plan.job.sources):
            _remove_strangers(root, {root / name for name in contents})
    except OSError as error:
        raise disk_error(error, folder) from None


def _read(source: Asset) -> bytes:
    try:
        content = Path(source.path).read_bytes()
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


def find_source(manifest: Manifest, folder: Path, places: Places) -> JobSource:
    """Return where the manifest's job is: given, where it was if it is unchanged, or its copy beside the shards.

    Raises:
        UsageError: nowhere.
    """
    job = manifest.provenance["job"]
    recorded, class_name = Path(job["path"]), manifest.plan["job"]["class"]
    copy = folder / FOLDER / recorded.name
    base = str(places.assets.absolute()) if places.assets else ""
    if places.job is not None:
        return JobSource(str(places.job.absolute()), class_name, base)
    if _has_digest(recorded, job["sources"].get(recorded.name)):
        return JobSource(str(recorded), class_name, base)
    if copy.is_file():
        was = str(recorded.parent) if recorded.parent.is_dir() else ""
        return JobSource(str(copy.absolute()), class_name, base or was)
    raise UsageError(
        f"the job's file is neither at {recorded}, as it was, nor at {copy}", "say where it is: --job path/to/job.py"
    )


def placed_fields(manifest: Manifest, source: JobSource) -> dict[str, Any]:
    """Return the plan's job fields; files and folders where they are now: beside the job, or where they were.

    Raises:
        UsageError: one is in neither place.
    """
    fields: dict[str, Any] = dict(manifest.plan["job"]["fields"])
    for name, was in manifest.provenance["job"]["path_fields"].items():
        fields[name] = _place(fields[name], was, source, f"field {name}")
    return fields


def placed_blend(manifest: Manifest, source: JobSource) -> str:
    """Return where the plan's ``.blend`` is now, empty where it has none. Raises as `placed_fields`."""
    name = manifest.plan["job"]["blend"]
    return _place(name, manifest.provenance["assets"][name]["path"], source, "blend") if name else ""


def path_fields(plan: Plan) -> Mapping[str, str]:
    """Return the job's fields that are paths, with the places that they have here."""
    job = plan.job
    return {name: value for name, value in job.fields.items() if value != job.portable_fields[name]}


def _place(name: str, was: str, source: JobSource, what: str) -> str:
    here, there = source.base / name, Path(was)
    if not here.exists() and not there.exists():
        raise UsageError(
            f"{what}: there is no file or folder {there}, where it was, nor {here}",
            "name the folder that stood beside the job's file with --assets, or the job's file with --job",
        )
    return str(here if here.exists() else there)


def _has_digest(path: Path, sha256: str | None) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
