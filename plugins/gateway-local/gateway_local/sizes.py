"""How much of a model one token needs: its active weights, those that are read for it, and what it leaves in the KV cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import TensorInfo

TABLES = (
    "embed_tokens.", "embed_in.", "embed_positions.", "word_embeddings.", "position_embeddings.", "token_type_embeddings.",
    "wte.", "wpe.",
)  # fmt: skip
"""How the modules are named whose tensors are tables: one row is looked up for a token."""

POSITIONS = ("embed_positions.", "position_embeddings.", "token_type_embeddings.", "wpe.")
OUTPUTS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""The matrix that gives a score to every token. A decoder without one uses the table of its input."""

EXPERTS_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")
CHOSEN_KEYS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")
HEADS_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_KEYS = ("num_key_value_heads", "num_kv_heads")
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim")

ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
OTHER_STATES = ("attn_layer_period", "hybrid_override_pattern", "kv_lora_rank", "attn_layer_indices", "attn_config")
"""Keys of configurations whose cache is no pair of vectors a head and layer, or not in every layer: not guessed at."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of numbers. Of a mixture of experts only those are counted that a token is sent to.

    `active`: the parameters that one token needs. `body`: those of them that each token of a prompt is multiplied with.
    `read`: those that are read for each new token, the scores of the vocabulary among them. `kv`: what one token
    leaves in the KV cache, while no sliding window is full; None when it is not known from config.json.
    """

    active: int
    body: int
    read: int
    kv: int | None


def sizes_of(config: Mapping[str, Any], floats: Mapping[str, TensorInfo], *, encoder: bool) -> Sizes:
    """The counts of a model with this config.json and these floating-point tensors."""
    params = {name: math.prod(info.shape) for name, info in floats.items()}
    experts, chosen = first_int(config, EXPERTS_KEYS), first_int(config, CHOSEN_KEYS)
    share = min(1.0, chosen / experts) if experts and chosen else 1.0
    active = round(sum(count * (share if ".experts." in name else 1.0) for name, count in params.items()))
    tables = {name: count for name, count in params.items() if any(part in name for part in TABLES)}
    body = active - sum(tables.values())
    if encoder:
        return Sizes(active=active, body=body, read=body, kv=None)
    output = sum(count for name, count in params.items() if name.endswith(OUTPUTS))
    body -= output
    tied = sum(count for name, count in tables.items() if not any(part in name for part in POSITIONS))
    return Sizes(active=active, body=body, read=body + (output or tied), kv=kv_of(config))


def kv_of(config: Mapping[str, Any]) -> int | None:
    """The numbers that one token leaves in the KV cache: a key and a value for each key-value head of each layer.

    None where config.json does not say, and for those that keep something else: states (Mamba), latent vectors (DeepSeek).
    """
    layers, heads, width = first_int(config, LAYER_KEYS), first_int(config, HEADS_KEYS), first_int(config, WIDTH_KEYS)
    if layers is None or heads is None or any(config.get(key) is not None for key in OTHER_STATES):
        return None
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        layers = sum(kind in ATTENTION for kind in kinds)
    if shared := first_int(config, ("num_kv_shared_layers",)):
        layers -= shared
    kv_heads = first_int(config, KV_KEYS) or (1 if config.get("multi_query") is True else heads)
    head_dim = first_int(config, ("head_dim",)) or (width // heads if width else None)
    return 2 * layers * kv_heads * head_dim if head_dim else None


def first_int(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first of these keys that holds a positive whole number."""
    for key in keys:
        value = config.get(key)
        if type(value) is int and value > 0:
            return value
    return None
