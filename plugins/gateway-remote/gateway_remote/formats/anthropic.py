"""Anthropic's Messages API, in its version 2026-10-21. Truth: the `anthropic` package.

A row says what its model, or another server of this API, does otherwise:
- before Claude 4.7 a model samples as it is told: `headers = { "anthropic-version" = "2023-06-01" }`, which is the version that
  has temperature, top_p and top_k, and `features` with "top_k".
- before Claude 4.6 it goes on with an assistant's message that comes last, and does not think adaptively: `features` with
  "prefill" and without "reasoning". `body = { thinking = { type = "enabled", budget_tokens = 2048 } }` makes it think, in
  fewer tokens than `max_tokens`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway import Chat, Citation, File, Image, Message, Part, Reasoning, Text, Tool, ToolCall, ToolResult
from gateway_remote.formats.anthropic_reply import REDACTED, SIGNED, message_response
from gateway_remote.formats.anthropic_schema import closed_schema
from gateway_remote.formats.anthropic_stream import MessageStream
from gateway_remote.formats.api import Api, Offer, Route, Sending
from gateway_remote.formats.blocks import base64_of
from gateway_remote.formats.body import Body
from gateway_remote.formats.values import index, objects, string
from gateway_remote.jsonbytes import JSONError, loads

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

VERSION = "2026-10-21"
MAX_TOKENS = 4096
"""The API needs a limit: this one where neither the request nor the row's `max_output` has one."""
SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
"""Options that this version refuses at any value, and the one before it has under these names."""
EFFORTS = frozenset({"low", "medium", "high"})
IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
PDF = "application/pdf"
MODELS = "/models?limit=1000"
Block = dict[str, Any]


def messages_body(request: Chat, row: ModelRow, stream: bool) -> Sending:
    """POST /messages."""
    body = Body(request, row, model=row.served_model)
    limit = body.take("max_tokens")
    if limit is not None or "max_tokens" not in row.body:
        body.fields["max_tokens"] = limit or row.max_output or MAX_TOKENS
    _conversation(request, body)
    if stream:
        body.fields["stream"] = True
    body.carry({"stop": "stop_sequences"})
    _sampling(request, body, row)
    _tools(body)
    _output(request, body, row)
    return body.sending("/messages")


def _conversation(request: Chat, body: Body) -> None:
    """`system` and `messages`. The API's system prompt is one, and comes first; turns of one side in a row are one turn."""
    spoken = [message for message in request.messages if message.role != "system"]
    if not spoken:
        body.fail("messages", "this API wants a user's message beside the system's")
    body.prefill(spoken)
    prompts = [_prompt(part, body) for message in request.messages if message.role == "system" for part in message.parts]
    if prompts := [prompt for prompt in prompts if prompt["text"]]:
        body.fields["system"] = prompts[0]["text"] if len(prompts) == 1 else prompts
    turns: list[tuple[str, list[Block]]] = []
    for message in spoken:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _said(message, body) if role == "assistant" else _asked(message, body, cite=request.response_format is None)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks or role == "user":  # an assistant's message may hold only what another provider's model thought
            turns.append((role, blocks))
    body.fields["messages"] = [{"role": role, "content": _content(blocks)} for role, blocks in turns]


def _content(blocks: list[Block]) -> Any:
    match blocks:
        case []:
            return ""
        case [{"type": "text", "text": text}]:
            return text
    # Results must come before all else in the turn after the calls.
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _prompt(part: Part, body: Body) -> Block:
    if not isinstance(part, Text):
        body.fail("messages.parts", f"a system's message cannot hold a part {part.type!r}")
    return {"type": "text", "text": part.text}


