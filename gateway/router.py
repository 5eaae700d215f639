"""Router: which model a request goes to, in microseconds, and why.

What many requests share is worked out once. Per shape of request: who is admitted at all. A few times a second: the sheet of
every score, and the order for each size of request that comes. Per request: the very utility of the best few, one choice among
those that are about equally good, and every hard limit once more for the one that was chosen. All that a choice was made from
is kept, so that it can be explained, and made again from its record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gateway.basis import Basis
from gateway.card import ModelCard
from gateway.clock import Random
from gateway.config import PolicyConfig
from gateway.decision import Candidate, Decision, Veto
from gateway.judge import Judge
from gateway.ranking import UNLIMITED, Ranking, Row, Sheet, size_of, typical
from gateway.registry import Entry
from gateway.routing import Ask, Policy, Shape
from gateway.vitals import Knowledge, Vitals

SHAPES_KEPT = 1024
RANKINGS_KEPT = 256
"""Sizes of request that are told apart for one shape."""
CONVERSATIONS_KEPT = 10_000
FRESH_S = 0.2
"""A sheet is used for so long; a failure anywhere, or a model that has been loaded, ends it at once."""
SETTLED, SETTLED_S = 10.0, 1.0
"""A model of which so much has been measured is judged anew only so often, unless it fails."""
DRIFT_S = 5.0
"""How often one that was slow when last asked is looked at anew: it is believed to be less so as time passes."""
TOP, BEST = 4, 2
"""Of so many the load is looked at: the very best, and others that chance takes"""
WIDE = 32
"""from so many, if they are as good, or will be when the best are busy."""
USES = 100
"""After so many choices an order is made anew: loads have changed."""
THIN = 5.0
"""A model with fewer measurements than this may be explored,"""
DEAR = 0.1
"""if its utility is within this share of a perfect answer's worth of the best."""


WEAK = 0.95
"""A model whose chance of success is below this has failed lately."""
NEVER = -math.inf


class Known:
    """What is known of one shape: who is admitted, and what must be waived for that; who is not, and why; and the sheet."""

    __slots__ = ("admitted", "cards", "refused", "sheet")

    def __init__(
        self,
        admitted: list[tuple[ModelCard, Vitals, tuple[Veto, ...]]],
        refused: list[Candidate],
        cards: tuple[ModelCard, ...],
    ) -> None:
        self.admitted = admitted
        self.refused = refused
        self.cards = cards
        self.sheet: Sheet | None = None


