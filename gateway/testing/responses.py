"""OpenAI's Responses API, as the loopback server speaks it. Truth: `openai.types.responses`."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from gateway.testing.dialect import Asked, Dialect, Spoken, as_event, as_json, said_by
from gateway.testing.script import CREATED, JSON, Refusal, Reply, required, tokens

FIELDS = frozenset(
    {
        "access_programs", "background", "background_options", "context_management", "conversation", "image", "include",
        "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation",
        "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options",
        "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
"""What a request may hold (`ResponseCreateParams`)."""
CONTENTS = {"assistant": ("output_text", "refusal")}
HEARD = ("input_text", "input_image", "input_file")
"""What a message of another role than the assistant's may hold (`ResponseInputContentParam`)."""
UNFINISHED = {"length": "max_output_tokens", "content_filter": "content_filter"}
LOGPROB = -0.5


class Responses(Dialect):
    """OpenAI's Responses API, for a client that keeps its own state.

    A scripted `reasoning` is said in the summary; reasoning comes back encrypted when it is asked for so, and is taken only as
    it was given. `chunks` are text (``{"content": ...}``), whole events, or strings, sent as the content of a data line.
    """

    routes: ClassVar[Mapping[str, str]] = {"/v1/responses": "POST"}
    error_name = "error"
    preamble = 4

    def speak(self, asked: Asked) -> Spoken:
        body, reply = asked.body, asked.reply or Reply()
        made = said_by(asked, chat_of(body))
        whole = response(made, body, number=asked.number, summarized=reply.reasoning is not None)
        if not body.get("stream"):
            return Spoken([as_json(whole)])
        return Spoken([as_event(each, _name(each)) for each in events(whole, chunks=reply.chunks)], True)

    def error_event(self, message: str) -> JSON:
        return {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}


def chat_of(body: JSON) -> JSON:
    """The same request as one of Chat Completions. A Refusal for what the API does not take."""
    if unknown := body.keys() - FIELDS:
        raise Refusal(400, f"Unknown parameter: '{min(unknown)}'.", param=min(unknown), code="unknown_parameter")
    given = required(body, "input", (str, list))
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = [message for at, item in enumerate(items) for message in _messages(item, f"input[{at}]")]
    if told := body.get("instructions"):
        messages.insert(0, {"role": "system", "content": told})
    chat: JSON = {"model": required(body, "model", str), "messages": messages}
    if tools := body.get("tools"):
        chat["tools"] = [_tool(each) for each in tools]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        form = {"type": "json_schema", "json_schema": {name: form[name] for name in form.keys() - {"type"}}}
    chat |= {
        name: value
        for name, value in {
            "tool_choice": choice,
            "response_format": form or None,
            "max_completion_tokens": body.get("max_output_tokens"),
            "parallel_tool_calls": body.get("parallel_tool_calls"),
            "reasoning_effort": (body.get("reasoning") or {}).get("effort"),
        }.items()
        if value is not None
    }
    return chat


def response(made: JSON, body: JSON, *, number: int, summarized: bool = False) -> JSON:
    """A reply of Chat Completions as a Response."""
    [choice] = made["choices"]
    message, include = choice["message"], body.get("include") or ()
    text, thought, calls = message["content"], message.get("reasoning_content"), message.get("tool_calls", ())
    reason = UNFINISHED.get(choice["finish_reason"])
    status = "incomplete" if reason else "completed"
    output: list[JSON] = []
    if thought:
        told = summarized or (body.get("reasoning") or {}).get("summary")
        summary = [{"type": "summary_text", "text": thought}] if told else []
        output.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary})
        if "reasoning.encrypted_content" in include:
            output[-1]["encrypted_content"] = _sealed(thought)
    if text or not (calls or thought):
        content: JSON = {"type": "output_text", "text": text or "", "annotations": [], "logprobs": []}
        if "message.output_text.logprobs" in include:
            content["logprobs"] = _logprobs(text or "", body.get("top_logprobs") or 0)
        parts = [content]
        output.append({"type": "message", "id": f"msg_{number}", "role": "assistant", "status": status, "content": parts})
    for at, call in enumerate(calls):
        called = {"call_id": call["id"], "status": status, **call["function"]}
        output.append({"type": "function_call", "id": f"fc_{number}_{at}", **called})
    facts = ("instructions", "max_output_tokens", "previous_response_id", "reasoning", "temperature", "top_p")
    return {
        "id": f"resp_{number}", "object": "response", "created_at": CREATED, "model": made["model"], "status": status,
        "error": None, "incomplete_details": {"reason": reason} if reason else None, "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False, "metadata": body.get("metadata") or {},
        "store": body.get("store") is not False, "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto", "tools": body.get("tools") or [],
        "truncation": body.get("truncation") or "disabled", "usage": _usage(made["usage"]),
        **{name: body.get(name) for name in facts},
    }  # fmt: skip


