"""Encodes: one loaded encoder and the tasks that its head can do, each as texts to encode and what becomes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from gateway import (
    Answer,
    AnswerResponse,
    Classify,
    ClassifyResponse,
    Embed,
    EmbedResponse,
    Extract,
    ExtractResponse,
    Label,
    ModelCard,
    Options,
    Ranked,
    Rejected,
    Request,
    Rerank,
    RerankResponse,
    Response,
    UnsupportedTask,
    Usage,
)
from gateway_local.batcher import Job, Row
from gateway_local.embed import pool
from gateway_local.encoder import Encoder, Read
from gateway_local.facts import Facts
from gateway_local.heads import HeadFacts
from gateway_local.load import Loaded
from gateway_local.owner import Call, Owner, given_up
from gateway_local.render import HINT
from gateway_local.spans import Window, answers_of, spans_of, tokens_of

HYPOTHESIS = "This example is {}."
ANSWERS, ANSWER_TOKENS, QUESTION_TOKENS, WINDOW_TOKENS, OVERLAP_TOKENS = 1, 15, 64, 384, 128
"""What a question asks for where it does not say, as the pipeline of transformers 4 had it."""


class Encodes:
    """One loaded encoder: which texts a request is, and what its response is made of."""

    def __init__(self, card: ModelCard, facts: Facts, loaded: Loaded, owner: Owner) -> None:
        self.card = card
        self._facts, self._tokenizer = facts, loaded.tokenizer
        fallback = next((i for i in (loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id) if i is not None), 0)
        self._nothing = fallback
        takes = inspect.signature(loaded.model.forward).parameters
        pairs = "token_type_ids" in takes and getattr(loaded.model.config, "type_vocab_size", 2) > 1
        read = _vectors(facts) if facts.embed is not None else READS[facts.head.kind if facts.head is not None else ""]
        self._encoder = Encoder(loaded.model, owner, read, pad_id=fallback, pairs=pairs)
        self._read_at_once = min(self.card.context or WINDOW_TOKENS, 1 << 20)

    def serve(self, call: Call) -> Response:
        """The response to the request of a call's job."""
        response = self._encoder.serve(call)
        if response is None:
            raise given_up(self.card.name)
        return response

    def work(self, request: Request[Any], options: Options) -> tuple[Callable[[Call], Response], Job]:
        """What the owner's thread is to do for a request, and its texts; refuses what this model cannot do."""
        head = self._facts.head
        match request:
            case Embed():
                if request.dimensions is not None:
                    options.refuse("dimensions", HINT, tunes=True)
                made = self._embed(request)
            case Classify() if head is not None and request.candidate_labels:
                if head.entailment is None:
                    options.refuse("candidate_labels", "no label of it says whether one sentence follows from another")
                made = self._zero_shot(request, head)
            case Classify() if head is not None:
                made = self._classify(request, head)
            case Rerank():
                made = self._rerank(request)
            case Extract() if head is not None:
                made = self._extract(request, head)
            case Answer():
                made = self._answer(request)
            case _:
                raise UnsupportedTask.of(self.card, request)
        return self.serve, Job(made.prepare, lambda outputs: options.noted(made.finish(outputs)))

    def _embed(self, request: Embed) -> Job:
        facts = self._facts.embed
        assert facts is not None
        texts = [facts.prompt + (text.lower() if facts.lower else text) for text in request.texts]
        job = self._texts([(text,) for text in texts], self.card.context, lambda outputs, usage: EmbedResponse(
            vectors=tuple(map(tuple, outputs)), usage=usage, model=self.card.name))  # fmt: skip
        return job

    def _classify(self, request: Classify, head: HeadFacts) -> Job:
        def finish(outputs: Sequence[Any], usage: Usage) -> ClassifyResponse:
            scores = scored(outputs[0], request.function_to_apply or head.function)
            labels = [Label(label=label, score=score) for label, score in zip(head.labels, scores, strict=True)]
            return self._classes(labels, request, usage)

        return self._texts([(request.inputs,)], self.card.context, finish)

    def _zero_shot(self, request: Classify, head: HeadFacts) -> Job:
        """Whether "this is about X" follows from the text, for each label (Yin, Hay and Roth, 2019)."""
        entails = head.entailment
        assert entails is not None
        template = request.hypothesis_template or HYPOTHESIS
        pairs = [(request.inputs, template.replace("{}", label)) for label in request.candidate_labels]
        contradicts = -1 if entails == 0 else 0

        def finish(outputs: Sequence[Any], usage: Usage) -> ClassifyResponse:
            logits = torch.tensor(outputs, dtype=torch.float64)  # (candidates, labels)
            if request.multi_label or len(pairs) == 1:
                scores = logits[:, [contradicts, entails]].softmax(dim=-1)[:, 1]
            else:
                scores = logits[:, entails].softmax(dim=0)
            given = zip(request.candidate_labels, scores.tolist(), strict=True)
            return self._classes([Label(label=label, score=score) for label, score in given], request, usage)

        return self._texts(pairs, self.card.context, finish, truncation="only_first")

    def _classes(self, labels: list[Label], request: Classify, usage: Usage) -> ClassifyResponse:
        labels.sort(key=lambda label: -label.score)
        return ClassifyResponse(labels=tuple(labels[: request.top_k]), usage=usage, model=self.card.name)

    def _rerank(self, request: Rerank) -> Job:
        def finish(outputs: Sequence[Any], usage: Usage) -> RerankResponse:
            scores = [scored(output, "sigmoid")[0] for output in outputs]
            ranked = [Ranked(index=at, relevance_score=score) for at, score in enumerate(scores)]
            ranked.sort(key=lambda each: -each.relevance_score)
            return RerankResponse(results=tuple(ranked[: request.top_n]), usage=usage, model=self.card.name)

        pairs = [(request.query, document) for document in request.documents]
        return self._texts(pairs, self.card.context, finish, truncation="longest_first")

    def _extract(self, request: Extract, head: HeadFacts) -> Job:
        windows: list[Window] = []
        most = self._read_at_once
        stride = most // 4 if request.stride is None else request.stride

        def prepare() -> list[Row]:
            given = self._tokens((request.inputs,), truncation=True, max_length=most, stride=self._overlap(stride, most, ()))
            windows[:] = [window_of(encoding, 0) for encoding in given.encodings]
            return [Row(encoding.ids, encoding.type_ids) for encoding in given.encodings]

        def finish(outputs: Sequence[Any]) -> ExtractResponse:
            tokens = tokens_of(windows, outputs)
            ignored = ("O",) if request.ignore_labels is None else request.ignore_labels
            spans = spans_of(request.inputs, tokens, head.labels, request.aggregation_strategy or "simple", ignored)
            usage = Usage(input_tokens=sum(window.size for window in windows))
            return ExtractResponse(spans=tuple(spans), usage=usage, model=self.card.name)

        return Job(prepare, finish)

    def _answer(self, request: Answer) -> Job:
        windows: list[Window] = []
        most = min(self._read_at_once, request.max_seq_len or WINDOW_TOKENS)

        def prepare() -> list[Row]:
            question = self._cut(request.question, request.max_question_len or QUESTION_TOKENS)
            stride = OVERLAP_TOKENS if request.doc_stride is None else request.doc_stride
            overlap = self._overlap(stride, most, (question,))
            given = self._tokens((question, request.context), truncation="only_second", max_length=most, stride=overlap)
            windows[:] = [window_of(encoding, 1) for encoding in given.encodings]
            return [Row(encoding.ids, encoding.type_ids) for encoding in given.encodings]

        def finish(outputs: Sequence[Any]) -> AnswerResponse:
            starts, ends = zip(*outputs, strict=True)
            found = answers_of(
                request.context, windows, starts, ends,
                top_k=request.top_k or ANSWERS, most_tokens=request.max_answer_len or ANSWER_TOKENS,
                impossible=request.handle_impossible_answer is True, words=request.align_to_words is not False,
            )  # fmt: skip
            usage = Usage(input_tokens=sum(window.size for window in windows))
            return AnswerResponse(answers=tuple(found), usage=usage, model=self.card.name)

        return Job(prepare, finish)

    def _texts(
        self, texts: Sequence[tuple[str, ...]], most: int | None, finish: Callable[[Sequence[Any], Usage], Response],
        *, truncation: str = "longest_first",
    ) -> Job:  # fmt: skip
        """A job of texts, or pairs, each of which is cut where the model reads no further."""
        used = 0

        def prepare() -> list[Row]:
            nonlocal used
            cut: Mapping[str, Any] = {} if most is None else {"truncation": truncation, "max_length": most}
            rows = []
            for text in texts:
                [encoding] = self._tokens(text, overflowing=False, **cut).encodings
                rows.append(Row(encoding.ids, encoding.type_ids) if encoding.ids else Row([self._nothing]))
            used = sum(len(row.ids) for row in rows)
            return rows

        return Job(prepare, lambda outputs: finish(outputs, Usage(input_tokens=used)))

    def _tokens(self, texts: tuple[str, ...], *, overflowing: bool = True, **cut: Any) -> Any:
        windows = {"return_overflowing_tokens": True, "return_offsets_mapping": True} if overflowing else {}
        try:
            # As lists of one: an empty second text alone would be taken for none.
            return self._tokenizer(*([text] for text in texts), verbose=False, **windows, **cut)
        except (TypeError, UnicodeError) as error:
            message = "the text holds a lone surrogate, which is no character: decode its source as UTF-8 first"
            raise Rejected(message, model=self.card.name) from error

    def _cut(self, text: str, most: int) -> str:
        """So much of a text as has so many tokens."""
        given = self._tokens((text,), overflowing=False, add_special_tokens=False, return_offsets_mapping=True)
        offsets = given["offset_mapping"][0]
        return text[: offsets[most - 1][1]] if len(offsets) > most else text

    def _overlap(self, asked: int, most: int, beside: tuple[str, ...]) -> int:
        """The overlap of windows: less than what a window has room for, or they would not get on."""
        taken = len(self._tokens((*beside, ""), overflowing=False)["input_ids"][0])
        if most - taken < 1:
            message = f"a window of {most} tokens has no room for the text beside the {taken} that it has already"
            raise Rejected(message, model=self.card.name)
        return min(asked, most - taken - 1)


