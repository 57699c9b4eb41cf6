"""The folder that an export is written into: it gets its name when it is whole, and an interrupted one is continued.

Until then everything is in ``OUT.part``. Every export has ``export.json``, which says what it was made from; its
``holds`` is null until the export is whole. What is in the way is refused: nothing is ever removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from compiler.errors import UsageError, disk_error
from loaders.files import PART_SUFFIX, open_own, read_regular, sync_folder, write_atomically

NOTE = "export.json"
_LOCK = ".lock"
_MOST_NOTE = 1 << 20


class ExportFolder:
    """Writes the files of one export.

    State: the folders made so far.

    Args:
        out: the folder's final path.
        made_from: what the export depends on, as JSON: an export that was made from the same is continued.
    """

    def __init__(self, out: Path, made_from: Mapping[str, Any]) -> None:
        self.out = out.resolve()
        self._part = self.out.with_name(self.out.name + PART_SUFFIX)
        self._made_from = dict(made_from)
        self._folders: set[Path] = set()

    def finished(self) -> dict[str, Any] | None:
        """Return what the folder holds if this export is there, whole; None where there is nothing yet.

        Raises:
            UsageError: something else is there.
        """
        if not os.path.lexists(self.out) or _names(self.out) == set():
            return None
        note = _read_note(self.out)
        if note is None:
            raise UsageError(f"{self.out} is there already and is no export", "name a new folder")
        holds = note.get("holds")
        if note.get("made_from") != self._made_from or not isinstance(holds, dict):
            raise UsageError(f"{self.out} holds another export", "name a new folder, or remove that one")
        return holds

    def write(self, fill: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Let `fill` write all files, and give the folder its name; return what `fill` says that it holds.

        Raises:
            UsageError: something else is there, or another process writes the same export.
            Incomplete: the disk cannot be written; running it again continues.
        """
        try:
            self._begin()
            lock = FileLock(self._part / _LOCK)
            with _locked(lock, self._part):
                self._write_note(None)
                holds = fill()
                self._write_note(holds)
                self._publish(lock)
            with suppress(OSError):
                (self.out / _LOCK).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self._part) from None
        return holds

    def put(self, name: str, content: bytes) -> None:
        """Write a file, unless an earlier run has written it already. Raises OSError."""
        path = self._place(name)
        with suppress(OSError):
            if path.lstat().st_size == len(content) and read_regular(path, len(content)) == content:
                return
        with open_own(path, "wb+") as file:
            file.write(content)

    def stream(self, name: str) -> BinaryIO:
        """Open a file that is written piece by piece; it begins empty. Raises OSError."""
        return open_own(self._place(name), "wb+")

    def drop(self, name: str) -> None:
        """Remove a file that `stream` has made. Raises OSError."""
        self._place(name).unlink()

    def folder(self, name: str) -> Path:
        """Make a folder, and those that it is in; return its path. Raises OSError: something else has its name."""
        path = self._part / name
        for place in [*reversed(path.relative_to(self._part).parents), Path(name)]:
            whole = self._part / place
            if whole not in self._folders:
                whole.mkdir(exist_ok=True)
                if whole.is_symlink():
                    raise OSError(None, "is a link", str(whole))
                self._folders.add(whole)
        return path

    def _place(self, name: str) -> Path:
        folder, _, file = name.rpartition("/")
        return self.folder(folder) / file

    def _begin(self) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self._part.mkdir()
        if self._part.is_symlink() or not self._part.is_dir():
            raise UsageError(f"{self._part} is in the way", "move it, or name another folder")
        note = _read_note(self._part)
        if note is not None and note.get("made_from") != self._made_from:
            raise UsageError(
                f"{self._part} is the beginning of another export",
                "remove it if it is no longer needed, or name another folder",
            )
        if note is None and not (_names(self._part) or set()) <= {_LOCK, NOTE + PART_SUFFIX}:
            raise UsageError(f"{self._part} holds something else", "move it, or name another folder")

    def _write_note(self, holds: dict[str, Any] | None) -> None:
        value = {"made_from": self._made_from, "holds": holds}
        write_atomically(self._part / NOTE, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")

    def _publish(self, lock: FileLock) -> None:
        """Give the folder its name, once all is on the disk."""
        if os.name == "posix":
            os.sync()  # one for all files: each of its own would take longer than writing them
        else:
            lock.release()  # Windows moves no folder in which a file is open
        if os.path.lexists(self.out):
            self.out.rmdir()  # it is empty, as `finished` has seen; else this fails
        self._part.rename(self.out)
        sync_folder(self.out.parent)


@contextmanager
def _locked(lock: FileLock, place: Path) -> Iterator[None]:
    """Hold the lock. Raises UsageError at once where another process has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{place} is being written by another process", "wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _names(folder: Path) -> set[str] | None:
    """Return the names in a folder; None where it is none that can be read."""
    try:
        return None if folder.is_symlink() else {path.name for path in folder.iterdir()}
    except OSError:
        return None


def _read_note(folder: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(read_regular(folder / NOTE, _MOST_NOTE))
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None