def events(whole: JSON, *, chunks: Sequence[Mapping[str, Any] | str] = ()) -> list[Any]:
    """A whole Response as the events of its stream, in their order, each with its number."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    sent: list[Any] = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    for at, item in enumerate(whole["output"]):
        sent += [
            each if isinstance(each, str) else {"output_index": at, **each}
            for each in (*_begun(item), *_pieces(item, chunks), {"type": "response.output_item.done", "item": item})
        ]
    sent.append({"type": f"response.{whole['status']}", "response": whole})
    return [each if isinstance(each, str) else {**each, "sequence_number": at} for at, each in enumerate(sent)]


def _begun(item: JSON) -> Iterator[JSON]:
    empty: dict[str, JSON] = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}
    started = {**item, **empty[item["type"]]}
    started |= {"status": "in_progress"} if "status" in item else {}
    started.pop("encrypted_content", None)  # it is whole only when the item is
    yield {"type": "response.output_item.added", "item": started}


def _pieces(item: JSON, chunks: Sequence[Mapping[str, Any] | str]) -> Iterator[Any]:
    within: JSON = {"item_id": item["id"]}
    match item["type"]:
        case "function_call":
            for piece in tokens(item["arguments"]):
                yield {"type": "response.function_call_arguments.delta", **within, "delta": piece}
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **within, **done}
        case "reasoning":
            for at, part in enumerate(item["summary"]):
                within |= {"summary_index": at}
                kind = "response.reasoning_summary"
                yield {"type": f"{kind}_part.added", **within, "part": {**part, "text": ""}}
                for piece in tokens(part["text"]):
                    yield {"type": f"{kind}_text.delta", **within, "delta": piece}
                yield {"type": f"{kind}_text.done", **within, "text": part["text"]}
                yield {"type": f"{kind}_part.done", **within, "part": part}
        case "message":
            [part] = item["content"]
            within |= {"content_index": 0}
            yield {"type": "response.content_part.added", **within, "part": {**part, "text": "", "logprobs": []}}
            for chunk in chunks or [{"content": piece} for piece in tokens(part["text"])]:
                if isinstance(chunk, str):
                    yield chunk
                elif "content" in chunk:
                    told, most = chunk["content"], len(part["logprobs"][0]["top_logprobs"]) if part["logprobs"] else -1
                    logprobs = _logprobs(told, most) if most >= 0 else []
                    yield {"type": "response.output_text.delta", **within, "delta": told, "logprobs": logprobs}
                else:
                    yield {**within, **chunk}
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield {"type": "response.output_text.done", **within, **done}
            yield {"type": "response.content_part.done", **within, "part": part}


def _messages(item: Any, param: str) -> Iterator[JSON]:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    match kind:
        case "message":
            yield {"role": _role(item, param), "content": item["content"]}
        case "function_call":
            function = {name: item.get(name) for name in ("name", "arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            yield {"role": "assistant", "content": None, "tool_calls": [call]}
        case "function_call_output":
            yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
        case "reasoning":
            if "status" in item:  # the package's type has it, and OpenAI refuses it
                raise Refusal(400, f"Unknown parameter: '{param}.status'.", param=param, code="unknown_parameter")
            _unsealed(item.get("encrypted_content"), param)
        case _:
            raise Refusal(400, f"Invalid value: '{kind}'.", param=f"{param}.type", code="invalid_value")


def _role(item: JSON, param: str) -> str:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        raise Refusal(400, f"Invalid value: '{role}'.", param=f"{param}.role", code="invalid_value")
    kinds = CONTENTS.get(role, HEARD)
    parts = content if isinstance(content, list) else []
    if not isinstance(content, str | list) or not all(isinstance(part, dict) and part.get("type") in kinds for part in parts):
        supported = " and ".join(f"'{kind}'" for kind in kinds)
        raise Refusal(400, f"Invalid value. Supported values are: {supported}.", param=f"{param}.content", code="invalid_value")
    return "system" if role == "developer" else str(role)


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _usage(made: JSON) -> JSON:
    """The counts of Chat Completions as ResponseUsage; those of a script may be in that form already."""
    if "input_tokens" in made:
        return made
    heard, told = made.get("prompt_tokens_details") or {}, made.get("completion_tokens_details") or {}
    return {
        "input_tokens": made["prompt_tokens"],
        "input_tokens_details": {name: heard.get(name, 0) for name in ("cached_tokens", "cache_write_tokens")},
        "output_tokens": made["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": told.get("reasoning_tokens", 0)},
        "total_tokens": made["prompt_tokens"] + made["completion_tokens"],
    }


def _logprobs(text: str, most: int) -> list[JSON]:
    def told(piece: str) -> JSON:
        return {"token": piece, "bytes": list(piece.encode("utf-8", "replace")), "logprob": LOGPROB}

    return [{**told(piece), "top_logprobs": [told(piece)][:most]} for piece in tokens(text)]


def _sealed(thought: str) -> str:
    return base64.urlsafe_b64encode(thought.encode("utf-8", "surrogatepass")).decode()


def _unsealed(sealed: Any, param: str) -> str:
    if not isinstance(sealed, str):
        told = "Items are not persisted when `store` is set to false."
        raise Refusal(404, f"Item not found. {told}", param=param)
    try:
        return base64.b64decode(sealed, altchars=b"-_", validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        told = "The encrypted content could not be verified."
        raise Refusal(400, told, param=param, code="invalid_encrypted_content") from None


def _name(event: Any) -> str:
    return str(event["type"]) if isinstance(event, dict) else ""
