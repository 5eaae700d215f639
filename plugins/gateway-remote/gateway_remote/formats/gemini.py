"""Google's Gemini API: generateContent, streamGenerateContent and batchEmbedContents. Truth: the `google-genai` package.

A thought's signature goes back on the part that it came on: gemini_reply.py has how. Reasoning of other providers, and what has
no signature, is left out. Contents know two roles, and a system message no place: all of them make up the `systemInstruction`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway import Audio, Chat, Citation, Embed, File, Image, Media, Message, Reasoning, Text, Tool, ToolCall, ToolResult
from gateway_remote.formats.api import Api, Offer, Route, Sending
from gateway_remote.formats.blocks import base64_of
from gateway_remote.formats.body import Body
from gateway_remote.formats.gemini_reply import AFTER, BEFORE, TAG, chat_response, embed_response
from gateway_remote.formats.gemini_stream import ChatStream
from gateway_remote.formats.values import index, objects, string

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

SIMPLE = {
    "max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP", "top_k": "topK",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty", "stop": "stopSequences", "seed": "seed",
}  # fmt: skip
"""Options that go out under these names of `GenerateContentConfig`, in the same form."""
MODES = {"none": "NONE", "required": "ANY"}
"""What `FunctionCallingConfigMode` calls a choice of tools; AUTO is the API's own way."""
BUDGETED = re.compile(r"gemini-[12](?![0-9])")
"""Models that take a budget of thoughts in tokens; later ones take a level, and sign every call that begins a turn."""
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""The budget for an effort, as Google's own OpenAI-compatible endpoint has it; 0 is no thinking."""
MADE_ID = re.compile(r"call_[0-9]+")
"""An id that the API did not give: it is not sent, and calls and results go by name and order."""
UNSIGNED = "skip_thought_signature_validator"
"""What stands for the signature of a call that another model made, as Google documents it ("Thought signatures", FAQ)."""
LIST = "/models?pageSize=1000"


def chat_body(request: Chat, row: ModelRow, stream: bool) -> Sending:
    """POST /models/MODEL:generateContent."""
    body = Body(request, row)
    body.prefill(request.messages)
    body.fields["contents"] = _Contents(body, row).of(request.messages)
    if system := [part for message in request.messages if message.role == "system" for part in _system(message, body)]:
        body.fields["systemInstruction"] = {"parts": system}
    _tools(body, row)
    settings = {wire: value for option, wire in SIMPLE.items() if (value := body.take(option)) is not None}
    if body.take("response_format") is not None:
        settings |= {"responseMimeType": "application/json", "responseJsonSchema": request.response_schema}
    if (most := body.take("logprobs")) is not None:
        settings |= {"responseLogprobs": True} | ({"logprobs": most} if most else {})
    settings |= _thinking(body, row)
    if body.take("parallel_tool_calls") is False:
        body.refuse("parallel_tool_calls", "this API cannot hold a model to one call a turn")
    if settings:
        body.beside("generationConfig", settings, within="thinkingConfig")
    return body.sending(f"/{_path(row)}:streamGenerateContent?alt=sse" if stream else f"/{_path(row)}:generateContent")


def embed_body(request: Embed, row: ModelRow, stream: bool) -> Sending:
    """POST /models/MODEL:batchEmbedContents."""
    body = Body(request, row)
    size = body.take("dimensions")
    shared = {"model": _resource(row)} | ({} if size is None else {"outputDimensionality": size})
    body.fields["requests"] = [{"content": {"parts": [{"text": text}]}, **shared} for text in request.texts]
    return body.sending(f"/{_path(row)}:batchEmbedContents")


