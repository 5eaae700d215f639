"""Streams of Gemini: bytes cut anywhere give the same deltas, and no bytes give anything but a reply or a ServiceError."""

import contextlib
import itertools
import json
from typing import Any

import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.gemini import offers
from gateway_remote.formats.gemini_reply import chat_response, embed_response
from gateway_remote.formats.gemini_stream import ChatStream
from gateway_remote.sse import MAX_LINE_BYTES, EventReader, LineTooLong
from gemini_case import decoded, read
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    ContentFiltered,
    Delta,
    Denied,
    Embed,
    Overloaded,
    RateLimited,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    Usage,
    assemble,
)

ASKED = Chat.ask("12345678", logprobs=1)
WORDS = st.text(st.sampled_from('aü😀 \n"\\'), max_size=4)
MARKS = st.sampled_from(["", "", "", "QQ==", "_-A="])


def chunk(*parts: Any, finish: str | None = None, **facts: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "real", **facts}


@st.composite
def wire_parts(draw: st.DrawFn) -> dict[str, Any]:
    mark = draw(MARKS)
    part: dict[str, Any] = {"thoughtSignature": mark} if mark else {}
    match draw(st.sampled_from(["text", "text", "thought", "call", "blob", "code"])):
        case "text":
            return {**part, "text": draw(WORDS)}
        case "thought":
            return {**part, "text": draw(WORDS), "thought": True}
        case "call":
            args = draw(st.dictionaries(WORDS, st.one_of(st.integers(-(2**63), 2**63), WORDS, st.none()), max_size=2))
            return {**part, "functionCall": {"name": "look", "args": args}}
        case "blob":
            return {**part, "inlineData": {"mimeType": "image/png", "data": "AQ=="}}
    return {**part, "executableCode": {"code": "1", "language": "PYTHON"}}


@given(st.lists(wire_parts(), max_size=8), st.lists(st.integers(1, 4), max_size=12), st.data())
def test_cut_anywhere_the_deltas_are_those_of_the_whole_reply(parts: list[Any], sizes: list[int], data: st.DataObject) -> None:
    whole = decoded(chunk(*parts, finish="STOP"), ASKED)
    pieces = []
    for part in parts:  # a text comes in pieces, the last of which is signed
        rest, size = part, data.draw(st.integers(1, 3))
        while len(rest.get("text", "")) > size:
            pieces.append(
                {name: value[:size] if name == "text" else value for name, value in rest.items() if name != "thoughtSignature"}
            )
            rest = {**rest, "text": rest["text"][size:]}
        pieces.append(rest)
    sent, at = [], 0
    for size in [*sizes, *[1] * len(pieces)]:
        if at < len(pieces):
            sent.append(chunk(*pieces[at : at + size]))
        at += size
    sent.append(chunk({"text": ""}, finish="STOP"))
    wire = b"".join(b"data: %b\r\n\r\n" % json.dumps(each, ensure_ascii=False).encode() for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    reader, state, deltas = EventReader(), ChatStream(ASKED, Heard("m")), list[Delta]()
    for a, b in itertools.pairwise([0, *cuts, len(wire)]):
        for event in reader.feed(wire[a:b]):
            deltas += state.feed(event)
    deltas += state.flush(reader.flush())
    assert state.finished and state.response() == whole
    assert assemble(deltas) == whole.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(whole.parts)))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "inlineData",
        "fileData", "fileUri", "mimeType", "data", "finishReason", "index", "groundingMetadata", "groundingChunks",
        "groundingSupports", "groundingChunkIndices", "segment", "startIndex", "endIndex", "partIndex", "web", "uri", "title",
        "citationMetadata", "citationSources", "usageMetadata", "promptTokenCount", "promptFeedback", "blockReason",
        "logprobsResult", "chosenCandidates", "topCandidates", "token", "logProbability", "error", "embeddings", "values",
        "code", "status", "details", "reason", "@type", "models",
    ]
)  # fmt: skip
LEAVES = st.one_of(
    st.sampled_from(["STOP", "SAFETY", "image/png", "x", "AQ==", "google.rpc.ErrorInfo"]), st.integers(-2, 9), JSON
)
SHAPED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=40,
)


@st.composite
def odd_replies(draw: st.DrawFn) -> dict[str, Any]:
    """A reply that is right down to where it is odd."""
    candidate = {"finishReason": "STOP", **draw(st.dictionaries(NAMES, SHAPED, max_size=3))}
    parts = [{**draw(wire_parts()), **draw(st.dictionaries(NAMES, SHAPED, max_size=2))} for _ in range(draw(st.integers(0, 3)))]
    candidate["content"] = draw(st.one_of(st.just({"parts": parts}), SHAPED))
    for field, names in (
        ("groundingMetadata", ("groundingChunks", "groundingSupports")),
        ("logprobsResult", ("chosenCandidates", "topCandidates")),
        ("citationMetadata", ("citationSources",)),
    ):
        candidate[field] = {name: draw(st.lists(st.dictionaries(NAMES, SHAPED, max_size=4), max_size=2)) for name in names}
    return {"candidates": [candidate], **draw(st.dictionaries(st.sampled_from(["usageMetadata", "responseId"]), SHAPED))}


