"""Describing and loading: figures from headers, and a clear refusal for everything that is not as it should be."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_local import LocalModel
from gateway_local.hooks import gateway_models

from gateway import Chat, Closed, ConfigError, Embed, Generate, ModelCard, Resources, UnsupportedTask, WeightsError
from gateway.testing.fakes import resources as outside_resources


def describe(model: LocalModel, lent: Resources) -> ModelCard:
    return asyncio.run(model.describe(lent))


def edit(path: Path, name: str, **changes: Any) -> None:
    value = json.loads((path / name).read_text()) if (path / name).exists() else {}
    (path / name).write_text(json.dumps({**value, **changes}))


def change_tensors(path: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def refused(path: Path, started: Any, words: str) -> None:
    async def ask() -> None:
        async with started(path):
            pass

    with pytest.raises(WeightsError, match=words):
        asyncio.run(ask())


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("kind", "tasks", "context"),
    [("llama", {Generate, Chat}, 256), ("gpt2", {Generate}, 128), ("bert", {Embed}, 64)],
)
def test_the_card_has_the_figures_of_the_model_itself(
    kind: str, tasks: set[Any], context: int, service: Any, lent: Resources, request: pytest.FixtureRequest
) -> None:
    from transformers import AutoModel, AutoModelForCausalLM

    path = request.getfixturevalue(kind)
    loader = AutoModel if kind == "bert" else AutoModelForCausalLM
    card = describe(service(path, quality=0.5, languages=["en"]), lent)
    assert card.params == loader.from_pretrained(path).num_parameters()
    assert card.params is not None and card.bytes == card.params * 4
    assert (card.dtype, card.context) == ("float32", context)
    assert set(card.tasks) == tasks
    assert (card.place, card.quality) == ("process", 0.5)
    assert card.languages == frozenset({"en"})
    assert card.dimensions == (32 if kind == "bert" else None)
    assert card.features == (
        set() if kind == "bert" else {"streaming", "stop", "seed", "top_k", "penalties", "logprobs", "json_schema"}
    )
    assert card.first_token_s and card.per_token_s is not None


def test_tasks_may_be_left_out(llama: Path, service: Any, started: Any, lent: Resources) -> None:
    assert describe(service(llama, tasks=["generate"]), lent).tasks == {Generate}

    async def ask() -> None:
        async with started(llama, tasks=["generate"]) as model:
            with pytest.raises(UnsupportedTask):
                await model.run(Chat.ask("hi"))

    asyncio.run(ask())


def test_describing_imports_no_torch(llama: Path, bert: Path) -> None:
    program = f"""
import asyncio, sys
from gateway.testing.fakes import resources
from gateway_local import hooks
rows = [{{"name": "a", "weights": {str(llama)!r}}}, {{"name": "b", "weights": {str(bert)!r}}}]
for model in hooks.gateway_models({{"models": rows, "starter": False}}):
    asyncio.run(model.describe(resources()))
hooks.gateway_stores({{}})
heavy = {{"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    paths = [str(Path(sys.modules["gateway"].__file__ or "").parents[1]), str(Path(__file__).parents[1])]
    program = f"import sys\nsys.path[:0] = {paths!r}\n" + program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_architecture_is_named(copy: Path, service: Any, lent: Resources) -> None:
    for architecture in ("FooForCausalLM", "LEDForConditionalGeneration", "ViTModel"):
        edit(copy, "config.json", architectures=[architecture])
        with pytest.raises(WeightsError, match=architecture):
            describe(service(copy), lent)
    edit(copy, "config.json", architectures=["FooForCausalLM"], auto_map={"AutoModel": "foo.Foo"})
    with pytest.raises(WeightsError, match="never run"):
        describe(service(copy), lent)
    edit(copy, "config.json", architectures=[])
    with pytest.raises(WeightsError, match="one architecture"):
        describe(service(copy), lent)


def test_what_is_not_there_is_named(copy: Path, service: Any, lent: Resources) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="tokenizer"):
        describe(service(copy), lent)
    (copy / "model.safetensors").unlink()
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="safetensors"):
        describe(service(copy), lent)
    with pytest.raises(WeightsError, match="nowhere"):
        describe(service(copy / "nowhere"), lent)


def test_quantised_weights_are_refused(copy: Path, service: Any, lent: Resources) -> None:
    edit(copy, "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(WeightsError, match="quantised"):
        describe(service(copy), lent)


def test_truncated_weights_are_refused(copy: Path, started: Any) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:-64])
    refused(copy, started, "truncated")


def test_weights_with_a_torn_header_are_refused(copy: Path, started: Any) -> None:
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[8:20] = b"\x00" * 12
    (copy / "model.safetensors").write_bytes(data)
    refused(copy, started, "JSON")


def test_a_missing_tensor_is_refused_and_named(copy: Path, started: Any) -> None:
    change_tensors(copy, lambda tensors: tensors.pop("model.norm.weight"))
    refused(copy, started, r"lack 1 tensors.*model\.norm\.weight")


def test_a_tensor_too_many_is_refused_and_named(copy: Path, started: Any) -> None:
    change_tensors(copy, lambda tensors: tensors.update(extra=tensors["model.norm.weight"].clone()))
    refused(copy, started, r"beyond the model.*extra")


def test_a_tensor_of_another_shape_is_refused(copy: Path, started: Any) -> None:
    change_tensors(copy, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:16].clone()}))
    refused(copy, started, r"another shape.*model\.norm\.weight \[16\] for \[32\]")


