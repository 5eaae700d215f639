"""Routing: Ask, the facts of a request; Policy, what judges a model for it. The router, in router.py, asks them.

A policy is asked in three steps, each pure and sync. `admit` sees the request's shape and the card's facts: asked once for
all requests of a shape. `score` says in USD what choosing a model is worth, by request, by token and by load: asked for all
requests of a shape, anew when something has been learnt, a few times a second at most. `admit_live` is asked for each request
about the model that is about to be chosen, and at every fallback and hedge again. One veto refuses a model. A policy that
raises, or scores with no finite number, refuses the model: it fails closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.card import ModelCard, Need
from gateway.decision import Score, Veto
from gateway.live import Live
from gateway.request import Meta, Request, Traits

BYTES_PER_TOKEN = 4
"""Of UTF-8 text, for estimates: counting tokens needs the model's own tokeniser, which is too slow here."""


@dataclass(kw_only=True, slots=True, unsafe_hash=True)  # as Ask; it is a key of the cache, and nobody changes it
class Shape:
    """The facts of a request that many requests share. `local_only` says why nothing may leave this machine, or "".

    `route` names the route of the configuration that it follows, whose wishes are part of `need`."""

    task: type[Request[Any]]
    need: Need
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({"text"})
    data_classes: frozenset[str] = frozenset()
    local_only: str = ""
    route: str = ""


@dataclass(kw_only=True, slots=True)  # one for each request: freezing would double the cost of making it
class Ask:
    """One request as routing sees it: its shape, and its own sizes. `now` is the clock's monotonic reading.

    `input_tokens` is an estimate from the bytes, `longest_tokens` of what is read together where that is less, else None.
    `output_tokens` is the caller's limit, None when there is none.
    `deadline_s` is the time that is left. What `score` sees stands for all requests of its shape: it has no sizes, tenant,
    conversation or deadline.
    """

    shape: Shape
    input_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int | None = None
    tenant: str = ""
    conversation: str = ""
    deadline_s: float | None = None
    now: float = 0.0
    longest_tokens: int | None = None

    @property
    def together(self) -> int:
        """How many tokens are read together: they must fit a context."""
        return self.input_tokens if self.longest_tokens is None else self.longest_tokens


def ask_of(shape: Shape, traits: Traits, meta: Meta, now: float) -> Ask:
    """A request of this shape, by its sizes and by what its caller says of it."""
    return Ask(
        shape=shape,
        input_bytes=traits.input_bytes,
        input_tokens=traits.input_bytes // BYTES_PER_TOKEN,
        output_tokens=traits.output_tokens,
        tenant=meta.tenant,
        conversation=meta.conversation,
        deadline_s=meta.deadline_s,
        now=now,
        longest_tokens=None if traits.longest_bytes is None else traits.longest_bytes // BYTES_PER_TOKEN,
    )


class Policy:
    """Judges models for requests: override any of the three steps. Pure: the same facts, the same judgement."""

    name: str = ""

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        """Refuse a model by its facts. The answer is cached for all requests of this shape."""
        return None

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        """Refuse a model for this one request, by its size or by what is known now."""
        return None

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        """What choosing this model is worth, in USD; negative is a cost. None: nothing to say.

        What depends on the request's size or on the requests in flight goes into the score's USD for each token, and for each
        of them: neither is known here.
        """
        return None
