"""Token vectors pooled to one vector a text, as sentence-transformers does. Imports torch."""

from __future__ import annotations

import torch

from gateway_local.facts import Pooling


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
