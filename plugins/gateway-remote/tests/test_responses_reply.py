"""Replies of the Responses API, made of the `openai` package's own models, as responses."""

import json
from typing import Any, get_args

import pytest
from gateway_remote.failures import payload_failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_responses import chat_body
from gateway_remote.formats.responses_reply import REASONING, chat_response
from hypothesis import given
from hypothesis import strategies as st
from openai.types import responses as wire
from responses_case import USAGE, call, events, logprob, message, refusal, reply, text, thought, url
from test_responses_request import ROW
from test_responses_stream import read

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    Citation,
    ContentFiltered,
    Denied,
    Logprob,
    Message,
    RateLimited,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)

ASKED = Chat.ask("12345678", logprobs=1)
HELLO = message(text("Hello."))
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "rivers"}}


def decoded(whole: Any, request: Chat = ASKED, **headers: str) -> ChatResponse:
    return chat_response(json.dumps(whole).encode(), request, Heard("m", {k.replace("_", "-"): v for k, v in headers.items()}))


def signed(item: Any) -> str:
    return "responses:" + json.dumps(item, separators=(",", ":"))


CASES: dict[str, tuple[list[Any], dict[str, Any], tuple[Any, ...], str]] = {
    "text": ([HELLO], {}, (Text("Hello."),), "stop"),
    "two texts of one message": ([message(text("One."), text("Two."))], {}, (Text("One."), Text("Two.")), "stop"),
    "nothing": ([], {}, (), "stop"),
    "an empty text": ([message(text(""))], {}, (), "stop"),
    "a thought, then text": (
        [thought("First.", "Then.", encrypted_content="e=="), HELLO],
        {},
        (Reasoning("First.\n\nThen.", signed(thought("First.", "Then.", encrypted_content="e=="))), Text("Hello.")),
        "stop",
    ),
    "a thought that is hidden": (
        [thought(encrypted_content="e==", status="completed"), HELLO],
        {},
        (Reasoning("", signed(thought(encrypted_content="e=="))), Text("Hello.")),
        "stop",
    ),
    "a thought in the clear, of a server of open weights": (
        [thought(content=("Raw ", "words."), encrypted_content=None), HELLO],
        {},
        (Reasoning("Raw \n\nwords.", signed(thought(content=("Raw ", "words.")))), Text("Hello.")),
        "stop",
    ),
    "a thought that could not be sent back": ([thought("Hm."), HELLO], {}, (Reasoning("Hm."), Text("Hello.")), "stop"),
    "calls side by side": (
        [thought(encrypted_content="e=="), call("look", '{"a":1}', "c1"), call("hear", "{}", "c2")],
        {},
        (
            Reasoning("", signed(thought(encrypted_content="e=="))),
            ToolCall("c1", "look", '{"a":1}'),
            ToolCall("c2", "hear", "{}"),
        ),
        "tool_calls",
    ),
    "a comment before a call": (
        [message(text("Let me see."), phase="commentary"), call("look", "{}")],
        {},
        (
            Text("Let me see."),
            Reasoning("", signed({"type": "message", "phase": "commentary"})),
            ToolCall("call_1", "look", "{}"),
        ),
        "tool_calls",
    ),
    "an empty message": ([message(phase="commentary"), HELLO], {}, (Text("Hello."),), "stop"),
    "a refusal": ([message(refusal("I will not."))], {}, (Text("I will not."),), "filter"),
    "what was searched is passed over": ([SEARCH, HELLO], {}, (Text("Hello."),), "stop"),
    "citations, counted from the start of the whole text": (
        [
            message(text("Rivers: "), id="msg_0"),
            message(
                text(
                    "the Aare (x).",
                    annotations=[
                        url(9, 12),
                        {"type": "file_citation", "file_id": "f", "filename": "a.pdf", "index": 8},
                        {"type": "file_path", "file_id": "f", "index": 0},
                        {
                            "type": "container_file_citation",
                            "container_id": "c",
                            "file_id": "f",
                            "filename": "b.csv",
                            "start_index": 0,
                            "end_index": 3,
                        },
                    ],
                ),
                text(" And the Rhine.", annotations=[url(9, 14, "https://y.example", "Y")]),
            ),
        ],
        {},
        (
            Text("Rivers: "),
            Text("the Aare (x)."),
            Citation("https://x.example", "X", "", 17, 20),
            Citation("", "a.pdf", "", None, 16),
            Citation("", "b.csv", "", 8, 11),
            Text(" And the Rhine."),
            Citation("https://y.example", "Y", "", 30, 35),
        ),
        "stop",
    ),
    "cut at the limit": (
        [message(text("Hel"), status="incomplete")],
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        (Text("Hel"),),
        "length",
    ),
    "cut by a filter": (
        [message(text("Hel"), status="incomplete")],
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
        (Text("Hel"),),
        "filter",
    ),
    "cut, and not said why": ([HELLO], {"status": "incomplete"}, (Text("Hello."),), "length"),
    "cut in a call": (
        [call("look", '{"a')],
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        (ToolCall("call_1", "look", '{"a'),),
        "length",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_package_s_models_say_is_read_whole_and_streamed(case: str) -> None:
    items, facts, parts, finish = CASES[case]
    whole = reply(*items, **facts)
    expected = decoded(whole)
    assert expected.parts == parts and expected.finish == finish
    assert (expected.id, expected.served_by) == ("resp_1", "real-name")
    assert expected.usage == Usage(
        input_tokens=10, cached_tokens=4, cache_write_tokens=3, output_tokens=20, reasoning_tokens=15
    )
    for sizes in ((1,), (3, 1), (1000,)):
        assert read(*events(whole, sizes=sizes), request=ASKED)[1] == expected


def test_a_citation_s_characters_are_those_of_the_reply_s_text() -> None:
    first = decoded(reply(*CASES["citations, counted from the start of the whole text"][0]))
    shown = [first.text[each.start : each.end] for each in first.citations if each.start is not None]
    assert shown == ["(x)", "the", "Rhine"]


def sent_back(items: list[Any]) -> list[dict[str, Any]]:
    """The items as they go back: thoughts and calls as they are, messages by their words."""
    out: list[dict[str, Any]] = []
    for item in items:
        match item["type"]:
            case "reasoning" if item.get("encrypted_content") or item.get("content"):
                out.append({name: item[name] for name in REASONING if item.get(name) is not None})
            case "function_call":
                out.append({name: value for name, value in item.items() if name not in ("id", "status")})
            case "message":
                said = "".join(each.get("text") or each.get("refusal") or "" for each in item["content"])
                before = out.pop() if out and "role" in out[-1] and "phase" not in out[-1] else {"content": ""}
                if said := before["content"] + said:  # two messages that nothing tells apart go as one
                    phase = {"phase": item["phase"]} if item.get("phase") else {}
                    out.append({"role": "assistant", "content": said, **phase})
    return out or [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize("case", CASES)
def test_what_a_model_said_goes_back_to_it_as_it_was(case: str) -> None:
    items, _, parts, _ = CASES[case]
    asked = Chat(messages=(Message.user("Hi"), Message.assistant(*parts), Message.user("Go on")))
    assert json.loads(chat_body(asked, ROW, False).body)["input"][1:-1] == sent_back(items)


def test_logprobs_come_where_they_were_asked_for() -> None:
    told = [logprob("Hel", -0.1, ("Hel", -0.1), ("Hal", -2.0)), logprob("lo.", -0.2)]
    whole = reply(message(text("Hello.", logprobs=told)))
    expected = (Logprob("Hel", -0.1, (("Hel", -0.1), ("Hal", -2.0))), Logprob("lo.", -0.2, ()))
    assert decoded(whole).logprobs == expected
    assert read(*events(whole), request=ASKED)[1].logprobs == expected
    assert decoded(whole, Chat.ask("Hi")).logprobs == ()
    assert read(*events(whole), request=Chat.ask("Hi"))[1].logprobs == ()


def test_usage_that_is_not_stated_is_estimated_and_says_so() -> None:
    assert decoded(reply(message(text("a" * 10)), usage=None)).usage == Usage(input_tokens=2, output_tokens=3, estimated=True)
    assert read(*events(reply(message(text("a" * 10)), usage=None)))[1].usage.estimated


def test_the_least_that_a_server_may_say_is_a_reply() -> None:
    least = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]}
    got = decoded(least, x_request_id="req_1")
    assert got.parts == (Text("Hi"),) and got.finish == "stop" and got.id == "req_1"


CODES = get_args(wire.ResponseError.model_fields["code"].annotation)
SENSITIVE = {"bio_policy", "misalignment_policy_violation", "invalid_prompt", "image_content_policy_violation"}


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_package_s_error_is_one_kind_of_error(code: str) -> None:
    kinds: dict[str, tuple[type[ServiceError], bool]] = {
        "server_error": (ServiceError, True),
        "vector_store_timeout": (ServiceError, True),
        "rate_limit_exceeded": (RateLimited, True),
        "data_residency_mismatch": (Denied, False),
        **dict.fromkeys(SENSITIVE, (ContentFiltered, False)),
    }
    kind, retryable = kinds.get(code, (Rejected, False))
    failed = reply(status="failed", error={"code": code, "message": "the secret prompt"}, usage=None)
    asks = [
        lambda: decoded(failed),
        lambda: read(*events(failed)),
        lambda: read(json.dumps({"type": "error", "code": code, "message": "the secret prompt", "param": None}).encode()),
    ]
    for at, ask in enumerate(asks):
        with pytest.raises(ServiceError) as caught:
            ask()
        assert type(caught.value) is kind and caught.value.retryable is retryable
        assert caught.value.in_stream is (at > 0) and "secret" not in str(caught.value)


def test_an_error_event_of_the_package_says_what_went_wrong() -> None:
    error = wire.ResponseErrorEvent(
        type="error", code="context_length_exceeded", message="secret", param=None, sequence_number=3
    )
    with pytest.raises(ServiceError) as caught:
        read(*events(reply(HELLO))[:5], error.model_dump_json().encode())
    assert type(caught.value).__name__ == "ContextTooLong" and caught.value.partial == "Hel" and caught.value.in_stream
    nested = {
        "type": "error",
        "error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "secret"},
    }
    assert type(payload_failure(nested, model="m")).__name__ == "ContextTooLong"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_reply_that_was_broken_off_may_be_asked_for_again(status: str) -> None:
    with pytest.raises(ServiceError) as caught:
        decoded(reply(HELLO, status=status))
    assert caught.value.retryable and type(caught.value) is ServiceError


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_reply_that_is_not_finished_is_none(status: str) -> None:
    with pytest.raises(BadReply) as caught:
        decoded(reply(HELLO, status=status))
    assert caught.value.retryable


def test_a_thought_is_signed_only_when_it_can_go_back() -> None:
    sealed = {"type": "reasoning", "id": "rs_1", "encrypted_content": "e=="}
    whole = signed({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e=="})
    for odd in ({}, {"summary": None}, {"summary": "Hm."}, {"summary": [3]}):
        assert decoded({"output": [{**sealed, **odd}]}).parts == (Reasoning("", whole),)
    assert decoded({"output": [{**sealed, "id": None}]}).parts == ()


def test_an_answer_of_which_a_filter_left_nothing_is_refused_content() -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    for items in ([], [thought("Hm.", encrypted_content="e==")]):
        with pytest.raises(ContentFiltered):
            decoded(reply(*items, **cut))
        with pytest.raises(ContentFiltered) as caught:
            read(*events(reply(*items, **cut)))
        assert caught.value.in_stream


def test_an_unknown_ending_is_a_bad_reply_that_names_it_only_when_it_is_a_code() -> None:
    for reason, shown in (("moonrise", True), ("the secret prompt", False)):
        with pytest.raises(BadReply) as caught:
            decoded({"status": "incomplete", "incomplete_details": {"reason": reason}, "output": []})
        assert (reason in str(caught.value)) is shown and not caught.value.retryable


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b"<html>", b"[]", b"null", b"{}", b'{"output": "secret"}', b'{"status": "completed"}',
        b'{"output": [{"type": "function_call", "arguments": "secret"}]}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        chat_response(body, ASKED, Heard("m"))
    assert "secret" not in str(caught.value) and caught.value.retryable


WORDS = [
    "output", "type", "content", "text", "annotations", "summary", "arguments", "name", "call_id", "id", "status", "usage",
    "error", "incomplete_details", "reason", "code", "logprobs", "encrypted_content", "phase", "refusal", "model",
    "input_tokens", "start_index", "input_tokens_details", "top_logprobs",
]  # fmt: skip
VALUES = st.sampled_from([
    "message", "reasoning", "function_call", "output_text", "refusal", "url_citation", "file_citation", "completed",
    "incomplete", "failed", "queued", "content_filter", "x",
])  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=8),
    max_leaves=30,
)


@given(ANYTHING | st.fixed_dictionaries({"output": st.lists(st.dictionaries(st.sampled_from(WORDS), ANYTHING))}))
def test_no_reply_raises_anything_but_a_service_error(payload: Any) -> None:
    try:
        got = decoded(payload)
    except ServiceError:
        return
    assert isinstance(got, ChatResponse)
    asked = Chat(messages=(Message.assistant(*got.parts), Message.user("Go on")))
    json.loads(chat_body(asked, ROW, False).body)  # whatever came can be sent back


def test_the_usage_of_these_tests_is_the_package_s() -> None:
    assert wire.response_usage.ResponseUsage.model_validate(USAGE).input_tokens_details.cache_write_tokens == 3
