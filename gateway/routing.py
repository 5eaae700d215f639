"""Routing: Ask, the facts of a request; Policy, what judges a model for it; Router, which decides and can say why.

A policy is asked in three steps, each pure and sync. `admit` sees the request's shape and the card's facts, and its answers are
cached per shape. `admit_live` and `score` also see sizes and what is known of the service now. One veto refuses a model; scores
are USD and are added up; the highest sum is chosen, the rest are fallbacks in order. A policy that raises, or scores with no
finite number, refuses the model: it fails closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.card import ModelCard, Need
from gateway.clock import Random
from gateway.decision import Candidate, Decision, Score, Veto
from gateway.errors import told
from gateway.live import Live
from gateway.registry import Entry
from gateway.request import Request

CACHED_SHAPES = 1024
BYTES_PER_TOKEN = 4
"""Of UTF-8 text, for estimates: counting tokens needs the model's own tokeniser, which is too slow here."""


@dataclass(kw_only=True, slots=True, unsafe_hash=True)  # as Ask; it is a key of the cache, and nobody changes it
class Shape:
    """The facts of a request that many requests share. `local_only` says why nothing may leave this machine, or ""."""

    task: type[Request[Any]]
    need: Need
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({"text"})
    data_classes: frozenset[str] = frozenset()
    local_only: str = ""


@dataclass(kw_only=True, slots=True)  # one for each request: freezing would double the cost of making it
class Ask:
    """One request as routing sees it: its shape, and its own sizes. `now` is the clock's monotonic reading.

    `input_tokens` is an estimate from the bytes; `output_tokens` is the caller's limit, None when there is none.
    """

    shape: Shape
    input_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int | None = None
    tenant: str = ""
    conversation: str = ""
    deadline_s: float | None = None
    now: float = 0.0


class Policy:
    """Judges models for requests: override any of the three steps. Pure: the same facts, the same judgement."""

    name: str = ""

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        """Refuse a model by its facts. The answer is cached for all requests of this shape."""
        return None

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        """Refuse a model for this one request, by its size or by what is known now."""
        return None

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | Veto | None:
        """What choosing this model is worth, in USD; negative is a cost. None: nothing to say.

        A policy whose limit is on the very thing that it scores may refuse here, and so compute it once.
        """
        return None


class Router:
    """Decides with a set of policies. Their order means nothing: they are kept by name."""

    def __init__(self, policies: Iterable[Policy], *, random: Random, notes: tuple[str, ...] = ()) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self._random = random
        self._notes = notes
        self._static = [(p.name, p.admit) for p in self.policies if type(p).admit is not Policy.admit]
        self._live = [(p.name, p.admit_live) for p in self.policies if type(p).admit_live is not Policy.admit_live]
        self._score = [(p.name, p.score) for p in self.policies if type(p).score is not Policy.score]
        self._cache: dict[Shape, tuple[list[tuple[Entry, ModelCard, Live]], list[Candidate]]] = {}
        self._version = -1

    def decide(
        self,
        ask: Ask,
        entries: Sequence[Entry],
        version: int,
        tried: Mapping[str, Veto] | None = None,
        *,
        dry: bool = False,
    ) -> Decision:
        """Judge every entry. `version` is the registry's; `tried` are the models that have had their turn, and why.

        Models of equal utility and load share by chance; a dry run draws none, so that explaining changes nothing.
        """
        if version != self._version:
            self._cache.clear()
            self._version = version
        known = self._cache.get(ask.shape)
        if known is None:
            if len(self._cache) >= CACHED_SHAPES:
                del self._cache[next(iter(self._cache))]
            known = self._cache[ask.shape] = self._admit(ask.shape, entries)
        admitted, refused = known
        judged: list[Candidate] = []
        ranked: list[tuple[float, int, str]] = []
        for entry, card, live in admitted:
            candidate = self._judge(ask, card, live, tried)
            judged.append(candidate)
            if (utility := candidate.utility) is not None:
                ranked.append((-utility, live.in_flight, entry.name))
        ranked.sort()
        if not dry and len(ranked) > 1 and ranked[0][:2] == ranked[1][:2]:
            equal = sum(one[:2] == ranked[0][:2] for one in ranked)
            at = self._random.randrange(equal)
            ranked[0], ranked[at] = ranked[at], ranked[0]
        names = tuple([name for *_, name in ranked])
        chosen = names[0] if names else None
        return Decision(ask.shape.task.task, chosen, names, (*judged, *refused), self._notes)

    def _admit(self, shape: Shape, entries: Sequence[Entry]) -> tuple[list[tuple[Entry, ModelCard, Live]], list[Candidate]]:
        admitted, refused = [], []
        for entry in entries:
            if entry.card is None or entry.live is None:
                seen = str(entry.error) if entry.error is not None else "not described yet"
                veto = Veto("describe", seen, "", "gateway")
                refused.append(Candidate(entry.name, vetoes=(veto,)))
                continue
            vetoes = []
            for name, admit in self._static:
                try:
                    refusal = admit(shape, entry.card)
                except Exception as error:
                    vetoes.append(_raised(name, error))
                    continue
                if refusal is not None:
                    vetoes.append(_signed(name, refusal))
            if shape.local_only and not entry.card.local:
                # Here and in no policy: a policy can be replaced by another of its name, and this must hold.
                vetoes.append(Veto("inspection", f"{entry.card.place}; {shape.local_only}", "process, host", "gateway"))
            if vetoes:
                refused.append(Candidate(entry.name, entry.card.place, tuple(vetoes)))
            else:
                admitted.append((entry, entry.card, entry.live))
        return admitted, refused

    def _judge(self, ask: Ask, card: ModelCard, live: Live, tried: Mapping[str, Veto] | None) -> Candidate:
        vetoes: list[Veto] = [tried[card.name]] if tried and card.name in tried else []
        scores: dict[str, Score] = {}
        total = 0.0
        for name, admit_live in self._live:
            try:
                refusal = admit_live(ask, card, live)
            except Exception as error:
                vetoes.append(_raised(name, error))
                continue
            if refusal is not None:
                vetoes.append(_signed(name, refusal))
        for name, score in self._score:
            try:
                scored = score(ask, card, live)
                if type(scored) is Score:
                    scores[name] = scored
                    total += scored.usd
                elif scored is not None:
                    vetoes.append(_signed(name, scored))
            except Exception as error:
                vetoes.append(_raised(name, error))
        if not -math.inf < total < math.inf:
            vetoes.append(Veto("score", "not a finite number", "finite scores", "gateway"))
        if vetoes:
            return Candidate(card.name, card.place, tuple(vetoes), scores)
        return Candidate(card.name, card.place, (), scores, total)


def _signed(name: str, veto: object) -> Veto:
    """A policy's veto with the policy's name. What is no veto refuses too: a policy fails closed."""
    if isinstance(veto, Veto):
        return replace(veto, policy=name)
    return Veto("judgement", f"the policy gave a {type(veto).__name__}", "a Veto or None", name)


def _raised(name: str, error: Exception) -> Veto:
    return Veto("judgement", f"the policy raised {told(error)}", "a policy that judges", name)
