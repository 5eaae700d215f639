"""What servers do within HTTP/1.1: lie about a length, pack what was to be plain, send heads without end."""

import asyncio
import contextlib
import functools
import gzip
import zlib

import pytest
from gateway_remote import transport
from gateway_remote.incoming import Unpacking
from odd_case import (
    ANSWER,
    CLIENTS,
    EVENTS,
    SECRET,
    STREAM,
    answering,
    error_of,
    hang_up,
    http,
    play,
    said,
    then,
)

from gateway import BadReply, Overloaded, Unreachable


@pytest.mark.parametrize("client", ["ours"])  # httpcore 1.0.9 keeps such a rest for the next call
def test_what_comes_after_a_body_is_no_answer_to_the_next_call(client: str) -> None:
    """A body that is longer than was said: the rest could be made to look like an answer."""
    smuggled = http(ANSWER.replace(b"Hi", SECRET.encode()))

    async def test() -> None:
        error = http(b"{}", status="500 X")
        for rest in (smuggled, smuggled * 2, error, b"x", b"x" * 100_000, b"\r\n", b"HTTP/1.1 "):
            async with answering(client, http() + rest, http()) as (model, site):
                for stream in (False, True, False):
                    assert await said(model, stream) == "Hi"
                assert site.made == (1 if rest == b"\r\n" else 2)  # which HTTP passes over (RFC 9112, 2.2)

    play(test)


@CLIENTS
def test_a_body_that_is_shorter_than_its_json_is_told_and_the_connection_not_confused(client: str) -> None:
    async def test() -> None:
        async with answering(client, http(length=len(ANSWER) - 5), http()) as (model, _):
            error = await error_of(model)
            assert isinstance(error, BadReply) and error.retryable and "no JSON" in str(error)
            with contextlib.suppress(Unreachable):
                await said(model)
            assert await said(model) == "Hi"

    play(test)


@CLIENTS
@STREAM
def test_what_is_packed_unasked_is_unpacked(client: str, stream: bool) -> None:
    async def test() -> None:
        body, kind = (EVENTS, "text/event-stream") if stream else (ANSWER, "application/json")
        packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}
        steps = [http(data, f"content-encoding: {name}", kind=kind) for name, data in packed.items()]
        async with answering(client, *steps) as (model, site):
            for _ in steps:
                assert await said(model, stream) == "Hi"
            assert site.made == 1 and all("accept-encoding: identity" in head.lower() for head in site.heads)
        both = http(gzip.compress(gzip.compress(body)), "content-encoding: gzip", "content-encoding: gzip", kind=kind)
        async with answering(client, both) as (model, _):
            if client == "ours":  # httpx undoes both
                assert "content-encoding is not one that was asked for" in str(await error_of(model, stream))
        halves = gzip.compress(b"") + gzip.compress(body[:20]) + gzip.compress(b"") + gzip.compress(body[20:]) + bytes(9)
        async with answering(client, http(halves, "content-encoding: gzip", kind=kind)) as (model, _):
            if client == "ours":  # httpx loses all but the first
                assert await said(model, stream) == "Hi"
        for broken in (b"hunter2 is no gzip", gzip.compress(body)[:25], gzip.compress(body)[:25] + b"hunter2hunter2"):
            async with answering(client, http(broken, "content-encoding: gzip", kind=kind)) as (model, _):
                error = await error_of(model, stream)
                assert error.retryable and isinstance(error, (BadReply, Unreachable))

    play(test)


@functools.cache
def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)) + packer.flush()


