"""FromConnection: the response on a connection as a transport's answer: its fields by name, its body unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway_remote.http11 import Connection
from gateway_remote.transport import Lost

ENCODING = b"content-encoding"
LENGTH = len(ENCODING)
STEP_BYTES = 1 << 20
"""So much of a packed body is unpacked at once: a few of its bytes may stand for a thousand times as many."""
MOST_TIMES = 100
"""A body that grows by more than this is none that anybody has packed to save bytes."""


class FromConnection:
    """See Incoming. `give_back` is told of the connection when the answer is closed, wherever it was read to."""

    def __init__(self, connection: Connection, give_back: Callable[[Connection], None]) -> None:
        self.status = connection.status
        self.raw_headers: Sequence[tuple[bytes, bytes]] = connection.headers
        self.headers: Mapping[str, str] = Fields(connection.headers)
        self._connection, self._give_back = connection, give_back
        self._packed = b""
        self._unpacking: Unpacking | None = None
        for name, value in connection.headers:
            if len(name) == LENGTH and name.lower() == ENCODING and value.strip().lower() != b"identity":
                self._packed += value.strip().lower()  # two of them make a name that is not known

    async def read(self) -> bytes:
        """See Incoming."""
        if not self._packed:
            return await self._connection.read()
        if self._unpacking is None:
            self._unpacking = Unpacking(self._packed)
        while True:
            if plain := self._unpacking.more():
                await asyncio.sleep(0)  # others may run between its steps
                return plain
            piece = await self._connection.read()
            if not piece:
                return self._unpacking.end()
            self._unpacking.feed(piece)

    async def aclose(self) -> None:
        """See Incoming."""
        self._give_back(self._connection)


class Fields(Mapping[str, str]):
    """Header fields by name, in any case; of several of one name the values, with commas. Read when first looked into."""

    __slots__ = ("_found", "_raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._found: dict[str, str] | None = None

    def _fields(self) -> dict[str, str]:
        if self._found is None:
            self._found = {}
            for name, value in self._raw:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                self._found[key] = f"{self._found[key]}, {text}" if key in self._found else text
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._fields()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())


class Unpacking:
    """Undoes gzip and deflate, which are not asked for but come all the same, a step at a time."""

    def __init__(self, encoding: bytes) -> None:
        if encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise Lost("reply", "content-encoding is not one that was asked for")
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either form, by its head
        self._packed = b""
        self._in = self._out = 0

    def feed(self, piece: bytes) -> None:
        """More packed bytes."""
        self._packed += piece
        self._in += len(piece)

    def more(self) -> bytes:
        """The next plain bytes; b"" when more must be fed."""
        plain = b""
        while self._packed and not plain:
            if self._inflate.eof:
                self._packed = self._packed.lstrip(b"\0")  # padding, as gzip itself takes it
                if not self._packed:
                    break
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # another member (RFC 1952, 2.2)
            try:
                plain = self._inflate.decompress(self._packed, STEP_BYTES)
            except zlib.error:
                raise Lost("reply", "content-encoding is broken") from None
            self._packed = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._out += len(plain)
        if self._out > STEP_BYTES + MOST_TIMES * self._in:
            raise Lost("reply", "content-encoding hides too much")
        return plain

    def end(self) -> bytes:
        """Nothing, at the end of the body. Lost when it was cut."""
        if not self._inflate.eof:
            raise Lost("reply", "content-encoding is broken")
        return b""
