"""Replay: a decision made again from its record, byte for byte.

A record holds what the decision was made from: the facts of the request (sizes, needs, classes; no content), the cards of all
models and what was known of each, what had been tried, one number of chance, and the policy's settings. `replay` judges and
chooses anew with the policies that are installed here, and tells whether the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.breaker import Breaker
from gateway.card import ModelCard, Need, Price
from gateway.clock import seeded
from gateway.config import PolicyConfig, parse_config
from gateway.decision import Candidate, Decision, Veto
from gateway.errors import ConfigError, GatewayError, told
from gateway.live import Live
from gateway.ranking import UNLIMITED, Ranking, Row, Sheet, typical
from gateway.record import FORMAT, SHUT, digest, text
from gateway.router import Router
from gateway.routing import Ask, Policy, Shape

if TYPE_CHECKING:
    from gateway.request import Request


def replay(kept: Mapping[str, Any], policies: Iterable[Policy], tasks: Mapping[str, type[Request[Any]]]) -> Decision:
    """The decision that follows from a record, with these policies; `tasks` are the known ones by name.

    ConfigError when the record is none, or was made with other policies or other settings than these.
    """
    if not isinstance(kept, Mapping) or kept.get("record") != FORMAT:
        raise ConfigError(f"not a decision's record of format {FORMAT}: make one with `gateway explain --record FILE`")
    try:
        config = parse_config(PolicyConfig, dict(kept["policy"]), "record.policy")
        router = _Again(policies, config, kept)
        wanted, ask = kept["digest"], _ask(kept["ask"], tasks)
        if digest(router.policies, config) == wanted:
            decision = _replayed(kept, router, ask, tasks)
            kept["decision"], decision.candidates  # worked out here, so that damage shows here
            return decision
    except Exception as error:
        what = error.message if isinstance(error, GatewayError) else told(error)
        raise ConfigError(f"the record cannot be replayed, it is damaged or of other plugins: {what}") from error
    names = ", ".join(policy.name for policy in router.policies)
    raise ConfigError(f"the record was made with other policies, or other settings of them, than those here: {names}")


def same(kept: Mapping[str, Any], decision: Decision) -> bool:
    """True when a decision is the recorded one, byte for byte."""
    return text(kept["decision"]) == text(decision.to_json())


class _Again(Router):
    """A router whose services are those of a record."""

    def __init__(self, policies: Iterable[Policy], config: PolicyConfig, kept: Mapping[str, Any]) -> None:
        super().__init__(policies, random=seeded(0), config=config, notes=tuple(kept["notes"]))
        self._standing = {
            one["card"]["name"]: tuple(Veto(**veto) for veto in one["standing"]) for one in kept["models"] if one["standing"]
        }

    def standing(self, row: Row, ask: Ask) -> tuple[Veto, ...]:
        return self._standing.get(row.name, ())


class _Then:
    """A service's load as it was."""

    def __init__(self, in_flight: int, *, quota: bool) -> None:
        self.in_flight = in_flight
        self.tokens_left = -1.0
        self.tokens_until = UNLIMITED if quota else -UNLIMITED
        self.owed_at = 0.0


def _replayed(kept: Mapping[str, Any], router: _Again, ask: Ask, tasks: Mapping[str, type[Request[Any]]]) -> Decision:
    refused = [Candidate(one["model"], vetoes=tuple(Veto(**veto) for veto in one["vetoes"])) for one in kept["undescribed"]]
    rows, loads, shut, cards = [], {}, {}, [_card(one, tasks) for one in kept["others"]]
    for card in list(cards):
        refused.append(Candidate(card.name, card.place, router.judge.refusals(ask.shape, card)))
    for one in kept["models"]:
        card = _card(one["card"], tasks)
        cards.append(card)
        vetoes = router.judge.refusals(ask.shape, card)
        if not all(veto.waivable for veto in vetoes):
            refused.append(Candidate(card.name, card.place, vetoes))
            continue
        quota = any(veto["rule"] == "quota" for veto in one["standing"])
        breaker = Breaker()
        if any(veto["rule"] in SHUT for veto in one["standing"]):
            breaker.shut_until = ask.now + 1.0
        row = Row(card, Live(**one["live"]), _Then(one["in_flight"], quota=quota), breaker, one["at"], vetoes)
        rows.append(router.judge.row(row, ask))
        loads[card.name] = one["load"]
        if one["shut"] is not None:
            shut[card.name] = Veto(**one["shut"])
    refused.sort(key=lambda one: one.model)
    sheet = Sheet(rows, refused, cards, until=ask.now)
    ranking = router.ranked(Ranking(sheet, [loads[row.name] for row in sheet.rows], shut), typical(ask))
    owed = None if kept["owed"] is None else sheet.named(kept["owed"])
    tried = {name: Veto(**veto) for name, veto in kept["tried"].items()}
    return router.choose(ranking, ask, tried, chance=kept["chance"], warm=kept["warm"], owed=owed, dry=kept["dry"])


def _ask(kept: Mapping[str, Any], tasks: Mapping[str, type[Request[Any]]]) -> Ask:
    facts = dict(kept)
    need = dict(facts.pop("need"))
    if "within" in need:
        need["within"] = tuple(tuple(group) for group in need["within"])
    shape = Shape(
        task=_task(facts.pop("task"), tasks),
        need=Need(**need),
        local_only=facts.pop("local_only"),
        route=facts.pop("route"),
        **{name: frozenset(facts.pop(name)) for name in ("features", "modalities", "data_classes")},
    )
    return Ask(shape=shape, **facts)


def _card(kept: Mapping[str, Any], tasks: Mapping[str, type[Request[Any]]]) -> ModelCard:
    facts = dict(kept)
    if "price" in facts:
        facts["price"] = Price(**facts["price"])
    sets = {name: frozenset(facts[name]) for name in ("features", "languages") if name in facts}
    modalities = {"modalities": frozenset(facts.get("modalities", ()))}
    return ModelCard(**facts | sets | modalities | {"tasks": frozenset(_task(name, tasks) for name in facts["tasks"])})


def _task(name: str, tasks: Mapping[str, type[Request[Any]]]) -> type[Request[Any]]:
    if name not in tasks:
        raise ConfigError(f"the record is about the task {name!r}, which no plugin that is loaded here has")
    return tasks[name]
