"""Streams of the Responses API: the `openai` package adds its own events up to what our reader makes of the same bytes."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import openai
import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.responses_reply import chat_response
from gateway_remote.formats.responses_stream import ResponseStream
from gateway_remote.sse import EventReader
from hypothesis import given
from hypothesis import strategies as st
from openai.types import responses as wire
from responses_case import call, events, message, refusal, reply, text, thought, url

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    Citation,
    Delta,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    assemble,
)

ASKED = Chat.ask("12345678")


def read(*payloads: bytes, request: Chat = ASKED) -> tuple[list[Delta], ChatResponse]:
    state = ResponseStream(request, Heard("m"))
    deltas = [delta for payload in payloads for delta in state.feed(payload)]
    response = state.response()
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
    return deltas, response


def whole(payload: dict[str, Any], request: Chat = ASKED) -> ChatResponse:
    return chat_response(json.dumps(payload).encode(), request, Heard("m"))


def event(kind: str, **facts: Any) -> bytes:
    return json.dumps({"type": f"response.{kind}", **facts}).encode()


def end(*items: dict[str, Any], **facts: Any) -> bytes:
    return event("completed", response=reply(*items, **facts))


SAID = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=20)
CONTENT = st.builds(text, SAID) | st.builds(lambda said: text(said, annotations=[url(0, 1)]), SAID) | st.builds(refusal, SAID)
ITEM = st.one_of(
    st.builds(lambda content, phase: message(*content, phase=phase), st.lists(CONTENT, max_size=3),
              st.sampled_from([None, "commentary", "final_answer"])),
    st.builds(lambda summary, sealed: thought(*summary, encrypted_content=sealed), st.lists(SAID, max_size=3),
              st.none() | st.text(st.characters(codec="ascii"))),
    st.builds(lambda content: thought(content=tuple(content)), st.lists(SAID, max_size=3)),
    st.builds(call, st.sampled_from(["look", "hear"]), SAID),
    st.just({"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}}),
)  # fmt: skip


@st.composite
def replies(draw: st.DrawFn) -> dict[str, Any]:
    items = [
        {**item, "id": f"item_{at}", **({"call_id": f"call_{at}"} if "call_id" in item else {})}
        for at, item in enumerate(draw(st.lists(ITEM, max_size=5)))
    ]
    return reply(*items)


SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


@given(replies(), SIZES)
def test_a_streamed_reply_is_the_whole_one(payload: dict[str, Any], sizes: tuple[int, ...]) -> None:
    assert read(*events(payload, sizes=sizes))[1] == whole(payload)


@given(replies(), SIZES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 20_000), max_size=40))
def test_any_way_of_cutting_the_bytes_gives_the_same_deltas(
    payload: dict[str, Any], sizes: tuple[int, ...], line: bytes, cuts: list[int]
) -> None:
    payloads = events(payload, sizes=sizes)
    wired = b"".join(b"event: x" + line + b"data: " + each + line * 2 for each in payloads)
    reader, got, edges = EventReader(), [], sorted({0, *(cut % (len(wired) + 1) for cut in cuts), len(wired)})
    for a, b in itertools.pairwise(edges):
        got += reader.feed(wired[a:b])
    assert read(*got, *reader.flush()) == read(*payloads)


class Wire(httpx.SyncByteStream):
    def __init__(self, payloads: list[bytes]) -> None:
        self.payloads = payloads

    def __iter__(self) -> Iterator[bytes]:
        return (b"data: " + each + b"\n\n" for each in self.payloads)


def summed_by_the_package(payloads: list[bytes]) -> wire.Response:
    """What the package's own accumulation makes of a stream."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Wire(payloads))

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        client = openai.OpenAI(base_url="http://h", api_key="k", max_retries=0, http_client=http)
        with client.responses.stream(model="m", input="Hi") as stream:
            return stream.get_final_response()


def meant(response: ChatResponse) -> list[Any]:
    """The parts, with what is in a signature: the package writes the fields of an object in an order of its own."""
    return [
        (each.text, json.loads(each.signature.removeprefix("responses:") or "null")) if isinstance(each, Reasoning) else each
        for each in response.parts
    ]


