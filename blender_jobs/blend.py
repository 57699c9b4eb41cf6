"""Open a user's ``.blend``: nothing in it is run unless it is trusted, and what it lacks is named."""

from __future__ import annotations

from pathlib import Path

import bpy

from blender_jobs.job import JobError


def open_blend(path: Path, trusted: bool) -> list[str]:
    """Replace all that is in Blender by the file's content; return what the user should know about it.

    Args:
        path: the ``.blend`` file.
        trusted: whether its scripts and the Python expressions of its drivers may run.

    Raises:
        JobError: it cannot be read, or a library or a texture that it uses is missing.
    """
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


def _notes(path: Path) -> list[str]:
    notes = []
    if bpy.app.autoexec_fail:
        what = bpy.app.autoexec_fail_message or "a script"
        notes.append(f"{path.name} holds Python that was not run ({what}); --trust-blend runs it")
    saved, running = tuple(bpy.data.version), bpy.app.version
    if saved[:2] > running[:2]:
        newer = ".".join(map(str, saved))
        notes.append(f"{path.name} was saved by Blender {newer}: {bpy.app.version_string} may lose some of it")
    return notes
