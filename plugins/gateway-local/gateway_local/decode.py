"""The decoding loop: a prompt's tokens in, new tokens out, one at a time. Greedy or sampled; imports torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import (
    DynamicCache,
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


def decode(
    model: Any,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    max_tokens: int,
    gone: Callable[[], bool],
    logprobs: int | None = None,
    shape: Shape | None = None,
) -> Iterator[Picked]:
    """New tokens, at most `max_tokens`, until the caller stops asking, `gone()`, or the shape that they must have is whole.

    Ends of text are the caller's to see. With temperature 0 they are those of ``model.generate(do_sample=False)``.
    `logprobs`: told of each, and of so many others.
    """
    device = model.device
    adjust, warp = processors(model.generation_config, sampling, device)
    chance = generator(sampling, device)
    cache = DynamicCache(config=model.config)
    kept: dict[str, Any] = {str(cache_argument(model)): cache}
    ids: Any = torch.tensor([prompt], dtype=torch.long, device=device)  # (1, time)
    step, counts = ids, None
    for left in range(max_tokens, 0, -1):
        if gone() or (shape is not None and shape.whole):
            return
        out = model(input_ids=step, **kept, use_cache=True, logits_to_keep=1, return_dict=True)
        logits = out.logits[:, -1].to(dtype=torch.float32, copy=True)  # (1, vocabulary)
        own = logits if logprobs is None else logits.clone()
        if sampling.presence or sampling.frequency:
            counts = torch.zeros_like(logits) if counts is None else counts
            logits = logits - sampling.frequency * counts - sampling.presence * (counts > 0)
        logits = adjust(ids, logits)
        if shape is not None:
            logits = shape.mask(logits)
        if chance is None:
            step = logits.argmax(dim=-1, keepdim=True)  # (1, 1)
        else:
            step = torch.multinomial(warp(ids, logits).softmax(dim=-1), 1, generator=chance)
        if shape is not None and (within := shape.within(int(step), left - 1)) != int(step):
            step = torch.full_like(step, within)
        if adjust:  # only these look back at what was written
            ids = torch.cat([ids, step], dim=-1)
        if counts is not None:
            counts.scatter_add_(1, step, torch.ones_like(step, dtype=counts.dtype))
        if shape is not None:
            shape.took(int(step))
        yield Picked(int(step)) if logprobs is None else _told(own[0], int(step), logprobs)


def _told(logits: torch.Tensor, token: int, count: int) -> Picked:
    likely = logits.log_softmax(dim=-1)  # (vocabulary,)
    values, places = likely.topk(min(count, len(likely)))
    return Picked(token, float(likely[token]), tuple(zip(places.tolist(), values.tolist(), strict=True)))


def cache_argument(model: Any) -> str | None:
    """The name under which `model.forward` takes its cache; None where the architecture keeps none.

    transformers 5.24 calls it ``cache`` in every family; earlier versions ``past_key_values``, or ``cache_params`` in Mamba's.
    """
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in parameters), None)


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
