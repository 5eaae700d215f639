"""Passes of a decoder over the new tokens of many texts: all in one, or one text after the other. Imports torch.

`passes_of` chooses. All in one needs a model of which attention is the only part where tokens meet, and that lets it be done by
`attend.py`: whether that is so is tried out, on a few tokens, against the model as transformers runs it. What shows only in a
long text is asked of its config: how far back each layer looks, and whether it keeps nothing but keys and values.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from gateway import WeightsError
from gateway_local.attend import ATTENTION, Span, Step
from gateway_local.slots import Slots

STRETCHED = frozenset({"dynamic", "longrope"})
"""Kinds of rotary positions that depend on the longest text of a pass: in one pass, one text would change another's."""

REREAD = frozenset({"phi3", "phimoe"})
"""Model types of which `generate` reads a text anew once it is longer than what the model was first trained on."""

EXACT, COARSE = 1e-3, 0.05
"""How far logits may be from those of transformers, as a share of the largest; and how far in 16 bits."""


class Together:
    """All texts in one pass. Of each it looks at `slot`, and at `todo`, the tokens that are new."""

    def __init__(self, model: Any, slots: Slots) -> None:
        self.model = model
        self.slots: Slots | None = slots
        self.windows: dict[int, int | None] = {}
        """How far back each layer looked in the last pass; None: to the beginning."""

    def cache(self) -> None:
        """Nothing: all is in the slots."""

    def forward(self, texts: Sequence[Any]) -> torch.Tensor:
        """The logits after the last new token of each, `(texts, vocabulary)`. What is new is known from then on."""
        spans = {id(text): Span(text.slot, text.todo) for text in texts}
        step = Step(list(spans.values()), self.model.device)
        out = self.model(**step.inputs, use_cache=False, return_dict=True, logits_to_keep=step.ends, gateway_step=step)
        self.windows = step.windows
        order = {id(span): at for at, span in enumerate(step.spans)}
        for span in step.spans:
            span.slot.ids.extend(span.ids)
        places = [order[id(spans[id(text)])] for text in texts]
        logits: torch.Tensor = out.logits[0]
        return logits if places == list(range(len(places))) else logits[places]


