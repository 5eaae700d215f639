"""Requests to Gemini: what the `google-genai` package sends for the same content, and nothing dropped in silence."""

import json
from dataclasses import replace
from typing import Any

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.gemini import API, UNSIGNED, chat_body, embed_body
from gemini_case import KEY, KEY_REF, MODEL, facts_for, sent_by_sdk, sent_by_us, text
from google import genai
from google.genai import types as wire
from openai_case import LOOK

from gateway import (
    Audio,
    Chat,
    Citation,
    Embed,
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
from gateway.testing.gemini import signature

PNG, PDF, WAV = b"\x89PNG\xff\xfe", b"%PDF", b"RIFF"
SIGNATURE = signature("look")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city_name": {"type": "string"}}, "required": ["city_name"]}
ROW = ModelRow(name="m", base_url="http://h", **{**facts_for(), "api_key": []})
OLDER = replace(ROW, model="gemini-2.5-flash")


def user(*parts: wire.Part) -> wire.Content:
    return wire.Content(role="user", parts=list(parts))


def said(*parts: wire.Part) -> wire.Content:
    return wire.Content(role="model", parts=list(parts))


def blob(data: bytes, kind: str, **facts: Any) -> wire.Part:
    return wire.Part(inline_data=wire.Blob(data=data, mime_type=kind, **facts))


def call(name: str, args: dict[str, Any], id: str | None = None, **facts: Any) -> wire.Part:
    return wire.Part(function_call=wire.FunctionCall(id=id, name=name, args=args), **facts)


def result(name: str, told: dict[str, Any], id: str | None = None) -> wire.Part:
    return wire.Part(function_response=wire.FunctionResponse(id=id, name=name, response=told))


def tools(*declared: wire.FunctionDeclaration) -> list[wire.Tool]:
    return [wire.Tool(function_declarations=list(declared))]


def choice(mode: str, *names: str) -> wire.ToolConfig:
    calling = wire.FunctionCallingConfig(mode=mode, allowed_function_names=list(names) or None)
    return wire.ToolConfig(function_calling_config=calling)


HI = user(text("Hi"))
LOOKS = wire.FunctionDeclaration(name="look", description="Looks.", parameters_json_schema=LOOK.parameters)
SIGNED = wire.Part(text="x", thought_signature=SIGNATURE).thought_signature
CORPUS: dict[str, tuple[Chat, list[wire.Content], dict[str, Any]]] = {
    "a question": (Chat.ask("Hi"), [HI], {}),
    "what the system says, wherever it stands": (
        Chat(messages=(Message.system("Be brief."), Message.user("Hi"), Message.system("In verse."))),
        [HI],
        {"system_instruction": wire.Content(parts=[text("Be brief."), text("In verse.")])},
    ),
    "media among words": (
        Chat.ask(
            "Look:",
            Image(data=PNG),
            Image(url="https://x.example/a.webp", media_type="image/webp"),
            Audio(data=WAV),
            File(data=PDF, name="report.pdf"),
            File(url="https://generativelanguage.googleapis.com/v1beta/files/abc", media_type="video/mp4"),
        ),
        [
            user(
                text("Look:"),
                blob(PNG, "image/png"),
                wire.Part.from_uri(file_uri="https://x.example/a.webp", mime_type="image/webp"),
                blob(WAV, "audio/wav"),
                blob(PDF, "application/pdf", display_name="report.pdf"),
                wire.Part.from_uri(
                    file_uri="https://generativelanguage.googleapis.com/v1beta/files/abc", mime_type="video/mp4"
                ),
            )
        ],
        {},
    ),
    "calls at once, their results in any order, ids of the API": (
        Chat(
            messages=(
                Message.user("Hi"),
                Message.assistant(
                    Reasoning("Hm.", f"gemini:{SIGNATURE}"),
                    Text("Let me see."),
                    Reasoning("", f"gemini:>{SIGNATURE}"),
                    ToolCall("call_1_", "look", '{"at_hand": "here"}'),
                    ToolCall("call_2f", "hear", "{}"),
                ),
                Message.tool("call_2f", "nothing", error=True),
                Message.tool("call_1_", "a tree"),
                Message.user("And?"),
            )
        ),
        [
            HI,
            said(
                text("Hm.", thought=True, thought_signature=SIGNED),
                text("Let me see."),
                call("look", {"at_hand": "here"}, "call_1_", thought_signature=SIGNED),
                call("hear", {}, "call_2f"),
            ),
            user(result("look", {"output": "a tree"}, "call_1_"), result("hear", {"error": "nothing"}, "call_2f")),
            user(text("And?")),
        ],
        {},
    ),
    "ids that the API did not give": (
        Chat(
            messages=(
                Message.user("Hi"),
                Message.assistant(
                    Reasoning("", f"gemini:>{SIGNATURE}"), ToolCall("call_0", "look"), ToolCall("call_1", "look")
                ),
                Message(role="tool", parts=(ToolResult("call_1", "two"), ToolResult("call_0", "one"))),
            )
        ),
        [
            HI,
            said(call("look", {}, thought_signature=SIGNED), call("look", {})),
            user(result("look", {"output": "one"}), result("look", {"output": "two"})),
        ],
        {},
    ),
    "a signed text, an image of the model's own, and what is not sent back": (
        Chat(
            messages=(
                Message.assistant(
                    Reasoning("another's", "anthropic:x"),
                    Reasoning("nobody's"),
                    Text("Look."),
                    Reasoning("", f"gemini:<{SIGNATURE}"),
                    Reasoning("", f"gemini:>{SIGNATURE}"),
                    Image(data=PNG),
                    Citation("https://x.example"),
                    Reasoning("", f"gemini:<{SIGNATURE}"),
                ),
                Message.user("Hi"),
            )
        ),
        [
            said(
                text("Look.", thought_signature=SIGNED),
                wire.Part(inline_data=wire.Blob(data=PNG, mime_type="image/png"), thought_signature=SIGNED),
                text("", thought_signature=SIGNED),
            ),
            HI,
        ],
        {},
    ),
    "sampling and limits": (
        Chat.ask(
            "Hi",
            max_tokens=5,
            temperature=0.0,
            top_p=0.5,
            top_k=4,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            stop=("a", "b"),
            seed=7,
            logprobs=2,
        ),
        [HI],
        {
            "max_output_tokens": 5,
            "temperature": 0.0,
            "top_p": 0.5,
            "top_k": 4,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "stop_sequences": ["a", "b"],
            "seed": 7,
            "response_logprobs": True,
            "logprobs": 2,
        },
    ),
    "logprobs of the chosen tokens only": (Chat.ask("Hi", logprobs=0), [HI], {"response_logprobs": True}),
    "an answer of a shape": (
        Chat.ask("Hi", response_format=SCHEMA),
        [HI],
        {"response_mime_type": "application/json", "response_json_schema": SCHEMA},
    ),
    "the effort of thinking": (
        Chat.ask("Hi", reasoning="minimal"),
        [HI],
        {"thinking_config": wire.ThinkingConfig(thinking_level="MINIMAL", include_thoughts=True)},
    ),
    "tools": (
        Chat.ask("Hi", tools=(LOOK, Tool(name="hear")), parallel_tool_calls=True),
        [HI],
        {
            "tools": tools(
                LOOKS,
                wire.FunctionDeclaration(name="hear", parameters_json_schema={"type": "object", "properties": {}}),
            )
        },
    ),
    "some tool": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="required"),
        [HI],
        {"tools": tools(LOOKS), "tool_config": choice("ANY")},
    ),
    "no tool": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="none"),
        [HI],
        {"tools": tools(LOOKS), "tool_config": choice("NONE")},
    ),
    "one tool": (
        Chat.ask("Hi", tools=(LOOK,), tool_choice="look"),
        [HI],
        {"tools": tools(LOOKS), "tool_config": choice("ANY", "look")},
    ),
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CORPUS)
def test_what_we_send_is_what_the_package_sends(server: LoopbackServer, case: str, stream: bool) -> None:
    request, contents, given = CORPUS[case]
    off = wire.AutomaticFunctionCallingConfig(disable=True)
    config = wire.GenerateContentConfig(**given, automatic_function_calling=off if "tools" in given else None)

    def ask(client: genai.Client) -> Any:
        if stream:
            return list(client.models.generate_content_stream(model=MODEL, contents=contents, config=config))
        return client.models.generate_content(model=MODEL, contents=contents, config=config)

    ours = sent_by_us(server, request, stream=stream)
    theirs = sent_by_sdk(server, ask)
    # A config that says nothing is an empty object in the package's body, and none in ours.
    assert ours == (*theirs[:-1], {name: value for name, value in theirs[-1].items() if value != {}})


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-2.0-flash-lite", "gemini-1.5-pro"])
@pytest.mark.parametrize(
    ("effort", "budget"), [("none", 0), ("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24576)]
)
def test_models_that_know_no_levels_get_a_budget(server: LoopbackServer, model: str, effort: Any, budget: int) -> None:
    config = wire.ThinkingConfig(thinking_budget=budget, include_thoughts=True if budget else None)
    ours = sent_by_us(server, Chat.ask("Hi", reasoning=effort), model=model)
    theirs = sent_by_sdk(
        server,
        lambda client: client.models.generate_content(
            model=model, contents="Hi", config=wire.GenerateContentConfig(thinking_config=config)
        ),
    )
    assert ours[-1]["generationConfig"] == theirs[-1]["generationConfig"] and ours[1] == theirs[1]


@pytest.mark.parametrize("model", ["gemini-3-pro", "gemini-10-pro", "gemini-flash-latest", "gemini-20-pro"])
def test_a_model_that_always_thinks_is_not_told_otherwise_in_silence(model: str) -> None:
    with pytest.raises(UnsupportedOption, match="minimal") as caught:
        chat_body(Chat.ask("Hi", reasoning="none"), replace(ROW, model=model), False)
    assert caught.value.option == "reasoning"
    allowed = Chat.ask("Hi", reasoning="none", meta=Meta(drop_unsupported=True))
    assert chat_body(allowed, replace(ROW, model=model), False).dropped == ["reasoning"]


@pytest.mark.parametrize("size", [None, 8])
def test_embeddings_are_asked_as_the_package_asks(server: LoopbackServer, size: int | None) -> None:
    config = wire.EmbedContentConfig(output_dimensionality=size)
    contents = [wire.Content(parts=[text(each)]) for each in ("one", "two")]
    ours = sent_by_us(server, Embed(texts=("one", "two"), dimensions=size), model="gemini-embedding-001")
    theirs = sent_by_sdk(
        server, lambda client: client.models.embed_content(model="gemini-embedding-001", contents=contents, config=config)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("model", "path", "resource"),
    [
        ("gemini-3-pro", "models/gemini-3-pro", "models/gemini-3-pro"),
        ("models/gemini-3-pro", "models/gemini-3-pro", "models/gemini-3-pro"),
        ("tunedModels/mine-1", "tunedModels/mine-1", "tunedModels/mine-1"),
        ("a b?c#d/e:f", "models/a%20b%3Fc%23d%2Fe%3Af", "models/a b?c#d/e:f"),
        ("models/../x", "models/..%2Fx", "models/../x"),
    ],
)
def test_a_model_is_named_so_that_no_name_can_lead_elsewhere(model: str, path: str, resource: str) -> None:
    row = replace(ROW, model=model)
    assert chat_body(Chat.ask("Hi"), row, False).path == f"/{path}:generateContent"
    assert chat_body(Chat.ask("Hi"), row, True).path == f"/{path}:streamGenerateContent?alt=sse"
    embedding = embed_body(Embed(texts=("a",)), row, False)
    assert embedding.path == f"/{path}:batchEmbedContents"
    assert json.loads(embedding.body)["requests"][0]["model"] == resource


def contents_of(*messages: Message, row: ModelRow = ROW) -> Any:
    return json.loads(chat_body(Chat(messages=(*messages, Message.user("Go on"))), row, False).body)["contents"]


def test_a_call_that_another_model_made_says_that_it_has_no_signature() -> None:
    made = Message.assistant(Reasoning("hm", "responses:x"), ToolCall("a", "look"), ToolCall("b", "look"))
    results = Message(role="tool", parts=(ToolResult("a", "1"), ToolResult("b", "2")))
    parts = contents_of(Message.user("Hi"), made, results)[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [UNSIGNED, None]
    parts = contents_of(Message.user("Hi"), made, results, row=OLDER)[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, None]


def test_a_signature_whose_part_is_gone_goes_back_by_itself() -> None:
    lone = Message.assistant(Reasoning("", "gemini:>QQ=="), Reasoning("", "gemini:>Qg=="), Reasoning("", "gemini:<Qw=="))
    parts = contents_of(lone)[0]["parts"]
    assert sorted(part["thoughtSignature"] for part in parts) == ["QQ==", "Qg==", "Qw=="]
    assert all(part["text"] == "" for part in parts)


def test_results_go_by_the_last_call_of_their_id() -> None:
    said = contents_of(
        Message.assistant(ToolCall("call_0", "look")),
        Message.tool("call_0", "one"),
        Message.assistant(ToolCall("call_0", "hear")),
        Message.tool("call_0", "two"),
    )
    assert [
        part["functionResponse"]["name"] for content in said for part in content["parts"] if "functionResponse" in part
    ] == [
        "look",
        "hear",
    ]


def test_results_and_words_of_one_message_are_contents_of_their_own_in_their_order() -> None:
    mixed = Message.user("before", ToolResult("x", "1"), ToolResult("y", "2"), "after")
    said = contents_of(Message.assistant(ToolCall("x", "look"), ToolCall("y", "look")), mixed)[1:]
    kinds = [next(iter(part)) for content in said for part in content["parts"]]
    assert kinds == ["text", "functionResponse", "functionResponse", "text", "text"]
    assert [len(content["parts"]) for content in said] == [1, 2, 1, 1] and {content["role"] for content in said} == {"user"}


def test_an_assistant_that_said_nothing_that_can_be_sent_is_left_out() -> None:
    assert [content["role"] for content in contents_of(Message.assistant(Reasoning("hm")), Message.user())] == ["user", "user"]


def test_what_the_row_says_stands_beside_what_the_request_says() -> None:
    body: dict[str, Any] = {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "temperature": 1},
        "tools": [{"googleSearch": {}}],
        "toolConfig": {"includeServerSideToolInvocations": True},
    }
    row = replace(ROW, body=body)
    sent = json.loads(chat_body(Chat.ask("Hi", temperature=0.5, tools=(LOOK,), tool_choice="look"), row, False).body)
    assert sent["safetySettings"] == body["safetySettings"]
    assert sent["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW", "temperature": 0.5}
    assert [[*tool] for tool in sent["tools"]] == [["googleSearch"], ["functionDeclarations"]]
    assert sent["toolConfig"].keys() == {"includeServerSideToolInvocations", "functionCallingConfig"}
    assert json.loads(chat_body(Chat.ask("Hi"), row, False).body).items() >= body.items()


def test_a_choice_of_tools_wants_tools_and_a_prefill_its_feature() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        chat_body(Chat.ask("Hi", tool_choice="required"), ROW, False)
    assert caught.value.option == "tool_choice"
    assert "toolConfig" not in json.loads(chat_body(Chat.ask("Hi", tool_choice="none"), ROW, False).body)
    prefilled = Chat(messages=(Message.user("Hi"), Message.assistant("Well,")))
    assert json.loads(chat_body(prefilled, ROW, False).body)["contents"][-1]["role"] == "model"
    with pytest.raises(UnsupportedOption):
        chat_body(prefilled, replace(ROW, features=list(API.features)), False)


def test_a_preset_is_a_row_of_this_format() -> None:
    row = ModelRow(**ModelRow.filled({"name": "gemini-3-pro", "preset": "gemini", "tasks": ["chat", "embed"]}))
    assert (
        row.wire is API
        and row.card.features == frozenset(API.features)
        and row.card.modalities == {"text", "image", "audio", "file"}
    )
