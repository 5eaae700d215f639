"""Prices and contexts as genai-prices knows them: for known models, never fetched, and never before what a row says."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from gateway_remote.presets import PRESETS
from gateway_remote.prices import NOTHING, known_of
from gateway_remote.service import RemoteModel
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    Usage,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway import Price
from gateway.testing import FakeClock, resources

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
KNOWN = {
    "openai": "gpt-5-mini", "openai-responses": "gpt-5-mini", "azure": "gpt-4o",
    "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro",
    "mistral": "mistral-large-latest", "deepseek": "deepseek-chat", "groq": "llama-3.3-70b-versatile",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo", "openrouter": "openai/gpt-4o",
    "fireworks": "accounts/fireworks/models/deepseek-v3p2",
}  # fmt: skip
"""For each preset that names its prices, a model that it serves."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched: whoever would connect, or look up a name, fails."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("somebody uses the network")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def card_of(row: dict[str, Any], clock: FakeClock | None = None) -> Any:
    model = RemoteModel({"name": "m", "api_key": [], **row})
    return asyncio.run(model.describe(resources(clock=clock or FakeClock(NOW))))


def test_every_preset_that_has_prices_is_tried_here() -> None:
    assert {name for name, preset in PRESETS.items() if "prices" in preset} == set(KNOWN)


@pytest.mark.parametrize("preset", sorted(KNOWN))
def test_what_a_model_costs_is_known_without_being_stated(preset: str) -> None:
    url = {"base_url": "https://team.openai.azure.com/openai/v1"} if preset == "azure" else {}
    card = card_of({"preset": preset, "model": KNOWN[preset], **url})
    assert card.price is not None and 0 < card.price.input <= card.price.output < 1000
    # The library's own sum for a request comes to the same.
    snapshot, usage = data_snapshot.get_snapshot(), Usage(input_tokens=12_345, output_tokens=678)
    at = datetime.fromtimestamp(NOW, UTC)
    expected = snapshot.calc(usage, KNOWN[preset], PRESETS[preset]["prices"], None, at).total_price
    assert card.price.usd(12_345, 678) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("model", "provider", "tokens", "cached"),
    [
        ("claude-sonnet-4-5", "anthropic", 199_000, 0),
        ("claude-sonnet-4-5", "anthropic", 201_000, 0),
        ("claude-sonnet-4-5", "anthropic", 201_000, 150_000),
        ("gemini-2.5-pro", "google", 200_000, 0),
        ("gemini-2.5-pro", "google", 200_001, 0),
        ("gemini-2.5-pro", "google", 500_000, 400_000),
        ("gpt-5-mini", "openai", 500_000, 400_000),
    ],
)
def test_a_long_request_costs_what_the_library_says_that_it_costs(model: str, provider: str, tokens: int, cached: int) -> None:
    price = known_of(model, provider=provider, now_s=NOW).price
    usage = Usage(input_tokens=tokens, output_tokens=1000, cache_read_tokens=cached)
    expected = data_snapshot.get_snapshot().calc(usage, model, provider, None, datetime.fromtimestamp(NOW, UTC)).total_price
    assert price is not None and price.usd(tokens, 1000, cached) == pytest.approx(float(expected))


@pytest.mark.parametrize("model", ["gpt-9-imaginary", "", "../../etc", "x" * 10_000, "GPT\n", "(((", "a b"])
def test_a_model_that_nobody_knows_has_no_price_and_no_context(model: str) -> None:
    assert known_of(model, provider="openai", now_s=NOW) == NOTHING
    assert known_of(model or "x", provider="nobody", now_s=NOW) == NOTHING


def test_an_unknown_model_s_card_leaves_it_open() -> None:
    card = card_of({"preset": "openai", "model": "gpt-9-imaginary"})
    assert card.price is None and card.context is None


def test_an_embedding_model_costs_for_its_input_alone() -> None:
    card = card_of({"preset": "openai", "model": "text-embedding-3-small", "tasks": ["embed"]})
    assert card.price is not None and card.price.input > 0 == card.price.output and card.context is not None