@given(replies(), SIZES)
def test_the_package_s_own_sum_of_the_events_is_ours(payload: dict[str, Any], sizes: tuple[int, ...]) -> None:
    payloads = events(payload, sizes=sizes)
    # Without the whole at the end the package, as our reader, has only what the events told.
    last = json.loads(payloads[-1])
    last["response"]["output"] = None
    payloads[-1] = json.dumps(last).encode()
    theirs, (_, ours) = summed_by_the_package(payloads), read(*payloads)
    assert meant(ours) == meant(whole(theirs.to_dict(mode="json")))
    assert [(each.id, each.name, each.arguments) for each in ours.tool_calls] == [
        (each.call_id, each.name, each.arguments) for each in theirs.output if each.type == "function_call"
    ]
    texts = [
        each.text for item in theirs.output if item.type == "message" for each in item.content if each.type == "output_text"
    ]
    refused = [
        each.refusal for item in theirs.output if item.type == "message" for each in item.content if each.type == "refusal"
    ]
    assert theirs.output_text == "".join(texts) and sorted("".join([*texts, *refused])) == sorted(ours.text)


KINDS_OF_THE_PACKAGE = [
    get_args(each.model_fields["type"].annotation)[0] for each in get_args(get_args(wire.ResponseStreamEvent)[0])
]
LAST = {"response.completed", "response.incomplete", "response.failed", "error"}


@pytest.mark.parametrize("name", sorted(set(KINDS_OF_THE_PACKAGE) - LAST))
def test_an_event_of_any_kind_of_the_package_upsets_nothing(name: str) -> None:
    bare = json.dumps({"type": name, "sequence_number": 1, "output_index": 7, "item_id": "x"}).encode()
    sent = events(reply(message(text("Hello."))))
    assert read(*sent[:3], bare, *sent[3:])[1] == read(*sent)[1]


def test_interleaved_calls_are_told_apart() -> None:
    one, two = call("one", '{"a":1}', "c1"), call("two", '{"b":2}', "c2")
    _, got = read(
        event("output_item.added", output_index=0, item={**one, "arguments": ""}),
        event("output_item.added", output_index=1, item={**two, "arguments": ""}),
        event("function_call_arguments.delta", output_index=1, delta='{"b"'),
        event("function_call_arguments.delta", output_index=0, delta='{"a"'),
        event("function_call_arguments.delta", output_index=1, delta=":2}"),
        event("function_call_arguments.delta", output_index=0, delta=":1}"),
        end(one, two),
    )
    assert got.parts == (ToolCall("c1", "one", '{"a":1}'), ToolCall("c2", "two", '{"b":2}'))


def test_items_that_a_server_numbers_all_alike_are_told_apart() -> None:
    payload = reply(
        thought("Hm.", encrypted_content="e=="), message(text("One.")), call("look", "{}"), message(text("Two."), id="b")
    )
    same = [json.loads(each) for each in events(payload)]
    got = read(*(json.dumps({**each, "output_index": 0}).encode() for each in same))[1]
    assert got == whole(payload)
    for each in same:
        each.pop("output_index", None)
    assert read(*(json.dumps(each).encode() for each in same))[1] == whole(payload)


@pytest.mark.parametrize("keep", [
    ("output_item.done", "completed"), ("completed",), ("content_part.done", "output_item.done", "completed"),
    ("output_item.added", "output_item.done", "completed"),
])  # fmt: skip
def test_what_came_in_no_pieces_is_taken_whole(keep: tuple[str, ...]) -> None:
    payload = reply(
        thought("Hm.", encrypted_content="e=="),
        message(text("One.", annotations=[url(0, 3)]), text("Two.", annotations=[url(0, 3)]), phase="commentary"),
        call("look", '{"a":1}'),
    )
    sent = [each for each in events(payload) if json.loads(each)["type"].removeprefix("response.") in keep]
    assert len(sent) < len(events(payload)) and read(*sent)[1] == whole(payload)


def test_citations_that_no_event_told_follow_the_text_that_they_are_of() -> None:
    payload = reply(message(text("One.", annotations=[url(0, 3)]), text("Two.", annotations=[url(0, 3)])))
    sent = [each for each in events(payload) if b"annotation.added" not in each]
    _, got = read(*sent)
    assert got == whole(payload) and [part.type for part in got.parts] == ["text", "citation"] * 2


def test_pieces_that_were_lost_are_made_up_for_by_the_whole() -> None:
    payload = reply(message(text("One two three.")), call("look", '{"a":1}'), thought("Hm hm.", encrypted_content="e=="))
    sent = events(payload)
    last = {"output_text.delta", "function_call_arguments.delta", "reasoning_summary_text.delta"}
    for kind in last:
        places = [at for at, each in enumerate(sent) if json.loads(each)["type"] == f"response.{kind}"]
        del sent[places[-1]]
    assert read(*sent)[1] == whole(payload)


