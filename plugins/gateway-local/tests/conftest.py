"""Tiny models with fixed seeds, made once, and what a gateway would lend a service."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_local import LocalModel
from gateway_local.options import ModelOptions
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gateway import Delta, Request, Resources, Response
from gateway.testing.fakes import resources as outside_resources

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))

TEXT = ["the cat sat on the mat and the dog ran to the river", "a river runs to the sea and the sea is wide"] * 4
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def save_tokenizer(folder: Path, *, chat: bool = True) -> int:
    """A byte-level BPE tokenizer, so that a character beyond ASCII takes several tokens. Its vocabulary size."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)
    core.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    if chat:
        config["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(core.get_vocab_size())


def save_model(folder: Path, kind: str, *, chat: bool = True, **changes: Any) -> Path:
    """A tiny model of a kind ("llama", "gpt2", "mamba", "gpt1", "bert"), random weights, and a tokenizer, in a new folder."""
    import torch
    import transformers as t

    folder.mkdir()
    vocabulary = save_tokenizer(folder, chat=chat)
    torch.manual_seed(0)
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": vocabulary}
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    made: dict[str, Any] = {
        "llama": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(**{**tokens, **shape, "intermediate_size": 64, "num_key_value_heads": 2,
                             "max_position_embeddings": 256, "initializer_range": 0.4, **changes})
        ),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(**{**tokens, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
                            "initializer_range": 0.4, **changes})
        ),
        "mamba": lambda: t.MambaForCausalLM(
            t.MambaConfig(**{**tokens, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
                             "initializer_range": 0.4, **changes})
        ),
        "gpt1": lambda: t.OpenAIGPTLMHeadModel(
            t.OpenAIGPTConfig(**{**tokens, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, **changes})
        ),
        "bert": lambda: t.BertModel(
            t.BertConfig(**{**tokens, **shape, "intermediate_size": 64, "max_position_embeddings": 64, **changes})
        ),
    }  # fmt: skip
    made[kind]().eval().save_pretrained(folder)
    return folder


PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "river", "##s",
          "##ing", "sea", "wide", "##r", "a", ".", ",", "?")  # fmt: skip


