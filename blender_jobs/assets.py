"""The files that a job opens: HDRIs, textures, meshes. Each goes through `use`, so that the plan can name them all.

No bpy: the compiler digests assets with `digest` before anything renders. A path is distinguished from another by its
spelling, made absolute and free of ``..``; links are not followed, so that a folder lists what it holds.

State: `_state`, which job's folder relative paths start from, what the plan knows, and what was opened since.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from blender_jobs.job import JobError
from blender_jobs.orders import Asset

if TYPE_CHECKING:
    import numpy as np

__all__ = ["choose", "listing", "use"]

AnyPath = str | os.PathLike[str]

_IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
_IMAGES = [
    (b"\x89PNG\r\n\x1a\n", b"IEND"),
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"RIFF", b""),
    *((start, b"") for start in (b"BM", b"GIF8", b"II*\0", b"MM\0*", b"v/1\x01", b"#?", b"8BPS", b"DDS ", b"\x01\xda")),
    *((start, b"") for start in (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"SDPX", b"XPDS", b"\x80\x2a\x5f\xd7")),
]
"""How image files begin, and what whole ones end with; names often lie about the kind."""
_TAIL = 1 << 16
"""Bytes: some programs append things of their own."""


@dataclass
class _State:
    folder: Path = field(default_factory=Path.cwd)
    known: Mapping[str, str] | None = None
    used: set[Path] = field(default_factory=set)
    digests: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """sha256 by path, size and time of change: an instance that plays many episodes reads each file once."""
    damage: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """What is wrong with images, by the same."""


_state = _State()


def begin(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Start an episode: nothing is used yet.

    Args:
        folder: the job file's; relative paths start here.
        known: sha256 by absolute path (`Asset.path`) of all files that may be opened; None: any file may.
    """
    _state.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
    _state.known = known
    _state.used = set()


def use(path: AnyPath) -> Path:
    """Return the absolute path of a file that the job is about to open, and remember it.

    Raises:
        JobError: there is no such file, it is not in the plan, or its content differs from the plan's.
    """
    file = _absolute(path)
    if not file.is_file():
        wrong = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise JobError(f"{file} {wrong} (relative paths start at the job's folder, {_state.folder})")
    if _state.known is not None:
        if str(file) not in _state.known:
            raise JobError(
                f"{file} is not among the plan's assets:"
                " name it, or its folder, in a Path field of the job or in `assets`"
            )
        if _sha256(file) != _state.known[str(file)]:
            raise JobError(f"{file} has changed since the plan was made: restore it, or build into a new directory")
    _state.used.add(file)
    return file


def used() -> list[Path]:
    """Return the absolute paths of all files used since `begin`, sorted."""
    return sorted(_state.used)


def listing(folder: AnyPath, patterns: str | Sequence[str] = "*") -> list[Path]:
    """Return the absolute paths of the files in `folder` that match any of `patterns`, sorted.

    Args:
        folder: where to look; relative to the job's folder.
        patterns: as of `pathlib.Path.glob`: ``*.hdr``, ``["*.hdr", "*.exr"]``, ``**/*.png`` for subfolders as
            well. Hidden files (``.name``) never match.

    Raises:
        JobError: there is no such folder, no such file in it, or the folder has changed since the plan was made.
    """
    place = _absolute(folder)
    if not place.is_dir():
        raise JobError(f"{place} is not a folder (relative paths start at the job's folder, {_state.folder})")
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    matching = {file for pattern in wanted for file in place.glob(pattern) if _is_visible_file(file, place)}
    found = sorted(matching, key=lambda file: file.relative_to(place).as_posix())  # paths sort otherwise on Windows
    if not found:
        raise JobError(f"{place} has no file that matches {' or '.join(wanted)}")
    if _state.known is not None:
        _check_listing(place, found, _state.known)
    return found


def choose(rng: np.random.Generator, folder: AnyPath, patterns: str | Sequence[str] = "*") -> Path:
    """Return one file of `listing`, all equally likely; one draw."""
    files = listing(folder, patterns)
    return files[int(rng.integers(len(files)))]


