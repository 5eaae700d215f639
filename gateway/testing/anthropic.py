"""Anthropic's Messages API, as the loopback server speaks it. Truth: `anthropic.types`."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from gateway.testing.dialect import Asked, Dialect, Spoken, as_event, as_json, said_by
from gateway.testing.script import JSON, Refusal, required, tokens

FIELDS = frozenset(
    {
        "cache_control", "container", "diagnostics", "inference_geo", "max_tokens", "messages", "metadata", "model",
        "output_config", "service_tier", "speed", "stop_sequences", "stream", "system", "thinking", "tool_choice", "tools",
        "user_profile_id",
    }
)  # fmt: skip
"""What a request may hold (`MessageCreateParams`)."""
SAMPLING = frozenset({"temperature", "top_k", "top_p"})
VERSIONS = {"2023-06-01": FIELDS | SAMPLING, "2026-10-21": FIELDS}
"""The versions of the API, and what each takes."""
FINISHES = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
KINDS = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
CHOICES = {"auto": "auto", "none": "none", "any": "required"}
THINKING = frozenset({"adaptive", "enabled", "disabled", "between_tools"})
HEARD = frozenset({"text", "image", "document", "search_result"})
EVENTS = frozenset(
    {
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
        "ping", "error",
    }
)  # fmt: skip
EMPTY: Mapping[str, JSON] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
"""What a block begins with, where it comes in pieces."""
STOP = {"type": "message_stop"}


class Anthropic(Dialect):
    """Anthropic's Messages API, for a model that thinks and samples as it is told.

    What a model thought is signed, and is taken back only as it was given. `chunks` are text (``{"content": ...}``), whole
    events, or strings, sent as the content of a data line; a script's `usage` may be in either API's form.
    """

    routes: ClassVar[Mapping[str, str]] = {"/v1/messages": "POST"}
    done = as_event(STOP, STOP["type"])
    error_name = "error"
    preamble = 3

    def speak(self, asked: Asked) -> Spoken:
        version = asked.request.headers.get("anthropic-version", "")
        if version not in VERSIONS:
            raise _refusal("anthropic-version", "is not a valid version" if version else "header is required")
        body = asked.body
        if unknown := body.keys() - VERSIONS[version]:
            raise _refusal(min(unknown), "Extra inputs are not permitted")
        made = said_by(asked, chat_of(body))
        whole = message(made, number=asked.number)
        if not body.get("stream"):
            return Spoken([as_json(whole)])
        sent = events(whole, chunks=asked.reply.chunks if asked.reply else ())
        return Spoken([as_event(each, each["type"] if isinstance(each, dict) else "") for each in sent], True)

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSON:
        kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_loopback"}


def chat_of(body: JSON) -> JSON:
    """The same request as one of Chat Completions. A Refusal for what the API does not take."""
    chat: JSON = {"model": required(body, "model", str), "max_tokens": required(body, "max_tokens", int)}
    turns = _turns(required(body, "messages", list))
    system = body.get("system")
    chat["messages"] = [{"role": "system", "content": system}] if system else []
    called: list[str] = []
    for at, (role, blocks) in enumerate(turns):
        made = _assistant(blocks, f"messages.{at}") if role == "assistant" else _user(role, blocks, called, f"messages.{at}")
        called = [call["id"] for call in made[0].get("tool_calls", ())]
        chat["messages"] += made
    config = body.get("output_config") or {}
    if (kind := (body.get("thinking") or {}).get("type", "disabled")) not in THINKING:
        raise _refusal("thinking.type", "no such value")
    if kind in ("adaptive", "enabled"):
        chat["reasoning_effort"] = config.get("effort", "high")
    if form := config.get("format"):
        blocks = [block for _, blocks in turns for block in blocks]
        if any((block.get("citations") or {}).get("enabled") for block in blocks if block["type"] == "document"):
            raise _refusal("output_config.format", "citations are not supported with it")
        _check_closed(form.get("schema"))
        chat["response_format"] = {"type": form.get("type"), "json_schema": {"name": "answer", "schema": form.get("schema")}}
    if (warmth := body.get("temperature")) is not None and not 0 <= warmth <= 1:
        raise _refusal("temperature", "range: 0..1")
    if stops := body.get("stop_sequences"):
        chat["stop"] = stops
    if tools := body.get("tools"):
        chat["tools"] = [_tool(each) for each in tools]
    if choice := body.get("tool_choice"):
        if not tools:
            raise _refusal("tool_choice", "may only be specified while providing tools")
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = named if choice.get("type") == "tool" else CHOICES.get(choice.get("type"), "")
        chat["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use")
    return chat


def message(made: JSON, *, number: int) -> JSON:
    """A reply of Chat Completions as a Message."""
    [choice] = made["choices"]
    said = choice["message"]
    content: list[JSON] = []
    if thought := said.get("reasoning_content"):
        content.append({"type": "thinking", "thinking": thought, "signature": signature(thought)})
    if said["content"]:
        content.append({"type": "text", "text": said["content"]})
    for call in said.get("tool_calls", ()):
        name = call["function"]["name"]
        content.append({"type": "tool_use", "id": call["id"], "name": name, "input": _input(call["function"]["arguments"])})
    finish = choice["finish_reason"]
    return {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": made["model"], "content": content,
        "stop_reason": FINISHES.get(finish, finish), "stop_sequence": None, "usage": _usage(made["usage"]),
    }  # fmt: skip


def events(whole: JSON, *, chunks: Sequence[Mapping[str, Any] | str] = ()) -> list[Any]:
    """A whole Message as the events of its stream, without the message_stop at its end."""
    usage, why = whole["usage"], {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    begun = {name: value for name, value in usage.items() if name != "output_tokens_details"} | {"output_tokens": 1}
    sent: list[Any] = [{"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": begun}}]
    content = whole["content"]
    if chunks and not any(block["type"] == "text" for block in content):
        content = [*content, {"type": "text", "text": ""}]
    for at, block in enumerate(content):
        begins = {**block, **EMPTY.get(block["type"], {})} | ({"citations": []} if block.get("citations") else {})
        sent.append({"type": "content_block_start", "index": at, "content_block": begins})
        if at == 0:
            sent.append({"type": "ping"})
        for piece in _pieces(block, chunks):
            whole_event = isinstance(piece, str) or piece["type"] in EVENTS
            sent.append(piece if whole_event else {"type": "content_block_delta", "index": at, "delta": piece})
        sent.append({"type": "content_block_stop", "index": at})
    return [*sent, {"type": "message_delta", "delta": why, "usage": usage}]


def signature(thought: str) -> str:
    """What proves that a thought is this server's own: always the same for the same thought."""
    return base64.b64encode(hashlib.sha256(thought.encode("utf-8", "surrogatepass")).digest()).decode()


