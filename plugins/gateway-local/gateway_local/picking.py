"""How the next token of a text is picked: greedy or sampled, with penalties, in a shape, and how likely. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gateway import Chat, Generate
from gateway_local.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is picked. `temperature` 0 is the likeliest one; `seed` None is fresh chance.

    The penalties are OpenAI's: taken off a token's logit once when it has been written, and as often as it has been written.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence: float = 0.0
    frequency: float = 0.0


class Picked(NamedTuple):
    """A token. Where asked for, its log-probability and those of the likeliest, by the model itself: before any penalty,
    temperature or cut."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


def sampling_of(request: Generate | Chat, defaults: Any) -> Sampling:
    """What a request asks for, and the model's generation_config where it says nothing.

    Without a temperature the likeliest token is picked, unless the generation_config samples, or `top_p` or `top_k` is given.
    """
    chat = request if isinstance(request, Chat) else None
    temperature, top_p, top_k = request.temperature, request.top_p, chat.top_k if chat else None
    if temperature is None:
        samples = bool(defaults.do_sample) or top_p is not None or top_k is not None
        stated = 1.0 if defaults.temperature is None else defaults.temperature
        temperature = stated if samples else 0.0
    return Sampling(
        temperature=temperature,
        top_p=top_p if top_p is not None else defaults.top_p or 1.0,
        top_k=top_k if top_k is not None else defaults.top_k or 0,
        seed=request.seed,
        presence=(chat.presence_penalty or 0.0) if chat else 0.0,
        frequency=(chat.frequency_penalty or 0.0) if chat else 0.0,
    )


class Picker:
    """Picks the tokens of one text, one after the other.

    With temperature 0 they are those of ``model.generate(do_sample=False)``. `logprobs`: told of each, and of so many others.
    """

    def __init__(
        self,
        config: Any,
        sampling: Sampling,
        prompt: Sequence[int],
        device: torch.device,
        *,
        logprobs: int | None = None,
        shape: Shape | None = None,
    ) -> None:
        self._sampling, self._logprobs, self.shape = sampling, logprobs, shape
        self._adjust, self._warp = processors(config, sampling, device)
        self._chance = generator(sampling, device)
        self._ids: Any = torch.tensor([prompt], device=device) if self._adjust else None  # (1, time)
        self._counts: torch.Tensor | None = None
        self._penal = bool(sampling.presence or sampling.frequency)

    @property
    def likeliest(self) -> bool:
        """True when the likeliest token is picked, and nothing more is wanted."""
        plain = self._chance is None and not self._adjust and not self._penal
        return plain and self.shape is None and self._logprobs is None

    def pick(self, logits: torch.Tensor, left: int) -> Picked:
        """The next token, by the model's logits `(1, vocabulary)` in float32; after it, `left` more may follow."""
        own = logits
        if self._penal:
            self._counts = torch.zeros_like(logits) if self._counts is None else self._counts
            counts = self._counts
            logits = logits - self._sampling.frequency * counts - self._sampling.presence * (counts > 0)
        if self._ids is not None:
            logits = self._adjust(self._ids, logits)
        if self.shape is not None:
            logits = self.shape.mask(logits)
        if self._chance is None:
            token = int(logits.argmax(dim=-1))
        else:
            token = int(torch.multinomial(self._warp(self._ids, logits).softmax(dim=-1), 1, generator=self._chance))
        if self.shape is not None:
            token = self.shape.within(token, left)
            self.shape.took(token)
        if self._ids is not None:  # only these look back at what was written
            self._ids = torch.cat([self._ids, self._ids.new_tensor([[token]])], dim=-1)
        if self._counts is not None:
            self._counts[0, token] += 1
        return Picked(token) if self._logprobs is None else _told(own[0], token, self._logprobs)


def _told(logits: torch.Tensor, token: int, count: int) -> Picked:
    likely = logits.log_softmax(dim=-1)  # (vocabulary,)
    values, places = likely.topk(min(count, len(likely)))
    return Picked(token, float(likely[token]), tuple(zip(places.tolist(), values.tolist(), strict=True)))


def generator(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """This request's own source of chance, None where none is needed."""
    if sampling.temperature == 0:
        return None
    chance = torch.Generator(device=device)
    if sampling.seed is None:
        chance.seed()
    else:
        chance.manual_seed(sampling.seed & (2**64 - 1))
    return chance


def processors(config: Any, sampling: Sampling, device: torch.device) -> tuple[LogitsProcessorList, LogitsProcessorList]:
    """What the model's generation_config asks for at every step, and what sampling adds; in the order of `generate`."""
    adjust = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        adjust.append(RepetitionPenaltyLogitsProcessor(penalty=config.repetition_penalty))
    if config.no_repeat_ngram_size:
        adjust.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.suppress_tokens:
        adjust.append(SuppressTokensLogitsProcessor(config.suppress_tokens, device=str(device)))
    warp = LogitsProcessorList()
    if sampling.temperature not in (0.0, 1.0):
        warp.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k > 0:
        warp.append(TopKLogitsWarper(top_k=sampling.top_k))
    if sampling.top_p < 1.0:
        warp.append(TopPLogitsWarper(top_p=sampling.top_p))
    if config.min_p:
        warp.append(MinPLogitsWarper(min_p=config.min_p))
    return adjust, warp
