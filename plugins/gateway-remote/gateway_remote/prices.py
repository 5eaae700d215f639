"""What hosted models cost, and how much they read, as the genai-prices library knows it. The only file that imports it.

Its data come with the package: nothing is fetched. What a row says itself goes before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway import Price


@dataclass(frozen=True, kw_only=True)
class Known:
    """The price now, and the context in tokens; None where the library does not say."""

    price: Price | None = None
    context: int | None = None


NOTHING = Known()


def known_of(model: str, *, provider: str, now_s: float) -> Known:
    """What the library knows of a provider's model. Imports for 0.2 s.

    `now_s`, since the epoch, is for prices that change by date or time of day.
    """
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, info = get_snapshot().find_provider_model(model, None, provider, None)
        stated = info.get_prices(datetime.fromtimestamp(now_s, UTC))
    except LookupError:
        return NOTHING
    starts = sorted({tier.start for value in vars(stated).values() for tier in getattr(value, "tiers", ())}, reverse=True)
    price = None
    for start in starts:
        above = _price(stated, start + 1)
        price = above if price is None or above is None else _with_above(above, starts[starts.index(start) - 1], price)
    base = _price(stated, 0)
    if base is not None and price is not None:
        base = _with_above(base, starts[-1], price)
    return Known(price=base, context=info.context_window)


def _price(stated: Any, input_tokens: int) -> Price | None:
    """The price of a request of so many input tokens; None where the library has none for tokens."""
    found = {name: _at(getattr(stated, wire, None), input_tokens) for name, wire in NAMES.items()}
    if found["input"] is None and found["output"] is None:
        return None
    per_request = _at(getattr(stated, "requests_kcount", None), input_tokens)
    return Price(
        input=found["input"] or 0.0,
        output=found["output"] or 0.0,
        cached_input=found["cached_input"],
        cache_write=found["cache_write"],
        request=(per_request or 0.0) / 1e3,
    )


NAMES = {"input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok", "cache_write": "cache_write_mtok"}


def _at(value: Any, input_tokens: int) -> float | None:
    if value is None:
        return None
    for tier in reversed(getattr(value, "tiers", ())):
        if input_tokens > tier.start:
            return float(tier.price)
    return float(getattr(value, "base", value))


def _with_above(price: Price, above_tokens: int, above: Price) -> Price:
    return Price(
        input=price.input,
        output=price.output,
        cached_input=price.cached_input,
        cache_write=price.cache_write,
        request=price.request,
        above_tokens=above_tokens,
        above=above,
    )
