"""OpenAI's HTTP API, the one that most servers speak: Chat Completions, embeddings, and (openai_media.py) images and sound.

Truth: the `openai` package; what other servers add (reasoning, top_k, rerank) is as vLLM and SGLang have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway import (
    Audio,
    Chat,
    Citation,
    Embed,
    File,
    GenerateImage,
    Image,
    Message,
    Part,
    Reasoning,
    Rerank,
    Speak,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Transcribe,
)
from gateway_remote.formats.api import Api, Offer, Route, Sending
from gateway_remote.formats.blocks import AUDIO_FORMATS, base64_of, data_url, file_name
from gateway_remote.formats.body import Body
from gateway_remote.formats.openai_media import (
    image_body,
    image_response,
    speak_body,
    speak_response,
    transcribe_body,
    transcribe_response,
)
from gateway_remote.formats.openai_reply import chat_response, embed_response
from gateway_remote.formats.openai_schema import schema_of
from gateway_remote.formats.openai_stream import ChatStream
from gateway_remote.formats.rerank import rerank_body, rerank_response
from gateway_remote.formats.values import index, objects

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

SIMPLE = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "stop": "stop", "seed": "seed",
    "parallel_tool_calls": "parallel_tool_calls",
}  # fmt: skip
"""Options that go out under these names, in the same form."""
HEARD = frozenset({"wav", "mp3"})
"""What the API takes as sound (`openai.types.chat.ChatCompletionContentPartInputAudioParam`); other servers take more."""


def chat_body(request: Chat, row: ModelRow, stream: bool) -> Sending:
    """POST /chat/completions."""
    body = Body(request, row, model=row.served_model)
    body.prefill(request.messages)
    body.fields["messages"] = [wire for message in request.messages for wire in _messages(message, body, row)]
    if stream:
        body.fields["stream"] = True
        body.beside("stream_options", {"include_usage": True})
    body.carry({"max_tokens": row.max_tokens_field})
    if body.left:
        _options(request, body)
    return body.sending("/chat/completions")


def _options(request: Chat, body: Body) -> None:
    choice = body.take("tool_choice")
    if tools := body.take("tools"):
        body.tools([_tool(tool) for tool in tools])
        if choice is not None:
            named = choice not in ("none", "required")
            body.fields["tool_choice"] = {"type": "function", "function": {"name": choice}} if named else choice
    elif choice == "required":
        body.fail("tool_choice", "required, and no tools are given")
    if body.take("response_format") is not None:
        body.fields["response_format"] = {"type": "json_schema", "json_schema": schema_of(request)}
    body.carry(SIMPLE)
    if (most := body.take("logprobs")) is not None:
        body.fields["logprobs"] = True
        if most:
            body.fields["top_logprobs"] = most
    if (effort := body.take("reasoning")) is not None:
        body.fields["reasoning_effort"] = effort


def embed_body(request: Embed, row: ModelRow, stream: bool) -> Sending:
    """POST /embeddings. "float" is every server's default and is not sent."""
    body = Body(request, row, model=row.served_model, input=request.texts)
    if row.embedding_format != "float":
        body.fields["encoding_format"] = row.embedding_format
    body.carry({"dimensions": "dimensions"})
    return body.sending("/embeddings")


def _messages(message: Message, body: Body, row: ModelRow) -> Iterator[dict[str, Any]]:
    if message.role == "assistant":
        yield _assistant(message, body, row)
        return
    waiting: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult) or message.role == "system":
            waiting.append(part)
            continue
        if waiting:  # a result is a message of its own: what came before it goes first
            yield _turn(message.role, waiting, body, row)
            waiting = []
        # The API has no field that says that a tool failed.
        text = f"Error: {part.text}" if part.error else part.text
        yield {"role": "tool", "tool_call_id": part.id, "content": text}
    if waiting or not message.parts:
        yield _turn(message.role, waiting, body, row)


def _turn(role: str, parts: list[Part], body: Body, row: ModelRow) -> dict[str, Any]:
    if role == "tool":
        body.fail("messages.parts", "a tool's message holds tool results only")
    match parts:
        case []:
            return {"role": role, "content": ""}
        case [Text(text)]:
            return {"role": role, "content": text}
    return {"role": role, "content": [_content(part, role, body, row) for part in parts]}


def _assistant(message: Message, body: Body, row: ModelRow) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text):
                texts.append(text)
            case Reasoning(text):
                thoughts.append(text)
            case ToolCall(id, name, arguments):
                function = {"name": name, "arguments": arguments or "{}"}
                calls.append({"id": id, "type": "function", "function": function})
            case Citation():
                pass
            case _:
                body.fail("messages.parts", f"an assistant's message cannot hold a part {part.type!r}")
    out: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts and row.reasoning_field:  # most servers want no thoughts back, a few insist on them
        out[row.reasoning_field] = "".join(thoughts)
    if calls:
        out["tool_calls"] = calls
    return out


def _content(part: Part, role: str, body: Body, row: ModelRow) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if role != "user" or not isinstance(part, (Image, Audio, File)):
        body.fail("messages.parts", f"a {role}'s message cannot hold a part {part.type!r}")
    body.media(part)
    match part:
        case Image():
            return {"type": "image_url", "image_url": {"url": part.url or data_url(part)}}
        case Audio():
            kind = AUDIO_FORMATS.get(part.media_type)
            if part.data is None:
                body.fail("messages.audio.url", "this API takes a sound as bytes: give them, or say fetch=True")
            if kind is None or (kind not in HEARD and row.provider_name == "openai"):
                body.fail("messages.audio.media_type", f"this API takes {', '.join(sorted(HEARD))}")
            return {"type": "input_audio", "input_audio": {"data": base64_of(part), "format": kind}}
        case File():
            if part.data is None:
                body.fail("messages.file.url", "this API takes a document as bytes: give them, or say fetch=True")
            return {"type": "file", "file": {"filename": file_name(part, "document"), "file_data": data_url(part)}}
    raise AssertionError(part)


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def offers(payload: Any) -> tuple[list[Offer], str]:
    """The models of GET /models; vLLM, OpenRouter, Groq and others add sizes to what OpenAI tells."""
    listed = payload.get("data") if isinstance(payload, dict) else payload  # Together sends the list itself
    out = []
    for each in objects(listed):
        if isinstance(name := each.get("id"), str):
            context = index(each.get("context_length")) or index(each.get("context_window")) or index(each.get("max_model_len"))
            out.append(Offer(name=name, context=context, max_output=index(each.get("max_completion_tokens"))))
    return out, ""


API = Api(
    routes={
        Chat: Route(encode=chat_body, decode=chat_response, read=ChatStream),
        Embed: Route(encode=embed_body, decode=embed_response),
        Rerank: Route(encode=rerank_body, decode=rerank_response),
        GenerateImage: Route(encode=image_body, decode=image_response),
        Transcribe: Route(encode=transcribe_body, decode=transcribe_response),
        Speak: Route(encode=speak_body, decode=speak_response),
    },
    features=("streaming", "stop", "seed", "tools", "json_schema"),
    offers=offers,
)
