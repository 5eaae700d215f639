"""Schemas as the API takes them: what the `anthropic` package makes of one, and no schema that it would empty in silence."""

from __future__ import annotations

import copy
from enum import Enum
from typing import Any, Literal

import pytest
from anthropic import transform_schema
from gateway_remote.formats.anthropic_schema import FORMATS, closed_schema
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

WORDS = st.text("ab ", max_size=4)
COMMON = st.fixed_dictionaries({}, optional={"title": WORDS, "description": WORDS, "default": st.integers(0, 3)})
PRIMITIVES = st.none() | st.booleans() | st.integers(0, 3) | WORDS
LEAVES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={"format": st.sampled_from([*sorted(FORMATS), "binary", "text"]), "minLength": st.integers(0, 3)},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])}, optional={"minimum": st.integers(0, 3)}),
    st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null"])}),
    st.fixed_dictionaries({"enum": st.lists(PRIMITIVES, min_size=1, max_size=3)}, optional={"type": st.just("string")}),
    st.fixed_dictionaries({"const": PRIMITIVES}, optional={"type": st.just("string")}),
    st.fixed_dictionaries({"$ref": st.just("#/$defs/A")}, optional={"description": WORDS}),
)


def within(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)},
            optional={
                "required": st.just(["a"]), "additionalProperties": st.booleans(), "minProperties": st.integers(0, 2),
                "$defs": st.fixed_dictionaries({"A": inner}),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")}, optional={"items": inner, "minItems": st.integers(0, 2), "maxItems": st.integers(1, 3)}
        ),
        st.fixed_dictionaries({"anyOf": several}),
        st.fixed_dictionaries({"oneOf": several}),
        st.fixed_dictionaries({"allOf": several}, optional={"type": st.just("string")}),
    )  # fmt: skip


SCHEMAS = st.recursive(st.tuples(LEAVES, COMMON).map(lambda pair: {**pair[1], **pair[0]}), within, max_leaves=8)


@given(SCHEMAS)
def test_a_schema_becomes_what_the_package_makes_of_it(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert closed_schema(schema) == transform_schema(copy.deepcopy(schema))
    assert schema == before


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A part."""

    size: float = Field(gt=0, description="In metres.")
    colour: Colour | None = None
    kind: Literal["a", "b"] = "a"


class Whole(BaseModel):
    name: str = Field(max_length=3)
    parts: list[Part] = Field(min_length=2)
    pair: tuple[int, str] | None = None
    best: Part | None = None


class Parts(RootModel[list[Part]]):
    pass


@pytest.mark.parametrize("model", [Part, Whole, Parts])
def test_the_schema_of_a_class_becomes_what_the_package_makes_of_it(model: type[BaseModel]) -> None:
    assert closed_schema(model.model_json_schema()) == transform_schema(model)


def test_a_type_may_be_one_of_several() -> None:
    schema = {"type": ["object", "null"], "properties": {"a": {"type": ["string", "null"], "format": "date"}}}
    assert closed_schema(schema) == {
        "type": ["object", "null"],
        "properties": {"a": {"type": ["string", "null"], "format": "date"}},
        "additionalProperties": False,
    }
    schema = {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}, "minItems": 1}
    assert closed_schema(schema)["items"] == {"type": "string", "description": "{minLength: 1}"}
    assert closed_schema(schema)["minItems"] == 1


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        "secret",
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": ["secret"]},
        {"type": "array", "items": True},
        {"anyOf": [{"type": "string"}, True]},
        {"description": "secret"},
        {"enum": []},
        {"type": "string", "$defs": {"A": {}}},
    ],
)
def test_a_schema_that_leaves_a_place_open_is_refused_and_not_quoted(schema: Any) -> None:
    with pytest.raises(ValueError) as caught:
        closed_schema(schema)
    assert "secret" not in str(caught.value)


def test_an_object_of_no_properties_is_one() -> None:
    for schema in ({"type": "object", "additionalProperties": False}, {"type": "object", "properties": {}}):
        assert closed_schema(schema) == {"type": "object", "properties": {}, "additionalProperties": False}


def test_local_definitions_by_their_older_name_are_closed_too() -> None:
    schema = {"$ref": "#/definitions/A", "definitions": {"A": {"type": "object", "properties": {}}}}
    assert closed_schema(schema)["definitions"]["A"]["additionalProperties"] is False
