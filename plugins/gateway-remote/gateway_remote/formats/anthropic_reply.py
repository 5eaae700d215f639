"""Replies of Anthropic's Messages API as responses: whole ones here, streams in anthropic_stream.py. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import (
    Chat,
    ChatResponse,
    Citation,
    ContentFiltered,
    File,
    Finish,
    Part,
    Reasoning,
    Text,
    ToolCall,
    Usage,
)
from gateway_remote.formats.api import Heard
from gateway_remote.formats.values import (
    arguments_of,
    broken,
    count,
    detail,
    each_said,
    estimate,
    finish_of,
    index,
    object_of,
    objects,
    said,
    string,
)

SIGNED = "anthropic:"
"""Before the signature of what a model thought, so that it goes back to no other provider."""
REDACTED = "anthropic:redacted:"
"""Before the data of a redacted_thinking block; no signature begins so, being base64."""
FINISHES: Mapping[str, Finish] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "refusal": "filter",
    "pause_turn": "length",  # the provider's limit on the steps of its own tools: what came is not the whole answer
}  # fmt: skip


def message_response(body: bytes, request: Chat, heard: Heard) -> ChatResponse:
    """The reply of POST /messages."""
    payload, model = object_of(body, heard), heard.model
    content = payload.get("content")
    if not isinstance(content, list):
        raise broken(model, "the reply holds no content")
    parts: list[Part] = []
    told = calls = 0  # characters of text, and tool calls, so far
    for block in each_said(content, model):
        match block.get("type"):
            case "text":
                text = said(block.get("text"), model)
                if text:
                    parts.append(Text(text))
                parts += citations_of(objects(block.get("citations")), request, told, told + len(text))
                told += len(text)
            case "thinking":
                parts.append(Reasoning(said(block.get("thinking"), model), SIGNED + string(block.get("signature"))))
            case "redacted_thinking":
                parts.append(Reasoning("", REDACTED + string(block.get("data"))))
            case "tool_use":
                parts.append(ToolCall(*call_of(block, calls, model), arguments_of(block.get("input")) or "{}"))
                calls += 1
            case str():
                pass  # a step of a tool that the provider runs itself
            case _:
                raise broken(model, "a block of the reply does not say what it is")
    return ChatResponse(
        parts=tuple(parts),
        finish=message_finish(payload.get("stop_reason"), bool(calls), not parts, model),
        usage=usage_of(payload.get("usage")) or estimate(request, parts),
        id=string(payload.get("id")) or heard.headers.get("request-id", ""),
        served_by=string(payload.get("model")),
        quota=heard.quota,
    )


def message_finish(wire: Any, has_calls: bool, empty: bool, model: str) -> Finish:
    """Why the reply ended. ContentFiltered when it was refused before anything was said."""
    finish = finish_of(wire, FINISHES, model)
    if finish == "filter" and empty:
        raise ContentFiltered(f"model {model!r}: the provider refuses this content", model=model)
    if finish == "tool_calls" and not has_calls:
        if empty:
            raise broken(model, "the reply ends for the sake of a tool call, and holds none")
        return "stop"
    return "tool_calls" if finish == "stop" and has_calls else finish


def usage_of(wire: Any) -> Usage | None:
    """The counts as the server states them, None when it does not. Its own input is without what the cache took part in."""
    if not isinstance(wire, Mapping) or index(wire.get("input_tokens")) is None:
        return None
    cached, written = count(wire.get("cache_read_input_tokens")), count(wire.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count(wire.get("input_tokens")) + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=count(wire.get("output_tokens")),
        reasoning_tokens=detail(wire, "output_tokens_details", "thinking_tokens"),
    )


def citations_of(cited: Iterable[Mapping[str, Any]], request: Chat, start: int | None, end: int | None) -> list[Citation]:
    """The citations of one text block, which holds the characters `start` to `end` of the reply's text."""
    out = []
    for wire in cited:
        url = string(wire.get("url")) or string(wire.get("source"))
        title = string(wire.get("title")) or string(wire.get("document_title"))
        if (place := index(wire.get("document_index"))) is not None:
            # Documents are numbered through the whole request, and only files are sent as such.
            files = [part for message in request.messages for part in message.parts if isinstance(part, File)]
            url = url or (files[place].url or "" if place < len(files) else "")
        out.append(Citation(url, title, string(wire.get("cited_text")), start, end))
    return out


def call_of(block: Mapping[str, Any], at: int, model: str) -> tuple[str, str]:
    """The id and the name of a tool call. BadReply when it has no name."""
    if not (name := string(block.get("name"))):
        raise broken(model, "a tool call without a name")
    return string(block.get("id")) or f"call_{at}", name
