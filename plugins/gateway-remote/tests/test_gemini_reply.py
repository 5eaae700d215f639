"""Replies of Gemini, made of the `google-genai` package's own types: whole, and streamed chunk by chunk, they are the same."""

import base64
import json
from typing import Any

import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.gemini import offers
from gateway_remote.formats.gemini_reply import BROKEN_OFF, FINISHES, MALFORMED, embed_response
from gemini_case import both, decoded, read, reply, text, thought, told
from google.genai import types as wire

from gateway import (
    Audio,
    BadReply,
    Chat,
    ContentFiltered,
    Denied,
    Embed,
    EmbedResponse,
    File,
    Image,
    Logprob,
    Message,
    Part,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    ToolCall,
    Usage,
)

RAW = b"\xfb\xff\xfe signed"
SIGNATURE = base64.urlsafe_b64encode(RAW).decode()  # as the package's types write bytes
NAMED = {"THOUGHT": f"gemini:{SIGNATURE}", "NEXT": f"gemini:>{SIGNATURE}", "LAST": f"gemini:<{SIGNATURE}"}


def call(name: str, args: dict[str, Any] | None, id: str | None = None, **facts: Any) -> wire.Part:
    return wire.Part(function_call=wire.FunctionCall(id=id, name=name, args=args), **facts)


def blob(data: bytes, kind: str, **facts: Any) -> wire.Part:
    return wire.Part(inline_data=wire.Blob(data=data, mime_type=kind), **facts)


SIGNED: dict[str, Any] = {"thought_signature": RAW}
PARTS: dict[str, tuple[list[wire.Part], list[Part]]] = {
    "text": ([text("Hello")], [Text("Hello")]),
    "text in several parts is one": ([text("Hel"), text(""), text("lo")], [Text("Hello")]),
    "nothing": ([], []),
    "thoughts before text": ([thought("Hm, "), thought("well."), text("Hi")], [Reasoning("Hm, well."), Text("Hi")]),
    "a signed thought": (
        [thought("Hm."), thought("", **SIGNED), thought("More."), text("Hi")],
        [Reasoning("Hm.", NAMED["THOUGHT"]), Reasoning("More."), Text("Hi")],
    ),
    "a signature on a thought of no words": ([thought("", **SIGNED)], [Reasoning("", NAMED["THOUGHT"])]),
    "a signed text": ([text("Hi", **SIGNED)], [Text("Hi"), Reasoning("", NAMED["LAST"])]),
    "a text signed by an empty one": ([text("H"), text("i"), text("", **SIGNED)], [Text("Hi"), Reasoning("", NAMED["LAST"])]),
    "a signature ends a text": (
        [text("One. ", **SIGNED), text("Two.")],
        [Text("One. "), Reasoning("", NAMED["LAST"]), Text("Two.")],
    ),
    "calls at once, of which the first is signed": (
        [thought("Hm."), call("look", {"at": "ü", "far": 1.0}, **SIGNED), call("hear", {}), call("smell", None)],
        [
            Reasoning("Hm."),
            Reasoning("", NAMED["NEXT"]),
            ToolCall("call_0", "look", '{"at":"ü","far":1.0}'),
            ToolCall("call_1", "hear", "{}"),
            ToolCall("call_2", "smell", "{}"),
        ],
    ),
    "calls between texts": (
        [text("A"), call("look", {}, "f1"), text("B"), call("look", {}, "f2")],
        [Text("A"), ToolCall("f1", "look"), Text("B"), ToolCall("f2", "look")],
    ),
    "a signature after a call stands by itself": (
        [text("A"), call("look", {}), text("", **SIGNED)],
        [Text("A"), ToolCall("call_0", "look"), Reasoning("", NAMED["LAST"])],
    ),
    "media": (
        [
            text("See:", **SIGNED),
            blob(b"\x89PNG", "image/png", **SIGNED),
            blob(b"\x00\xff", "audio/L16;codec=pcm;rate=24000"),
            blob(b"%PDF", "application/pdf"),
            wire.Part(file_data=wire.FileData(file_uri="https://x.example/v", mime_type="video/mp4")),
        ],
        [
            Text("See:"),
            Reasoning("", NAMED["LAST"]),
            Reasoning("", NAMED["NEXT"]),
            Image(data=b"\x89PNG"),
            Audio(data=b"\x00\xff", media_type="audio/L16;codec=pcm;rate=24000"),
            File(data=b"%PDF"),
            File(url="https://x.example/v", media_type="video/mp4"),
        ],
    ),
    "what is no part of an answer": (
        [
            text("A"),
            wire.Part(executable_code=wire.ExecutableCode(code="1", language="PYTHON"), **SIGNED),
            wire.Part(code_execution_result=wire.CodeExecutionResult(outcome="OUTCOME_OK", output="1")),
            wire.Part(tool_call=wire.ToolCall(id="t", tool_type="GOOGLE_SEARCH_WEB")),
            blob(b"a draft", "image/png", thought=True),
            text("B"),
        ],
        [Text("A"), Text("B")],
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_are_read_alike_whole_and_streamed(case: str) -> None:
    parts, expected = PARTS[case]
    payload = reply(*parts)
    wire.GenerateContentResponse.model_validate(payload)
    whole = both(payload)
    assert list(whole.parts) == expected
    assert whole.finish == ("tool_calls" if whole.tool_calls else "stop")
    assert (whole.id, whole.served_by) == ("r1", "real-name")
    chunks = [reply(part, finish=None) for part in parts] + [reply(text(""))]
    assert read(*chunks) == whole
    assert decoded(chunks) == whole  # without alt=sse the API sends all chunks in a list


def test_an_id_is_made_once_in_a_conversation() -> None:
    earlier = Chat(messages=(Message.assistant(ToolCall("call_0", "look"), ToolCall("call_1", "look")), Message.user("Go on")))
    assert [each.id for each in both(reply(call("look", {}), call("look", {})), earlier).tool_calls] == ["call_2", "call_3"]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        (
            {
                "prompt_token_count": 100, "cached_content_token_count": 80, "candidates_token_count": 20,
                "thoughts_token_count": 30, "tool_use_prompt_token_count": 7, "total_token_count": 157,
            },
            Usage(input_tokens=107, cached_tokens=80, output_tokens=50, reasoning_tokens=30),
        ),
        ({"prompt_token_count": 3, "total_token_count": 3}, Usage(input_tokens=3)),
        ({}, Usage(input_tokens=2, output_tokens=2, estimated=True)),
        (None, Usage(input_tokens=2, output_tokens=2, estimated=True)),
    ],
)  # fmt: skip
def test_counts_are_as_the_gateway_has_them(counted: dict[str, int] | None, expected: Usage) -> None:
    payload = reply(text("Hello"))
    if counted is not None:
        payload["usageMetadata"] = told(wire.GenerateContentResponseUsageMetadata(**counted))
    assert both(payload).usage == expected


