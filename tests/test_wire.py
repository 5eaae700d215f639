"""Wire forms: whatever is valid comes back equal through JSON text; whatever is not is refused by field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway import (
    Answer,
    AnswerResponse,
    Attempt,
    Audio,
    Box,
    BudgetExceeded,
    Candidate,
    Chat,
    ChatResponse,
    Chunk,
    Citation,
    Classify,
    ClassifyImage,
    ClassifyResponse,
    Decision,
    Delta,
    Detected,
    DetectObjects,
    DetectObjectsResponse,
    Embed,
    EmbedResponse,
    Extract,
    ExtractResponse,
    File,
    Found,
    Generate,
    GenerateImage,
    GenerateImageResponse,
    GenerateResponse,
    Image,
    InvalidRequest,
    Label,
    Logprob,
    Message,
    Meta,
    Ranked,
    RateLimited,
    Reasoning,
    Request,
    Rerank,
    RerankResponse,
    Response,
    Restart,
    Score,
    Span,
    Speak,
    SpeakResponse,
    Summarize,
    SummarizeResponse,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Trace,
    Transcribe,
    TranscribeResponse,
    Translate,
    TranslateResponse,
    Usage,
    Veto,
    errors,
)
from gateway.errors import GatewayError
from gateway.wire import from_wire, tasks, to_wire

CANARY = "canary-4711"
BIG = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

texts = st.text(max_size=10)
words = st.text(min_size=1, max_size=8)
amounts = st.floats(0, 1e6)
counts = st.integers(0, 2**40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
schemas = st.dictionaries(texts, json_values, max_size=3)
media = st.one_of(
    st.builds(Image, data=st.binary(max_size=30), media_type=words.map("image/{}".format)),
    st.builds(Image, url=words, fetch=st.booleans()),
    st.builds(Audio, data=st.binary(max_size=30)),
    st.builds(Audio, url=words, fetch=st.booleans()),
    st.builds(File, data=st.binary(max_size=30), name=texts),
    st.builds(File, url=words, name=texts),
)
parts = st.one_of(
    st.builds(Text, texts),
    st.builds(Reasoning, texts, texts),
    st.builds(ToolCall, words, words, texts),
    st.builds(ToolResult, words, texts, st.booleans()),
    st.builds(Citation, texts, texts, texts, st.none() | counts, st.none() | counts),
    media,
)
several_parts = st.lists(parts, max_size=4).map(tuple)
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), parts=several_parts)
tools = st.builds(Tool, name=words, description=texts, parameters=schemas)
metas = st.builds(
    Meta, tenant=texts, conversation=texts, deadline_s=st.none() | amounts, data_class=texts, drop_unsupported=st.booleans()
)
sampling: dict[str, Any] = {
    "max_tokens": st.none() | st.integers(1, 2**40),
    "temperature": st.none() | st.floats(0, 2),
    "top_p": st.none() | st.floats(0.01, 1),
    "stop": st.lists(words, max_size=2).map(tuple),
    "seed": st.none() | st.integers(-(2**70), 2**70),
    "meta": metas,
}
chats = st.builds(
    Chat,
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    tools=st.lists(tools, max_size=2, unique_by=lambda tool: tool.name).map(tuple),
    response_format=st.none() | schemas,
    reasoning=st.sampled_from([None, "none", "low", "high"]),
    top_k=st.none() | st.integers(1, 99),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    logprobs=st.none() | st.integers(0, 20),
    parallel_tool_calls=st.sampled_from([None, True, False]),
    **sampling,
)
pictures = st.builds(Image, data=st.binary(max_size=9))
sounds = st.builds(Audio, data=st.binary(max_size=9))
several = st.lists(words, max_size=3).map(tuple)
requests = st.one_of(
    chats,
    st.builds(Rerank, query=words, documents=st.lists(texts, min_size=1, max_size=3).map(tuple), top_n=st.none() | st.just(1)),
    st.builds(Classify, inputs=words, candidate_labels=several, top_k=st.none() | st.integers(1, 3)),
    st.builds(Classify, inputs=words, candidate_labels=st.just(("a", "b")), multi_label=st.none() | st.booleans()),
    st.builds(Extract, inputs=words, ignore_labels=st.none() | several, aggregation_strategy=st.sampled_from([None, "simple"])),
    st.builds(Answer, question=words, context=words, top_k=st.none() | st.integers(1, 3)),
    st.builds(Summarize, inputs=words, generate_parameters=st.none() | schemas),
    st.builds(Translate, inputs=words, src_lang=st.none() | words, tgt_lang=st.none() | words),
    st.builds(ClassifyImage, inputs=pictures, top_k=st.none() | st.integers(1, 3)),
    st.builds(DetectObjects, inputs=pictures, threshold=st.none() | st.floats(0, 1)),
    st.builds(GenerateImage, inputs=words, seed=st.none() | st.integers(0, 99), negative_prompt=st.none() | texts),
    st.builds(Transcribe, inputs=sounds, return_timestamps=st.sampled_from([None, True, "word"]), language=st.none() | words),
    st.builds(Speak, inputs=words, voice=st.none() | words, generation_parameters=st.none() | schemas),
    st.builds(Generate, prompt=words, **sampling),
    st.builds(
        Embed, texts=st.lists(texts, min_size=1, max_size=3).map(tuple), dimensions=st.none() | st.integers(1, 9), meta=metas
    ),
)
scores = st.builds(Score, st.floats(-10, 10), st.none() | amounts, texts)
candidates = st.builds(
    Candidate,
    model=words,
    place=texts,
    vetoes=st.lists(st.builds(Veto, texts, texts, texts, texts), max_size=2).map(tuple),
    scores=st.dictionaries(words, scores, max_size=2),
    utility=st.none() | st.floats(-10, 10),
)
decisions = st.builds(
    Decision,
    task=words,
    chosen=st.none() | words,
    candidates=st.lists(candidates, max_size=2).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
)
attempts = st.lists(
    st.builds(
        Attempt,
        model=words,
        seconds=amounts,
        first_token_s=st.none() | amounts,
        cost_usd=st.none() | amounts,
        error=texts,
        message=texts,
    ),
    max_size=2,
).map(tuple)
traces = st.builds(
    Trace, model=words, attempts=attempts, seconds=amounts, first_token_s=st.none() | amounts, cost_usd=st.none() | amounts,
    notes=st.lists(texts, max_size=2).map(tuple), decision=st.none() | decisions,
)  # fmt: skip
usages = st.builds(
    Usage,
    input_tokens=counts,
    cached_tokens=counts,
    cache_write_tokens=counts,
    output_tokens=counts,
    cost_usd=st.none() | amounts,
    estimated=st.booleans(),
)
common: dict[str, Any] = {"usage": usages, "model": texts, "trace": st.none() | traces, "dropped": several}
shares = st.floats(0, 1)
places = st.integers(0, 99)
boxes = st.builds(Box, xmin=places, ymin=places, xmax=places, ymax=places)


def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=2).map(tuple)


logprobs = some(st.builds(Logprob, texts, st.floats(-9, 0), some(st.tuples(texts, st.floats(-9, 0)))))
responses = st.one_of(
    st.builds(RerankResponse, results=some(st.builds(Ranked, index=places, relevance_score=st.floats(-9, 9))), **common),
    st.builds(ClassifyResponse, labels=some(st.builds(Label, label=texts, score=shares)), **common),
    st.builds(
        ExtractResponse,
        spans=some(st.builds(Span, entity_group=texts, score=shares, word=texts, start=places, end=places)),
        **common,
    ),
    st.builds(AnswerResponse, answers=some(st.builds(Found, answer=texts, score=shares, start=places, end=places)), **common),
    st.builds(SummarizeResponse, summary_text=texts, **common),
    st.builds(TranslateResponse, translation_text=texts, **common),
    st.builds(DetectObjectsResponse, objects=some(st.builds(Detected, label=texts, score=shares, box=boxes)), **common),
    st.builds(GenerateImageResponse, images=some(pictures), **common),
    st.builds(
        TranscribeResponse,
        text=texts,
        chunks=some(st.builds(Chunk, text=texts, timestamp=st.tuples(amounts, st.none() | amounts))),
        duration_s=st.none() | amounts,
        **common,
    ),
    st.builds(SpeakResponse, audio=sounds, sampling_rate=st.none() | amounts, **common),
    st.builds(
        ChatResponse,
        parts=several_parts,
        logprobs=logprobs,
        finish=st.sampled_from(["stop", "length", "tool_calls"]),
        id=texts,
        **common,
    ),
    st.builds(GenerateResponse, text=texts, **common),
    st.builds(
        EmbedResponse, vectors=st.lists(st.lists(st.floats(-9, 9), max_size=3).map(tuple), max_size=2).map(tuple), **common
    ),
)
deltas = st.builds(
    Delta, texts, st.integers(0, 9), st.sampled_from(["text", "reasoning", "tool_call", "whole"]), texts, texts, texts,
    st.none() | parts,
)  # fmt: skip
FACTS: dict[str, st.SearchStrategy[Any]] = {
    "decision": st.none() | decisions,
    "reply": st.none() | responses,
    "attempts": attempts,
    "known": st.lists(texts, max_size=2).map(tuple),
    "status": st.none() | counts,
    "retry_after_s": st.none() | amounts,
    "tokens": st.none() | counts,
    "context": st.none() | counts,
    "retryable": st.booleans(),
    "fallbackable": st.booleans(),
    "in_stream": st.booleans(),
    "frees_in_s": amounts | st.just(math.inf),
    "deadline_s": amounts,
}
KINDS = sorted((kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)), key=str)
faults = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(kind, **{f.name: FACTS.get(f.name, texts) for f in fields(kind)})
)


def through(thing: Any, **options: Any) -> Any:
    """The thing, by way of strict JSON text."""
    return from_wire(json.loads(json.dumps(to_wire(thing, **options), allow_nan=False)))


@BIG
@given(requests)
def test_every_request_comes_back_equal(request: Request[Any]) -> None:
    back = through(request)
    assert type(back) is type(request) and back == request and back.meta == request.meta


@BIG
@given(responses)
def test_every_response_comes_back_equal_with_its_trace_and_decision(response: Response) -> None:
    back: Response = through(response)
    assert type(back) is type(response) and back == response and back.trace == response.trace
    if response.trace is not None:  # the decision is no part of a trace's equality
        assert back.trace is not None and back.trace.decision == response.trace.decision


@BIG
@given(deltas)
def test_every_delta_comes_back_equal(delta: Delta) -> None:
    assert through(delta) == delta


@BIG
@given(faults)
def test_every_error_comes_back_with_all_its_facts(error: GatewayError) -> None:
    back = through(error)
    assert type(back) is type(error)
    for f in fields(error):
        assert getattr(back, f.name) == getattr(error, f.name), f.name


def test_a_restart_comes_back() -> None:
    assert through(Restart("m")) == Restart("m")


def test_the_form_is_tagged_by_task() -> None:
    assert to_wire(Chat.ask("a"))["request"] == "chat"
    assert to_wire(ChatResponse.of("a"))["response"] == "chat"
    assert to_wire(RateLimited("a"))["error"] == "RateLimited"


def test_bytes_travel_as_url_safe_base64() -> None:
    wire = to_wire(Chat.ask("a", Image(data=b"\xff\xfe\xfd")))
    assert wire["messages"][0]["parts"][1]["data"] == "__79"


class Point(BaseModel):
    x: int


def test_a_pydantic_model_goes_out_as_its_schema_and_its_instance_not_at_all() -> None:
    assert through(Chat.ask("a", response_format=Point)).response_format == Point.model_json_schema()
    reply = replace(ChatResponse.of('{"x": 1}'), parsed=Point(x=1))
    assert "parsed" not in to_wire(reply)
    assert through(replace(reply, parsed=object())) == reply


def test_a_schema_may_be_made_of_any_mappings() -> None:
    schema = MappingProxyType({"enum": (1, 2), "properties": MappingProxyType({})})
    plain = {"enum": [1, 2], "properties": {}}
    back = through(Chat.ask("a", response_format=schema, tools=[Tool(name="f", parameters=schema)]))
    assert back.response_format == plain and back.tools == (Tool(name="f", parameters=plain),)


def test_an_infinite_wait_is_null_in_json() -> None:
    error = BudgetExceeded("never", frees_in_s=math.inf)
    assert to_wire(error)["frees_in_s"] is None and through(error).frees_in_s == math.inf


@dataclass(frozen=True, kw_only=True)
class Span:
    begin: int
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class SpotResponse(Response):
    spans: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Spot(Request[SpotResponse]):
    """A third party's task."""

    text: str = field(repr=False)
    scan: bytes = field(default=b"", repr=False)
    spans: tuple[Span, ...] = ()