@CLIENTS
def test_no_body_is_read_without_end(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BODY_BYTES", 16 << 20)

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()

    async def events(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        while True:
            writer.write(b'data: {"choices": [{"delta": {"content": "' + b"x" * 65_536 + b'"}}]}\n\n')
            await writer.drain()

    async def test() -> None:
        for step in (endless, http(bomb(64 << 20), "content-encoding: gzip"), events):
            async with answering(client, step) as (model, _):
                for stream in (False, True):
                    error = await error_of(model, stream)
                    assert isinstance(error, BadReply)
                    hides = client == "ours" and isinstance(step, bytes)
                    assert ("hides too much" if hides else "a reply of more than 16777216 bytes") in str(error)

    play(test)


@CLIENTS
def test_of_an_error_only_the_beginning_is_read(client: str) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 X\r\nretry-after: 7\r\n\r\n")
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()

    async def test() -> None:
        packed = http(bomb(64 << 20), "content-encoding: gzip", "retry-after: 7", status="503 X")
        broken = http(b"hunter2", "content-encoding: gzip", "retry-after: 7", status="503 X")
        unknown = http(b"hunter2", "content-encoding: x-hunter2", "retry-after: 7", status="503 X")
        cut = then(http(b"{", "retry-after: 7", status="503 X", length=100), hang_up)
        for step in (endless, packed, broken, unknown, cut):
            async with answering(client, step) as (model, _):
                for stream in (False, True):
                    error = await error_of(model, stream)
                    assert isinstance(error, Overloaded) and error.retry_after_s == 7

    play(test)


@CLIENTS
@STREAM
def test_headers_may_be_long_but_not_without_end(client: str, stream: bool) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-hunter2: " + b"hunter2" * 100 + b"\r\n")
            await writer.drain()

    async def test() -> None:
        async with answering(client, http(ANSWER, f"x-long: {'y' * 30_000}", *(f"x-{at}: y" for at in range(90)))) as (
            model,
            _,
        ):
            assert await said(model, stream) == "Hi"
        for step in (endless, http(ANSWER, f"x-long: {SECRET * 200_000}"), f"HTTP/1.1 200 {SECRET * 200_000}\r\n".encode()):
            async with answering(client, step) as (model, _):
                error = await error_of(model, stream)
                assert isinstance(error, (Unreachable, BadReply)) and error.retryable

    play(test)


@CLIENTS
@STREAM
@pytest.mark.parametrize(
    "head",
    [
        b"hunter2\r\n\r\n", b"HTTP/1.1 hunter2 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nhunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x00hunter2\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: hunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", b"SSH-2.0-hunter2\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_a_connection_that_broke(client: str, stream: bool, head: bytes) -> None:
    async def test() -> None:
        async with answering(client, then(head, hang_up)) as (model, _):
            error = await error_of(model, stream)
            assert isinstance(error, Unreachable) and (error.phase, error.retryable) == ("read", True)

    play(test)


@CLIENTS
@STREAM
def test_answers_that_only_prepare_for_one_are_passed_over(client: str, stream: bool) -> None:
    async def test() -> None:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        async with answering(client, early + http(), http()) as (model, site):
            assert [await said(model, stream) for _ in range(2)] == ["Hi", "Hi"]
            assert site.made == 1

    play(test)


@CLIENTS
@STREAM
@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content"])
def test_an_empty_answer_is_a_bad_reply(client: str, stream: bool, status: str) -> None:
    async def test() -> None:
        empty = http(b"", status=status)
        if status.startswith("204"):
            empty = empty.replace(b"content-length: 0\r\n", b"")
        async with answering(client, empty, http()) as (model, site):
            error = await error_of(model, stream)
            assert isinstance(error, BadReply) and error.retryable and "empty" in str(error)
            assert await said(model, stream) == "Hi" and site.made == 1

    play(test)


@CLIENTS
def test_a_reply_of_another_success_status_is_read(client: str) -> None:
    async def test() -> None:
        async with answering(client, http(status="201 Created"), http(status="202 Accepted")) as (model, _):
            assert [await said(model), await said(model, stream=True)] == ["Hi", "Hi"]

    play(test)


@CLIENTS
@STREAM
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent", "304 Not Modified"])
def test_a_redirect_is_not_followed(client: str, stream: bool, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_KEY", SECRET)

    async def test() -> None:
        async with answering(
            client, http(b"", "location: http://127.0.0.1:1/hunter2", status=status), api_key="env:ODD_KEY"
        ) as (model, site):
            error = await error_of(model, stream)
            assert "a redirect is not followed" in str(error) and error.status == int(status[:3]) and len(site.heads) == 1

    play(test)


def test_padding_after_a_packed_body_may_come_by_itself() -> None:
    unpacking = Unpacking(b"gzip")
    unpacking.feed(gzip.compress(b"hello"))
    assert unpacking.more() == b"hello"
    unpacking.feed(bytes(8))
    assert unpacking.more() == b"" and unpacking.end() == b""