def test_the_last_counts_of_a_stream_are_those_of_the_reply() -> None:
    def chunk(count: int | None, **facts: Any) -> dict[str, Any]:
        used = {} if count is None else {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": count}}
        return {**reply(text("a"), **facts), **used}

    assert read(
        chunk(1, finish=None), chunk(2), {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 9}}
    ).usage == Usage(input_tokens=3, output_tokens=9)
    assert read(chunk(1, finish=None), chunk(2), {"usageMetadata": {"trafficType": "ON_DEMAND"}}).usage.output_tokens == 2
    assert read(chunk(4, finish=None), chunk(None)).usage.output_tokens == 4


def test_logprobs_are_those_of_the_chosen_tokens_with_the_likeliest_in_their_places() -> None:
    def token(word: str, value: float) -> wire.LogprobsResultCandidate:
        return wire.LogprobsResultCandidate(token=word, log_probability=value, token_id=1)

    top = [wire.LogprobsResultTopCandidates(candidates=[token("Hel", -0.1), token("Hal", -2.5)])]
    result = wire.LogprobsResult(chosen_candidates=[token("Hel", -0.1), token("lo", 0.0)], top_candidates=top)
    payload = reply(text("Hello"), logprobs_result=result)
    asked = Chat.ask("12345678", logprobs=2)
    assert both(payload, asked).logprobs == (Logprob("Hel", -0.1, (("Hel", -0.1), ("Hal", -2.5))), Logprob("lo", 0.0))
    assert both(payload).logprobs == ()
    one, other = (
        reply(text(word), finish=finish, logprobs_result=wire.LogprobsResult(chosen_candidates=[token(word, -1.0)]))
        for word, finish in (("Hel", None), ("lo", "STOP"))
    )
    assert read(one, other, request=asked).logprobs == (Logprob("Hel", -1.0), Logprob("lo", -1.0))


def test_of_several_candidates_the_first_is_read() -> None:
    second = wire.Candidate(content=wire.Content(parts=[text("No")], role="model"), index=1, finish_reason="SAFETY")
    payload = reply(text("Yes"))
    payload["candidates"] = [told(second), *payload["candidates"]]
    assert both(payload).parts == (Text("Yes"),)
    assert read({**payload, "candidates": [told(second)]}, reply(text("Yes"))).parts == (Text("Yes"),)


GOOD = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}


@pytest.mark.parametrize("reason", [each.value for each in wire.FinishReason])
def test_every_reason_of_the_package_is_known(reason: str) -> None:
    payload = reply(text("Hello"), finish=reason)
    if reason in FINISHES:
        assert both(payload).finish == GOOD.get(reason, "filter")
        return
    kind, retryable, fallbackable = {
        "MISSING_THOUGHT_SIGNATURE": (Rejected, False, True),
        "PUP_LIMITED_DISABLED": (Denied, False, True),
        **dict.fromkeys(MALFORMED, (BadReply, True, True)),
        **dict.fromkeys(BROKEN_OFF, (ServiceError, True, True)),
    }[reason]
    for ask in (decoded, read):
        with pytest.raises(ServiceError) as caught:
            ask(payload)
        assert type(caught.value) is kind
        assert (caught.value.retryable, caught.value.fallbackable) == (retryable, fallbackable)
        assert caught.value.in_stream is (ask is read) and caught.value.partial == ("Hello" if ask is read else "")
        assert "Hello" not in str(caught.value)