def _pieces(block: JSON, chunks: Sequence[Mapping[str, Any] | str]) -> Iterator[Any]:
    """The deltas of a block; of a text those of the script, where it has any."""
    match block["type"]:
        case "thinking":
            for piece in tokens(block["thinking"]):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "text":
            for chunk in chunks or [{"content": piece} for piece in tokens(block["text"])]:
                if isinstance(chunk, str) or "type" in chunk:
                    yield chunk
                else:
                    yield {"type": "text_delta", "text": chunk["content"]}
            for citation in block.get("citations") or ():
                yield {"type": "citations_delta", "citation": citation}
        case "tool_use":
            given = block["input"]
            # Without spaces, so that a whole reply and a streamed one are read as the same text.
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, separators=(",", ":"))
            for piece in ("", *tokens(text)):
                yield {"type": "input_json_delta", "partial_json": piece}


def _turns(messages: list[Any]) -> list[tuple[str, list[JSON]]]:
    """The turns, each with its blocks; those of one side in a row are one."""
    turns: list[tuple[str, list[JSON]]] = []
    for at, each in enumerate(messages):
        role, content = (each.get("role"), each.get("content")) if isinstance(each, dict) else (None, None)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if role not in ("user", "assistant", "system") or (role == "system" and at == 0):
            raise _refusal(f"messages.{at}.role", "user or assistant; the system prompt is the field 'system'")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) and block.get("type") for block in blocks):
            raise _refusal(f"messages.{at}.content", "a string, or blocks with a type")
        if not blocks or any(block["type"] == "text" and not block.get("text") for block in blocks):
            raise _refusal(f"messages.{at}.content", "must be non-empty")
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, list(blocks)))
    if not turns:
        raise _refusal("messages", "at least one message is required")
    return turns


def _user(role: str, blocks: list[JSON], called: list[str], param: str) -> list[JSON]:
    results = [block for block in blocks if block["type"] == "tool_result"]
    rest = [block for block in blocks if block["type"] != "tool_result"]
    if sorted(block.get("tool_use_id", "") for block in results) != sorted(called):
        raise _refusal(param, "each tool_use needs a tool_result in the turn after it, and each tool_result its tool_use")
    if blocks != [*results, *rest]:
        raise _refusal(param, "tool_result blocks come before all others")
    if unknown := {block["type"] for block in rest} - HEARD:
        raise _refusal(param, f"no block {min(unknown)!r} here")
    made: list[JSON] = [
        {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block.get("content", "")} for block in results
    ]
    return [*made, {"role": role, "content": rest}] if rest else made


def _assistant(blocks: list[JSON], param: str) -> list[JSON]:
    calls = []
    for block in blocks:
        match block["type"]:
            case "thinking" if block.get("signature") != signature(block["thinking"]):
                raise _refusal(param, "Invalid `signature` in `thinking` block")
            case "tool_use":
                if not isinstance(block.get("input"), dict):
                    raise _refusal(param, "input: Input should be a valid dictionary")
                function = {"name": block["name"], "arguments": json.dumps(block["input"])}
                calls.append({"id": block["id"], "type": "function", "function": function})
            case "text" | "thinking" | "redacted_thinking":
                pass
            case kind:
                raise _refusal(param, f"no block {kind!r} here")
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    return [{"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})]


def _tool(tool: Any) -> JSON:
    if not isinstance(tool, dict) or not tool.get("name") or (tool.get("input_schema") or {}).get("type") != "object":
        raise _refusal("tools", "a tool has a name and an input_schema of the type object")
    return {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}


def _check_closed(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _check_closed(each)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise _refusal("output_config.format.schema", "'additionalProperties' must be explicitly set to false")
        for each in schema.values():
            _check_closed(each)


def _input(arguments: str) -> Any:
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        given = None
    return given if isinstance(given, dict) else arguments  # broken on purpose: said as the script has it


def _usage(made: JSON) -> JSON:
    if "prompt_tokens" not in made:
        return made
    heard, told = made.get("prompt_tokens_details") or {}, made.get("completion_tokens_details") or {}
    cached, written = heard.get("cached_tokens", 0), heard.get("cache_write_tokens", 0)
    out: JSON = {
        "input_tokens": made["prompt_tokens"] - cached - written, "output_tokens": made["completion_tokens"],
        "cache_read_input_tokens": cached, "cache_creation_input_tokens": written,
    }  # fmt: skip
    return out | ({"output_tokens_details": {"thinking_tokens": told["reasoning_tokens"]}} if told else {})


def _refusal(param: str, why: str) -> Refusal:
    return Refusal(400, f"{param}: {why}")
