"""The schema of a class goes to OpenAI as its own package sends it: closed, and held to strictly where that can be."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Literal

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.openai import chat_body
from gateway_remote.formats.openai_responses import chat_body as responses_body
from gateway_remote.formats.openai_schema import closed, strict_schema
from openai.lib._parsing._completions import type_to_response_format_param
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field, create_model

from gateway import Chat

ROW = ModelRow(name="m", base_url="http://h", features=["json_schema"])


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Piece(BaseModel):
    """A part."""

    size: float = Field(gt=0, description="In metres.")
    colour: Colour | None = None
    kind: Literal["a", "b"]


class Whole(BaseModel):
    name: str
    pieces: list[Piece] = Field(min_length=2)
    best: Piece = Field(description="Of all.")
    spare: Piece | None = None


class Node(BaseModel):
    name: str
    below: list[Node]
    first: Node | None = None


class Counted(BaseModel):
    name: str
    count: int = 3


class Free(BaseModel):
    by_name: dict[str, int]


class Inward(BaseModel):
    name: str
    inner: Inward = Field(description="It never ends.")


def sent(model: type[BaseModel]) -> dict[str, Any]:
    body = json.loads(chat_body(Chat.ask("Where?", response_format=model), ROW, False).body)
    wanted: dict[str, Any] = body["response_format"]
    return wanted


@pytest.mark.parametrize("model", [Piece, Whole, Node])
def test_the_schema_of_a_class_is_what_the_package_sends(model: type[BaseModel]) -> None:
    assert sent(model) == type_to_response_format_param(model)
    assert sent(model)["json_schema"]["strict"] is True
    in_responses = json.loads(responses_body(Chat.ask("Where?", response_format=model), ROW, False).body)
    assert in_responses["text"]["format"]["schema"] == to_strict_json_schema(model)
    assert in_responses["text"]["format"]["strict"] is True


def test_a_default_does_not_keep_a_class_from_being_held_to() -> None:
    wanted = sent(Counted)["json_schema"]
    assert wanted["strict"] is True
    assert wanted["schema"]["required"] == ["name", "count"]
    assert "default" not in json.dumps(wanted)  # the package sends it, and the API refuses it


def test_what_cannot_be_held_to_is_sent_as_it_is() -> None:
    assert sent(Free)["json_schema"] == {"name": "Free", "schema": Free.model_json_schema(), "strict": False}
    written = Counted.model_json_schema()
    body = json.loads(chat_body(Chat.ask("Where?", response_format=written), ROW, False).body)
    assert body["response_format"]["json_schema"] == {"name": "Counted", "schema": written, "strict": False}


def test_a_class_that_would_grow_out_of_all_bounds_is_sent_as_it_is() -> None:
    below: type[BaseModel] = Counted
    for at in range(14):
        described: Any = {name: (below, Field(description=name)) for name in ("one", "two")}
        below = create_model(f"Level{at}", **described)
    wanted = sent(below)["json_schema"]
    assert wanted["strict"] is False and wanted["schema"] == below.model_json_schema()


@pytest.mark.parametrize("ref", ["#", "#/nowhere/X", "https://x.example/schema.json", "#/title/x"])
def test_a_reference_that_leads_nowhere_is_left_as_it_is(ref: str) -> None:
    schema = {"type": "object", "title": "T", "properties": {"a": {"$ref": ref, "description": "d"}}}
    assert closed(schema, schema)["properties"]["a"] == {"$ref": ref, "description": "d"}


def test_a_class_that_holds_itself_has_an_end() -> None:
    schema = Inward.model_json_schema()
    assert closed(schema, schema)["properties"]["inner"] == {"$ref": "#/$defs/Inward"}
    assert strict_schema(closed(schema, schema)) and not strict_schema(schema)
