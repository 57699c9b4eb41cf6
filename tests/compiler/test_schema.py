"""The annotations' schema: the same whatever the order of samples and shards, or an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.planning.schemas import SchemaConflict, merge, schema_of

_NAMES = st.text("abc", min_size=1, max_size=2)
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False),
    "str": st.text(max_size=3),
    "bool": st.booleans(),
}
_SCHEMAS = st.recursive(
    st.sampled_from(["null", *_SCALARS]),
    lambda inner: st.lists(inner, max_size=1) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for JSON of this schema; any part may be None, any list empty."""
    if isinstance(schema, dict):
        return st.none() | st.fixed_dictionaries({name: values(inner) for name, inner in schema.items()})
    if isinstance(schema, list):
        return st.none() | (st.lists(values(schema[0]), max_size=3) if schema else st.just([]))
    return st.none() | _SCALARS.get(schema, st.none())


def merged(schemas: list[Any]) -> Any:
    """Return the schemas' common one, folded from the left as a build does."""
    total = "null"
    for schema in schemas:
        total = merge(total, schema)
    return total


@st.composite
def samples_and_an_order(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """Return samples of one schema, twice, in two orders."""
    samples = draw(st.lists(values(draw(_SCHEMAS)), min_size=1, max_size=5))
    return samples, draw(st.permutations(samples))


@given(samples_and_an_order())
def test_samples_of_one_schema_go_together_in_any_order(orders: tuple[list[Any], list[Any]]) -> None:
    one, other = ([schema_of(sample) for sample in samples] for samples in orders)
    assert merged(one) == merged(other)


@given(_SCHEMAS, _SCHEMAS, _SCHEMAS)
def test_merging_is_a_join(one: Any, two: Any, three: Any) -> None:
    """Commutative, associative and idempotent, conflicts included: shards may finish in any order."""

    def outcome(*steps: Any) -> Any:
        try:
            total = steps[0]() if callable(steps[0]) else steps[0]
            return merge(total, steps[1]() if callable(steps[1]) else steps[1])
        except SchemaConflict:
            return "conflict"

    assert merge(one, one) == one
    assert merge("null", one) == one
    assert outcome(one, two) == outcome(two, one)
    assert outcome(lambda: merge(one, two), three) == outcome(one, lambda: merge(two, three))


@given(st.data(), _SCHEMAS)
def test_a_sample_fits_the_schema_that_it_went_into(data: st.DataObject, schema: Any) -> None:
    samples = data.draw(st.lists(values(schema), min_size=1, max_size=4))
    total = merged([schema_of(sample) for sample in samples])
    for sample in samples:
        assert merge(total, schema_of(sample)) == total


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1.5}}, r"annotations.a.b is float .* int .*return float\(\.\.\.\)"),
        ({"a": 1}, {"a": True}, "annotations.a is bool in one place and int in another$"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": []}]}, r"annotations.a\[\].b is a list .* str"),
        ({"a": {}}, {"a": []}, "annotations.a is a list .* an object"),
        ({"a": 1}, {"a": 1, "b": 2}, "annotations.b is in some samples only"),
        ([1], [{}], r"annotations\[\] is an object .* int"),
    ],
)
def test_a_conflict_names_the_path(one: Any, other: Any, said: str) -> None:
    for left, right in ((one, other), (other, one)):
        with pytest.raises(SchemaConflict, match=said):
            merge(schema_of(left), schema_of(right))


def test_the_items_of_a_list_have_one_schema() -> None:
    assert schema_of({"a": [[], [1], None, [2]]}) == {"a": [["int"]]}
    with pytest.raises(SchemaConflict, match=r"annotations.a\[\] is float in one place and int"):
        schema_of({"a": [1, 2.5]})
    with pytest.raises(SchemaConflict, match=r"annotations.a\[\].c is in some"):
        schema_of({"a": [{"b": 1}, {"b": 1, "c": 1}]})


def test_items_of_one_list_that_differ_in_their_fields_are_named() -> None:
    cups = [{"name": f"cup{number}", "category": "cup"} for number in range(6)]
    objects = [{"name": "fork", "category": "fork", "grasped": True}, *cups]
    with pytest.raises(SchemaConflict) as caught:
        schema_of({"objects": objects})
    assert str(caught.value) == (
        "annotations.objects[].grasped is in some items only: fork with it, cup0, cup1, cup2, cup3, ... without;"
        " return the same fields in all of them, None if there is nothing to say"
    )
    with pytest.raises(SchemaConflict, match=r"a\[\].b is in some items only: item 2 with it, item 0 without"):
        schema_of({"a": [{}, None, {"b": 1}]})
    assert schema_of({"a": [{"b": None}, None, {"b": 1}]}) == {"a": [{"b": "int"}]}
