"""What ranks and DataLoader workers share: who they are, memory, counts, what to do about errors."""

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

_WORKERS = 1024
"""Each worker has its own counter, as adding to a shared one could lose counts; workers beyond these share counters."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def resolve_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return (rank, world size): the arguments, else torch.distributed's, else the environment's, else (0, 1).

    Raises:
        ValueError: only one of the two is given, or RANK or WORLD_SIZE is not a number.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("pass both rank and world_size, or neither")
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
        """The live values; (size,), of the dtype it was made with."""
        array: NDArray[Any] = self._tensor.numpy()
        return array


class ErrorPolicy:
    """What happens to a sample that cannot be read: an error, or a reported skip, counted over all workers."""

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.lenient = on_error == "skip"
        self._counts = SharedArray(_WORKERS, torch.int64)
        self._reported: set[str] = set()

    @property
    def reporter(self) -> Callable[[str], None] | None:
        """Where to report damage that is skipped; None where it is to be raised."""
        return self.report if self.lenient else None

    @property
    def total(self) -> int:
        """Samples skipped so far by this process and its workers."""
        return int(self._counts.array.sum())

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Return the result of `action`; None if it fails and errors are skipped.

        Raises:
            ShardError: it fails, and errors are raised.
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
        """Count skipped samples."""
        worker = get_worker_info()
        self._counts.array[0 if worker is None else 1 + worker.id % (_WORKERS - 1)] += samples

    def report(self, message: str) -> None:
        """Warn of damage, once in each process: all samples of a lost shard share one message."""
        if message not in self._reported:
            self._reported.add(message)
            warnings.warn(f"skipped: {message}", SkipWarning, stacklevel=2)


class IterationCounter:
    """Numbers the iterations over a dataset, from 1, so that all workers of one loop get the same number.

    A DataLoader does not tell its workers that a new epoch begins. But each of them begins an iteration once: the first
    worker with its loop's tag, or the first to begin again, starts a new iteration, and the loop's others join it.
    """

    def __init__(self) -> None:
        self._state = SharedArray(2 + _WORKERS, torch.int64)
        """The last iteration's number, its loop's tag, and for each worker whether it has joined."""
        self._lock = shared_lock()
        self._begun = 0
        """Iterations begun by this process: persistent workers have the same seed in each loop."""

    def begin(self) -> int:
        """Begin an iteration in this worker, and return its number."""
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
    """Make glibc keep freed memory for the next image; other C libraries are left alone.

    By default it may return each image's memory to the system and fault it in again, page by page: for 640x480 that
    takes longer than decoding the JPEG. Call it in worker processes only: the process never shrinks again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that it takes
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def check_parent() -> None:
    """Raise LiveError if this worker's parent process has died: nothing else would end a waiting worker."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise LiveError("the process that started this worker has died")