def test_pieces_that_the_whole_gainsays_stand_as_they_were_delivered() -> None:
    sent = events(reply(message(text("Hello."))))
    sent = [each.replace(b'"text": "Hello."', b'"text": "Other."') for each in sent]
    assert read(*sent)[1].text == "Hello."


def test_an_annotation_ahead_of_its_text_leaves_no_gap() -> None:
    _, got = read(event("output_text.annotation.added", output_index=0, annotation=url(0, 2)), end(message(text("Hi."))))
    assert got.parts == (Citation("https://x.example", "X", "", 0, 2), Text("Hi."))
    _, got = read(event("output_text.annotation.added", output_index=0, annotation=None), end())
    assert got.parts == ()


def test_a_name_that_comes_late_is_taken_and_none_at_all_is_a_bad_reply() -> None:
    nameless = {**call("look", ""), "name": ""}
    pieces = (
        event("output_item.added", output_index=0, item=nameless),
        event("function_call_arguments.delta", output_index=0, delta='{"a":1}'),
    )
    done = event("output_item.done", output_index=0, item=call("look", '{"a":1}'))
    assert read(*pieces, done, end(call("look", '{"a":1}')))[1].parts == (ToolCall("call_1", "look", '{"a":1}'),)
    with pytest.raises(BadReply) as caught:
        read(*pieces, event("output_item.done", output_index=0, item=nameless))
    assert caught.value.in_stream


def test_an_end_without_a_last_event_is_never_a_short_success() -> None:
    payloads = events(reply(message(text("Hello."))))
    for last in ((), (b"[DONE]",)):
        with pytest.raises(BadReply) as caught:
            read(*payloads[:-1], *last)
        assert caught.value.in_stream and caught.value.partial == "Hello." and caught.value.retryable


def test_nothing_is_read_after_the_last_event() -> None:
    state = ResponseStream(ASKED, Heard("m"))
    for payload in events(reply(message(text("Hello.")))):
        assert not state.done and not state.finished
        state.feed(payload)
    assert state.done and state.finished and state.feed(b"garbage") == []


@pytest.mark.parametrize("payload", [b'{"id', b"[]", b"3", b"\xff", b'{"type": "response.completed"}'])
def test_a_malformed_event_is_a_bad_reply(payload: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        read(*events(reply(message(text("half"))))[:5], payload)
    assert caught.value.in_stream and caught.value.partial == "hal" and caught.value.retryable


def test_a_thought_s_seal_is_taken_from_the_item_when_it_is_done() -> None:
    item = thought("Hm.", encrypted_content="whole==")
    early = {**item, "summary": [], "encrypted_content": "ha"}
    _, got = read(
        event("output_item.added", output_index=0, item=early),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm."),
        event("output_item.done", output_index=0, item=item),
        end(item),
    )
    [part] = got.parts
    assert isinstance(part, Reasoning) and part.text == "Hm." and '"whole=="' in part.signature and '"ha"' not in part.signature


NAMES = [
    "type", "item", "delta", "part", "response", "output", "output_index", "content_index", "summary_index", "annotation",
    "error", "content", "text", "name", "arguments", "status", "summary", "encrypted_content", "logprobs", "usage", "phase",
]  # fmt: skip
KINDS = st.sampled_from([
    *(f"response.{kind}" for kind in (
        "created", "output_item.added", "output_item.done", "content_part.added", "content_part.done", "output_text.delta",
        "refusal.delta", "output_text.annotation.added", "reasoning_summary_text.delta", "reasoning_text.delta",
        "function_call_arguments.delta", "completed", "incomplete", "failed", "unheard_of")),
    "error", "message", "reasoning", "function_call", "output_text", "refusal", "url_citation",
])  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text() | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
EVENTS = st.lists(
    st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS, st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=8)),
    max_size=8,
)


@given(EVENTS | st.lists(ANYTHING, max_size=3))
def test_no_payload_raises_anything_but_a_service_error(payloads: list[Any]) -> None:
    state = ResponseStream(ASKED, Heard("m"))
    deltas: list[Delta] = []
    try:
        for payload in payloads:
            deltas += state.feed(json.dumps(payload).encode())
        response = state.response()
    except ServiceError as error:
        assert error.in_stream
        return
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