def save_headed(folder: Path, head: str, *, labels: tuple[str, ...] = (), words: bool = True, **changes: Any) -> Path:
    """A tiny BERT with a trained-looking head ("SequenceClassification", "TokenClassification", "QuestionAnswering")."""
    import torch
    import transformers as t
    from tokenizers import normalizers, processors

    folder.mkdir()
    if words:  # word pieces, as BERT's
        core = Tokenizer(models.WordPiece({word: at for at, word in enumerate(PIECES)}, unk_token="[UNK]"))
        core.normalizer = normalizers.BertNormalizer()
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
        core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        core.save(str(folder / "tokenizer.json"))
        size = core.get_vocab_size()
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        (folder / "tokenizer_config.json").write_text(json.dumps(names))
    else:
        size = save_tokenizer(folder, chat=False)
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: at for at, name in enumerate(labels)}} if labels else {}
    shape: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "pad_token_id": 0,
        "max_position_embeddings": 32, "initializer_range": 0.5, "vocab_size": size,
    }  # fmt: skip
    config = t.BertConfig(**{**shape, **named, **changes})
    getattr(t, f"BertFor{head}")(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured of this machine is kept with the tests' own files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny BERT with a head, once for each set of arguments."""
    made: dict[Any, Path] = {}

    def of(head: str, **changes: Any) -> Path:
        key = head, repr(changes)
        if key not in made:
            made[key] = save_headed(tmp_path_factory.mktemp("headed") / head, head, **changes)
        return made[key]

    return of


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that chats."""
    return save_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 without a chat template."""
    return save_model(tmp_path_factory.mktemp("models") / "gpt2", "gpt2", chat=False)


@pytest.fixture(scope="session")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mamba: a decoder whose cache is a state."""
    return save_model(tmp_path_factory.mktemp("models") / "mamba", "mamba", chat=False)


@pytest.fixture(scope="session")
def gpt1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT of 2018: a decoder that keeps no cache."""
    return save_model(tmp_path_factory.mktemp("models") / "gpt1", "gpt1", chat=False)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT."""
    return save_model(tmp_path_factory.mktemp("models") / "bert", "bert", chat=False)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
SIZED = {**SMALL, "head_dim": 16, "sliding_window": 6}
STRETCHED = {
    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4,
    "original_max_position_embeddings": 24,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "Llama": SMALL,
    "Qwen2": SMALL,
    "Qwen3": {**SMALL, "head_dim": 16},
    "Mistral": {**SMALL, "sliding_window": 6},
    "Gemma": {**SMALL, "num_key_value_heads": 1, "head_dim": 16},
    "Gemma2": SIZED,
    "Gemma3": {**SIZED, "layer_types": ["sliding_attention", "full_attention"]},
    "GptOss": {**SIZED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Phimoe": {**SMALL, "sliding_window": 20, "num_local_experts": 4},
    "Llama4": {**SMALL, "head_dim": 16, "attention_chunk_size": 20, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "RecurrentGemma": {**SMALL, "num_hidden_layers": 3, "head_dim": 8, "lru_width": 32, "num_key_value_heads": 1},
    "MiniMax": {**SMALL, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Bamba": {**SMALL, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
    "Phi3": {**SMALL, "original_max_position_embeddings": 24, "rope_parameters": STRETCHED},
    "Mamba2": {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a tiny model of a family of decoders, once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            import torch
            import transformers as t

            folder = tmp_path_factory.mktemp("family") / name
            folder.mkdir()
            tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": save_tokenizer(folder)}
            most = {} if name in ("GPT2", "Bloom", "Mamba2") else {"max_position_embeddings": 512}
            config = getattr(t, {"Gemma3": "Gemma3TextConfig", "Llama4": "Llama4TextConfig"}.get(name, f"{name}Config"))
            kind = getattr(t, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
            torch.manual_seed(0)
            kind(config(**{**tokens, **most, "initializer_range": 0.4, **FAMILIES[name]})).eval().save_pretrained(folder)
            made[name] = folder
        return made[name]

    return of


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny encoder-decoder of a kind, once for each set of arguments."""
    from pairs_case import save_model, save_tokenizer

    made: dict[Any, Path] = {}

    def of(kind: str, *, config: Mapping[str, Any] | None = None, **changes: Any) -> Path:
        key = kind, repr(config), repr(changes)
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            frame = "<s> $A </s>" if kind == "bart" else "$A </s>"
            made[key] = save_model(folder, kind, save_tokenizer(folder, frame, **(config or {})), **changes)
        return made[key]

    return of


@pytest.fixture
def lent() -> Resources:
    """Resources outside a gateway."""
    return outside_resources()


Started = Callable[..., AbstractAsyncContextManager[LocalModel]]


@pytest.fixture
def service() -> Callable[..., LocalModel]:
    """Makes a service of the weights in a folder, on the CPU."""

    def make(path: Path, **options: Any) -> LocalModel:
        return LocalModel(ModelOptions(**{"name": "tiny", "weights": str(path), "device": "cpu", **options}))

    return make


@pytest.fixture
def started(lent: Resources, service: Callable[..., LocalModel]) -> Started:
    """Makes a service that is described and loaded, and closes it at the end of the block."""

    @asynccontextmanager
    async def start(path: Path, **options: Any) -> AsyncIterator[LocalModel]:
        model = service(path, **options)
        try:
            await model.describe(lent)
            await model.start(lent)
            yield model
        finally:
            await model.aclose()

    return start


@pytest.fixture
def drain() -> Callable[..., Any]:
    """Reads a whole stream: the deltas' texts, and the response at its end."""

    async def read(model: LocalModel, request: Request[Any]) -> tuple[list[str], Response]:
        pieces: list[str] = []
        async for item in model.stream(request):
            if isinstance(item, Delta):
                pieces.append(item.text)
            else:
                assert isinstance(item, Response)
                return pieces, item
        raise AssertionError("the stream ended without a response")

    return read
