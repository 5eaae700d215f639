"""Media by URL: what is fetched, how much of it, and who is told when it cannot be had. Real sockets."""

import asyncio
import gzip
import socket
import zlib
from functools import partial
from typing import Any

import pytest
from gateway_remote import media
from gateway_remote.media import fetched
from gateway_remote.service import RemoteModel
from remote_case import FEATURES, HELLO, row, streamed, with_model
from site_case import PNG, SECRET, Site, get, home, image, of, play, refusal, site

from gateway import (
    AsyncGateway,
    Audio,
    Chat,
    ClassifyImage,
    File,
    Image,
    InvalidRequest,
    Message,
    Price,
    Text,
    Transcribe,
)
from gateway.config import load_config
from gateway.testing import Echo, LoopbackServer, Recorder, Scripted


def test_a_url_becomes_bytes_of_the_type_that_its_server_states() -> None:
    async def test(here: Site) -> None:
        part = await get(here.page("/a.jpg", kind="image/jpeg; q=1"))
        assert (part.data, part.url, part.media_type, part.fetch) == (PNG, None, "image/jpeg", False)
        assert here.heads[0].startswith("GET /a.jpg HTTP/1.1\r\n")

    play(test)


def test_everything_but_what_is_to_be_fetched_stays_as_it_is() -> None:
    async def test(here: Site) -> None:
        url = here.page("/a.png")
        sound, doc = here.page("/a.mp3", b"ID3", "audio/mpeg"), here.page("/a", b"%PDF", "application/octet-stream")
        kept = Message(role="system", parts=(Text("Be kind"),))
        mixed = (Image(url=url), Image(url=url, fetch=True), Audio(url=sound, fetch=True), Image(data=b"x"))
        request = Chat(
            messages=(
                kept,
                Message(role="user", parts=mixed),
                Message(role="user", parts=(File(url=doc, fetch=True, name="d.pdf"),)),
            ),
            max_tokens=7,
        )
        got: Chat = await fetched(request, most_bytes=10_000, allowed=home)
        assert got.messages[0] is kept and got.max_tokens == 7
        assert got.messages[1].parts == (
            Image(url=url), Image(data=PNG), Audio(data=b"ID3", media_type="audio/mpeg"), Image(data=b"x")
        )  # fmt: skip
        assert got.messages[2].parts == (File(data=b"%PDF", name="d.pdf"),)  # what it is said to be: its server does not say

    play(test)


def test_a_task_that_is_no_chat_has_its_media_fetched_too() -> None:
    async def test(here: Site) -> None:
        got = await fetched(ClassifyImage(inputs=Image(url=here.page("/a.png"), fetch=True)), most_bytes=999, allowed=home)
        assert got.inputs == Image(data=PNG)
        sound = Audio(url=here.page("/a.wav", b"RIFF", "audio/wav"), fetch=True)
        got = await fetched(Transcribe(inputs=sound), most_bytes=999, allowed=home)
        assert got.inputs == Audio(data=b"RIFF")

    play(test)


def test_a_url_that_is_there_twice_is_fetched_once_and_several_at_the_same_time() -> None:
    async def test(here: Site) -> None:
        both = asyncio.Barrier(2)

        async def together(writer: asyncio.StreamWriter) -> None:
            await both.wait()  # neither is answered before both are asked for
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 1\r\n\r\nx")

        here.pages |= {"/1": together, "/2": together}
        one, two = (Image(url=here.url(path), fetch=True) for path in ("/1", "/2"))
        got: Chat = await fetched(of(one, two, one, one), most_bytes=9, allowed=home)
        assert got.messages[0].parts[1:] == (Image(data=b"x"),) * 4 and len(here.heads) == 2

    play(test)


