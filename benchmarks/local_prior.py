"""Size and speed of local models as their cards have them before anything is loaded, beside the real ones. Prints figures.

    python benchmarks/local_prior.py [NAME ...] [--rounds N]

Shapes of twelve families with random weights. This machine is measured first, as the first load on it would; then each card is
read from the files alone, the model is loaded, and it answers alone: a first token after 256, and 96 tokens after 96.
Given are the best first token of the rounds and the best 8 tokens in a row, for the machine may be shared; helper threads do
not spin, as the plugin's README advises there. The ratio is the real figure by the foretold one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16"]
Shape = tuple[str, str, Dtype, dict[str, Any]]


def rows(width: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int) -> dict[str, Any]:
    """A configuration in the words of most families."""
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "intermediate_size": inner, "vocab_size": vocabulary, "max_position_embeddings": 1024,
    }  # fmt: skip


NEOX = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 50304}
OPT = {"hidden_size": 384, "word_embed_proj_dim": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "ffn_dim": 1536}
QWEN_MOE = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 768}
SHAPES: tuple[Shape, ...] = (
    ("gpt2", "GPT2", "float32", {"n_embd": 128, "n_layer": 4, "n_head": 4, "vocab_size": 1000}),
    ("gpt2-16", "GPT2", "bfloat16", {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 4000}),
    ("llama", "Llama", "float32", rows(256, 8, 8, 4, 688, 4000)),
    ("neox", "GPTNeoX", "float32", NEOX),
    ("opt", "OPT", "float32", {**OPT, "vocab_size": 40000, "max_position_embeddings": 1024}),
    ("qwen2", "Qwen2", "bfloat16", {**rows(512, 12, 8, 2, 1408, 32000), "tie_word_embeddings": True}),
    ("qwen2-moe", "Qwen2Moe", "bfloat16", {**rows(384, 6, 6, 2, 768, 16000), **QWEN_MOE}),
    ("mixtral", "Mixtral", "float32", {**rows(384, 6, 6, 2, 768, 16000), "num_local_experts": 8, "num_experts_per_tok": 2}),
    ("mistral", "Mistral", "float32", rows(512, 8, 8, 2, 1792, 32000)),
    ("gemma", "Gemma", "bfloat16", {**rows(640, 10, 4, 1, 2560, 64000), "head_dim": 160}),
    ("phi", "Phi", "float32", rows(768, 10, 12, 12, 3072, 32000)),
    ("qwen3", "Qwen3", "bfloat16", {**rows(1024, 16, 16, 8, 3072, 32000), "head_dim": 128, "tie_word_embeddings": True}),
)
PROMPT, SHORT_PROMPT, NEW, RUN = 256, 96, 96, 8


def save(folder: Path, family: str, dtype: Dtype, shape: dict[str, Any]) -> int:
    """A model of this shape and a tokenizer of its vocabulary in a folder. The bytes that the model takes in memory."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    library: Any = transformers
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    model = library.AutoModelForCausalLM.from_config(getattr(library, f"{family}Config")(**shape, **tokens))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({f"t{at}": at for at in range(shape["vocab_size"])}, unk_token="t0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.save(str(folder / "tokenizer.json"))
    return int(model.get_memory_footprint())


async def measure(name: str, family: str, dtype: Dtype, shape: dict[str, Any], rounds: int) -> None:
    """Describe, load and time one model, and print its line."""
    from gateway_local import LocalModel
    from gateway_local.options import ModelOptions

    from gateway import Generate
    from gateway.testing import resources

    with tempfile.TemporaryDirectory() as folder:
        real_bytes = save(Path(folder), family, dtype, shape)
        service, lent = LocalModel(ModelOptions(name=name, weights=folder, device="cpu", dtype=dtype)), resources()
        card = await service.describe(lent)
        await service.start(lent)

        async def times(tokens: int, new: int) -> list[float]:
            """When each new token came, in seconds."""
            began, came = time.perf_counter(), []
            async for _ in service.stream(Generate(prompt=" ".join(["t5"] * tokens), max_tokens=new)):
                came.append(time.perf_counter() - began)
            assert len(came) == new + 1  # and the response
            return came[:-1]

        await times(SHORT_PROMPT, 2)
        real_first_s = real_per_s = float("inf")
        for _ in range(rounds):
            came = await times(SHORT_PROMPT, NEW)
            runs = zip(came, came[RUN:], strict=False)
            real_per_s = min(real_per_s, *((last - first) / RUN for first, last in runs))
            real_first_s = min(real_first_s, (await times(PROMPT, 1))[0])
        await service.aclose()
    assert card.params is not None and card.active_params is not None and card.bytes is not None
    assert card.per_token_s is not None and card.first_token_s is not None
    print(
        f"{name:10}{dtype:9}{card.params / 1e6:7.1f}{card.active_params / 1e6:8.1f}"
        f"{card.bytes / 1e6:8.1f}{real_bytes / 1e6:8.1f}{real_bytes / card.bytes:6.2f}"
        f"{card.per_token_s * 1e3:9.2f}{real_per_s * 1e3:8.2f}{real_per_s / card.per_token_s:6.2f}"
        f"{card.first_token_s * 1e3:10.0f}{real_first_s * 1e3:8.0f}{real_first_s / card.first_token_s:6.2f}",
        flush=True,
    )


def main() -> None:
    """Measure this machine, then all shapes, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="only these shapes")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from gateway_local import probe, speed
        from gateway_local.imports import import_code

        import_code("LlamaForCausalLM", gone=lambda: False)
        began = time.perf_counter()
        probe.ensure()
        took, known = time.perf_counter() - began, speed.recall()
        assert known is not None
        print(f"this machine, in {took:.2f} s: {known.step_s * 1e3:.2f} ms a pass, {known.layer_s * 1e3:.2f} ms a layer")
        for name, rate in known.rates.items():
            print(f"  {name:22}{rate.bytes_per_s / 1e9:6.1f} GB/s{rate.flops / 1e9:8.1f} GFLOP/s")
        print(f"\n{'':19}{'millions':>15}{'megabytes':>22}{'ms a token':>23}{'ms to the first':>24}")
        told = f"{'foretold':>9}{'real':>8}{'':6}"
        print(f"{'':19}{'params':>7}{'active':>8}{told[1:]}{told}{' ' + told}")
        for shape in SHAPES:
            if not given.names or shape[0] in given.names:
                asyncio.run(measure(*shape, given.rounds))


if __name__ == "__main__":
    main()
