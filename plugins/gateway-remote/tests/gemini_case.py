"""What the tests against the `google-genai` package share: what its client sends, what ours sends, and replies by its types."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from gateway_remote.formats.api import Heard
from gateway_remote.formats.gemini_reply import chat_response
from gateway_remote.formats.gemini_stream import ChatStream
from google import genai
from google.genai import types as wire
from openai_case import ALL
from remote_case import started

from gateway import Chat, ChatResponse, Delta, Embed, Request, Response, assemble
from gateway.testing import LoopbackServer

MODEL = "gemini-3-flash"
KEY = "AIza-loopback"
KEY_REF = "GEMINI_CASE_KEY"
HEADERS = ("x-goog-api-key", "content-type")
FREE = frozenset({"args", "response", "parametersJsonSchema", "responseJsonSchema"})
"""Fields whose content is the caller's own."""


def sdk(server: LoopbackServer) -> genai.Client:
    """The official client, which asks the server once."""
    once = wire.HttpRetryOptions(attempts=1)
    options = wire.HttpOptions(base_url=server.origin, api_version="v1beta", retry_options=once)
    return genai.Client(api_key=KEY, vertexai=False, http_options=options)


def sent_by_sdk(server: LoopbackServer, ask: Callable[[genai.Client], Any]) -> tuple[Any, ...]:
    """What the server got of a call with the official client."""
    with sdk(server) as client:
        ask(client)
    return _last(server)


def sent_by_us(server: LoopbackServer, request: Request[Any], *, stream: bool = False, **facts: Any) -> tuple[Any, ...]:
    """What the server got of the same call through a RemoteModel."""
    asked(server, request, stream=stream, **facts)
    return _last(server)


def asked(server: LoopbackServer, request: Request[Any], *, stream: bool = False, **facts: Any) -> Any:
    """The response to one request; streamed, its deltas and the response."""

    async def whole() -> Any:
        async with started(f"{server.origin}/v1beta", **facts_for(request, **facts)) as model:
            if not stream:
                return await model.run(request)
            items = [item async for item in model.stream(request)]
            deltas = [item for item in items[:-1] if isinstance(item, Delta)]
            assert len(deltas) == len(items) - 1 and isinstance(items[-1], Response)
            return deltas, items[-1]

    return asyncio.run(whole())


def facts_for(request: Request[Any] | None = None, **facts: Any) -> dict[str, Any]:
    """The facts of a row for a model that speaks this format."""
    usual = {"api": "gemini", "model": MODEL, "features": ALL, "modalities": ["text", "image", "audio", "file"]}
    tasks = ["embed"] if isinstance(request, Embed) else ["chat"]
    return {**usual, "tasks": tasks, "api_key": f"env:{KEY_REF}", **facts}


def text(words: str, **facts: Any) -> wire.Part:
    return wire.Part(text=words, **facts)


def thought(words: str, **facts: Any) -> wire.Part:
    return wire.Part(text=words, thought=True, **facts)


def reply(*parts: Any, finish: str | None = "STOP", **facts: Any) -> dict[str, Any]:
    """A GenerateContentResponse in JSON, made of the package's own types; `facts` are its candidate's."""
    content = wire.Content(role="model", parts=list(parts))
    candidate = wire.Candidate(content=content, finish_reason=finish, index=0, **facts)
    return told(wire.GenerateContentResponse(candidates=[candidate], model_version="real-name", response_id="r1"))


def told(model: Any) -> Any:
    """A value of the package's types in the JSON that it is read from."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def decoded(payload: Any, request: Chat | None = None) -> ChatResponse:
    """A whole reply."""
    return chat_response(json.dumps(payload).encode(), request or Chat.ask("12345678"), Heard("m"))


def read(*chunks: Any, request: Chat | None = None) -> ChatResponse:
    """A reply streamed in these chunks; its deltas add up to its parts, whose numbers have no gaps."""
    state = ChatStream(request or Chat.ask("12345678"), Heard("m"))
    deltas = [delta for chunk in chunks for delta in state.feed(json.dumps(chunk).encode())]
    response = state.response()
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
    return response


def both(payload: dict[str, Any], request: Chat | None = None) -> ChatResponse:
    """The reply, read whole and in a stream of one chunk."""
    whole = decoded(payload, request)
    assert read(payload, request=request) == whole
    return whole


def _last(server: LoopbackServer) -> tuple[Any, ...]:
    request = server.requests[-1]
    headers = {name: request.headers[name] for name in HEADERS}
    return request.method, request.path, request.query, headers, _plain(request.json)


def _plain(value: Any, name: str = "") -> Any:
    """A body with the one spelling of names and bytes, of the two that JSON has for a message of protocol buffers.

    The package sends `mime_type` beside `inlineData`, and bytes in the URL-safe alphabet.
    """
    if name in FREE:
        return value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        named = {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): each for key, each in value.items()}
        return {key: _plain(each, key) for key, each in named.items()}
    return value.replace("-", "+").replace("_", "/") if name in ("data", "thoughtSignature") else value
