"""Requests to the Responses API: what the `openai` package sends for the same content, and nothing dropped in silence."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.openai_responses import chat_body
from gateway_remote.formats.responses_reply import REASONING
from openai.types import responses as wire
from openai_case import ALL, KEY, KEY_REF, MODEL, OPTIONS, sent_by_sdk, sent_by_us, with_option
from pydantic import TypeAdapter

from gateway import (
    Audio,
    Chat,
    Citation,
    File,
    Image,
    Message,
    Meta,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    UnsupportedOption,
)
from gateway.testing import LoopbackServer

PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}}
CLOSED: dict[str, Any] = {
    "type": "object",
    "title": "Place",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
THOUGHT: wire.ResponseReasoningItemParam = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm."}],
    "encrypted_content": "c2VjcmV0",
}
SIGNED = Reasoning("Hm.", "responses:" + json.dumps(THOUGHT))
FINAL = Reasoning("", 'responses:{"type":"message","phase":"final_answer"}')
PNG, PDF = b"\x89PNG", b"%PDF"
ROW = ModelRow(name="m", base_url="http://h", api="openai-responses", model=MODEL, features=ALL, modalities=["text", "file"])


def create(**params: Any) -> Callable[[openai.OpenAI], Any]:
    """A call of the package's, with what each of ours has: no state is kept, and thoughts that are carried are encrypted."""
    carried = any(item.get("type") == "reasoning" for item in params["input"])
    if carried or params.get("reasoning", {}).get("effort", "none") != "none":
        params = {"include": ["reasoning.encrypted_content"], **params}
    params = {"store": False, **params}
    return lambda client: list(client.responses.create(model=MODEL, **params)) if params.get("stream") else (
        client.responses.create(model=MODEL, **params)
    )  # fmt: skip


def turns(*items: wire.ResponseInputItemParam) -> list[wire.ResponseInputItemParam]:
    """Input items, checked by the package's types."""
    TypeAdapter(wire.ResponseInputParam).validate_python(list(items))
    return list(items)


def tool(**facts: Any) -> wire.FunctionToolParam:
    return {"type": "function", "name": "look", "parameters": PARAMETERS, "strict": False, **facts}  # type: ignore[typeddict-item]


