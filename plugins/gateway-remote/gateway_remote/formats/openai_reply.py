"""Replies of OpenAI's HTTP API as responses: whole ones here, streams in openai_stream.py. No I/O."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Any

from gateway import (
    Chat,
    ChatResponse,
    Citation,
    ContentFiltered,
    Embed,
    EmbedResponse,
    Finish,
    Logprob,
    Part,
    Reasoning,
    Text,
    ToolCall,
    Usage,
)
from gateway_remote.formats.api import Heard
from gateway_remote.formats.values import (
    arguments_of,
    bad,
    broken,
    count,
    detail,
    each_said,
    estimate,
    finish_of,
    index,
    number,
    object_of,
    objects,
    said,
    string,
)

FINISHES: Mapping[str, Finish] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length", "model_length": "length",
    "tool_calls": "tool_calls", "tool_call": "tool_calls", "function_call": "tool_calls",
    "content_filter": "filter", "refusal": "filter", "safety": "filter",
}  # fmt: skip
TEXTS = {"text": "text", "output_text": "text", "summary_text": "text", "refusal": "refusal"}
"""Kinds of parts of a content that are text, and under which name."""
ELSE = frozenset({"audio", "images", "function_call"})
"""What a message may hold beside its text, its thoughts and its calls."""


def chat_response(body: bytes, request: Chat, heard: Heard) -> ChatResponse:
    """The reply of POST /chat/completions."""
    payload, model = object_of(body, heard), heard.model
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise broken(model, "the reply holds no message")
    parts: list[Part] = []
    if thought := reasoning_of(message, model):
        parts.append(Reasoning(thought))
    refusal = message.get("refusal")
    if text := text_of(message.get("content"), model) + text_of(refusal, model):
        parts.append(Text(text))
    nothing_else(message, model)
    if annotations := message.get("annotations"):
        parts += map(citation_of, objects(annotations))
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list):
            raise broken(model, "tool_calls is no list")
        parts += [_tool_call(call, at, model) for at, call in enumerate(calls)]
    wire = choice.get("finish_reason") or "stop"
    if refusal and wire == "stop":
        wire = "refusal"
    return ChatResponse(
        parts=tuple(parts),
        finish=chat_finish(wire, bool(calls), not parts, model),
        usage=usage_of(payload.get("usage")) or estimate(request, parts),
        id=string(payload.get("id")) or heard.headers.get("x-request-id", ""),
        served_by=string(payload.get("model")),
        logprobs=() if request.logprobs is None else logprobs_of(choice.get("logprobs")),
        quota=heard.quota,
    )


def embed_response(body: bytes, request: Embed, heard: Heard) -> EmbedResponse:
    """The vectors of POST /embeddings, one per text in the texts' order."""
    payload, model = object_of(body, heard), heard.model
    data = payload.get("data")
    if not isinstance(data, list) or len(data) != len(request.texts):
        raise bad(model, f"{len(data) if isinstance(data, list) else 'no'} vectors for {len(request.texts)} texts")
    vectors: list[tuple[float, ...] | None] = [None] * len(data)
    for at, row in enumerate(data):
        place = row.get("index", at) if isinstance(row, dict) else None
        if not isinstance(place, int) or not 0 <= place < len(data) or vectors[place] is not None:
            raise broken(model, "the vectors' indices do not number the texts")
        vectors[place] = vector_of(row.get("embedding"), model)
    filled = checked_vectors([vector for vector in vectors if vector is not None], request, model)
    used = usage_of(payload.get("usage")) or estimate(request)
    return EmbedResponse(vectors=filled, usage=used, quota=heard.quota)


def checked_vectors(vectors: list[tuple[float, ...]], request: Embed, model: str) -> tuple[tuple[float, ...], ...]:
    """The vectors, all of one length and of the length that was asked for."""
    sizes = {len(vector) for vector in vectors}
    if len(sizes) != 1 or 0 in sizes or (request.dimensions is not None and sizes != {request.dimensions}):
        wanted = f"{request.dimensions}" if request.dimensions else "one length"
        raise bad(model, f"vectors of {', '.join(map(str, sorted(sizes)))} dimensions where {wanted} was wanted")
    return tuple(vectors)


