"""Every option of a chat over Gemini's API: carried, or named; and what only tunes the answer may be left out."""

import json
from dataclasses import replace
from typing import Any

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.gemini import chat_body
from gemini_case import KEY, KEY_REF, asked, facts_for, sent_by_us
from openai_case import OPTIONS, with_option

from gateway import Audio, Chat, File, Image, Message, Meta, Part, Reasoning, Text, ToolCall, ToolResult, UnsupportedOption
from gateway.testing import LoopbackServer

ROW = ModelRow(name="m", base_url="http://h", **{**facts_for(), "api_key": []})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


CARRIED: dict[str, tuple[str, ...]] = {
    "tools": ("tools",), "tool_choice": ("toolConfig",), "response_format": ("generationConfig", "responseJsonSchema"),
    "max_tokens": ("generationConfig", "maxOutputTokens"), "temperature": ("generationConfig", "temperature"),
    "top_p": ("generationConfig", "topP"), "top_k": ("generationConfig", "topK"),
    "presence_penalty": ("generationConfig", "presencePenalty"), "frequency_penalty": ("generationConfig", "frequencyPenalty"),
    "stop": ("generationConfig", "stopSequences"), "seed": ("generationConfig", "seed"),
    "logprobs": ("generationConfig", "logprobs"), "reasoning": ("generationConfig", "thinkingConfig"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_carried_or_named(server: LoopbackServer, name: str, stream: bool) -> None:
    if name in CARRIED:
        sent = sent_by_us(server, with_option(name), stream=stream)[-1]
        for field in CARRIED[name]:
            sent = sent[field]
        return
    with pytest.raises(UnsupportedOption) as caught:
        sent_by_us(server, with_option(name), stream=stream)
    assert caught.value.option == name and not server.requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_only_tunes_may_be_left_out(name: str, stream: bool) -> None:
    tunes = name not in ("tools", "tool_choice", "response_format")
    refusing = replace(ROW, refuses=frozenset({name}))
    if not tunes:
        with pytest.raises(UnsupportedOption) as caught:
            chat_body(with_option(name, drop=True), refusing, stream)
        assert caught.value.option == name
        return
    sending = chat_body(with_option(name, drop=True), refusing, stream)
    assert sending.dropped == [name] and json.loads(sending.body).keys() == {"contents"}


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_left_out_is_told_in_the_reply(server: LoopbackServer, stream: bool) -> None:
    got = asked(server, with_option("parallel_tool_calls", drop=True), stream=stream)
    assert (got[1] if stream else got).dropped == ("parallel_tool_calls",)


@pytest.mark.parametrize(
    ("messages", "option"),
    [
        ((Message.system("Be brief."),), "messages"),
        ((Message.assistant(Reasoning("hm")),), "messages"),
        ((Message.tool("gone", "1"),), "messages.parts"),
        ((Message.tool("late", "1"), Message.assistant(ToolCall("late", "look"))), "messages.parts"),
        ((Message.assistant(ToolCall("a", "look", "[1]")), Message.user("Hi")), "messages.parts"),
        ((Message.assistant(ToolCall("a", "look", "{")), Message.user("Hi")), "messages.parts"),
        ((Message.assistant(ToolResult("a", "1")), Message.user("Hi")), "messages.parts"),
        ((Message.user(ToolCall("a", "look")),), "messages.parts"),
        ((Message.user(Reasoning("hm")),), "messages.parts"),
        ((Message(role="tool", parts=(Text("free text"),)),), "messages.parts"),
        ((Message(role="system", parts=(Image(data=b"1"),)), Message.user("Hi")), "messages.parts"),
    ],
)
def test_what_the_wire_cannot_carry_is_named(messages: tuple[Message, ...], option: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        chat_body(Chat(messages=messages, meta=Meta(drop_unsupported=True)), ROW, False)
    assert caught.value.option == option


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("part", [Image(data=b"1"), Audio(data=b"1"), File(url="https://x.example/a.pdf")])
def test_media_that_the_card_lacks_are_refused(part: Part, role: Any) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        chat_body(
            Chat(messages=(Message(role=role, parts=(part,)), Message.user("Hi"))), replace(ROW, modalities=["text"]), False
        )
    assert caught.value.option == f"messages.{part.type}"