USER: wire.EasyInputMessageParam = {"role": "user", "content": "Hi"}
CORPUS: dict[str, tuple[Chat, dict[str, Any]]] = {
    "a question": (Chat.ask("Hi"), {"input": turns(USER)}),
    "system messages in their places": (
        Chat(
            messages=(Message.system("Be brief."), Message.user("Hi"), Message.system("Now in verse."), Message.user("Go on"))
        ),
        {
            "input": turns(
                {"role": "system", "content": "Be brief."},
                USER,
                {"role": "system", "content": "Now in verse."},
                {"role": "user", "content": "Go on"},
            )
        },
    ),
    "media among words": (
        Chat(
            messages=(
                Message.user(
                    "Look:",
                    Image(data=PNG),
                    Image(url="https://x.example/a.png"),
                    "and read:",
                    File(data=PDF, name="report.pdf"),
                    File(data=b"a,b", media_type="text/csv"),
                    File(url="https://x.example/b.pdf"),
                ),
            )
        ),
        {
            "input": turns(
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look:"},
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
                        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "auto"},
                        {"type": "input_text", "text": "and read:"},
                        {
                            "type": "input_file",
                            "filename": "report.pdf",
                            "file_data": "data:application/pdf;base64,JVBERg==",
                        },
                        {"type": "input_file", "filename": "document.csv", "file_data": "data:text/csv;base64,YSxi"},
                        {"type": "input_file", "file_url": "https://x.example/b.pdf"},
                    ],
                }
            )
        },
    ),
    "what a model thought, said and called goes back as it was": (
        Chat(
            messages=(
                Message.user("Hi"),
                Message.assistant(
                    SIGNED,
                    "Let me ",
                    Citation(title="a"),
                    "see.",
                    Reasoning("", 'responses:{"type":"message","phase":"commentary"}'),
                    ToolCall("c1", "look", '{"at":"a"}'),
                    ToolCall("c2", "look", ""),
                ),
                Message(role="tool", parts=(ToolResult("c1", "a tree"), ToolResult("c2", "no light", error=True))),
                Message.assistant("A tree.", FINAL),
                Message.user("Thanks"),
            )
        ),
        {
            "input": turns(
                USER,
                THOUGHT,
                {"role": "assistant", "content": "Let me see.", "phase": "commentary"},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"a"}'},
                {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "a tree"},
                {"type": "function_call_output", "call_id": "c2", "output": "Error: no light"},
                {"role": "assistant", "content": "A tree.", "phase": "final_answer"},
                {"role": "user", "content": "Thanks"},
            )
        },
    ),
    "another format's thoughts stay here": (
        Chat(
            messages=(
                Message.assistant(Reasoning("a", "anthropic:x"), "Yes.", Reasoning("b"), Reasoning("c", "responses:{")),
                Message.assistant(Reasoning("d", "gemini:y")),
                Message.user("Hi", ToolResult("c1", "late"), "and"),
            )
        ),
        {
            "input": turns(
                {"role": "assistant", "content": "Yes."},
                {"role": "assistant", "content": ""},
                USER,
                {"type": "function_call_output", "call_id": "c1", "output": "late"},
                {"role": "user", "content": "and"},
            )
        },
    ),
    "tools": (
        Chat.ask("Hi", tools=(Tool(name="look", description="Looks.", parameters=PARAMETERS),), parallel_tool_calls=False),
        {"input": turns(USER), "tools": [tool(description="Looks.")], "parallel_tool_calls": False},
    ),
    "a tool that may be held to, and must be called": (
        Chat.ask("Hi", tools=(Tool(name="look", parameters=CLOSED),), tool_choice="look"),
        {
            "input": turns(USER),
            "tools": [tool(parameters=CLOSED, strict=True)],
            "tool_choice": {"type": "function", "name": "look"},
        },
    ),
    "any tool": (
        Chat.ask("Hi", tools=(Tool(name="look", parameters=PARAMETERS),), tool_choice="required"),
        {"input": turns(USER), "tools": [tool()], "tool_choice": "required"},
    ),
    "an answer of a shape": (
        Chat.ask("Hi", response_format=CLOSED),
        {
            "input": turns(USER),
            "text": {"format": {"type": "json_schema", "name": "Place", "schema": CLOSED, "strict": True}},
        },
    ),
    "an answer of an open shape": (
        Chat.ask("Hi", response_format=PARAMETERS),
        {
            "input": turns(USER),
            "text": {"format": {"type": "json_schema", "name": "answer", "schema": PARAMETERS, "strict": False}},
        },
    ),
    "sampling": (
        Chat.ask("Hi", max_tokens=16, temperature=0.0, top_p=0.5),
        {"input": turns(USER), "max_output_tokens": 16, "temperature": 0.0, "top_p": 0.5},
    ),
    "reasoning": (
        Chat.ask("Hi", reasoning="high"),
        {"input": turns(USER), "reasoning": {"effort": "high", "summary": "auto"}},
    ),
    "no reasoning": (Chat.ask("Hi", reasoning="none"), {"input": turns(USER), "reasoning": {"effort": "none"}}),
    "logprobs": (
        Chat.ask("Hi", logprobs=3),
        {
            "input": turns(USER),
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 3,
        },
    ),
    "logprobs of the answer alone": (
        Chat.ask("Hi", logprobs=0),
        {"input": turns(USER), "include": ["message.output_text.logprobs"]},
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CORPUS)
def test_we_send_what_the_package_sends(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, case: str, stream: bool
) -> None:
    monkeypatch.setenv(KEY_REF, KEY)
    request, params = CORPUS[case]
    theirs = sent_by_sdk(server, create(**params, **({"stream": True} if stream else {})))
    ours = sent_by_us(server, request, stream=stream, api="openai-responses")
    assert theirs[1] == "/v1/responses" and ours == theirs


def body(request: Chat, row: ModelRow = ROW) -> Any:
    return json.loads(chat_body(request, row, False).body)


def test_the_package_knows_every_field_of_a_thought_that_goes_back() -> None:
    known = wire.ResponseReasoningItemParam.__annotations__.keys()
    assert set(REASONING) == known - {"status"}


