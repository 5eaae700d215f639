"""What the tests of fetching share: a small web server, and one address that stands for the internet."""

import asyncio
import contextlib
import ipaddress
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from gateway_remote.media import Address, fetched

from gateway import (
    Chat,
    Image,
    InvalidRequest,
    Message,
    Part,
    Text,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SECRET = "hunter2"
HOME = ipaddress.ip_address("127.0.0.1")


def home(address: Address) -> bool:
    """Only the first loopback address: what stands for the internet here."""
    return address == HOME


class Site:
    """A web server: `pages` by path, each the bytes of a whole answer, or a function that writes one."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]] = {}
        self.heads: list[str] = []
        self.open = 0
        self.opened = 0
        self.idle = asyncio.Event()
        self.port = 0

    def url(self, path: str = "/a.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, path: str, body: bytes = PNG, kind: str = "image/png", status: int = 200, extra: str = "") -> str:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        self.pages[path] = head.encode() + body
        return self.url(path)

    def moved(self, path: str, to: str, status: int = 302) -> str:
        return self.page(path, b"", status=status, extra=f"location: {to}\r\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open, self.opened = self.open + 1, self.opened + 1
        self.idle.clear()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                page = self.pages[head.split()[1]]
                if isinstance(page, bytes):
                    writer.write(page)
                else:
                    await page(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):  # the client has left
            pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.idle.set()


@contextlib.asynccontextmanager
async def site(host: str = "127.0.0.1", port: int = 0, **options: Any) -> AsyncIterator[Site]:
    """A site that is up; afterwards every connection has been closed by the client, and no task is left."""
    here = Site()
    async with await asyncio.start_server(here.serve, host, port, **options) as server:
        here.port = server.sockets[0].getsockname()[1]
        yield here
        if here.opened:
            await asyncio.wait_for(here.idle.wait(), 5)
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=5)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def play(test: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with site() as here:
            await test(here)

    asyncio.run(whole())


def of(*parts: Part) -> Chat:
    return Chat(messages=(Message(role="user", parts=(Text("Look"), *parts)),))


def image(url: str) -> Chat:
    return of(Image(url=url, fetch=True))


async def get(url: str, most_bytes: int = 10_000, allowed: Callable[[Address], bool] | None = home) -> Image:
    got: Chat = await fetched(image(url), most_bytes=most_bytes, allowed=allowed)
    part = got.messages[0].parts[1]
    assert isinstance(part, Image)
    return part


async def refusal(url: str, **options: Any) -> str:
    """Why a URL is not fetched, after checking that no trace of it shows."""
    with pytest.raises(InvalidRequest) as caught:
        await get(url, **options)
    assert caught.value.field == "image.url" and caught.value.__cause__ is None and caught.value.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    start = "image: its url cannot be fetched: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)
