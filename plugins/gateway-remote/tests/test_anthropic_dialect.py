"""The Messages API as the loopback server speaks it: held to the `anthropic` package, and the contract of a model behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from anthropic.types import message_create_params
from anthropic_case import (
    ASKED,
    FACTS,
    KEY,
    KEY_REF,
    MODEL,
    OLD,
    asked,
    decoded,
    events_of,
    message,
    payload,
    read,
    sdk,
    text,
)
from gateway_remote.formats.anthropic import API, VERSION
from gateway_remote.formats.anthropic_stream import MessageStream
from gateway_remote.formats.api import Heard
from gateway_remote.service import RemoteModel
from gateway_remote.sse import EventReader
from hypothesis import given
from hypothesis import strategies as st
from remote_case import row, started, with_model
from test_anthropic_stream import BLOCKS, TOLD

from gateway import (
    Chat,
    ChatResponse,
    Denied,
    Message,
    Reasoning,
    Rejected,
    Request,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from gateway.testing import Fault, LoopbackServer, Reply, resources
from gateway.testing.anthropic import FIELDS, SAMPLING, signature
from gateway.testing.contract import ModelServiceContract

LOOK = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]})
HEAR = Tool(name="hear")
SHAPE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


class TestMessages(ModelServiceContract):
    """At the version that samples as it is told, which the contract's own requests need."""

    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        facts = {**FACTS, "headers": OLD, "modalities": ["text"], "features": [*API.features, "top_k"]}
        with LoopbackServer(key=KEY) as server:
            yield RemoteModel(row(server.url, **facts))


class TestMessagesOfToday(ModelServiceContract):
    """Without "stop", which the contract tries at temperature 0."""

    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        facts = {**FACTS, "modalities": ["text"], "features": [each for each in API.features if each != "stop"]}
        with LoopbackServer(key=KEY) as server:
            yield RemoteModel(row(server.url, **facts))

    @pytest.fixture
    def requests(self) -> list[Request[Any]]:
        turns = (Message.system("Be brief."), Message.user("Hi."), Message.assistant("Hello."), Message.user("Name a river."))
        return [Chat.ask("Name a bird.", max_tokens=12), Chat(messages=turns, max_tokens=12)]


