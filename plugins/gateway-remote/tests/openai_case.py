"""What the tests against the `openai` package share: what its client sends, what ours sends, and every option of a chat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import openai
from remote_case import started

from gateway import Chat, Delta, Embed, Meta, Request, Response, Tool
from gateway.testing import LoopbackServer

MODEL = "wire-name"
KEY = "sk-loopback"
KEY_REF = "OPENAI_CASE_KEY"
HEADERS = ("authorization", "content-type")
ALL = [
    "streaming",
    "stop",
    "seed",
    "tools",
    "json_schema",
    "reasoning",
    "logprobs",
    "penalties",
    "top_k",
    "dimensions",
    "prefill",
]
"""Every feature: so it is the format, and not the card, that refuses."""
LOOK = Tool(name="look", description="Looks.", parameters={"type": "object", "properties": {"at": {"type": "string"}}})

OPTIONS: dict[str, Any] = {
    "tools": (LOOK,), "tool_choice": "look", "response_format": {"type": "object"}, "max_tokens": 5, "temperature": 0.5,
    "top_p": 0.5, "top_k": 4, "presence_penalty": 0.5, "frequency_penalty": 0.5, "stop": ("x",), "seed": 7, "logprobs": 2,
    "parallel_tool_calls": False, "reasoning": "low",
}  # fmt: skip
"""Every option of a chat, with a value that is not its default."""
assert set(OPTIONS) == {f.name for f in fields(Chat)} - {"messages", "meta"}


def with_option(name: str, *, drop: bool = False) -> Chat:
    """A chat with one option set; a choice among tools comes with the tools."""
    options = {name: OPTIONS[name]} | ({"tools": (LOOK,)} if name == "tool_choice" else {})
    return replace(Chat.ask("Hi"), **options, meta=Meta(drop_unsupported=drop))


def sdk(server: LoopbackServer) -> openai.OpenAI:
    """The official client, which asks the server once."""
    return openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0)


def sent_by_sdk(server: LoopbackServer, ask: Callable[[openai.OpenAI], Any]) -> tuple[Any, ...]:
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
    usual = {"model": MODEL, "features": ALL, "modalities": ["text", "image", "audio", "file"]}
    tasks = ["embed"] if isinstance(request, Embed) else ["chat"]

    async def whole() -> Any:
        async with started(server.url, **{**usual, "tasks": tasks, "api_key": f"env:{KEY_REF}", **facts}) as model:
            if not stream:
                return await model.run(request)
            items = [item async for item in model.stream(request)]
            deltas = [item for item in items[:-1] if isinstance(item, Delta)]
            assert len(deltas) == len(items) - 1 and isinstance(items[-1], Response)
            return deltas, items[-1]

    return asyncio.run(whole())


def _last(server: LoopbackServer) -> tuple[Any, ...]:
    request = server.requests[-1]
    return request.method, request.path, {name: request.headers[name] for name in HEADERS}, request.json