def window_of(encoding: Any, sequence: int) -> Window:
    """What a window shows of the first text, or of the second."""
    places = [at for at, which in enumerate(encoding.sequence_ids) if which == sequence]
    offsets = [encoding.offsets[at] for at in places]
    words: dict[Any, tuple[int, int]] = {}
    for at, (start, end) in zip(places, offsets, strict=True):
        word = encoding.word_ids[at]
        known = words.get(word)
        words[word] = (start, end) if known is None else (min(known[0], start), max(known[1], end))
    return Window(len(encoding.ids), places, offsets, [words[encoding.word_ids[at]] for at in places])


def scored(logits: Sequence[float], function: str) -> list[float]:
    """Logits as scores."""
    values = torch.tensor(logits, dtype=torch.float64)
    match function:
        case "sigmoid":
            values = values.sigmoid()
        case "softmax":
            values = values.softmax(dim=-1)
    return [float(value) for value in values.tolist()]


def _vectors(facts: Facts) -> Read:
    embed = facts.embed
    assert embed is not None

    def read(output: Any, mask: torch.Tensor) -> Sequence[Any]:
        pooled = pool(output.last_hidden_state.float(), mask, embed.pooling)  # (batch, width)
        vectors: list[list[float]] = (F.normalize(pooled, dim=-1) if embed.normalize else pooled).tolist()
        return vectors

    return read


def _logits(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    values: list[list[float]] = output.logits.float().tolist()
    return values


def _token_logits(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    logits = output.logits.float().cpu().numpy()  # (batch, time, labels)
    return [row[:size] for row, size in zip(logits, mask.sum(dim=1).tolist(), strict=True)]


def _ends(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    start, end = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()  # (batch, time)
    sizes = mask.sum(dim=1).tolist()
    return [(one[:size], other[:size]) for one, other, size in zip(start, end, sizes, strict=True)]


READS: Mapping[str, Read] = {"classify": _logits, "rerank": _logits, "extract": _token_logits, "answer": _ends}
