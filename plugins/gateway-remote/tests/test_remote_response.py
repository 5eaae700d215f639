"""Whole replies as responses."""

import base64
import json
import struct
from typing import Any

import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import chat_response, embed_response

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    Embed,
    EmbedResponse,
    OutOfQuota,
    Overloaded,
    Reasoning,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)

ASKED = Chat.ask("12345678")


def chat(message: dict[str, Any], finish: Any = "stop", **rest: Any) -> ChatResponse:
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    payload = {"id": "r1", "model": "real-name", "choices": choices, **rest}
    return chat_response(json.dumps(payload).encode(), ASKED, Heard("m"))


def embed(data: Any, texts: int = 2, **options: Any) -> EmbedResponse:
    request = Embed(texts=("some words",) * texts, **options)
    return embed_response(json.dumps({"data": data}).encode(), request, Heard("m"))


def row(index: int, vector: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": vector}


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"<html></html>", b'{"choices": [{"mess', b"[]", b"3", b"{}", b'{"choices": []}', b'{"choices": [3]}']
)
def test_a_reply_that_is_torn_garbled_or_empty_may_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        chat_response(body, ASKED, Heard("m"))
    assert caught.value.retryable and caught.value.fallbackable


def test_a_whole_reply_that_only_does_not_fit_is_not_asked_for_again() -> None:
    misfits = [
        lambda: chat({"content": "a"}, "unheard_of"),
        lambda: embed([row(0, [1.0])], texts=2),
        lambda: embed([row(0, [1.0])], texts=1, dimensions=2),
    ]
    for ask in misfits:
        with pytest.raises(BadReply) as caught:
            ask()
        assert caught.value.retryable is False and caught.value.fallbackable


def test_text_reasoning_and_calls_become_parts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    for name in ("reasoning", "reasoning_content"):
        reply = chat({"content": "Yes.", name: "hm", "tool_calls": [call]}, "tool_calls")
        assert reply.parts == (Reasoning("hm"), Text("Yes."), ToolCall("c1", "look", '{"a":1}'))
        assert (reply.finish, reply.id, reply.served_by) == ("tool_calls", "r1", "real-name")


def test_arguments_that_are_nested_too_deeply_are_a_bad_reply_and_nobody_elses_fault() -> None:
    deep = "[" * 1010 + "]" * 1010
    call = json.dumps({"id": "c1", "function": {"name": "look", "arguments": {"secret": "DEEP"}}}).replace('"DEEP"', deep)
    body = b'{"choices": [{"message": {"tool_calls": [%s]}}]}' % call.encode()
    with pytest.raises(BadReply, match="nested too deeply") as caught:
        chat_response(body, Chat.ask("Hi"), Heard("big"))
    assert "secret" not in str(caught.value)


def test_usage_counts_cached_and_reasoning_tokens_inside() -> None:
    usage = {
        "prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 15},
    }  # fmt: skip
    expected = Usage(input_tokens=10, cached_tokens=4, output_tokens=20, reasoning_tokens=15)
    assert chat({"content": "a"}, usage=usage).usage == expected


def test_usage_that_is_not_stated_is_estimated_and_says_so() -> None:
    usage = chat({"content": "a" * 10}).usage
    assert usage == Usage(input_tokens=2, output_tokens=3, estimated=True)


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "filter"),
        (None, "stop"),
        ("eos_token", "stop"),
    ],
)
def test_the_finish_is_one_of_ours(wire: Any, finish: str) -> None:
    assert chat({"content": "a"}, wire).finish == finish


def test_a_reply_with_calls_ends_to_call_tools_whatever_it_says() -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": {"a": 1}}}
    reply = chat({"content": None, "tool_calls": [call]}, "stop")
    assert reply.finish == "tool_calls" and reply.tool_calls[0].parsed() == {"a": 1}


def test_a_refusal_is_text_cut_by_a_filter() -> None:
    reply = chat({"content": None, "refusal": "I will not."})
    assert reply.text == "I will not." and reply.finish == "filter"


def test_an_unknown_finish_is_a_bad_reply_that_names_it() -> None:
    with pytest.raises(BadReply, match="moonrise"):
        chat({"content": "a"}, "moonrise")
    with pytest.raises(BadReply) as caught:
        chat({"content": "a"}, "The Secret Words")
    assert "Secret" not in str(caught.value)


def test_a_finish_that_is_a_failure_raises_it() -> None:
    with pytest.raises(Overloaded):
        chat({"content": "a"}, "insufficient_system_resource")
    with pytest.raises(ServiceError) as caught:
        chat({"content": "a"}, "error")
    assert caught.value.retryable


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b"<html>", b"[]", b"null", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": 3}',
        b'{"choices": [{"message": "secret"}]}', b'{"choices": [{"message": {"tool_calls": [{}]}}]}',
        b'{"choices": [{"message": {"tool_calls": "secret"}}]}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        chat_response(body, ASKED, Heard("m"))
    assert "secret" not in str(caught.value)


def test_an_error_in_a_reply_of_status_200_is_that_error() -> None:
    with pytest.raises(OutOfQuota) as caught:
        chat_response(b'{"error": {"code": "insufficient_quota", "message": "secret"}}', ASKED, Heard("m"))
    assert "secret" not in str(caught.value) and caught.value.status is None


def test_vectors_are_put_back_in_the_texts_order() -> None:
    assert embed([row(1, [3, 4]), row(0, [1, 2])]).vectors == ((1.0, 2.0), (3.0, 4.0))


def test_vectors_in_base64_are_read() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    reply = embed([row(0, packed)], texts=1)
    assert reply.vectors == ((0.5, -2.0),)
    assert reply.usage == Usage(input_tokens=3, estimated=True)


@pytest.mark.parametrize(
    "data",
    [
        None, [], [row(0, [1])], [row(0, [1]), row(0, [2])], [row(0, [1]), row(2, [2])], [row(0, [1]), row(1, [2, 3])],
        [row(0, []), row(1, [])], [row(0, ["a"]), row(1, [1])], [row(0, "?"), row(1, [1])], [1, 2],
        [row(0, None), row(1, None)], [row(0, "AAA="), row(1, "AAA=")], [row(-1, [1]), row(0, [1])],
        [row(0, [1e999]), row(1, [1])],
    ],
)  # fmt: skip
def test_vectors_that_do_not_fit_the_texts_are_a_bad_reply(data: Any) -> None:
    with pytest.raises(BadReply):
        embed(data)


def test_vectors_of_another_length_than_asked_for_are_a_bad_reply() -> None:
    with pytest.raises(BadReply):
        embed([row(0, [1, 2])], texts=1, dimensions=3)