@pytest.mark.parametrize("reason", sorted(name for name, finish in FINISHES.items() if finish == "filter"))
@pytest.mark.parametrize("parts", [[], [thought("Hm.")], [text("")]])
def test_an_answer_of_which_a_filter_left_nothing_is_refused(reason: str, parts: list[wire.Part]) -> None:
    for ask in (decoded, read):
        with pytest.raises(ContentFiltered) as caught:
            ask(reply(*parts, finish=reason))
        assert caught.value.fallbackable is (reason == "LANGUAGE")
    for part in (call("look", {}), blob(b"1", "image/png")):
        assert both(reply(part, finish=reason)).finish == "filter"


@pytest.mark.parametrize("reason", [each.value for each in wire.BlockedReason])
def test_a_prompt_that_is_refused_is_filtered(reason: str) -> None:
    feedback = wire.GenerateContentResponsePromptFeedback(block_reason=reason, block_reason_message="secret")
    payload = told(wire.GenerateContentResponse(prompt_feedback=feedback))
    for ask in (decoded, read):
        with pytest.raises(ContentFiltered) as caught:
            ask(payload)
        assert "secret" not in str(caught.value)


def test_a_reply_without_its_end_is_none_in_a_stream_and_taken_as_whole_elsewhere() -> None:
    payload = reply(text("Hello"), finish=None)
    assert decoded(payload).finish == "stop"
    for broken in (lambda: read(payload), lambda: decoded([payload]), lambda: decoded([]), lambda: decoded({}), lambda: read()):
        with pytest.raises(BadReply) as caught:
            broken()
        assert caught.value.retryable


def test_a_reason_that_is_not_known_is_named() -> None:
    payload = reply(text("Hello"))
    payload["candidates"][0]["finishReason"] = "NEW_REASON"
    with pytest.raises(BadReply, match="NEW_REASON"):
        decoded(payload)


@pytest.mark.parametrize(
    "part",
    [
        {"functionCall": {"args": {}}},
        {"functionCall": {"name": 5}},
        {"inlineData": {"mimeType": "image/png", "data": "no base64"}},
    ],
)
def test_parts_that_cannot_be_read_are_a_bad_reply(part: dict[str, Any]) -> None:
    payload = reply(text("Hello"))
    payload["candidates"][0]["content"]["parts"].append(part)
    for ask in (decoded, read):
        with pytest.raises(BadReply):
            ask(payload)


def test_embeddings_are_one_for_each_text() -> None:
    embeddings = [wire.ContentEmbedding(values=[0.5, 0.25]), wire.ContentEmbedding(values=[1.0, 0.0])]
    payload = told(wire.EmbedContentResponse(embeddings=embeddings))
    assert embedded(payload) == EmbedResponse(
        vectors=((0.5, 0.25), (1.0, 0.0)), usage=Usage(input_tokens=1, output_tokens=0, estimated=True)
    )
    payload["usageMetadata"] = told(wire.UsageMetadata(prompt_token_count=4))
    assert embedded(payload).usage == Usage(input_tokens=4)


@pytest.mark.parametrize(
    "payload",
    [{}, {"embeddings": []}, {"embeddings": [{"values": [1]}]}, {"embeddings": [{"values": [1]}, {"values": [1, 2]}]},
     {"embeddings": [{"values": [1]}, None]}, {"embeddings": [{"values": ["x"]}, {"values": [1]}]}, []],
)  # fmt: skip
def test_embeddings_that_do_not_fit_are_a_bad_reply(payload: Any) -> None:
    with pytest.raises(BadReply):
        embedded(payload)


def embedded(payload: Any) -> EmbedResponse:
    return embed_response(json.dumps(payload).encode(), Embed(texts=("a", "b")), Heard("m"))


def test_models_are_listed_page_by_page() -> None:
    listed = [
        {"name": "models/gemini-3-pro", "inputTokenLimit": 1_000_000, "outputTokenLimit": 65_536},
        {"name": "tunedModels/mine"},
        {"name": 5},
        None,
    ]
    found, path = offers({"models": listed, "nextPageToken": "a/b&c"})
    assert [(each.name, each.context, each.max_output) for each in found] == [
        ("gemini-3-pro", 1_000_000, 65_536),
        ("tunedModels/mine", None, None),
    ]
    assert path == "/models?pageSize=1000&pageToken=a%2Fb%26c"
    assert offers({}) == ([], "") == offers([])
