"""Attention of many texts at once, each to itself. Imports torch.

The new tokens of all texts lie one after the other, as if they were one text. Layers treat each token by itself and never know,
but for attention: it writes each token's key and value into the slot of its text, and looks there alone. Texts with one new
token, most of them, are attended to in one call a chunk (selective batching: Orca, Yu et al., OSDI
2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from gateway_local.slots import Chunk, Slot

ATTENTION = "gateway_slots"
"""The name under which transformers' models find this."""

SAYS_NOTHING = frozenset(
    {"position_ids", "use_cache", "cache", "output_attentions", "output_hidden_states", "output_router_logits", "return_dict"}
)
"""What models hand on to their attention that does not change it."""


class Unattended(Exception):
    """The model asks for a kind of attention that is not known here."""


@dataclass(frozen=True, slots=True)
class Span:
    """The new tokens of one text."""

    slot: Slot
    ids: Sequence[int]

    @property
    def start(self) -> int:
        """Where in its text they begin."""
        return len(self.slot.ids)


class Singles:
    """Texts of one chunk with one new token each, in the pass from `at` to `end`; in slots from `low` to `high`."""

    def __init__(self, chunk: Chunk, spans: Sequence[Span], at: int, device: torch.device) -> None:
        self.chunk, self.at, self.end = chunk, at, at + len(spans)
        places = [span.slot.place for span in spans]
        self.low, self.high = places[0], places[-1] + 1
        self.places = torch.tensor(places, device=device)
        self.positions = torch.tensor([span.start for span in spans], device=device)
        self.longest = max(span.start for span in spans) + 1
        self.all = len(spans) == self.high - self.low
        self._masks: dict[Any, torch.Tensor] = {}

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """What to add to the scores, `(slots, 1, 1, time)`: nothing, or minus infinity."""
        if window not in self._masks:
            ends = self.positions.new_zeros(self.high - self.low)
            ends[self.places - self.low] = self.positions  # a slot with nothing new looks at its first place, for no one
            mask = added(self.longest, ends, window, like)
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


