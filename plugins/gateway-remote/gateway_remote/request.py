"""Requests as the bodies of OpenAI's HTTP API: Chat Completions and Embeddings. No I/O.

What the wire, or the model's card, cannot carry is an UnsupportedOption that names it; nothing is left out
silently but an assistant's reasoning, which this API does not take back.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway import (
    Audio,
    Chat,
    Embed,
    Image,
    Message,
    ModelCard,
    Part,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    UnsupportedOption,
)
from gateway_remote.jsonbytes import dumps

AUDIO_FORMATS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/flac": "flac", "audio/x-flac": "flac", "audio/ogg": "ogg",
}  # fmt: skip

STRICT_KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref",
        "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    }
)  # fmt: skip
"""What a schema may use under ``"strict": true`` (OpenAI, "Structured outputs", "Supported schemas")."""


def chat_body(request: Chat, card: ModelCard, *, stream: bool, max_tokens_field: str = "max_tokens") -> bytes:
    """The body of POST /chat/completions. UnsupportedOption names what cannot be carried."""
    body: dict[str, Any] = {"model": card.model, "messages": list(_messages(request.messages, card))}
    if request.messages and request.messages[-1].role == "assistant":
        _featured(card, "messages", "prefill")
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        _featured(card, "tools", "tools")
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice in ("none", "required"):
            body["tool_choice"] = request.tool_choice
        elif request.tool_choice != "auto":
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}
    elif request.tool_choice == "required":
        raise _refused(card, "tool_choice", "required, and no tools are given")
    if request.response_format is not None:
        _featured(card, "response_format", "json_schema")
        body["response_format"] = _response_format(request)
    if request.max_tokens is not None:
        body[max_tokens_field] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        _featured(card, "stop", "stop")
        body["stop"] = request.stop
    if request.seed is not None:
        _featured(card, "seed", "seed")
        body["seed"] = request.seed
    # No effort asked of a model that has none is what it does anyway.
    if request.reasoning is not None and (request.reasoning != "none" or "reasoning" in card.features):
        _featured(card, "reasoning", "reasoning")
        body["reasoning_effort"] = request.reasoning
    return dumps(body)


def embed_body(request: Embed, card: ModelCard, *, encoding: str = "float") -> bytes:
    """The body of POST /embeddings. "float" is every server's default and is not sent."""
    body: dict[str, Any] = {"model": card.model, "input": request.texts}
    if encoding != "float":
        body["encoding_format"] = encoding
    if request.dimensions is not None:
        _featured(card, "dimensions", "dimensions")
        body["dimensions"] = request.dimensions
    return dumps(body)


def strict_schema(schema: Any) -> bool:
    """True when a server can hold to this schema strictly: objects closed, every property required."""
    return isinstance(schema, Mapping) and schema.get("type") == "object" and "anyOf" not in schema and _closed(schema)


def _closed(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= STRICT_KEYWORDS:
        return False
    named = schema.get("properties", {})
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(named):
            return False
    elif not schema.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        return False  # "anything at all" is not among the supported schemas
    below = [*named.values(), *schema.get("anyOf", ())]
    below += [each for word in ("$defs", "definitions") for each in schema.get(word, {}).values()]
    if "items" in schema:
        below.append(schema["items"])
    return all(map(_closed, below))


def _messages(messages: Iterable[Message], card: ModelCard) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message.role == "assistant":
            yield _assistant(message, card)
            continue
        waiting: list[Part] = []
        for part in message.parts:
            if not isinstance(part, ToolResult) or message.role == "system":
                waiting.append(part)
                continue
            if waiting:  # a result is a message of its own: what came before it goes first
                yield _turn(message.role, waiting, card)
                waiting = []
            # The API has no field that says that a tool failed.
            text = f"Error: {part.text}" if part.error else part.text
            yield {"role": "tool", "tool_call_id": part.id, "content": text}
        if waiting or not message.parts:
            yield _turn(message.role, waiting, card)


def _turn(role: str, parts: list[Part], card: ModelCard) -> dict[str, Any]:
    if role == "tool":
        raise _refused(card, "messages.parts", "a tool's message holds tool results only")
    match parts:
        case []:
            return {"role": role, "content": ""}
        case [Text(text)]:
            return {"role": role, "content": text}
    return {"role": role, "content": [_content(part, role, card) for part in parts]}


def _assistant(message: Message, card: ModelCard) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text):
                texts.append(text)
            case ToolCall(id, name, arguments):
                function = {"name": name, "arguments": arguments or "{}"}
                calls.append({"id": id, "type": "function", "function": function})
            case ToolResult() | Image() | Audio():
                raise _refused(card, "messages.parts", f"an assistant's message cannot hold a part {part.type!r}")
    out: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if calls:
        out["tool_calls"] = calls
    return out


def _content(part: Part, role: str, card: ModelCard) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if role != "user" or not isinstance(part, (Image, Audio)):
        raise _refused(card, "messages.parts", f"a {role}'s message cannot hold a part {part.type!r}")
    if part.type not in card.modalities:
        raise _refused(card, part.type, f"its card lists no {part.type} among its modalities")
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url or _data_url(part)}}
    if part.data is None:
        raise _refused(card, "audio.url", "this API takes audio as bytes only")
    if part.media_type not in AUDIO_FORMATS:
        raise _refused(card, "audio.media_type", f"this API takes {', '.join(sorted(set(AUDIO_FORMATS.values())))}")
    encoded = base64.b64encode(part.data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": AUDIO_FORMATS[part.media_type]}}


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data or b'').decode()}"


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _response_format(request: Chat) -> dict[str, Any]:
    schema = request.response_schema or {}
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title if isinstance(title, str) else "")[:64] or "answer"
    wanted = {"name": name, "schema": schema, "strict": strict_schema(schema)}
    return {"type": "json_schema", "json_schema": wanted}


def _featured(card: ModelCard, option: str, feature: str) -> None:
    if feature not in card.features:
        raise _refused(card, option, f"its card does not list the feature {feature!r}")


def _refused(card: ModelCard, option: str, why: str) -> UnsupportedOption:
    return UnsupportedOption(f"model {card.name!r} cannot take {option}: {why}", model=card.name, option=option)
