"""A small HTTP/2 server on loopback, which answers chats as OpenAI's API does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

CHUNKS = 5


@dataclass(eq=False)
class Stream:
    """One request, whole, and what has become of it. `gone` is set when the client has reset it or has left."""

    id: int
    connection: Connection
    headers: dict[str, str]
    body: bytes = b""
    reset: int | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """What the user said."""
        content: str = json.loads(self.body)["messages"][-1]["content"]
        return content

    async def begin(self, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.h2.send_headers(self.id, [(":status", str(status)), *named.items()])
        self.connection.flush()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send, as fast as the client takes it."""
        while data:
            await self.connection.room(self.id)
            size = min(self.connection.h2.local_flow_control_window(self.id), self.connection.h2.max_outbound_frame_size)
            self.connection.h2.send_data(self.id, data[:size])
            data = data[size:]
            self.connection.flush()
        if end:
            self.connection.h2.end_stream(self.id)
            self.connection.flush()

    async def whole(self, payload: Any) -> None:
        await self.begin(content_type="application/json")
        await self.send(json.dumps(payload).encode(), end=True)


Answer = Callable[[Stream], Awaitable[None]]


async def echo(stream: Stream) -> None:
    """Says back what was said, in pieces where it is to be streamed. "stall" and "stall later" make it stop."""
    if stream.headers[":path"].endswith("/models"):
        await stream.whole({"data": [{"id": "loopback"}]})
        return
    said = f"You said: {stream.text}"
    if stream.text == "stall":
        await stream.gone.wait()
    if not json.loads(stream.body).get("stream"):
        await stream.whole({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})
        return
    await stream.begin(content_type="text/event-stream")
    for at in range(CHUNKS):
        piece = said[at * len(said) // CHUNKS : (at + 1) * len(said) // CHUNKS]
        choice = {"delta": {"content": piece}, "finish_reason": "stop" if at == CHUNKS - 1 else None}
        await stream.send(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
        if stream.text == "stall later":
            await stream.gone.wait()
        await asyncio.sleep(0)
    await stream.send(b"data: [DONE]\n\n", end=True)


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: Http2Server) -> None:
        self.server = server
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.windows = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server.made += 1
        self.server.open.add(self)
        self.h2.initiate_connection()
        self.flush()
        self.server.tell()

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open.discard(self)
        for stream in self.streams.values():
            stream.gone.set()
        for task in self.tasks:
            task.cancel()
        self.server.tell()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    headers = dict(event.headers)  # type: ignore[arg-type]
                    self.streams[event.stream_id] = Stream(event.stream_id, self, headers)  # type: ignore[arg-type]
                case h2.events.DataReceived():
                    self.streams[event.stream_id].body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self.begin(self.streams[event.stream_id])
                case h2.events.StreamReset():
                    stream = self.streams[event.stream_id]
                    stream.reset = int(event.error_code)
                    stream.gone.set()
                    self.server.resets.append(stream)
                case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                    self.windows.set()
        self.flush()
        self.server.tell()

    def begin(self, stream: Stream) -> None:
        self.server.requests.append(stream)
        task = asyncio.get_running_loop().create_task(self.answer(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: self.server.tell())

    async def answer(self, stream: Stream) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the client has reset it meanwhile
            await self.server.answer(stream)

    async def room(self, stream_id: int) -> None:
        while self.h2.local_flow_control_window(stream_id) <= 0:
            self.windows.clear()
            await self.windows.wait()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class Http2Server:
    """`requests` as they came, `resets` those that the client gave up, `made` how many connections there have been."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Stream] = []
        self.resets: list[Stream] = []
        self.open: set[Connection] = set()
        self.made = 0
        self.url = ""
        self._changed = asyncio.Event()

    def tell(self) -> None:
        self._changed.set()

    async def wait_for(self, condition: Callable[[Http2Server], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def http2_server(context: ssl.SSLContext, answer: Answer = echo, host: str = "localhost") -> AsyncIterator[Http2Server]:
    """A server that is up; when it is left, no connection is open."""
    context.set_alpn_protocols(["h2"])
    made = Http2Server(answer)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(made), "127.0.0.1", 0, ssl=context)
    async with server:
        made.url = f"https://{host}:{server.sockets[0].getsockname()[1]}/v1"
        yield made
        await made.wait_for(lambda s: not s.open)
