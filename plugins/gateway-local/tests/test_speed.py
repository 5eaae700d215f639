"""Size and speed before loading: what config.json and the headers give, and what is kept of a measured machine."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_local import facts as known
from gateway_local import speed
from gateway_local.facts import Facts
from gateway_local.sizes import Sizes, kv_of, sizes_of
from gateway_local.speed import CPU, Rate, Speed

from gateway import Resources, TensorInfo

GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768}
LLAMA3 = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
GEMMA = {"num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "hidden_size": 2048, "head_dim": 256}
FALCON = {"num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True, "hidden_size": 4544}
HYBRID = {**LLAMA3, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}
MEASURED = Speed(step_s=0.25, layer_s=0.125, rates={name: Rate(bytes_per_s=1000.0, flops=500.0) for name in CPU.rates})


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (GPT2, 2 * 12 * 12 * 64),
        (LLAMA3, 2 * 32 * 8 * 128),
        (GEMMA, 2 * 18 * 1 * 256),
        (FALCON, 2 * 32 * 1 * 64),
        (HYBRID, 2 * 8 * 8 * 128),
        ({**LLAMA3, "num_kv_shared_layers": 12}, 2 * 20 * 8 * 128),
        ({**LLAMA3, "sliding_window": 4096}, 2 * 32 * 8 * 128),
        ({**LLAMA3, "kv_lora_rank": 512}, None),
        ({"num_hidden_layers": 64, "hidden_size": 2560, "state_size": 16}, None),
        ({}, None),
    ],
)
def test_what_a_token_leaves_in_the_cache_follows_from_config_json(config: dict[str, Any], numbers: int | None) -> None:
    assert kv_of(config) == numbers


def sizes(config: dict[str, Any], **shapes: tuple[int, ...]) -> Sizes:
    named = {name.replace("__", "."): shape for name, shape in shapes.items()}
    floats = {name: TensorInfo(dtype="F32", shape=shape, bytes=math.prod(shape) * 4) for name, shape in named.items()}
    return sizes_of(config, floats, encoder=False)


def test_a_tied_table_is_read_for_the_scores_and_one_of_its_own_is_only_looked_up() -> None:
    tied = sizes({}, wte__weight=(100, 8), wpe__weight=(50, 8), layer__weight=(8, 8))
    assert tied == Sizes(active=1264, body=64, read=864, kv=None)
    untied = sizes({}, model__embed_tokens__weight=(100, 8), layer__weight=(8, 8), lm_head__weight=(100, 8))
    assert untied == Sizes(active=1664, body=64, read=864, kv=None)


def test_of_experts_only_those_count_that_a_token_is_sent_to() -> None:
    config = {"num_local_experts": 8, "num_experts_per_tok": 2}
    mixture = sizes(config, mlp__experts__0__w1__weight=(8, 100), mlp__shared_experts__w__weight=(8, 10), gate__weight=(8, 8))
    assert mixture == Sizes(active=200 + 80 + 64, body=200 + 80 + 64, read=200 + 80 + 64, kv=None)


def facts_of(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "architecture": "LlamaForCausalLM", "model_type": "llama", "params": 1000, "stored": "F32", "layers": 2,
        "context": None, "chat": False, "embed": None, "sizes": Sizes(active=1000, body=100, read=400, kv=4), **changes,
    }  # fmt: skip
    return Facts(**given)


def test_the_prior_is_passes_and_reading_and_a_prompt_is_multiplied_besides() -> None:
    first_s, per_token_s = speed.prior(facts_of(), "float32", MEASURED)
    assert per_token_s == pytest.approx(0.25 + 2 * 0.125 + 1.5 * (400 * 4 + 256 * 16) / 1000)
    assert first_s == pytest.approx(per_token_s + 1.5 * 2 * 100 * 256 / 500)
    halved = speed.prior(facts_of(), "bfloat16", MEASURED)[1]
    assert halved == pytest.approx(0.5 + 1.5 * (400 * 2 + 256 * 8) / 1000)


def test_a_small_model_goes_by_the_rate_of_one_thread_and_16_bit_gpt2_by_its_own() -> None:
    def rate_of(name: str, **changes: Any) -> bool:
        slow = Speed(step_s=1e-3, layer_s=1e-3, rates={**CPU.rates, name: Rate(bytes_per_s=1.0, flops=1.0)})
        return speed.prior(facts_of(**changes), "bfloat16", slow)[1] > 1.0

    assert rate_of("bfloat16 one thread")
    assert rate_of("bfloat16", params=20_000_000)
    assert rate_of("bfloat16 transposed", model_type="gpt2")
    assert not rate_of("float16")


def test_layers_with_experts_take_longer() -> None:
    mixture = facts_of(sizes=Sizes(active=999, body=100, read=400, kv=4))
    assert speed.prior(mixture, "float32", MEASURED)[1] - speed.prior(facts_of(), "float32", MEASURED)[1] == 2 * 0.125 * 0.75


def test_what_was_measured_is_recalled_and_nothing_where_nothing_was(tmp_path: Path) -> None:
    assert speed.recall(tmp_path) is None
    speed.keep(MEASURED, tmp_path / "new")
    assert speed.recall(tmp_path / "new") == MEASURED
    assert [path.name for path in (tmp_path / "new").iterdir()] == [speed.cache_file(tmp_path).name]


@pytest.mark.parametrize("spoil", ["", "{", "[]", "null", "[" * 9000, '{"format": 1}'])
def test_a_damaged_file_is_no_error_and_is_measured_anew(tmp_path: Path, spoil: str) -> None:
    speed.keep(MEASURED, tmp_path)
    speed.cache_file(tmp_path).write_text(spoil)
    assert speed.recall(tmp_path) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("step_s", -1), ("step_s", math.nan), ("layer_s", True), ("layer_s", 0), ("rates", {}), ("machine", []), ("format", 0),
     ("rates", {"float32": {"bytes_per_s": 1}}), ("rates", {"float32": {"bytes_per_s": 1, "flops": "1"}})],
)  # fmt: skip
def test_figures_that_cannot_be_are_not_taken(tmp_path: Path, key: str, value: Any) -> None:
    speed.keep(MEASURED, tmp_path)
    path = speed.cache_file(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert speed.recall(tmp_path) is None


def test_figures_of_another_machine_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed.keep(MEASURED, tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    assert speed.recall(tmp_path) is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    speed.keep(MEASURED, tmp_path / "file")
    assert speed.recall(tmp_path / "file") is None


def test_the_bytes_are_those_of_the_tensors(llama: Path, gpt2: Path, bert: Path, lent: Resources) -> None:
    for path in (llama, gpt2):
        weights = lent.weights(str(path))
        facts = known.read_facts(lent, str(path), weights)
        assert known.bytes_of(facts, "float32") == sum(info.bytes for info in weights.tensors.values())
        assert known.bytes_of(facts, "float32") == pytest.approx((path / "model.safetensors").stat().st_size, rel=0.1)
    facts = known.read_facts(lent, str(llama), lent.weights(str(llama)))
    assert known.kv_bytes_per_token(facts, "float32") == 2 * 2 * 2 * 8 * 4
    assert known.kv_bytes_per_token(facts, "bfloat16") == 2 * 2 * 2 * 8 * 2
    assert known.kv_bytes_per_token(known.read_facts(lent, str(bert), lent.weights(str(bert))), "float32") is None


def test_a_card_has_the_figures_of_the_machine_once_they_are_known(
    llama: Path, lent: Resources, service: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = asyncio.run(service(llama).describe(lent))
    speed.keep(MEASURED)
    after = asyncio.run(service(llama).describe(lent))
    assert (tmp_path / "gateway-local").is_dir()
    assert before.per_token_s < 0.1 < 0.5 < after.per_token_s
    assert after.active_params == after.params


def test_a_load_and_a_check_measure_the_machine_once(
    llama: Path, lent: Resources, service: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway_local import probe

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert asyncio.run(service(llama).check(lent)).endswith(", 256 B of cache a token, F32")
    found = speed.recall()
    assert found is not None
    rates = [figure for rate in found.rates.values() for figure in (rate.bytes_per_s, rate.flops)]
    assert all(0 < figure < math.inf for figure in (found.step_s, found.layer_s, *rates))
    speed.keep(MEASURED)
    probe.ensure()
    assert speed.recall() == MEASURED


def test_to_measure_changes_no_thread_count_and_draws_no_random_number() -> None:
    code = """
import torch
from gateway_local import probe
threads, chance = torch.get_num_threads(), torch.get_rng_state()
found = probe.measured()
assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), chance)
assert probe.measured() is found and torch.get_default_dtype() is torch.float32
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_to_know_the_speed_imports_no_torch() -> None:
    code = "import sys, gateway_local.speed as s; s.recall(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
