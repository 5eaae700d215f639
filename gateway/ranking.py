"""Sheet and Ranking: the admitted models as they were judged for one shape of request; their order for one size of it.

A sheet is made a few times a second. What it says of each model is a sum of money that is linear in the request's tokens and in
the requests that the model has in flight, so that one sheet serves requests of every size, and the sum is exact for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from gateway.breaker import Breaker
from gateway.card import ModelCard
from gateway.decision import Candidate, Score, Veto
from gateway.live import Live
from gateway.routing import Ask

UNLIMITED = float("inf")
Slope = tuple[float, float, float, float, float]
"""USD, and USD for each token in, each token out, each request in flight; and how many tokens out there usually are."""


class Busy(Protocol):
    """What changes from request to request. A service's vitals have it; a record, for replay, too."""

    in_flight: int
    tokens_left: float
    tokens_until: float
    owed_at: float


class Row:
    """One admitted model, as it was judged at `at`; never changed but for its `live.in_flight`."""

    __slots__ = (
        "at", "breaker", "busy", "busy_usd", "card", "input_usd", "live", "name", "output_usd", "refused", "scores", "seen",
        "tokens", "usd",
    )  # fmt: skip

    def __init__(
        self, card: ModelCard, live: Live, busy: Busy, breaker: Breaker, at: float, waivable: tuple[Veto, ...] = ()
    ) -> None:
        self.name = card.name
        self.card = card
        self.live = live
        self.busy = busy
        self.breaker = breaker
        self.at = at
        self.seen = 0
        """The pulse's count when it was judged."""
        self.scores: dict[str, Score] = {}
        self.usd = 0.0
        self.input_usd = 0.0
        self.output_usd = 0.0
        self.busy_usd = 0.0
        self.tokens = live.output_tokens
        self.refused = waivable
        """What its facts have against it, and may be waived; and each policy that failed in scoring it."""

    @property
    def slope(self) -> Slope:
        """What its utility is made of."""
        return self.usd, self.input_usd, self.output_usd, self.busy_usd, self.tokens

    def utility(self, input_tokens: int, limit: float, in_flight: int) -> float:
        """What choosing it is worth, in USD, for a request of so many tokens, with an answer of at most `limit`."""
        output = self.tokens if self.tokens < limit else limit
        return self.usd + self.input_usd * input_tokens + self.output_usd * output + self.busy_usd * in_flight


class Sheet:
    """All rows for one shape at one moment. `refused` are the models not admitted, `cards` those of all that are described."""

    __slots__ = ("_by_name", "alarms", "cards", "changes", "rankings", "refused", "rows", "slopes", "until")

    def __init__(self, rows: Sequence[Row], refused: Sequence[Candidate], cards: Sequence[ModelCard], *, until: float) -> None:
        self.rows = tuple(sorted(rows, key=lambda row: row.name))
        self.refused = tuple(refused)
        self.cards = tuple(cards)
        self.until = until
        self.changes = 0
        self.alarms = 0
        self.rankings: dict[int, Ranking] = {}
        self.slopes = [row.slope for row in self.rows]
        self._by_name: dict[str, Row] | None = None

    def named(self, name: str) -> Row | None:
        """The row of a model, if it is admitted."""
        if self._by_name is None:
            self._by_name = {row.name: row for row in self.rows}
        return self._by_name.get(name)

    def worth(self, input_tokens: int, limit: float, loads: Iterable[int]) -> list[float]:
        """Every row's utility for a request of this size, in the order of the rows."""
        return [
            usd + inward * input_tokens + outward * (tokens if tokens < limit else limit) + busy * load
            for (usd, inward, outward, busy, tokens), load in zip(self.slopes, loads, strict=True)
        ]


class Ranking:
    """The order of a sheet's rows for requests of about one size: best first.

    `top` are the first few that are likely to be allowed. Of these the first `equal` are about equally good, and the first
    `band` will be when those before them are busy. `loads` are the requests that each row of the sheet had in flight then,
    `shut` why some could not be asked.
    """

    __slots__ = ("band", "busy", "equal", "loads", "order", "owed", "sheet", "shut", "slopes", "thin", "top", "uses")

    def __init__(self, sheet: Sheet, loads: Sequence[int], shut: Mapping[str, Veto]) -> None:
        self.sheet = sheet
        self.loads = loads
        self.shut = shut
        self.order: tuple[Row, ...] = ()
        self.top: tuple[Row, ...] = ()
        self.busy: list[Busy] = []
        self.slopes: list[Slope] = []
        self.band = 0
        self.equal = 0
        self.thin: tuple[Row, ...] = ()
        self.owed: Row | None = None
        """The best of those that have failed lately: it is owed a request now and then."""
        self.uses = 0


def size_of(tokens: int) -> int:
    """A number for all sizes that one ranking stands for: up to four times as large as the smallest."""
    return (tokens.bit_length() + 1) >> 1


def typical(ask: Ask) -> Ask:
    """The smallest request that `ask`'s ranking stands for: what refuses it refuses them all, or nearly."""
    output = ask.output_tokens
    return Ask(
        shape=ask.shape,
        input_tokens=_least(ask.input_tokens),
        output_tokens=None if output is None else _least(output),
        now=ask.now,
    )


def empty(ask: Ask, at: float) -> Ask:
    """The request that stands for all of a shape, with no size: what policies score."""
    return Ask(shape=ask.shape, now=at)


def _least(tokens: int) -> int:
    return 1 << 2 * size_of(tokens) - 2 if tokens else 0
