"""Outcome: which error a caller gets when no model is left to ask, and when the time is over."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.card import Need, matches
from gateway.decision import Decision
from gateway.errors import (
    AllModelsFailed,
    BudgetExceeded,
    DeadlineExceeded,
    GatewayError,
    NoEligibleModel,
    Overloaded,
    RateLimited,
    ServiceError,
    UnknownModel,
)
from gateway.parts import Delta
from gateway.settle import fits
from gateway.state import Refusal
from gateway.trace import Attempt


def late(deadline_s: float, attempts: Sequence[Attempt], delivered: Sequence[Delta]) -> DeadlineExceeded:
    """The caller's deadline has passed."""
    return DeadlineExceeded(
        f"no whole answer within the deadline of {deadline_s:g} s{_told(attempts)}",
        deadline_s=deadline_s,
        attempts=tuple(attempts),
        partial="".join(delta.text for delta in delivered),
    )


def failed(last: ServiceError, attempts: Sequence[Attempt]) -> GatewayError:
    """Everybody who could be asked failed: the error of the only one, or one error for all."""
    models = dict.fromkeys(attempt.model for attempt in attempts if attempt.error)
    if len(models) == 1:
        last.attempts = tuple(attempts)
        ours = last.__cause__  # a WeightsError, say, that a service raised: nobody else was eligible
        return ours if isinstance(ours, GatewayError) else last
    message = f"each of {len(models)} models failed{_told(attempts)}"
    error = AllModelsFailed(message, attempts=tuple(attempts), partial=last.partial)
    error.__cause__ = last
    return error


def over_limit(refusals: Sequence[Refusal]) -> BudgetExceeded:
    """A limit has no room, and no model was left that none holds for."""
    soonest = min(refusals, key=lambda refusal: refusal.frees_in_s)
    limit = soonest.limit
    room = f"{soonest.used:g} of {limit.max:g} {limit.unit} are used or reserved; this request {fits(soonest)}"
    return BudgetExceeded(f"limit {limit.key}: {soonest.reason or room}", limit=limit.key, frees_in_s=soonest.frees_in_s)


def shut(decision: Decision, at: float, model: str, now: float) -> ServiceError:
    """Whoever could serve it has failed lately, or asked to wait: `model` is the first that may be asked again, `at`."""
    vetoes = next((c.vetoes for c in decision.candidates if c.model == model), ())
    why = " and ".join(str(veto) for veto in vetoes)
    kind = Overloaded if any(veto.rule == "breaker" for veto in vetoes) else RateLimited
    message = f"no model may be asked now; the first that may be again is {model!r}: {why}"
    return kind(message, model=model, retry_after_s=max(0.0, at - now))


def nobody(decision: Decision, need: Need, known: Sequence[str]) -> GatewayError:
    """No model could be asked at all; `known` are the names of all that there are."""
    if need.model and not any(matches(name, need.model) for name in known):
        wanted = ", ".join(need.model)
        message = f"need.model: no model answers to {wanted!r}; there are: {', '.join(known) or 'none'}"
        return UnknownModel(message, field="need.model", known=tuple(known))
    if not known:
        message = "no model is installed or configured: install a plugin, or list one in gateway.toml"
        return NoEligibleModel(message, decision=decision)
    named = [c for c in decision.candidates if not need.model or matches(c.model, need.model)]
    reasons = "; ".join(f"{c.model}: {' and '.join(str(veto) for veto in c.vetoes if not veto.waivable)}" for c in named)
    route = f" on route {decision.route!r}" if decision.route else ""
    return NoEligibleModel(f"no model can serve this {decision.task} request{route}. {reasons}", decision=decision)


def _told(attempts: Sequence[Attempt]) -> str:
    """The attempts that failed, one after another; those of one model on one line of thought."""
    last: dict[str, str] = {}
    count: dict[str, int] = {}
    for attempt in attempts:
        if attempt.error:
            count[attempt.model] = count.get(attempt.model, 0) + 1
            last[attempt.model] = f"{attempt.error}: {attempt.message}" if attempt.message else attempt.error
    told = [f"{name}{f' ({count[name]} times)' if count[name] > 1 else ''}: {what}" for name, what in last.items()]
    return f": {'; '.join(told)}" if told else ""
