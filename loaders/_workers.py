"""What the processes of a training share: ranks, shared memory, counts over DataLoader workers, a parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from loaders.children import shared_lock
from loaders.errors import LiveError, ShardError, SkipWarning

OnError = Literal["raise", "skip"]
T = TypeVar("T")

_SLOTS = 1024
"""One count for each worker, as they cannot add to one without losing some; workers beyond share them."""

_WORKERS = 1024
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def resolve_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return (rank, number of ranks): as given, else torch.distributed's, else the environment's, else (0, 1).

    Raises:
        ValueError: one of the two is given without the other, or RANK or WORLD_SIZE is no number.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    names = ("RANK", "WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError:
        raise ValueError(f"RANK={os.environ['RANK']} WORLD_SIZE={os.environ['WORLD_SIZE']} are not numbers") from None


class SharedArray:
    """A one-dimensional array in shared memory: forked and spawned workers write to the same one."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        self._tensor = torch.zeros(size, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def array(self) -> NDArray[Any]:
        """The values, as they are now and will be."""
        array: NDArray[Any] = self._tensor.numpy()
        return array


class ErrorPolicy:
    """Decides what an unreadable sample does, and counts over all workers."""

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.lenient = on_error == "skip"
        self._counts = SharedArray(_SLOTS, torch.int64)
        self._reported: set[str] = set()

    @property
    def reporter(self) -> Callable[[str], None] | None:
        """Where to report damage that is skipped; None where it is to be raised."""
        return self.report if self.lenient else None

    @property
    def total(self) -> int:
        """Samples that this process and its workers have left out so far."""
        return int(self._counts.array.sum())

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Return what `action` does; None where it fails and that is to be skipped.

        Raises:
            ShardError: it fails, and errors are not to be skipped.
        """
        try:
            return action()
        except ShardError as error:
            if not self.lenient:
                raise
            self.report(str(error))
            self.add(1)
            return None

    def add(self, samples: int) -> None:
        """Count samples that are left out."""
        worker = get_worker_info()
        self._counts.array[0 if worker is None else 1 + worker.id % (_SLOTS - 1)] += samples

    def report(self, message: str) -> None:
        """Warn of damage, once in each process: all samples of a lost shard share one message."""
        if message not in self._reported:
            self._reported.add(message)
            warnings.warn(f"skipped: {message}", SkipWarning, stacklevel=2)


class IterationCounter:
    """Counts the iterations over a dataset, from 1, in all its workers together.

    A DataLoader tells its workers nothing of a new epoch. But each of them begins an iteration once: the first to
    come with its loop's tag, or to come again, begins a new one, and the others of the loop join it.
    """

    def __init__(self) -> None:
        self._state = SharedArray(2 + _WORKERS, torch.int64)
        """The number of the last iteration, its loop's tag, and whether each worker has joined it."""
        self._lock = shared_lock()
        self._begun = 0
        """By this process: the second loop of persistent workers has the seed of the first."""

    def begin(self) -> int:
        """Return the number of the iteration that this worker begins."""
        info = get_worker_info()
        worker = 0 if info is None else 1 + info.id % (_WORKERS - 1)
        loop = (0, 0) if info is None else (info.seed - info.id, info.num_workers)
        tag = hash((*loop, self._begun))
        self._begun += 1
        with self._lock:
            state = self._state.array
            number, last_tag, joined = state[:1], state[1:2], state[2:]
            if last_tag[0] != tag or joined[worker]:
                number[0], last_tag[0], joined[:] = number[0] + 1, tag, 0
            joined[worker] = 1
            return int(number[0])


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


def check_parent() -> None:
    """Raise LiveError if the process that this is a worker of has died: nobody would end a worker that waits."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise LiveError("the process that started this worker is gone")