def test_what_the_row_says_goes_before() -> None:
    both = card_of({"preset": "openai", "model": "gpt-5-mini", "price": {"input": 7, "output": 8}, "context": 9})
    assert both.price == Price(input=7, output=8) and both.context == 9
    price = card_of({"preset": "openai", "model": "gpt-5-mini", "price": {"input": 7}})
    assert price.price == Price(input=7) and price.context == 400_000
    context = card_of({"preset": "openai", "model": "gpt-5-mini", "context": 9})
    assert context.context == 9 and context.price is not None and context.price.input == 0.25
    free = card_of({"preset": "openai", "model": "gpt-5-mini", "price": {}})
    assert free.price == Price()
    none = card_of({"preset": "openai", "model": "gpt-5-mini", "prices": ""})
    assert none.price is None and none.context is None


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://api.openai.com/v1/"])
def test_a_provider_that_is_named_by_its_url_alone_has_its_prices(url: str) -> None:
    assert card_of({"base_url": url, "model": "gpt-5-mini"}).price.input == 0.25
    assert card_of({"base_url": "https://api.example.com/v1", "model": "gpt-5-mini"}).price is None


def test_a_server_of_one_s_own_has_no_prices_but_those_that_are_stated() -> None:
    assert card_of({"preset": "vllm", "model": "gpt-5-mini"}).price is None


def invented(prices: Any, context: int | None = None) -> data_snapshot.DataSnapshot:
    """A library that knows one model."""
    model = ModelInfo(id="new", match=ClauseEquals(equals="new"), prices=prices, context_window=context)
    provider = Provider(id="one", name="One", api_pattern="x", models=[model])
    return data_snapshot.DataSnapshot(providers=[provider], from_auto_update=False)


def known(prices: Any, monkeypatch: pytest.MonkeyPatch, now_s: float = NOW) -> Any:
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", invented(prices))
    return known_of("new", provider="one", now_s=now_s).price


def test_prices_change_by_date(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2)))
    start = StartDateConstraint(start_date=datetime.fromtimestamp(NOW, UTC).date())
    after = ConditionalPrice(constraint=start, prices=ModelPrice(input_mtok=Decimal(3), output_mtok=Decimal(4)))
    assert known([before, after], monkeypatch, NOW - 86_400) == Price(input=1, output=2)
    assert known([before, after], monkeypatch, NOW) == Price(input=3, output=4)


def test_a_price_per_request_is_per_thousand_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    price = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), requests_kcount=Decimal(12))
    assert known(price, monkeypatch) == Price(input=1, output=2, request=0.012)


def test_what_is_not_priced_by_tokens_has_no_known_price(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known(ModelPrice(), monkeypatch) is None
    assert known(ModelPrice(requests_kcount=Decimal(1)), monkeypatch) is None


amounts = st.decimals(0, 100, places=2)
tiers = st.lists(st.tuples(st.integers(1, 1_000_000), amounts), max_size=3, unique_by=lambda tier: tier[0])


@given(st.tuples(amounts, tiers), st.tuples(amounts, tiers), st.lists(st.integers(0, 1_100_000), min_size=1, max_size=5))
def test_any_tiers_cost_what_the_library_says(inward: Any, outward: Any, sizes: list[int]) -> None:
    def tiered(base: Decimal, above: list[tuple[int, Decimal]]) -> Any:
        return TieredPrices(base=base, tiers=[Tier(start=start, price=price) for start, price in above]) if above else base

    snapshot = invented(ModelPrice(input_mtok=tiered(*inward), output_mtok=tiered(*outward)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_snapshot, "_custom_snapshot", snapshot)
        price = known_of("new", provider="one", now_s=NOW).price
    assert price is not None
    for size in [*sizes, *(start + by for start, _ in inward[1] + outward[1] for by in (0, 1))]:
        usage = Usage(input_tokens=size, output_tokens=1000)
        expected = snapshot.calc(usage, "new", "one", None, datetime.fromtimestamp(NOW, UTC)).total_price
        assert price.usd(size, 1000) == pytest.approx(float(expected))
