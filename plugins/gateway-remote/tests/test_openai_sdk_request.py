"""Chat Completions and embeddings: what the `openai` package sends for the same content, and nothing dropped in silence."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import openai
import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.body import FEATURES
from gateway_remote.formats.openai import HEARD, chat_body
from openai.types import chat as wire
from openai.types.chat import chat_completion_content_part_input_audio_param as sound
from openai_case import ALL, KEY, KEY_REF, MODEL, OPTIONS, asked, sdk, sent_by_sdk, sent_by_us, with_option

from gateway import (
    Audio,
    Chat,
    Citation,
    Embed,
    File,
    Image,
    Message,
    Reasoning,
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
ROW = ModelRow(name="m", base_url="http://h", model=MODEL, features=ALL, modalities=["text", "image", "audio", "file"])


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def create(**params: Any) -> Callable[[openai.OpenAI], Any]:
    """A call of the package's; streamed, it is read to its end."""

    def ask(client: openai.OpenAI) -> None:
        reply = client.chat.completions.create(model=MODEL, **params)
        if params.get("stream"):
            list(reply)

    return ask


def turns(*messages: wire.ChatCompletionMessageParam) -> list[wire.ChatCompletionMessageParam]:
    """Messages, typed by the package."""
    return list(messages)


USER: wire.ChatCompletionUserMessageParam = {"role": "user", "content": "Hi"}
TOOL: wire.ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": PARAMETERS},
}
HEAR: wire.ChatCompletionFunctionToolParam = {"type": "function", "function": {"name": "hear", "parameters": PARAMETERS}}
CORPUS: dict[str, tuple[Chat, dict[str, Any]]] = {
    "a question": (
        Chat.ask("Hi", system="Be brief."),
        {"messages": turns({"role": "system", "content": "Be brief."}, USER)},
    ),
    "media among words": (
        Chat.ask(
            "Look:",
            Image(data=b"\x89PNG"),
            Image(url="https://x.example/a.png"),
            Audio(data=b"ID3", media_type="audio/mpeg"),
            Audio(data=b"RIFF"),
            File(data=b"%PDF", name="report.pdf"),
            File(data=b"%PDF"),
        ),
        {
            "messages": turns(
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look:"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
                        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                        {
                            "type": "file",
                            "file": {"filename": "report.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                        },
                        {
                            "type": "file",
                            "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                        },
                    ],
                }
            )
        },
    ),
    "calls and their results": (
        Chat(
            messages=(
                Message.user("Hi"),
                Message.assistant(Reasoning("hm", "responses:x"), "Let me see.", ToolCall("c1", "look", '{"at":"a"}')),
                Message.tool("c1", "a tree"),
                Message.assistant(ToolCall("c2", "look", ""), ToolCall("c3", "look", "{}")),
                Message(role="tool", parts=(ToolResult("c2", "a bird"), ToolResult("c3", "no light", error=True))),
                Message.assistant("A ", Citation(title="x"), "bird."),
                Message.user("Thanks"),
            )
        ),
        {
            "messages": turns(
                USER,
                {
                    "role": "assistant",
                    "content": "Let me see.",
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"a"}'}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "a tree"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                        {"id": "c3", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "c2", "content": "a bird"},
                {"role": "tool", "tool_call_id": "c3", "content": "Error: no light"},
                {"role": "assistant", "content": "A bird."},
                {"role": "user", "content": "Thanks"},
            )
        },
    ),
    "tools": (
        Chat.ask(
            "Hi",
            tools=(Tool(name="look", description="Looks.", parameters=PARAMETERS), Tool(name="hear", parameters=PARAMETERS)),
            tool_choice="look",
            parallel_tool_calls=False,
        ),
        {
            "messages": turns(USER),
            "tools": [TOOL, HEAR],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": False,
        },
    ),
    "any tool": (
        Chat.ask("Hi", tools=(Tool(name="hear", parameters=PARAMETERS),), tool_choice="required"),
        {"messages": turns(USER), "tools": [HEAR], "tool_choice": "required"},
    ),
    "an answer of a shape": (
        Chat.ask("Hi", response_format=CLOSED),
        {
            "messages": turns(USER),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "Place", "schema": CLOSED, "strict": True},
            },
        },
    ),
    "sampling": (
        Chat.ask(
            "Hi",
            max_tokens=5,
            temperature=0.0,
            top_p=0.5,
            stop=("a", "b"),
            seed=7,
            presence_penalty=-0.5,
            frequency_penalty=1.0,
        ),
        {
            "messages": turns(USER),
            "max_completion_tokens": 5,
            "temperature": 0.0,
            "top_p": 0.5,
            "stop": ["a", "b"],
            "seed": 7,
            "presence_penalty": -0.5,
            "frequency_penalty": 1.0,
        },
    ),
    "reasoning": (Chat.ask("Hi", reasoning="minimal"), {"messages": turns(USER), "reasoning_effort": "minimal"}),
    "logprobs": (Chat.ask("Hi", logprobs=3), {"messages": turns(USER), "logprobs": True, "top_logprobs": 3}),
    "logprobs of the answer alone": (Chat.ask("Hi", logprobs=0), {"messages": turns(USER), "logprobs": True}),
    # The package has no top_k: vLLM, SGLang and others take it beside what OpenAI takes.
    "what the package does not know": (Chat.ask("Hi", top_k=4), {"messages": turns(USER), "extra_body": {"top_k": 4}}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CORPUS)
