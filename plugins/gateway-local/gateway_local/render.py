"""Chat messages as a chat template takes them. What cannot be carried is refused by name, never dropped. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import Chat, Citation, Message, Options, Reasoning, Text, Tool, ToolCall, ToolResult, UnsupportedOption
from gateway_local.syntax import HARMONY, MISTRAL, MISTRAL_ARGS, Family, family_of, thoughts_of
from gateway_local.template import EFFORT, Reads, reads_of

HINT = "ask without it, or ask another model"
KINDS = {"image": "images", "audio": "audio", "file": "files"}


@dataclass(frozen=True)
class Opening:
    """How an answer must begin, written after the prompt, and the schema that the rest must fit; None for free text."""

    text: str = ""
    schema: Mapping[str, Any] | None = None


def refuse_options(request: Chat, options: Options, template: str) -> None:
    """UnsupportedOption for the first option of a chat that a model with this template does not honour."""
    reads, family = reads_of(template), family_of(template)
    forced = request.tool_choice not in ("auto", "none")
    if request.tools and request.tool_choice != "none":
        if not reads.tool_calling:
            options.refuse("tools", f"its chat template has no place for them; {HINT}")
        if family is None:
            options.refuse("tools", f"how it writes a call is not known; {HINT}")
        if request.response_format is not None:
            options.refuse("tools", "an answer is either a call or of the shape of response_format: ask for one of the two")
        if forced and not (family and family.forced_for(offered(request))):
            options.refuse("tool_choice", 'how it writes a call cannot be forced on it: ask with "auto"')
    elif forced:
        options.refuse("tool_choice", "there are no tools to choose from")
    if request.reasoning == "none" and (reads.thinks or (reads.effort and not reads.switch)):
        options.refuse("reasoning", "it thinks before every answer", tunes=True)
    if request.reasoning in (None, "none"):
        return
    if not (reads.switch or reads.effort or reads.thinks) or (reads.effort and request.reasoning == "minimal"):
        options.refuse("reasoning", HINT, tunes=True)
    elif forced or request.response_format is not None:
        options.refuse("reasoning", "an answer whose shape is given begins with no thought", tunes=True)


def offered(request: Chat) -> tuple[Tool, ...]:
    """The tools that the answer may call."""
    if request.tool_choice in ("auto", "none", "required"):
        return () if request.tool_choice == "none" else request.tools
    return tuple(tool for tool in request.tools if tool.name == request.tool_choice)


def template_options(request: Chat, template: str) -> dict[str, Any]:
    """What `apply_chat_template` is given beside the messages: the tools, and how to think."""
    reads = reads_of(template)
    out: dict[str, Any] = {}
    if tools := offered(request):
        out["tools"] = [template_tool(tool) for tool in tools]
    shaped = request.tool_choice not in ("auto", "none") or request.response_format is not None
    if reads.switch and (request.reasoning is not None or shaped):
        out[reads.switch] = request.reasoning != "none" and not shaped
    if reads.effort and request.reasoning in ("low", "medium", "high"):
        out[EFFORT] = request.reasoning
    return out


def template_tool(tool: Tool) -> dict[str, Any]:
    """A tool as templates take it."""
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }


def template_messages(request: Chat, model: str, template: str) -> list[dict[str, Any]]:
    """Dicts as templates take them: role and content; calls, results and earlier thoughts where the template reads them.

    UnsupportedOption for images and sounds, and for calls and results that the template would leave out.
    """
    reads, family = reads_of(template), family_of(template)
    names = {part.id: part.name for message in request.messages for part in message.parts if isinstance(part, ToolCall)}
    out: list[dict[str, Any]] = []
    for message in request.messages:
        out += _messages(message, model, reads, family, names)
    return _one_call_each(out) if reads.one_call else out


def opening(request: Chat, prompt: str, template: str) -> Opening:
    """How the answer to a rendered prompt begins, where its shape is given: by a tool that must be called, or by a schema."""
    family, thoughts = family_of(template), thoughts_of(template)
    begun = ""
    if thoughts is not None and prompt.rstrip().endswith(thoughts.opens):
        begun = f"\n{thoughts.closes}\n\n"
    if request.response_schema is not None:
        return Opening("<|channel|>final<|message|>" if family is HARMONY else begun, request.response_schema)
    if request.tool_choice in ("auto", "none") or family is None:
        return Opening()
    tools = offered(request)
    if family.head is not None or family is HARMONY:
        return Opening(begun + family.forced.format(name=tools[0].name), dict(tools[0].parameters))
    calls = [_call_schema(tool, family.key) for tool in tools]
    return Opening(begun + family.forced, calls[0] if len(calls) == 1 else {"anyOf": calls})


def _call_schema(tool: Tool, key: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, key: dict(tool.parameters)},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _messages(
    message: Message, model: str, reads: Reads, family: Family | None, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One message as one dict; its tools' results, and what stands between them, as dicts of their own."""
    out: list[dict[str, Any]] = []
    rest: list[Text | Reasoning | ToolCall] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            if not (reads.calls and reads.results):
                _refuse("tools", model)
            if rest:
                out.append(_message(message.role, rest, model, reads, family))
                rest = []
            text = f"Error: {part.text}" if part.error else part.text
            named = {"name": names[part.id]} if part.id in names else {}
            out.append({"role": "tool", "content": text, "tool_call_id": _id(part.id, family), **named})
        elif isinstance(part, (Text, Reasoning, ToolCall)):
            rest.append(part)
        elif not isinstance(part, Citation):
            _refuse(KINDS[part.type], model)
    if rest or not out:
        out.append(_message(message.role, rest, model, reads, family))
    return out


