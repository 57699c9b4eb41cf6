"""What a user's function makes of each sample: called with the epoch, too, where it asks for that."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Transform = Callable[..., Any]
"""Gets a sample, and ``epoch=`` if it has a parameter of that name; returns what is to be used, or None."""


class Transformed:
    """A transform as a dataset calls it.

    Args:
        transform: the user's; None gives samples as they are.
    """

    def __init__(self, transform: Transform | None) -> None:
        self._transform = transform
        self._takes_epoch = transform is not None and _takes_epoch(transform)

    def __call__(self, sample: dict[str, Any], epoch: int) -> Any:
        """Return what is to be used in a sample's place; None leaves it out."""
        if self._transform is None:
            return sample
        return self._transform(sample, epoch=epoch) if self._takes_epoch else self._transform(sample)


def _takes_epoch(transform: Transform) -> bool:
    if isinstance(transform, functools.partial) and "epoch" in transform.keywords:
        return False  # it has been chosen
    try:
        return "epoch" in inspect.signature(transform).parameters
    except (TypeError, ValueError):  # of a callable written in C
        return False
