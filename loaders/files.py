"""Internal, shared with the compiler: files opened with care, in folders that others write to, too.

A pipe never ends, a sparse file can be larger than memory, and writing to a link writes to another file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from io import BufferedRandom, FileIO
from pathlib import Path
from typing import Literal

PART_SUFFIX = ".part"
"""The suffix of a file that is being written."""


def open_regular(path: str | Path) -> FileIO:
    """Open a file for reading, unbuffered.

    Raises:
        OSError: it cannot be opened, or it is not a regular file: a pipe or a device might never end.
    """
    waiting = getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for a writer
    handle = os.open(path, os.O_RDONLY | waiting | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
    return os.fdopen(handle, "rb", buffering=0)


def read_regular(path: str | Path, most: int) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises:
        OSError: as `open_regular`; or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size} bytes, more than {most}", os.fspath(path))
        content = b""
        while part := file.read(max(size + 1 - len(content), 1 << 16)):
            content += part
            if len(content) > most:  # it grew meanwhile
                raise OSError(errno.EFBIG, f"has more than {most} bytes", os.fspath(path))
    return content


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal digest of a file's bytes. Raises OSError as `open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_own(path: Path, mode: Literal["rb+", "wb+", "ab+"]) -> BufferedRandom:
    """Open a file for writing.

    Raises:
        OSError: it cannot be opened, or it is a link, which is not followed (except on Windows).
    """
    return open(path, mode, opener=_no_link)


def _no_link(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        if Path(path).is_symlink():
            raise OSError(error.errno, "is a link", path) from None
        raise


def strange_entry(folder: Path, ours: Callable[[str], bool]) -> tuple[str, str] | None:
    """Return name and kind of the first entry of a folder that has one of our names and is not a plain file, or None.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if ours(entry.name) and not entry.is_file(follow_symlinks=False):
                kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "pipe or a device"
                found[entry.name] = kind
    return min(found.items(), default=None)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content; whatever happens, readers find the whole old or the whole new content.

    Raises:
        OSError: it could not be written; the old content is still there.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with open_own(part, "wb+") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # an interrupt, too
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, if the system can sync folders (Windows cannot)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