def test_we_send_what_the_package_sends(server: LoopbackServer, case: str, stream: bool) -> None:
    request, params = CORPUS[case]
    streams = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    theirs = sent_by_sdk(server, create(**params, **streams))
    ours = sent_by_us(server, request, stream=stream, max_tokens_field="max_completion_tokens")
    assert theirs[1] == "/v1/chat/completions" and ours == theirs


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("dimensions", [None, 8])
def test_texts_to_embed_are_sent_as_the_package_sends_them(server: LoopbackServer, form: Any, dimensions: int | None) -> None:
    more: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}
    theirs = sent_by_sdk(
        server, lambda client: client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format=form, **more)
    )
    ours = sent_by_us(server, Embed(texts=("a", "b"), dimensions=dimensions), embedding_format=form)
    if form == "float":  # every server's default, which some would not know by name: it is not sent
        assert theirs[3].pop("encoding_format") == "float"
    assert theirs[1] == "/v1/embeddings" and ours == theirs


def test_the_sounds_that_openai_takes_are_those_of_the_package() -> None:
    assert set(get_args(get_type_hints(sound.InputAudio)["format"])) == HEARD


def test_the_package_s_client_lists_the_models_that_ours_does(server: LoopbackServer) -> None:
    with sdk(server) as client:
        assert [each.id for each in client.models.list()] == ["loopback"]
    assert server.requests[-1].path == "/v1/models"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_sent_or_named(server: LoopbackServer, option: str, stream: bool) -> None:
    request = with_option(option)
    assert chat_body(request, ROW, stream).body != chat_body(Chat.ask("Hi"), ROW, stream).body
    for row in (replace(ROW, features=[]), replace(ROW, refuses=frozenset({option}))):
        if row.features == [] and option not in FEATURES and option != "tool_choice":
            continue
        with pytest.raises(UnsupportedOption) as caught:
            chat_body(request, row, stream)
        # The choice among tools needs the tools, which the card does not list either.
        assert caught.value.option == ("tools" if option == "tool_choice" and row.features == [] else option)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("option", sorted(OPTIONS.keys() - {"tools", "tool_choice", "response_format"}))
def test_an_option_that_only_tunes_is_left_out_where_that_is_allowed(server: LoopbackServer, option: str, stream: bool) -> None:
    got = asked(server, with_option(option, drop=True), stream=stream, features=["streaming"], refuses=[option])
    assert (got[1] if stream else got).dropped == (option,)
    sent = server.requests[-1].body
    asked(server, Chat.ask("Hi"), stream=stream, features=["streaming"])
    assert sent == server.requests[-1].body


@pytest.mark.parametrize("option", ["tools", "tool_choice", "response_format"])
def test_an_option_that_the_answer_hangs_on_is_never_left_out(option: str) -> None:
    with pytest.raises(UnsupportedOption):
        chat_body(with_option(option, drop=True), replace(ROW, refuses=frozenset({option})), False)


def test_a_document_is_named_for_what_it_is() -> None:
    [message] = json.loads(chat_body(Chat.ask("Read.", File(data=b"a,b", media_type="text/csv")), ROW, False).body)["messages"]
    assert message["content"][1]["file"]["filename"] == "document.csv"