def test_thoughts_are_asked_for_where_the_request_says_how_much_to_reason() -> None:
    assert "include" not in body(Chat.ask("Hi")) and "include" not in body(Chat.ask("Hi", reasoning="none"))
    assert body(Chat.ask("Hi", reasoning="low", logprobs=0))["include"] == [
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
    ]


def test_a_model_that_does_not_reason_is_not_asked_for_thoughts_and_gets_none_back() -> None:
    plain = ModelRow(name="m", base_url="http://h", api="openai-responses", features=["tools"])
    sent = body(Chat(messages=(Message.assistant(SIGNED, "Yes."), Message.user("Hi"))), plain)
    assert "include" not in sent and [item.get("type") for item in sent["input"]] == [None, None]


def test_a_row_s_body_stands_beside_what_is_sent() -> None:
    row = ModelRow(
        name="m", base_url="http://h", api="openai-responses", features=["json_schema", "reasoning"],
        body={"store": True, "text": {"verbosity": "low"}, "reasoning": {"summary": None, "effort": "high"},
              "include": ["web_search_call.action.sources"]},
    )  # fmt: skip
    sent = body(Chat.ask("Hi", response_format=CLOSED, reasoning="low"), row)
    assert sent["text"]["verbosity"] == "low" and sent["text"]["format"]["name"] == "Place"
    assert sent["reasoning"] == {"effort": "low", "summary": None}  # an account that may not ask for summaries
    assert sent["include"] == ["web_search_call.action.sources", "reasoning.encrypted_content"]
    assert sent["store"] is False  # whatever the row says: the gateway keeps no state at a provider


CARRIED = {
    "tools", "tool_choice", "response_format", "max_tokens", "temperature", "top_p", "logprobs", "parallel_tool_calls",
    "reasoning",
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_sent_or_named(option: str, stream: bool) -> None:
    without = chat_body(Chat.ask("Hi"), ROW, stream).body
    if option in CARRIED:
        assert chat_body(with_option(option), ROW, stream).body != without
        return
    with pytest.raises(UnsupportedOption) as caught:
        chat_body(with_option(option), ROW, stream)
    assert caught.value.option == option
    sending = chat_body(with_option(option, drop=True), ROW, stream)
    assert list(sending.dropped) == [option] and sending.body == without


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Chat.ask("Hi", Audio(data=b"1")), "messages.audio"),
        (Chat.ask("Hi", Image(data=b"1")), "messages.image"),  # the row's card takes no images
        (Chat.ask("Hi", File(url="https://x.example/a.pdf", name="a.pdf")), "messages.file.name"),
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
    assert caught.value.option == option


def test_a_sound_is_refused_by_a_model_that_hears_since_the_api_has_no_place_for_it() -> None:
    row = ModelRow(name="m", base_url="http://h", api="openai-responses", modalities=["text", "audio"])
    with pytest.raises(UnsupportedOption) as caught:
        body(Chat.ask("Hi", Audio(data=b"1")), row)
    assert caught.value.option == "messages.audio" and "takes no sound" in str(caught.value)


def test_the_name_of_a_file_at_a_url_may_be_dropped() -> None:
    message = Message.user("Read.", File(url="https://x.example/a.pdf", name="a.pdf"))
    sending = chat_body(Chat(messages=(message,), meta=Meta(drop_unsupported=True)), ROW, False)
    assert list(sending.dropped) == ["messages.file.name"]


def test_an_assistant_s_message_goes_last_only_to_a_model_that_goes_on_with_it() -> None:
    begun = Chat(messages=(Message.user("Name a river."), Message.assistant("The river is")))
    assert body(begun)["input"][-1] == {"role": "assistant", "content": "The river is"}
    with pytest.raises(UnsupportedOption):
        body(begun, ModelRow(name="m", base_url="http://h", api="openai-responses"))


def test_half_a_surrogate_is_carried_and_a_foul_signature_does_no_harm() -> None:
    foul = (
        "responses:",
        "responses:[]",
        "responses:3",
        'responses:{"type":"message"}',
        "responses:\ud800",
        'responses:{"type":3}',
    )
    thoughts = [Reasoning("x", signature) for signature in foul]
    sent = body(Chat(messages=(Message.assistant("a\ud800", *thoughts, "b"), Message.user("Hi"))))
    assert sent["input"][0] == {"role": "assistant", "content": "a\ud800b"}
