"""What a format cannot read of an answer, or has no place for, is an error: never an answer with a hole in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_remote.formats.api import Heard, api_named

from gateway import BadReply, Chat, ContentFiltered, Reasoning, ServiceError, Text, Tool, ToolCall

ASKED = Chat.ask("Hi", tools=(Tool(name="f"),))


def openai(message: Any, finish: Any = "stop") -> Any:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def piece(delta: Any, finish: Any = None, **others: Any) -> Any:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **others}]}


def gemini(parts: Any, finish: Any = "STOP") -> Any:
    return {"candidates": [{"content": {"parts": parts}, "finishReason": finish}]}


def responses(*output: Any) -> Any:
    return {"status": "completed", "output": list(output)}


def said(content: Any) -> Any:
    return responses({"type": "message", "content": content})


def block(delta: Any, kind: Any = "text") -> list[Any]:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": kind, "name": "f", "id": "1"}}
    return [start, {"type": "content_block_delta", "index": 0, "delta": delta}, *ENDED]


ENDED = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]

WHOLE: dict[str, tuple[str, Any]] = {
    "a number": ("openai", openai({"content": 123})),
    "an object": ("openai", openai({"content": {"text": "hi"}})),
    "a list of texts": ("openai", openai({"content": ["hi"]})),
    "a part without a kind": ("openai", openai({"content": [{"text": "hi"}]})),
    "a part of an unknown kind": ("openai", openai({"content": [{"type": "hologram", "text": "hi"}]})),
    "a text of a part": ("openai", openai({"content": [{"type": "text", "text": 5}]})),
    "no call": ("openai", openai({"content": None}, "tool_calls")),
    "sound": ("openai", openai({"content": "hi", "audio": {"data": "AAAA"}})),
    "pictures": ("openai", openai({"content": "hi", "images": [{"image_url": {"url": "data:"}}]})),
    "a call as of old": ("openai", openai({"content": None, "function_call": {"name": "f"}}, "function_call")),
    "anthropic's number": ("anthropic", {"content": [{"type": "text", "text": 5}], "stop_reason": "end_turn"}),
    "gemini's number": ("gemini", gemini([{"text": 5}])),
    "gemini's texts": ("gemini", gemini(["hi"])),
    "gemini's parts": ("gemini", gemini("hi")),
    "gemini's content": ("gemini", {"candidates": [{"content": "hi", "finishReason": "STOP"}]}),
    "gemini's call": ("gemini", gemini([{"functionCall": "f"}])),
    "gemini's call in pieces": ("gemini", gemini([{"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a"}]}}])),
    "gemini's finish": ("gemini", gemini([{"text": "hi"}], 5)),
    "an item": ("openai-responses", responses("hi")),
    "an item's content": ("openai-responses", said("hi")),
    "an item's text": ("openai-responses", said([{"type": "output_text", "text": 5}])),
    "another tool's call": ("openai-responses", responses({"type": "custom_tool_call", "name": "f", "input": "x"})),
    "a wish to be allowed": ("openai-responses", responses({"type": "mcp_approval_request", "name": "f"})),
    "an item of no kind": ("openai-responses", responses({"content": "hi"})),
    "a part of an unknown kind in responses": ("openai-responses", said([{"type": "hologram", "text": "hi"}])),
    "a picture": ("openai-responses", responses({"type": "image_generation_call", "result": "AAAA"})),
}
STREAMED: dict[str, tuple[str, list[Any]]] = {
    "a number": ("openai", [piece({"content": 5}), piece({}, "stop")]),
    "a text for a delta": ("openai", [piece("hi"), piece({}, "stop")]),
    "a message for a delta": ("openai", [openai({"content": "hi"})]),
    "no call": ("openai", [piece({}), piece({}, "tool_calls")]),
    "sound": ("openai", [piece({"audio": {"data": "AAAA"}}), piece({}, "stop")]),
    "anthropic's number": ("anthropic", block({"type": "text_delta", "text": 5})),
    "anthropic's thought": ("anthropic", block({"type": "thinking_delta", "thinking": 5}, "thinking")),
    "anthropic's arguments": ("anthropic", block({"type": "input_json_delta", "partial_json": {}}, "tool_use")),
    "a text for anthropic's delta": ("anthropic", block("hi")),
    "anthropic's delta of no kind": ("anthropic", block({"text": "hi"})),
    "anthropic's block of no kind": ("anthropic", block({"type": "text_delta", "text": "hi"}, "")),
    "no call of anthropic's": ("anthropic", [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}]),
    "gemini's number": ("gemini", [gemini([{"text": 5}])]),
    "a number of responses": ("openai-responses", [{"type": "response.output_text.delta", "delta": 5}]),
    "items of responses": ("openai-responses", [{"type": "response.completed", "response": responses("hi")}]),
}


def decoded(api: str, payload: Any, request: Any = ASKED) -> Any:
    return api_named(api).routes[Chat].decode(json.dumps(payload).encode(), request, Heard("m"))


def read(api: str, events: list[Any]) -> Any:
    route = api_named(api).routes[Chat]
    assert route.read is not None
    reader = route.read(ASKED, Heard("m"))
    for event in events:
        reader.feed(json.dumps(event).encode())
    return reader.response()


@pytest.mark.parametrize("case", WHOLE)
def test_what_cannot_be_read_of_a_whole_reply_is_an_error(case: str) -> None:
    with pytest.raises(BadReply):
        decoded(*WHOLE[case])


@pytest.mark.parametrize("case", STREAMED)
def test_what_cannot_be_read_of_a_stream_is_an_error(case: str) -> None:
    with pytest.raises(BadReply) as caught:
        read(*STREAMED[case])
    assert caught.value.in_stream


@pytest.mark.parametrize("content", ["", None])
def test_an_answer_may_be_empty(content: str | None) -> None:
    assert decoded("openai", openai({"content": content})).parts == ()
    assert decoded("anthropic", {"content": [], "stop_reason": "end_turn"}).parts == ()
    assert decoded("gemini", gemini([])).parts == ()
    assert decoded("openai-responses", said(None)).parts == ()


def test_thoughts_among_the_content_are_read_as_mistral_sends_them() -> None:
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]
    assert decoded("openai", openai({"content": content})).parts == (Reasoning("hm"), Text("Hi"))
    thought = piece({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})
    assert read("openai", [thought, piece({"content": "Hi"}), piece({}, "stop")]).parts == (Reasoning("hm"), Text("Hi"))


def test_thoughts_among_the_content_are_read_as_databricks_sends_them() -> None:
    content = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]
    assert decoded("openai", openai({"content": content})).parts == (Reasoning("hm"), Text("Hi"))


def test_a_call_that_is_told_again_as_of_old_is_told_once() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    twice = {"content": None, "tool_calls": [call], "function_call": {"name": "f", "arguments": "{}"}}
    assert decoded("openai", openai(twice, "tool_calls")).parts == (ToolCall("c", "f", "{}"),)
    streamed = piece({"tool_calls": [{"index": 0, **call}], "function_call": {"name": "f", "arguments": "{}"}})
    assert read("openai", [streamed, piece({}, "tool_calls")]).parts == (ToolCall("c", "f", "{}"),)


@pytest.mark.parametrize(
    "end",
    [
        {"index": 0, "delta": None, "message": None, "finish_reason": "stop"},
        {"index": 0, "delta": [], "finish_reason": "stop"},
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"},
    ],
)
def test_a_last_chunk_that_adds_nothing_may_have_any_form(end: Any) -> None:
    assert read("openai", [piece({"content": "Hi"}), {"choices": [end]}]).parts == (Text("Hi"),)


def test_what_a_message_names_and_does_not_hold_is_not_there() -> None:
    nothing = {"function_call": {"name": None, "arguments": ""}, "audio": {"id": None}, "images": []}
    assert decoded("openai", openai({"content": "Hi", **nothing})).parts == (Text("Hi"),)
    assert decoded("openai", openai({"content": "Hi"}, "tool_calls")).finish == "stop"


FILTERED = {
    "openai": openai({"content": ""}, "content_filter"),
    "anthropic": {"content": [], "stop_reason": "refusal"},
    "gemini": gemini([], "SAFETY"),
    "openai-responses": {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []},
}


@pytest.mark.parametrize("api", FILTERED)
def test_a_filter_that_has_left_nothing_is_no_answer(api: str) -> None:
    with pytest.raises(ContentFiltered):
        decoded(api, FILTERED[api])


def test_a_filter_that_has_left_nothing_of_a_stream_is_no_answer() -> None:
    for api, events in (("openai", [piece({}, "content_filter")]), ("gemini", [gemini([], "SAFETY")])):
        with pytest.raises(ServiceError) as caught:
            read(api, events)
        assert isinstance(caught.value, ContentFiltered) and caught.value.in_stream
