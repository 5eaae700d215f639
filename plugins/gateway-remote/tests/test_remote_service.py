"""A remote model over real sockets, and over a transport of the user's own."""

import asyncio
import pickle
from typing import Any

import pytest
from gateway_remote import transport
from gateway_remote.service import RemoteModel
from pydantic import BaseModel
from remote_case import HELLO, row, started, streamed, with_model

from gateway import (
    AttemptTimeout,
    BadReply,
    Chat,
    ChatResponse,
    Closed,
    ContextTooLong,
    Denied,
    Embed,
    EmbedResponse,
    GatewayError,
    Message,
    ModelMissing,
    OutOfQuota,
    Overloaded,
    Quota,
    RateLimited,
    Rejected,
    ServiceError,
    Tool,
    Unreachable,
    UnsupportedTask,
)
from gateway.testing import Fault, LoopbackServer, Reply, resources

KEY = "sk-hunter2"
PROMPT = "Quetzalcoatlus"
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})


def test_a_chat_is_answered_run_and_streamed_alike(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        reply = await model.run(HELLO)
        assert isinstance(reply, ChatResponse) and reply.text == "You said: Hello there, everybody"
        deltas, whole = await streamed(model)
        assert isinstance(whole, ChatResponse) and whole.parts == reply.parts and len(deltas) > 3
        assert whole.usage == reply.usage and reply.usage.output_tokens and not reply.usage.estimated
        assert (whole.finish, whole.served_by) == ("stop", "loopback") and whole.id != reply.id

    with_model(server, test)
    assert len(server.requests) == 2 and server.disconnects == 0


def test_one_connection_serves_runs_and_streams_in_turn(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        for _ in range(3):
            await model.run(HELLO)
            await streamed(model)
        assert server.connections == 1

    with_model(server, test)


def test_a_tool_is_called_and_its_result_answered(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        question = Message.user("What is the weather in Zürich?")
        for stream in (False, True):
            ask = Chat(messages=(question,), tools=(WEATHER,))
            reply = (await streamed(model, ask))[1] if stream else await model.run(ask)
            assert isinstance(reply, ChatResponse) and reply.finish == "tool_calls"
            [call] = reply.tool_calls
            assert call.name == "weather" and "city" in call.parsed()
            turns = (question, Message.assistant(*reply.parts), Message.tool(call, "sunny"))
            answer = await model.run(Chat(messages=turns, tools=(WEATHER,)))
            assert isinstance(answer, ChatResponse) and "sunny" in answer.text

    with_model(server, test)


def test_several_calls_come_back_in_order(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(Reply(text="Both:", tool_calls=[("a", {"x": 1}), ("b", "{}")]))
        deltas, reply = await streamed(model)
        assert isinstance(reply, ChatResponse) and [call.name for call in reply.tool_calls] == ["a", "b"]
        assert reply.text == "Both:" and {delta.part for delta in deltas} == {0, 1, 2}

    with_model(server, test)


class Place(BaseModel):
    city: str
    people: int


def test_an_answer_can_be_asked_for_in_a_shape(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        request = Chat.ask("Where?", response_format=Place)
        reply = request.accept(await model.run(request))
        assert isinstance(reply, ChatResponse) and isinstance(reply.parsed, Place)

    with_model(server, test)


def test_texts_are_embedded_in_either_format(server: LoopbackServer) -> None:
    seen: list[EmbedResponse] = []

    async def test(model: RemoteModel) -> None:
        reply = await model.run(Embed(texts=("cat", "dog", "cat"), dimensions=8))
        assert isinstance(reply, EmbedResponse)
        seen.append(reply)

    with_model(server, test)
    with_model(server, test, embedding_format="base64")
    one, other = (reply.vectors for reply in seen)
    assert one[0] == one[2] != one[1] and {len(vector) for vector in one} == {8}
    for given, packed in zip(one, other, strict=True):
        assert given == pytest.approx(packed, abs=1e-6)


def test_a_task_that_the_row_does_not_list_is_unsupported(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        with pytest.raises(UnsupportedTask):
            await model.run(Embed(texts=("a",)))

    with_model(server, test, tasks=["chat"])
    assert not server.requests


def test_a_model_that_does_not_stream_is_run(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        _, reply = await streamed(model)
        assert isinstance(reply, ChatResponse) and "everybody" in reply.text

    with_model(server, test, features=["stop"])
    assert "stream" not in server.requests[0].json


def test_the_key_and_further_headers_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)

    async def test(model: RemoteModel) -> None:
        await model.run(HELLO)

    with LoopbackServer(key=KEY) as server:
        headers = {"x-team": "blue", "x-secret": "env:REMOTE_TEST_KEY"}
        with_model(server, test, api_key="env:REMOTE_TEST_KEY", headers=headers)
        sent = server.requests[0].headers
    assert sent["authorization"] == f"Bearer {KEY}" and sent["x-team"] == "blue" and sent["x-secret"] == KEY
    assert sent["accept-encoding"] == "identity"


ERRORS = [
    (Fault(status=400), Rejected),
    (Fault(status=400, body={"error": {"code": "context_length_exceeded"}}), ContextTooLong),
    (Fault(status=401), Denied),
    (Fault(status=404), ModelMissing),
    (Fault(status=429, retry_after=3), RateLimited),
    (Fault(status=429, body={"error": {"code": "insufficient_quota"}}), OutOfQuota),
    (Fault(status=500), ServiceError),
    (Fault(status=502, html=True), ServiceError),
    (Fault(status=503, retry_after=3), Overloaded),
    (Fault(status=529, body=""), Overloaded),
    (Fault(status=302, headers={"location": "http://127.0.0.1:1/"}), ServiceError),
    (Fault(status=200, html=True), BadReply),
    (Fault(status=200, body="not JSON"), BadReply),
    (Fault(empty=True), BadReply),
    (Fault(malformed_after=1), BadReply),
    (Fault(error_after=1), ServiceError),
    (Fault(reset=True), Unreachable),
    (Fault(close=True), Unreachable),
    (Fault(truncated=True, drop_after=2), Unreachable),
]


CURELESS = {Rejected, ContextTooLong, Denied, ModelMissing, OutOfQuota}


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize(("fault", "kind"), ERRORS)
def test_each_fault_is_its_own_error_and_the_next_call_works(
    server: LoopbackServer,
    fault: Fault,
    kind: type[ServiceError],
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)

    async def test(model: RemoteModel) -> None:
        server.script(fault)
        request = Chat.ask(f"{PROMPT} {PROMPT}")
        with pytest.raises(ServiceError) as caught:
            await (streamed(model, request) if stream else model.run(request))
        error = caught.value
        assert type(error) is kind and error.model == "loopback"
        assert error.retryable is (kind not in CURELESS and fault.status != 302)
        assert error.status == fault.status if fault.status not in (None, 200) else True
        assert error.retry_after_s == (3.0 if fault.retry_after else None)
        shown = f"{error} {error!r} {error.__cause__!r} {pickle.dumps(error.message)!r} {model!r} {model.card!r}"
        assert PROMPT not in shown and KEY not in shown
        await (streamed(model) if stream else model.run(HELLO))

    with_model(server, test, api_key="env:REMOTE_TEST_KEY")


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("torn", [{"drop_after": 0}, {"reset_after": 0}, {"truncated": True}, {"stall_after": 0}])
def test_an_error_whose_body_does_not_come_is_told_by_its_status(
    server: LoopbackServer, torn: dict[str, Any], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ERROR_BODY_S", 0.05)

    async def test(model: RemoteModel) -> None:
        for status, kind in ((401, Denied), (429, RateLimited)):
            server.script(Fault(status=status, retry_after=3, **torn))
            with pytest.raises(kind) as caught:
                await (streamed(model) if stream else model.run(HELLO))
            assert caught.value.status == status

    with_model(server, test)


QUOTA = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "1"}


def test_every_reply_says_what_is_left_of_the_quota(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(*[Reply(headers=QUOTA)] * 3)
        told = Quota(requests=59, tokens=1, tokens_reset_s=360.0)
        assert (await model.run(HELLO)).quota == (await streamed(model))[1].quota == told
        assert (await model.run(Embed(texts=("a",)))).quota == told
        assert (await model.run(HELLO)).quota is None and (await streamed(model))[1].quota is None

    with_model(server, test)


def test_an_error_in_a_reply_s_place_heeds_the_reply_s_headers(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        body, headers = {"error": {"type": "overloaded_error"}}, {"retry-after": "3", "x-should-retry": "false"}
        for _ in range(2):
            server.script(Fault(status=200, body=body, headers=headers))
            with pytest.raises(Overloaded) as caught:
                await (model.run(HELLO) if _ else streamed(model))
            assert caught.value.retry_after_s == 3 and caught.value.retryable is False

    with_model(server, test)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(cut_after=3), BadReply),
        (Fault(drop_after=3), Unreachable),
        (Fault(reset_after=3), Unreachable),
        (Fault(malformed_after=3), BadReply),
        (Fault(error_after=3), ServiceError),
        (Fault(stall_after=3), AttemptTimeout),
        (Fault(stall_after=3, split_bytes=7), AttemptTimeout),
    ],
)
def test_a_stream_that_breaks_keeps_what_was_said(server: LoopbackServer, fault: Fault, kind: type[ServiceError]) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(fault)
        said = ""
        with pytest.raises(ServiceError) as caught:
            async for item in model.stream(HELLO):
                said += item.text  # type: ignore[union-attr]
        assert type(caught.value) is kind and caught.value.in_stream
        assert caught.value.partial == said == "You said" and said not in repr(caught.value)
        await streamed(model)

    with_model(server, test, limits={"between_s": 0.2})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(no_done=True),
        Fault(split_bytes=1),
        Fault(split_bytes=3, keepalives=3),
        Fault(delay_s=0.01, chunk_delay_s=0.001),
        Fault(no_done=True, truncated=True),
    ],
)
def test_what_is_only_odd_does_no_harm(server: LoopbackServer, fault: Fault) -> None:
    async def test(model: RemoteModel) -> None:
        expected = (await streamed(model))[1]
        server.script(fault)
        got = (await streamed(model))[1]
        assert isinstance(got, ChatResponse) and isinstance(expected, ChatResponse)
        assert got.parts == expected.parts and got.usage.estimated == fault.truncated

    with_model(server, test)


def test_silence_before_the_first_token_and_in_a_run_has_its_own_limit(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        for fault in (Fault(delay_s=60), Fault(first_chunk_delay_s=60), Fault(stall_after=1)):
            server.script(fault)  # the first payload of a stream holds a role and no token
            with pytest.raises(AttemptTimeout, match=r"0\.2 s for the first token"):
                await streamed(model)
        server.script(Fault(delay_s=60))
        with pytest.raises(AttemptTimeout, match=r"0\.1 s for the reply"):
            await model.run(HELLO)

    with_model(server, test, limits={"first_token_s": 0.2, "reply_s": 0.1})


def test_keepalives_are_no_progress(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(Fault(keepalives=100_000, split_bytes=13, chunk_delay_s=0.01))
        with pytest.raises(AttemptTimeout):
            await streamed(model)

    with_model(server, test, limits={"first_token_s": 0.2})


def test_check_says_whether_the_model_is_listed(server: LoopbackServer) -> None:
    async def whole() -> None:
        lent = resources()
        assert "'loopback' is among its 1 models" in await RemoteModel(row(server.url)).check(lent)
        with pytest.raises(ModelMissing, match="'other' is not among its 1 models"):
            await RemoteModel(row(server.url, model="other")).check(lent)
        server.script(Fault(status=401), Fault(status=404), Fault(status=200, html=True))
        with pytest.raises(Denied):
            await RemoteModel(row(server.url)).check(lent)
        assert "no list of models" in await RemoteModel(row(server.url)).check(lent)
        with pytest.raises(BadReply):
            await RemoteModel(row(server.url)).check(lent)
        await server.wait_for(lambda s: s.connections == 0)

    asyncio.run(whole())


def test_a_404_at_an_address_without_a_path_asks_about_v1(server: LoopbackServer) -> None:
    async def whole() -> None:
        bare = server.url.removesuffix("/v1")
        assert bare != server.url
        for url, hinted in ((bare, True), (bare + "/", True), (server.url, False)):
            server.script(*[Fault(status=404)] * 3)
            async with started(url) as model:
                for call in (model.run(HELLO), streamed(model)):
                    with pytest.raises(ModelMissing) as caught:
                        await call
                    assert ("(does base_url need /v1 at its end?)" in str(caught.value)) is hinted
                if not hinted:
                    assert "has no list of models" in await model.check(resources())
                    continue
                with pytest.raises(ModelMissing, match=r"has no list of models at .*does base_url need /v1 at its end"):
                    await model.check(resources())  # it is hardly right

    asyncio.run(whole())


def test_a_model_that_is_not_started_or_is_closed_says_so(server: LoopbackServer) -> None:
    async def whole() -> None:
        model = RemoteModel(row(server.url))
        await model.aclose()
        for _ in range(2):
            with pytest.raises(Closed):
                await model.run(HELLO)
            await model.start(resources())
            await model.run(HELLO)
            await model.aclose()

    asyncio.run(whole())


def test_errors_are_gateway_errors() -> None:
    assert all(issubclass(kind, GatewayError) for _, kind in ERRORS)
