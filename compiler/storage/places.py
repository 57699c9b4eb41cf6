"""Where things are now that a manifest knows by name and digest: the job's file, its modules, its assets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blender_jobs.orders import JobSource
from compiler.errors import OtherPlan, UsageError
from compiler.planning.document import Made
from compiler.planning.jobs import builtin_jobs
from compiler.storage.sources import FOLDER, MOST_BYTES
from loaders.files import file_sha256, read_regular


@dataclass(frozen=True)
class Places:
    """Where the user says that things are, and what the user trusts; None: where they were.

    The manifest says neither: see `compiler.trust`.
    """

    job: Path | None = None
    """The job's file."""
    assets: Path | None = None
    """The folder in which the job's assets lie as they lay beside its file."""
    trust_source: bool = False
    """Whether code of the dataset may run, though it is not the user's own."""
    trust_blend: bool = False
    """Whether scripts and drivers in its ``.blend`` may run."""


def find_source(made: Made, folder: Path, places: Places) -> JobSource:
    """Return where a dataset's job is: given, built in, where it was, or its copy beside the shards.

    Its sources, wherever they are, have the digests of the manifest. Nothing was run.

    Raises:
        UsageError: it is nowhere.
        OtherPlan: the file that was given, or a module beside it, is another.
    """
    due, recorded = dict(made.origin.sources), made.origin.path
    class_name, base = made.plan.job.class_name, str(places.assets.absolute()) if places.assets else ""
    if places.job is not None:
        due = {places.job.name: due[recorded.name], **{name: due[name] for name in due if name != recorded.name}}
        if strangers := list(_strangers(places.job, due)):
            raise OtherPlan(
                f"{strangers[0]} is not what the dataset was made with: its sha256 is not the manifest's",
                f"give the job's file as it was, or the dataset's copy: --job {folder / FOLDER / recorded.name}",
            )
        return JobSource(str(places.job.absolute()), class_name, base, due)
    copy = folder / FOLDER / recorded.name
    was = str(recorded.parent) if recorded.is_absolute() and _is_there(recorded.parent) else ""
    here = [(builtin_jobs().get(recorded.stem), base), (recorded, base), (copy.absolute(), base or was)]
    for path, beside in here:
        if path is not None and path.is_absolute() and not list(_strangers(path, due)):
            return JobSource(str(path), class_name, beside, due)
    if _is_there(copy):
        raise OtherPlan(
            f"{next(_strangers(copy, due))} is not what the dataset was made with: its sha256 is not the manifest's",
            "compile-dataset verify tells what else is damaged; or say where the job's file is: --job path/to/job.py",
        )
    raise UsageError(
        f"the job's file is neither at {recorded}, as it was, nor at {copy}", "say where it is: --job path/to/job.py"
    )


def source_files(source: JobSource) -> dict[str, Path]:
    """Return the files of a job's code by name, its own file first."""
    path = Path(source.path)
    return {name: path if name == path.name else path.parent / name for name in source.due}


def _strangers(path: Path, due: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of a job's code that are not there as they must be."""
    for name, file in source_files(JobSource(str(path), due=dict(due))).items():
        try:
            content = read_regular(file, MOST_BYTES)
        except OSError:
            yield file
        else:
            if hashlib.sha256(content).hexdigest() != due[name]:
                yield file


def check_assets(made: Made, source: JobSource) -> None:
    """Hold the files that the job reads to their digests, as far as they are where they must be, before it runs.

    Raises:
        OtherPlan: one is another.
    """
    for name, sha256 in made.plan.assets.items():
        places = [source.base / name, Path(made.origin.assets[name])]
        found = [digest for place in places if (digest := _digest(place))]
        if found and sha256 not in found:
            raise OtherPlan(
                f"the plan is another now: assets.{name} was {sha256!r}, is {found[0]!r}",
                "restore the file, or name the folder that stood beside the job's file with --assets",
            )


def _digest(path: Path) -> str:
    """Return a file's sha256; empty where there is none that can be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


def placed_fields(made: Made, source: JobSource) -> dict[str, Any]:
    """Return the plan's job fields; files and folders where they are now: beside the job, or where they were.

    Raises:
        UsageError: one is in neither place.
    """
    fields: dict[str, Any] = dict(made.plan.job.fields)
    for name, was in made.origin.path_fields.items():
        fields[name] = _place(fields[name], was, source, f"field {name}")
    return fields


def placed_blend(made: Made, source: JobSource) -> str:
    """Return where the plan's ``.blend`` is now, empty where it has none. Raises as `placed_fields`."""
    name = made.plan.job.blend
    return _place(name, made.origin.assets.get(name, name), source, "blend") if name else ""


def _place(name: str, was: str, source: JobSource, what: str) -> str:
    here, there = source.base / name, Path(was)
    if not _is_there(here) and not _is_there(there):
        raise UsageError(
            f"{what}: there is no file or folder {there}, where it was, nor {here}",
            "name the folder that stood beside the job's file with --assets, or the job's file with --job",
        )
    return str(here if _is_there(here) else there)


def _is_there(path: Path) -> bool:
    with suppress(OSError):  # a manifest may hold a name that no file can have
        return path.exists()
    return False
