"""Encodes: one loaded encoder and the tasks that its head can do, each as texts to encode and what becomes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
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
from gateway_local.tokens import tokenized

HYPOTHESIS = "This example is {}."
AT_ONCE = 256
"""So many texts are made tokens at once: a few milliseconds, after which others have their turn."""
ANSWERS, ANSWER_TOKENS, QUESTION_TOKENS, WINDOW_TOKENS, OVERLAP_TOKENS = 1, 15, 64, 384, 128
"""What a question asks for where it does not say, as the pipeline of transformers 4 had it."""


COSINE_SCALE = 20.0


class Encodes:
    """One loaded encoder: which texts a request is, and what its response is made of."""

    cache_bytes = 0
    """It keeps nothing from one request to the next."""

    def __init__(self, card: ModelCard, facts: Facts, loaded: Loaded, owner: Owner) -> None:
        self.card = card
        self._facts, self._tokenizer = facts, loaded.tokenizer
        self._pad_id = next((i for i in (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id) if i is not None), 0)
        if facts.head is not None and facts.head.kind in ("extract", "answer"):
            self._tokenizer.truncation_side = "right"  # in windows, which begin at the beginning, nothing is left out
        takes = inspect.signature(loaded.model.forward).parameters
        pairs = "token_type_ids" in takes and facts.types and getattr(loaded.model.config, "type_vocab_size", 2) > 1
        read = _vectors(facts) if facts.embed is not None else READS[facts.head.kind if facts.head is not None else ""]
        self._encoder = Encoder(loaded.model, owner, read, pad_id=self._pad_id, pairs=pairs)
        self._read_at_once = self.card.context or WINDOW_TOKENS

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
            case Classify() if head is None:
                if not request.candidate_labels:
                    options.refuse("candidate_labels", "it has no labels of its own: name some")
                if request.multi_label:
                    options.refuse("multi_label", "it tells which label is nearest, not whether one is near")
                if request.function_to_apply is not None:
                    options.refuse("function_to_apply", "it goes with the labels that a model was trained on", tunes=True)
                made = self._nearest(request)
            case Classify() if head is not None and request.candidate_labels:
                if head.entailment is None:
                    options.refuse("candidate_labels", "no label of it says whether one sentence follows from another")
                if request.function_to_apply is not None:
                    options.refuse("function_to_apply", "it goes with the labels that the model was trained on", tunes=True)
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
        finish = made.finish
        made.finish = lambda outputs: options.noted(finish(outputs))
        return self.serve, made

    def _embed(self, request: Embed) -> Job:
        facts = self._facts.embed
        assert facts is not None
        texts = [facts.prompt + (text.lower() if facts.lower else text) for text in request.texts]

        def finish(outputs: Sequence[Any], usage: Usage) -> EmbedResponse:
            return EmbedResponse(vectors=tuple(map(tuple, outputs)), usage=usage, model=self.card.name)

        return self._texts([(text,) for text in texts], self.card.context, finish)

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
        template, most = request.hypothesis_template or HYPOTHESIS, self.card.context
        pairs = [(request.inputs, template.replace("{}", label)) for label in request.candidate_labels]

        def fits() -> None:
            for _, hypothesis in pairs:
                if most is not None and len(self._tokens([""], [hypothesis], overflowing=False)["input_ids"][0]) >= most:
                    message = f"a hypothesis of candidate_labels is as long as all of the {most} tokens that the model reads"
                    raise Rejected(message, model=self.card.name)

        contradicts = -1 if entails == 0 else 0

        def finish(outputs: Sequence[Any], usage: Usage) -> ClassifyResponse:
            logits = torch.tensor(outputs, dtype=torch.float64)  # (candidates, labels)
            if request.multi_label or len(pairs) == 1:
                scores = logits[:, [contradicts, entails]].softmax(dim=-1)[:, 1]
            else:
                scores = logits[:, entails].softmax(dim=0)
            given = zip(request.candidate_labels, scores.tolist(), strict=True)
            return self._classes([Label(label=label, score=score) for label, score in given], request, usage)

        return self._texts(pairs, self.card.context, finish, truncation="only_first", first=fits)

    def _nearest(self, request: Classify) -> Job:
        """Which label's vector is nearest to the text's: cosines, as sharp as such models are trained to tell (a scale of 20:
        Henderson et al., 2017; sentence-transformers' ranking losses)."""
        facts = self._facts.embed
        assert facts is not None
        template = request.hypothesis_template or "{}"
        texts = [request.inputs, *(template.replace("{}", label) for label in request.candidate_labels)]
        texts = [facts.prompt + (text.lower() if facts.lower else text) for text in texts]

        def finish(outputs: Sequence[Any], usage: Usage) -> ClassifyResponse:
            vectors = torch.nn.functional.normalize(torch.tensor(outputs, dtype=torch.float64), dim=-1)
            scores = (vectors[1:] @ vectors[0] * COSINE_SCALE).softmax(dim=0).tolist()
            given = zip(request.candidate_labels, scores, strict=True)
            return self._classes([Label(label=label, score=score) for label, score in given], request, usage)

        return self._texts([(text,) for text in texts], self.card.context, finish)

    def _classes(self, labels: list[Label], request: Classify, usage: Usage) -> ClassifyResponse:
        labels.sort(key=lambda label: -label.score)
        return ClassifyResponse(labels=tuple(labels[: request.top_k]), usage=usage, model=self.card.name)

    def _rerank(self, request: Rerank) -> Job:
        def finish(outputs: Sequence[Any], usage: Usage) -> RerankResponse:
            order = sorted(range(len(outputs)), key=lambda at: -outputs[at][0])  # where scores are all but 1 they differ yet
            ranked = [Ranked(index=at, relevance_score=scored(outputs[at], "sigmoid")[0]) for at in order]
            return RerankResponse(results=tuple(ranked[: request.top_n]), usage=usage, model=self.card.name)

        pairs = [(request.query, document) for document in request.documents]
        return self._texts(pairs, self.card.context, finish, truncation="longest_first")

    def _extract(self, request: Extract, head: HeadFacts) -> Job:
        windows: list[Window] = []
        most, overlap = self._read_at_once, 0

        def prepare() -> Iterator[list[Row]]:
            nonlocal overlap
            overlap = self._overlap(request.stride, "stride", most // 4, most, ())
            given = self._tokens([request.inputs], truncation=True, max_length=most, stride=overlap)
            windows[:] = [window_of(encoding, 0) for encoding in given.encodings]
            yield [self._row(encoding) for encoding in given.encodings]

        def finish(outputs: Sequence[Any]) -> ExtractResponse:
            tokens = tokens_of(windows, outputs, overlap)
            ignored = ("O",) if request.ignore_labels is None else request.ignore_labels
            spans = spans_of(request.inputs, tokens, head.labels, request.aggregation_strategy or "simple", ignored)
            usage = Usage(input_tokens=sum(window.size for window in windows))
            return ExtractResponse(spans=tuple(spans), usage=usage, model=self.card.name)

        return Job(prepare, finish)

    def _answer(self, request: Answer) -> Job:
        windows: list[Window] = []
        most = min(self._read_at_once, request.max_seq_len or WINDOW_TOKENS)

        def prepare() -> Iterator[list[Row]]:
            question = self._cut(request.question, request.max_question_len or QUESTION_TOKENS)
            overlap = self._overlap(request.doc_stride, "doc_stride", OVERLAP_TOKENS, most, (question,))
            given = self._tokens([question], [request.context], truncation="only_second", max_length=most, stride=overlap)
            windows[:] = [window_of(encoding, 1) for encoding in given.encodings]
            yield [self._row(encoding) for encoding in given.encodings]

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
        *, truncation: str = "longest_first", first: Callable[[], None] = lambda: None,
    ) -> Job:  # fmt: skip
        """A job of texts, or pairs, each of which is cut where the model reads no further."""
        used = 0

        def prepare() -> Iterator[list[Row]]:
            nonlocal used
            cut: Mapping[str, Any] = {} if most is None else {"truncation": truncation, "max_length": most}
            first()
            for at in range(0, len(texts), AT_ONCE):
                given = self._tokens(*zip(*texts[at : at + AT_ONCE], strict=True), overflowing=False, **cut)
                rows = [self._row(encoding) for encoding in given.encodings]
                used += sum(len(row.ids) for row in rows)
                yield rows

        return Job(prepare, lambda outputs: finish(outputs, Usage(input_tokens=used)))

    def _tokens(self, *texts: Sequence[str], overflowing: bool = True, **cut: Any) -> Any:
        """Texts, or pairs of them, as lists: an empty second text by itself would be taken for none."""
        windows = {"return_overflowing_tokens": True, "return_offsets_mapping": True} if overflowing else {}
        return tokenized(self._tokenizer, *map(list, texts), model=self.card.name, **windows, **cut)

    def _cut(self, text: str, most: int) -> str:
        """So much of a text as has so many tokens."""
        given = self._tokens([text], overflowing=False, add_special_tokens=False, return_offsets_mapping=True)
        offsets = given["offset_mapping"][0]
        return text[: offsets[most - 1][1]] if len(offsets) > most else text

    def _overlap(self, asked: int | None, option: str, usual: int, most: int, beside: tuple[str, ...]) -> int:
        """The overlap of windows, at most half of what they have room for: else a long text would be read many times over."""
        room = most - len(self._tokens(*([text] for text in (*beside, "")), overflowing=False)["input_ids"][0])
        if room < 2:
            message = f"a window of {most} tokens has no room for the text beside what it has already"
            raise Rejected(message, model=self.card.name)
        if asked is not None and asked > room // 2:
            message = f"{option} {asked} is more than half of the {room} tokens of text that a window of {most} has room for"
            raise Rejected(message, model=self.card.name)
        return min(usual, room // 2) if asked is None else asked

    def _row(self, encoding: Any) -> Row:
        return Row(encoding.ids, encoding.type_ids) if encoding.ids else Row([self._pad_id])


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
        return _finite(F.normalize(pooled, dim=-1) if embed.normalize else pooled, mask)

    return read


def _finite(values: torch.Tensor, mask: torch.Tensor) -> Sequence[Any]:
    """The rows of `(batch, ...)` as lists."""
    good = torch.isfinite(values).flatten(1).all(dim=1).tolist()
    return [row if fine else None for row, fine in zip(values.tolist(), good, strict=True)]


def _logits(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    return _finite(output.logits.float(), mask)


def _token_logits(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    return _cut(output.logits, mask)


def _ends(output: Any, mask: torch.Tensor) -> Sequence[Any]:
    pairs = zip(_cut(output.start_logits, mask), _cut(output.end_logits, mask), strict=True)
    return [None if start is None or end is None else (start, end) for start, end in pairs]


def _cut(logits: torch.Tensor, mask: torch.Tensor) -> Sequence[Any]:
    """The rows of `(batch, time, ...)` as arrays, without the padding."""
    rows = zip(logits.float().cpu().numpy(), mask.sum(dim=1).tolist(), strict=True)
    cut = [row[:size].copy() for row, size in rows]
    return [row if np.isfinite(row).all() else None for row in cut]


READS: Mapping[str, Read] = {"classify": _logits, "rerank": _logits, "extract": _token_logits, "answer": _ends}
