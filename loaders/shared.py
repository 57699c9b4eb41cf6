"""Arrays that DataLoader workers see as the main process does."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


class SharedArray:
    """A one-dimensional array in shared memory: forked and spawned workers write to the same one."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        self._tensor = torch.zeros(size, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def array(self) -> NDArray[Any]:
        """The values, as they are now and will be."""
        array: NDArray[Any] = self._tensor.numpy()
        return array
