"""A job's options: text and JSON become what the fields declare, and what does not fit is named with what would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, Optional, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs._worker.fields import json_value, resolve_fields
from blender_jobs.job import Job, JobError


class Shape(Enum):
    """Names on the command line, values in the job."""

    CUBE = 1
    BALL = "round"


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: _FLOATS,
    str: st.text(max_size=5),
    range: st.builds(range, st.integers(), st.integers(), st.integers().filter(bool)),
    Path: st.text("ab/.", max_size=5).map(Path),
    Shape: st.sampled_from(Shape),
    Literal["fast", "slow"]: st.sampled_from(["fast", "slow"]),
    Literal[1, 2]: st.sampled_from([1, 2]),
    Literal[Shape.CUBE]: st.just(Shape.CUBE),
}
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    **_SCALARS,
    **{
        kind | None: st.none() | values
        for kind, values in _SCALARS.items()
        if isinstance(kind, type) and kind is not str
    },
    **{GenericAlias(list, (kind,)): st.lists(values, max_size=3) for kind, values in _SCALARS.items()},
    **{GenericAlias(tuple, (kind, ...)): st.lists(values, max_size=3).map(tuple) for kind, values in _SCALARS.items()},
    **{GenericAlias(tuple, (int, kind)): st.tuples(st.integers(), values) for kind, values in _SCALARS.items()},
    Sequence[int]: _SCALARS[range] | st.lists(st.integers()).map(tuple),
    list[tuple[float, ...]]: st.lists(st.lists(_FLOATS).map(tuple)),
    int | str: st.integers(),
    Union[int, tuple[int, int]]: st.integers() | st.tuples(st.integers(), st.integers()),  # noqa: UP007
    Optional[Path]: st.none() | _SCALARS[Path],  # noqa: UP045
}
"""Every kind of type that a field may declare, with its values."""


def job(**declared: Any) -> type[Job]:
    """Return a job with these fields: name=(type, default) or name=type."""
    entries = [(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, kind in declared.items()]
    made: type[Job] = make_dataclass("J", entries, bases=(Job,))
    return made


def resolve(kind: Any, value: Any) -> Any:
    """Return what one field of this type becomes when it is set to `value`."""
    return resolve_fields(job(x=kind), {"x": value})["x"]


def over_the_wire(value: Any) -> Any:
    """Return the field's value as JSON that has been sent."""
    return json.loads(json.dumps(json_value(value)))


_VALUES = st.sampled_from(list(KINDS)).flatmap(lambda kind: st.tuples(st.just(kind), KINDS[kind]))


@given(_VALUES)
def test_a_value_survives_the_plan_and_the_wire(kind_and_value: tuple[Any, Any]) -> None:
    kind, value = kind_and_value
    again = resolve(kind, over_the_wire(value))
    assert again == value
    assert type(again) is type(value)
    assert over_the_wire(again) == over_the_wire(value)


@given(_VALUES)
def test_a_default_is_as_good_as_the_same_value_set(kind_and_value: tuple[Any, Any]) -> None:
    # Else a field that is set to its default would be another plan.
    kind, value = kind_and_value
    default = resolve_fields(job(x=(kind, field(default_factory=lambda: value))), {})["x"]
    assert over_the_wire(default) == over_the_wire(resolve(kind, over_the_wire(value)))


