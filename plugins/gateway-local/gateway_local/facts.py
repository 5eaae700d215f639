"""What is known of a model from its headers and small files alone: no tensor is read, and torch is not imported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from gateway import Resources, TensorInfo, Weights, WeightsError
from gateway_local.heads import HeadFacts, head_of, read_head
from gateway_local.seq2seq import RewriteFacts, read_rewrite
from gateway_local.sizes import LAYER_KEYS, WIDTH_KEYS, Sizes, first_int, sizes_of

ENCODER_TYPES = frozenset(
    {
        "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert", "mobilebert",
        "modernbert", "mpnet", "nomic_bert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
"""Model types whose last hidden state is one vector a token, seen from both sides: what sentence embeddings are made of."""

OFFSET_TYPES = frozenset({"camembert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"})
"""Model types that count positions from ``pad_token_id + 1``: so many of their positions are no room for tokens."""

HEADS = ("cls.", "lm_head.", "predictions.", "vocab_", "generator", "discriminator", "classifier.", "head.", "decoder.")
"""How the names of an encoder's heads begin: embeddings do not use them, so they are neither read nor counted."""

FLOAT_BITS: Mapping[str, int] = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
DTYPES: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")

COUNTS = ("", "K", "M", "B", "T")
BYTES = (" B", " kB", " MB", " GB", " TB")

POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken")
Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken"]

SMALL_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class EmbedFacts:
    """How an encoder's token vectors become one vector a text; as sentence-transformers has it."""

    pooling: Pooling = "mean"
    normalize: bool = True
    lower: bool = False
    prompt: str = ""
    dimensions: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One model. `params` and `bytes` are of its floating-point tensors; `context` is in tokens, None when unlimited."""

    architecture: str
    model_type: str
    params: int
    stored: str
    layers: int
    sizes: Sizes
    context: int | None
    chat: bool
    embed: EmbedFacts | None
    calls: frozenset[str] = frozenset()
    """What its chat template lets it do beside writing: "tools", "reasoning"."""
    head: HeadFacts | None = None
    rewrite: RewriteFacts | None = None
    types: bool = True
    """Whether the model is told which token is of which of two texts: its tokenizer_config.json may say that it is not."""

    @property
    def encoder(self) -> bool:
        """True for a model that reads texts, and writes none."""
        return self.embed is not None or self.head is not None


def read_facts(resources: Resources, uri: str, weights: Weights) -> Facts:
    """The facts behind a uri. WeightsError when it is no model that this plugin can serve, and why."""
    config = weights.json("config.json")
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise WeightsError(f"{uri!r}: architectures in config.json is not a list of names")
    if len(architectures) != 1:
        raise WeightsError(f"{uri!r}: config.json must name one architecture, not {len(architectures)}")
    architecture, model_type = architectures[0], str(config.get("model_type", ""))
    headless = is_encoder(architecture, model_type)
    encoder = headless or (model_type in ENCODER_TYPES and head_of(architecture) is not None)
    tokenizer_config = optional_json(weights, "tokenizer_config.json")
    rewrite = read_rewrite(uri, architecture, config, tokenizer_config)
    if not (encoder or rewrite or is_decoder(architecture)) or not is_known(architecture, model_type):
        code = "; its own code (auto_map) is never run" if "auto_map" in config else ""
        raise WeightsError(f"{uri!r}: the architecture {architecture!r} is not one that gateway-local serves{code}")
    if config.get("quantization_config"):
        raise WeightsError(f"{uri!r}: quantised weights are not served yet; use the model's 16 or 32 bit weights")
    if "tokenizer.json" not in weights.files:
        raise WeightsError(f"{uri!r} has no tokenizer.json; save the model with a fast tokenizer")
    floats = {
        name: info for name, info in weights.tensors.items() if info.dtype in FLOAT_BITS and not (headless and is_head(name))
    }
    if not floats:
        raise WeightsError(f"{uri!r} holds no floating-point tensor: where are its .safetensors files?")
    chat = not encoder and rewrite is None and has_chat_template(weights, tokenizer_config)
    return Facts(
        architecture=architecture,
        model_type=model_type,
        params=sum(math.prod(info.shape) for info in floats.values()),
        stored=main_dtype(floats.values()),
        layers=first_int(config, LAYER_KEYS) or 0,
        sizes=sizes_of(config, floats, encoder=encoder or rewrite is not None),
        context=context_of(config, model_type, weights, tokenizer_config, reads=encoder or rewrite is not None),
        chat=chat,
        calls=read_template(weights, tokenizer_config) if chat else frozenset(),
        embed=read_embedding(resources, uri, weights, config) if headless else None,
        head=read_head(uri, architecture, config) if encoder and not headless else None,
        rewrite=rewrite,
        types="token_type_ids" in tokenizer_config.get("model_input_names", ["token_type_ids"]),
    )


def main_dtype(floats: Iterable[TensorInfo]) -> str:
    """The safetensors dtype that most of these bytes are in."""
    size: dict[str, int] = {}
    for info in floats:
        size[info.dtype] = size.get(info.dtype, 0) + info.bytes
    return max(size, key=lambda name: (size[name], name))


def is_decoder(architecture: str) -> bool:
    """True for the name of a class that continues a text."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def is_encoder(architecture: str, model_type: str) -> bool:
    """True for an encoder, saved alone or under its masked-language head."""
    return model_type in ENCODER_TYPES and architecture.endswith(("Model", "ForMaskedLM"))


