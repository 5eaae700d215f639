"""The built-in policies. Utilities are USD: what an answer is worth by its quality, less money, time and risk of failure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.card import ModelCard, Price, matches
from gateway.config import PolicyConfig
from gateway.decision import Score, Veto
from gateway.live import CONCURRENCY, Live
from gateway.routing import Ask, Policy, Shape

UNKNOWN_QUALITY = 0.5
MEASURED = 3.0
"""After so many answers, a deadline is held against the slow ones among them; before, against what is usual."""
UNKNOWN_PRICE = Price(input=10.0, output=30.0)
"""A hosted model whose price is not stated is ranked as if it were dear; with a limit on cost it is refused."""


class NamePolicy(Policy):
    """Keeps to the models that the need names, and away from those it avoids."""

    name = "name"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        need = shape.need
        if need.model and not matches(card.name, need.model):
            return Veto("need.model", card.name, ", ".join(need.model))
        for group in need.within:
            if not matches(card.name, group):
                return Veto("need.model", card.name, ", ".join(group))
        if need.avoid and matches(card.name, need.avoid):
            return Veto("need.avoid", card.name, f"none of {', '.join(need.avoid)}")
        return None


class TaskPolicy(Policy):
    """Only models that do the task."""

    name = "task"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if shape.task in card.tasks:
            return None
        return Veto("task", ", ".join(sorted(task.task for task in card.tasks)), shape.task.task)


class PlacePolicy(Policy):
    """Only models where the need allows, and only local ones for the data classes that must stay on this machine."""

    name = "place"

    def __init__(self, local_data_classes: Iterable[str] = ()) -> None:
        self._kept = frozenset(local_data_classes)

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if not card.local and (kept := shape.data_classes & self._kept):
            return Veto("local_data_classes", f"{card.place}; the request holds {', '.join(sorted(kept))}", "process, host")
        places = shape.need.places
        if places and card.place not in places:
            return Veto("need.place", card.place, ", ".join(sorted(places)))
        return None


class LastResortPolicy(Policy):
    """A model whose card says that it is a last resort is asked when no other may be, or when all others have failed."""

    name = "last_resort"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        return Veto("last_resort", "asked only when no other model may be", waivable=True) if card.last_resort else None


class SizePolicy(Policy):
    """Parameters and bytes within the need's bounds; an unknown size is refused, never guessed."""

    name = "size"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        need = shape.need
        for rule, seen, most, least in (
            ("params", card.params, need.max_params, need.min_params),
            ("bytes", card.bytes, need.max_bytes, None),
        ):
            if most is None and least is None:
                continue
            if seen is None:
                return Veto(f"need.{rule}", "unknown", "a model that states it")
            if most is not None and seen > most:
                return Veto(f"need.max_{rule}", _count(seen), f"at most {_count(most)}")
            if least is not None and seen < least:
                return Veto(f"need.min_{rule}", _count(seen), f"at least {_count(least)}")
        return None


class ContextPolicy(Policy):
    """The input and the longest answer fit. Token counts are estimates, so a service may still say ContextTooLong.

    A model that lists the feature "any_length" reads what does not fit in windows.
    """

    name = "context"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        least = shape.need.context
        if least is None or (card.context is not None and card.context >= least):
            return None
        return Veto("need.context", _count(card.context), f"at least {_count(least)} tokens")

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        asked = ask.output_tokens
        if card.max_output is not None and asked is not None and asked > card.max_output:
            return Veto("max_output", f"max_tokens {asked}", f"at most {card.max_output}")
        if card.context is None or "any_length" in card.features or ask.together + (asked or 0) <= card.context:
            return None
        return Veto("context", f"about {ask.together} tokens in, {asked or 0} out", f"{card.context} together")


class FeaturePolicy(Policy):
    """Every feature and modality that the request uses, or the need names, is there."""

    name = "features"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if missing := (shape.features | shape.need.features) - card.features:
            return Veto("features", f"lacks {', '.join(sorted(missing))}", ", ".join(sorted(card.features)) or "none")
        if missing := shape.modalities - card.modalities:
            return Veto("modalities", f"input has {', '.join(sorted(missing))}", ", ".join(sorted(card.modalities)))
        return None


class LanguagePolicy(Policy):
    """Every language that the need names is among the model's; unstated languages are refused."""

    name = "languages"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        missing = shape.need.languages - (card.languages or frozenset())
        if not missing:
            return None
        return Veto("need.languages", "unknown" if card.languages is None else f"lacks {', '.join(sorted(missing))}",
                    ", ".join(sorted(card.languages or ())) or "a model that states them")  # fmt: skip


