"""Requests as bodies: everything is carried, or named as what cannot be."""

import json
from dataclasses import replace
from typing import Any

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.openai import chat_body, embed_body
from gateway_remote.formats.openai_schema import strict_schema

from gateway import (
    Audio,
    Chat,
    Embed,
    Image,
    InvalidRequest,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    UnsupportedOption,
)

ROW = ModelRow(
    name="m",
    base_url="http://h",
    model="wire-name",
    tasks=["chat", "embed"],
    features=["stop", "seed", "tools", "json_schema", "reasoning", "dimensions"],
    modalities=["text", "image", "audio"],
)
PLAIN = ModelRow(name="m", base_url="http://h", features=[])
LOOK = Tool(name="look", description="Looks.")


def body(request: Chat, row: ModelRow = ROW, *, stream: bool = False) -> Any:
    sending = chat_body(request, row, stream)
    assert sending.path == "/chat/completions" and sending.content_type == "application/json" and not sending.dropped
    return json.loads(sending.body)


def test_a_plain_question_is_no_more_than_model_and_messages() -> None:
    assert body(Chat.ask("Hi", system="Be brief.")) == {
        "model": "wire-name",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }


def test_every_option_is_carried() -> None:
    request = Chat.ask(
        "Hi", max_tokens=5, temperature=0.0, top_p=0.5, stop=("a", "b"), seed=7, reasoning="low",
        tools=(LOOK,), tool_choice="look",
    )  # fmt: skip
    sent = body(request)
    assert sent["max_tokens"] == 5 and sent["temperature"] == 0 and sent["top_p"] == 0.5
    assert sent["stop"] == ["a", "b"] and sent["seed"] == 7 and sent["reasoning_effort"] == "low"
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "look"}}


def test_the_name_of_the_token_limit_can_be_chosen() -> None:
    sent = body(Chat.ask("Hi", max_tokens=5), replace(ROW, max_tokens_field="max_completion_tokens"))
    assert sent["max_completion_tokens"] == 5 and "max_tokens" not in sent


RUN_BY_THE_PROVIDER = {"type": "web_search"}
BESIDE: dict[str, dict[str, Any]] = {
    "openai": {"tools": [RUN_BY_THE_PROVIDER], "stream_options": {"include_obfuscation": False}},
    "openai-responses": {"tools": [RUN_BY_THE_PROVIDER], "text": {"verbosity": "low"}, "reasoning": {"summary": "detailed"}},
    "anthropic": {"tools": [RUN_BY_THE_PROVIDER], "output_config": {"task_budget": 3}},
    "gemini": {
        "tools": [RUN_BY_THE_PROVIDER],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}, "candidateCount": 1},
        "toolConfig": {"retrievalConfig": {"languageCode": "de"}},
    },
}


def within(less: Any, more: Any) -> bool:
    """Whether all that is in the one is in the other, in its place."""
    if isinstance(less, dict):
        return all(name in more and within(value, more[name]) for name, value in less.items())
    return all(each in more for each in less) if isinstance(less, list) else bool(less == more)


@pytest.mark.parametrize("api", BESIDE)
def test_what_a_row_s_body_says_stays_beside_what_a_request_says(api: Any) -> None:
    row = ModelRow(name="m", base_url="http://h", api=api, features=[*(ROW.features or ()), "streaming"], body=BESIDE[api])
    request = Chat.ask("Hi", tools=(LOOK,), tool_choice="look", response_format={"type": "object", "properties": {}},
                       reasoning="low")  # fmt: skip
    sent = json.loads(row.wire.routes[Chat].encode(request, row, True).body)
    assert within(BESIDE[api], sent)
    assert sent["tools"][0] == RUN_BY_THE_PROVIDER and len(sent["tools"]) == 2 and "look" in json.dumps(sent["tools"][1])


def test_a_shape_that_a_row_s_body_gives_is_replaced_and_not_mixed() -> None:
    given = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}
    wanted = {"type": "object", "properties": {"b": {"type": "string"}}}
    gemini = ModelRow(name="m", base_url="http://h", api="gemini", body={"generationConfig": {"responseJsonSchema": given}})
    request = Chat.ask("Hi", response_format=wanted)
    sent = json.loads(gemini.wire.routes[Chat].encode(request, gemini, False).body)
    assert sent["generationConfig"]["responseJsonSchema"] == wanted


def test_a_stream_asks_for_its_usage() -> None:
    sent = body(Chat.ask("Hi"), stream=True)
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}


def test_media_keep_their_place_among_the_words() -> None:
    message = Message.user(
        "Look:",
        Image(data=b"\x01", media_type="image/jpeg"),
        Image(url="https://x.example/a.png"),
        "and hear:",
        Audio(data=b"\x02", media_type="audio/mpeg"),
    )
    [sent] = body(Chat(messages=(message,)))["messages"]
    assert sent["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AQ=="}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "text", "text": "and hear:"},
        {"type": "input_audio", "input_audio": {"data": "Ag==", "format": "mp3"}},
    ]


