"""Replies of the Responses API, checked by the `openai` package's own models: whole, and as the events of a stream."""

from __future__ import annotations

import json
from typing import Any

from openai.types import responses as wire
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(wire.ResponseStreamEvent)
USAGE = {
    "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
    "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 15}, "total_tokens": 30,
}  # fmt: skip


def text(said: str, *, annotations: Any = (), logprobs: Any = None) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": list(annotations), "logprobs": logprobs}


def message(*content: dict[str, Any], id: str = "msg_1", **facts: Any) -> dict[str, Any]:
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": list(content), **facts}


def refusal(said: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": said}


def thought(*summary: str, id: str = "rs_1", content: tuple[str, ...] | None = None, **facts: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": each} for each in summary],
    }  # fmt: skip
    if content is not None:
        item["content"] = [{"type": "reasoning_text", "text": each} for each in content]
    return {**item, **facts}


def call(name: str, arguments: str, id: str = "call_1") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{id}",
        "call_id": id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def url(start: int, end: int, link: str = "https://x.example", title: str = "X") -> dict[str, Any]:
    return {"type": "url_citation", "start_index": start, "end_index": end, "url": link, "title": title}


def logprob(token: str, value: float, *top: tuple[str, float]) -> dict[str, Any]:
    def told(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "bytes": list(token.encode()), "logprob": value}

    return {**told(token, value), "top_logprobs": [told(*each) for each in top]}


def reply(*items: dict[str, Any], status: str = "completed", **facts: Any) -> dict[str, Any]:
    """A Response, checked by the package's model."""
    whole: dict[str, Any] = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "real-name", "status": status, "error": None,
        "incomplete_details": None, "output": list(items), "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": USAGE, **facts,
    }  # fmt: skip
    wire.Response.model_validate(whole)
    return whole


def events(whole: dict[str, Any], *, sizes: tuple[int, ...] = (3,)) -> list[bytes]:
    """The events that stream a Response, each checked by the package's model; texts come in pieces of so many characters."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None, "error": None}
    sent: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for at, item in enumerate(whole["output"]):
        sent += [{"output_index": at, **each} for each in _item(item, sizes)]
    sent.append({"type": f"response.{whole['status']}", "response": whole})
    numbered = [{**each, "sequence_number": number} for number, each in enumerate(sent)]
    for each in numbered:
        EVENT.validate_python(each)
    return [json.dumps(each, ensure_ascii=False).encode() for each in numbered]


def pieces(said: str, sizes: tuple[int, ...]) -> list[str]:
    out, at = [], 0
    while at < len(said):
        size = sizes[len(out) % len(sizes)]
        out.append(said[at : at + size])
        at += size
    return out


def _item(item: dict[str, Any], sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    empty = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}.get(item["type"], {})
    started = {name: value for name, value in {**item, **empty}.items() if name not in ("encrypted_content",)}
    if item["type"] == "reasoning":
        started.pop("content", None)
    within = {"item_id": item["id"]}
    out: list[dict[str, Any]] = [{"type": "response.output_item.added", "item": started}]
    match item["type"]:
        case "reasoning":
            for at, part in enumerate(item["summary"]):
                kind, here = "response.reasoning_summary", {**within, "summary_index": at}
                out.append({"type": f"{kind}_part.added", **here, "part": {**part, "text": ""}})
                out += [{"type": f"{kind}_text.delta", **here, "delta": piece} for piece in pieces(part["text"], sizes)]
                out.append({"type": f"{kind}_text.done", **here, "text": part["text"]})
                out.append({"type": f"{kind}_part.done", **here, "part": part})
            for at, part in enumerate(item.get("content") or ()):
                here = {**within, "content_index": at}
                out += [
                    {"type": "response.reasoning_text.delta", **here, "delta": piece} for piece in pieces(part["text"], sizes)
                ]
                out.append({"type": "response.reasoning_text.done", **here, "text": part["text"]})
        case "message":
            for at, part in enumerate(item["content"]):
                out += [{**each, **within, "content_index": at} for each in _content(part, sizes)]
        case "function_call":
            kind = "response.function_call_arguments"
            out += [{"type": f"{kind}.delta", **within, "delta": piece} for piece in pieces(item["arguments"], sizes)]
            out.append({"type": f"{kind}.done", **within, "arguments": item["arguments"], "name": item["name"]})
    out.append({"type": "response.output_item.done", "item": item})
    return out


def _content(part: dict[str, Any], sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    if part["type"] == "refusal":
        out = [{"type": "response.content_part.added", "part": {**part, "refusal": ""}}]
        out += [{"type": "response.refusal.delta", "delta": piece} for piece in pieces(part["refusal"], sizes)]
        out.append({"type": "response.refusal.done", "refusal": part["refusal"]})
    else:
        told = list(part["logprobs"] or ())
        out = [{"type": "response.content_part.added", "part": {**part, "text": "", "annotations": [], "logprobs": []}}]
        for piece in pieces(part["text"], sizes):
            out.append({"type": "response.output_text.delta", "delta": piece, "logprobs": told[:1]})
            told = told[1:]
        if out[-1]["type"].endswith("delta"):
            out[-1]["logprobs"] += told
        for at, each in enumerate(part["annotations"]):
            out.append({"type": "response.output_text.annotation.added", "annotation": each, "annotation_index": at})
        out.append({"type": "response.output_text.done", "text": part["text"], "logprobs": part["logprobs"] or []})
    out.append({"type": "response.content_part.done", "part": part})
    return out