def test_a_task_of_a_third_party_travels_like_ours() -> None:
    request = Spot(text="a", scan=b"plain", spans=(Span(begin=1),), meta=Meta(tenant="t"))
    assert tasks()["spot"] is Spot
    assert through(request) == request and through(request).meta == request.meta
    response = SpotResponse(spans=(Span(begin=3, label="x"),), model="m")
    assert to_wire(response)["response"] == "spot" and through(response) == response


def wire_of(**changes: Any) -> dict[str, Any]:
    return {**to_wire(Chat.ask("hi", Image(data=b"x"), tools=[Tool(name="f")])), **changes}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"request": "no-such-task"}, "request"),
        ({"bogus": 1}, "bogus"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "parts": []}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "parts": [{"type": "video"}]}]}, "messages.0.parts.0"),
        ({"messages": [{"role": "user", "parts": [{"type": "text", "text": 5}]}]}, "messages.0.parts.0.text.text"),
        ({"messages": [{"role": "user", "parts": [{"type": "text", "text": "a", "x": 1}]}]}, "messages.0.parts.0.text.x"),
        ({"messages": [{"role": "user", "parts": [{"type": "image", "url": "a", "x": 1}]}]}, "messages.0.parts.0.image.x"),
        ({"messages": [{"role": "user", "parts": [], "x": 1}]}, "messages.0.x"),
        ({"tool_choice": "g"}, "tool_choice"),
        ({"meta": {"tenant": 5}}, "meta.tenant"),
        ({"meta": {"tenants": "t"}}, "meta.tenants"),
        ({"meta": {"deadline_s": -1}}, "meta.deadline_s"),
        ({"reasoning": "extreme"}, "reasoning"),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_by_field(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_wire(wire_of(**changes))
    assert caught.value.field == name


@pytest.mark.parametrize(
    "wire",
    [
        {},
        [],
        5,
        {"request": 5},
        {"request": None},
        {"request": "request"},
        {"response": "no-such-task"},
        {"response": "chat"},
        {"response": "chat", "parts": [], "bogus": 1},
        {"response": "chat", "parts": [], "usage": {"input_tokens": True}},
        {"delta": 0, "bogus": 1},
        {"delta": 0, "part": "0"},
        {"error": "NoSuchError", "message": "a"},
        {"error": "GatewayError"},
        {"error": "annotations", "message": "a"},
        {"error": "RateLimited", "message": "a", "bogus": 1},
        {"error": "RateLimited", "message": 5},
        {"error": "RateLimited", "message": "a", "attempts": 5},
        {"error": "RateLimited", "message": "a", "attempts": [5]},
        {"error": "RateLimited", "message": "a", "attempts": [{"model": "m", "x": 1}]},
        {"error": "RateLimited", "message": "a", "model": {"x": 1}},
        {"error": "NoEligibleModel", "message": "a", "decision": 5},
        {"error": "NoEligibleModel", "message": "a", "decision": {"x": 1}},
        {"error": "BadReply", "message": "a", "reply": 5},
        {"error": "BadReply", "message": "a", "reply": {"request": "generate", "prompt": "a"}},
        {"request": "generate", "prompt": {1, 2}},
        {"request": "generate", "prompt": object()},
    ],
    ids=lambda wire: str(wire).partition(" object at")[0],  # an address is another in each process
)
def test_a_wrong_form_is_an_invalid_request_and_nothing_else(wire: Any) -> None:
    with pytest.raises(InvalidRequest):
        from_wire(wire)


@settings(max_examples=200, deadline=None)
@given(requests.map(to_wire) | faults.map(to_wire) | deltas.map(to_wire) | responses.map(to_wire), st.data())
def test_a_mutated_form_is_read_or_refused_but_never_crashes(wire: dict[str, Any], data: st.DataObject) -> None:
    mutated = {**wire, data.draw(st.sampled_from(sorted(wire)) | words): data.draw(json_values)}
    try:
        from_wire(mutated)
    except InvalidRequest as error:
        assert error.message


def test_a_refusal_never_repeats_the_value() -> None:
    for changes in ({"temperature": CANARY}, {"messages": CANARY}, {"reasoning": CANARY}, {"meta": {"tenant": [CANARY]}}):
        with pytest.raises(InvalidRequest) as caught:
            from_wire(wire_of(**changes))
        assert CANARY not in str(caught.value)


def test_what_has_no_wire_form_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        to_wire(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="answers no known task"):
        to_wire(type("Lost", (Response,), {})())
