"""What the tests of odd servers share: a server that answers in whatever bytes a test says, and the clients that meet it."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from gateway_remote.service import RemoteModel
from remote_case import HELLO, started, streamed

from gateway import ChatResponse, ServiceError

CLIENTS = pytest.mark.parametrize("client", ["ours", "httpx", "own"])
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
SECRET = "hunter2"
ANSWER = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
CHUNKS = ['{"choices": [{"delta": {"content": "Hi"}}]}', '{"choices": [{"delta": {}, "finish_reason": "stop"}]}', "[DONE]"]
EVENTS = "".join(f"data: {chunk}\n\n" for chunk in CHUNKS).encode()
Step = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(
    body: bytes = ANSWER, *headers: str, status: str = "200 OK", kind: str = "application/json", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return (
        "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {size}", *headers, "", ""]).encode()
        + body
    )


async def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of an answer."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def then(data: bytes, end: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> Step:
    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)  # so that RST does not overtake it
        await end(writer)

    return step


class Site:
    """A server that takes its steps in order, one a request; the last one for ever."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.heads: list[str] = []
        self.made = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await step(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)


@contextlib.asynccontextmanager
async def answering(client: str, *steps: Step, **facts: Any) -> AsyncIterator[tuple[RemoteModel, Site]]:
    """A model at such a server; afterwards the client has closed every connection."""
    site = Site(steps)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(site.serve, "127.0.0.1", 0))
        site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        if client == "own":
            facts["transport"] = await stack.enter_async_context(httpx.AsyncHTTPTransport())
        elif client == "httpx":
            facts["http2"] = True
        async with started(site.url, **facts) as model:
            yield model, site
        if client == "own":
            await facts["transport"].aclose()
        if site.tasks:
            await asyncio.wait(site.tasks, timeout=5)
        assert not site.tasks
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def said(model: RemoteModel, stream: bool = False) -> str:
    reply = (await streamed(model))[1] if stream else await model.run(HELLO)
    assert isinstance(reply, ChatResponse)
    return reply.text


async def error_of(model: RemoteModel, stream: bool = False) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await said(model, stream)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error}{error!r}{error.args}"
        error = error.__cause__ or error.__context__
    return caught.value


def play(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())
