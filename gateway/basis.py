"""Basis: what one decision was made from, so that it can be explained, waited for, and made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.decision import Candidate, Decision, Veto
from gateway.ranking import UNLIMITED, Ranking, Row
from gateway.record import SHUT, record
from gateway.routing import Ask

if TYPE_CHECKING:
    from gateway.router import Router


class Basis:
    """One choice's: the ranking, the best few and what each had in flight, and one number of chance."""

    __slots__ = (
        "_loads", "ask", "chance", "dry", "few", "loads", "looked", "notes", "owed", "ranking", "router", "row", "tried",
        "waived", "warm",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        ranking: Ranking,
        ask: Ask,
        tried: Mapping[str, Veto],
        chance: float,
        warm: str | None,
        owed: Row | None,
        dry: bool,
        few: tuple[Row, ...],
        loads: list[int],
    ) -> None:
        self.router = router
        self.ranking = ranking
        self.ask = ask
        self.tried = tried
        self.chance = chance
        self.warm = warm
        self.owed = owed
        self.dry = dry
        self.few = few
        self.loads = loads
        self.row: Row | None = None
        self.looked: dict[str, tuple[Veto, ...]] = {}
        """What refused each model that was chosen for a moment; nothing, for the last."""
        self.waived = ""
        self.notes: tuple[str, ...] = router.notes
        self._loads: dict[str, int] | None = None

    def load(self, row: Row) -> int:
        """How many requests a model had in flight when it was looked at: now, if that is the first time."""
        if self._loads is None:
            self._loads = self._known()
        load = self._loads.get(row.name)
        if load is None:
            load = self._loads[row.name] = row.busy.in_flight
        return load

    def _known(self) -> dict[str, int]:
        return {one.name: load for one, load in zip(self.few, self.loads, strict=True)}

    def seen(self, row: Row) -> bool:
        """True when the choice depended on the model's load."""
        return row in self.few or (self._loads is not None and row.name in self._loads)

    def others(self) -> bool:
        """True when another model could be asked if the chosen one fails."""
        return len(self.ranking.top) > 1 + len(self.tried)

    def soonest(self, due: Mapping[str, float]) -> tuple[float, str] | None:
        """When the first model of those that lack nothing but time may be asked, and which. `due`: when to ask one again."""
        best: tuple[float, str] | None = None
        for row in self.ranking.order:
            at = self.ask.now
            for veto in self.looked.get(row.name, ()):
                if veto.rule == "asked already" and veto.policy == "gateway" and row.name in due:
                    at = max(at, due[row.name])
                elif veto.rule in SHUT and veto.policy == "gateway":
                    at = max(at, row.breaker.shut_until)
                elif veto.rule == "quota" and veto.policy == "gateway":
                    at = max(at, row.busy.tokens_until)
                elif not veto.waivable:
                    break
            else:
                if row.name in self.looked and (best is None or at < best[0]):
                    best = at, row.name
        return best

    def candidates(self) -> tuple[Candidate, ...]:
        """Every model as it was judged: the chosen one, those that would be asked next, and the refused."""
        ask, out = self.ask, []
        limit = UNLIMITED if ask.output_tokens is None else ask.output_tokens
        loads = dict(zip([row.name for row in self.ranking.sheet.rows], self.ranking.loads, strict=True))
        loads |= self._known() | (self._loads or {})
        for row in self.ranking.order:
            vetoes, in_flight = self.vetoes(row, loads[row.name]), loads[row.name]
            waived, vetoes = (vetoes, ()) if row.name == self.waived else ((), vetoes)
            tokens = min(row.tokens, limit)
            scores = {name: score.at(ask.input_tokens, tokens, in_flight) for name, score in row.scores.items()}
            usd = row.utility(ask.input_tokens, limit, in_flight)
            candidate = Candidate(row.name, row.card.place, vetoes, scores, None if vetoes else usd, waived)
            out.append((row is not self.row, bool(vetoes), -usd if not vetoes else 0.0, candidate))
        out.sort(key=lambda one: (*one[:3], one[3].model))
        return (*[candidate for *_, candidate in out], *self.ranking.sheet.refused)

    def vetoes(self, row: Row, in_flight: int) -> tuple[Veto, ...]:
        """What refuses a model: as was found when it was looked at, or else by what the ranking knew."""
        looked = self.looked.get(row.name)
        if looked is not None:
            return looked
        had, shut = self.tried.get(row.name), self.ranking.shut.get(row.name)
        limits = self.router.judge.limits(row, self.ask, in_flight)
        return (*(one for one in (had, shut) if one is not None), *row.refused, *limits)

    def record(self, decision: Decision) -> dict[str, Any]:
        """All that the decision was made from."""
        return record(self, decision)
