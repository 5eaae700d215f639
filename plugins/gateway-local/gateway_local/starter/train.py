"""Train the starter model: a Llama of two million weights that writes the next speech of a play.

    python -m gateway_local.starter.train --text shakespeare.txt --to DIR [--minutes 12]

The last tenth of the text, by position, is held out: neither the vocabulary nor the weights ever see it,
and no choice is made by it. It is scored once, at the end, on the weights as written to disk.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPEECH_END = "\n\n"  # a blank line ends a speech: this one token starts a text and ends an answer
SPEECH_END_ID = 0  # special tokens are numbered first
CONTEXT = 512  # tokens

# A chat as a play. A message without text is dropped, and so is a blank line: it would end the speech.
# A role that is neither user nor assistant (system, developer, tool) becomes a stage line of its own.
CHAT_TEMPLATE = """\
{%- macro lines(content) -%}
{%- set said = namespace(text='') -%}
{%- for part in ([{'type': 'text', 'text': content}] if content is string else content or []) -%}
{%- if part.type == 'text' -%}{%- set said.text = said.text + part.text -%}{%- endif -%}
{%- endfor -%}
{{- said.text.splitlines() | map('trim') | select | join('\\n') -}}
{%- endmacro -%}
{%- set speakers = {'user': 'First Citizen:\\n', 'assistant': 'Second Citizen:\\n'} -%}
{%- for message in messages -%}
{%- set said = lines(message.content) -%}
{%- if said -%}{{- speakers.get(message.role, '') + said + '\\n\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- speakers.assistant -}}{%- endif -%}
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was chosen: vocabulary, batch and learning rates by short trials on the tuning slice."""

    vocabulary: int = 2048
    layers: int = 4
    width: int = 192
    heads: int = 4
    mlp_width: int = 512
    batch_tokens: int = 2048
    merge_dropout: float = 0.1  # BPE-dropout (Provilkov et al. 2020): the text is spelt afresh each epoch
    matrix_lr: float = 0.03
    table_lr: float = 0.008
    weight_decay: float = 0.1
    tuning_share: float = 0.02  # of the training split, its end: picks the best weights, is not trained on
    seed: int = 1  # of weights and order; which merges drop, and how many steps fit the time, still vary


def learn_tokenizer(text: str, vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer: any Unicode text goes in without unknown tokens and comes back exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = AddedToken(SPEECH_END, special=True, normalized=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[end], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(text.split(SPEECH_END), trainer)
    return tokenizer


def tokens_of(tokenizer: Tokenizer, text: str, *, merge_dropout: float = 0.0) -> Tensor:
    """`text` as token ids `(time,)` after a leading `SPEECH_END`; the same each time unless merges drop."""
    tokenizer.model.dropout = merge_dropout or None
    ids = tokenizer.encode(text).ids
    tokenizer.model.dropout = None
    return torch.tensor([SPEECH_END_ID, *ids])


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """An untrained Llama of `recipe`'s size, with one table for what goes in and what comes out."""
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=SPEECH_END_ID,
        eos_token_id=SPEECH_END_ID,
        pad_token_id=None,  # the row of a padding token learns nothing as an input
    )
    return LlamaForCausalLM(config)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Jordan et al. 2024), for the matrices inside the layers.

    `torch.optim.Muon` works in bfloat16: fifty times slower on a processor without bfloat16 units.
    """

    def __init__(self, matrices: list[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        """Take over `matrices`, each of two dimensions."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix once; those of one shape are made orthogonal together."""
        (group,) = self.param_groups
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in group["params"]:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        for (rows, columns), matrices in by_shape.items():
            updates = []
            for matrix in matrices:
                assert matrix.grad is not None
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                updates.append(matrix.grad.lerp(momentum, group["momentum"]))
            stretch = max(1.0, rows / columns) ** 0.5
            for matrix, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * stretch)


