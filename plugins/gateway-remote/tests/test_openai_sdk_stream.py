"""Streams of Chat Completions: the `openai` package adds its own chunks up to what our reader makes of the same bytes."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import chat_response
from gateway_remote.formats.openai_stream import ChatStream
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk, ParsedChatCompletion
from openai_case import KEY, KEY_REF, asked, sdk
from test_openai_sdk_reply import REPLIES

from gateway import Chat, ChatResponse, Delta, ServiceError, Text, ToolCall, assemble
from gateway.testing import Fault, LoopbackServer

ASKED = Chat.ask("12345678", logprobs=1)
USAGE = {
    "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 15},
}  # fmt: skip
CITED = {"type": "url_citation", "url_citation": {"url": "https://x.example", "title": "X", "start_index": 0, "end_index": 1}}
SAID = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def read(*payloads: bytes) -> tuple[list[Delta], ChatResponse]:
    state = ChatStream(ASKED, Heard("m"))
    deltas = [delta for payload in payloads for delta in state.feed(payload)]
    response = state.response()
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
    return deltas, response


def chunks(message: dict[str, Any], finish: str, size: int) -> list[bytes]:
    """A message as the chunks that stream it, each checked by the package's model."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    for field in ("content", "refusal"):
        told = message.get(field) or ""
        deltas += [{field: told[at : at + size]} for at in range(0, len(told), size)]
    deltas += [{"annotations": message["annotations"]}] if message.get("annotations") else []
    calls = message.get("tool_calls", ())
    for at, call in enumerate(calls):
        head = {**call, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": at, **head}]})
    for start in range(0, max((len(call["function"]["arguments"]) for call in calls), default=0), size):
        # The calls' arguments come by turns.
        for at, call in enumerate(calls):
            if piece := call["function"]["arguments"][start : start + size]:
                deltas.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    top = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "real-name"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**top, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}

    sent = [*map(chunk, deltas), chunk({}, finish), {**top, "choices": [], "usage": USAGE}]
    for each in sent:
        ChatCompletionChunk.model_validate(each)
    return [json.dumps(each, ensure_ascii=False).encode() for each in sent]


def whole(message: dict[str, Any], finish: str) -> ChatResponse:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    payload = {"id": "c1", "model": "real-name", "choices": [choice], "usage": USAGE}
    return chat_response(json.dumps(payload).encode(), ASKED, Heard("m"))


CALL = st.builds(lambda name, said: {"type": "function", "function": {"name": name, "arguments": said}},
                 st.sampled_from(["look", "hear"]), SAID)  # fmt: skip
MESSAGE = st.builds(
    lambda content, refusal, calls, cited: {
        "content": content, "refusal": refusal, "annotations": [CITED] if cited and content else [],
        "tool_calls": [{"id": f"call_{at}", **call} for at, call in enumerate(calls)],
    },
    st.none() | SAID, st.none() | SAID, st.lists(CALL, max_size=3), st.booleans(),
)  # fmt: skip
FINISH = st.sampled_from(["stop", "tool_calls", "function_call"])


@given(MESSAGE, FINISH, st.integers(1, 7))
def test_a_streamed_reply_is_the_whole_one(message: dict[str, Any], finish: str, size: int) -> None:
    finish = finish if message["tool_calls"] else "stop"
    assert read(*chunks(message, finish, size), b"[DONE]")[1] == whole(message, finish)


class Wire(httpx.SyncByteStream):
    def __init__(self, payloads: list[bytes]) -> None:
        self.payloads = payloads

    def __iter__(self) -> Iterator[bytes]:
        return (b"data: " + each + b"\n\n" for each in [*self.payloads, b"[DONE]"])


def summed_by_the_package(payloads: list[bytes]) -> ParsedChatCompletion[None]:
    """What the package's own accumulation makes of a stream."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Wire(payloads))

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        client = openai.OpenAI(base_url="http://h", api_key="k", max_retries=0, http_client=http)
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Hi"}]) as stream:
            return stream.get_final_completion()


@given(MESSAGE, FINISH, st.integers(1, 7))
def test_the_package_s_own_sum_of_the_chunks_is_ours(message: dict[str, Any], finish: str, size: int) -> None:
    payloads = chunks(message, finish if message["tool_calls"] else "stop", size)
    assert read(*payloads)[1] == chat_response(summed_by_the_package(payloads).to_json().encode(), ASKED, Heard("m"))


@pytest.mark.parametrize("case", REPLIES)
def test_the_package_and_we_add_up_the_same_stream_of_the_loopback_server(server: LoopbackServer, case: str) -> None:
    request, step = REPLIES[case]
    if step is not None:
        server.always(step)
    ours = asked(server, request)
    deltas, streamed = asked(server, request, stream=True)
    sent = server.requests[-1].json
    assert (streamed.parts, streamed.finish, streamed.usage) == (ours.parts, ours.finish, ours.usage)

    with sdk(server) as client:
        raw = list(client.chat.completions.create(**sent))
        for chunk in raw:
            ChatCompletionChunk.model_validate(chunk.to_dict())
        if "response_format" in sent:  # the package would make a model of it: it takes no plain schema here
            return
        del sent["stream"]
        try:
            with client.chat.completions.stream(**sent) as stream:
                summed = stream.get_final_completion()
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            assert ours.finish in ("length", "filter")  # the package counts these as failures
            return
    [choice] = summed.choices
    assert (choice.message.content or "") == streamed.text and "".join(delta.text for delta in deltas) == streamed.text
    calls = choice.message.tool_calls or ()
    assert [ToolCall(each.id, each.function.name, each.function.arguments) for each in calls] == list(streamed.tool_calls)
    assert summed.usage is not None and summed.usage.completion_tokens == streamed.usage.output_tokens


def test_an_error_in_mid_stream_is_one_for_the_package_and_for_us(server: LoopbackServer) -> None:
    server.always(Fault(error_after=3))
    with sdk(server) as client, pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True))
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hello"), stream=True)
    assert caught.value.in_stream and caught.value.partial == "You said" and caught.value.retryable


def test_a_refusal_in_one_chunk_with_words_follows_them() -> None:
    message = {"content": "Well. ", "refusal": "No."}
    one = json.loads(chunks({}, "stop", 9)[0])
    one["choices"][0]["delta"] = message
    ChatCompletionChunk.model_validate(one)
    got = read(json.dumps(one).encode(), *chunks({}, "stop", 9))[1]
    assert got == whole(message, "stop") and got.text == "Well. No." and got.finish == "filter"


def test_logprobs_of_the_chunks_are_those_of_the_whole() -> None:
    told = [{"token": each, "bytes": None, "logprob": -0.5, "top_logprobs": []} for each in ("Hel", "lo.")]
    payloads = [json.loads(each) for each in chunks({"content": "Hello."}, "stop", 3)]
    for payload, logprob in zip(payloads[1:3], told, strict=True):
        payload["choices"][0]["logprobs"] = {"content": [logprob], "refusal": None}
        ChatCompletionChunk.model_validate(payload)
    got = read(*(json.dumps(each).encode() for each in payloads))[1]
    assert [each.token for each in got.logprobs] == ["Hel", "lo."] and got.parts == (Text("Hello."),)
    summed = summed_by_the_package([json.dumps(each).encode() for each in payloads])
    assert chat_response(summed.to_json().encode(), ASKED, Heard("m")) == got
