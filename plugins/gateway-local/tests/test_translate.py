"""Translations: the pairs that a model lists, the one that it knows, and the codes of many languages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pairs_case import ASKED, INPUT, generated, library_tokenizer, save_model, save_tokenizer, written
from tokenizers import Tokenizer

from gateway import Translate, UnsupportedOption


def test_t5_translates_the_pairs_that_it_lists(pair: Any, started: Any) -> None:
    path = pair("t5", task_specific_params=ASKED)

    async def ask(**options: Any) -> str:
        async with started(path) as model:
            return str((await model.run(Translate(inputs=INPUT, **options))).translation_text)

    german = generated(path, f"translate English to German: {INPUT}", max_length=20)[0]
    french = generated(path, f"translate English to French: {INPUT}", max_length=20, num_beams=2)[0]
    assert asyncio.run(ask(src_lang="en", tgt_lang="de")) == german != french
    assert asyncio.run(ask(tgt_lang="fr")) == french


def test_marian_writes_its_one_language_or_the_one_that_is_named(pair: Any, started: Any, tmp_path: Path) -> None:
    stated = {"source_lang": "en", "target_lang": "de"}
    one = pair("marian", config=stated, num_beams=2)
    codes = (">>fra<<", ">>ita<<")
    several = save_model(tmp_path, "marian", save_tokenizer(tmp_path, "$A </s>", extra=codes, source_lang="en"))

    async def ask(path: Path, **options: Any) -> str:
        async with started(path) as model:
            request = Translate(inputs=INPUT, generate_parameters={"max_new_tokens": 12}, **options)
            return str((await model.run(request)).translation_text)

    text = generated(one, INPUT, max_new_tokens=12)[0]
    assert asyncio.run(ask(one)) == asyncio.run(ask(one, src_lang="en", tgt_lang="de")) == text
    with pytest.raises(UnsupportedOption, match="src_lang: it translates en to de"):
        asyncio.run(ask(one, src_lang="fr"))
    with pytest.raises(UnsupportedOption, match="src_lang: its files do not say"):
        asyncio.run(ask(pair("marian"), src_lang="en"))
    italian = generated(several, f">>ita<<{INPUT}", max_new_tokens=12)[0]
    assert asyncio.run(ask(several, tgt_lang="ita")) == italian != generated(several, INPUT, max_new_tokens=12)[0]
    with pytest.raises(UnsupportedOption, match="needs tgt_lang: it translates en to fra, en to ita"):
        asyncio.run(ask(several))


LETTERS = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
SPOKEN: Mapping[str, tuple[str, str, str]] = {
    "NllbTokenizer": ("m2m", "eng_Latn", "fra_Latn"),
    "MBart50Tokenizer": ("mbart", "en_XX", "ro_RO"),
    "MBartTokenizer": ("mbart", "en_XX", "ro_RO"),
}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Makes a model with one of transformers' own tokenizers of many languages."""

    def of(name: str, **options: Any) -> tuple[Path, Any]:
        import transformers

        kind, source, _ = SPOKEN[name]
        folder = tmp_path_factory.mktemp(name)
        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        pieces: Any = {word: at for at, word in enumerate([*specials, *LETTERS])}
        if name != "NllbTokenizer":
            pieces = [(word, 0.0 if word in specials else -2.0) for word in pieces]
            pieces = [*pieces, (source, 0.0), ("ro_RO", 0.0), ("<mask>", 0.0)]
        tokenizer = getattr(transformers, name)(vocab=pieces, **options)
        tokenizer.save_pretrained(folder)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "src_lang": None}))
        save_model(folder, kind, len(tokenizer))
        return folder, tokenizer

    return of


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("beams", [1, 2])
def test_languages_are_asked_for_as_their_own_tokenizer_does(
    name: str, beams: int, spoken: Any, started: Any, drain: Any
) -> None:
    path, tokenizer = spoken(name)
    _, source, target = SPOKEN[name]
    inputs = tokenizer._build_translation_inputs(INPUT, return_tensors="pt", src_lang=source, tgt_lang=target)
    start = "decoder_start_token_id" if name == "MBartTokenizer" else "forced_bos_token_id"  # as its documentation has it
    settings = {start: inputs["forced_bos_token_id"], "num_beams": beams, "max_new_tokens": 12, "min_new_tokens": 6}
    text, ids = written(path, inputs["input_ids"], tokenizer, **settings)

    async def ask(**options: Any) -> Any:
        async with started(path) as model:
            parameters = {"num_beams": beams, "max_new_tokens": 12, "min_new_tokens": 6}
            return await drain(model, Translate(inputs=INPUT, generate_parameters=parameters, **options))

    pieces, reply = asyncio.run(ask(src_lang=source, tgt_lang=target))
    assert reply.translation_text == "".join(pieces) == text and text
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (inputs["input_ids"].shape[1], len(ids))
    with pytest.raises(UnsupportedOption, match="needs src_lang"):
        asyncio.run(ask(tgt_lang=target))
    with pytest.raises(UnsupportedOption, match="needs tgt_lang"):
        asyncio.run(ask(src_lang=source))
    with pytest.raises(UnsupportedOption, match="cannot take tgt_lang: it speaks"):
        asyncio.run(ask(src_lang=source, tgt_lang="english"))


def test_m2m100_s_codes_are_its_tokens_without_the_underscores(started: Any, tmp_path: Path) -> None:
    import torch

    codes = ("__en__", "__fr__")
    path = save_model(tmp_path, "m2m", save_tokenizer(tmp_path, "$A </s>", extra=codes))
    core = Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = [core.token_to_id("__en__"), *core.encode(INPUT).ids]
    settings = {"forced_bos_token_id": core.token_to_id("__fr__"), "max_length": 14}
    text, _ = written(path, torch.tensor([ids]), library_tokenizer(core), **settings)

    async def ask() -> str:
        async with started(path) as model:
            request = Translate(inputs=INPUT, src_lang="en", tgt_lang="fr", generate_parameters={"max_length": 14})
            return str((await model.run(request)).translation_text)

    assert asyncio.run(ask()) == text
