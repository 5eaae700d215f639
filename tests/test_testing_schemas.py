"""Values made from JSON Schemas."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.testing.schemas import Unbuildable, instance


def holds(schema: Any, value: Any) -> bool:
    """Whether the value satisfies the schema, for the words that `schemas` below makes."""
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(holds(each, value) for each in schema["anyOf"])
    match schema["type"]:
        case "object":
            parts = schema["properties"]
            known = all(name in parts and holds(parts[name], each) for name, each in value.items())
            return known and set(schema["required"]) <= value.keys()
        case "array":
            return schema["minItems"] <= len(value) and all(holds(schema["items"], each) for each in value)
        case "string":
            return bool(schema["minLength"] <= len(value) <= schema["maxLength"])
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case kind:
            whole = kind == "number" or isinstance(value, int)
            return bool(whole and schema["minimum"] <= value <= schema["maximum"])


def bounded(kind: str) -> st.SearchStrategy[Any]:
    number = st.integers(-50, 50)
    return st.tuples(number, st.integers(0, 9)).map(lambda pair: {"type": kind, "minimum": pair[0], "maximum": sum(pair)})


LEAVES = st.one_of(
    bounded("integer"),
    bounded("number"),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": 3}, {"enum": ["a", None]}]),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": sum(pair)}
    ),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    return st.one_of(
        parts.map(lambda given: {"type": "object", "properties": given, "required": sorted(given)[:1]}),
        st.tuples(inner, st.integers(0, 3)).map(lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    )


@settings(deadline=None)
@given(st.recursive(LEAVES, nested, max_leaves=8))
def test_an_instance_satisfies_its_schema(schema: Any) -> None:
    assert holds(schema, instance(schema))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["null", "integer"], "exclusiveMinimum": 2}, 3),
        ({"type": "integer", "multipleOf": 2.5, "maximum": 14}, 10),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "multipleOf": 0.25, "exclusiveMinimum": 0}, 0.25),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"prefixItems": [{"const": 1}, {"const": 2}], "items": False}, [1, 2]),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a", "b"]}]}, {"a": 1, "b": "text"}),
        ({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
         {"next": {"next": None}}),
    ],
)  # fmt: skip
def test_an_instance_reads_the_less_common_words(schema: Any, value: Any) -> None:
    assert instance(schema) == value


@pytest.mark.parametrize("schema", [False, {"$ref": "#"}, {"$ref": "#/nowhere"}, {"minimum": 2, "maximum": 1}])
def test_a_schema_that_nothing_satisfies_is_unbuildable(schema: Any) -> None:
    with pytest.raises(Unbuildable):
        instance(schema)
