"""HTTP/1.1 as it is read: the same however it is cut, over real sockets; and whatever comes, an answer or a Lost."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence

import pytest
from gateway_remote.http11 import PAUSE_BYTES, Connection
from gateway_remote.transport import Lost
from hypothesis import given
from hypothesis import strategies as st

BODY = b'{"a": "' + "é€".encode() * 20 + b'"}'
CHUNKED = b"5;x=y\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n0\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nx-one: 2\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
KEPT = {
    "length": HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + b"\r\n",
    "trailer": HEAD + b"transfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n" + CHUNKED + b"x-late: yes\r\n\r\n",
    "early": EARLY + HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY,
}
ENDED = {
    "until the end": HEAD + b"\r\n" + BODY,
    "close": HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,
    "1.0": HEAD.replace(b"1.1", b"1.0") + b"\r\n" + BODY,
}
EMPTY = {"204": b"HTTP/1.1 204 No Content\r\n\r\n", "none": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"}
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


async def asked(connection: Connection, theirs: socket.socket, pieces: Sequence[bytes], *, end: bool = False) -> Answer:
    """The answer to one request when it is answered in these pieces, and then, perhaps, hung up upon."""
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        await loop.sock_recv(theirs, 1000)
        for piece in pieces:
            await loop.sock_sendall(theirs, piece)
            for _ in range(3):  # turns of the loop, in which it is read
                await asyncio.sleep(0)
        if end:
            theirs.shutdown(socket.SHUT_WR)

    answering = asyncio.create_task(answer())
    try:
        async with asyncio.timeout(5):
            await connection.ask(b"GET / HTTP/1.1\r\n", None)
            body = b""
            while piece := await connection.read():
                body += piece
            status, headers = connection.status, connection.headers
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
    return status, headers, body


async def connected() -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    buffer = memoryview(bytearray(1 << 16))
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(buffer), sock=ours)
    return connection, theirs


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[one:other] for one, other in itertools.pairwise(at)]


places = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.lists(st.tuples(st.sampled_from([*KEPT.values()]), places), min_size=1, max_size=4))
def test_answers_are_the_same_however_they_are_cut_one_after_another_on_one_connection(
    answers: list[tuple[bytes, list[int]]],
) -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            for data, at in answers:
                assert connection.reusable()
                status, headers, body = await asked(connection, theirs, cut(data, at))
                assert (status, body) == (200, BODY) and headers[:2] == [(b"X-One", b"1"), (b"x-one", b"2")]
                assert not {name for name, _ in headers} & {b"x-late", b"link"}
            assert connection.reusable()
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


@given(st.sampled_from([*ENDED.values()]), places)
def test_an_answer_that_ends_the_connection_is_read_whole_and_the_connection_not_used_again(data: bytes, at: list[int]) -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            status, _, body = await asked(connection, theirs, cut(data, at), end=True)
            assert (status, body) == (200, BODY) and not connection.reusable()
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


@given(st.sampled_from([*KEPT.values()]), st.data())
def test_an_answer_that_is_cut_off_anywhere_is_lost(data: bytes, drawn: st.DataObject) -> None:
    end = drawn.draw(st.integers(0, len(data) - 1))

    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            with pytest.raises(Lost) as caught:
                await asked(connection, theirs, [data[:end]] if end else [], end=True)
            assert caught.value.phase == "read" and not connection.reusable()
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


@pytest.mark.parametrize("data", EMPTY.values(), ids=list(EMPTY))
def test_an_answer_without_a_body_leaves_the_connection_as_it_was(data: bytes) -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            for _ in range(2):
                assert (await asked(connection, theirs, [data]))[2] == b"" and connection.reusable()
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


@given(st.sampled_from([*KEPT.values(), *ENDED.values(), *EMPTY.values()]), st.data())
def test_whatever_comes_it_is_an_answer_or_a_lost(data: bytes, drawn: st.DataObject) -> None:
    broken = bytearray(data)
    for _ in range(drawn.draw(st.integers(1, 4))):
        at = drawn.draw(st.integers(0, len(broken)))
        broken[at : at + drawn.draw(st.integers(0, 3))] = drawn.draw(st.binary(max_size=4))

    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            try:
                status, headers, body = await asked(connection, theirs, [bytes(broken)], end=True)
            except Lost as lost:
                assert lost.__context__ is None and not connection.reusable()
            else:
                assert 200 <= status < 1000 and isinstance(body, bytes) and all(len(each) == 2 for each in headers)
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


@given(
    st.sampled_from([*KEPT.values(), *EMPTY.values()]),
    st.sampled_from([*KEPT.values(), b"x", b"HTTP/1.1 500 X\r\n\r\n"]),
    places,
)
def test_what_comes_after_an_answer_is_nobody_s(data: bytes, rest: bytes, at: list[int]) -> None:
    """Whether it comes along or later: the first answer stands, and nothing else is read from this connection."""

    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            status, _, body = await asked(connection, theirs, [*cut(data, at)[:-1], cut(data, at)[-1] + rest])
            assert (status, body) in ((200, BODY), (200, b""), (204, b"")) and not connection.reusable()
            connection.abort()
            await asyncio.sleep(0)
        connection, theirs = await connected()
        with theirs:
            await asked(connection, theirs, [data])
            assert connection.reusable()
            theirs.send(rest)
            assert not connection.reusable()  # though the loop has not read it yet
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


def test_a_server_that_has_hung_up_is_seen_before_the_loop_tells() -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        await asked(connection, theirs, [KEPT["length"]])
        assert connection.reusable()
        theirs.close()
        assert not connection.reusable()
        connection.abort()
        await asyncio.sleep(0)

    asyncio.run(whole())


def test_a_reader_that_is_slow_makes_the_server_wait() -> None:
    """Of a body without end only so much is kept as was agreed, however long nobody reads."""

    async def whole() -> None:
        connection, theirs = await connected()
        loop, sent = asyncio.get_running_loop(), 0

        async def flood() -> None:
            nonlocal sent
            await loop.sock_recv(theirs, 1000)
            await loop.sock_sendall(theirs, b"HTTP/1.1 200 OK\r\n\r\n")
            piece = bytes(65_536)
            while True:
                await loop.sock_sendall(theirs, piece)
                sent += len(piece)

        flooding = asyncio.create_task(flood())
        await connection.ask(b"GET / HTTP/1.1\r\n", None)
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.05)
        assert sent < PAUSE_BYTES + (8 << 20)  # what the kernel's buffers take beside
        first = await connection.read()
        assert len(first) < PAUSE_BYTES + (1 << 20)
        while sent == before:  # and it goes on when somebody reads
            await connection.read()
        connection.abort()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        theirs.close()

    asyncio.run(whole())


def test_an_answer_before_the_request_was_sent_ends_the_connection() -> None:
    """What is left of the request must not become the beginning of the next one."""

    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            asking = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\n", bytes(30_000_000)))
            await asyncio.get_running_loop().sock_recv(theirs, 1000)
            await asyncio.get_running_loop().sock_sendall(theirs, KEPT["length"])
            await asking
            assert connection.status == 200 and await connection.read() == BODY and await connection.read() == b""
            assert not connection.whole and not connection.reusable()
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(whole())


def test_a_body_that_we_cut_off_ourselves_is_not_whole() -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            reading = asyncio.create_task(asked(connection, theirs, [HEAD + b"\r\n" + BODY]))
            await asyncio.sleep(0.01)
            connection.abort()
            with pytest.raises(Lost, match="closed"):
                await reading

    asyncio.run(whole())


def test_bytes_that_the_loop_has_read_and_nobody_asked_for_end_the_connection() -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            await asked(connection, theirs, [KEPT["length"]])
            await asyncio.get_running_loop().sock_sendall(theirs, KEPT["length"])
            for _ in range(3):
                await asyncio.sleep(0)
            assert not connection.whole and not connection.reusable()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKED + b"\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + b"x-late: yes\r\n" * 10_000 + b"\r\n",
        HEAD + b"x-more: yes\r\n" * 10_000 + b"\r\n",
    ],
    ids=["another coding", "a flood of trailers", "a flood of headers"],
)
def test_what_no_answer_is_made_of_is_lost(data: bytes) -> None:
    async def whole() -> None:
        connection, theirs = await connected()
        with theirs:
            with pytest.raises(Lost) as caught:
                await asked(connection, theirs, [data])
            assert caught.value.phase == "reply" and not connection.reusable()

    asyncio.run(whole())


def test_who_waits_is_told_when_the_connection_is_closed() -> None:
    async def whole() -> None:
        for begun in (b"", HEAD + b"content-length: 9\r\n\r\n"):
            connection, theirs = await connected()
            with theirs:
                waiting = asyncio.create_task(asked(connection, theirs, [begun] if begun else []))
                await asyncio.sleep(0.01)
                connection.abort()
                with pytest.raises(Lost, match="closed"):
                    await waiting
                theirs.setblocking(True)
                theirs.settimeout(5)
                assert await asyncio.to_thread(theirs.recv, 100) == b""

    asyncio.run(whole())
