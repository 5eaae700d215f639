"""Tasks on text beside chat: Rerank, Classify, Extract, Answer, Summarize, Translate.

Their fields are named as Hugging Face's task specifications name them (huggingface.js, packages/tasks); Rerank's as
Cohere's and Jina's APIs do. Offsets count characters, the end excluded. A score is in [0, 1] unless its class says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.card import check_number
from gateway.errors import InvalidRequest
from gateway.parts import Delta
from gateway.request import NOTHING, Request, Response, Traits, as_tuple, check_text, text_bytes

Truncation = Literal["do_not_truncate", "longest_first", "only_first", "only_second"]
FUNCTIONS = ("sigmoid", "softmax", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A class, and how likely it is."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class ClassifyResponse(Response):
    """The classes, the likeliest first."""

    labels: tuple[Label, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Classify(Request[ClassifyResponse]):
    """Which class a text belongs to: one of those that the model was trained on, or of `candidate_labels` (zero-shot).

    With candidate labels `hypothesis_template` holds ``{}`` where a label goes; `multi_label`: each label by itself, else their
    scores sum to 1. `top_k` is how many classes come back at most, `function_to_apply` what makes scores of logits.
    """

    inputs: str = field(repr=False)
    candidate_labels: tuple[str, ...] = field(default=(), repr=False)
    hypothesis_template: str | None = field(default=None, repr=False)
    multi_label: bool | None = None
    top_k: int | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        as_tuple(self, "candidate_labels")
        if not all(isinstance(label, str) and label for label in self.candidate_labels):
            raise InvalidRequest("candidate_labels must be non-empty strings", field="candidate_labels")
        check_maybe_text(self.hypothesis_template, "hypothesis_template")
        if self.hypothesis_template is not None and "{}" not in self.hypothesis_template:
            raise InvalidRequest("hypothesis_template must hold {} where the label goes", field="hypothesis_template")
        check_flag(self.multi_label, "multi_label")
        for name in ("hypothesis_template", "multi_label"):
            if getattr(self, name) is not None and not self.candidate_labels:
                raise InvalidRequest(f"{name} goes with candidate_labels: give both or none", field=name)
        check_number(self.top_k, "top_k", low=1, whole=True)
        check_one_of(self.function_to_apply, "function_to_apply", *FUNCTIONS)

    def traits(self) -> Traits:
        features = frozenset({"zero_shot"}) if self.candidate_labels else NOTHING
        text, labels = text_bytes(self.inputs), [text_bytes(label) for label in self.candidate_labels]
        longest = text + max(labels) if labels else None
        return Traits(input_bytes=text + sum(labels), output_tokens=0, features=features, longest_bytes=longest)

    def accept(self, response: Response) -> Response:
        labels = {each.label for each in response.labels} if isinstance(response, ClassifyResponse) else set()
        if not labels or (self.candidate_labels and not labels <= set(self.candidate_labels)):
            raise ValueError("no classes, or others than those to choose from")
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of a text that is something: a person, a place. `entity_group` is its class, `word` the piece itself."""

    entity_group: str
    score: float
    word: str = field(repr=False)
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class ExtractResponse(Response):
    """What was found, in the text's order."""

    spans: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Extract(Request[ExtractResponse]):
    """Names, places and the like in a text: token classification, its tokens aggregated to spans.

    `aggregation_strategy` says how: "none" gives a span for each token. `ignore_labels` are left out, an empty one leaves
    nothing out; `stride` is the overlap, in tokens, of the windows that a long text is cut into.
    """

    inputs: str = field(repr=False)
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    ignore_labels: tuple[str, ...] | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        if self.ignore_labels is not None:
            as_tuple(self, "ignore_labels")
            if not all(isinstance(label, str) for label in self.ignore_labels):
                raise InvalidRequest("ignore_labels must all be strings", field="ignore_labels")
        check_number(self.stride, "stride", low=0, whole=True)
        check_one_of(self.aggregation_strategy, "aggregation_strategy", "none", "simple", "first", "average", "max")

    def traits(self) -> Traits:
        return Traits(input_bytes=text_bytes(self.inputs), output_tokens=0)

    def accept(self, response: Response) -> Response:
        if not isinstance(response, ExtractResponse) or not _within(response.spans, self.inputs):
            raise ValueError("a span that does not lie in the text")
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer that stands in the context, at `start` to `end`."""

    answer: str = field(repr=False)
    score: float
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class AnswerResponse(Response):
    """The answers, the best first. Empty when the context holds none and the request allows that."""

    answers: tuple[Found, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer(Request[AnswerResponse]):
    """The piece of a context that answers a question.

    Lengths are in tokens; `doc_stride` is the overlap of the windows that a long context is cut into.
    """

    question: str = field(repr=False)
    context: str = field(repr=False)
    top_k: int | None = None
    doc_stride: int | None = None
    max_answer_len: int | None = None
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool | None = None

    def __post_init__(self) -> None:
        check_text(self.question, "question")
        check_text(self.context, "context")
        for name in ("top_k", "max_answer_len", "max_seq_len", "max_question_len"):
            check_number(getattr(self, name), name, low=1, whole=True)
        check_number(self.doc_stride, "doc_stride", low=0, whole=True)
        check_flag(self.handle_impossible_answer, "handle_impossible_answer")
        check_flag(self.align_to_words, "align_to_words")

    def traits(self) -> Traits:
        return Traits(input_bytes=text_bytes((self.question, self.context)), output_tokens=0)

    def accept(self, response: Response) -> Response:
        if not isinstance(response, AnswerResponse) or not _within(response.answers, self.context):
            raise ValueError("an answer that does not lie in the context")
        return response


@dataclass(frozen=True, kw_only=True)
class SummarizeResponse(Response):
    """The summary."""

    summary_text: str = field(repr=False)

    def deltas(self) -> Sequence[Delta]:
        return (Delta(self.summary_text),) if self.summary_text else ()


@dataclass(frozen=True, kw_only=True)
class Summarize(Request[SummarizeResponse]):
    """A shorter text that says the same. `generate_parameters` go to the model's generation: ``{"max_new_tokens": 60}``."""

    inputs: str = field(repr=False)
    truncation: Truncation | None = None
    clean_up_tokenization_spaces: bool | None = None
    generate_parameters: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        _check_writing(self)

    def traits(self) -> Traits:
        return Traits(input_bytes=text_bytes(self.inputs))