@given(st.one_of(JSON, SHAPED, odd_replies(), st.lists(odd_replies(), max_size=2)))
def test_no_json_is_anything_but_a_reply_or_a_service_error(payload: Any) -> None:
    body = json.dumps(payload).encode()
    for ask in (lambda: chat_response(body, ASKED, Heard("m")), lambda: embed_response(body, Embed(texts=("a",)), Heard("m"))):
        with contextlib.suppress(ServiceError):
            ask()
    state = ChatStream(ASKED, Heard("m"))
    try:
        state.feed(body)
        assert isinstance(state.response(), ChatResponse)
    except ServiceError as error:
        assert error.in_stream
    offers(payload)


@given(odd_replies())
def test_what_is_read_whole_is_read_in_a_stream(payload: dict[str, Any]) -> None:
    try:
        whole: Any = decoded(payload, ASKED)
    except ServiceError as error:
        whole = type(error)
    if payload.get("error"):
        return
    try:
        streamed: Any = read(payload, request=ASKED)
    except ServiceError as error:
        streamed = type(error)
    assert streamed == whole or whole.finish == "stop"  # without a reason a stream has not ended


def test_deltas_come_as_the_chunks_do() -> None:
    state = ChatStream(Chat.ask("Hi"), Heard("m", {"x-request-id": "q"}))
    assert state.feed(json.dumps(chunk({"text": "Hm", "thought": True})).encode()) == [Delta("Hm", 0, "reasoning")]
    assert state.feed(json.dumps(chunk({"text": "Hel"})).encode()) == [Delta("Hel", 1)]
    assert state.feed(json.dumps(chunk({"text": "lo"}, {"text": "", "thoughtSignature": "QQ=="})).encode()) == [
        Delta("lo", 1),
        Delta("", 2, "reasoning", signature="gemini:<QQ=="),
    ]
    assert not state.finished and state.partial == "Hello"
    call = {"functionCall": {"name": "look", "args": {"a": 1}}, "thoughtSignature": "Qg=="}
    assert state.feed(json.dumps(chunk(call, finish="STOP")).encode()) == [
        Delta("", 3, "reasoning", signature="gemini:>Qg=="),
        Delta('{"a":1}', 4, "tool_call", "call_0", "look"),
    ]
    assert state.finished and not state.done
    assert state.feed(b'{"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}') == []
    response = state.response()
    assert response.usage == Usage(input_tokens=3, output_tokens=4) and response.finish == "tool_calls"
    assert response.parts == (
        Reasoning("Hm"),
        Text("Hello"),
        Reasoning("", "gemini:<QQ=="),
        Reasoning("", "gemini:>Qg=="),
        ToolCall("call_0", "look", '{"a":1}'),
    )
    assert (response.id, response.served_by) == ("r1", "real")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 503, "status": "UNAVAILABLE"}, Overloaded),
        ({"status": "UNAVAILABLE"}, Overloaded),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, RateLimited),
        ({"code": 400, "status": "INVALID_ARGUMENT", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}, Denied),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_an_error_in_mid_stream_is_that_error_however_it_is_framed(error: Any, kind: Any, listed: bool, bare: bool) -> None:
    payload: Any = {"error": {"message": "secret", **error}}
    state, reader = ChatStream(Chat.ask("Hi"), Heard("m")), EventReader()
    written = json.dumps([payload] if listed else payload, indent=2).encode()
    events = reader.feed(b"data: %b\n\n" % json.dumps(chunk({"text": "Hel"})).encode())
    lines = written if bare else b"\n".join(b"data: %b" % line for line in written.splitlines())
    events += reader.feed(lines + b"\n\n")
    with pytest.raises(ServiceError) as caught:
        for event in events:
            state.feed(event)
        state.flush(reader.flush())
    assert type(caught.value) is kind and caught.value.in_stream and caught.value.partial == "Hel"
    assert "secret" not in str(caught.value)


def test_a_whole_reply_is_not_spoilt_by_what_comes_after_it() -> None:
    state = ChatStream(Chat.ask("Hi"), Heard("m"))
    state.feed(json.dumps(chunk({"text": "Hello"}, finish="STOP")).encode())
    assert state.flush([b'{"error": {"code": 500}}', b"{"]) == []
    assert state.response().text == "Hello"


def test_a_prompt_refused_in_a_stream_is_filtered_at_once() -> None:
    state = ChatStream(Chat.ask("Hi"), Heard("m"))
    with pytest.raises(ContentFiltered) as caught:
        state.feed(b'{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}')
    assert caught.value.in_stream and not caught.value.fallbackable


@pytest.mark.parametrize("payload", [b"{", b"[", b"[1", b"[]", b"5", b"[{},{}]", b'"x"', b"[[]]"])
def test_a_chunk_that_is_none_is_a_bad_reply(payload: bytes) -> None:
    state = ChatStream(Chat.ask("Hi"), Heard("m"))
    with pytest.raises(BadReply) as caught:
        state.feed(payload)
    assert caught.value.in_stream and caught.value.retryable


def test_bare_json_is_told_at_the_end_and_has_its_limit() -> None:
    reader = EventReader()
    assert reader.feed(b'data: a\n\n{\n  "error": 1\n') == [b"a"]
    assert reader.feed(b"}\ndata: b\n\n") == [b"b"] and reader.flush() == [b'{\n  "error": 1\n}']
    assert reader.flush() == []
    line = b"[" + b" " * (MAX_LINE_BYTES // 2) + b"\n"
    reader.feed(line)
    with pytest.raises(LineTooLong):
        reader.feed(line)
