"""Which iteration over a dataset this is: a number that the DataLoader workers of one loop agree on."""

from __future__ import annotations

import torch
from torch.utils.data import get_worker_info

from loaders.children import shared_lock
from loaders.shared import SharedArray

_WORKERS = 1024


class Iterations:
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