CONVERSATIONS: dict[str, tuple[Chat, Reply | None]] = {
    "text": (Chat.ask("Hi there, everybody"), None),
    "thoughts": (Chat.ask("Hi", reasoning="low"), None),
    "nothing": (Chat.ask("Hi"), Reply(text="")),
    "calls": (Chat.ask("Use look and hear.", tools=(LOOK, HEAR)), None),
    "thoughts, words and calls": (
        Chat.ask("Hi", tools=(LOOK,)),
        Reply(text="So: ", reasoning="hm 🤔", tool_calls=[("look", {"at": 1, "of": "Zürich"}), ("look", {})]),
    ),
    "a shape": (Chat.ask("Where?", response_format=SHAPE), None),
    "too long": (Chat.ask("Hi there, everybody", max_tokens=2), None),
    "a refusal": (Chat.ask("Hi"), Reply(text="I will not.", finish_reason="content_filter")),
    "a pause": (Chat.ask("Hi"), Reply(text="Well", finish_reason="pause_turn")),
    "a cache": (
        Chat.ask("Hi"),
        Reply(
            text="a",
            usage={
                "prompt_tokens": 10, "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
        ),
    ),
    "its own words for usage": (Chat.ask("Hi"), Reply(text="a", usage={"input_tokens": 3, "output_tokens": 4})),
    "pieces": (Chat.ask("Hi"), Reply(chunks=[{"content": "a"}, {"type": "ping"}, '{"type":"ping"}', {"content": "b\n"}])),
}  # fmt: skip


def params_of(server: LoopbackServer) -> Any:
    """What the package is to send, to say what we have said last."""
    return {name: value for name, value in server.requests[-1].json.items() if name != "stream"}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_package_reads_what_the_server_says_as_we_do(server: LoopbackServer, name: str) -> None:
    request, reply = CONVERSATIONS[name]
    if reply is not None:
        server.always(reply)
    ours, streamed = asked(server, request), asked(server, request, stream=True)
    with sdk(server) as client:
        whole = client.messages.create(**params_of(server))
        with client.messages.stream(**params_of(server)) as stream:
            final = stream.get_final_message()
    theirs = [decoded(each.model_dump(mode="json"), request) for each in (whole, final)]
    for each in (streamed, *theirs):
        assert (each.parts, each.finish, each.usage) == (ours.parts, ours.finish, ours.usage)
    assert [each.id for each in (ours, streamed, *theirs)] == ["msg_1", "msg_2", "msg_3", "msg_4"]
    assert {each.served_by for each in (ours, streamed, *theirs)} == {MODEL}


def test_what_the_server_makes_of_options_is_what_was_asked(server: LoopbackServer) -> None:
    thought = asked(server, Chat.ask("Hi", reasoning="low")).parts[0]
    assert thought == Reasoning("Thinking it over, effort low.", "anthropic:" + signature("Thinking it over, effort low."))
    assert asked(server, Chat.ask("Hi", reasoning="none")).parts == (Text("You said: Hi"),)
    assert asked(server, Chat.ask("Hi", stop=("said",))).text == "You "
    both = Chat.ask("look, hear", tools=(LOOK, HEAR))
    assert [call.name for call in asked(server, both).tool_calls] == ["look", "hear"]
    for options, names in (
        ({"parallel_tool_calls": False}, ["look"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": "hear"}, ["hear"]),
    ):
        asking: dict[str, Any] = {"tools": (LOOK, HEAR), **options}
        assert [call.name for call in asked(server, Chat.ask("look, hear", **asking)).tool_calls] == names
    shaped = asked(server, Chat.ask("Where?", response_format=SHAPE))
    assert set(json.loads(shaped.text)) == {"city"}


def test_usage_of_a_cache_is_normalised(server: LoopbackServer) -> None:
    request, reply = CONVERSATIONS["a cache"]
    assert reply is not None
    server.always(reply)
    expected = Usage(input_tokens=10, cached_tokens=5, cache_write_tokens=2, output_tokens=4, reasoning_tokens=3)
    assert asked(server, request).usage == asked(server, request, stream=True).usage == expected


def test_a_reply_goes_back_as_it_came(server: LoopbackServer) -> None:
    calls = Reply(text="So:", reasoning="hm", tool_calls=[("look", {"at": 1})])
    server.script(calls)
    first = Chat.ask("What is there?", tools=(LOOK,))
    reply = asked(server, first)
    assert [type(part) for part in reply.parts] == [Reasoning, Text, ToolCall]
    said = Message.assistant(*reply.parts)
    request = Chat(messages=(*first.messages, said, Message.tool(reply.tool_calls[0], "a tree")), tools=(LOOK,))
    assert asked(server, request).text == "The tool said: a tree"
    ours = server.requests[-1].json
    server.script(calls)
    with sdk(server) as client:
        tools: Any = ours["tools"]
        asking: Any = [{"role": "user", "content": "What is there?"}]
        came = client.messages.create(model=MODEL, max_tokens=4096, messages=asking, tools=tools)
        call = came.content[-1]
        assert call.type == "tool_use"
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "a tree"}
        asking = [*asking, came.to_param(), {"role": "user", "content": [result]}]
        client.messages.create(model=MODEL, max_tokens=4096, messages=asking, tools=tools)
    assert server.requests[-1].json == ours


def test_the_same_bytes_are_the_same_reply_to_the_package_and_to_us(server: LoopbackServer) -> None:
    server.always(
        Fault(keepalives=2, split_bytes=7, reply=Reply(text="Grüße 🏔️", reasoning="hm", tool_calls=[("look", {"at": 1})]))
    )
    with sdk(server) as client, client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream:
        final = stream.get_final_message()
    headers = {**API.headers, "x-api-key": KEY}
    body = {"model": MODEL, "max_tokens": 9, "messages": HI, "stream": True}
    sent = httpx.post(f"{server.url}/messages", json=body, headers=headers).content
    reader, state = EventReader(), MessageStream(ASKED, Heard("m"))
    for event in [*reader.feed(sent), *reader.flush()]:
        state.feed(event)
    assert state.done and state.response().parts == decoded(final.model_dump(mode="json")).parts


def accumulated(wire: dict[str, Any]) -> ChatResponse:
    """What the package makes of a reply's events."""
    body = b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), payload(each)) for each in events_of(wire))
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, content=body))
    with (
        httpx2.Client(transport=transport) as http,
        anthropic.Anthropic(api_key=KEY, http_client=http, max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream,
    ):
        return decoded(stream.get_final_message().model_dump(mode="json"))


@given(st.lists(BLOCKS, max_size=5))
def test_what_the_package_accumulates_is_what_we_assemble(blocks: list[dict[str, Any]]) -> None:
    wire = message(*blocks)
    assert accumulated(wire) == read(*map(payload, events_of(wire)))[1]


def test_a_reply_of_every_kind_of_block_is_accumulated_as_we_assemble_it() -> None:
    assert accumulated(TOLD) == read(*map(payload, events_of(TOLD)))[1] == decoded(TOLD)


def test_the_key_and_the_version_are_asked_for() -> None:
    with LoopbackServer(key=KEY) as server:
        assert asked(server, ASKED).text == "You said: 12345678"
        with sdk(server) as client:
            assert client.messages.create(model=MODEL, max_tokens=9, messages=HI).content
        with pytest.raises(Denied):
            asked(server, ASKED, api_key=[])
        for version in ("", "2022-01-01"):
            with pytest.raises(Rejected):
                asked(server, ASKED, headers={"anthropic-version": version})


def test_a_request_holds_what_the_package_s_may_hold() -> None:
    params = message_create_params.MessageCreateParamsStreaming.__annotations__.keys()
    more = message_create_params.MessageCreateParamsBase.__annotations__.keys()
    of_headers = {"workspace_id", "user_profile_id"}
    assert (params | more) - of_headers == FIELDS - of_headers and not SAMPLING & FIELDS
    assert API.headers["anthropic-version"] == VERSION


CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "x"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 1.0},
        {"seed": 7},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"messages": []},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "system", "content": "Hi"}]},
        {"messages": [*HI, CALLED, {"role": "user", "content": "no result"}]},
        {"messages": [*HI, {"role": "user", "content": [RESULT]}]},
        {"messages": [*HI, CALLED, {"role": "user", "content": [{"type": "text", "text": "first"}, RESULT]}]},
        {"messages": [*HI, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "forged"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
        {"messages": [*HI, {"role": "assistant", "content": [{"type": "document"}]}]},
        {"tool_choice": {"type": "any"}},
        {"tools": [{"name": "look"}]},
        {"thinking": {"type": "deep"}},
        {"output_config": {"format": {"type": "json_schema", "schema": SHAPE}}},
    ],
)
def test_the_server_refuses_what_the_api_refuses(server: LoopbackServer, wrong: dict[str, Any]) -> None:
    given = {"model": MODEL, "max_tokens": 9, "messages": HI, **wrong}
    body = {name: value for name, value in given.items() if value is not None}
    reply = httpx.post(f"{server.url}/messages", json=body, headers={**API.headers, "x-api-key": KEY})
    assert reply.status_code == 400 and reply.json()["type"] == "error", reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_document_that_is_cited_goes_with_no_shape(server: LoopbackServer) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "x"}
    document = {"type": "document", "source": source, "citations": {"enabled": True}}
    shape = {"type": "object", "properties": {}, "additionalProperties": False}
    body = {
        "model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": [document]}],
        "output_config": {"format": {"type": "json_schema", "schema": shape}},
    }  # fmt: skip
    assert httpx.post(f"{server.url}/messages", json=body, headers=API.headers).status_code == 400
    del document["citations"]
    assert httpx.post(f"{server.url}/messages", json=body, headers=API.headers).status_code == 200


