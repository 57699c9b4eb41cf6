"""Open a user's ``.blend``: nothing in it is run unless it is trusted, and what it lacks is named."""

from __future__ import annotations

import re
from pathlib import Path

import bpy

from blender_jobs.job import JobError

_HEADER = re.compile(rb"BLENDER(?:[-_][vV]|\d\d-\d\d[vV]0)(\d)(\d\d)")
"""How an uncompressed file begins, before Blender 5 and from there on: with the version that saved it."""


def open_blend(path: Path, trusted: bool) -> list[str]:
    """Replace all that is in Blender by the file's content; return what the user should know about it.

    Args:
        path: the ``.blend`` file.
        trusted: whether its scripts and the Python expressions of its drivers may run.

    Raises:
        JobError: it cannot be read, or a library or a texture that it uses is missing.
    """
    _check_version(path)
    try:
        bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=trusted)
    except RuntimeError as error:
        raise JobError(f"{path}: Blender cannot open it: {' '.join(str(error).split())}") from None
    if missing := [file for file in external_files() if not file.is_file()] + _missing_data(path):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise JobError(
            f"{path} uses {missing[0]}, which is missing{more};"
            " put it there, or open the file in Blender and use File > External Data > Find Missing Files"
        )
    return _notes(path)


def external_files() -> list[Path]:
    """Return the files beside the ``.blend`` that what is loaded uses (libraries, images, caches, fonts), sorted.

    Without those that come with Blender: brushes of whatever Blender saved the file, for one.
    """
    paths = {Path(file) for file in bpy.utils.blend_paths(absolute=True, packed=False, local=False)}
    return sorted(path for path in paths if "datafiles/assets" not in path.as_posix())


def _missing_data(path: Path) -> list[Path]:
    """Return what is linked from a library that no longer has it, as ``library/name``."""
    collections = (getattr(bpy.data, name) for name in ("objects", "meshes", "materials", "collections", "node_groups"))
    missing = [entry for collection in collections for entry in collection if entry.library and entry.is_missing]
    return [Path(bpy.path.abspath(entry.library.filepath)) / entry.name for entry in missing]


def _check_version(path: Path) -> None:
    """Refuse a file of a newer Blender that this one may not survive opening; what is compressed does not tell.

    Blender 4.5 was made to open the files of 5; before, each new major version broke older ones.
    """
    with path.open("rb") as file:
        saved = _HEADER.match(file.read(20))
    running = bpy.app.version
    if saved is None or (running[:2] >= (4, 5) and int(saved[1]) <= 5):
        return
    if int(saved[1]) > running[0]:
        newer = f"{int(saved[1])}.{int(saved[2])}"
        raise JobError(
            f"{path} was saved by Blender {newer}, whose files {bpy.app.version_string} cannot open;"
            " render with a newer Blender, or save the file from an older one"
        )


def _notes(path: Path) -> list[str]:
    notes = []
    if bpy.app.autoexec_fail:
        what = bpy.app.autoexec_fail_message or "a script"
        notes.append(f"{path.name} holds Python that was not run ({what}); --trust-blend runs it")
    saved, running = tuple(bpy.data.version), bpy.app.version
    if saved[:2] > running[:2]:
        newer = f"{saved[0]}.{saved[1]}"
        notes.append(f"{path.name} was saved by Blender {newer}: {bpy.app.version_string} may lose some of it")
    return notes
