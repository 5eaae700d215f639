"""What the tests of routing share: cards, asks, and a world in which things happen between decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from gateway import Ask, Chat, Decision, Live, ModelCard, Need, Policy, Price, Quota, Request, Score, Shape, Veto
from gateway.clock import seeded
from gateway.config import PolicyConfig
from gateway.policies import builtin_policies
from gateway.registry import Entry
from gateway.router import Router
from gateway.routing import ask_of
from gateway.testing import Echo
from gateway.vitals import Knowledge, Vitals

CHAT = frozenset({Chat})
ASKED = Veto("asked already", "it failed", "one attempt a model", "gateway")


def card(name: str = "m", **facts: Any) -> ModelCard:
    return ModelCard(name=name, **{"tasks": CHAT, **facts})


def ask(request: Request[Any] | None = None, need: Need | None = None, **facts: Any) -> Ask:
    request = request or Chat.ask("hello")
    traits = request.traits()
    shape = Shape(task=type(request), need=need or Need(), features=traits.features, modalities=traits.modalities)
    return replace(ask_of(shape, traits, request.meta, 0.0), **facts)


class Full(Policy):
    """An installed policy that looks at the load."""

    name = "full"

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        return Veto("full", f"{live.in_flight} in flight", "fewer than 8") if live.in_flight >= 8 else None


class Taste(Policy):
    """An installed policy that scores, by request, by token and by load."""

    name = "taste"

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        liking = len(card.name) * 1e-4 + live.quality * 1e-3 if live.quality is not None else 0.0
        return Score(liking, input_usd=-liking / 100, output_usd=1e-7, busy_usd=-liking)


class World:
    """A router with described services, a time that moves when told, and everything that can happen to a service."""

    def __init__(self, cards: Sequence[ModelCard], *policies: Policy, seed: int = 1, **settings: Any) -> None:
        self.config = PolicyConfig(**settings)
        self.knowledge = Knowledge()
        self.entries = [self._described(one) for one in cards]
        self.policies = [*builtin_policies(self.config), *policies]
        self.random = seeded(seed)
        self.router = Router(self.policies, random=self.random, config=self.config, knowledge=self.knowledge)
        self.now = 100.0
        self.changed_at: dict[str, float] = {}
        """When something was last learnt of each model, or of its provider."""

    def _described(self, one: ModelCard) -> Entry:
        entry = Entry(Echo(one.name), "test")
        entry.card, entry.vitals = one, self.knowledge.of(one)
        return entry

    def __getitem__(self, name: str) -> Vitals:
        return self.knowledge.vitals[name]

    def decide(self, asked: Ask | None = None, tried: Mapping[str, Veto] | None = None, *, dry: bool = False) -> Decision:
        """A decision as of now."""
        return self.router.decide(replace(asked or ask(), now=self.now), self.entries, 1, tried, dry=dry)

    def chosen(self, asked: Ask | None = None, tried: Mapping[str, Veto] | None = None) -> str | None:
        return self.decide(asked, tried).chosen

    def utility(self, name: str, asked: Ask | None = None) -> float:
        """What a model would be worth now; it must not be refused."""
        value = self.decide(asked, dry=True).candidate(name).utility
        assert value is not None
        return value

    def happen(self, kind: str, which: int, number: float) -> None:
        """One event, to one of the services; `number` in [0, 1] says how much of it."""
        vitals = self.entries[which % len(self.entries)].vitals
        assert vitals is not None
        breaker, now = vitals.breaker, self.now
        before = {name: one.news for name, one in self.knowledge.vitals.items()}
        match kind:
            case "time":
                self.now += (0.0, 0.01, 0.05, 0.05, 0.1, 0.3, 1.5, 9.0, 100.0)[which % 9]
            case "answer":
                vitals.succeeded("chat", 10.0 * number, None if which % 2 else 3.0 * number, int(1000 * number), now)
            case "failure":
                vitals.failed(now, "ServiceCrashed", number, at_once=number > 0.7)
            case "probe failed":
                vitals.failed(now, "Unreachable", number, probe=vitals.asked(now))
            case "probe sent":
                vitals.asked(now)
            case "probe given up":
                breaker.left(now)
            case "wait":
                breaker.wait(now + 3.0 * number, now, "RateLimited: it asked to wait")
            case "quota":
                left = Quota(requests=which % 2, requests_reset_s=number, tokens=int(9000 * number), tokens_reset_s=2 * number)
                vitals.allowed(left, now)
            case "load":
                vitals.in_flight = int(16 * number)
            case "feedback":
                vitals.scored("chat", number)
            case "state":
                vitals.state = ("cold", "starting", "ready", "failed")[which % 4]
        self.changed_at.update({name: now for name, one in self.knowledge.vitals.items() if one.news != before[name]})

    def against(self, asked: Ask, name: str, decision: Decision, tried: Mapping[str, Veto]) -> list[Veto]:
        """All that stands against a model, with every policy asked directly, about the facts as they are now."""
        found = next(entry.card for entry in self.entries if entry.name == name)
        assert found is not None
        asked, vitals = replace(asked, now=self.now), self[name]
        out = [veto for policy in self.policies if (veto := policy.admit(asked.shape, found)) is not None]
        row = decision.basis.ranking.sheet.named(name)
        live = vitals.read("chat", self.now) if row is None else replace(row.live, in_flight=vitals.in_flight)
        out += [veto for policy in self.policies if (veto := policy.admit_live(asked, found, live)) is not None]
        if asked.shape.local_only and not found.local:
            out.append(Veto("inspection", found.place))
        if (shut := vitals.breaker.refusal(self.now)) is not None:
            out.append(shut)
        if vitals.tokens_until > self.now and asked.input_tokens > vitals.tokens_left:
            out.append(Veto("quota", "too few tokens"))
        if name in tried:
            out.append(tried[name])
        return out


PLACES = ["process", "host", "private", "hosted"]
prices = st.builds(Price, input=st.floats(0, 100), output=st.floats(0, 100), request=st.floats(0, 0.01))
needs = st.builds(
    Need,
    model=st.sampled_from([(), (), (), "m*", ("m0", "m2")]),
    avoid=st.sampled_from([(), (), "m1"]),
    place=st.sampled_from([(), (), "local", "hosted", ("private", "host")]),
    max_params=st.none() | st.floats(1e9, 1e12),
    max_bytes=st.none() | st.floats(1e9, 1e12),
    context=st.none() | st.integers(0, 4000),
    features=st.sampled_from([frozenset[str](), frozenset({"tools"})]),
    max_first_token_s=st.none() | st.floats(0, 30),
    max_latency_s=st.none() | st.floats(0, 100),
    percentile=st.none() | st.floats(0.05, 0.99),
    max_cost_usd=st.none() | st.floats(0, 1),
    min_quality=st.none() | st.floats(0, 0.8),
)
any_need = st.just(Need()) | st.just(Need()) | needs
facts = st.fixed_dictionaries(
    {
        "place": st.sampled_from(PLACES),
        "provider": st.sampled_from(["", "one", "two"]),
        "params": st.none() | st.integers(0, 10**12),
        "bytes": st.none() | st.integers(0, 10**10),
        "context": st.none() | st.integers(1000, 40_000),
        "max_output": st.none() | st.integers(100, 5000),
        "features": st.sampled_from([frozenset[str](), frozenset({"tools"})]),
        "quality": st.none() | st.floats(0, 1),
        "price": st.none() | prices,
        "first_token_s": st.none() | st.floats(0, 5),
        "per_token_s": st.none() | st.floats(0, 0.1),
        "concurrency": st.none() | st.integers(1, 64),
        "last_resort": st.sampled_from([False, False, False, True]),
    }
)
plain = st.fixed_dictionaries({"quality": st.sampled_from([0.7, 0.7, 0.69, 0.4]), "place": st.just("hosted"), "price": prices})
card_lists = st.lists(plain | facts, min_size=1, max_size=6).map(
    lambda many: [card(f"m{n}", **one) for n, one in enumerate(many)]
)
asks = st.builds(
    lambda need, conversation, local_only, **sizes: Ask(
        shape=Shape(task=Chat, need=need, local_only=local_only), conversation=conversation, **sizes
    ),
    any_need,
    st.sampled_from(["", "", "one", "two"]),
    st.sampled_from(["", "", "", "an inspection failed"]),
    input_tokens=st.integers(0, 500) | st.integers(0, 20_000),
    output_tokens=st.none() | st.integers(0, 3000),
    deadline_s=st.none() | st.floats(0, 30),
)
EVENTS = (
    "time", "time", "time", "answer", "failure", "probe failed", "probe sent", "probe given up", "wait", "quota", "load",
    "load", "feedback", "state",
)  # fmt: skip
STILL = tuple(kind for kind in EVENTS if kind not in ("probe sent", "wait", "quota", "load"))
"""Without those that change what a model may take and alarm nobody."""


DECIDE = st.tuples(st.sampled_from(["decide", "decide", "decide", "dry"]), st.sampled_from([0, 0, 0, 1, 2]), st.floats(0, 1))
three_asks = st.tuples(st.just(ask(conversation="one")), asks, asks)


def steps(kinds: Sequence[str] = EVENTS) -> st.SearchStrategy[list[tuple[str, int, float]]]:
    """What happens, and decisions on one of three requests."""
    return st.lists(DECIDE | events(kinds), min_size=12, max_size=40)


def decisions(
    world: World, three: Sequence[Ask], happened: Sequence[tuple[str, int, float]]
) -> Iterator[tuple[Ask, Decision, dict[str, Veto]]]:
    """Lets it all happen; each decision, with what it was asked, and what had been tried before."""
    last, tried = -1, dict[str, Veto]()
    for kind, which, number in happened:
        if kind in EVENTS:
            world.happen(kind, which, number)
            continue
        if which != last or number < 0.1:
            last, tried = which, {}  # another request; or else the same one, after a hop that has failed
        decision = world.decide(three[which], tried, dry=kind == "dry")
        yield three[which], decision, dict(tried)
        if decision.chosen is not None and kind != "dry":
            world.router.answered(three[which], decision.chosen)
            if number < 0.3:
                world[decision.chosen].asked(world.now)
            if number < 0.9:
                tried[decision.chosen] = ASKED


def events(kinds: Sequence[str] = EVENTS) -> st.SearchStrategy[tuple[str, int, float]]:
    return st.tuples(st.sampled_from(kinds), st.integers(0, 53), st.floats(0, 1))


settings_of_policy = st.fixed_dictionaries(
    {"explore": st.sampled_from([0.0, 0.0, 0.3, 1.0]), "affinity": st.sampled_from([0.001, 0.1]), "band": st.floats(0, 0.01)}
)
