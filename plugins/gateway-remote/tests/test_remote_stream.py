"""Streams: bytes cut anywhere give the same deltas, and the deltas add up to the response."""

import itertools
import json
from typing import Any

import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_stream import ChatStream
from gateway_remote.sse import MAX_LINE_BYTES, EventReader, LineTooLong
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    ContextTooLong,
    Delta,
    Overloaded,
    RateLimited,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    Usage,
    assemble,
)

ASKED = Chat.ask("12345678")


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **rest: Any) -> bytes:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return json.dumps({"id": "r1", "model": "real", "choices": choices, **rest}, ensure_ascii=False).encode()


def call(index: int | None, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    wire: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        wire["index"] = index
    if id:
        wire["id"] = id
    if name:
        wire["function"]["name"] = name
    return {"tool_calls": [wire]}


def read(*payloads: bytes) -> tuple[list[Delta], ChatResponse]:
    state = ChatStream(ASKED, Heard("m"))
    deltas = [delta for payload in payloads for delta in state.feed(payload)]
    response = state.response()
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
    return deltas, response


def events(wire: bytes, cuts: list[int]) -> list[bytes]:
    reader, out, edges = EventReader(), [], sorted({0, *(c % (len(wire) + 1) for c in cuts), len(wire)})
    for a, b in itertools.pairwise(edges):
        out += reader.feed(wire[a:b])
    return out + reader.flush()


def test_the_end_of_line_may_be_any_of_three() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        wire = end.join((b": hello", b"data: a", b"data: b", b"", b"event: x", b"data:c", b"", b""))
        assert events(wire, list(range(len(wire)))) == [b"a\nb", b"c"]


def test_comments_other_fields_and_a_mark_of_byte_order_are_passed_over() -> None:
    assert events(b"\xef\xbb\xbfdata: a\n\nid: 1\nretry: 5\n:data: no\ndatax: no\n\n", [1]) == [b"a"]


def test_the_last_empty_line_may_be_missing() -> None:
    assert events(b"data: a\n\ndata: b", []) == [b"a", b"b"]


def test_a_line_without_end_is_refused() -> None:
    reader = EventReader()
    with pytest.raises(LineTooLong):
        for _ in range(MAX_LINE_BYTES // (1 << 20) + 1):
            reader.feed(b"x" * (1 << 20))


def test_an_event_without_end_is_refused() -> None:
    reader = EventReader()
    with pytest.raises(LineTooLong):
        for _ in range(MAX_LINE_BYTES // (1 << 20) + 1):
            assert reader.feed(b"data: " + b"x" * (1 << 20) + b"\n") == []
    reader = EventReader()
    for _ in range(MAX_LINE_BYTES // (1 << 20) + 1):  # and those that end are no one event
        assert len(reader.feed(b"data: " + b"x" * (1 << 20) + b"\n\n")) == 1


TEXTS = ("Grüße ", "aus\r\nZürich ", "🏔️", "\u2028", " fine")
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(END, st.lists(st.integers(0, 5000), max_size=40), st.booleans())
def test_any_way_of_cutting_the_bytes_gives_the_same_deltas(end: bytes, cuts: list[int], done: bool) -> None:
    payloads = [chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "hm 🤔"})]
    payloads += [chunk({"content": text}) for text in TEXTS]
    payloads += [
        chunk(call(0, '{"city": "Zü', "c1", "look")),
        chunk(call(0, 'rich"}')),
        chunk({}, "tool_calls"),
    ]
    payloads += [b"[DONE]"] * done
    wire = b"".join(b": keepalive" + end * 2 + b"data: " + payload + end * 2 for payload in payloads)
    assert read(*events(wire, cuts)) == read(*payloads)


def test_parts_are_numbered_as_they_first_appear() -> None:
    deltas, reply = read(
        chunk({"content": "a"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "b"}),
        chunk({}, "stop"),
    )
    assert reply.parts == (Text("ab"), Reasoning("hm"))
    assert [delta.part for delta in deltas] == [0, 1, 0]


def test_interleaved_calls_are_told_apart_by_index() -> None:
    _, reply = read(
        chunk(call(1, '{"b"', "c2", "two")),
        chunk(call(0, '{"a"', "c1", "one")),
        chunk(call(1, ":2}")),
        chunk(call(0, ":1}")),
        chunk({}, "tool_calls"),
    )
    assert reply.parts == (ToolCall("c2", "two", '{"b":2}'), ToolCall("c1", "one", '{"a":1}'))


def test_calls_without_index_or_with_index_0_alone_are_told_apart_by_id() -> None:
    for index in (None, 0):
        _, reply = read(
            chunk(call(index, '{"a":', "c1", "one")),
            chunk(call(index, "1}")),
            chunk(call(index, "{}", "c2", "two")),
            chunk({}, "stop"),
        )
        assert reply.parts == (ToolCall("c1", "one", '{"a":1}'), ToolCall("c2", "two", "{}"))
        assert reply.finish == "tool_calls"


def test_a_call_without_id_gets_one_and_a_late_name_is_taken() -> None:
    _, reply = read(chunk(call(0, "")), chunk(call(0, "{}", None, "look")), chunk({}, "tool_calls"))
    assert reply.parts == (ToolCall("call_0", "look", "{}"),)


def test_usage_comes_on_any_chunk() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    for payloads in (
        (chunk({"content": "a"}, "stop"), json.dumps({"choices": [], "usage": usage}).encode()),
        (chunk({"content": "a"}, usage=usage), chunk({}, "stop", usage=None)),
    ):
        assert read(*payloads)[1].usage == Usage(input_tokens=3, output_tokens=4)
    assert read(chunk({"content": "a"}, "stop"))[1].usage.estimated


def test_an_end_without_a_finish_is_never_a_short_success() -> None:
    for last in ((), (b"[DONE]",)):
        with pytest.raises(BadReply) as caught:
            read(chunk({"content": "half"}), *last)
        assert caught.value.in_stream and caught.value.partial == "half" and "half" not in repr(caught.value)
        assert caught.value.retryable


@pytest.mark.parametrize("payload", [b'{"id', b"[]", b"3", b'{"choices": 3}', b'{"choices": [3]}', b"\xff"])
def test_a_malformed_chunk_is_a_bad_reply(payload: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        read(chunk({"content": "half"}), payload)
    assert caught.value.in_stream and caught.value.partial == "half" and caught.value.retryable


@pytest.mark.parametrize("calls", [3, [3], [{"index": "a"}], [{"index": 0, "function": 1}]])
def test_a_malformed_call_is_a_bad_reply(calls: Any) -> None:
    with pytest.raises(BadReply):
        read(chunk({"tool_calls": calls}), chunk({}, "stop"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "rate_limit_error", "message": "secret"}, RateLimited),
        ({"code": 429, "message": "secret"}, RateLimited),
        ({"code": "context_length_exceeded"}, ContextTooLong),
        ({"type": "overloaded_error"}, Overloaded),
        ({"message": "secret"}, ServiceError),
        ("secret", ServiceError),
    ],
)
def test_an_error_in_mid_stream_is_the_right_one(error: Any, kind: type[ServiceError]) -> None:
    with pytest.raises(kind) as caught:
        read(chunk({"content": "half"}), json.dumps({"error": error}).encode())
    assert caught.value.in_stream and caught.value.partial == "half" and "secret" not in str(caught.value)
    assert caught.value.retryable is (kind is not ContextTooLong)


def test_other_choices_are_passed_over() -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}}]}).encode()
    assert read(other, chunk({"content": "yes"}, "stop"))[1].text == "yes"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "index", "usage", "error", "finish_reason"]),
    inner), max_leaves=20))  # fmt: skip
def test_no_payload_raises_anything_but_a_service_error(payload: Any) -> None:
    state = ChatStream(ASKED, Heard("m"))
    try:
        state.feed(json.dumps(payload).encode())
        state.response()
    except ServiceError as error:
        assert error.in_stream
