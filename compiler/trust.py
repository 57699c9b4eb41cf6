"""Whose code a command would run: your own, or that of the dataset's maker.

Rendering again runs the dataset's job, which is Python, with all your rights. A manifest says where the job is and what
its digests are; anyone can write a manifest, so nothing in it grants anything. Your own code is

- a job's file that you name, on the command line of ``build`` or with ``--job``;
- a built-in job of this installation;
- code that you have run with ``build`` before. Like known hosts: its digest names an empty file in your
  state folder, where nothing in a dataset can write.

All other code runs only if you say so. The same holds for scripts in a ``.blend``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blender_jobs.orders import JobSource
from compiler.errors import UsageError
from compiler.planning.document import Made
from compiler.planning.jobs import builtin_jobs
from compiler.planning.plan import Plan
from compiler.storage.published import Places, Published
from compiler.storage.sources import check_assets, find_source, source_files
from loaders.format import canonical_json
from loaders.manifest import Manifest


@dataclass(frozen=True)
class Code:
    """One file of a stranger's code."""

    path: Path
    sha256: str
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"{self.path}  {self.size} bytes  sha256 {self.sha256}"


def find_trusted(published: Published) -> JobSource:
    """Return where the manifest's job is. It may run; its files and assets have the digests of the manifest.

    Raises:
        UsageError: it is nowhere, it is a stranger's and not trusted, or the manifest does not say what it should.
        OtherPlan: its file, a module of it or an asset differs.
    """
    made = read_made(published.manifest)
    source, code = _look_up(made, published)
    if code:
        raise UsageError(
            "rendering this dataset again runs its code, which is not yours: "
            f"{code[0].path}{f' and {len(code) - 1} more' if len(code) > 1 else ''}",
            "read it, then allow it with --trust-source; or name your own copy with --job",
            [str(file) for file in code],
        )
    if made.plan.job.trust_blend and not _may_run_scripts(made, published.places):
        raise UsageError(
            f"the dataset was rendered with the scripts and drivers in {made.plan.job.blend} running",
            "allow them with --trust-blend",
        )
    check_assets(made, source)
    return source


def look_up(published: Published) -> tuple[JobSource, list[Code]]:
    """Return where the manifest's job is, and which files of it may not run, as they are a stranger's and not trusted.

    Raises as `find_trusted`, but where the job is not trusted.
    """
    return _look_up(read_made(published.manifest), published)


def _look_up(made: Made, published: Published) -> tuple[JobSource, list[Code]]:
    source = find_source(made, published)
    places = published.places
    own = places.job is not None or Path(source.path) in builtin_jobs().values()
    if own or places.trust_source or _knows("source", made.plan.job.source_sha256):
        return source, []
    files = source_files(source)
    return source, [Code(path, source.due[name], path.stat().st_size) for name, path in files.items()]


def read_made(manifest: Manifest) -> Made:
    """Return how a manifest says that its dataset was made.

    Raises:
        UsageError: it does not say what it should.
    """
    try:
        return Made.parse(manifest)
    except ValueError as error:
        raise UsageError(f"the manifest's plan cannot be read: {error}") from None


def remember(plan: Plan) -> None:
    """Remember what the user has chosen to run with ``build``: it is the user's own from now on."""
    if Path(plan.source.path) not in builtin_jobs().values():
        _remember("source", plan.job.source_sha256)
    if plan.job.trust_blend:
        _remember("blend", _scripts_sha256({asset.name: asset.sha256 for asset in plan.job.assets}))


def _may_run_scripts(made: Made, places: Places) -> bool:
    return places.trust_blend or _knows("blend", _scripts_sha256(made.plan.assets))


def _scripts_sha256(assets: Mapping[str, str]) -> str:
    """Return a digest over the ``.blend`` files among a plan's assets: what may hold scripts."""
    scripts = {name: sha256 for name, sha256 in assets.items() if name.endswith(".blend")}
    return hashlib.sha256(canonical_json(scripts)).hexdigest()


_Kind = Literal["source", "blend"]


def _remember(kind: _Kind, digest: str) -> None:
    """Remember that the user has chosen to run this. Where nothing can be written, nothing is remembered."""
    folder = _known_folder()
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / f"{kind}-{digest}").touch(mode=0o600)


def _knows(kind: _Kind, digest: str) -> bool:
    """Return whether the user has run this."""
    with suppress(OSError, ValueError):  # a digest of a stranger's manifest may be any text
        return len(digest) == 64 and digest.isalnum() and (_known_folder() / f"{kind}-{digest}").is_file()
    return False


def _known_folder() -> Path:
    """Return where programs keep what should outlast a restart."""
    local = "LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME"
    given = os.environ.get(local, "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return base / "blendshard" / "run-before"
