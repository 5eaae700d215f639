"""What a hop takes and costs: reserved before the call at its expected size, settled after it, however it ended."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from gateway.card import ModelCard, Usage, matches
from gateway.config import LimitConfig
from gateway.decision import Veto
from gateway.errors import BadReply, GatewayError, told
from gateway.hop import Hop, House
from gateway.policies import expected_usd
from gateway.request import Response
from gateway.routing import BYTES_PER_TOKEN, Ask
from gateway.state import Lease, Limit, Refusal, Unit

T = TypeVar("T")

SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 30 * 86_400.0}
MOST = 1e15
"""No count of tokens and no cost is above this: what a service reports is not trusted blindly."""

UNPRICED = "price unknown: set `price` in the row of {!r}"

log = logging.getLogger(__name__)


async def reserve(house: House, hop: Hop, ask: Ask) -> Refusal | None:
    """Reserve what the hop may use, or say which limit has no room: nine in ten use less, so that few overrun it.

    A limit in USD refuses a model whose price is not known: what it spends could not be counted.
    GatewayError when limits cannot be counted.
    """
    tokens = ask.input_tokens + hop.live.expected_tokens(ask.output_tokens, high=True)
    usd = expected_usd(ask, hop.card, hop.live, high=True)
    amounts: Mapping[Unit, float] = {"requests": 1.0, "tokens": tokens, "usd": usd}
    limits = [limit for one in house.limits if (limit := _limit(one, hop, ask)) is not None]
    if not limits:
        return None
    if hop.card.price_or_free() is None and (money := [limit for limit in limits if limit.unit == "usd"]):
        return Refusal(money[0], 0.0, math.inf, UNPRICED.format(hop.card.name))
    if ask.output_tokens is None:  # a guess of the answer's length must not say that a request never fits
        least = expected_usd(replace(ask, output_tokens=0), hop.card, hop.live)
        tokens = max(float(ask.input_tokens), min([tokens, *(one.max for one in limits if one.unit == "tokens")]))
        usd = max(least, min([usd, *(one.max for one in limits if one.unit == "usd")]))
        amounts = {"requests": 1.0, "tokens": tokens, "usd": usd}
    try:
        outcome = await house.state.reserve(amounts, limits)
    except GatewayError:
        raise
    except Exception as error:
        message = f"the state store raised {told(error)}: limits cannot be counted, so nothing is sent"
        raise GatewayError(message) from error
    if isinstance(outcome, Lease):
        hop.lease = outcome
        return None
    return outcome


async def give_back(house: House, hop: Hop, usage: Usage, usd: float | None, *, sent: bool = True) -> None:
    """Settle and free what the hop took: once, however it ended. Nothing counts when nothing was sent.

    `usd` is None where no price is known: then no limit in USD has let it through.
    """
    hop.release()
    if hop.lease is not None:
        tokens = usage.input_tokens + usage.output_tokens
        amounts: Mapping[Unit, float] = {"requests": float(sent), "tokens": tokens, "usd": usd or 0.0}
        # Shielded: a caller who gives up now must not leave the lease unsettled.
        await asyncio.shield(asyncio.ensure_future(_settle(house, hop.lease, amounts)))


def cost_usd(hop: Hop, usage: Usage) -> float | None:
    """What a usage costs, as its service says, or else at the model's price; None where that is not known, 0 where a transform
    answered."""
    if usage.cost_usd:
        return usage.cost_usd
    if hop.answer is not None:
        return 0.0
    price = hop.card.price_or_free()
    if price is None:
        return None
    return price.usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens)


def usage_of_failure(hop: Hop, error: GatewayError | None, input_tokens: int, *, billed: bool = False) -> Usage:
    """What a failed attempt used and was billed: by its own reply when it came, else as far as the stream had come.

    `billed`: its input was read by the model, though nothing has come of it.
    """
    if isinstance(error, BadReply) and isinstance(error.reply, Response) and sound(error.reply.usage):
        usage = error.reply.usage
        return stamped(usage, cost_usd=cost_usd(hop, usage))
    if not hop.delivered and not billed:
        return Usage()
    tokens = sum(len(delta.data) for delta in hop.delivered if isinstance(delta.data, str)) // BYTES_PER_TOKEN
    usage = Usage(input_tokens=input_tokens, output_tokens=tokens, estimated=True)
    return stamped(usage, cost_usd=cost_usd(hop, usage))


def sound(usage: object) -> bool:
    """True for a usage that can be: counts and cost finite and at least 0."""
    if not isinstance(usage, Usage):
        return False
    try:
        return (
            0 <= usage.input_tokens < MOST
            and 0 <= usage.cached_tokens < MOST
            and 0 <= usage.cache_write_tokens < MOST
            and 0 <= usage.output_tokens < MOST
            and 0 <= usage.reasoning_tokens < MOST
            and (usage.cost_usd is None or 0 <= usage.cost_usd < MOST)
        )
    except TypeError:
        return False


def refusal_veto(refusal: Refusal) -> Veto:
    """A limit without room as a veto, for the decision's table."""
    limit = refusal.limit
    if refusal.reason:
        return Veto(f"limit {limit.key}", refusal.reason, "", "gateway")
    allowed = f"{limit.max:g} {limit.unit} per {limit.window_s:g} s"
    return Veto(f"limit {limit.key}", f"{refusal.used:g} used, {fits(refusal)}", allowed, "gateway")


def fits(refusal: Refusal) -> str:
    """When the request would fit, in words."""
    return "never fits" if refusal.frees_in_s > SECONDS["month"] else f"fits in {refusal.frees_in_s:.0f} s"


def stamped(record: T, **facts: Any) -> T:
    """A copy of a frozen record with facts filled in: `dataclasses.replace` without checking everything again."""
    if hasattr(type(record), "__slots__"):  # a third party's own choice
        return cast("T", replace(cast("Any", record), **facts))
    new = object.__new__(type(record))
    vars(new).update(vars(record), **facts)
    return new


def unpriced(limits: Sequence[LimitConfig], cards: Iterable[ModelCard]) -> dict[str, str]:
    """For each limit in USD that holds for models whose price is not known, and so refuses them: which, and what to do."""
    unknown, out = [card for card in cards if card.price_or_free() is None], {}
    for one in limits:
        held = [card for card in unknown if one.by == "tenant" or not one.only or matches(_whose(one, card, ""), one.only)]
        if one.unit == "usd" and held:
            why = "; ".join(UNPRICED.format(card.name) for card in held)
            whose = ", ".join([one.by, *one.only])
            out[f"{one.max:g} usd per {one.per} by {whose}"] = f"it refuses models whose cost cannot be counted: {why}"
    return out


def _whose(one: LimitConfig, card: ModelCard, tenant: str) -> str:
    """The name that a limit goes by: "" for one that all share."""
    return {"tenant": tenant, "key": card.key, "model": card.name, "provider": card.provider}.get(one.by, "")


def _limit(one: LimitConfig, hop: Hop, ask: Ask) -> Limit | None:
    """The limit as it holds for this hop; None when it does not."""
    whose = _whose(one, hop.card, ask.tenant)
    if one.only and not matches(whose, one.only):
        return None
    return Limit(f"{one.by}:{whose}" if one.by != "all" else "all", one.unit, one.max, SECONDS[one.per])


async def _settle(house: House, lease: Lease, amounts: Mapping[Unit, float]) -> None:
    try:
        await house.state.settle(lease, amounts)
    except Exception as error:  # the answer is there and paid for: not counting it is the lesser harm
        log.error("the state store raised %s in settle", told(error))
