"""OpenAI's Responses API (POST /responses). Truth: `openai.types.responses`.

Nothing is kept at the provider (`store` is false): what a reasoning model thought goes back to it, encrypted, with each turn.
That is asked for where a request says how much to reason, or holds such a thought: OpenAI answers 400 where a model that does
not reason is asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway import Audio, Chat, Citation, File, Image, Message, Part, Reasoning, Text, Tool, ToolCall, ToolResult
from gateway_remote.formats.api import Api, Route, Sending
from gateway_remote.formats.blocks import data_url, file_name
from gateway_remote.formats.body import Body
from gateway_remote.formats.openai import offers
from gateway_remote.formats.openai_schema import schema_of, strict_schema
from gateway_remote.formats.responses_reply import REASONING, TAG, chat_response
from gateway_remote.formats.responses_stream import ResponseStream
from gateway_remote.jsonbytes import JSONError, loads

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

SIMPLE = {
    "max_tokens": "max_output_tokens", "temperature": "temperature", "top_p": "top_p",
    "parallel_tool_calls": "parallel_tool_calls",
}  # fmt: skip
"""Options that go out under these names, in the same form."""


def chat_body(request: Chat, row: ModelRow, stream: bool) -> Sending:
    """POST /responses."""
    body = Body(request, row, model=row.served_model, store=False)
    body.prefill(request.messages)
    # System messages are items, not `instructions`, which is one text ahead of all: so each keeps its place.
    reasons = "reasoning" in row.card.features
    body.fields["input"] = [item for message in request.messages for item in _items(message, body, reasons)]
    if stream:
        body.fields["stream"] = True
    _tools(body)
    if body.take("response_format") is not None:
        body.beside("text", {"format": {"type": "json_schema", **schema_of(request)}})
    body.carry(SIMPLE)
    include = [*row.body.get("include", ())]
    effort = body.take("reasoning")
    if reasons and (effort not in (None, "none") or any(item.get("type") == "reasoning" for item in body.fields["input"])):
        include.append("reasoning.encrypted_content")
    if (most := body.take("logprobs")) is not None:
        include.append("message.output_text.logprobs")
        if most:
            body.fields["top_logprobs"] = most
    if include:
        body.fields["include"] = include
    if effort is not None:
        body.beside("reasoning", {"effort": effort})
        if effort != "none":
            body.fields["reasoning"] = {"summary": "auto", **body.fields["reasoning"]}
    return body.sending("/responses")


def _tools(body: Body) -> None:
    choice = body.take("tool_choice")
    if tools := body.take("tools"):
        body.tools([_tool(tool) for tool in tools])
        if choice is not None:
            body.fields["tool_choice"] = choice if choice in ("none", "required") else {"type": "function", "name": choice}
    elif choice == "required":
        body.fail("tool_choice", "required, and no tools are given")


def _tool(tool: Tool) -> dict[str, Any]:
    # Strict is what this API takes a tool for that does not say.
    out = {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": strict_schema(tool.parameters)}
    return {**out, "description": tool.description} if tool.description else out


def _items(message: Message, body: Body, reasons: bool) -> Iterator[dict[str, Any]]:
    if message.role == "assistant":
        yield from _assistant(message, body, reasons)
        return
    waiting: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult) or message.role == "system":
            waiting.append(part)
            continue
        if waiting:  # a result is an item of its own: what came before it goes first
            yield _turn(message.role, waiting, body)
            waiting = []
        # The API has no field that says that a tool failed.
        yield {
            "type": "function_call_output",
            "call_id": part.id,
            "output": f"Error: {part.text}" if part.error else part.text,
        }
    if waiting or not message.parts:
        yield _turn(message.role, waiting, body)


def _turn(role: str, parts: list[Part], body: Body) -> dict[str, Any]:
    if role == "tool":
        body.fail("messages.parts", "a tool's message holds tool results only")
    match parts:
        case []:
            return {"role": role, "content": ""}
        case [Text(text)]:
            return {"role": role, "content": text}
    return {"role": role, "content": [_content(part, role, body) for part in parts]}


def _assistant(message: Message, body: Body, reasons: bool) -> Iterator[dict[str, Any]]:
    """Items in the order in which the model made them. Texts in a row are one message, which a mark of its phase ends."""
    texts: list[str] = []
    empty = True
    for part in message.parts:
        if isinstance(part, Text):
            texts.append(part.text)
            continue
        own = _own(part.signature) if isinstance(part, Reasoning) else {}
        if isinstance(part, Citation) or (isinstance(part, Reasoning) and not own):
            continue
        if texts:
            yield _said(texts, own.get("phase"))
            texts, empty = [], False
        match part:
            case Reasoning():
                if reasons and own["type"] == "reasoning":
                    empty = False
                    yield own
            case ToolCall(id, name, arguments):
                empty = False
                yield {"type": "function_call", "call_id": id, "name": name, "arguments": arguments or "{}"}
            case _:
                body.fail("messages.parts", f"an assistant's message cannot hold a part {part.type!r}")
    if texts or empty:
        yield _said(texts)


def _said(texts: list[str], phase: Any = None) -> dict[str, Any]:
    """A message of the model's; an `output_text` would need the id that the provider gave it (`EasyInputMessageParam`)."""
    said = {"role": "assistant", "content": "".join(texts)}
    return {**said, "phase": phase} if phase else said


def _own(signature: str) -> dict[str, Any]:
    """What this format has signed: a reasoning item, or a mark of a message's phase. {} for anything else."""
    try:
        item = loads(signature.removeprefix(TAG).encode()) if signature.startswith(TAG) else None
    except (JSONError, UnicodeEncodeError):
        item = None
    match item:
        case {"type": "reasoning", **fields}:
            return {"type": "reasoning", **{name: fields[name] for name in REASONING if name in fields}}
        case {"type": "message", "phase": str(phase)}:
            return {"type": "message", "phase": phase}
    return {}


def _content(part: Part, role: str, body: Body) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if role != "user" or not isinstance(part, (Image, Audio, File)):
        body.fail("messages.parts", f"a {role}'s message cannot hold a part {part.type!r}")
    body.media(part)
    match part:
        case Image():
            return {"type": "input_image", "image_url": part.url or data_url(part), "detail": "auto"}
        case File(url=None):
            return {"type": "input_file", "filename": file_name(part, "document"), "file_data": data_url(part)}
        case File():
            if part.name:  # the API answers 400 (mutually_exclusive_parameters) to both
                body.refuse("messages.file.name", "this API takes no name beside a url: leave it out, or say fetch=True")
            return {"type": "input_file", "file_url": part.url}
    body.fail("messages.audio", "this API takes no sound")


API = Api(
    routes={Chat: Route(encode=chat_body, decode=chat_response, read=ResponseStream)},
    features=("streaming", "tools", "json_schema", "reasoning", "logprobs"),
    offers=offers,
)