def is_head(tensor: str) -> bool:
    """True for a tensor of an encoder's checkpoint that belongs to a head."""
    return tensor.startswith(HEADS)


def is_known(architecture: str, model_type: str) -> bool:
    """True when the installed transformers has this class. The source is looked at first: importing it takes seconds."""
    spec = util.find_spec("transformers")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = model_type.replace("-", "_")
        if folder.isidentifier():
            source = Path(place, "models", folder, f"modeling_{folder}.py")
            if source.is_file() and f"class {architecture}(" in source.read_text(encoding="utf-8"):
                return True
    import transformers

    return architecture in dir(transformers)


def has_chat_template(weights: Weights, tokenizer_config: Mapping[str, Any]) -> bool:
    """True when the model says how a conversation is written."""
    return bool(tokenizer_config.get("chat_template")) or "chat_template.jinja" in weights.files


def read_template(weights: Weights, tokenizer_config: Mapping[str, Any]) -> frozenset[str]:
    """What the chat template lets a model do beside writing."""
    from gateway_local.template import chat_template, template_features

    return template_features(chat_template(weights, tokenizer_config)[1])


def context_of(
    config: Mapping[str, Any], model_type: str, weights: Weights, tokenizer_config: Mapping[str, Any], *, reads: bool
) -> int | None:
    """The most tokens that the model takes at once, None when nothing limits it. `reads`: an encoder takes them."""
    limits = []
    if (positions := first_int(config, CONTEXT_KEYS)) is not None:
        offset = int(config.get("pad_token_id") or 0) + 1 if model_type in OFFSET_TYPES else 0
        limits.append(positions - offset)
    if reads:
        sentence = optional_json(weights, "sentence_bert_config.json").get("max_seq_length")
        stated = sentence if isinstance(sentence, int) else tokenizer_config.get("model_max_length")
        if isinstance(stated, int) and 0 < stated < 1 << 40:  # tokenizers write 1e30 for "no limit"
            limits.append(stated)
    return min(limits, default=None)


def read_embedding(resources: Resources, uri: str, weights: Weights, config: Mapping[str, Any]) -> EmbedFacts:
    """Pooling and normalisation as modules.json has them; without it, mean over the tokens and L2 norm."""
    width = first_int(config, WIDTH_KEYS)
    if width is None:
        raise WeightsError(f"{uri!r}: config.json does not say how wide the model is")
    if "modules.json" not in weights.files:
        return EmbedFacts(dimensions=width)
    try:
        modules = [(row["type"].rpartition(".")[2], row["path"]) for row in load_list(weights, "modules.json")]
    except (TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{uri!r}: modules.json is not a list of modules") from error
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        asked = ", ".join(kinds)
        raise WeightsError(f"{uri!r}: modules.json asks for {asked}: only Transformer, Pooling and Normalize are known")
    if modules[0][1]:
        raise WeightsError(f"{uri!r}: modules.json keeps the Transformer in a folder of its own, which is not read yet")
    sentence = optional_json(weights, "sentence_bert_config.json")
    prompts = optional_json(weights, "config_sentence_transformers.json")
    return EmbedFacts(
        pooling=pooling_of(pooling_config(resources, uri, weights, modules[1][1]), uri),
        normalize=len(kinds) == 3,
        lower=sentence.get("do_lower_case") is True,
        prompt=str((prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), "")),
        dimensions=width,
    )