def test_when_one_cannot_be_had_the_others_are_given_up_at_once() -> None:
    async def test(here: Site) -> None:
        begun = asyncio.Event()

        async def never(writer: asyncio.StreamWriter) -> None:
            begun.set()

        async def then(writer: asyncio.StreamWriter) -> None:
            await begun.wait()
            writer.write(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")

        here.pages |= {"/never": never, "/gone": then}
        request = of(*(Image(url=here.url(path), fetch=True) for path in ("/never", "/gone")))
        with pytest.raises(InvalidRequest, match="its server answers 404"):
            await fetched(request, most_bytes=9, allowed=home)
        await asyncio.wait_for(here.idle.wait(), 5)

    play(test)


def test_cancelling_closes_the_connection_at_once() -> None:
    async def test(here: Site) -> None:
        begun = asyncio.Event()

        async def never(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\nx")
            begun.set()

        here.pages["/never"] = never
        fetching = asyncio.create_task(get(here.url("/never")))
        await begun.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.wait_for(here.idle.wait(), 5)

    play(test)


def test_no_more_is_read_than_is_allowed() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            sent += 65_536
            await writer.drain()

    async def chunked(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            await writer.drain()

    async def test(here: Site) -> None:
        here.pages |= {"/endless": endless, "/chunked": chunked}
        for path in ("/endless", "/chunked"):
            assert await refusal(here.url(path), most_bytes=1_000_000) == "it has more than 1000000 bytes (max_media_bytes)"
        assert sent < 50_000_000
        assert len((await get(here.page("/a", bytes(1000)), most_bytes=1000)).data or b"") == 1000
        assert "more than 1000 bytes" in await refusal(here.page("/a", bytes(1001)), most_bytes=1000)

    play(test)


def bomb(size: int, *, zlib_format: bool = False) -> bytes:
    """So many zero bytes, packed a thousand times smaller."""
    packer = zlib.compressobj(9, wbits=15 if zlib_format else 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_packed_counts_as_it_is_unpacked(coding: str) -> None:
    async def test(here: Site) -> None:
        packed = bomb(200 << 20, zlib_format=coding == "deflate")
        assert len(packed) < 300_000
        url = here.page("/bomb", packed, extra=f"content-encoding: {coding}\r\n")
        assert "more than 1000000 bytes" in await refusal(url, most_bytes=1_000_000)
        small = here.page("/small", gzip.compress(PNG), extra="content-encoding: gzip\r\n")
        assert (await get(small)).data == PNG
        assert "accept-encoding: identity" in here.heads[0].lower()
        broken = here.page("/broken", b"no gzip", extra="content-encoding: gzip\r\n")
        assert (await refusal(broken)).startswith("it breaks off (")

    play(test)


@pytest.mark.parametrize(
    ("part", "kind", "why"),
    [
        (Image, "text/html", "it is no image"),
        (Image, "application/octet-stream", "it is no image"),
        (Image, "audio/wav", "it is no image"),
        (Image, "nonsense", "it is no image"),
        (Image, 'image/png,x"y', "it is no image"),
        (Image, "image/", "it is no image"),
        (Audio, "image/png", "it is no audio"),
        (Audio, "video/mp4", ""),
        (Audio, "audio/mpeg", ""),
        (File, "application/pdf", ""),
        (File, "text/plain", ""),
    ],
)
def test_what_comes_must_be_of_the_kind_that_was_asked_for(part: Any, kind: str, why: str) -> None:
    async def test(here: Site) -> None:
        request = of(part(url=here.page("/a", kind=kind), fetch=True))
        if not why:
            got: Chat = await fetched(request, most_bytes=10_000, allowed=home)
            assert got.messages[0].parts[1].media_type == kind  # type: ignore[union-attr]
            return
        with pytest.raises(InvalidRequest, match=why) as caught:
            await fetched(request, most_bytes=10_000, allowed=home)
        assert caught.value.field == f"{part.__name__.lower()}.url"

    play(test)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 500])
def test_any_other_answer_is_told_by_its_status(status: int) -> None:
    async def test(here: Site) -> None:
        body = b"" if status in (204, 304) else f"no: {SECRET}".encode()
        assert await refusal(here.page(f"/{SECRET}", body, status=status)) == f"its server answers {status}"

    play(test)


def test_a_server_that_dawdles_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "TIMEOUT_S", 0.2)

    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def silent(writer: asyncio.StreamWriter) -> None:
        return None

    async def redirects(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)  # each within the time, but not all of them
        writer.write(b"HTTP/1.1 302 X\r\nlocation: /redirects\r\ncontent-length: 0\r\n\r\n")

    async def test(here: Site) -> None:
        here.pages |= {"/drips": drips, "/silent": silent, "/redirects": redirects}
        for path in here.pages:
            assert await refusal(here.url(path)) == "it does not come within 0.2 s"

    play(test)


def test_a_server_that_is_not_there_or_breaks_off_is_told_as_such() -> None:
    async def short(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\nx")
        writer.close()

    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(f"this is no HTTP {SECRET}\r\n\r\n".encode())

    async def long(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: " + SECRET.encode() * 100_000 + b"\r\n\r\n")

    async def test(here: Site) -> None:
        here.pages |= {"/short": short, "/nonsense": nonsense, "/long": long}
        for path in here.pages:
            assert (await refusal(here.url(path))).startswith("it breaks off (")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/{SECRET}"
            assert await refusal(url) == "its server cannot be reached"

    play(test)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_model_is_sent_the_bytes(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setenv("MEDIA_KEY", SECRET)
    monkeypatch.setattr(media, "fetched", partial(fetched, allowed=home))

    async def test(model: RemoteModel) -> None:
        async with site() as here:
            request = image(here.page("/a.png"))
            await (streamed(model, request) if stream else model.run(request))
            assert SECRET not in here.heads[0]
        [sent] = server.requests
        assert sent.json["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw")

    with_model(server, test, api_key="env:MEDIA_KEY", headers={"x-team": SECRET})


def test_a_url_that_the_provider_is_to_fetch_is_passed_on(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        await model.run(of(Image(url="http://127.0.0.1:1/a.png")))
        assert server.requests[-1].json["messages"][0]["content"][1]["image_url"] == {"url": "http://127.0.0.1:1/a.png"}

    with_model(server, test)


def test_a_row_says_how_much_is_fetched(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "fetched", partial(fetched, allowed=home))

    async def test(model: RemoteModel) -> None:
        async with site() as here:
            with pytest.raises(InvalidRequest, match=r"more than 100 bytes \(max_media_bytes\)"):
                await model.run(image(here.page("/a.png")))

    with_model(server, test, max_media_bytes=100)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_url_that_cannot_be_fetched_is_the_caller_s_to_mend_and_nobody_is_blamed(
    server: LoopbackServer, stream: bool
) -> None:
    async def whole() -> None:
        recorder = Recorder()
        best = RemoteModel(row(server.url, features=FEATURES, quality=0.9, price={"input": 10.0}))
        other = Scripted("other", place="hosted", quality=0.1, price=Price(input=0.1), modalities=frozenset({"text", "image"}))
        config = load_config({"policy": {"worth": 10.0}})
        async with AsyncGateway([best, other], observers=[recorder], config=config) as gw:
            assert (await gw.run(HELLO)).model == "loopback"
            for _ in range(10):
                with pytest.raises(InvalidRequest, match="its address is not public") as caught:
                    request = image(f"{server.origin}/{SECRET}.png")
                    if stream:
                        async with gw.stream(request) as answer:
                            await answer.result()
                    else:
                        await gw.run(request)
                assert caught.value.field == "image.url"
            assert all((status.success, status.shut) == (1.0, "") for status in await gw.models())
            assert not other.asked and len(server.requests) == 1  # nobody was asked
            failed = [event for event in recorder.events if event.kind == "attempt"][1:]
            assert {(event.model, event.error, event.usage.cost_usd) for event in failed} == {
                ("loopback", "InvalidRequest", 0.0)
            }
            assert SECRET not in repr(recorder.events)
            assert (await gw.run(HELLO)).model == "loopback"

    asyncio.run(whole())


def test_a_model_that_takes_no_media_fetches_none(server: LoopbackServer) -> None:
    async def whole() -> None:
        plain = RemoteModel(row(server.url, modalities=["text"], quality=0.9))
        async with AsyncGateway([plain, Echo("seeing", modalities=frozenset({"text", "image"}))]) as gw:
            reply = await gw.run(image("http://127.0.0.1:1/a.png"))
            assert reply.model == "seeing"

    asyncio.run(whole())
