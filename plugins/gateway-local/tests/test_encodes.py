"""What encoders with heads answer: as transformers' own pipelines have it, one request or many at once."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_local import LocalModel
from gateway_local.batcher import Job

from gateway import (
    Answer,
    Classify,
    Extract,
    Meta,
    Overloaded,
    Rejected,
    Request,
    Rerank,
    Resources,
    ServiceCrashed,
    UnsupportedOption,
    UnsupportedTask,
    WeightsError,
)

TEXT = "the cats sat on the mat , and the dog ran to the river ."
LONG = "the dog ran to the wide river . a cat sat on the mat and the dog running to the sea sat . " * 4
NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def asked(started: Any, path: Path, *requests: Request[Any], **options: Any) -> list[Any]:
    async def whole() -> list[Any]:
        async with started(path, **options) as model:
            return list(await asyncio.gather(*(model.run(request) for request in requests)))

    return asyncio.run(whole())


def pipeline(task: str, path: Path, **options: Any) -> Any:
    import transformers

    library: Any = transformers
    kind = {"text-classification": "SequenceClassification", "zero-shot-classification": "SequenceClassification",
            "token-classification": "TokenClassification"}[task]  # fmt: skip
    model = getattr(library, f"BertFor{kind}").from_pretrained(path)
    return library.pipeline(task, model=model, tokenizer=tokenizer_of(path), **options)


def tokenizer_of(path: Path) -> Any:
    """The tokenizer as a model card of BERT's family has it: it tells which token is of which text."""
    import transformers

    library: Any = transformers
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    file = str(path / "tokenizer.json")
    return library.PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=32, model_input_names=inputs, **names)


def near(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) < 1e-5


@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_classes_are_those_of_the_pipeline(make: Any, started: Any, function: Any, problem: str | None) -> None:
    path = make("SequenceClassification", labels=("bad", "middling", "good"), problem_type=problem)
    [reply] = asked(started, path, Classify(inputs=TEXT, function_to_apply=function))
    theirs = pipeline("text-classification", path)(TEXT, top_k=None, function_to_apply=function)
    assert [label.label for label in reply.labels] == [each["label"] for each in theirs]
    assert all(near(label.score, each["score"]) for label, each in zip(reply.labels, theirs, strict=True))
    [best] = asked(started, path, Classify(inputs=TEXT, function_to_apply=function, top_k=1))
    assert best.labels == reply.labels[:1] and best.usage.input_tokens == 18


