"""What the tests of this plugin share: a started model at a loopback server, and a stream read whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from gateway_remote.service import RemoteModel

from gateway import Chat, Delta, Request, Response
from gateway.testing import LoopbackServer, resources

FEATURES = ["streaming", "stop", "seed", "tools", "json_schema", "reasoning", "dimensions"]
HELLO = Chat.ask("Hello there, everybody")


def row(url: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": "loopback",
        "base_url": url,
        "tasks": ["chat", "embed"],
        "features": FEATURES,
        "modalities": ["text", "image", "audio"],
        **facts,
    }


@contextlib.asynccontextmanager
async def started(url: str, *, transport: httpx.AsyncBaseTransport | None = None, **facts: Any) -> AsyncIterator[RemoteModel]:
    model = RemoteModel(row(url, **facts), transport=transport)
    lent = resources()
    await model.describe(lent)
    await model.start(lent)
    try:
        yield model
    finally:
        await model.aclose()


async def streamed(model: RemoteModel, request: Request[Any] = HELLO) -> tuple[list[Delta], Response]:
    items = [item async for item in model.stream(request)]
    deltas = [item for item in items if isinstance(item, Delta)]
    assert deltas == items[:-1] and isinstance(items[-1], Response)
    return deltas, items[-1]


def with_model(server: LoopbackServer, test: Callable[[RemoteModel], Awaitable[None]], **facts: Any) -> None:
    """Run a test with a started model; afterwards no connection is open and no task is left."""

    async def whole() -> None:
        async with started(server.url, **facts) as model:
            await test(model)
        await server.wait_for(lambda s: s.connections == 0)
        # A generator of httpx's that was left half-read is closed by the loop, in a task of its own.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