def test_arguments_that_are_no_json_are_said_as_the_script_has_them(server: LoopbackServer) -> None:
    server.always(Reply(tool_calls=[("look", '{"at": ')]))
    for stream in (False, True):
        [call] = asked(server, Chat.ask("Hi", tools=(LOOK,)), stream=stream).tool_calls
        assert call.arguments == '{"at": '


def test_whole_events_of_a_script_are_said_as_they_are(server: LoopbackServer) -> None:
    web = {
        "type": "web_search_result_location",
        "cited_text": "q",
        "encrypted_index": "x",
        "title": "D",
        "url": "https://d.example",
    }
    server.always(Reply(chunks=[{"type": "text_delta", "text": "a"}, {"type": "citations_delta", "citation": web}]))
    reply = asked(server, ASKED, stream=True)
    assert reply.parts == decoded(message(text("a", web))).parts


def test_the_endpoint_is_checked_and_its_models_are_listed() -> None:
    async def whole(url: str) -> None:
        async with started(url, **{**FACTS, "model": "two"}) as model:
            assert "'two' is among its 2 models" in await model.check(resources())
            assert [card.name for card in await model.offered(resources())] == ["one", "two"]

    with LoopbackServer(models=("one", "two")) as server:
        asyncio.run(whole(server.url))
        assert {request.query for request in server.requests} == {"limit=1000"}
        assert all(request.headers["anthropic-version"] == VERSION for request in server.requests)


def test_a_closed_stream_leaves_nothing_behind(server: LoopbackServer) -> None:
    async def leave(model: RemoteModel) -> None:
        stream = model.stream(Chat.ask("Hi there, everybody"))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    with_model(server, leave, **FACTS)
