"""Every option of a chat is in a body of the Messages API, or refused by name; so is every part of its messages."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from anthropic_case import KEY, KEY_REF, OLDER, ROW, asked, model_row
from gateway_remote.formats.anthropic import VERSION, messages_body

from gateway import (
    Audio,
    Chat,
    File,
    Image,
    InvalidRequest,
    Message,
    Meta,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    UnsupportedOption,
)
from gateway.testing import LoopbackServer

LOOK = Tool(name="look")
SHAPE = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def chat(*messages: Message, **options: Any) -> Chat:
    return Chat(messages=messages, **options)


def body(request: Chat, row: Any = ROW, *, dropped: tuple[str, ...] = ()) -> Any:
    sending = messages_body(request, row, False)
    assert (sending.path, sending.content_type, tuple(sending.dropped)) == ("/messages", "application/json", dropped)
    return json.loads(sending.body)


def refused(request: Chat, row: Any = ROW) -> str:
    with pytest.raises(UnsupportedOption) as caught:
        messages_body(request, row, False)
    assert caught.value.model == "m" and "secret" not in str(caught.value)
    return caught.value.option


def test_the_limit_is_the_request_s_else_the_row_s_else_a_usual_one() -> None:
    assert body(Chat.ask("Hi", max_tokens=5), model_row(max_output=9))["max_tokens"] == 5
    assert body(Chat.ask("Hi"), model_row(max_output=9))["max_tokens"] == 9
    assert body(Chat.ask("Hi"), model_row(body={"max_tokens": 7}))["max_tokens"] == 7
    assert body(Chat.ask("Hi"))["max_tokens"] == 4096


def test_a_row_s_own_output_config_stands_beside_ours() -> None:
    sent = body(Chat.ask("Hi", response_format=SHAPE), model_row(body={"output_config": {"effort": "max"}}))
    assert sent["output_config"]["effort"] == "max" and sent["output_config"]["format"]["type"] == "json_schema"
    assert body(Chat.ask("Hi", reasoning="low"), model_row(body={"output_config": 3}))["output_config"] == {"effort": "low"}


# Every option of a chat, with a value and where it goes: (in the body, at a row that takes it) or refused at every row.
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"tools": (LOOK,)}, "tools"),
    "tool_choice": ({"tools": (LOOK,), "tool_choice": "required"}, "tool_choice"),
    "parallel_tool_calls": ({"tools": (LOOK,), "parallel_tool_calls": False}, "tool_choice"),
    "response_format": ({"response_format": SHAPE}, "output_config"),
    "max_tokens": ({"max_tokens": 3}, "max_tokens"),
    "temperature": ({"temperature": 0.5}, "temperature"),
    "top_p": ({"top_p": 0.5}, "top_p"),
    "top_k": ({"top_k": 3}, "top_k"),
    "stop": ({"stop": ("x",)}, "stop_sequences"),
    "reasoning": ({"reasoning": "low"}, "thinking"),
    "presence_penalty": ({"presence_penalty": 0.5}, ""),
    "frequency_penalty": ({"frequency_penalty": 0.5}, ""),
    "seed": ({"seed": 7}, ""),
    "logprobs": ({"logprobs": 2}, ""),
}
TUNING = ("presence_penalty", "frequency_penalty", "seed", "logprobs")


def test_every_option_of_a_chat_is_looked_at() -> None:
    assert {f.name for f in fields(Chat)} - {"messages", "meta"} == set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_in_the_body_or_refused_by_name(option: str) -> None:
    given, field = OPTIONS[option]
    request = Chat.ask("Hi", **given)
    if field:
        assert field in body(request, OLDER) and (field == "max_tokens" or field not in body(Chat.ask("Hi"), OLDER))
    else:
        assert refused(request, OLDER) == option
    assert refused(request, replace(OLDER, refuses=frozenset({option}))) == option


@pytest.mark.parametrize("option", ["temperature", "top_p", "top_k"])
def test_the_version_of_today_takes_no_sampling(option: str) -> None:
    row = model_row(features=["top_k"])
    assert refused(Chat.ask("Hi", **OPTIONS[option][0]), row) == option
    assert (
        refused(Chat.ask("Hi", **OPTIONS[option][0]), model_row(features=["top_k"], headers={"Anthropic-Version": VERSION}))
        == option
    )
    assert option in body(
        Chat.ask("Hi", **OPTIONS[option][0]), model_row(features=["top_k"], headers={"Anthropic-Version": "2023-06-01"})
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("option", [*TUNING, "temperature", "top_p", "top_k", "reasoning"])
def test_an_option_that_only_tunes_is_left_out_where_that_is_allowed(server: LoopbackServer, option: str, stream: bool) -> None:
    given = {"reasoning": "minimal"} if option == "reasoning" else OPTIONS[option][0]
    reply = asked(server, Chat.ask("Hi", **given, meta=Meta(drop_unsupported=True)), stream=stream)
    assert reply.dropped == (option,) and reply.text == "You said: Hi"
    assert server.requests[-1].json.keys() <= {"model", "max_tokens", "messages", "stream"}


@pytest.mark.parametrize("option", ["tools", "response_format"])
def test_an_option_that_the_answer_depends_on_is_never_left_out(option: str) -> None:
    request = Chat.ask("Hi", **OPTIONS[option][0], meta=Meta(drop_unsupported=True))
    assert refused(request, model_row(features=[])) == option


def test_an_effort_or_warmth_that_the_api_does_not_have_is_refused() -> None:
    assert refused(Chat.ask("Hi", reasoning="minimal")) == "reasoning"
    assert refused(Chat.ask("Hi", temperature=1.5), OLDER) == "temperature"
    sent = body(Chat.ask("Hi", temperature=1.5, meta=Meta(drop_unsupported=True)), OLDER, dropped=("temperature",))
    assert "temperature" not in sent


BROKEN = "secret"


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Chat.ask("Hi", Audio(data=b"1")), "messages.audio"),
        (Chat.ask("Hi", Image(data=b"1", media_type="image/tiff")), "messages.image.media_type"),
        (Chat.ask("Hi", File(data=b"1", media_type="application/zip")), "messages.file.media_type"),
        (Chat.ask("Hi", File(url="https://x.example/a.txt", media_type="text/plain")), "messages.file.url"),
        (Chat.ask("Hi", File(data=b"\xff", media_type="text/plain")), "messages.file.data"),
        (Chat.ask("Hi", tool_choice="required"), "tool_choice"),
        (Chat.ask("Hi", response_format={"type": "object"}), "response_format"),
        (Chat.ask("Hi", response_format={"properties": {BROKEN: {}}}), "response_format"),
        (chat(Message.system("Be brief.")), "messages"),
        (chat(Message.user("Hi"), Message.assistant("Hello")), "messages"),
        (chat(Message.user("Hi"), Message.assistant("Hello"), Message.system("In French!")), "messages"),
        (chat(Message.assistant(Image(data=b"1")), Message.user("Hi")), "messages.parts"),
        (chat(Message.assistant(ToolCall("c", "look", BROKEN)), Message.tool("c", "")), "messages.tool_call.arguments"),
        (chat(Message.assistant(ToolCall("c", "look", "[1]")), Message.tool("c", "")), "messages.tool_call.arguments"),
        (chat(Message.user(ToolCall("c", "look"))), "messages.parts"),
        (chat(Message.user(Reasoning("hm"))), "messages.parts"),
        (chat(Message(role="tool", parts=(Text("free text"),))), "messages.parts"),
        (chat(Message(role="system", parts=(Image(data=b"1"),)), Message.user("Hi")), "messages.parts"),
    ],
)
def test_what_the_wire_cannot_carry_is_named(request_: Chat, option: str) -> None:
    assert refused(request_) == option


@pytest.mark.parametrize("part", [Image(data=b"1"), Image(url="https://x.example/a.png"), File(data=b"1")])
def test_media_that_the_card_does_not_list_are_not_sent(part: Part) -> None:
    assert refused(Chat.ask("Hi", part), model_row(modalities=["text"])) == f"messages.{part.type}"


def test_no_reasoning_asked_of_a_model_without_it_is_left_out() -> None:
    assert "thinking" not in body(Chat.ask("Hi", reasoning="none"), model_row(features=[]))


def test_a_choice_about_tools_that_are_not_there_is_not_sent() -> None:
    assert body(Chat.ask("Hi", tool_choice="none", parallel_tool_calls=False)) == body(Chat.ask("Hi"))


def test_empty_words_are_left_out_and_half_a_surrogate_is_carried() -> None:
    assert body(chat(Message.user("", "Hi"), Message.assistant("", "a"), Message.user("b")))["messages"] == [
        user("Hi"), said("a"), user("b"),
    ]  # fmt: skip
    assert body(Chat.ask(""))["messages"] == [user("")]  # the API says that it is empty
    assert body(Chat.ask("x\ud800y"))["messages"][0]["content"] == "x\ud800y"
    broken = chat(Message.assistant(ToolCall("c", "look", '{"a":"\\ud800"}')), Message.tool("c", "x"))
    assert body(broken)["messages"][0]["content"][0]["input"] == {"a": "\ud800"}


def test_what_json_does_not_have_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest):
        body(Chat.ask("Hi", tools=(Tool(name="t", parameters={"type": object()}),)))
