"""COCO's run-length encoding of masks: runs of zeros and ones in turn, down the columns of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Runs:
    """The runs of equal ids in a segmentation, found once for all of its objects.

    Args:
        segmentation: integers (H, W).
    """

    def __init__(self, segmentation: Array) -> None:
        flat = segmentation.ravel(order="F")
        breaks = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        self._starts = np.concatenate([[0], breaks]) if flat.size else np.zeros(0, np.int64)
        self._ends = np.append(breaks, flat.size) if flat.size else np.zeros(0, np.int64)
        self._ids = flat[self._starts]
        self._size = flat.size

    def counts(self, number: int) -> list[int]:
        """Return the lengths of the runs of an id's mask: zeros, ones, zeros, ...; the first may be 0."""
        mine = self._ids == number
        borders = np.column_stack((self._starts[mine], self._ends[mine])).ravel()
        counts: list[int] = np.diff(borders, prepend=0, append=self._size).tolist()
        return counts if counts[-1] or len(counts) == 1 else counts[:-1]


def pixels(counts: Sequence[int]) -> int:
    """Return how many pixels the mask of these runs has."""
    return sum(counts[1::2])


def compress(counts: Sequence[int]) -> str:
    """Return the runs as COCO's text.

    From the fourth run on, a run is written as its difference from the last but one. Each number is written in groups
    of five bits, the lowest first, of which a sixth bit says that more follow; the character is that plus 48.
    """
    text = bytearray()
    for at, count in enumerate(counts):
        left = count - counts[at - 2] if at > 2 else count
        more = True
        while more:
            group = left & 31
            left >>= 5
            more = left != (-1 if group & 16 else 0)
            text.append(group + 48 + 32 * more)
    return text.decode("ascii")
