"""What we send to the Messages API is what the `anthropic` package sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from anthropic_case import FACTS, KEY, KEY_REF, MODEL, OLD, ROW, asked, sdk
from gateway_remote.formats.anthropic import API, VERSION, offers
from gateway_remote.formats.api import Offer
from pydantic import BaseModel

from gateway import (
    Chat,
    Citation,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from gateway.testing import LoopbackServer, Reply
from gateway.testing.anthropic import signature


class City(BaseModel):
    """A city."""

    name: str
    people: int = 0


LOOK = Tool(name="look", description="Looks.", parameters={"type": "object", "properties": {"at": {"type": "integer"}}})
HEAR = Tool(name="hear")
LOOKS = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {"at": {"type": "integer"}}}}
HEARS = {"name": "hear", "input_schema": {"type": "object", "properties": {}}}
CALL, OTHER = ToolCall("c1", "look", '{"at":1}'), ToolCall("c2", "look", "")
CALLS = [
    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
    {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "c1", "content": "a tree"},
    {"type": "tool_result", "tool_use_id": "c2", "content": "no light", "is_error": True},
]
THOUGHT = Reasoning("hm", f"anthropic:{signature('hm')}")
SHAPE = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
CITED = {"citations": {"enabled": True}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def chat(*messages: Message, **options: Any) -> Chat:
    return Chat(messages=messages, **options)


HI = [user("Hi")]
SAME: dict[str, tuple[Chat, dict[str, Any]]] = {
    "a question": (Chat.ask("Hi"), {"messages": HI}),
    "a limit": (Chat.ask("Hi", max_tokens=9), {"messages": HI, "max_tokens": 9}),
    "a system prompt": (Chat.ask("Hi", system="Be brief."), {"messages": HI, "system": "Be brief."}),
    "several system prompts": (
        chat(Message.system("A"), Message.user("Hi"), Message.system(""), Message.system("B")),
        {"messages": HI, "system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
    ),
    "turns": (
        chat(Message.user("Hi"), Message.assistant("Hello"), Message.user("Go on")),
        {"messages": [user("Hi"), said("Hello"), user("Go on")]},
    ),
    "turns of one side in a row": (
        chat(Message.user("Hi"), Message.user("there"), Message.assistant("a"), Message.assistant("b"), Message.user("?")),
        {
            "messages": [
                user([{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]),
                said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
                user("?"),
            ]
        },
    ),
    "images": (
        Chat.ask("Look:", Image(data=b"\x01", media_type="image/jpeg"), Image(url="https://x.example/a.png")),
        {
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Look:"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AQ=="}},
                        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
                    ]
                )
            ]
        },
    ),
    "documents": (
        Chat.ask(
            "Read:", File(data=b"%PDF", name="a.pdf"), File(url="https://x.example/b.pdf"),
            File(data="Zürich".encode(), media_type="text/markdown; charset=utf-8", name="c.md"),
        ),
        {
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Read:"},
                        {
                            "type": "document", "title": "a.pdf", **CITED,
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                        },
                        {"type": "document", **CITED, "source": {"type": "url", "url": "https://x.example/b.pdf"}},
                        {
                            "type": "document", "title": "c.md", **CITED,
                            "source": {"type": "text", "media_type": "text/plain", "data": "Zürich"},
                        },
                    ]
                )
            ]
        },
    ),
    "a document and a shape for the answer, which are not cited together": (
        Chat.ask("Read:", File(data=b"abc", media_type="text/plain"), response_format=City),
        {
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Read:"},
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}},
                    ]
                )
            ],
            "output_format": City,
        },
    ),
    "calls, results and what was thought": (
        chat(
            Message.user("What is there?"),
            Message.assistant(
                THOUGHT, Reasoning("", "anthropic:redacted:b3BhcXVl"), Reasoning("no", "gemini:x"), Reasoning("nor this"),
                Text("Let me see."), Citation(title="t"), CALL, OTHER,
            ),
            Message(role="tool", parts=(ToolResult("c1", "a tree"), ToolResult("c2", "no light", error=True))),
            tools=(LOOK,),
        ),
        {
            "messages": [
                user("What is there?"),
                said(
                    [
                        {"type": "thinking", "thinking": "hm", "signature": signature("hm")},
                        {"type": "redacted_thinking", "data": "b3BhcXVl"},
                        {"type": "text", "text": "Let me see."},
                        *CALLS,
                    ]
                ),
                user(RESULTS),
            ],
            "tools": [LOOKS],
        },
    ),
    "results, which go first whatever comes between": (
        chat(
            Message.user("What is there?"), Message.assistant(CALL, OTHER), Message.user("Quick!"),
            Message.tool("c1", "a tree"), Message.tool(OTHER, "no light", error=True), Message.user("Well?"), tools=(LOOK,),
        ),
        {
            "messages": [
                user("What is there?"),
                said(CALLS),
                user([*RESULTS, {"type": "text", "text": "Quick!"}, {"type": "text", "text": "Well?"}]),
            ],
            "tools": [LOOKS],
        },
    ),
    "an assistant's message of nothing but another model's thoughts": (
        chat(Message.user("Hi"), Message.assistant(Reasoning("hm", "responses:x")), Message.user("Hello?")),
        {"messages": [user([{"type": "text", "text": "Hi"}, {"type": "text", "text": "Hello?"}])]},
    ),
    "tools": (Chat.ask("Hi", tools=(LOOK, HEAR)), {"messages": HI, "tools": [LOOKS, HEARS]}),
    "a tool that must be called": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="required"),
        {"messages": HI, "tools": [LOOKS], "tool_choice": {"type": "any"}},
    ),
    "a named tool, one at a time": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="look", parallel_tool_calls=False),
        {"messages": HI, "tools": [LOOKS], "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True}},
    ),
    "tools of its choice, several at a time": (
        Chat.ask("Hi", tools=(LOOK,), parallel_tool_calls=True),
        {"messages": HI, "tools": [LOOKS], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
    ),
    "no tool now": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="none", parallel_tool_calls=False),
        {"messages": HI, "tools": [LOOKS], "tool_choice": {"type": "none"}},
    ),
    "a shape as a class": (Chat.ask("Hi", response_format=City), {"messages": HI, "output_format": City}),
    "a shape as a schema, and an effort": (
        Chat.ask("Hi", response_format=SHAPE, reasoning="high"),
        {
            "messages": HI,
            "thinking": {"type": "adaptive"},
            "output_config": {
                "effort": "high",
                "format": {
                    "type": "json_schema",
                    "schema": {
                        "type": "object", "required": ["a"], "additionalProperties": False,
                        "properties": {"a": {"type": "integer", "description": "{minimum: 1}"}},
                    },
                },
            },
        },
    ),
    "no thinking": (Chat.ask("Hi", reasoning="none"), {"messages": HI, "thinking": {"type": "disabled"}}),
    "stops": (Chat.ask("Hi", stop=("a", "b")), {"messages": HI, "stop_sequences": ["a", "b"]}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


@pytest.mark.parametrize("name", SAME)
def test_we_send_what_the_package_sends(server: LoopbackServer, name: str) -> None:
    request, params = SAME[name]
    params = {"model": MODEL, "max_tokens": 4096, **params}
    server.always(Reply(text='{"name": "Bern"}'))
    asked(server, replace(request, response_format=request.response_schema))
    asked(server, replace(request, response_format=request.response_schema), stream=True)
    with sdk(server) as client:
        (client.messages.parse if "output_format" in params else client.messages.create)(**params)
        with client.messages.stream(**params) as stream:
            stream.until_done()
    ours, theirs = server.requests[:2], server.requests[2:]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.json == its.json and (mine.method, mine.path, mine.query) == (its.method, its.path, its.query)
        for header in ("anthropic-version", "content-type"):
            assert mine.headers[header] == its.headers[header]
        # The API takes a key in either header; its reference shows x-api-key, which other servers of it know too.
        assert mine.headers["x-api-key"] == KEY and its.headers["authorization"] == f"Bearer {KEY}"
        assert "authorization" not in mine.headers


def test_an_older_version_samples_as_it_is_told(server: LoopbackServer) -> None:
    request = Chat.ask("Hi", temperature=0.0, top_p=0.5, top_k=3)
    asked(server, request, headers=OLD, features=[*API.features, "top_k"])
    with sdk(server, default_headers=OLD) as client:
        # The package has these for older models in `extra_body` only.
        more = {"temperature": 0.0, "top_p": 0.5, "top_k": 3}
        client.messages.create(model=MODEL, max_tokens=4096, messages=[{"role": "user", "content": "Hi"}], extra_body=more)
    mine, its = server.requests
    assert mine.json == its.json and mine.json["temperature"] == 0
    assert mine.headers["anthropic-version"] == its.headers["anthropic-version"] == OLD["anthropic-version"]


def test_a_prefill_goes_to_a_model_that_goes_on_with_it(server: LoopbackServer) -> None:
    begun = chat(Message.user("Name a river."), Message.assistant("The river is"))
    facts = {"features": [*API.features, "prefill"]}
    asked(server, begun, **facts)
    params: Any = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The river is"}]
    with sdk(server) as client:
        client.messages.create(model=MODEL, max_tokens=4096, messages=params)
    assert server.requests[0].json == server.requests[1].json


def test_the_preset_s_row_speaks_it_with_the_api_s_features() -> None:
    row = type(ROW)(**type(ROW).filled({"preset": "anthropic", "name": MODEL}))
    assert row.wire is API and row.card.features == frozenset(API.features)
    assert API.headers == {"anthropic-version": VERSION} and API.key_header == "x-api-key"
    assert FACTS["api"] == row.api


def test_the_list_of_models_is_read_page_by_page() -> None:
    first = {
        "data": [{"id": "a", "max_input_tokens": 200_000, "max_tokens": 64_000}, {"id": "b"}],
        "has_more": True,
        "last_id": "b/ü",
    }
    assert offers(first) == (
        [Offer(name="a", context=200_000, max_output=64_000), Offer(name="b")],
        "/models?limit=1000&after_id=b%2F%C3%BC",
    )
    assert offers({"data": [{"id": "c", "max_tokens": 0}, {"id": 3}, "x"], "has_more": False, "last_id": "c"}) == (
        [Offer(name="c")],
        "",
    )
    assert offers({"data": [], "has_more": True, "last_id": None}) == ([], "")
    assert offers([]) == ([], "") and offers({"data": 3}) == ([], "")


def test_the_list_is_of_the_fields_that_the_package_has() -> None:
    from anthropic.pagination import SyncPage
    from anthropic.types import ModelInfo, ModelListParams

    assert {"id", "max_input_tokens", "max_tokens"} <= ModelInfo.model_fields.keys()
    assert {"data", "has_more", "last_id"} <= SyncPage.model_fields.keys()
    assert {"limit", "after_id"} <= ModelListParams.__annotations__.keys()