def test_a_whole_number_as_the_default_of_a_float_is_a_float() -> None:
    assert (
        repr(resolve_fields(job(x=(float, 1)), {}))
        == repr(resolve_fields(job(x=(float, 1)), {"x": "1"}))
        == "{'x': 1.0}"
    )


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (bool, "yes", True),
        (bool, "Off", False),
        (bool, "0", False),
        (int, "-20", -20),
        (float, "1e-3", 0.001),
        (float, 2, 2.0),
        (str, "", ""),
        (str, "a, b", "a, b"),
        (range, "1:61", range(1, 61)),
        (range, "10:0:-2", range(10, 0, -2)),
        (Path, "a/b.blend", Path("a/b.blend")),
        (Shape, "BALL", Shape.BALL),
        (Literal["fast", "slow"], "slow", "slow"),
        (Literal[8, 16], "16", 16),
        (int | None, "none", None),
        (int | None, "7", 7),
        (Optional[range], "1:3", range(1, 3)),  # noqa: UP045
        (float | str, "0.5", 0.5),
        (float | str, "half", "half"),
        (tuple[float, float, float], "1, 2,3.5", (1.0, 2.0, 3.5)),
        (tuple[int, ...], "1,2,3,4", (1, 2, 3, 4)),
        (list[str], "red,green", ["red", "green"]),
        (list[Shape], ["CUBE"], [Shape.CUBE]),
        (Sequence[int], "1:9:2", range(1, 9, 2)),
        (Sequence[int], "1,5", (1, 5)),
    ],
    ids=str,
)
def test_what_is_typed_on_the_command_line_has_the_declared_type(kind: Any, text: Any, value: Any) -> None:
    found = resolve(kind, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (bool, "maybe", "'maybe' is not bool; give true or false"),
        (int, "1.5", "'1.5' is not int; give a whole number"),
        (int, 1.0, "'1.0' is not int; give a whole number"),
        (int, True, "'True' is not int; give a whole number"),
        (int, "", "'' is not int; give a whole number"),
        (float, "nan", "'nan' is not float; give a finite number"),
        (float, "1e999", "give a finite number"),
        (float, 10**400, "give a finite number"),
        (float, [1], "give a finite number"),
        (str, 5, "'5' is not str; give text"),
        (range, "5", "'5' is not range; give start:stop or start:stop:step"),
        (range, "1:2:3:4", "give start:stop or start:stop:step"),
        (range, "1:2:0", "give start:stop or start:stop:step"),
        (range, 5, "give start:stop or start:stop:step"),
        (Path, 5, "'5' is not Path; give text"),
        (Shape, "round", "'round' is not Shape; choose one of CUBE, BALL"),
        (Literal["a", "b"], "c", r"'c' is not Literal\['a', 'b'\]; choose one of a, b"),
        (tuple[int, int], "1,2,3", r"'1,2,3' is not tuple\[int, int\]; give 2 values separated by commas"),
        (tuple[int, ...], "1,x", "give a whole number"),
        (list[int], 5, "give values separated by commas"),
        (int | None, "x", r"'x' is not int \| None; give a whole number"),
        (int | bool, "x", "give a whole number or give true or false"),
        (dict, "x", "fields of type dict cannot be set"),
        (list, "x", "fields of type list cannot be set"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_names_the_field_and_what_would(kind: Any, value: Any, said: str) -> None:
    with pytest.raises(JobError, match=rf"^--set x: .*{said} \(J.x\)$") as caught:
        resolve(kind, value)
    assert "\n" not in str(caught.value)


def fails() -> int:
    """As a user's function may."""
    raise KeyError("palette")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ((int, "ten"), "J.x: its default 'ten' is not int; give a whole number"),
        ((int, None), "J.x: its default None is not int; give a whole number"),
        ((dict, field(default_factory=dict)), "J.x: its default {} is not dict; .* is not a value that"),
        ((Any, 3), "J.x: its default 3 is not .*Any; fields of type .*Any cannot be set"),
        ((float, float("nan")), "J.x: its default nan is not float; nan is not a value"),
        ((int, field(default_factory=fails)), "J.x: its default_factory fails: KeyError: 'palette'"),
        (int, "J.x has no default; set it with --set x=VALUE"),
    ],
)
def test_a_default_that_no_option_can_have_is_named_before_anything_is_rendered(declared: Any, said: str) -> None:
    with pytest.raises(JobError, match=f"^{said}"):
        resolve_fields(job(x=declared), {})


def test_an_unknown_field_suggests_the_one_meant() -> None:
    known = job(count=(int, 1), spread_m=(float, 1.0))
    with pytest.raises(JobError, match=r"J has no field 'cuont'; did you mean 'count'\?"):
        resolve_fields(known, {"cuont": "3"})
    with pytest.raises(JobError, match="J has no field 'xyz'; it has count, spread_m"):
        resolve_fields(known, {"xyz": "3"})
    with pytest.raises(JobError, match="J has no field 'xyz'; it has none"):
        resolve_fields(job(), {"xyz": "3"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("count", "`count: int = 5`"),
        ("fast", "`fast: bool = True`"),
        ("cameras", "`cameras: tuple[str, ...] = ('left', 'right')`"),
        ("frames", "`frames: range = range(1, 2)`"),
        ("mesh", "`mesh: Path = Path('a.ply')`"),
    ],
)
def test_an_attribute_without_a_type_is_told_how_it_becomes_a_field(name: str, said: str) -> None:
    class Loose(job()):  # type: ignore[misc]
        count, fast, cameras, mesh = 5, True, ("left", "right"), Path("a.ply")

    with pytest.raises(JobError) as caught:
        resolve_fields(Loose, {name: "8"})
    assert str(caught.value) == f"Loose.{name} has no type, so it is no field; write {said} in the class"


@pytest.mark.parametrize("name", ["setup", "reuse_scene", "blend", "_count", "every"])
def test_what_could_be_no_field_is_not_told_so(name: str) -> None:
    class Loose(job()):  # type: ignore[misc]
        _count = 5
        every = property(lambda self: 3)

    with pytest.raises(JobError, match=f"Loose has no field '{name}'; it has none"):
        resolve_fields(Loose, {name: "8"})


def test_what_is_no_option_cannot_be_set() -> None:
    @dataclass
    class WithState(Job):
        count: int = 1
        state: dict[str, int] = field(default_factory=dict, init=False)

    assert resolve_fields(WithState, {}) == {"count": 1}
    with pytest.raises(JobError, match="no field 'state'"):
        resolve_fields(WithState, {"state": "x"})


def test_types_that_cannot_be_resolved_are_said() -> None:
    with pytest.raises(JobError, match="the field types of J cannot be resolved: name 'Missing' is not defined"):
        resolve_fields(job(x=("Missing", 1)), {})


@pytest.mark.parametrize("value", [{}, {1}, object(), np.zeros(2), float("inf"), [1, float("nan")], 1j])
def test_what_no_option_can_have_is_not_put_into_a_plan(value: object) -> None:
    with pytest.raises(JobError, match="is not a value that a job's field can have"):
        json_value(value)