def _message(
    role: str, parts: Sequence[Text | Reasoning | ToolCall], model: str, reads: Reads, family: Family | None
) -> dict[str, Any]:
    """Texts are joined as `Message.text` joins them."""
    text = "".join(part.text for part in parts if isinstance(part, Text))
    out: dict[str, Any] = {"role": role, "content": text}
    thoughts = "".join(part.text for part in parts if isinstance(part, Reasoning))
    if thoughts:  # templates that show earlier thoughts look here; the others leave them out
        out["thinking" if family is HARMONY else "reasoning_content"] = thoughts
    calls = [part for part in parts if isinstance(part, ToolCall)]
    if calls:
        if not reads.calls or role != "assistant":
            _refuse("tools", model)
        out["tool_calls"] = [_call(call, model, reads, family) for call in calls]
        if not text and reads.no_content:
            out["content"] = None
    return out


def _call(call: ToolCall, model: str, reads: Reads, family: Family | None) -> dict[str, Any]:
    try:
        arguments: Any = call.parsed()
    except ValueError as error:
        message = f"model {model!r} cannot take a tool call in messages: {error}"
        raise UnsupportedOption(message, model=model, option="tools") from error
    if reads.text_arguments:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "id": _id(call.id, family), "function": {"name": call.name, "arguments": arguments}}


def _id(id: str, family: Family | None) -> str:
    """A call's id. Mistral's templates take nine letters and digits, and no other model's ids."""
    if family not in (MISTRAL, MISTRAL_ARGS) or (len(id) == 9 and id.isascii() and id.isalnum()):
        return id
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:9]


def _one_call_each(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several calls of one turn one after the other, each with its result: for templates that write one call a message."""
    out: list[dict[str, Any]] = []
    waiting = list(messages)
    while waiting:
        message = waiting.pop(0)
        out.append(message)
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            continue
        out.pop()
        results: list[dict[str, Any]] = []
        while waiting and waiting[0]["role"] == "tool":
            results.append(waiting.pop(0))
        for at, call in enumerate(calls):
            first = (
                message if at == 0 else {"role": message["role"], "content": "" if message["content"] else message["content"]}
            )
            out.append({**first, "tool_calls": [call]})
            out += [result for result in results if result.get("tool_call_id") == call["id"]]
        ids = {call["id"] for call in calls}
        out += [result for result in results if result.get("tool_call_id") not in ids]
    return out


def _refuse(option: str, model: str) -> None:
    raise UnsupportedOption(f"model {model!r} cannot take {option}: {HINT}", model=model, option=option)