@pytest.mark.parametrize("labels", [("entailment", "neutral", "contradiction"), ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")])
@pytest.mark.parametrize("multi", [None, True])
def test_labels_of_one_s_own_are_judged_as_the_pipeline_does(make: Any, started: Any, labels: Any, multi: Any) -> None:
    path = make("SequenceClassification", labels=labels)
    names = ("a dog", "the sea", "mat")
    for template, chosen in ((None, names), ("the {} .", names), (None, names[:1])):
        request = Classify(inputs=TEXT, candidate_labels=chosen, hypothesis_template=template, multi_label=multi)
        [reply] = asked(started, path, request)
        options = {"hypothesis_template": template} if template else {}
        theirs = pipeline("zero-shot-classification", path)(TEXT, list(chosen), multi_label=bool(multi), **options)
        assert [label.label for label in reply.labels] == theirs["labels"]
        assert all(near(label.score, score) for label, score in zip(reply.labels, theirs["scores"], strict=True))


def test_a_model_that_cannot_tell_what_follows_refuses_labels_of_one_s_own(make: Any, started: Any, lent: Resources) -> None:
    path = make("SequenceClassification", labels=("bad", "good"))
    with pytest.raises(UnsupportedOption, match="candidate_labels"):
        asked(started, path, Classify(inputs=TEXT, candidate_labels=("a", "b")))

    async def features(path: Path) -> frozenset[str]:
        async with started(path) as model:
            return model._copies.there[0].answers.card.features

    assert asyncio.run(features(path)) == frozenset()
    assert asyncio.run(features(make("TokenClassification", labels=NER))) == {"any_length"}
    assert asyncio.run(features(make("QuestionAnswering"))) == {"any_length"}
    nli = make("SequenceClassification", labels=("entailment", "neutral", "contradiction"))
    assert asyncio.run(features(nli)) == {"zero_shot"}


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_spans_are_those_of_the_pipeline(make: Any, started: Any, strategy: Any) -> None:
    path = make("TokenClassification", labels=NER)
    for ignored in (None, (), ("O", "LOC", "B-LOC", "I-LOC")):
        [reply] = asked(started, path, Extract(inputs=TEXT, aggregation_strategy=strategy, ignore_labels=ignored))
        theirs = pipeline("token-classification", path, aggregation_strategy=strategy,
                          ignore_labels=["O"] if ignored is None else list(ignored))(TEXT)  # fmt: skip
        name = "entity" if strategy == "none" else "entity_group"
        assert [(span.entity_group, span.start, span.end) for span in reply.spans] == [
            (each[name], each["start"], each["end"]) for each in theirs
        ]
        assert all(near(span.score, each["score"]) for span, each in zip(reply.spans, theirs, strict=True))
        assert all(span.word == TEXT[span.start : span.end] for span in reply.spans)


def test_a_long_text_is_read_in_windows_and_each_word_judged_once(make: Any, started: Any) -> None:
    path = make("TokenClassification", labels=NER)
    for stride in (None, 0, 1, 5, 14):
        request = Extract(inputs=LONG, aggregation_strategy="none", ignore_labels=(), stride=stride)
        [reply] = asked(started, path, request)
        assert "".join(LONG[span.start : span.end] for span in reply.spans) == LONG.replace(" ", "")
        assert all(a.end <= b.start for a, b in zip(reply.spans, reply.spans[1:], strict=False))


def test_an_overlap_that_would_read_a_text_many_times_over_is_refused(make: Any, started: Any) -> None:
    with pytest.raises(Rejected, match="stride 1000 is more than half of the 30 tokens"):
        asked(started, make("TokenClassification", labels=NER), Extract(inputs=LONG, stride=1000))
    with pytest.raises(Rejected, match="doc_stride 20 is more than half"):
        asked(started, make("QuestionAnswering"), Answer(question="the cat ?", context=LONG, doc_stride=20))
    [reply] = asked(started, make("QuestionAnswering"), Answer(question="the cat ?", context=LONG))
    assert reply.usage.input_tokens < 5 * len(LONG.split())


def test_an_emoji_that_a_window_cuts_loses_none_of_its_tokens(make: Any, started: Any) -> None:
    path = make("TokenClassification", labels=NER, words=False)
    counts = set()
    for stride in (0, 1, 2, 5, None):
        request = Extract(inputs="😀🎉" * 12, aggregation_strategy="none", ignore_labels=(), stride=stride)
        counts.add(len(asked(started, path, request)[0].spans))
    assert counts == {96}


def test_a_text_without_tokens_holds_nothing(make: Any, started: Any) -> None:
    assert asked(started, make("TokenClassification", labels=NER), Extract(inputs="   "))[0].spans == ()


def test_offsets_are_characters_whatever_the_bytes(make: Any, started: Any) -> None:
    path = make("TokenClassification", labels=NER, words=False)
    text = "the cat 🐈 Grüße 日本 ran"
    [reply] = asked(started, path, Extract(inputs=text, aggregation_strategy="none", ignore_labels=()))
    assert {(span.start, span.end) for span in reply.spans} >= {(8, 9)} or any(
        span.word.strip() == "🐈" for span in reply.spans
    )
    assert all(0 <= span.start <= span.end <= len(text) and span.word == text[span.start : span.end] for span in reply.spans)


def test_documents_are_ranked_by_the_model_s_own_number(make: Any, started: Any) -> None:
    import torch
    import transformers

    path = make("SequenceClassification", num_labels=1)
    documents = ("the sea is wide", "a cat sat on the mat", "the dog ran", "")
    [reply] = asked(started, path, Rerank(query="the cat ?", documents=documents))
    library: Any = transformers
    model = library.BertForSequenceClassification.from_pretrained(path)
    tokenizer = tokenizer_of(path)
    with torch.inference_mode():
        inputs = tokenizer(["the cat ?"] * 4, list(documents), return_tensors="pt", padding=True)
        theirs = model(**inputs).logits[:, 0].sigmoid().tolist()
    assert [each.index for each in reply.results] == sorted(range(4), key=lambda at: -theirs[at])
    assert all(near(each.relevance_score, theirs[each.index]) for each in reply.results)
    [best] = asked(started, path, Rerank(query="the cat ?", documents=documents, top_n=2))
    assert best.results == reply.results[:2]


def answered(path: Path, question: str, context: str, most: int) -> list[tuple[float, int, int]]:
    """Every answer of at most so many tokens, the best first: the definition, written out over all pairs of places."""
    import torch
    import transformers

    library: Any = transformers
    model = library.BertForQuestionAnswering.from_pretrained(path)
    tokenizer = tokenizer_of(path)
    given = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, sequences = given.pop("offset_mapping")[0].tolist(), given.sequence_ids(0)
    with torch.inference_mode():
        output = model(**given)
    inside = [at for at, which in enumerate(sequences) if which == 1]
    shown = [0, *inside]
    begin, stop = (dict(zip(shown, logits[0, shown].double().softmax(0).tolist(), strict=True))
                   for logits in (output.start_logits, output.end_logits))  # fmt: skip
    pairs = [(begin[a] * stop[b], offsets[a][0], offsets[b][1]) for a in inside for b in inside if a <= b < a + most]
    return sorted(pairs, reverse=True)


@pytest.mark.parametrize(("top_k", "most"), [(None, None), (4, None), (3, 2)])
def test_an_answer_is_the_likeliest_piece_of_the_context(make: Any, started: Any, top_k: int | None, most: int | None) -> None:
    path = make("QuestionAnswering")
    context = "the cat sat on the mat and the dog ran to the river"
    request = Answer(question="the cat ?", context=context, top_k=top_k, max_answer_len=most, align_to_words=False)
    [reply] = asked(started, path, request)
    theirs = answered(path, "the cat ?", context, most or 15)[: top_k or 1]
    assert [(one.start, one.end) for one in reply.answers] == [(start, end) for _, start, end in theirs]
    assert all(near(one.score, score) for one, (score, _, _) in zip(reply.answers, theirs, strict=True))
    assert all(one.answer == context[one.start : one.end] for one in reply.answers)


def test_an_answer_is_of_whole_words_and_may_be_none(make: Any, started: Any) -> None:
    path = make("QuestionAnswering")
    context = "cats running dogs rivers seaing cats"
    [whole, pieces] = asked(started, path, Answer(question="cat ?", context=context, top_k=9),
                            Answer(question="cat ?", context=context, top_k=9, align_to_words=False))  # fmt: skip
    words = set(context.split())
    assert all(set(one.answer.split()) <= words for one in whole.answers)
    assert any(not set(one.answer.split()) <= words for one in pieces.answers)
    replies = asked(started, path, *(Answer(question=question, context=context, handle_impossible_answer=True)
                                     for question in ("cat ?", "river ?", "dog", "a", "the sea", "mat .")))  # fmt: skip
    assert {len(reply.answers) for reply in replies} <= {0, 1}


def test_a_long_context_is_searched_in_windows(make: Any, started: Any) -> None:
    path = make("QuestionAnswering")
    [reply] = asked(started, path, Answer(question="the cat ?", context=LONG, top_k=5, doc_stride=4))
    assert len(reply.answers) == 5 and len({(one.start, one.end) for one in reply.answers}) == 5
    assert max(one.end for one in asked(started, path, Answer(question="a ?", context=LONG, top_k=500))[0].answers) > 150
    with pytest.raises(Rejected, match="has no room"):
        asked(started, path, Answer(question="the cat sat on", context=LONG, max_seq_len=6))


def test_a_hypothesis_that_fills_the_model_is_refused_and_what_does_not_go_with_labels_too(make: Any, started: Any) -> None:
    path = make("SequenceClassification", labels=("entailment", "neutral", "contradiction"))
    with pytest.raises(Rejected, match="candidate_labels"):
        asked(started, path, Classify(inputs=TEXT, candidate_labels=("dog " * 100, "sea")))
    both = {"candidate_labels": ("dog", "sea"), "function_to_apply": "sigmoid"}
    with pytest.raises(UnsupportedOption, match="function_to_apply"):
        asked(started, path, Classify(inputs=TEXT, **both))
    [reply] = asked(started, path, Classify(inputs=TEXT, **both, meta=Meta(drop_unsupported=True)))
    assert reply.dropped == ("function_to_apply",)


def test_numbers_that_are_none_fail_alone(make: Any, started: Any) -> None:
    import torch

    async def whole() -> None:
        async with started(make("SequenceClassification", labels=("bad", "good"))) as model:
            encoder: Any = model._copies.there[0].answers._encoder
            read = encoder._read

            def broken(output: Any, mask: Any) -> Any:
                output.logits[mask.sum(dim=1) > 20] = torch.nan
                return read(output, mask)

            encoder._read = broken
            asks = [model.run(Classify(inputs=text)) for text in ("the cat", "the " * 30, "a dog")]
            one, two, three = await asyncio.gather(*asks, return_exceptions=True)
            assert isinstance(two, ServiceCrashed) and "no finite numbers" in str(two)
            assert len(one.labels) == len(three.labels) == 2

    asyncio.run(whole())


def no_memory_beyond_20_tokens(model: LocalModel) -> None:
    encoder: Any = model._copies.there[0].answers._encoder
    forward = encoder._forward

    def tight(rows: Any) -> Any:
        if any(len(row.ids) > 20 for row in rows):
            raise MemoryError
        return forward(rows)

    encoder._forward = tight


def test_one_request_s_error_holds_nothing_of_the_others(make: Any, started: Any) -> None:
    async def whole() -> None:
        async with started(make("SequenceClassification", labels=("bad", "good"))) as model:
            no_memory_beyond_20_tokens(model)
            texts = ["the " * 30, *["the cat sat"] * 20]
            got = await asyncio.gather(*(model.run(Classify(inputs=text)) for text in texts), return_exceptions=True)
            error, got = got[0], None
            assert isinstance(error, Overloaded)
            gc.collect()
            assert sum(type(each) is Job for each in gc.get_objects()) <= 1  # its own

    asyncio.run(whole())


def test_a_short_request_is_answered_while_a_long_one_is_still_made_into_tokens(make: Any, started: Any) -> None:
    async def whole() -> None:
        async with started(make("SequenceClassification", num_labels=1)) as model:
            long = asyncio.create_task(model.run(Rerank(query="the cat", documents=("a dog ran",) * 6000)))
            await asyncio.sleep(0)
            await model.run(Rerank(query="the cat", documents=("a dog ran",)))
            assert not long.done()
            assert len((await long).results) == 6000

    asyncio.run(whole())


def test_many_at_once_are_answered_as_one_by_one(make: Any, started: Any) -> None:
    path = make("SequenceClassification", labels=("entailment", "neutral", "contradiction"))
    chance = random.Random(3)
    words = TEXT.split()
    requests: list[Any] = [
        Classify(inputs=" ".join(chance.choices(words, k=chance.randint(1, 40))),
                 candidate_labels=("dog", "sea") if at % 3 == 0 else ())
        for at in range(40)
    ]  # fmt: skip
    together = asked(started, path, *requests)
    for request, reply in zip(requests, together, strict=True):
        [alone] = asked(started, path, request) if request is requests[0] else [reply]
        assert [label.label for label in alone.labels] == [label.label for label in reply.labels]
    lone = asyncio.run(one_by_one(started, path, requests))
    for alone, reply in zip(lone, together, strict=True):
        assert np.allclose([label.score for label in alone.labels], [label.score for label in reply.labels], atol=1e-5)


async def one_by_one(started: Any, path: Path, requests: list[Any]) -> list[Any]:
    async with started(path) as model:
        return [await model.run(request) for request in requests]


def test_those_who_leave_and_those_who_fail_harm_nobody(make: Any, started: Any) -> None:
    path = make("SequenceClassification", labels=("bad", "good"))

    async def whole() -> None:
        async with started(path, max_queue=400) as model:
            good = [asyncio.create_task(model.run(Classify(inputs=f"{TEXT} {'the ' * at}"))) for at in range(60)]
            bad = [asyncio.create_task(model.run(Classify(inputs="the \ud800"))) for _ in range(20)]
            left = [asyncio.create_task(model.run(Classify(inputs=TEXT))) for _ in range(100)]
            await asyncio.sleep(0)
            for task in left[::2]:
                task.cancel()
            got = await asyncio.gather(*good, *left[1::2])
            assert all(len(reply.labels) == 2 for reply in got)
            for error in await asyncio.gather(*bad, return_exceptions=True):
                assert isinstance(error, Rejected)
            assert not model._copies.there[0].owner._waiting
            assert (await model.run(Classify(inputs=TEXT))).labels

    asyncio.run(whole())


def test_a_text_for_which_there_is_no_memory_fails_alone(make: Any, started: Any) -> None:
    path = make("SequenceClassification", labels=("bad", "good"))

    async def whole() -> None:
        async with started(path) as model:
            no_memory_beyond_20_tokens(model)
            texts = ["the cat", "the " * 30, "a dog ran", "the sea"]
            got = await asyncio.gather(*(model.run(Classify(inputs=text)) for text in texts), return_exceptions=True)
            assert isinstance(got[1], Overloaded) and "ran out of memory" in str(got[1])
            assert all(len(got[at].labels) == 2 for at in (0, 2, 3))

    asyncio.run(whole())


def test_a_full_queue_is_told_and_a_task_of_another_head_refused(make: Any, started: Any) -> None:
    path = make("SequenceClassification", labels=("bad", "good"))

    async def whole() -> None:
        async with started(path, max_queue=2) as model:
            tasks = [asyncio.create_task(model.run(Classify(inputs="the " * 25))) for _ in range(40)]
            got = await asyncio.gather(*tasks, return_exceptions=True)
            assert any(isinstance(each, Overloaded) for each in got) and any(not isinstance(each, Exception) for each in got)
            with pytest.raises(UnsupportedTask):
                await model.run(Extract(inputs=TEXT))

    asyncio.run(whole())


@pytest.mark.parametrize("named", [{"0": "a", "2": "b"}, {"x": "a"}, {"0": 5}, [], {}])
def test_labels_that_are_none_are_told(named: Any, make: Any, service: Any, lent: Resources, tmp_path: Path) -> None:
    import json
    import shutil

    path = Path(shutil.copytree(make("TokenClassification", labels=NER), tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "id2label": named}))
    with pytest.raises(WeightsError, match="id2label"):
        asyncio.run(service(path).describe(lent))


def test_the_card_says_what_the_head_is_for(make: Any, service: Any, lent: Resources) -> None:
    cases = (
        (make("SequenceClassification", labels=("a", "b")), Classify),
        (make("SequenceClassification", num_labels=1), Rerank),
        (make("TokenClassification", labels=NER), Extract),
        (make("QuestionAnswering"), Answer),
    )
    for path, task in cases:
        model: LocalModel = service(path)
        card = asyncio.run(model.describe(lent))
        assert card.tasks == {task} and card.context == 32 and card.dimensions is None
        assert asyncio.run(model.check(lent)).startswith("weights readable")


def test_what_may_be_dropped_is_told(bert: Path, started: Any) -> None:
    from gateway import Embed

    [reply] = asked(started, bert, Embed(texts=("the cat",), dimensions=4, meta=Meta(drop_unsupported=True)))
    assert reply.dropped == ("dimensions",) and len(reply.vectors[0]) == 32