def digest(paths: Iterable[AnyPath], blend: AnyPath = "") -> list[Asset]:
    """Return all files that `paths` name, folders with all that is below them, sorted by name.

    Args:
        paths: files and folders.
        blend: the job's ``.blend``: what lies below its folder is named from there.

    Raises:
        JobError: a path does not exist.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        given = _absolute(path)
        if not given.exists():
            raise JobError(f"{given} does not exist (relative paths start at the job's folder, {_state.folder})")
        for file in _files(given):
            files.setdefault(file, _base(file, given, blend))
    assets = [Asset(name, str(file), file.stat().st_size, _sha256(file)) for file, name in _names(files).items()]
    return sorted(assets, key=lambda asset: asset.name)


def names(files: Iterable[AnyPath], blend: AnyPath = "") -> list[str]:
    """Return what the plan calls files that are perhaps not there, sorted; as in `digest`."""
    places = [_absolute(file) for file in files]
    return sorted(_names({file: _base(file, file, blend) for file in places}).values())


def _base(file: Path, given: Path, blend: AnyPath) -> Path:
    """Return where a file's name in the plan starts; `given` is the file, or the folder that it was found through."""
    if file.is_relative_to(_state.folder):
        return _state.folder
    home = _absolute(blend).parent if blend else None
    if home is not None and file.is_relative_to(home):
        return home.parent
    return given.parent if given.is_dir() else given.parent.parent


def _names(bases: Mapping[Path, Path]) -> dict[Path, str]:
    """Return a name for each file: its path from its base, from further up where two would have the same."""
    found: dict[Path, str] = {}
    ahead = dict(bases)
    while ahead:
        named = {file: file.relative_to(base).as_posix() for file, base in ahead.items()}
        taken = Counter([*named.values(), *found.values()])
        found |= {file: name for file, name in named.items() if taken[name] == 1 or ahead[file] == ahead[file].parent}
        ahead = {file: base.parent for file, base in ahead.items() if file not in found}
    return found


def _absolute(path: AnyPath) -> Path:
    return Path(os.path.abspath(_state.folder / Path(path).expanduser()))  # noqa: PTH100 - see `begin`


def _is_visible_file(file: Path, place: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
    return not hidden and file.is_file()


def _check_listing(place: Path, found: Sequence[Path], known: Mapping[str, str]) -> None:
    """The files found must be the plan's, and none of the plan's files there may be gone."""
    for file in found:
        if str(file) not in known:
            raise JobError(
                f"{file} is not among the plan's assets: name its folder in a Path field of the job or in `assets`, "
                "or, if it came after the plan was made, remove it"
            )
    for path in sorted(known):
        if Path(path).is_relative_to(place) and not Path(path).is_file():
            raise JobError(f"{path} was there when the plan was made and is now missing: put it back")


def _files(given: Path) -> Iterator[Path]:
    if given.is_dir():
        yield from (file for file in sorted(given.rglob("*")) if _is_visible_file(file, given))
    else:
        yield given


def _sha256(file: Path) -> str:
    status = file.stat()
    key = (str(file), status.st_size, status.st_mtime_ns)
    if key not in _state.digests:
        if wrong := damage(file):
            raise JobError(wrong)
        sha256 = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha256.update(chunk)
        _state.digests[key] = sha256.hexdigest()
    return _state.digests[key]


def damage(path: AnyPath) -> str:
    """Return what is wrong with an image that is cut short or none at all; empty for what is whole or no image.

    Blender renders what memory happens to hold in the place of what is missing.
    """
    file = _absolute(path)
    if file.suffix.lower() not in _IMAGE_SUFFIXES:
        return ""
    status = file.stat()
    key = (str(file), status.st_size, status.st_mtime_ns)
    if key not in _state.damage:
        _state.damage[key] = _damage(file, status.st_size)
    return _state.damage[key]


def _damage(file: Path, size: int) -> str:
    with file.open("rb") as stream:
        head = stream.read(12)
        stream.seek(max(0, size - _TAIL))
        tail = stream.read()
    kinds = [end for start, end in _IMAGES if head.startswith(start)]
    if not kinds:
        return f"{file}: Blender cannot read it as an image"
    short = head.startswith(b"RIFF") and int.from_bytes(head[4:8], "little") + 8 > size
    if short or kinds[0] not in tail:
        return f"{file} is cut short: its end is missing; restore it"
    return ""