class _Contents:
    """The messages as contents. A result needs the name of its call, which an earlier message holds."""

    def __init__(self, body: Body, row: ModelRow) -> None:
        self._body = body
        self._wants_signatures = not BUDGETED.search(row.served_model)
        self._calls: dict[str, tuple[int, str]] = {}  # the place and the name of the last call of each id
        self._called = 0
        self._results: list[tuple[int, dict[str, Any]]] = []  # in a row, with the places of their calls
        self._out: list[dict[str, Any]] = []

    def of(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """All but the system's. Results in a row are one content, in the order of their calls: so the API wants them."""
        for message in messages:
            if message.role == "assistant":
                self._add("model", self._said(message))
            elif message.role != "system":
                self._heard(message)
        self._add("user", [])
        if not self._out:
            self._body.fail("messages", "this API wants a message that is not the system's")
        return self._out

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if self._results:
            self._out.append({"role": "user", "parts": [wire for _, wire in sorted(self._results, key=lambda each: each[0])]})
            self._results = []
        if parts:
            self._out.append({"role": role, "parts": parts})

    def _heard(self, message: Message) -> None:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                if parts:
                    self._add("user", parts)
                    parts = []
                self._results.append(self._result(part))
            elif message.role == "tool":
                self._body.fail("messages.parts", "a tool's message holds tool results only")
            elif isinstance(part, Text):
                parts.append({"text": part.text})
            elif isinstance(part, (Image, Audio, File)):
                parts.append(self._media(part))
            else:
                self._body.fail("messages.parts", f"a user's message cannot hold a part {part.type!r}")
        if parts or not message.parts:
            self._add("user", parts or [{"text": ""}])

    def _said(self, message: Message) -> list[dict[str, Any]]:
        """What the model said, each signature on the part that it came on."""
        out: list[dict[str, Any]] = []
        coming = ""  # the signature of the next part
        unsigned = self._wants_signatures
        for part in message.parts:
            match part:
                case Reasoning(text, signature):
                    if signature.startswith(BEFORE):
                        out += _sealed(coming)
                        coming = signature.removeprefix(BEFORE)
                    elif signature.startswith(AFTER):
                        mark = signature.removeprefix(AFTER)
                        if out and out[-1].keys() == {"text"}:
                            out[-1]["thoughtSignature"] = mark
                        else:
                            out += _sealed(mark)
                    elif signature.startswith(TAG):
                        out.append({"text": text, "thought": True, "thoughtSignature": signature.removeprefix(TAG)})
                    continue
                case Text(text):
                    if not text:
                        continue
                    wire: dict[str, Any] = {"text": text}
                case ToolCall():
                    wire = self._call(part)
                    coming = coming or (UNSIGNED if unsigned else "")
                    unsigned = False  # of calls that a model makes at once only the first is signed
                case Image() | Audio() | File():
                    wire = self._media(part)
                case Citation():
                    continue
                case _:
                    self._body.fail("messages.parts", f"an assistant's message cannot hold a part {part.type!r}")
            out.append(wire | ({"thoughtSignature": coming} if coming else {}))
            coming = ""
        return out + _sealed(coming)

    def _call(self, call: ToolCall) -> dict[str, Any]:
        try:
            arguments = call.parsed()
        except ValueError:
            self._body.fail("messages.parts", "this API takes a tool call's arguments as a JSON object only")
        self._calls[call.id] = self._called, call.name
        self._called += 1
        return {"functionCall": {**_id(call.id), "name": call.name, "args": arguments}}

    def _result(self, result: ToolResult) -> tuple[int, dict[str, Any]]:
        if result.id not in self._calls:
            self._body.fail("messages.parts", "a tool's result is for a call that no earlier message holds")
        place, name = self._calls[result.id]
        told = {"error" if result.error else "output": result.text}
        return place, {"functionResponse": {**_id(result.id), "name": name, "response": told}}

    def _media(self, part: Media) -> dict[str, Any]:
        self._body.media(part)
        name = {"displayName": part.name} if isinstance(part, File) and part.name else {}
        if part.url is not None:
            return {"fileData": {"mimeType": part.media_type, "fileUri": part.url, **name}}
        return {"inlineData": {"mimeType": part.media_type, "data": base64_of(part), **name}}


def _id(id: str) -> dict[str, str]:
    return {} if MADE_ID.fullmatch(id) else {"id": id}


def _sealed(signature: str) -> list[dict[str, Any]]:
    """A signature that came on a part of its own, without text."""
    return [{"text": "", "thoughtSignature": signature}] if signature else []


def _system(message: Message, body: Body) -> list[dict[str, str]]:
    if not all(isinstance(part, Text) for part in message.parts):
        body.fail("messages.parts", "this API takes text only in a system's message")
    return [{"text": part.text} for part in message.parts if isinstance(part, Text)]


def _tools(body: Body, row: ModelRow) -> None:
    choice, tools = body.take("tool_choice"), body.take("tools")
    if not tools:
        if choice == "required":
            body.fail("tool_choice", "required, and no tools are given")
        return
    body.tools([{"functionDeclarations": [_tool(tool) for tool in tools]}])
    if choice is not None:
        named = {} if choice in MODES else {"allowedFunctionNames": [choice]}
        body.beside("toolConfig", {"functionCallingConfig": {"mode": MODES.get(choice, "ANY"), **named}})


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": tool.parameters}


def _thinking(body: Body, row: ModelRow) -> dict[str, Any]:
    effort = body.take("reasoning")
    if effort is None:
        return {}
    if BUDGETED.search(row.served_model):
        shown = {} if effort == "none" else {"includeThoughts": True}
        return {"thinkingConfig": {"thinkingBudget": BUDGETS[effort], **shown}}
    if effort == "none":
        body.refuse("reasoning", "this model always thinks; 'minimal' is the least of it")
        return {}
    return {"thinkingConfig": {"thinkingLevel": effort.upper(), "includeThoughts": True}}


def _resource(row: ModelRow) -> str:
    name = row.served_model
    return name if name.startswith(("models/", "tunedModels/")) else f"models/{name}"


def _path(row: ModelRow) -> str:
    kind, _, name = _resource(row).partition("/")
    return f"{kind}/{quote(name, safe='')}"


def offers(payload: Any) -> tuple[list[Offer], str]:
    """The models of GET /models, page by page."""
    listed, token = (payload.get("models"), string(payload.get("nextPageToken"))) if isinstance(payload, dict) else (None, "")
    out = []
    for each in objects(listed):
        if name := string(each.get("name")).removeprefix("models/"):
            sizes = {"context": index(each.get("inputTokenLimit")), "max_output": index(each.get("outputTokenLimit"))}
            out.append(Offer(name=name, **sizes))
    return out, f"{LIST}&pageToken={quote(token, safe='')}" if token else ""


API = Api(
    routes={
        Chat: Route(encode=chat_body, decode=chat_response, read=ChatStream),
        Embed: Route(encode=embed_body, decode=embed_response),
    },
    key_header="x-goog-api-key",
    features=(
        "streaming", "stop", "seed", "tools", "json_schema", "reasoning", "top_k", "penalties", "logprobs", "dimensions",
    ),
    models=LIST,
    offers=offers,
)  # fmt: skip
