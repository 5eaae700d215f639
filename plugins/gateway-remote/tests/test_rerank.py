"""Rerank as Cohere, Jina and vLLM have it: what goes out, what comes back, and every reply that is none."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.api import Heard
from gateway_remote.formats.rerank import rerank_body, rerank_response
from hypothesis import given
from hypothesis import strategies as st
from tasks_case import KEY, KEY_REF, MODEL, PLAIN, asked

from gateway import (
    BadReply,
    OutOfQuota,
    Ranked,
    RateLimited,
    Rejected,
    Rerank,
    RerankResponse,
    ServiceError,
    UnsupportedOption,
    Usage,
    parse_config,
)
from gateway.testing import Fault, LoopbackServer

ASKED = Rerank(query="a cat", documents=("a dog", "the cat", "a river"))
ROW = ModelRow(name="m", base_url="http://h", model=MODEL, tasks=["rerank"])
RESULTS = [{"index": 1, "relevance_score": 0.98}, {"index": 0, "relevance_score": 0.25}, {"index": 2, "relevance_score": -0.5}]
RANKED = (
    Ranked(index=1, relevance_score=0.98),
    Ranked(index=0, relevance_score=0.25),
    Ranked(index=2, relevance_score=-0.5),
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def ranked(payload: Any, request: Rerank = ASKED) -> RerankResponse:
    return rerank_response(json.dumps(payload).encode(), request, Heard("m"))


def test_the_query_and_the_documents_go_out_as_they_are() -> None:
    sending = rerank_body(ASKED, ROW, False)
    assert sending.path == "/rerank" and sending.content_type == "application/json"
    assert json.loads(sending.body) == {"model": MODEL, "query": "a cat", "documents": ["a dog", "the cat", "a river"]}
    assert json.loads(rerank_body(replace(ASKED, top_n=2), ROW, False).body)["top_n"] == 2
    with_body = replace(ROW, body={"return_documents": False})
    assert json.loads(rerank_body(ASKED, with_body, False).body)["return_documents"] is False


def test_how_many_come_back_is_never_left_out() -> None:
    bare = replace(ROW, refuses=frozenset({"top_n"}))
    with pytest.raises(UnsupportedOption) as caught:
        rerank_body(replace(ASKED, top_n=2, meta=replace(ASKED.meta, drop_unsupported=True)), bare, False)
    assert caught.value.option == "top_n"


@pytest.mark.parametrize(
    ("rest", "usage"),
    [
        ({"id": "x", "model": "jina-reranker", "usage": {"total_tokens": 25}}, Usage(input_tokens=25)),
        ({"id": "x", "model": "bge", "usage": {"prompt_tokens": 20, "total_tokens": 25}}, Usage(input_tokens=20)),
        ({"meta": {"tokens": {"input_tokens": 25.0, "output_tokens": 0.0}}}, Usage(input_tokens=25)),
        (
            {"meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1.0}}},
            Usage(input_tokens=9, estimated=True),
        ),
        ({"usage": {"total_tokens": -1}, "meta": 3}, Usage(input_tokens=9, estimated=True)),
        ({"usage": {"total_tokens": 10**400}}, Usage(input_tokens=9, estimated=True)),
        ({"usage": None, "meta": {"tokens": None}}, Usage(input_tokens=9, estimated=True)),
    ],
)
def test_each_provider_s_reply_is_read_with_its_own_count_of_tokens(rest: dict[str, Any], usage: Usage) -> None:
    assert ranked({"results": RESULTS, **rest}) == RerankResponse(results=RANKED, usage=usage)


def test_results_that_come_unsorted_and_uncut_are_sorted_and_cut() -> None:
    response = ranked({"results": RESULTS[::-1]}, replace(ASKED, top_n=2))
    assert response.results == RANKED[:2] and ASKED.accept(ranked({"results": RESULTS[::-1]}))


def test_documents_that_a_server_sends_back_are_passed_over() -> None:
    told = [{**result, "document": {"text": "secret"}} for result in RESULTS]
    assert "secret" not in repr(ranked({"results": told}))


@pytest.mark.parametrize(
    "payload",
    [
        {}, [], 3, {"results": None}, {"results": {"secret": 1}}, {"results": [3]}, {"results": [{"index": 0}]},
        {"results": [{"relevance_score": 0.5}]}, {"results": [{"index": -1, "relevance_score": 0.5}]},
        {"results": [{"index": "secret", "relevance_score": 0.5}]}, {"results": [{"index": 0, "relevance_score": "secret"}]},
        {"results": [{"index": True, "relevance_score": 0.5}]},
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_bad_reply(payload: Any) -> None:
    with pytest.raises(BadReply) as caught:
        ranked(payload)
    assert "secret" not in str(caught.value)


def test_a_score_that_is_no_finite_number_is_a_bad_reply() -> None:
    with pytest.raises(BadReply):
        rerank_response(b'{"results": [{"index": 0, "relevance_score": 1e999}]}', ASKED, Heard("m"))


def test_an_error_in_a_reply_of_status_200_is_that_error() -> None:
    with pytest.raises(OutOfQuota):
        ranked({"error": {"code": "insufficient_quota"}})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["index", "relevance_score", "usage", "total_tokens", "meta", "tokens", "input_tokens"]), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["results", "usage", "meta", "error"]), values))
def test_any_object_gives_a_response_or_a_service_error(payload: dict[str, Any]) -> None:
    with contextlib.suppress(ServiceError):
        ranked(payload)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_nearest_document_comes_first(server: LoopbackServer, version: str) -> None:
    documents = ("a dog", "a black cat", "the river")
    response = asked(f"{server.origin}/{version}", Rerank(query="a cat", documents=documents, top_n=2))
    assert isinstance(response, RerankResponse) and [each.index for each in response.results] == [1, 0]
    assert response.usage.estimated == (version == "v2") and response.usage.input_tokens > 0  # Cohere counts searches


@pytest.mark.parametrize(("fault", "kind"), [(Fault(status=429, retry_after=2), RateLimited), (Fault(status=422), Rejected)])
def test_an_error_is_its_kind_without_the_query(server: LoopbackServer, fault: Fault, kind: type[ServiceError]) -> None:
    server.script(fault)
    with pytest.raises(kind) as caught:
        asked(server.url, PLAIN[Rerank])
    assert "cat" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("preset", "base_url", "api_key"),
    [("cohere", "https://api.cohere.com/v2", "env:CO_API_KEY"), ("jina", "https://api.jina.ai/v1", "env:JINA_API_KEY")],
)
def test_a_preset_is_all_that_a_row_needs(preset: str, base_url: str, api_key: str) -> None:
    row = parse_config(ModelRow, ModelRow.filled({"name": "m", "preset": preset}), "model")
    assert (row.base_url, row.key, row.card.tasks) == (base_url, api_key, {Rerank})