class Apart:
    """One text after the other: for models that cannot do otherwise. Of each it looks at `todo`, and keeps its `cache`.

    A text that grows longer than the model was first trained on (longrope) is read anew: `ids`, of which `read` are known.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.slots: Slots | None = None
        self._argument = str(cache_argument(model))
        config = model.config
        self._first: int | None = None
        if config.model_type in REREAD and "longrope" in _ropes(getattr(config, "rope_parameters", None)):
            self._first = getattr(config, "original_max_position_embeddings", None)

    def forward(self, texts: Sequence[Any]) -> torch.Tensor:
        """The logits after the last new token of each, `(texts, vocabulary)`."""
        return torch.cat([self._one(text) for text in texts])

    def cache(self) -> DynamicCache:
        """What one text needs to keep."""
        return DynamicCache(config=self.model.config)

    def _one(self, text: Any) -> torch.Tensor:
        todo = text.todo
        if self._first is not None and 0 < text.read <= self._first < text.read + len(todo):
            text.cache, todo = self.cache(), text.ids[: text.read + len(todo)]
        ids = torch.tensor([todo], device=self.model.device)
        out = self.model(input_ids=ids, **{self._argument: text.cache}, use_cache=True, logits_to_keep=1, return_dict=True)
        logits: torch.Tensor = out.logits[:, -1]
        return logits


def passes_of(model: Any, slots: Slots) -> Together | Apart:
    """How this model reads many texts. Its attention is set accordingly."""
    own = model.config._attn_implementation
    ropes = _ropes(getattr(model.config, "rope_parameters", None))
    tuned = getattr(model.config, "attn_temperature_tuning", False)  # by the place in the pass (Llama 4)
    if not ropes & STRETCHED and not tuned and getattr(model, "_supports_attention_backend", False):
        try:
            expected = _tried(Apart(model))
            model.set_attn_implementation(ATTENTION)
            together = Together(model, slots)
            found = _tried(together)
        except Exception:  # whatever it is that this model does not bear, it has borne the other way until now
            found = None
        if found is not None and _alike(found, expected, model.dtype) and _looked_back(model.config, together.windows):
            return together
        model.set_attn_implementation(own)
    _refuse_mixed(model)
    return Apart(model)


def _refuse_mixed(model: Any) -> None:
    """WeightsError for a model that writes otherwise beside another text, for it keeps its state elsewhere (RecurrentGemma);
    or than without a cache, for it wants one of its own (Bamba)."""
    kind = type(model).__name__
    try:
        one, two = _apart(model, (0, 1, 0, 1)), _apart(model, (0, 0, 1, 1))
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([_ids(model, 7)], device=model.device), use_cache=False, return_dict=True)
    except Exception as error:
        raise WeightsError(
            f"the architecture {kind!r} does not run with a cache of transformers: {type(error).__name__}"
        ) from error
    if not torch.allclose(one, two, rtol=EXACT, atol=EXACT, equal_nan=True):
        raise WeightsError(f"the architecture {kind!r} keeps more between tokens than its cache, and is not served yet")
    last = whole.logits[0, -1].float()
    if not last.isnan().any() and not _alike(two[0], last, model.dtype):
        raise WeightsError(f"the architecture {kind!r} writes otherwise with a cache than without, and is not served yet")


def _apart(model: Any, order: Sequence[int]) -> torch.Tensor:
    """The last logits of two short texts, each of two passes, in this order."""
    passes = Apart(model)
    texts = [_Try(_ids(model, step), None, passes.cache()) for step in (7, 11)]
    out: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for which in order:
            text = texts[which]
            out[which] = passes.forward([text.next(1 if which in out else len(text.left) - 1)])
    return torch.cat([out[0], out[1]]).float()


def cache_argument(model: Any) -> str | None:
    """The name under which `model.forward` takes its cache; None where the architecture keeps none.

    transformers 5.24 calls it ``cache`` in every family; earlier versions ``past_key_values``, or ``cache_params`` in Mamba's.
    """
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in parameters), None)


class _Try:
    def __init__(self, ids: Sequence[int], slots: Slots | None, cache: Any) -> None:
        self.slot = None if slots is None else slots.take(len(ids), ids, "")
        self.cache: Any = cache
        self.todo: Sequence[int] = ()
        self.ids, self.left = list(ids), list(ids)

    @property
    def read(self) -> int:
        return len(self.ids) - len(self.left) - len(self.todo)

    def next(self, count: int) -> _Try:
        self.todo, self.left = self.left[:count], self.left[count:]
        return self


def _ids(model: Any, step: int) -> list[int]:
    size = model.get_input_embeddings().weight.shape[0]
    return [(at * step + step) % size for at in range(9)]


def _tried(passes: Together | Apart) -> torch.Tensor:
    """The logits of two short texts, the one begun before the other, read in pieces."""
    slots = passes.slots
    one, two = (_Try(_ids(passes.model, step), slots, passes.cache()) for step in (7, 11))
    with torch.inference_mode():
        out = [
            passes.forward([one.next(5)]),
            passes.forward([one.next(1), two.next(4)]),
            passes.forward([two.next(3), one.next(2)]),
            passes.forward([one.next(1), two.next(1)]),
        ]
        for text in (one, two):
            if slots is not None and text.slot is not None:
                text.slot.wipe()
                slots.leave(text.slot)
    return torch.cat(out).float()


def _alike(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    allowed = EXACT if dtype in (torch.float32, torch.float64) else COARSE
    return bool((found - expected).abs().max() <= allowed * expected.abs().max())


def _looked_back(config: Any, windows: dict[int, int | None]) -> bool:
    """Whether each layer looked as far back as its cache says, and keeps nothing but keys and values.

    A window that only the mask knows of (Llama 4's chunks, Phi-MoE, Doge) is longer than what is tried.
    """
    layers = enumerate(DynamicCache(config=config).layers)
    own = {at: layer for at, layer in layers if type(layer).__name__ != "DummyLayer"}  # a dummy looks at another's keys
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in own.values())
    return plain and {at: getattr(layer, "sliding_window", None) for at, layer in own.items()}.items() <= windows.items()


def _ropes(parameters: Any) -> set[str]:
    if not isinstance(parameters, dict):
        return set()
    kinds = {str(parameters["rope_type"])} if "rope_type" in parameters else set()
    return kinds.union(*(_ropes(each) for each in parameters.values()))
