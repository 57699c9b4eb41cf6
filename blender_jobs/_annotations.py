"""A sample's annotations, checked: names that are no slips, values that JSON holds; and its members as bytes."""

from __future__ import annotations

import difflib
import functools
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blender_jobs.job import JobError

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
            raise ValueError(f"object {owner!r}: {name!r} is already a field; give the extra field another name")
        if meant := _meant(name, tuple(fields)):
            kind = "argument" if meant in ARGUMENTS else "field"
            raise ValueError(
                f"object {owner!r}: describe() does not know {name!r}; did you mean its {kind} {meant!r}?"
                " A field of your own needs a more distinct name"
            )


@functools.lru_cache(maxsize=1024)
def _meant(name: str, fields: tuple[str, ...]) -> str:
    """Return the argument or field that a name may be a slip of; empty for none. Asked for every object."""
    known = [entry for entry in (*ARGUMENTS, *fields) if not _is_variant(name, entry)]
    if close := difflib.get_close_matches(name, known, 1, _CLOSE):
        return close[0]
    words = set(name.split("_"))  # `tolerance` is short for self_tolerance_m
    shortened = (word for word in ARGUMENTS if words < set(word.split("_")) and len(name) > len(word) / 2)
    return next(shortened, "")


def _is_variant(name: str, entry: str) -> bool:
    """Whether a name is another one's and a number more: `keypoints_3d` is no slip of `keypoints`."""
    return name.startswith(entry) and any(map(str.isdigit, name[len(entry) :]))


RESERVED = ("camera", "image", "episode", "frame", "seed")
"""Fields of the annotations that every sample carries; a job may not use these names."""


def sample_members(image_name: str, image: bytes, common: Mapping[str, Any], annotations: Any) -> dict[str, bytes]:
    """Return the sample's members: the image, ``json`` and ``keypoints.npy``.

    Args:
        image_name: the image's member name: ``png``, ``jpg`` or ``webp``.
        image: the encoded image.
        common: the values of the `RESERVED` fields.
        annotations: what `Job.annotate` returned.

    Raises:
        JobError: the annotations are not what a sample can hold; the message names the path inside them.
    """
    if not isinstance(annotations, Mapping):
        raise JobError(f"annotate() returned {type(annotations).__name__}, not a dict of fields")
    if taken := [name for name in RESERVED if name in annotations]:
        raise JobError(f"annotate() returned {taken[0]!r}, which every sample has already; use another name")
    fields = json_ready({"objects": [], **annotations}, "annotate()")
    text = json.dumps({**fields, **common}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return {image_name: image, "json": text.encode(), "keypoints.npy": npy(keypoint_rows(fields["objects"]))}


def keypoint_rows(objects: Any) -> npt.NDArray[np.float32]:
    """Return float32 (K, 4), x, y, visibility, depth in metres: all objects' keypoints, one object after another."""
    rows = [np.zeros((0, 4), np.float32)]
    for at, entry in enumerate(objects if isinstance(objects, list) else [objects]):
        try:
            depths = np.asarray(entry["keypoint_depths"], np.float32).reshape(-1, 1)
            triples = np.asarray(entry["keypoints"], np.float32).reshape(-1, 3)
            rows.append(np.hstack((triples, depths)))
            if not np.isfinite(rows[-1]).all():  # what is None in JSON
                raise ValueError
        except (TypeError, KeyError, ValueError):
            raise JobError(f"annotate(): objects[{at}] is not a result of view.describe()") from None
    return np.concatenate(rows)


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return `array` as an ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def json_ready(value: Any, path: str) -> Any:
    """Return `value` with arrays and tuples as lists and numpy's numbers as Python's.

    Raises:
        JobError: something that JSON cannot hold, NaN and infinity included; the message names its path.
    """
    if value is None or isinstance(value, bool) or _is_plain_numbers(value):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, np.ndarray) or hasattr(value, "to_tuple"):  # mathutils' vectors
        return json_ready(value.tolist() if isinstance(value, np.ndarray) else list(value), path)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return _finite(float(value), path)
    if isinstance(value, Mapping):
        return {_key(key, path): json_ready(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)) or type(value).__name__ in ("Matrix", "Euler", "Quaternion", "Color"):
        return [json_ready(item, f"{path}[{at}]") for at, item in enumerate(value)]
    raise JobError(f"{path} is a {type(value).__name__}, which JSON cannot hold; return numbers, text, lists or dicts")


def _is_plain_numbers(value: Any) -> bool:
    """Whether `value` is a list of finite floats: most of what annotations hold, so it is checked first."""
    return type(value) is list and set(map(type, value)) == {float} and all(map(math.isfinite, value))


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise JobError(f"{path} has the key {key!r}; keys are text in JSON, use str(...)")
    return _text(key, f"{path}[{key!r}]")


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, as names of files that are not UTF-8 have them
        raise JobError(f"{path} is {text!r}, which UTF-8 cannot hold") from None
    return text


def _finite(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise JobError(f"{path} is {number}; annotations hold finite numbers only")
    return number