def orthogonal(updates: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each of `updates` `(many, rows, columns)`, by Newton-Schulz."""
    tall = updates.size(-2) > updates.size(-1)
    x: Tensor = updates.mT if tall else updates
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def windows(tokens: Tensor, length: int, count: int) -> Iterator[Tensor]:
    """One epoch: `tokens` cut at a random offset into windows of `length` + 1, shuffled, in batches."""
    start = int(torch.randint(length, (1,)))
    cut = tokens[start:].unfold(0, length + 1, length)  # (windows, length + 1)
    yield from torch.split(cut[torch.randperm(len(cut))], count)


@torch.no_grad()
def bits(model: LlamaForCausalLM, tokens: Tensor) -> float:
    """The sum of -log2 p over `tokens[1:]`, each predicted once from the 256 to 511 before it."""
    model.train(False)
    total, done, stride = 0.0, 1, CONTEXT // 2
    while done < len(tokens):
        end = min(len(tokens), max(CONTEXT, done + stride))
        window = tokens[max(0, end - CONTEXT) : end]
        logits = model(input_ids=window[None, :-1]).logits[0].float()  # (window - 1, vocabulary)
        new = end - done
        total += F.cross_entropy(logits[-new:], window[-new:], reduction="sum").item()
        done = end
    return total / math.log(2)


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, text: str, recipe: Recipe, minutes: float) -> None:
    """Fit `model` to `text` in `minutes`, and leave it with the weights that did best on the tuning slice."""
    cut = len(text) - int(len(text) * recipe.tuning_share)
    tuning = tokens_of(tokenizer, text[cut:])
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(rest, lr=recipe.table_lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    full_lr = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    best, best_bits = copy.deepcopy(model.state_dict()), math.inf
    began, step, epoch, next_look, done = time.monotonic(), 0, 0, 0.1, 0.0
    while done < 1:
        # Short windows cost less; what starts late teaches the later positions.
        length = CONTEXT // 2 if done < 0.85 else CONTEXT
        # Spellings vary until near the end, then the text is spelt as it will be when the model is used.
        loose = recipe.merge_dropout if done < 0.7 else 0.0
        tokens = tokens_of(tokenizer, text[:cut], merge_dropout=loose)
        epoch += 1
        for batch in windows(tokens, length, recipe.batch_tokens // length):
            done = (time.monotonic() - began) / (60 * minutes)
            if done >= 1 or (done >= 0.85 and length < CONTEXT):
                break
            model.train()
            logits = model(input_ids=batch[:, :-1]).logits  # (batch, length, vocabulary)
            torch.autograd.backward(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()))
            for optimizer, lr in zip(optimizers, full_lr, strict=True):
                optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 30, 1.3 * (1 - done))
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            if done >= next_look:
                next_look += 0.1 if done < 0.85 else 0.03
                now = bits(model, tuning) / (len(text) - cut)
                print(f"{done:4.0%}  step {step}  epoch {epoch}  tuning {now:.3f} bits/char", flush=True)
                if now < best_bits:
                    best, best_bits = copy.deepcopy(model.state_dict()), now
    if bits(model, tuning) / (len(text) - cut) >= best_bits:
        model.load_state_dict(best)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, to: Path) -> None:
    """Write the model in bfloat16, its tokenizer with the chat template, and how to sample from it."""
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_new_tokens": 160}
    model.generation_config = GenerationConfig.from_dict(
        {**sampling, **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), SPEECH_END_ID)}
    )
    nn.Module.to(model, torch.bfloat16).save_pretrained(to)
    (to / "model.safetensors").chmod(0o644)  # safetensors writes a file that only its owner may read
    special: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "pad_token"), SPEECH_END)
    special["clean_up_tokenization_spaces"] = False
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    whole = fast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **special)
    whole.chat_template = CHAT_TEMPLATE
    whole.save_pretrained(to)


def run(recipe: Recipe, text: Path, to: Path, minutes: float) -> None:
    """Train, save, reload, and print the held-out bits per character of what was saved."""
    torch.set_num_threads(2)
    torch.manual_seed(recipe.seed)
    plays = text.read_text(encoding="utf-8")
    split = int(len(plays) * 0.9)
    tokenizer = learn_tokenizer(plays[:split], recipe.vocabulary)
    model = build_model(recipe)
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, {minutes:g} minutes")
    train(model, tokenizer, plays[:split], recipe, minutes)
    save(model, tokenizer, to)
    saved = LlamaForCausalLM.from_pretrained(to)
    held_out = plays[split:]
    score = bits(saved, tokens_of(tokenizer, held_out)) / len(held_out)
    print(f"held out: {score:.3f} bits per character, {len(held_out):,} characters, weights {saved.dtype}")


def main() -> None:
    """Read the command line and run the recipe."""
    parser = argparse.ArgumentParser(description="Train the starter model.")
    parser.add_argument("--text", type=Path, required=True, help="plays, with a blank line between speeches")
    parser.add_argument("--to", type=Path, required=True, help="the directory to write")
    parser.add_argument("--minutes", type=float, default=12.0, help="of training (default 12)")
    run(Recipe(), **vars(parser.parse_args()))


if __name__ == "__main__":
    main()