def _said(message: Message, body: Body) -> list[Block]:
    """What the assistant said, with what it thought exactly as it came; thoughts of another provider's model are left out."""
    out: list[Block] = []
    for part in message.parts:
        match part:
            case Text(text):
                if text:
                    out.append({"type": "text", "text": text})
            case Reasoning(_, signature) if signature.startswith(REDACTED):
                out.append({"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)})
            case Reasoning(text, signature) if signature.startswith(SIGNED):
                out.append({"type": "thinking", "thinking": text, "signature": signature.removeprefix(SIGNED)})
            case ToolCall(id, name):
                out.append({"type": "tool_use", "id": id, "name": name, "input": _input(part, body)})
            case Reasoning() | Citation():
                pass
            case _:
                body.fail("messages.parts", f"an assistant's message cannot hold a part {part.type!r}")
    return out


def _input(call: ToolCall, body: Body) -> dict[str, Any]:
    try:
        given = loads((call.arguments or "{}").encode("utf-8", "surrogatepass"))
    except JSONError:
        given = None
    if not isinstance(given, dict):
        body.fail("messages.tool_call.arguments", "this API takes a JSON object, and the model wrote something else")
    return given


def _asked(message: Message, body: Body, *, cite: bool) -> list[Block]:
    out: list[Block] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            result = {"type": "tool_result", "tool_use_id": part.id, "content": part.text}
            out.append({**result, "is_error": True} if part.error else result)
        elif message.role == "tool":
            body.fail("messages.parts", "a tool's message holds tool results only")
        elif isinstance(part, Text):
            if part.text:  # the API refuses an empty one
                out.append({"type": "text", "text": part.text})
        elif part.type == "image":
            out.append({"type": "image", "source": _image(part, body)})
        elif part.type == "file":
            block: Block = {"type": "document", "source": _document(part, body)}
            if part.name:
                block["title"] = part.name
            if cite:  # all documents of a request, or none; the API refuses it beside a schema for the answer
                block["citations"] = {"enabled": True}
            out.append(block)
        elif part.type == "audio":
            body.fail("messages.audio", "this API takes no sound")
        else:
            body.fail("messages.parts", f"a user's message cannot hold a part {part.type!r}")
    return out


def _image(part: Image, body: Body) -> Block:
    body.media(part)
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.media_type not in IMAGES:
        body.fail("messages.image.media_type", f"this API takes {', '.join(sorted(IMAGES))}")
    return {"type": "base64", "media_type": part.media_type, "data": base64_of(part)}


def _document(part: File, body: Body) -> Block:
    """A PDF, by bytes or URL; or plain text, which any text is sent as."""
    body.media(part)
    kind = part.media_type.partition(";")[0].strip().lower()
    if kind != PDF and not kind.startswith("text/"):
        body.fail("messages.file.media_type", f"this API takes {PDF} and text")
    if part.data is None:
        if kind != PDF:
            body.fail("messages.file.url", "this API takes text as bytes: give them, or say fetch=True")
        return {"type": "url", "url": part.url}
    if kind == PDF:
        return {"type": "base64", "media_type": PDF, "data": base64_of(part)}
    try:
        return {"type": "text", "media_type": "text/plain", "data": part.data.decode()}
    except UnicodeDecodeError:
        body.fail("messages.file.data", "this API takes text in UTF-8")


def _sampling(request: Chat, body: Body, row: ModelRow) -> None:
    given = (value for name, value in row.headers.items() if name.lower() == "anthropic-version")
    if next(given, VERSION) < VERSION:
        if (request.temperature or 0) > 1 and body.take("temperature") is not None:
            body.refuse("temperature", "this API takes at most 1")
        body.carry(SAMPLING)
        return
    for option in SAMPLING:
        if body.take(option) is not None:
            body.refuse(option, f"this API has no such option in its version {VERSION}")


def _tools(body: Body) -> None:
    choice, parallel = body.take("tool_choice"), body.take("parallel_tool_calls")
    tools = body.take("tools")
    if not tools:  # then nothing else about them may be sent, and nothing else would matter
        if choice == "required":
            body.fail("tool_choice", "required, and no tools are given")
        return
    body.tools([_tool(tool) for tool in tools])
    kinds = {None: "auto", "none": "none", "required": "any"}
    wire: Block = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
    if parallel is not None and choice != "none":
        wire["disable_parallel_tool_use"] = not parallel
    if wire != {"type": "auto"}:
        body.fields["tool_choice"] = wire


def _tool(tool: Tool) -> Block:
    out: Block = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        out["description"] = tool.description
    return out


def _output(request: Chat, body: Body, row: ModelRow) -> None:
    """`output_config` and `thinking`. How much thinking is shown is the model's own default."""
    config: Block = {}
    if body.take("response_format") is not None:
        try:
            config["format"] = {"type": "json_schema", "schema": closed_schema(request.response_schema)}
        except ValueError as error:
            body.fail("response_format", str(error))
    effort = body.take("reasoning")
    if effort == "none":
        body.fields["thinking"] = {"type": "disabled"}
    elif effort in EFFORTS:
        body.fields["thinking"] = {"type": "adaptive"}
        config["effort"] = effort
    elif effort is not None:
        body.refuse("reasoning", f"this API has no effort {effort!r}; its least is 'low'")
    if config:
        body.beside("output_config", config)


def offers(payload: Any) -> tuple[list[Offer], str]:
    """The models of GET /models, and the path of its next page."""
    page = payload if isinstance(payload, dict) else {}
    out = [
        Offer(name=name, context=index(each.get("max_input_tokens")) or None, max_output=index(each.get("max_tokens")) or None)
        for each in objects(page.get("data"))
        if (name := string(each.get("id")))
    ]
    last = string(page.get("last_id"))
    return out, f"{MODELS}&after_id={quote(last, safe='')}" if page.get("has_more") is True and last else ""


API = Api(
    routes={Chat: Route(encode=messages_body, decode=message_response, read=MessageStream)},
    key_header="x-api-key",
    headers={"anthropic-version": VERSION},
    features=("streaming", "stop", "tools", "json_schema", "reasoning"),
    models=MODELS,
    offers=offers,
)
