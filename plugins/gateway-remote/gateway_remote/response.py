"""Replies of OpenAI's HTTP API as responses: whole ones here, streams in stream.py. No I/O."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    Embed,
    EmbedResponse,
    Finish,
    Overloaded,
    Part,
    Quota,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)
from gateway_remote.failures import payload_failure
from gateway_remote.jsonbytes import JSONError, dumps, loads

FINISHES: Mapping[str, Finish] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length", "model_length": "length",
    "tool_calls": "tool_calls", "tool_call": "tool_calls", "function_call": "tool_calls",
    "content_filter": "filter", "refusal": "filter", "safety": "filter",
}  # fmt: skip
BYTES_PER_TOKEN = 4  # for an estimate, where a server does not count


def chat_response(
    body: bytes,
    request: Chat,
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    quota: Quota | None = None,
    now_s: float = 0.0,
) -> ChatResponse:
    """The reply in a body of status 200. BadReply when it is none; or the ServiceError that it holds."""
    payload = _object(body, model, headers or {}, now_s)
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise broken(model, "the reply holds no message")
    parts: list[Part] = []
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        parts.append(Reasoning(reasoning))
    refusal = message.get("refusal")
    if text := text_of(message.get("content")) or text_of(refusal):
        parts.append(Text(text))
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)):
        raise broken(model, "tool_calls is no list")
    parts += [_tool_call(call, at, model) for at, call in enumerate(calls)]
    wire = choice.get("finish_reason") or "stop"
    if refusal and wire == "stop":
        wire = "refusal"
    return ChatResponse(
        parts=tuple(parts),
        finish=finish_of(wire, bool(calls), model),
        usage=usage_of(payload.get("usage")) or estimate(request, parts),
        id=_string(payload.get("id")) or (headers or {}).get("x-request-id", ""),
        served_by=_string(payload.get("model")),
        quota=quota,
    )


def embed_response(
    body: bytes,
    request: Embed,
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    quota: Quota | None = None,
    now_s: float = 0.0,
) -> EmbedResponse:
    """The vectors in a body of status 200, one per text in the texts' order; else BadReply."""
    payload = _object(body, model, headers or {}, now_s)
    data = payload.get("data")
    if not isinstance(data, list) or len(data) != len(request.texts):
        count = len(data) if isinstance(data, list) else "no"
        raise bad(model, f"{count} vectors for {len(request.texts)} texts")
    vectors: list[tuple[float, ...] | None] = [None] * len(data)
    for at, row in enumerate(data):
        index = row.get("index", at) if isinstance(row, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(data) or vectors[index] is not None:
            raise broken(model, "the vectors' indices do not number the texts")
        vectors[index] = _vector(row.get("embedding"), model)
    filled = tuple(vector for vector in vectors if vector is not None)
    sizes = {len(vector) for vector in filled}
    if len(sizes) != 1 or 0 in sizes or (request.dimensions is not None and sizes != {request.dimensions}):
        wanted = f"{request.dimensions}" if request.dimensions else "one length"
        raise bad(model, f"vectors of {', '.join(map(str, sorted(sizes)))} dimensions where {wanted} was wanted")
    used = usage_of(payload.get("usage"))
    if used is None:
        used = Usage(input_tokens=_tokens(request.traits().input_bytes), estimated=True)
    return EmbedResponse(vectors=filled, usage=used, quota=quota)


def finish_of(wire: Any, has_calls: bool, model: str) -> Finish:
    """Why the reply ended. A finish that is a failure raises it; one that is unknown is a BadReply."""
    known = FINISHES.get(wire) if isinstance(wire, str) else None
    if known is None:
        if wire == "insufficient_system_resource":
            raise Overloaded(f"model {model!r}: overloaded while it answered", model=model)
        if wire in ("error", "abort"):
            raise ServiceError(f"model {model!r}: the provider broke the reply off", model=model, retryable=True)
        shown = f" {wire!r}" if isinstance(wire, str) and re.fullmatch(r"[a-z0-9_.-]{1,64}", wire) else ""
        raise bad(model, f"unknown finish_reason{shown}")
    # Several servers say "stop" after calls that a named tool_choice forced.
    return "tool_calls" if known == "stop" and has_calls else known


def usage_of(wire: Any) -> Usage | None:
    """The counts as the server states them, None when it does not."""
    if not isinstance(wire, dict) or not isinstance(wire.get("prompt_tokens"), int):
        return None
    cached = _detail(wire, "prompt_tokens_details", "cached_tokens") or _count(wire.get("prompt_cache_hit_tokens"))
    return Usage(
        input_tokens=_count(wire.get("prompt_tokens")),
        cached_tokens=cached,
        output_tokens=_count(wire.get("completion_tokens")),
        reasoning_tokens=_detail(wire, "completion_tokens_details", "reasoning_tokens"),
    )


def estimate(request: Chat, parts: list[Part] | tuple[Part, ...]) -> Usage:
    """The counts where the server states none, labelled as an estimate."""
    thought = sum(len(part.text) for part in parts if isinstance(part, Reasoning))
    told = sum(len(part.arguments if isinstance(part, ToolCall) else getattr(part, "text", "")) for part in parts)
    return Usage(
        input_tokens=_tokens(request.traits().input_bytes),
        output_tokens=_tokens(told),
        reasoning_tokens=_tokens(thought),
        estimated=True,
    )


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts as some servers send it."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        )
    return ""


def arguments_of(value: Any) -> str:
    """A tool call's arguments as JSON text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value).decode()


def bad(model: str, what: str, **facts: Any) -> BadReply:
    """A BadReply that would come again; `what` never quotes the reply."""
    return BadReply(f"model {model!r}: {what}", model=model, **facts)


def broken(model: str, what: str) -> BadReply:
    """A BadReply of what was torn, garbled or empty, which asking again may cure; `what` never quotes the reply."""
    return bad(model, what, retryable=True)


def holds_error(payload: Mapping[str, Any]) -> bool:
    """True for an error in a reply's place; vLLM has sent its own without a field ``error``."""
    return bool(payload.get("error")) or payload.get("object") == "error"


def _object(body: bytes, model: str, headers: Mapping[str, str], now_s: float) -> dict[str, Any]:
    if not body.strip():
        raise broken(model, "the reply is empty")
    try:
        payload = loads(body)
    except JSONError:
        kind = "an HTML page, not JSON: check base_url" if "html" in headers.get("content-type", "") else "no JSON"
        raise broken(model, f"the reply is {kind}") from None
    if not isinstance(payload, dict):
        raise broken(model, "the reply is no JSON object")
    if holds_error(payload):
        raise payload_failure(payload, model=model, headers=headers, now_s=now_s)
    return payload


def _tool_call(call: Any, at: int, model: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise broken(model, "a tool call without a name")
    return ToolCall(_string(call.get("id")) or f"call_{at}", name, arguments_of(function.get("arguments")))


def _vector(value: Any, model: str) -> tuple[float, ...]:
    if isinstance(value, str):  # base64 of little-endian float32
        try:
            packed = base64.b64decode(value, validate=True)
            vector: tuple[float, ...] = struct.unpack(f"<{len(packed) // 4}f", packed)
        except (binascii.Error, ValueError, struct.error):
            raise broken(model, "a vector is neither numbers nor base64") from None
    else:
        try:
            vector = tuple(map(float, value)) if isinstance(value, list) else ()
        except (TypeError, ValueError):
            raise broken(model, "a vector is neither numbers nor base64") from None
    if not all(map(math.isfinite, vector)):
        raise broken(model, "a vector holds what is no finite number")
    return vector


def _detail(wire: dict[str, Any], group: str, name: str) -> int:
    details = wire.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)
