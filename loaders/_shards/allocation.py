"""How a worker's memory comes and goes."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Tell the C library to keep what is freed for the next image, where it is glibc.

    By its own rules it may give the system back every image's memory and then fault it in again, page by page: for
    640x480 that takes longer than to decode the JPEG. For worker processes alone, as it holds for the whole process,
    which then stays as large as it once was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that it takes
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
