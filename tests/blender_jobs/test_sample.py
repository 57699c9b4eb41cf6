"""A frame as a sample: what the job returned becomes JSON and keypoint rows, or an error that names the place."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blender_jobs._annotations import RESERVED, json_ready, keypoint_rows, sample_members
from blender_jobs.job import JobError

COMMON: dict[str, Any] = {"camera": {"K": []}, "image": {"width": 4}, "episode": 1, "frame": 2, "seed": 3}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_DTYPES = st.sampled_from(["bool", "int8", "int64", "uint16", "uint64", "float16", "float32", "float64", "longdouble"])


class Vector:
    """As mathutils' vectors and colours are: neither lists nor arrays."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = numbers

    def to_tuple(self) -> tuple[float, ...]:
        return self._numbers

    def __iter__(self) -> Any:
        return iter(self._numbers)


class Matrix(list[Any]):
    """As mathutils' matrices are: rows of vectors."""


def described(name: str, *keypoints: tuple[float, float, int, float]) -> dict[str, Any]:
    """Return an object with keypoints x, y, visibility, depth, as `View.describe` does."""
    return {
        "name": name,
        "keypoints": [number for x, y, visibility, _ in keypoints for number in (x, y, visibility)],
        "keypoint_depths": [depth for *_, depth in keypoints],
    }


@given(_JSON)
def test_json_stays_what_it_is(value: Any) -> None:
    assert json.dumps(json_ready(value, "annotate()")) == json.dumps(value)


@given(_DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))))
def test_arrays_and_their_numbers_become_json(array: Any) -> None:
    with np.errstate(over="ignore"):
        finite = bool(np.isfinite(array.astype(np.float64)).all())
    if not finite:
        with pytest.raises(JobError, match="finite"):
            json_ready(array, "annotate()")
        return
    kind = {"b": bool, "i": int, "u": int, "f": float}[array.dtype.kind]
    plain = json_ready(array, "annotate()")
    assert np.array_equal(np.array(json.loads(json.dumps(plain)), np.float64).reshape(array.shape), array.astype(float))
    for number in array.flat:
        ready = json_ready(number, "annotate()")
        assert type(ready) is kind
        assert ready == number


def test_blenders_vectors_become_lists() -> None:
    ready = json_ready({"at": Vector(1, 2.5), "pose": Matrix([Vector(0.5), (1, 2)])}, "annotate()")
    assert ready == {"at": [1, 2.5], "pose": [[0.5], [1, 2]]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), " is nan; annotations hold finite numbers"),
        ([0.0, float("inf")], r"\[1\] is inf;"),
        (np.float32("-inf"), " is -inf;"),
        (np.array([[1.0, np.nan]]), r"\[0\]\[1\] is nan;"),
        (np.longdouble("inf"), " is inf;"),
        ({1, 2}, " is a set, which JSON cannot hold"),
        (b"bytes", " is a bytes,"),
        (object(), " is a object,"),
        (1j, " is a complex,"),
        (np.complex64(1), " is a complex64,"),
        (np.clongdouble(1), " is a c(longdouble|omplex256),"),
        (np.datetime64("2024-01-01"), " is a datetime64,"),
        (np.array([object()]), r"\[0\] is a object,"),
        ({1: "a"}, " has the key 1; keys are text"),
        ({"a": {None: "a"}}, r"\['a'\] has the key None"),
        (["ok", "\ud800"], r"\[1\] is '\\ud800', which UTF-8 cannot hold"),
        ({"\udc80": 1}, r"\['\\udc80'\] is '\\udc80', which UTF-8"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_path(value: object, said: str) -> None:
    with pytest.raises(JobError, match=rf"^annotate\(\)\['a'\]\[0\]{said}"):
        json_ready({"a": [value]}, "annotate()")


def test_a_sample_has_the_image_json_and_keypoints() -> None:
    one = described("one", (1.0, 2.0, 2, 5.0), (3.0, 4.0, 0, 6.0))
    other = described("other", (7.5, 8.5, 1, 9.5))
    made = sample_members("png", b"pixels", COMMON, {"objects": [one, other], "light": np.float32(0.5)})
    assert list(made) == ["png", "json", "keypoints.npy"]
    assert made["png"] == b"pixels"
    assert json.loads(made["json"]) == {**COMMON, "objects": [one, other], "light": 0.5}
    rows = np.load(io.BytesIO(made["keypoints.npy"]), allow_pickle=False)
    assert rows.dtype == np.float32
    assert rows.tolist() == [[1, 2, 2, 5], [3, 4, 0, 6], [7.5, 8.5, 1, 9.5]]


def test_without_objects_there_are_no_rows() -> None:
    made = sample_members("png", b"", COMMON, {})
    assert json.loads(made["json"])["objects"] == []
    assert np.load(io.BytesIO(made["keypoints.npy"])).shape == (0, 4)


def test_the_order_of_fields_changes_no_byte() -> None:
    one = sample_members("png", b"", COMMON, {"a": 1, "b": {"c": "ä", "d": 2}})
    other = sample_members("png", b"", dict(reversed(COMMON.items())), {"b": {"d": 2, "c": "ä"}, "a": 1})
    assert one == other
    assert "ä".encode() in one["json"]


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        (None, r"annotate\(\) returned NoneType, not a dict"),
        ([], r"annotate\(\) returned list, not a dict"),
        *(({name: 1}, rf"annotate\(\) returned '{name}', which every sample has") for name in RESERVED),
        ({"objects": None}, r"objects\[0\] is not a result of view.describe"),
        ({"objects": [described("a", (0, 0, 0, 0)), {"name": "b"}]}, r"objects\[1\] is not a result"),
        ({"objects": [{"keypoints": [1, 2, 3], "keypoint_depths": []}]}, r"objects\[0\] is not a result"),
        ({"objects": [{"keypoints": [1, 2], "keypoint_depths": [1]}]}, r"objects\[0\] is not a result"),
        ({"objects": [{"keypoints": [1, 2, "x"], "keypoint_depths": [1]}]}, r"objects\[0\] is not a result"),
        ({"objects": [{"keypoints": [1, 2, None], "keypoint_depths": [1]}]}, r"objects\[0\] is not a result"),
    ],
)
def test_annotations_that_make_no_sample_are_named(annotations: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        sample_members("png", b"", COMMON, annotations)


@given(
    st.lists(
        st.lists(
            st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2, st.sampled_from([0, 1, 2]), st.floats(0, 1e6, width=32)),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_keypoint_rows_stand_in_the_order_of_objects(objects: list[list[tuple[float, float, int, float]]]) -> None:
    rows = keypoint_rows([described("object", *keypoints) for keypoints in objects])
    assert rows.shape == (sum(map(len, objects)), 4)
    assert rows.dtype == np.float32
    assert rows.tolist() == [list(map(float, row)) for keypoints in objects for row in keypoints]
