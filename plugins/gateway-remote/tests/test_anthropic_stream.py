"""Streams of the Messages API: events cut anywhere, blocks in any order, and the same reply as when it comes whole."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from anthropic_case import ASKED, EVENT, call, decoded, events_of, message, payload, read, redacted, text, thinking
from gateway_remote.formats.anthropic_stream import MessageStream
from gateway_remote.formats.api import Heard
from gateway_remote.sse import EventReader
from hypothesis import given
from hypothesis import strategies as st
from test_anthropic_reply import CHARACTERS, ERRORS, JSON, PAGE, SEARCHED, WEB, error

from gateway import (
    BadReply,
    ChatResponse,
    Citation,
    ContentFiltered,
    Delta,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)

TOLD = message(
    thinking("hm 🤔", "c2ln"), redacted("b3BhcXVl"), text("Grüße aus\r\n "), text("Zürich 🏔️", PAGE, CHARACTERS), text(" fine"),
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}, SEARCHED, text("sun", WEB),
    call("t1", "look", {"city": "Zürich"}), call("t2", "look", {}), stop_reason="tool_use",
    usage={
        "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 15},
    },
)  # fmt: skip


def start(at: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": at, "content_block": block}


def more(at: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": at, "delta": {"type": kind, **delta}}


def stop(at: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": at}


def ended(stop_reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 4, **usage}}


EMPTY = {"type": "text", "text": ""}
BEGUN = {"type": "message_start", "message": {**message(), "stop_reason": None}}
STOP = {"type": "message_stop"}
END = (ended(), STOP)


def told(*events: dict[str, Any]) -> tuple[list[Delta], ChatResponse]:
    """What is read of events that the package holds to be events."""
    for each in events:
        EVENT.validate_python(each)
    return read(*map(payload, events))


def test_a_streamed_reply_is_the_whole_one() -> None:
    _, reply = read(*map(payload, events_of(TOLD)))
    assert reply == decoded(TOLD) and len(reply.parts) == 11 and reply.usage.reasoning_tokens == 15


def wire_of(events: list[dict[str, Any]], end: bytes) -> bytes:
    return b"".join(b"event: %b%bdata: %b%b%b" % (each["type"].encode(), end, payload(each), end, end) for each in events)


def cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    reader, out, edges = EventReader(), [], sorted({0, *(c % (len(wire) + 1) for c in cuts), len(wire)})
    for a, b in itertools.pairwise(edges):
        out += reader.feed(wire[a:b])
    return out + reader.flush()


@given(st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 5000), max_size=40))
def test_any_way_of_cutting_the_bytes_gives_the_same_deltas(end: bytes, cuts: list[int]) -> None:
    events = events_of(TOLD)
    assert read(*cut(wire_of(events, end), cuts)) == read(*map(payload, events))


def test_interleaved_blocks_keep_their_parts_apart() -> None:
    _, reply = told(
        BEGUN, start(0, {"type": "tool_use", "id": "a", "name": "one", "input": {}}),
        start(1, {"type": "tool_use", "id": "b", "name": "two", "input": {}}), start(2, EMPTY), start(3, thinking("", "")),
        more(1, "input_json_delta", partial_json='{"b"'), more(0, "input_json_delta", partial_json='{"a"'),
        more(3, "thinking_delta", thinking="h"), more(2, "text_delta", text="wo"), more(3, "thinking_delta", thinking="m"),
        more(1, "input_json_delta", partial_json=":2}"), more(2, "text_delta", text="rds"), stop(1),
        more(3, "signature_delta", signature="c2ln"), more(0, "input_json_delta", partial_json=":1}"), stop(3), stop(2),
        stop(0), ended("tool_use"), STOP,
    )  # fmt: skip
    assert reply.parts == (
        ToolCall("a", "one", '{"a":1}'), ToolCall("b", "two", '{"b":2}'), Reasoning("hm", "anthropic:c2ln"), Text("words"),
    )  # fmt: skip


def test_a_citation_of_interleaved_texts_says_where_only_when_it_is_known() -> None:
    _, reply = told(
        BEGUN, start(0, EMPTY), start(1, EMPTY), more(0, "text_delta", text="ab"), more(1, "text_delta", text="cd"),
        more(1, "citations_delta", citation=WEB), stop(1), more(0, "text_delta", text="ef"),
        more(0, "citations_delta", citation=WEB), stop(0), *END,
    )  # fmt: skip
    assert reply.text == "abefcd"
    # When the second text had ended, the first had not: its length was not known yet.
    assert [(part.start, part.end) for part in reply.parts if isinstance(part, Citation)] == [(None, None), (0, 4)]


def test_a_call_s_input_may_come_with_its_beginning_or_not_at_all() -> None:
    _, reply = told(BEGUN, start(0, call("a", "one", {"x": 1})), stop(0), start(1, call("b", "two", {})), stop(1), *END)
    assert reply.parts == (ToolCall("a", "one", '{"x":1}'), ToolCall("b", "two", "{}")) and reply.finish == "tool_calls"


def test_a_block_may_begin_with_words_and_never_be_ended() -> None:
    _, reply = told(BEGUN, start(0, thinking("h", "c2ln")), start(1, text("a", WEB)), more(1, "text_delta", text="b"), *END)
    assert reply.parts == (Reasoning("h", "anthropic:c2ln"), Text("ab"), Citation("https://d.example", "D", "Sun.", 0, 2))


def test_an_empty_text_leaves_no_gap() -> None:
    _, reply = told(BEGUN, start(0, EMPTY), stop(0), start(1, EMPTY), more(1, "text_delta", text="a"), stop(1), *END)
    assert reply.parts == (Text("a"),)


def test_what_is_not_known_is_passed_over() -> None:
    strange = [
        {"type": "ping"},
        {"type": "of_tomorrow"},
        {},
        more(0, "delta_of_tomorrow", text="no"),
        more(0, "thinking_delta", thinking="no"),
    ]
    _, reply = read(*map(payload, [BEGUN, start(0, EMPTY), *strange, more(0, "text_delta", text="a"), stop(7), stop(0), *END]))
    assert reply.parts == (Text("a"),)


def test_counts_are_totals_and_one_that_is_missing_stays() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 1}
    begun = {"type": "message_start", "message": {**message(), "usage": usage}}
    _, reply = told(begun, ended(output_tokens=9, output_tokens_details={"thinking_tokens": 5}), STOP)
    assert reply.usage == Usage(input_tokens=14, cached_tokens=4, output_tokens=9, reasoning_tokens=5)
    _, reply = told(begun, ended(output_tokens=9, input_tokens=12, cache_read_input_tokens=0), STOP)
    assert reply.usage == Usage(input_tokens=12, output_tokens=9)
    assert read(*map(payload, (ended(), STOP)))[1].usage.estimated


def test_the_reply_is_whole_when_it_says_why_it_ended() -> None:
    state = MessageStream(ASKED, Heard("m", {"request-id": "req_1"}))
    for each in (start(0, EMPTY), more(0, "text_delta", text="a"), stop(0)):
        state.feed(payload(each))
    assert not state.finished and not state.done
    state.feed(payload(ended()))
    assert state.finished and not state.done and state.response().text == "a" and state.response().id == "req_1"
    state.feed(payload(STOP))
    assert state.done and state.feed(b"what comes after is not read") == []


@pytest.mark.parametrize("last", [(), (STOP,), ({**ended(), "delta": {"stop_reason": None}}, STOP)])
def test_an_end_without_a_stop_reason_is_never_a_short_success(last: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(BadReply) as caught:
        read(*map(payload, (BEGUN, start(0, EMPTY), more(0, "text_delta", text="half"), stop(0), *last)))
    assert caught.value.in_stream and caught.value.partial == "half" and "half" not in repr(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "event",
    [
        b'{"type', b"[]", b"3", b"\xff", payload(more(1, "text_delta", text="x")), payload(start(0, EMPTY)),
        payload({**more(0, "text_delta"), "index": "0"}), payload({**stop(0), "index": None}),
        payload({**start(1, EMPTY), "index": -1}), payload(start(1, {"type": "tool_use", "id": "secret"})),
    ],
)  # fmt: skip
def test_a_malformed_event_is_a_bad_reply(event: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        read(payload(BEGUN), payload(start(0, EMPTY)), payload(more(0, "text_delta", text="half")), event)
    assert caught.value.in_stream and caught.value.partial == "half" and caught.value.retryable
    assert "secret" not in str(caught.value)


def test_a_refusal_in_mid_stream_is_a_filter_s_and_one_before_it_is_raised() -> None:
    _, reply = told(BEGUN, start(0, EMPTY), more(0, "text_delta", text="Half"), stop(0), ended("refusal"), STOP)
    assert reply.finish == "filter" and reply.text == "Half"
    with pytest.raises(ContentFiltered) as caught:
        told(BEGUN, start(0, EMPTY), stop(0), ended("refusal"), STOP)
    assert caught.value.in_stream and caught.value.partial == ""


@pytest.mark.parametrize(("status", "kind", "code", "expected"), ERRORS)
def test_an_error_in_mid_stream_is_the_right_one(status: int, kind: str, code: str, expected: type[ServiceError]) -> None:
    del status
    with pytest.raises(ServiceError) as caught:
        read(*map(payload, (BEGUN, start(0, EMPTY), more(0, "text_delta", text="half"), error(kind, code))))
    assert type(caught.value) is expected and caught.value.in_stream and caught.value.partial == "half"
    assert "secret" not in str(caught.value)


KINDS = st.sampled_from(
    [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
        "ping", "error", "of_tomorrow",
    ]
)  # fmt: skip
PIECES = st.sampled_from(["text_delta", "input_json_delta", "thinking_delta", "signature_delta", "citations_delta"])
FIELDS = st.sampled_from(
    ["text", "thinking", "signature", "partial_json", "citation", "citations", "stop_reason", "name", "input"]
)
STRANGE = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "index": st.integers(-1, 2) | JSON,
        "delta": st.dictionaries(FIELDS | st.just("type"), PIECES | JSON, max_size=4) | JSON,
        "content_block": st.dictionaries(FIELDS, JSON, max_size=4).flatmap(
            lambda block: st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking", "x"]).map(
                lambda kind: {**block, "type": kind}
            )
        ),
        "message": JSON, "usage": JSON,
    },
)  # fmt: skip


@given(st.lists(STRANGE | JSON, max_size=8), st.booleans())
def test_no_event_raises_anything_but_a_service_error(events: list[Any], end: bool) -> None:
    state = MessageStream(ASKED, Heard("m"))
    deltas: list[Delta] = []
    try:
        for event in [*events, *(END if end else ())]:
            deltas += state.feed(json.dumps(event).encode())
        parts = state.response().parts
        assert sorted({delta.part for delta in deltas}) == list(range(len(parts)))
    except ServiceError as failed:
        assert failed.in_stream


SAFE = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
ARGUMENTS = st.dictionaries(SAFE, st.none() | st.booleans() | st.integers(-9, 9) | SAFE, max_size=3)
CITATIONS = st.lists(st.sampled_from([PAGE, CHARACTERS, WEB]), max_size=2)
BLOCKS = st.one_of(
    st.builds(thinking, SAFE, st.sampled_from(["", "c2ln"])),
    st.builds(redacted, SAFE),
    st.builds(lambda said, cites: text(said, *cites), SAFE, CITATIONS),
    st.builds(lambda given: call("t", "look", given), ARGUMENTS),
    st.just(SEARCHED),
)


@given(st.lists(BLOCKS, max_size=6), st.sampled_from(["end_turn", "max_tokens", "tool_use", "pause_turn"]))
def test_any_reply_is_the_same_whole_and_streamed(blocks: list[dict[str, Any]], why: str) -> None:
    whole = message(*blocks, stop_reason=why if any(each["type"] == "tool_use" for each in blocks) else "end_turn")
    assert read(*map(payload, events_of(whole)))[1] == decoded(whole)
