"""What happens to a sample that cannot be read: an error, or a counted and reported skip."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch.utils.data import get_worker_info

from loaders.errors import ShardError, SkipWarning
from loaders.shared import SharedArray

OnError = Literal["raise", "skip"]
T = TypeVar("T")

_SLOTS = 1024
"""One count for each worker, as they cannot add to one without losing some; workers beyond share them."""


class Skips:
    """Decides what an unreadable sample does, and counts over all workers."""

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.lenient = on_error == "skip"
        self._counts = SharedArray(_SLOTS, torch.int64)
        self._reported: set[str] = set()

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