def pooling_config(resources: Resources, uri: str, weights: Weights, folder: str) -> Mapping[str, Any]:
    """The config.json of the pooling module, which lies in a folder of its own."""
    if f"{folder}/config.json" in weights.files:
        return weights.json(f"{folder}/config.json")
    if not folder.replace("_", "").isalnum():
        raise WeightsError(f"{uri!r}: modules.json names a folder outside the model")
    try:
        inner = resources.weights(f"{uri.rstrip('/')}/{folder}")
        try:
            return inner.json("config.json")
        finally:
            inner.close()
    except WeightsError as error:
        # Guessing would give vectors that look right and are not.
        raise WeightsError(f"{uri!r}: how to pool is in {folder}/config.json, which cannot be read") from error


def pooling_of(config: Mapping[str, Any], uri: str) -> Pooling:
    """The one pooling that a Pooling module names, in either spelling of its config.json."""
    named = config.get("pooling_mode")
    asked = [named] if isinstance(named, str) else [key for key in config if key.startswith("pooling_mode_") and config[key]]
    names = [name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name in asked]
    names = ["mean_sqrt_len_tokens" if name == "mean_sqrt_len" else name for name in names]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise WeightsError(f"{uri!r}: the pooling {'+'.join(names) or 'none'} is not known; known: {', '.join(POOLINGS)}")
    return names[0]  # type: ignore[return-value]  # it is one of POOLINGS


def chosen_dtype(asked: str, facts: Facts, *, gpu: bool, native_bf16: bool) -> str:
    """The torch dtype to compute in.

    "auto" is as stored, except on a CPU that does bfloat16 in software. There a 16-bit model decodes up to twice as
    fast as a 32-bit one (half the bytes to move) but reads its prompt three to four times more slowly (measured on AVX2), so
    what fits a gigabyte as float32 is computed as float32 and only larger models stay in 16 bits.
    """
    if asked != "auto":
        return asked
    stored = DTYPES[facts.stored]
    if stored == "float64" or (stored in ("bfloat16", "float16") and not gpu and not native_bf16):
        return "float32" if stored == "float64" or facts.params * 4 <= SMALL_BYTES else stored
    return stored


def bytes_of(facts: Facts, dtype: str) -> int:
    """What the weights take in memory in this dtype."""
    return facts.params * (4 if dtype == "float32" else 2)


def kv_bytes_per_token(facts: Facts, dtype: str) -> int | None:
    """What one token takes in the KV cache; None for an encoder, and where config.json does not say."""
    kv = facts.sizes.kv
    return None if kv is None else kv * (4 if dtype == "float32" else 2)


def gpu_expected(device: str) -> bool:
    """Whether "auto" will find a GPU, as far as that can be told without importing torch."""
    if device != "auto":
        return device.partition(":")[0] not in ("cpu", "meta")
    try:
        return "+cpu" not in metadata.version("torch") and Path("/dev/nvidiactl").exists()
    except metadata.PackageNotFoundError:
        return False


def native_bf16() -> bool:
    """Whether this CPU has bfloat16 arithmetic; False where that cannot be read."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def optional_json(weights: Weights, name: str) -> dict[str, Any]:
    """A small file as a JSON object, empty when it is not there."""
    return weights.json(name) if name in weights.files else {}


def load_list(weights: Weights, name: str) -> list[Any]:
    """A small file as a JSON list."""
    import json

    try:
        value = json.loads(weights.file(name))
    except ValueError as error:
        raise WeightsError(f"{name!r} is not JSON: {error}") from error
    if not isinstance(value, list):
        raise WeightsError(f"{name!r} is not a JSON list")
    return value


def rounded(number: float, units: tuple[str, ...]) -> str:
    """A figure in three digits, such as 2.16M; each of the units is a thousand of the one before."""
    for unit in units[:-1]:
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}{units[-1]}"
