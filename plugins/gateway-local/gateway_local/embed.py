"""Vectors for texts: sorted by length, batched to a budget of padded tokens, pooled as sentence-transformers does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from gateway_local.facts import EmbedFacts, Pooling

BUDGET_TOKENS = 1024
"""Tokens a batch, padding included. Measured on a small CPU: more waste cache, fewer waste calls."""


def batches(lengths: Sequence[int], budget_tokens: int = BUDGET_TOKENS) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first; each fits the budget, or is one text alone."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # The longest is the first of its batch, so all are padded to its length.
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def embed(
    model: Any, texts: Sequence[Sequence[int]], facts: EmbedFacts, *, pad_id: int, gone: Callable[[], bool]
) -> list[tuple[float, ...]] | None:
    """One vector per tokenised text, in order; None when `gone()` between two batches."""
    vectors: list[tuple[float, ...]] = [()] * len(texts)
    for batch in batches([len(text) for text in texts]):
        if gone():
            return None
        longest = len(texts[batch[0]])
        ids = torch.tensor([[*texts[i], *[pad_id] * (longest - len(texts[i]))] for i in batch])  # (batch, time)
        lengths = torch.tensor([[len(texts[i])] for i in batch])  # (batch, 1)
        mask = (torch.arange(longest) < lengths).long().to(model.device)  # (batch, time)
        hidden = model(input_ids=ids.to(model.device), attention_mask=mask, return_dict=True).last_hidden_state
        pooled = pool(hidden.float(), mask, facts.pooling)  # (batch, width)
        if facts.normalize:
            pooled = F.normalize(pooled, dim=-1)
        for index, vector in zip(batch, pooled.tolist(), strict=True):
            vectors[index] = tuple(vector)
    return vectors


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """`(batch, time, width)` to `(batch, width)`, looking only where the mask `(batch, time)` is 1."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        return hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1]
    shown = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, time, 1)
    if pooling == "max":
        return hidden.masked_fill(shown == 0, -torch.inf).amax(dim=1)
    count = shown.sum(dim=1).clamp(min=1e-9)
    summed = (hidden * shown).sum(dim=1)
    return summed / (count.sqrt() if pooling == "mean_sqrt_len_tokens" else count)