class CostPolicy(Policy):
    """What the request is expected to cost, as a cost; and never above the need's limit, nor an unknown price then."""

    name = "cost"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if shape.need.max_cost_usd is not None and card.price_or_free() is None:
            return Veto("need.max_cost_usd", "price unknown", f"at most ${shape.need.max_cost_usd:g}")
        return None

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        limit = ask.shape.need.max_cost_usd
        if limit is not None and (usd := expected_usd(ask, card, live)) > limit:
            return Veto("need.max_cost_usd", f"about ${usd:.6f}", f"at most ${limit:g}")
        return None

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        price = price_of(card)
        return Score(-price.request, input_usd=-price.input / 1e6, output_usd=-price.output / 1e6)


class LatencyPolicy(Policy):
    """The predicted time of the whole answer as a cost, and the time that each request in flight adds to it.

    The need's limits are refusals: on the time that half of the requests keep to, or the need's own percentile of them. So is
    the caller's deadline, with the 95th percentile; when that refuses everybody, the likeliest is asked all the same.
    """

    name = "latency"

    def __init__(self, usd_per_s: float) -> None:
        self._usd_per_s = usd_per_s

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        need = ask.shape.need
        if need.max_first_token_s is not None and (first := live.first_s(need.percentile)) > need.max_first_token_s:
            return Veto("need.max_first_token_s", f"about {first:.3f} s", f"at most {need.max_first_token_s:g} s")
        if need.max_latency_s is not None:
            seconds = live.latency_s(live.expected_tokens(ask.output_tokens), need.percentile)
            if seconds > need.max_latency_s:
                return Veto("need.max_latency_s", f"about {seconds:.3f} s", f"at most {need.max_latency_s:g} s")
        if ask.deadline_s is not None:
            sure = live.measured >= MEASURED  # the tail of a guess would refuse everybody
            seconds = live.latency_s(live.expected_tokens(ask.output_tokens, high=sure), 0.95 if sure else None)
            if seconds > ask.deadline_s:
                left = f"{max(ask.deadline_s, 0.0):.3f} s are left"
                return Veto("deadline", f"up to {seconds:.3f} s", left, waivable=True)
        return None

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        rate, turn = -self._usd_per_s, live.first_token_s + live.output_tokens * live.per_token_s
        first = live.service_s(0.0)
        return Score(
            rate * first,
            first,
            "s",
            output_usd=rate * live.per_token_s,
            busy_usd=rate * turn / (live.concurrency or CONCURRENCY),
            unit_usd=rate,
        )


class QualityPolicy(Policy):
    """What an answer of the model's quality is worth; and never below the need's minimum. Feedback moves the card's."""

    name = "quality"

    def __init__(self, usd_worth: float) -> None:
        self._usd_worth = usd_worth

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        least, quality = ask.shape.need.min_quality, live.quality
        if least is None or (quality is not None and quality >= least):
            return None
        return Veto("need.min_quality", "unknown" if quality is None else f"{quality:.3g}", f"at least {least:g}")

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        quality = UNKNOWN_QUALITY if live.quality is None else live.quality
        return Score(self._usd_worth * quality, quality, "of 1")


class HealthPolicy(Policy):
    """The risk of failing again: what a failure costs, and the answer's worth that is lost with it.

    It fades with time, so that a service that recovers is asked again.
    """

    name = "health"

    def __init__(self, usd_per_failure: float, usd_worth: float = 0.0) -> None:
        self._usd_per_failure = usd_per_failure
        self._usd_worth = usd_worth

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        if live.success >= 1.0:
            return None
        lost = self._usd_per_failure + self._usd_worth * (UNKNOWN_QUALITY if live.quality is None else live.quality)
        return Score(lost * (live.success - 1.0), live.success, "success")


def builtin_policies(config: PolicyConfig) -> list[Policy]:
    """All of the above, with the configuration's values of quality, time and failure."""
    return [
        NamePolicy(),
        TaskPolicy(),
        PlacePolicy(config.local_data_classes),
        LastResortPolicy(),
        SizePolicy(),
        ContextPolicy(),
        FeaturePolicy(),
        LanguagePolicy(),
        CostPolicy(),
        LatencyPolicy(config.time),
        QualityPolicy(config.worth),
        HealthPolicy(config.failure, config.worth),
    ]


def expected_usd(ask: Ask, card: ModelCard, live: Live, *, high: bool = False) -> float:
    """What a request is expected to cost on a model: input as estimated, an answer as long as usual.

    `high`: an answer that nine in ten are shorter than.
    """
    price = price_of(card)
    if price.above is not None:
        price = price.at(ask.input_tokens)
    tokens = live.expected_tokens(ask.output_tokens, high=high)
    return price.request + (price.input * ask.input_tokens + price.output * tokens) / 1e6


def price_of(card: ModelCard) -> Price:
    """The price that a model is ranked by."""
    return card.price or card.price_or_free() or UNKNOWN_PRICE


def _count(value: float | None) -> str:
    """A count as people read it: 2.16M, 7B."""
    if value is None:
        return "unknown"
    for power, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g}{unit}"
    return f"{value:g}"