class Router:
    """Decides with a set of policies. Their order means nothing: they are kept by name."""

    def __init__(
        self,
        policies: Iterable[Policy],
        *,
        random: Random,
        config: PolicyConfig | None = None,
        knowledge: Knowledge | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self.config = config or PolicyConfig()
        self.notes = notes
        self._band = self.config.band
        self._chance = random.random
        self._pulse = (knowledge or Knowledge()).pulse
        self.judge = Judge(self.policies)
        self._shapes: dict[Shape, Known] = {}
        self._warm: dict[tuple[str, str], str] = {}
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
        """Choose among all entries. `version` is the registry's; `tried` are the models that have had their turn, and why.

        A dry run draws no chance and leaves no mark.
        """
        if version != self._version:
            self._shapes.clear()
            self._version = version
        known = self._shapes.get(ask.shape)
        if known is None:
            known = self._admit(ask.shape, entries)
        sheet = known.sheet
        if dry and (sheet is None or sheet.changes != self._pulse.changes or ask.now >= sheet.until):
            sheet = self._judged(ask, known, dry=True)  # not kept: a dry run leaves no mark
        elif sheet is None or ask.now >= sheet.until or sheet.alarms != self._pulse.alarms:
            sheet = known.sheet = self._judged(ask, known, dry=False)
        output = ask.output_tokens
        size = size_of(ask.input_tokens) * 64 + (0 if output is None else 1 + size_of(output))
        ranking = sheet.rankings.get(size)
        if ranking is None or ranking.uses >= USES:
            ranking = self._ranked(sheet, ask, size)
        if not dry:
            ranking.uses += 1
        chance = 0.0 if dry else self._chance()
        warm = self._warm.get((ask.tenant, ask.conversation)) if ask.conversation else None
        owed = ranking.owed if ranking.owed is not None and ranking.owed.busy.owed_at <= ask.now and not dry else None
        return self.choose(ranking, ask, dict(tried) if tried else NOTHING, chance=chance, warm=warm, owed=owed, dry=dry)

    def answered(self, ask: Ask, model: str) -> None:
        """Remember who knows a conversation's beginning."""
        if ask.conversation:
            who = ask.tenant, ask.conversation
            self._warm.pop(who, None)
            if len(self._warm) >= CONVERSATIONS_KEPT:
                del self._warm[next(iter(self._warm))]
            self._warm[who] = model

    def choose(
        self,
        ranking: Ranking,
        ask: Ask,
        tried: Mapping[str, Veto],
        *,
        chance: float,
        warm: str | None,
        owed: Row | None,
        dry: bool,
    ) -> Decision:
        """The choice that follows from a ranking, the loads of the best few, and one number of chance in [0, 1)."""
        few, slopes, busy = ranking.top, ranking.slopes, ranking.busy
        if len(few) > TOP:
            # Equals share by chance alone; else the best are looked at, and some of those that are next when they are busy.
            best_few, span = (0, ranking.equal) if ranking.equal > TOP else (BEST, ranking.band)
            more = TOP - best_few
            at = max(best_few, min(best_few + int(chance * (span - best_few)), span - more))
            few, slopes, busy = (
                few[:best_few] + few[at : at + more],
                slopes[:best_few] + slopes[at : at + more],
                busy[:best_few] + busy[at : at + more],
            )
        # Written out, not called: this is for every request.
        inward, limit = ask.input_tokens, UNLIMITED if ask.output_tokens is None else ask.output_tokens
        loads: list[int] = []
        worth: list[float] = []
        for (usd, to, out, by, tokens), one in zip(slopes, busy, strict=True):
            loads.append(load := one.in_flight)
            worth.append(usd + to * inward + out * (tokens if tokens < limit else limit) + by * load)
        basis = Basis(self, ranking, ask, tried, chance, warm, owed, dry, few, loads)
        chosen = None
        if worth and (warm is not None or owed is not None or (ranking.thin and not dry)):
            chosen = self._preferred(basis, max(worth))
        while chosen is None and worth and (best := max(worth)) > NEVER:
            least = best - self._band
            band = [at for at, usd in enumerate(worth) if usd >= least]
            at = band[0] if len(band) == 1 else self._picked(worth, band, best, basis)
            if not self._refuses(few[at], basis, loads[at]):
                chosen = few[at]
            worth[at] = NEVER
        if chosen is None:
            chosen = self._anybody(basis)
        basis.row = chosen
        notes = self.notes
        if basis.waived and chosen is not None and len(basis.looked[chosen.name]) > len(chosen.refused):
            notes = (*notes, f"no model is likely to meet the deadline: {basis.waived!r} comes nearest")
        shape = ask.shape
        return Decision(shape.task.task, None if chosen is None else chosen.name, None, notes, shape.route, basis)

    def _picked(self, worth: list[float], band: list[int], best: float, basis: Basis) -> int:
        """Of those that are about as good as the best, the better one of two that chance names."""
        if basis.dry:
            return worth.index(best)
        if len(band) == 2:
            one, other = band if basis.chance < 0.5 else (band[1], band[0])
        else:
            first, second = _two(basis.chance * 1024.0 % 1.0, len(band))
            one, other = band[first], band[second]
        return one if worth[one] >= worth[other] else other

    def _preferred(self, basis: Basis, best: float) -> Row | None:
        """One that is owed a request, the one that knows the conversation, or one to learn about.

        If it is nearly as good as the best, and nothing refuses it.
        """
        ask, config, sheet = basis.ask, self.config, basis.ranking.sheet
        row, least = None, best - config.affinity
        if basis.warm is not None:
            row = sheet.named(basis.warm)
        elif basis.owed is not None:
            row, least = basis.owed, best - _lost_by(basis.owed)
        elif basis.chance * 1048576.0 % 1.0 < config.explore:
            row, least = basis.ranking.thin[int(basis.chance * len(basis.ranking.thin))], best - DEAR * config.worth
            if basis.load(row):
                return None  # one at a time
        if row is None:
            return None
        limit = UNLIMITED if ask.output_tokens is None else ask.output_tokens
        few = basis.few
        load = basis.loads[few.index(row)] if row in few else basis.load(row)
        if row.utility(ask.input_tokens, limit, load) < least or self._refuses(row, basis, load):
            return None
        return row

    def _anybody(self, basis: Basis) -> Row | None:
        """The best of all that may be asked; else of those whose refusals may be waived.

        Who is late, as things stand, comes before who is refused by its facts: the likeliest to be in time, then the best.
        """
        last: list[tuple[bool, float, Row]] = []
        for row in basis.ranking.order:
            vetoes = basis.looked.get(row.name)
            if vetoes is None:
                vetoes = self._refuses(row, basis, basis.load(row))
                if not vetoes:
                    return row
            if all(veto.waivable for veto in vetoes):
                row.live.in_flight = basis.load(row)
                late = len(vetoes) > len(row.refused)
                seconds = row.live.latency_s(row.live.expected_tokens(basis.ask.output_tokens)) if late else 0.0
                last.append((bool(row.refused), seconds, row))
        if not last:
            return None
        row = min(last, key=lambda one: one[:2])[2]
        basis.waived = row.name
        return row

    def _refuses(self, row: Row, basis: Basis, in_flight: int) -> tuple[Veto, ...]:
        """Every hard limit of this very request, as things stand."""
        ask = basis.ask
        vetoes = self.judge.limits(row, ask, in_flight)
        if row.refused or row.breaker.shut_until > ask.now or row.busy.tokens_until > ask.now or row.name in basis.tried:
            had = basis.tried.get(row.name)
            vetoes = (*(() if had is None else (had,)), *self.standing(row, ask), *row.refused, *vetoes)
        basis.looked[row.name] = vetoes
        return vetoes

    def standing(self, row: Row, ask: Ask) -> tuple[Veto, ...]:
        """What stands against asking a model now: its breaker, a wait that it asked for, its provider's quota."""
        out: list[Veto] = []
        if row.breaker.shut_until > ask.now and (shut := row.breaker.refusal(ask.now)) is not None:
            out.append(shut)
        if row.busy.tokens_until > ask.now and ask.input_tokens > row.busy.tokens_left:
            left = f"{row.busy.tokens_left:g} tokens left for {row.busy.tokens_until - ask.now:.1f} s"
            out.append(Veto("quota", f"about {ask.input_tokens} tokens in", left, "gateway"))
        return tuple(out)

    def _admit(self, shape: Shape, entries: Sequence[Entry]) -> Known:
        """Judge every card for a shape."""
        admitted, refused = [], []
        for entry in entries:
            if entry.card is None or entry.vitals is None:
                seen = str(entry.error) if entry.error is not None else "not described yet"
                refused.append(Candidate(entry.name, vetoes=(Veto("describe", seen, "", "gateway"),)))
                continue
            vetoes = self.judge.refusals(shape, entry.card)
            if all(veto.waivable for veto in vetoes):
                admitted.append((entry.card, entry.vitals, vetoes))
            else:
                refused.append(Candidate(entry.name, entry.card.place, vetoes))
        if len(self._shapes) >= SHAPES_KEPT:
            del self._shapes[next(iter(self._shapes))]
        cards = tuple([entry.card for entry in entries if entry.card is not None])
        known = self._shapes[shape] = Known(admitted, sorted(refused, key=lambda one: one.model), cards)
        return known

    def _judged(self, ask: Ask, known: Known, *, dry: bool) -> Sheet:
        """A new sheet; what nothing has been learnt about is taken over from the one before."""
        task, now, before = ask.shape.task.task, ask.now, known.sheet
        rows: list[Row] = []
        for card, vitals, waivable in known.admitted:
            row = before.named(card.name) if before is not None else None
            if row is None or before is None or self._stale(row, vitals, before, -math.inf if dry else now):
                live = vitals.read(task, now)
                live.in_flight = 0  # for those who score it: `busy_usd` is for that
                row = self.judge.row(Row(card, live, vitals, vitals.breaker, now, waivable), ask)
                row.seen = self._pulse.changes
            rows.append(row)
        sheet = Sheet(rows, known.refused, known.cards, until=now + FRESH_S)
        sheet.changes, sheet.alarms = self._pulse.changes, self._pulse.alarms
        return sheet

    def _stale(self, row: Row, vitals: Vitals, before: Sheet, now: float) -> bool:
        """True when what a row says may be wrong by now."""
        if vitals.alarmed > before.changes or row.live.success < 1.0:
            return True
        if vitals.drifting and now - row.at >= DRIFT_S:
            return True
        settled = row.live.measured >= SETTLED and 0.0 <= now - row.at < SETTLED_S
        return vitals.news > row.seen and not settled

    def _ranked(self, sheet: Sheet, ask: Ask, size: int) -> Ranking:
        """The order for requests of about this size, as the loads are now."""
        shut = {
            row.name: veto
            for row in sheet.rows
            if row.breaker.shut_until > ask.now and (veto := row.breaker.refusal(ask.now)) is not None
        }
        if len(sheet.rankings) >= RANKINGS_KEPT:
            sheet.rankings.clear()
        loads = tuple([row.busy.in_flight for row in sheet.rows])
        ranking = sheet.rankings[size] = self.ranked(Ranking(sheet, loads, shut), typical(ask))
        return ranking

    def ranked(self, ranking: Ranking, ask: Ask) -> Ranking:
        """A ranking with its order: of the best, those whom a policy refuses even the smallest request are put behind."""
        rows, shut = ranking.sheet.rows, ranking.shut
        worth = ranking.sheet.worth(
            ask.input_tokens, UNLIMITED if ask.output_tokens is None else ask.output_tokens, ranking.loads
        )
        order = sorted(range(len(rows)), key=worth.__getitem__, reverse=True)  # stable: equals stay in the order of names
        ranking.order = tuple([rows[at] for at in order])
        top: list[Row] = []
        least, capacity, filled = math.inf, 0.0, 0.0
        for at in order:
            row, usd = rows[at], worth[at]
            if len(top) >= WIDE:
                break
            if row.name in shut or row.refused or any(not veto.waivable for veto in self.judge.limits(row, ask, 0)):
                continue
            if not top:
                least = usd - self._band
            # So many requests bring the better ones down to this one's level: within reach before the next order?
            if usd >= least:
                ranking.equal += 1
            if usd >= least or filled - usd * capacity <= USES:
                ranking.band += 1
            elif len(top) >= TOP:
                break
            top.append(row)
            each = -row.busy_usd
            capacity, filled = (capacity + 1.0 / each, filled + usd / each) if each else (math.inf, math.inf)
        ranking.top, ranking.busy, ranking.slopes = tuple(top), [row.busy for row in top], [row.slope for row in top]
        weak = [at for at in order if rows[at].live.success < WEAK and not rows[at].refused and rows[at].name not in shut]
        if weak:
            ranking.owed = rows[max(weak, key=lambda at: worth[at] + _lost_by(rows[at]))]
        if self.config.explore:
            ranking.thin = tuple(
                [row for row in rows if row.live.measured < THIN and row.live.success > 0.9 and not row.refused]
            )
        return ranking


NOTHING: Mapping[str, Veto] = MappingProxyType({})


def _lost_by(row: Row) -> float:
    """What its failures take from a model's utility."""
    health = row.scores.get("health")
    return 0.0 if health is None else -health.usd


def _two(chance: float, count: int) -> tuple[int, int]:
    """Two different numbers below `count`, from one number of chance in [0, 1)."""
    pair = int(chance * count * (count - 1))
    one, other = pair // (count - 1), pair % (count - 1)
    return one, other + (other >= one)
