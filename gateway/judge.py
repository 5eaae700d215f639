"""Judge: asks the policies, and lets none of them fail open: one that raises, or gives what it should not, refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from gateway.card import ModelCard
from gateway.decision import Score, Veto
from gateway.errors import told
from gateway.ranking import Row, empty
from gateway.routing import Ask, Policy, Shape


class Judge:
    """A set of policies. Those that leave a step as it is are not asked about it."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        known = tuple(policies)
        self._static = [(p.name, p.admit) for p in known if type(p).admit is not Policy.admit]
        self._live = [(p.name, p.admit_live) for p in known if type(p).admit_live is not Policy.admit_live]
        self._score = [(p.name, p.score) for p in known if type(p).score is not Policy.score]

    def refusals(self, shape: Shape, card: ModelCard) -> tuple[Veto, ...]:
        """What refuses a model for every request of a shape."""
        vetoes = []
        for name, admit in self._static:
            try:
                refusal = admit(shape, card)
            except Exception as error:
                vetoes.append(_raised(name, error))
                continue
            if refusal is not None:
                vetoes.append(_signed(name, refusal))
        if shape.local_only and not card.local:
            # Here and in no policy: a policy can be replaced by another of its name, and this must hold.
            vetoes.append(Veto("inspection", f"{card.place}; {shape.local_only}", "process, host", "gateway"))
        return tuple(vetoes)

    def row(self, row: Row, ask: Ask) -> Row:
        """A row with its scores."""
        asked, refused = empty(ask, row.at), []
        for name, score in self._score:
            try:
                scored = score(asked, row.card, row.live)
                if type(scored) is Score:
                    row.usd += scored.usd
                    row.input_usd += scored.input_usd
                    row.output_usd += scored.output_usd
                    row.busy_usd += scored.busy_usd
                    row.scores[name] = scored  # last: what does not add up is shown nowhere
                elif scored is not None:
                    refused.append(Veto("judgement", f"the policy gave a {type(scored).__name__}", "a Score or None", name))
            except Exception as error:
                refused.append(_raised(name, error))
        sums = row.usd, row.input_usd, row.output_usd, row.busy_usd
        if not all(map(math.isfinite, sums)) or row.busy_usd > 0.0:
            refused.append(Veto("score", "not a finite number, or load as a gain", "finite scores", "gateway"))
            row.usd = row.input_usd = row.output_usd = row.busy_usd = 0.0
        if refused:
            row.refused += tuple(refused)
        return row

    def limits(self, row: Row, ask: Ask, in_flight: int) -> tuple[Veto, ...]:
        """What the policies have against this request on this model."""
        out: list[Veto] | None = None
        card, live = row.card, row.live
        live.in_flight = in_flight
        for name, admit_live in self._live:
            try:
                refusal = admit_live(ask, card, live)
                if refusal is None:
                    continue
                refusal = _signed(name, refusal)
            except Exception as error:
                refusal = _raised(name, error)
            out = [refusal] if out is None else [*out, refusal]
        return () if out is None else tuple(out)


def _signed(name: str, veto: object) -> Veto:
    """A policy's veto with the policy's name. What is no veto refuses too: a policy fails closed."""
    if isinstance(veto, Veto):
        return replace(veto, policy=name)
    return Veto("judgement", f"the policy gave a {type(veto).__name__}", "a Veto or None", name)


def _raised(name: str, error: Exception) -> Veto:
    return Veto("judgement", f"the policy raised {told(error)}", "a policy that judges", name)
