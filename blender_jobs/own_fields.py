"""Names for the fields that a job adds to an object's annotation: none that is a slip of what `View.describe` knows."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Sequence

ARGUMENTS = ("keypoints", "keypoint_names", "members", "self_tolerance_m", "parts")
"""Those of `View.describe` that may be left out."""

_CLOSE = 0.86
"""Of difflib's ratio: `part` and `parts` have 0.89; `pos` and `pose`, `box` and `bbox` 0.857."""


def check_own_fields(owner: str, own: Iterable[str], fields: Sequence[str]) -> None:
    """Hold the names of an object's further fields against what is known.

    Args:
        owner: the object's name.
        own: the further fields.
        fields: those that every object has.

    Raises:
        ValueError: a name is taken, or close to a field or an argument, which would be lost; one line.
    """
    for name in sorted(own):
        if name in fields:
            raise ValueError(f"object {owner!r}: {name!r} is described already; name the extra field otherwise")
        if meant := _meant(name, tuple(fields)):
            kind = "argument" if meant in ARGUMENTS else "field"
            raise ValueError(
                f"object {owner!r}: describe() does not know {name!r}; did you mean its {kind} {meant!r}?"
                " A field of your own needs a name less like it"
            )


@functools.lru_cache(maxsize=1024)
def _meant(name: str, fields: tuple[str, ...]) -> str:
    """Return the argument or field that a name may be a slip of; empty for none. Asked for every object anew."""
    known = [entry for entry in (*ARGUMENTS, *fields) if not _is_variant(name, entry)]
    if close := difflib.get_close_matches(name, known, 1, _CLOSE):
        return close[0]
    words = set(name.split("_"))  # `tolerance` is short for self_tolerance_m
    shortened = (word for word in ARGUMENTS if words < set(word.split("_")) and len(name) > len(word) / 2)
    return next(shortened, "")


def _is_variant(name: str, entry: str) -> bool:
    """Whether a name is another one's and a number more: `keypoints_3d` is no slip of `keypoints`."""
    return name.startswith(entry) and any(map(str.isdigit, name[len(entry) :]))