def test_calls_and_results_go_back_and_reasoning_does_not() -> None:
    call, other = ToolCall("c1", "look", '{"at":1}'), ToolCall("c2", "look", "")
    assistant = Message.assistant(Reasoning("hm"), Text("Let me see."), call, other)
    results = Message(role="tool", parts=(ToolResult("c1", "a tree"), ToolResult("c2", "no light", error=True)))
    sent = body(Chat(messages=(Message.user("What is there?"), assistant, results)))["messages"][1:]
    assert sent == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a tree"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no light"},
    ]


def test_a_call_without_words_has_null_content() -> None:
    sent = body(Chat(messages=(Message.assistant(ToolCall("c", "look")), Message.user("Go on"))))["messages"]
    assert sent[0]["content"] is None


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Chat.ask("Hi", Audio(url="https://x.example/a.wav")), "messages.audio.url"),
        (Chat.ask("Hi", Audio(data=b"1", media_type="audio/midi")), "messages.audio.media_type"),
        (Chat.ask("Hi", tool_choice="required"), "tool_choice"),
        (Chat(messages=(Message.assistant(Image(data=b"1")), Message.user("Hi"))), "messages.parts"),
        (Chat(messages=(Message.user(ToolCall("c", "look")),)), "messages.parts"),
        (Chat(messages=(Message(role="tool", parts=(Text("free text"),)),)), "messages.parts"),
        (Chat(messages=(Message(role="system", parts=(Image(data=b"1"),)),)), "messages.parts"),
    ],
)
def test_what_the_wire_cannot_carry_is_named(request_: Chat, option: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        body(request_)
    assert caught.value.option == option and caught.value.model == "m"


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Chat.ask("Hi", tools=(LOOK,)), "tools"),
        (Chat.ask("Hi", response_format={"type": "object"}), "response_format"),
        (Chat.ask("Hi", stop="x"), "stop"),
        (Chat.ask("Hi", seed=1), "seed"),
        (Chat.ask("Hi", reasoning="high"), "reasoning"),
        (Chat.ask("Hi", Image(data=b"1")), "messages.image"),
    ],
)
def test_what_the_card_does_not_list_is_not_sent(request_: Chat, option: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        body(request_, PLAIN)
    assert caught.value.option == option


def test_an_assistant_s_message_goes_last_only_to_a_model_that_goes_on_with_it() -> None:
    begun = Chat(messages=(Message.user("Name a river."), Message.assistant("The river is")))
    with pytest.raises(UnsupportedOption) as caught:
        body(begun)
    assert caught.value.option == "messages" and "'prefill'" in str(caught.value)
    able = ModelRow(name="m", base_url="http://h", features=["prefill"])
    assert body(begun, able)["messages"][-1] == {"role": "assistant", "content": "The river is"}
    body(Chat(messages=(*begun.messages, Message.user("Go on."))))


def test_no_reasoning_asked_of_a_model_without_it_is_left_out() -> None:
    assert "reasoning_effort" not in body(Chat.ask("Hi", reasoning="none"), PLAIN)


def test_a_schema_s_name_is_one_that_servers_take() -> None:
    wanted = body(Chat.ask("Where?", response_format={"title": "Ein Ort, größer!", "type": "object"}))
    assert wanted["response_format"]["json_schema"]["name"] == "Ein_Ort_gr_er_"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        {"type": "object", "properties": {}, "additionalProperties": False, "minProperties": 1},
        {"type": "object", "properties": {"a": True}, "required": ["a"], "additionalProperties": False},
    ],
)
def test_an_open_schema_is_not_strict(schema: dict[str, Any]) -> None:
    assert not strict_schema(schema)


def test_half_a_surrogate_and_a_large_seed_are_carried() -> None:
    assert body(Chat.ask("x\ud800y", seed=1 << 70))["messages"][0]["content"] == "x\ud800y"


def test_what_json_does_not_have_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="tools holds something that JSON cannot") as caught:
        body(Chat.ask("Hi", tools=(Tool(name="t", parameters={"type": object()}),)))
    assert caught.value.field == "tools"


def test_texts_to_embed_are_sent_as_given() -> None:
    assert json.loads(embed_body(Embed(texts=("a", "b")), ROW, False).body) == {
        "model": "wire-name",
        "input": ["a", "b"],
    }
    sent = json.loads(embed_body(Embed(texts=("a",), dimensions=4), replace(ROW, embedding_format="base64"), False).body)
    assert sent["dimensions"] == 4 and sent["encoding_format"] == "base64"
    with pytest.raises(UnsupportedOption):
        embed_body(Embed(texts=("a",), dimensions=4), PLAIN, False)
