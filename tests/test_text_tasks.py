"""Tasks on text: what is refused when a request is made, what routing may know of it, and which reply fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    Answer,
    AnswerResponse,
    ChatResponse,
    Classify,
    ClassifyResponse,
    Delta,
    Extract,
    ExtractResponse,
    Found,
    InvalidRequest,
    Label,
    Meta,
    Ranked,
    Request,
    Rerank,
    RerankResponse,
    Response,
    Span,
    Summarize,
    SummarizeResponse,
    Text,
    Translate,
    TranslateResponse,
    assemble,
)

CANARY = "canary-4711"
TEXT = "Mr. Brown flew from Bern to Paris."
PLAIN: Mapping[type[Request[Any]], Request[Any]] = {
    type(request): request
    for request in (
        Classify(inputs=TEXT),
        Extract(inputs=TEXT),
        Answer(question="Where?", context=TEXT),
        Summarize(inputs=TEXT),
        Translate(inputs=TEXT),
        Rerank(query="flight", documents=("a", "é")),
    )
}


@pytest.mark.parametrize(
    ("task", "options", "field"),
    [
        (Classify, {"inputs": ""}, "inputs"),
        (Classify, {"inputs": 3}, "inputs"),
        (Classify, {"candidate_labels": ("a", "")}, "candidate_labels"),
        (Classify, {"candidate_labels": 3}, "candidate_labels"),
        (Classify, {"candidate_labels": ("a",), "hypothesis_template": "no place for it"}, "hypothesis_template"),
        (Classify, {"candidate_labels": ("a",), "hypothesis_template": 3}, "hypothesis_template"),
        (Classify, {"hypothesis_template": "It is {}."}, "hypothesis_template"),
        (Classify, {"multi_label": True}, "multi_label"),
        (Classify, {"candidate_labels": ("a",), "multi_label": "yes"}, "multi_label"),
        (Classify, {"top_k": 0}, "top_k"),
        (Classify, {"top_k": 1.5}, "top_k"),
        (Classify, {"function_to_apply": "tanh"}, "function_to_apply"),
        (Extract, {"inputs": None}, "inputs"),
        (Extract, {"aggregation_strategy": "most"}, "aggregation_strategy"),
        (Extract, {"ignore_labels": (3,)}, "ignore_labels"),
        (Extract, {"ignore_labels": 3}, "ignore_labels"),
        (Extract, {"stride": -1}, "stride"),
        (Answer, {"question": ""}, "question"),
        (Answer, {"context": ""}, "context"),
        (Answer, {"top_k": 0}, "top_k"),
        (Answer, {"doc_stride": -1}, "doc_stride"),
        (Answer, {"max_answer_len": 0}, "max_answer_len"),
        (Answer, {"max_seq_len": 0}, "max_seq_len"),
        (Answer, {"max_question_len": True}, "max_question_len"),
        (Answer, {"handle_impossible_answer": 1}, "handle_impossible_answer"),
        (Answer, {"align_to_words": "no"}, "align_to_words"),
        (Summarize, {"inputs": ""}, "inputs"),
        (Summarize, {"truncation": "all"}, "truncation"),
        (Summarize, {"clean_up_tokenization_spaces": 1}, "clean_up_tokenization_spaces"),
        (Summarize, {"generate_parameters": [1]}, "generate_parameters"),
        (Summarize, {"generate_parameters": {3: 1}}, "generate_parameters"),
        (Translate, {"inputs": b"a"}, "inputs"),
        (Translate, {"src_lang": ""}, "src_lang"),
        (Translate, {"tgt_lang": 3}, "tgt_lang"),
        (Translate, {"truncation": "all"}, "truncation"),
        (Translate, {"clean_up_tokenization_spaces": 1}, "clean_up_tokenization_spaces"),
        (Translate, {"generate_parameters": "a"}, "generate_parameters"),
        (Rerank, {"query": ""}, "query"),
        (Rerank, {"documents": ()}, "documents"),
        (Rerank, {"documents": ("a", 3)}, "documents"),
        (Rerank, {"documents": 3}, "documents"),
        (Rerank, {"top_n": 0}, "top_n"),
    ],
)
def test_what_is_wrong_by_itself_is_refused_by_field(task: type[Request[Any]], options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        replace(PLAIN[task], **options)
    assert caught.value.field == field and CANARY not in str(caught.value)


SPECIFICATIONS = {
    Classify: ("text-classification", "zero-shot-classification"), Extract: ("token-classification",),
    Answer: ("question-answering",), Summarize: ("summarization",), Translate: ("translation",),
}  # fmt: skip


@pytest.mark.parametrize("task", SPECIFICATIONS)
def test_the_fields_are_those_of_hugging_face_s_specifications(task: type[Request[Any]]) -> None:
    types = pytest.importorskip("huggingface_hub.inference._generated.types")
    names: set[str] = set()
    for name in SPECIFICATIONS[task]:
        words = "".join(word.title() for word in name.split("-"))
        names |= set(getattr(types, f"{words}Parameters").__dataclass_fields__)
    inputs = {"question", "context"} if task is Answer else {"inputs"}
    assert {f.name for f in fields(task)} == names | inputs | {"meta"}


def test_a_list_becomes_a_tuple_and_a_lone_string_one_of_a_single_item() -> None:
    assert Classify(inputs="a", candidate_labels=["x", "y"]).candidate_labels == ("x", "y")  # type: ignore[arg-type]
    assert Rerank(query="q", documents="only").documents == ("only",)  # type: ignore[arg-type]
    assert Extract(inputs="a", ignore_labels=[]).ignore_labels == ()  # type: ignore[arg-type]
    assert Extract(inputs="a").ignore_labels is None


@given(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=3))
def test_traits_count_the_text_in_utf_8_bytes(text: str, others: list[str]) -> None:
    size, more = len(text.encode("utf-8", "replace")), [len(other.encode("utf-8", "replace")) for other in others]
    labels = tuple(others)
    assert Classify(inputs=text, candidate_labels=labels).traits().input_bytes == size + sum(more)
    for request in (Extract(inputs=text), Summarize(inputs=text), Translate(inputs=text)):
        assert request.traits().input_bytes == size
    assert Answer(question=text, context=text).traits().input_bytes == 2 * size
    if others:  # the query is read with each document
        assert Rerank(query=text, documents=labels).traits().input_bytes == size * len(others) + sum(more)
        assert Rerank(query=text, documents=labels).traits().longest_bytes == size + max(more)
        assert Classify(inputs=text, candidate_labels=labels).traits().longest_bytes == size + max(more)


def test_only_what_writes_has_an_output_that_cannot_be_told() -> None:
    unknown = {type(request) for request in PLAIN.values() if request.traits().output_tokens is None}
    assert unknown == {Summarize, Translate}
    assert all(request.traits().output_tokens in (0, None) for request in PLAIN.values())
    assert all(request.traits().modalities == {"text"} for request in PLAIN.values())


@pytest.mark.parametrize("drop", [False, True])
def test_labels_to_choose_from_need_a_model_that_can_whatever_may_be_dropped(drop: bool) -> None:
    meta = Meta(drop_unsupported=drop)
    assert Classify(inputs="a", candidate_labels=("x",), meta=meta).traits().features == {"zero_shot"}
    assert all(replace(request, meta=meta).traits().features == frozenset() for request in PLAIN.values())


def labels(*names: str) -> ClassifyResponse:
    return ClassifyResponse(labels=tuple(Label(label=name, score=0.5) for name in names))


def span(start: int, end: int) -> ExtractResponse:
    return ExtractResponse(spans=(Span(entity_group="PER", score=0.5, word="x", start=start, end=end),))


def found(start: int, end: int) -> AnswerResponse:
    return AnswerResponse(answers=(Found(answer="x", score=0.5, start=start, end=end),))


def ranked(*places: int) -> RerankResponse:
    return RerankResponse(results=tuple(Ranked(index=place, relevance_score=0.5) for place in places))


CHOICE = Classify(inputs=TEXT, candidate_labels=("a", "b"))
END = len(TEXT)


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (PLAIN[Classify], labels("a")), (CHOICE, labels("b")), (CHOICE, labels("b", "a")),
        (PLAIN[Extract], span(0, END)), (PLAIN[Extract], ExtractResponse(spans=())),
        (PLAIN[Answer], found(0, END)), (PLAIN[Answer], AnswerResponse(answers=())),
        (PLAIN[Summarize], SummarizeResponse(summary_text="")), (PLAIN[Translate], TranslateResponse(translation_text="")),
        (PLAIN[Rerank], ranked(1, 0)), (Rerank(query="q", documents=("a", "b"), top_n=1), ranked(1)),
        (Rerank(query="q", documents=("a",), top_n=9), ranked(0)),
    ],
)  # fmt: skip
def test_a_reply_that_fits_is_taken_as_it_is(request_: Request[Any], response: Response) -> None:
    assert request_.accept(response) is response


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (PLAIN[Classify], labels()), (PLAIN[Classify], ChatResponse.of("a")), (CHOICE, labels("a", "c")), (CHOICE, labels()),
        (PLAIN[Extract], span(0, END + 1)), (PLAIN[Extract], span(-1, 3)), (PLAIN[Extract], span(3, 2)),
        (PLAIN[Extract], labels("a")), (PLAIN[Answer], found(0, END + 1)), (PLAIN[Answer], found(4, 3)),
        (PLAIN[Answer], labels("a")), (PLAIN[Rerank], ranked(0)), (PLAIN[Rerank], ranked(0, 0)), (PLAIN[Rerank], ranked(0, 2)),
        (PLAIN[Rerank], ranked(0, 1, 1)), (PLAIN[Rerank], labels("a")),
    ],
)  # fmt: skip
def test_a_reply_that_does_not_fit_is_refused(request_: Request[Any], response: Response) -> None:
    with pytest.raises(ValueError):
        request_.accept(response)


@given(st.text())
def test_a_stream_of_what_was_written_adds_up_to_it(text: str) -> None:
    for response in (SummarizeResponse(summary_text=text), TranslateResponse(translation_text=text)):
        assert assemble(response.deltas()) == ((Text(text),) if text else ())
        assert list(response.deltas()) == ([Delta(text)] if text else [])
    assert labels("a").deltas() == ranked(0).deltas() == ()


def test_no_repr_shows_content() -> None:
    secret = f"before {CANARY} after"
    things: list[object] = [
        Classify(inputs=secret, candidate_labels=(secret,), hypothesis_template=secret + "{}"), Extract(inputs=secret),
        Answer(question=secret, context=secret), Summarize(inputs=secret, generate_parameters={"prefix": secret}),
        Translate(inputs=secret, generate_parameters={"prefix": secret}), Rerank(query=secret, documents=(secret,)),
        labels(secret), ExtractResponse(spans=(Span(entity_group="A", score=1, word=secret, start=0, end=1),)),
        Span(entity_group="A", score=1, word=secret, start=0, end=1), Found(answer=secret, score=1, start=0, end=1),
        AnswerResponse(answers=(Found(answer=secret, score=1, start=0, end=1),)), SummarizeResponse(summary_text=secret),
        TranslateResponse(translation_text=secret),
    ]  # fmt: skip
    for thing in things:
        assert CANARY not in repr(thing) + str(thing) + repr([thing])


@pytest.mark.parametrize(
    ("specification", "record"),
    [
        ("TextClassificationOutputElement", Label), ("ZeroShotClassificationOutputElement", Label),
        ("TokenClassificationOutputElement", Span), ("QuestionAnsweringOutputElement", Found),
        ("SummarizationOutput", SummarizeResponse), ("TranslationOutput", TranslateResponse),
    ],
)  # fmt: skip
def test_what_comes_back_is_named_as_the_specifications_name_it(specification: str, record: type[Any]) -> None:
    types = pytest.importorskip("huggingface_hub.inference._generated.types")
    # Of a span's two names for its class ours is the group's.
    names = set(getattr(types, specification).__dataclass_fields__) - {"entity"}
    assert names <= {f.name for f in fields(record)}