@dataclass(frozen=True, kw_only=True)
class TranslateResponse(Response):
    """The text in the other language."""

    translation_text: str = field(repr=False)

    def deltas(self) -> Sequence[Delta]:
        return (Delta(self.translation_text),) if self.translation_text else ()


@dataclass(frozen=True, kw_only=True)
class Translate(Request[TranslateResponse]):
    """The text in another language. `src_lang` and `tgt_lang` are the model's own names; needed where it speaks several."""

    inputs: str = field(repr=False)
    src_lang: str | None = None
    tgt_lang: str | None = None
    truncation: Truncation | None = None
    clean_up_tokenization_spaces: bool | None = None
    generate_parameters: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_text(self.inputs, "inputs")
        check_maybe_text(self.src_lang, "src_lang")
        check_maybe_text(self.tgt_lang, "tgt_lang")
        _check_writing(self)

    def traits(self) -> Traits:
        return Traits(input_bytes=text_bytes(self.inputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A document by its place in the request, and how relevant it is. Scores of two models cannot be compared."""

    index: int
    relevance_score: float


@dataclass(frozen=True, kw_only=True)
class RerankResponse(Response):
    """The documents, the most relevant first."""

    results: tuple[Ranked, ...]


@dataclass(frozen=True, kw_only=True)
class Rerank(Request[RerankResponse]):
    """Documents in the order in which they answer a query, of which the `top_n` best come back."""

    query: str = field(repr=False)
    documents: tuple[str, ...] = field(repr=False)
    top_n: int | None = None

    def __post_init__(self) -> None:
        check_text(self.query, "query")
        as_tuple(self, "documents")
        if not self.documents:
            raise InvalidRequest("documents is empty: give at least one", field="documents")
        if not all(isinstance(document, str) for document in self.documents):
            raise InvalidRequest("documents must all be strings", field="documents")
        check_number(self.top_n, "top_n", low=1, whole=True)

    def traits(self) -> Traits:
        query, documents = text_bytes(self.query), [text_bytes(document) for document in self.documents]
        size = query * len(documents) + sum(documents)
        return Traits(input_bytes=size, output_tokens=0, longest_bytes=query + max(documents))

    def accept(self, response: Response) -> Response:
        results = response.results if isinstance(response, RerankResponse) else ()
        places = [ranked.index for ranked in results]
        wanted = min(self.top_n or len(self.documents), len(self.documents))
        if len(set(places)) != wanted or len(places) != wanted or not set(places) <= set(range(len(self.documents))):
            raise ValueError(f"not {wanted} different documents of the {len(self.documents)}")
        return response


def check_one_of(value: object, name: str, *known: str) -> None:
    """Refuse what is none of the known words. None passes, here and below."""
    if value is not None and value not in known:
        raise InvalidRequest(f"{name} is none of {', '.join(known)}", field=name)


def check_flag(value: object, name: str) -> None:
    """Refuse what is neither true nor false."""
    if value is not None and type(value) is not bool:
        raise InvalidRequest(f"{name} must be true or false", field=name)


def check_mapping(value: object, name: str) -> None:
    """Refuse what is no mapping of names to values."""
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise InvalidRequest(f"{name} must be a mapping of names to values", field=name)


def check_maybe_text(value: object, name: str, *, empty: bool = False) -> None:
    """Refuse what is no string; or an empty one, unless that may be."""
    if value is not None and not (empty and value == ""):
        check_text(value, name)


def _check_writing(request: Summarize | Translate) -> None:
    check_one_of(request.truncation, "truncation", "do_not_truncate", "longest_first", "only_first", "only_second")
    check_flag(request.clean_up_tokenization_spaces, "clean_up_tokenization_spaces")
    check_mapping(request.generate_parameters, "generate_parameters")


def _within(pieces: Sequence[Span] | Sequence[Found], text: str) -> bool:
    """True when every piece lies in the text."""
    return all(0 <= piece.start <= piece.end <= len(text) for piece in pieces)
