"""A small forward proxy on loopback: absolute URLs and CONNECT, with a password if it is to ask for one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit


class Proxy:
    """`hosts` says which port of this machine a name leads to; `asked` is each request's line and headers as they came.

    With `user` it wants that user and password. `answer` is sent to everybody in place of what was asked for, None: nothing at
    all is.
    """

    def __init__(self, *, user: str = "", answer: bytes | None = b"", scheme: str = "http", host: str = "127.0.0.1") -> None:
        self.hosts: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.seen = bytearray()
        self.open = 0
        self.changed = asyncio.Condition()
        self._wants = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self._answer, self._scheme, self._host = answer, scheme, host
        self.port = 0

    @property
    def lines(self) -> list[str]:
        return [line for line, _ in self.asked]

    def url(self, user: str = "") -> str:
        return f"{self._scheme}://{user + '@' if user else ''}{self._host}:{self.port}"

    async def until(self, connections: int, asked: int = 0) -> None:
        """Return once so many connections are open, and at least so much has been asked."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.open == connections and len(self.asked) >= asked)

    async def _tell(self, change: int = 0) -> None:
        async with self.changed:
            self.open += change
            self.changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._tell(1)
        rest: asyncio.Task[None] | None = None
        upstream: asyncio.StreamWriter | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen += head + body
                self.asked.append((line, headers))
                await self._tell()
                if self._answer is None:
                    await reader.read()
                    return
                if self._wants and headers.get("proxy-authorization") != self._wants:
                    writer.write(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n"
                    )
                    continue
                if self._answer:
                    writer.write(self._answer)
                    return
                method, target, _ = line.split(" ")
                where = urlsplit(f"//{target}" if method == "CONNECT" else target)
                if upstream is None:
                    port = self.hosts.get(where.hostname or "", where.port)
                    there, upstream = await asyncio.open_connection("127.0.0.1", port)
                    rest = asyncio.create_task(pipe(there, writer))
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await self._tunnel(reader, upstream)
                    return
                kept = [each for each in lines if not each.lower().startswith("proxy-")]
                upstream.write("\r\n".join([f"{method} {where.path} HTTP/1.1", *kept, "", ""]).encode("latin-1") + body)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if rest is not None:
                rest.cancel()
            for each in (upstream, writer):
                if each is not None:
                    each.close()
            await self._tell(-1)

    async def _tunnel(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.seen += data
            upstream.write(data)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def proxy(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Proxy]:
    """A proxy that is up; when it is left, no connection to it is open."""
    made = Proxy(**options)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made
        await made.until(0)
