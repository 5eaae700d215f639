"""Whole replies of the Messages API, built of the `anthropic` package's own types, as responses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic_case import ASKED, call, decoded, message, redacted, text, thinking
from gateway_remote.failures import failure
from gateway_remote.formats.anthropic_reply import FINISHES, message_response
from gateway_remote.formats.api import Heard
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    AttemptTimeout,
    BadReply,
    Chat,
    Citation,
    ContentFiltered,
    ContextTooLong,
    Denied,
    File,
    Message,
    ModelMissing,
    OutOfQuota,
    Overloaded,
    Quota,
    RateLimited,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)

PAGE = {
    "type": "page_location", "cited_text": "Grass is green.", "document_index": 1, "document_title": "B",
    "start_page_number": 1, "end_page_number": 2,
}  # fmt: skip
CHARACTERS = {
    "type": "char_location", "cited_text": "Sky.", "document_index": 0, "document_title": None, "start_char_index": 0,
    "end_char_index": 4,
}  # fmt: skip
BLOCKS = {
    "type": "content_block_location", "cited_text": "Sea.", "document_index": 7, "document_title": "C", "start_block_index": 0,
    "end_block_index": 1,
}  # fmt: skip
WEB = {
    "type": "web_search_result_location", "cited_text": "Sun.", "encrypted_index": "x", "title": "D", "url": "https://d.example",
}  # fmt: skip
FOUND = {
    "type": "search_result_location", "cited_text": "Moon.", "search_result_index": 0, "source": "https://e.example",
    "title": None, "start_block_index": 0, "end_block_index": 1,
}  # fmt: skip
SEARCHED = {
    "type": "web_search_tool_result", "tool_use_id": "srv_1",
    "content": [{"type": "web_search_result", "encrypted_content": "x", "title": "D", "url": "u", "page_age": None}],
}  # fmt: skip


def test_text_thoughts_and_calls_become_parts_in_order() -> None:
    reply = decoded(
        message(
            thinking("hm", "c2ln"), redacted("b3BhcXVl"), text("Let me see."), call("t1", "look", {"at": 1}),
            thinking("", "bGF0ZXI="), call("t2", "look", {}), stop_reason="tool_use",
        )
    )  # fmt: skip
    assert reply.parts == (
        Reasoning("hm", "anthropic:c2ln"),
        Reasoning("", "anthropic:redacted:b3BhcXVl"),
        Text("Let me see."),
        ToolCall("t1", "look", '{"at":1}'),
        Reasoning("", "anthropic:bGF0ZXI="),
        ToolCall("t2", "look", "{}"),
    )
    assert (reply.finish, reply.id, reply.served_by) == ("tool_calls", "msg_1", "real-name")
    assert reply.usage == Usage(input_tokens=3, output_tokens=4) and reply.logprobs == ()


def test_usage_counts_what_the_cache_took_part_in() -> None:
    usage = {
        "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 15},
    }  # fmt: skip
    expected = Usage(input_tokens=17, cached_tokens=4, cache_write_tokens=3, output_tokens=20, reasoning_tokens=15)
    assert decoded(message(text("a"), usage=usage)).usage == expected


def test_usage_that_is_not_stated_is_estimated_and_says_so() -> None:
    for usage in (None, 3, {}, {"input_tokens": None}, {"input_tokens": "3"}):
        reply = decoded({**message(text("a" * 10)), "usage": usage})
        assert reply.usage == Usage(input_tokens=2, output_tokens=3, estimated=True)


def test_citations_follow_their_text_and_say_where_it_is() -> None:
    documents = [File(data=b"Sky. Sea.", media_type="text/plain"), File(url="https://b.example/b.pdf")]
    request = Chat(messages=(Message.user(documents[0]), Message.user("And:", documents[1])))
    reply = decoded(
        message(text("As said: "), text("grass is green", PAGE, CHARACTERS), text(" and "), text("wet", BLOCKS, WEB, FOUND)),
        request,
    )
    assert reply.text == "As said: grass is green and wet"
    assert reply.parts[:2] == (Text("As said: "), Text("grass is green"))
    assert [part for part in reply.parts if isinstance(part, Citation)] == [
        Citation("https://b.example/b.pdf", "B", "Grass is green.", 9, 23),
        Citation("", "", "Sky.", 9, 23),
        Citation("", "C", "Sea.", 28, 31),
        Citation("https://d.example", "D", "Sun.", 28, 31),
        Citation("https://e.example", "", "Moon.", 28, 31),
    ]
    assert reply.text[9:23] == "grass is green" and reply.text[28:31] == "wet"
    assert isinstance(reply.parts[2], Citation) and reply.parts[4] == Text(" and ")


def test_steps_of_the_provider_s_own_tools_are_passed_over() -> None:
    searches = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
    reply = decoded(message(text("a"), searches, SEARCHED, text("b", WEB)))
    assert reply.parts == (Text("a"), Text("b"), Citation("https://d.example", "D", "Sun.", 1, 2)) and reply.finish == "stop"
    assert decoded({**message(text("a")), "content": [{"type": "of tomorrow"}, {"type": "text", "text": "a"}]}).text == "a"


def test_every_stop_reason_that_the_package_knows_has_its_finish() -> None:
    from typing import get_args

    from anthropic.types import StopReason

    assert set(get_args(StopReason)) == set(FINISHES)


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "filter"),
        ("pause_turn", "length"),
    ],
)
def test_the_finish_is_one_of_ours(wire: Any, finish: str) -> None:
    assert decoded({**message(text("a")), "stop_reason": wire}).finish == finish


@pytest.mark.parametrize("wire", [None, 5])
def test_a_reply_that_does_not_say_how_it_ends_is_refused(wire: Any) -> None:
    with pytest.raises(BadReply):
        decoded({**message(text("a")), "stop_reason": wire})


def test_a_reply_that_lacks_the_call_it_ends_for_is_refused_unless_it_says_something() -> None:
    assert decoded({**message(text("a")), "stop_reason": "tool_use"}).finish == "stop"
    with pytest.raises(BadReply):
        decoded({**message(), "stop_reason": "tool_use"})


@pytest.mark.parametrize(
    "block",
    [3, "hi", {"text": "hi"}, {"type": "text", "text": 5}, {"type": "thinking", "thinking": ["x"], "signature": "s"}],
)
def test_a_block_that_cannot_be_read_is_no_empty_answer(block: Any) -> None:
    with pytest.raises(BadReply) as caught:
        decoded({**message(text("a")), "content": [block]})
    assert caught.value.retryable


def test_a_reply_with_calls_ends_to_call_tools_whatever_it_says() -> None:
    assert decoded(message(call("t1", "look", {}))).finish == "tool_calls"
    assert decoded(message(call("t1", "look", {}), stop_reason="max_tokens")).finish == "length"


def test_a_refusal_before_anything_was_said_is_content_filtered() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "secret"}
    with pytest.raises(ContentFiltered) as caught:
        decoded(message(stop_reason="refusal", stop_details=details))
    assert caught.value.model == "m" and "secret" not in str(caught.value) and not caught.value.fallbackable
    assert decoded(message(text("Half"), stop_reason="refusal", stop_details=details)).finish == "filter"


def test_an_answer_of_nothing_is_an_answer() -> None:
    reply = decoded(message())
    assert reply.parts == () and reply.finish == "stop"


def test_an_unknown_stop_reason_is_a_bad_reply_that_names_it() -> None:
    with pytest.raises(BadReply, match="moonrise") as caught:
        decoded({**message(text("a")), "stop_reason": "moonrise"})
    assert caught.value.retryable is False


def test_what_stands_beside_the_reply_is_kept() -> None:
    quota = Quota(requests=3)
    heard = Heard("m", {"request-id": "req_1"}, quota)
    wire = {**message(text("a")), "id": None}
    reply = message_response(json.dumps(wire).encode(), ASKED, heard)
    assert reply.id == "req_1" and reply.quota is quota


def test_a_call_s_arguments_that_are_text_stay_as_they_are() -> None:
    wire = {**message(), "content": [{"type": "tool_use", "name": "look", "input": '{"a": '}]}
    assert decoded(wire).parts == (ToolCall("call_0", "look", '{"a": '),)
    for missing in ({}, {"input": None}):
        wire = {**message(), "content": [{"type": "tool_use", "id": "t", "name": "look", **missing}]}
        assert decoded(wire).parts == (ToolCall("t", "look", "{}"),)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b"<html>", b"[]", b"null", b"{}", b'{"content": null}', b'{"content": "secret"}', b'{"content": [{"mess',
        b'{"content": [{"type": "tool_use", "id": "secret"}]}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_bad_reply_that_may_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        message_response(body, ASKED, Heard("m"))
    assert "secret" not in str(caught.value) and caught.value.retryable


NAMES = st.sampled_from(
    [
        "type", "content", "text", "thinking", "signature", "data", "id", "name", "input", "citations", "cited_text", "url",
        "document_index", "stop_reason", "usage", "input_tokens", "error", "model",
    ]
)  # fmt: skip
KINDS = st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "error", "message", "end_turn", "refusal"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
BLOCK = st.dictionaries(NAMES, JSON, max_size=6).flatmap(lambda block: KINDS.map(lambda kind: {**block, "type": kind}))


@given(JSON | st.fixed_dictionaries({"content": st.lists(BLOCK, max_size=4)}, optional={"stop_reason": JSON, "usage": JSON}))
def test_no_reply_raises_anything_but_a_service_error(wire: Any) -> None:
    try:
        decoded(wire)
    except ServiceError as error:
        assert not error.in_stream


def error(kind: str, code: str = "") -> dict[str, Any]:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": "secret: prompt is too long", **details}, "request_id": "req_1"}


ERRORS: list[tuple[int, str, str, type[ServiceError]]] = [
    (400, "invalid_request_error", "", Rejected),
    (401, "authentication_error", "", Denied),
    (402, "billing_error", "", OutOfQuota),
    (403, "permission_error", "", Denied),
    (404, "not_found_error", "", ModelMissing),
    (413, "request_too_large", "", ContextTooLong),
    (429, "rate_limit_error", "", RateLimited),
    (429, "rate_limit_error", "ramp_limit_exceeded", RateLimited),
    (429, "rate_limit_error", "enforced_spend_limit_reached", OutOfQuota),
    (429, "rate_limit_error", "contract_spend_limit_reached", OutOfQuota),
    (500, "api_error", "", ServiceError),
    (529, "overloaded_error", "", Overloaded),
]


@pytest.mark.parametrize(("status", "kind", "code", "expected"), ERRORS)
def test_an_error_is_told_by_its_status_and_codes(status: int, kind: str, code: str, expected: type[ServiceError]) -> None:
    wire = error(kind, code)
    of_status = failure(status, {}, json.dumps(wire).encode(), model="m")
    with pytest.raises(ServiceError) as caught:
        decoded(wire)  # in the place of a reply of status 200
    for got in (of_status, caught.value):
        assert type(got) is expected and "secret" not in str(got) and (code or kind) in str(got)
    assert of_status.status == status and caught.value.status is None
    assert caught.value.retryable is of_status.retryable


def test_a_timeout_is_told_by_either() -> None:
    late = failure(504, {}, json.dumps(error("timeout_error")).encode(), model="m")
    assert type(late) is ServiceError and late.retryable
    with pytest.raises(AttemptTimeout):
        decoded(error("timeout_error"))


def test_every_type_of_error_that_the_package_knows_is_classified() -> None:
    from typing import get_args

    from anthropic.types.shared.error_type import ErrorType

    of_files = {"memory_precondition_failed_error", "memory_path_conflict_error"}  # of another endpoint
    for kind in set(get_args(ErrorType)) - of_files:
        with pytest.raises(ServiceError) as caught:
            decoded(error(kind))
        assert type(caught.value) is not ServiceError or kind in ("api_error", "conflict_error")
        assert (type(caught.value) is Rejected) is (kind == "invalid_request_error")
