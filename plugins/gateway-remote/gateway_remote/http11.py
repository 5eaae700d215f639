"""Connection: one HTTP/1.1 connection of a client, one exchange after another (RFC 9112), over asyncio and llhttp.

llhttp, through the httptools package, refuses what makes two parties read one message differently: bare line feeds,
Content-Length beside Transfer-Encoding, anything after a last response.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import cast

import httptools

from gateway_remote.transport import Lost

MAX_HEAD_BYTES = 64 << 10
PAUSE_BYTES = 256 << 10
"""When so much of a body waits to be read, the server is made to wait: TCP's own window does that once nobody reads."""


class Connection(asyncio.BufferedProtocol):
    """What is sent, and what comes back. It is used by one caller at a time, who begins an exchange and reads it to its end.

    After `abort`, at whatever moment, nothing of it is left. `buffer` is what the bytes are read into: all connections of a
    loop may share one, since what is in it has been parsed before the loop goes on.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Lost | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_bytes = self._field_bytes = 0
        self._asking = False  # an exchange has begun and its response is not whole
        self._head = False  # the head of the response is there
        self._whole = True
        self._last = False  # the connection ends with this response
        self._full = False  # the request could not be written at once
        self._paused = False

    @property
    def whole(self) -> bool:
        """True when no exchange is under way, and another one may begin."""
        return not (self._asking or self._last or self._lost is not None or self._chunks)

    def reusable(self) -> bool:
        """True when another exchange may begin, and the server has not closed since the last one."""
        if not self.whole or self._transport is None or self._transport.is_closing():
            return False
        # What can be read now is an end, or what nobody asked for: the loop has only not come to tell so yet.
        return self._poll is None or not self._poll.poll(0)

    async def ask(self, head: bytes, body: bytes | None) -> None:
        """Send a request; returns when the head of its response is there, in `status` and `headers`.

        `head` ends with its last field; the length is added here. `body` None is for a request that has none.
        """
        assert self._transport is not None
        self.headers = []
        self._head_bytes = self._field_bytes = self._size = 0
        self._asking, self._head, self._whole = True, False, False
        sized = b"" if body is None else b"content-length: %d\r\n" % len(body)
        self._transport.write(b"%b%b\r\n%b" % (head, sized, body or b""))
        while not self._head:
            await self._more()

    async def read(self) -> bytes:
        """The next piece of the response's body, b"" at its end."""
        while not self._chunks:
            if self._whole:
                return b""
            await self._more()
        chunks, self._chunks, self._size = self._chunks, [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abort(self, why: str = "closed") -> None:
        """Close it at once. Who waits for something gets a Lost."""
        self._end(Lost("read", why))

    async def _more(self) -> None:
        """Wait for anything. Raises Lost when nothing more will come."""
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._lost is not None and not (self._chunks or self._whole):
            raise self._lost

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, lost: Lost) -> None:
        if self._lost is None:
            self._lost = lost
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is up; called again when TLS has been laid over it."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go. Otherwise asyncio would map and unmap a quarter of a megabyte for each piece."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """More bytes of the response."""
        data = self._buffer[:nbytes]
        if not self._asking:
            self._end(Lost("read", "data that nobody asked for"))
            return
        if not self._head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end(Lost("read", "this is no HTTP"))
            return
        if not self._head and self._head_bytes > MAX_HEAD_BYTES:  # one that has no end
            self._end(Lost("reply", "head is too long"))
        elif self._size > PAUSE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The server sends no more."""
        if self._head and self._last and not self._whole and self._until_the_end and self._told_so():
            self.on_message_complete()
        self._end(Lost("read", "cut off" if self._head else "closed without an answer"))

    def _told_so(self) -> bool:
        """False when TLS has ended without its close_notify: then anybody may have cut it (RFC 9112, 9.8; RFC 8446, 6.1)."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        try:
            return tls is None or not tls.read(1)
        except ssl.SSLError:  # it waits for more
            return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._end(Lost("write" if self._full and not self._head else "read", "reset" if error is not None else "closed"))

    def pause_writing(self) -> None:
        """The request is larger than what the network takes at once."""
        self._full = True

    def resume_writing(self) -> None:
        """It has been sent."""
        self._full = False

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; those of a trailer are passed over."""
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > MAX_HEAD_BYTES:
            self._end(Lost("reply", "head is too long"))
        elif not self._head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole. Interim responses, such as 103, are passed over: another one follows."""
        if self._whole:  # of a second response, which nobody asked for
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        self._last = not self._parser.should_keep_alive()
        self._until_the_end = True
        for name, value in self.headers:
            kind = name.lower()
            if kind in (b"content-length", b"transfer-encoding"):
                self._until_the_end = False
                if kind == b"transfer-encoding" and value.strip().lower() != b"chunked":
                    self._end(Lost("reply", "transfer-encoding is not one that was asked for"))
        self._head = self._lost is None

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._whole:
            return
        self._chunks.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        """The response is whole."""
        if self._head and self._lost is None:
            self._whole, self._asking = True, False
            if self._transport is not None and self._transport.get_write_buffer_size():
                self._last = True  # an answer before the request was sent: what is left of it must not begin the next one

    def on_message_begin(self) -> None:
        """A response begins; a second one to a single request is none of ours."""
        if not self._asking:
            self._last = True

    _until_the_end = False