def test_a_torn_tokenizer_is_refused(copy: Path, started: Any) -> None:
    (copy / "tokenizer.json").write_text("{}")
    refused(copy, started, "tokenizer")


def test_a_load_says_nothing_in_the_words_of_transformers(copy: Path, bert: Path, tmp_path: Path, started: Any) -> None:
    import logging

    import transformers

    encoder = Path(shutil.copytree(bert, tmp_path / "encoder"))
    change_tensors(encoder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("pooler.")])
    change_tensors(copy, lambda tensors: tensors.pop("model.norm.weight"))
    said: list[logging.LogRecord] = []
    catch = logging.Handler()
    catch.emit = said.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(catch)

    async def ask() -> None:
        async with started(encoder) as model:
            await model.run(Embed(texts=("cat",)))

    try:
        asyncio.run(ask())
        refused(copy, started, r"model\.norm\.weight")
        assert said == []
        # The app's own loads report as ever.
        library: Any = transformers
        library.AutoModel.from_pretrained(encoder)
        assert any("LOAD REPORT" in record.getMessage() for record in said)
    finally:
        logger.removeHandler(catch)


def test_a_model_that_ties_its_output_to_its_input_loads_without_it(tmp_path: Path, llama: Path, started: Any) -> None:
    def tie(tensors: Any) -> None:
        del tensors["lm_head.weight"]

    path = Path(shutil.copytree(llama, tmp_path / "tied"))
    change_tensors(path, tie)
    edit(path, "config.json", tie_word_embeddings=True)

    async def ask() -> None:
        async with started(path) as model:
            await model.run(Generate(prompt="the cat", max_tokens=2))

    asyncio.run(ask())


def test_sixteen_bit_weights_load_as_asked(copy: Path, started: Any, lent: Resources) -> None:
    change_tensors(copy, lambda tensors: tensors.update({name: t.bfloat16() for name, t in tensors.items()}))

    async def dtype(asked: str) -> str:
        async with started(copy, dtype=asked) as model:
            card = await model.describe(lent)
            real = str(model._copies.there[0].answers._loaded.model.dtype).removeprefix("torch.")
            assert card.dtype == real
            assert (await model.run(Generate(prompt="the cat", max_tokens=2))).usage.output_tokens > 0
            return real

    assert asyncio.run(dtype("bfloat16")) == "bfloat16"
    assert asyncio.run(dtype("auto")) in ("float32", "bfloat16")


def test_loading_tells_how_far_it_is(llama: Path, service: Any) -> None:
    told: list[tuple[str, int, int | None]] = []
    lent = outside_resources()
    lent.progress = lambda *fact: told.append(fact)

    async def load() -> ModelCard:
        model: LocalModel = service(llama)
        try:
            await model.start(lent)
            return await model.describe(lent)
        finally:
            await model.aclose()

    card = asyncio.run(load())
    # How long the imports take cannot be known: a beginning without a total, and an end.
    assert told[:2] == [("start tiny", 0, None), ("start tiny", 1, 1)]
    assert {label for label, _, _ in told[2:]} == {"load tiny"}
    assert told[-1][1] == told[-1][2] == card.bytes
    assert [done for _, done, _ in told[2:]] == sorted(done for _, done, _ in told[2:])


def test_the_section_is_checked() -> None:
    row = {"name": "a", "weights": "/x"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": []}, "plugin.local.model: unknown key"),
        ({"models": [{**row, "wieghts": 1}]}, "plugin.local.models.0.wieghts: unknown key"),
        ({"models": [{"name": "a"}]}, "weights"),
        ({"models": [row, row]}, "'a' is taken"),
        ({"models": [{"name": "starter", "weights": "/x"}]}, "starter = false"),
        ({"models": [{**row, "max_queue": 0}]}, "max_queue"),
        ({"models": [{**row, "tasks": []}]}, "tasks"),
        ({"models": [{**row, "replicas": 0}]}, "replicas of 'a' must be at least 1"),
        ({"models": [{**row, "pinned": True, "idle_s": 5}]}, "'a' is pinned, and has an idle_s"),
        ({"memory_bytes": 0}, "memory_bytes must be at least 1"),
        ({"models": [{**row, "dtype": "int4"}]}, "dtype"),
    ]
    for section, words in cases:
        with pytest.raises(ConfigError) as caught:
            gateway_models(config=section)
        assert words in str(caught.value)
    assert [model.name for model in gateway_models(config={"models": [row]})] == ["a", "starter"]
    assert [model.name for model in gateway_models(config={"models": [row], "starter": False})] == ["a"]


def test_a_tiny_model_leaves_the_threads_of_others_alone(llama: Path, started: Any) -> None:
    import threading

    import torch

    async def ask() -> None:
        before, later = torch.get_num_threads(), []
        async with started(llama) as model:
            assert await model._copies.there[0].owner.run(lambda call: torch.get_num_threads()) == 1
            other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert torch.get_num_threads() == before == later[0]

    asyncio.run(ask())


def test_a_load_that_failed_may_be_tried_again(copy: Path, service: Any, lent: Resources) -> None:
    whole = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text("{}")

    async def ask() -> None:
        model = service(copy)
        try:
            await model.describe(lent)
            with pytest.raises(WeightsError):
                await model.start(lent)
            with pytest.raises(Closed, match="not running"):
                await model.run(Generate(prompt="the cat"))
            (copy / "tokenizer.json").write_text(whole)
            await model.start(lent)
            await model.run(Generate(prompt="the cat", max_tokens=1))
        finally:
            await model.aclose()
        with pytest.raises(Closed):
            await model.run(Generate(prompt="the cat"))

    asyncio.run(ask())
