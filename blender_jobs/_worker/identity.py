"""Which Blender this is."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

import numpy as np

from blender_jobs._worker.loading import code_sha256
from blender_jobs.orders import Hello

_CHUNK = 1 << 20


def hello() -> Hello:
    """Import Blender and say which one it is, or why there is none."""
    if problem := _problem():
        return Hello("", "", "", platform.python_version(), np.__version__, "", problem=problem)
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)  # add-ons, Cycles among them, come with it
    return Hello(
        version=bpy.app.version_string,
        build_hash=bpy.app.build_hash.decode(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        code_sha256=code_sha256(),
        build=_build(),
    )


def _problem() -> str:
    if sys.flags.hash_randomization:
        return "PYTHONHASHSEED=0 does not reach its Python, which would order sets anew in each process"
    try:
        import bpy  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def _build() -> str:
    """Return what tells builds of one version apart: kind, branch and time, or the executable's digest.

    Distributions build from a tarball: such a Blender knows neither its commit nor when it was built.
    """
    import bpy

    app = bpy.app
    kind = "executable" if app.binary_path else "wheel"
    made = [entry.decode(errors="replace") for entry in (app.build_branch, app.build_date, app.build_time)]
    if "unknown" in app.build_hash.decode().lower() or any("unknown" in entry.lower() for entry in made):
        made = [f"sha256:{_sha256(Path(app.binary_path or bpy.__file__))}"]
    return " ".join([kind, *made])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
