"""The files that a dataset is made of: the job's own, copied into its directory, and where all of them are now."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blender_jobs.orders import Asset, JobSource
from compiler.errors import JobBroken, OtherPlan, UsageError, disk_error
from compiler.planning.document import Made
from compiler.planning.jobs import builtin_jobs
from compiler.planning.plan import Plan
from compiler.storage.published import Published
from loaders.files import file_sha256, read_regular, write_atomically

FOLDER = "source"
"""The folder next to the shards: the job's file, and the modules from its folder that it imports."""


MOST_BYTES = 16 << 20
"""Of one source file: what is larger is no code."""


def copy_sources(plan: Plan, folder: Path) -> None:
    """Write the job's sources under ``source/``: what the digest in the plan covers.

    All else there is removed, unless the job runs from there: it may read files next to its own.

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
        raise UsageError(f"cannot read {source.path}: {error.strerror}", "restore it, then start again") from None
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


def find_source(made: Made, published: Published) -> JobSource:
    """Return where a dataset's job is: given, built in, where it was, or its copy in the dataset.

    Its sources, wherever they are, have the digests of the manifest. Nothing was run.

    Raises:
        UsageError: it is nowhere.
        OtherPlan: the file that was given, or a module of it, differs.
    """
    folder, places = published.folder, published.places
    due, recorded = dict(made.origin.sources), made.origin.path
    class_name, base = made.plan.job.class_name, str(places.assets.absolute()) if places.assets else ""
    if places.job is not None:
        due = {places.job.name: due[recorded.name], **{name: due[name] for name in due if name != recorded.name}}
        if strangers := list(_strangers(places.job, due)):
            raise OtherPlan(
                f"{strangers[0]} is not what the dataset was made with: its sha256 is not the manifest's",
                f"name the job's file as it was, or the dataset's copy: --job {folder / FOLDER / recorded.name}",
            )
        return JobSource(str(places.job.absolute()), class_name, base, due)
    copy = folder / FOLDER / recorded.name
    was = str(recorded.parent) if recorded.is_absolute() and _is_there(recorded.parent) else ""
    here = [(builtin_jobs().get(recorded.stem), base), (recorded, base), (copy.absolute(), base or was)]
    for path, assets in here:
        if path is not None and path.is_absolute() and not list(_strangers(path, due)):
            return JobSource(str(path), class_name, assets, due)
    if _is_there(copy):
        raise OtherPlan(
            f"{next(_strangers(copy, due))} is not what the dataset was made with: its sha256 is not the manifest's",
            "compile-dataset verify says what else is damaged; or say where the job's file is: --job path/to/job.py",
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
    """Check the digests of the files that the job reads, of those that are in their places, before it runs.

    Raises:
        OtherPlan: one differs.
    """
    for name, sha256 in made.plan.assets.items():
        places = [source.base / name, Path(made.origin.assets[name])]
        found = [digest for place in places if (digest := _digest_of(place))]
        if found and sha256 not in found:
            raise OtherPlan(
                f"the plan has changed: assets.{name} was {sha256!r}, is {found[0]!r}",
                "restore the file, or name the folder that holds the assets with --assets",
            )


def _digest_of(path: Path) -> str:
    """Return a file's sha256; empty where there is none that can be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


def placed_fields(made: Made, source: JobSource) -> dict[str, Any]:
    """Return the plan's job fields; files and folders where they are now: next to the job, or where they were.

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
            f"{what}: there is no file or folder at {there}, where it was, or at {here}",
            "name the folder that holds the assets with --assets, or the job's file with --job",
        )
    return str(here if _is_there(here) else there)


def _is_there(path: Path) -> bool:
    with suppress(OSError):  # a manifest may hold a name that no file can have
        return path.exists()
    return False