def vector_of(value: Any, model: str) -> tuple[float, ...]:
    """A vector: numbers, or base64 of little-endian float32."""
    if isinstance(value, str):
        try:
            packed = base64.b64decode(value, validate=True)
            vector: tuple[float, ...] = struct.unpack(f"<{len(packed) // 4}f", packed)
        except (binascii.Error, ValueError, struct.error):
            raise broken(model, "a vector is neither numbers nor base64") from None
    else:
        try:
            vector = tuple(map(float, value)) if isinstance(value, list) else ()
        except (TypeError, ValueError, OverflowError):
            raise broken(model, "a vector is neither numbers nor base64") from None
    if not all(map(math.isfinite, vector)):
        raise broken(model, "a vector holds what is no finite number")
    return vector


def chat_finish(wire: Any, has_calls: bool, empty: bool, model: str) -> Finish:
    """Why the reply ended. ContentFiltered when a filter has left nothing of it.

    Several servers say "stop" after calls that a named tool_choice forced.
    """
    finish = finish_of(wire, FINISHES, model)
    if finish == "filter" and empty:
        raise ContentFiltered(f"model {model!r}: the provider's filter has left nothing of the reply", model=model)
    if finish == "tool_calls" and not has_calls:
        if empty:
            raise broken(model, "the reply ends for the sake of a tool call, and holds none")
        return "stop"
    return "tool_calls" if finish == "stop" and has_calls else finish


def usage_of(wire: Any) -> Usage | None:
    """The counts as the server states them, None when it does not."""
    if not isinstance(wire, dict) or not isinstance(wire.get("prompt_tokens"), int):
        return None
    return Usage(
        input_tokens=count(wire["prompt_tokens"]),
        cached_tokens=detail(wire, "prompt_tokens_details", "cached_tokens") or count(wire.get("prompt_cache_hit_tokens")),
        cache_write_tokens=detail(wire, "prompt_tokens_details", "cache_write_tokens"),
        output_tokens=count(wire.get("completion_tokens")),
        reasoning_tokens=detail(wire, "completion_tokens_details", "reasoning_tokens"),
    )


def reasoning_of(message: Mapping[str, Any], model: str) -> str:
    """What the model thought, by either of the two names that servers have for it, or in its content (Mistral, Databricks)."""
    if thought := string(message.get("reasoning")) or string(message.get("reasoning_content")):
        return thought
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    thoughts = [part for part in objects(content) if part.get("type") in ("thinking", "reasoning")]
    return "".join(text_of(part.get("thinking") or part.get("summary"), model) for part in thoughts)


def text_of(content: Any, model: str) -> str:
    """The text of a message's content: a string, or a list of parts as some servers send it."""
    if content is None or isinstance(content, str):
        return content or ""
    out = []
    for part in each_said(content, model):
        kind = string(part.get("type"))
        if kind in TEXTS:
            out.append(said(part.get(TEXTS[kind]), model))
        elif kind not in ("thinking", "reasoning", "reference"):
            raise bad(model, "the reply holds a part of a kind that is not read")
    return "".join(out)


def nothing_else(message: Mapping[str, Any], model: str) -> None:
    """BadReply for what a row's `body` can ask for, and no response has a place for: it must not be lost unseen."""
    if ELSE.isdisjoint(message):
        return
    for name in sorted(ELSE):
        value = message.get(name)
        # Some servers tell a call a second time, as it was told of old; and some name all that there is none of.
        empty = not any(value.values()) if isinstance(value, dict) else not value
        if not empty and not (name == "function_call" and message.get("tool_calls")):
            raise bad(model, f"the reply holds {name!r}, which is not read: a row's `body` must not ask for it")


def citation_of(wire: Mapping[str, Any]) -> Citation:
    """An annotation of a text."""
    inner = wire.get("url_citation")
    cited = inner if isinstance(inner, dict) else wire
    start, end = index(cited.get("start_index")), index(cited.get("end_index"))
    return Citation(string(cited.get("url")), string(cited.get("title")), string(cited.get("content")), start, end)


def logprobs_of(wire: Any) -> tuple[Logprob, ...]:
    """What a choice says of its tokens."""
    content = wire.get("content") if isinstance(wire, dict) else None
    return tuple(
        Logprob(
            string(each.get("token")),
            number(each.get("logprob")) or 0.0,
            tuple((string(top.get("token")), number(top.get("logprob")) or 0.0) for top in objects(each.get("top_logprobs"))),
        )
        for each in objects(content)
    )


def _tool_call(call: Any, at: int, model: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise broken(model, "a tool call without a name")
    return ToolCall(string(call.get("id")) or f"call_{at}", name, arguments_of(function.get("arguments")))