class Step:
    """One pass over the new tokens of some texts, in the order of `spans`: single ones first, chunk by chunk."""

    def __init__(self, spans: Sequence[Span], device: torch.device) -> None:
        chunks = {id(span.slot.chunk): at for at, span in enumerate(spans)}
        single = [span for span in spans if len(span.ids) == 1]
        single.sort(key=lambda span: (chunks[id(span.slot.chunk)], span.slot.place))
        self.spans = [*single, *(span for span in spans if len(span.ids) > 1)]
        self.singles: list[Singles] = []
        at = 0
        for _, each in groupby(single, key=lambda span: id(span.slot.chunk)):
            group = list(each)
            self.singles.append(Singles(group[0].slot.chunk, group, at, device))
            at += len(group)
        self.longer: list[tuple[int, Span]] = []
        for span in self.spans[at:]:
            self.longer.append((at, span))
            at += len(span.ids)
        self.device = device
        self.windows: dict[int, int | None] = {}
        """How far back each layer looks, as it says itself; None: to the beginning."""
        self._masks: dict[Any, torch.Tensor] = {}

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The model's `input_ids` and `position_ids`, `(1, time)`."""
        ids = [token for span in self.spans for token in span.ids]
        positions = [place for span in self.spans for place in range(span.start, span.start + len(span.ids))]
        return {
            "input_ids": torch.tensor([ids], device=self.device),
            "position_ids": torch.tensor([positions], device=self.device),
        }

    @cached_property
    def ends(self) -> torch.Tensor:
        """Where in the pass the last new token of each text is."""
        return torch.tensor([len(span.ids) for span in self.spans], device=self.device).cumsum(0) - 1

    def mask(self, span: Span, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """What to add to the scores of a text's new tokens, `(new, time)`."""
        key = id(span), window
        if key not in self._masks:
            end = span.start + len(span.ids)
            places = torch.arange(span.start, end, device=self.device)
            self._masks[key] = added(end, places, window, like)
        return self._masks[key]


def added(longest: int, ends: torch.Tensor, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """What to add to the scores of each that sees up to its own end, and no further back than the window, `(ends, time)`."""
    times = torch.arange(longest, device=ends.device)
    seen = times <= ends[:, None]
    if window is not None:
        seen &= times > ends[:, None] - window
    return torch.zeros(seen.shape, dtype=like.dtype, device=ends.device).masked_fill_(~seen, -torch.inf)


def capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: torch.Tensor,
    scale: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with soft-capped scores (Gemma 2), or with a sink for each head (gpt-oss), written out.

    `(batch, heads, asking, width)`, where the heads are those of the keys: `asking` holds all that share one. `sinks`: one
    score for each head of the model.
    """
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = (scores + attn_mask).float()
    if sinks is None:
        return scores.softmax(dim=-1).to(value.dtype) @ value
    heads, asking = scores.shape[1], scores.shape[2]
    each = sinks.float().reshape(heads, -1).repeat_interleave(asking * heads // sinks.numel(), dim=1)  # (heads, asking)
    sunk = torch.cat([scores, each[None, :, :, None].expand(len(scores), -1, -1, -1)], dim=-1)
    return sunk.softmax(dim=-1)[..., :-1].to(value.dtype) @ value


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    gateway_step: Step | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as a model of transformers calls it: `(1, heads, time, width)` each, to `(1, time, heads, width)`."""
    strange = [name for name, wish in more.items() if wish is not None and name not in SAYS_NOTHING]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if gateway_step is None or strange or not causal or query.shape[0] != 1 or attention_mask is not None:
        raise Unattended(", ".join(strange) or type(module).__name__)
    layer, heads, groups = module.layer_idx, key.shape[1], query.shape[1] // key.shape[1]
    gateway_step.windows[layer] = sliding_window
    plain, out = softcap is None and s_aux is None, []
    look: Any = scaled_dot_product_attention if plain else partial(capped, softcap=softcap, sinks=s_aux)
    for few in gateway_step.singles:
        keys, values = few.chunk.layer(layer, key, value)
        keys[few.places, :, few.positions] = key[0, :, few.at : few.end].transpose(0, 1)
        values[few.places, :, few.positions] = value[0, :, few.at : few.end].transpose(0, 1)
        asks = query[0, :, few.at : few.end].transpose(0, 1).reshape(-1, heads, groups, query.shape[-1])
        if not few.all:
            asks = asks.new_zeros(few.high - few.low, *asks.shape[1:]).index_copy_(0, few.places - few.low, asks)
        window = None if sliding_window is None or sliding_window >= few.longest else sliding_window
        got = look(
            asks,
            keys[few.low : few.high, :, : few.longest],
            values[few.low : few.high, :, : few.longest],
            attn_mask=few.mask(window, query),
            scale=scaling,
        )
        got = got if few.all else got[few.places - few.low]
        out.append(got.reshape(few.end - few.at, heads * groups, -1))
    for at, span in gateway_step.longer:
        keys, values = span.slot.chunk.layer(layer, key, value)
        place, count, end = span.slot.place, len(span.ids), span.start + len(span.ids)
        keys[place, :, span.start : end] = key[0, :, at : at + count]
        values[place, :, span.start : end] = value[0, :, at : at + count]
        asks, seen = query[:, :, at : at + count], (keys[place : place + 1, :, :end], values[place : place + 1, :, :end])
        window = None if sliding_window is None or sliding_window >= end else sliding_window
        if span.start == 0 and window is None and plain:
            got = scaled_dot_product_attention(asks, *seen, is_causal=True, scale=scaling, enable_gqa=groups > 1)
        else:  # heads that share keys are asked as if they were more tokens
            packed = asks.reshape(1, heads, groups * count, -1)
            mask = gateway_step.mask(span, window, query).repeat(groups, 1)
            got = look(packed, *seen, attn_mask=mask, scale=scaling)
            got = got.reshape(1, heads * groups, count, -1)
        out.append(got[0].transpose(0, 1))
    return torch.cat(out)[None], None


AttentionInterface.register(ATTENTION, attend)
