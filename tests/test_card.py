"""ModelCard, Need, Price: what is refused, and what a card says of itself."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Chat, ConfigError, Embed, InvalidRequest, ModelCard, Need, Price
from gateway.card import matches

BAD_NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.5, True, "5", [], 10**5000 * -1]
NEED_NUMBERS = [
    "min_params", "max_params", "max_bytes", "context", "max_first_token_s", "max_latency_s", "max_cost_usd", "min_quality",
]  # fmt: skip
CARD_NUMBERS = [
    "params", "active_params", "bytes", "context", "max_output", "dimensions", "first_token_s", "per_token_s",
]  # fmt: skip


def card(**facts: Any) -> ModelCard:
    return ModelCard(**{"name": "m", "tasks": frozenset({Chat}), **facts})


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=lambda value: str(value)[:8] if not isinstance(value, int) else "int")
@pytest.mark.parametrize("field", NEED_NUMBERS)
def test_a_need_refuses_what_is_no_number_and_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"need.{field}") as caught:
        Need(**{field: value})
    assert caught.value.field == f"need.{field}"


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=lambda value: str(value)[:8] if not isinstance(value, int) else "int")
@pytest.mark.parametrize("field", CARD_NUMBERS)
def test_a_card_refuses_what_is_no_number_and_names_card_and_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"'m'.*{field}"):
        card(**{field: value})


@pytest.mark.parametrize("value", [10**400, 0, 1, 1.5])
def test_a_need_takes_any_finite_number(value: float) -> None:
    assert Need(max_params=value).max_params == value


@pytest.mark.parametrize("field", ["model", "avoid", "place", "features", "languages"])
@pytest.mark.parametrize("value", [None, 5, [None], [5]], ids=str)
def test_a_need_refuses_names_that_are_none_and_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Need(**{field: value})
    assert caught.value.field == f"need.{field}"


@pytest.mark.parametrize("place", ["moon", "", "Local", ("host", "moon")])
def test_a_need_refuses_an_unknown_place(place: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Need(place=place)
    assert caught.value.field == "need.place"


def test_local_stands_for_process_and_host() -> None:
    assert Need(place="local").places == {"process", "host"}
    assert Need(place=("local", "private")).places == {"process", "host", "private"}
    assert Need().places == frozenset()


def test_one_name_and_a_list_of_it_are_the_same_need() -> None:
    one, other = Need(model="a", features=["tools"]), Need(model=["a"], features="tools")  # type: ignore[arg-type]
    assert one == other and hash(one) == hash(other)
    assert one.model == ("a",) and one.features == frozenset({"tools"})


names = st.text(min_size=1, max_size=5)
needs = st.builds(
    Need,
    model=names | st.lists(names, max_size=2).map(tuple),
    place=st.sampled_from(["local", "host", "hosted", ()]),
    max_cost_usd=st.none() | st.floats(0, 10),
    features=st.frozensets(st.sampled_from(["tools", "seed"])),
)


@given(needs, needs)
def test_equal_needs_have_equal_hashes(one: Need, other: Need) -> None:
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one and hash(copy) == hash(one)
    assert (one != other) or hash(one) == hash(other)


def test_a_need_that_was_hashed_is_found_again_in_another_process() -> None:
    need = Need(model="a")
    hash(need)
    script = """
import pickle, sys, gateway
print(hash(pickle.loads(sys.stdin.buffer.read())) == hash(gateway.Need(model="a")))
"""
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(need), capture_output=True, check=True)
    assert done.stdout.split() == [b"True"]


@pytest.mark.parametrize("attribute", ["tasks", "features", "modalities", "languages"])
def test_a_card_refuses_a_string_where_a_set_belongs(attribute: str) -> None:
    with pytest.raises(ConfigError, match=attribute):
        card(**{attribute: "chat"})


def test_a_card_takes_lists_for_sets() -> None:
    assert card(tasks=[Chat, Embed], features=["tools"]).tasks == frozenset({Chat, Embed})


@pytest.mark.parametrize("tasks", [{"chat"}, {None}, {5}], ids=str)
def test_a_card_refuses_tasks_that_are_no_request_classes(tasks: Any) -> None:
    with pytest.raises(ConfigError, match="tasks must be request classes"):
        card(tasks=tasks)


@pytest.mark.parametrize("quality", [math.nan, -0.1, 1.1, "high", True, {"chat": 2.0}, {"chat": math.nan}], ids=str)
def test_a_card_refuses_a_quality_outside_0_to_1(quality: Any) -> None:
    with pytest.raises(ConfigError, match="quality"):
        card(quality=quality)


def test_a_card_refuses_an_unknown_place_and_a_missing_name() -> None:
    with pytest.raises(ConfigError, match="'moon'"):
        card(place="moon")
    for name in ("", None, 5):
        with pytest.raises(ConfigError, match="name"):
            card(name=name)


@pytest.mark.parametrize("field", ["input", "output", "cached_input", "request"])
def test_a_price_refuses_what_is_no_amount(field: str) -> None:
    for value in (math.nan, -1.0, True, "1"):
        with pytest.raises(ConfigError, match=f"price.{field}"):
            Price(**{field: value})  # type: ignore[arg-type]


def test_a_price_counts_cached_tokens_once() -> None:
    price = Price(input=1.0, output=10.0, cached_input=0.1, request=0.5)
    assert price.usd(1_000_000, 100_000, 500_000) == pytest.approx(0.5 + 0.5 + 0.05 + 1.0)
    assert Price(input=1.0).usd(1_000_000, 0, 500_000) == pytest.approx(1.0)


def test_an_unknown_price_is_free_only_on_this_machine() -> None:
    assert card(place="host").price_or_free() == Price()
    assert card(place="hosted").price_or_free() is None
    assert card(place="private").price_or_free() is None


def test_quality_is_one_number_or_one_per_task() -> None:
    assert card(quality=0.5).quality_for("embed") == 0.5
    assert card(quality={"chat": 0.7}).quality_for("chat") == 0.7
    assert card(quality={"chat": 0.7}).quality_for("embed") is None


def test_a_card_is_json_with_unknown_facts_left_out() -> None:
    assert card(last_resort=True, quality=0.0).to_json() == {**card(quality=0.0).to_json(), "last_resort": True}
    assert "last_resort" not in card().to_json() and card(quality=0.0).to_json()["quality"] == 0.0
    out = card(place="hosted", price=Price(input=1.0), quality={"chat": 0.5}, params=7, features={"tools", "seed"}).to_json()
    assert json.loads(json.dumps(out)) == out
    assert out["tasks"] == ["chat"] and out["features"] == ["seed", "tools"] and out["price"]["input"] == 1.0
    assert "context" not in out and "languages" not in out


def test_patterns_match_whole_names_and_mind_case() -> None:
    assert matches("local-a", ["local-*"]) and matches("a[1]", ["a[1]"])
    assert not matches("Local-a", ["local-*"]) and not matches("a", ["b"]) and not matches("ab", ["a"])
