"""Routes: needs with names. They add to what the caller needs, and loosen nothing."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import Chat, ConfigError, Embed, Generate, InvalidRequest, ModelCard, Need, Policy, Price, Shape, Veto
from gateway.card import PLACES
from gateway.config import PolicyConfig, RouteConfig, config_schema, load_config, located
from gateway.policies import builtin_policies
from gateway.routes import CACHED, KEYS, Routes

POLICIES = builtin_policies(PolicyConfig(local_data_classes=["pii"]))

FILE = """
[route.hosted]
place = ["hosted", "private"]
max_cost_usd = 0.01

[route.fast]
inherits = "hosted"
description = "Short answers at once."
max_first_token_s = 0.8
match = { task = "chat", max_input_tokens = 4000, tenant = ["acme", "beta-*"] }

[route.rest]
min_quality = 0.5
match = {}
"""


def made(tmp_path: Path, text: str) -> Routes:
    """The routes of a file, as the gateway makes them: what is wrong is told with its line."""
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    try:
        return Routes(load_config(path).route)
    except ConfigError as error:
        raise ConfigError(located(error, path).message.removeprefix(repr(str(path)))) from error


def routes(**tables: Any) -> Routes:
    return Routes(load_config({"route": tables}).route)


def card(name: str = "m", **facts: Any) -> ModelCard:
    return ModelCard(name=name, **{"tasks": frozenset({Chat}), **facts})


def refused(need: Need, one: ModelCard, policies: list[Policy] = POLICIES) -> set[str]:
    shape = Shape(task=Chat, need=need)
    return {veto.rule for policy in policies if (veto := policy.admit(shape, one)) is not None}


# Naming and matching


def test_a_route_that_is_asked_for_adds_to_what_the_caller_needs(tmp_path: Path) -> None:
    name, need = made(tmp_path, FILE).resolve(Need(route="hosted", max_params=7e9), task="embed")
    assert name == "hosted"
    assert need == Need(place=("hosted", "private"), max_cost_usd=0.01, max_params=7e9, route="hosted")


def test_the_first_route_in_the_file_that_fits_is_taken_when_none_is_asked_for(tmp_path: Path) -> None:
    known = made(tmp_path, FILE)
    assert known.names == ("hosted", "fast", "rest")
    assert known.resolve(Need(), task="chat", tenant="acme", input_tokens=4000)[0] == "fast"
    assert known.resolve(Need(), task="chat", tenant="beta-7")[0] == "fast"
    for other in ({"task": "embed"}, {"tenant": "gamma"}, {"tenant": ""}, {"input_tokens": 4001}):
        facts: dict[str, Any] = {"task": "chat", "tenant": "acme", **other}
        assert known.resolve(Need(), **facts)[0] == "rest"


def test_a_route_without_a_match_is_taken_only_when_it_is_asked_for() -> None:
    known = routes(quiet={"place": "local"})
    need = Need(max_cost_usd=1.0)
    assert known.resolve(need, task="chat") == ("", need)
    assert known.resolve(Need(route="quiet"), task="chat")[1].places == {"process", "host"}


def test_a_route_that_is_asked_for_is_taken_whatever_its_match_says(tmp_path: Path) -> None:
    assert made(tmp_path, FILE).resolve(Need(route="fast"), task="embed", tenant="gamma")[0] == "fast"


@pytest.mark.parametrize(
    ("match", "fits", "other"),
    [
        ({"task": ["chat", "gen*"]}, {"task": "generate"}, {"task": "embed"}),
        ({"tenant": "?*"}, {"tenant": "a"}, {"tenant": ""}),
        ({"tenant": "a[1]"}, {"tenant": "a[1]"}, {"tenant": "a"}),
        ({"tenant": ["b", "a"]}, {"tenant": "a"}, {"tenant": "a\n"}),
        ({"data_class": "pii*"}, {"data_classes": frozenset({"x", "pii-eu"})}, {"data_classes": frozenset({"x"})}),
        (
            {"features": ["tools", "seed"]},
            {"features": frozenset({"tools", "seed", "stop"})},
            {"features": frozenset({"tools"})},
        ),
        ({"modalities": "image"}, {"modalities": frozenset({"text", "image"})}, {}),
        ({"min_input_tokens": 5}, {"input_tokens": 5}, {"input_tokens": 4}),
        ({"max_input_tokens": 5}, {"input_tokens": 5}, {"input_tokens": 6}),
        ({"max_input_tokens": 0}, {"input_tokens": 0}, {"input_tokens": 1}),
        ({"conversation": True}, {"conversation": True}, {}),
        ({"conversation": False}, {}, {"conversation": True}),
    ],
)
def test_each_key_of_a_match_is_looked_at(match: Any, fits: Any, other: Any) -> None:
    known = routes(one={"match": match})
    assert known.resolve(Need(), **{"task": "chat", **fits})[0] == "one"
    assert known.resolve(Need(), **{"task": "chat", **other}) == ("", Need())


def test_an_unknown_route_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no route 'fats'; there are: hosted, fast, rest") as caught:
        made(tmp_path, FILE).resolve(Need(route="fats"), task="chat")
    assert caught.value.field == "need.route"
    with pytest.raises(InvalidRequest, match="there are: none"):
        routes().resolve(Need(route="fast"), task="chat")


def test_a_route_is_a_string() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Need(route=5)  # type: ignore[arg-type]
    assert caught.value.field == "need.route"


def test_the_same_need_gives_the_same_merged_need_and_only_so_many_are_kept() -> None:
    known = routes(all={"min_quality": 0.5, "match": {}})
    first = known.resolve(Need(max_params=1.0), task="chat")[1]
    assert known.resolve(Need(max_params=1.0), task="embed")[1] is first
    for size in range(CACHED + 10):
        known.resolve(Need(max_bytes=size), task="chat", tenant=f"t{size}")
    assert len(known._merged) == len(known._taken) == CACHED
    again = known.resolve(Need(max_params=1.0), task="chat")[1]
    assert again == first and again is not first


# Explaining


def test_why_says_how_a_route_was_chosen_and_names_no_pattern_of_other_tenants(tmp_path: Path) -> None:
    known = made(tmp_path, FILE)
    assert known.why("fast", asked=True) == "route fast (asked for): Short answers at once."
    assert known.why("fast", asked=False, task="chat", tenant="beta-secret") == (
        "route fast (matched: task chat, at most 4000 tokens, tenant beta-*): Short answers at once."
    )
    assert known.why("rest", asked=False, task="chat") == "route rest (matched: any request)"
    assert known.why("", asked=False) == ""


def test_why_names_every_key_of_a_match() -> None:
    match = {
        "data_class": ["x", "pii*", "*"],
        "features": "tools",
        "modalities": "image",
        "min_input_tokens": 0,
        "conversation": False,
    }
    told = routes(one={"match": match}).why("one", asked=False, task="chat", data_classes=frozenset({"a", "pii-eu"}))
    assert told == ("route one (matched: at least 0 tokens, data class pii*, uses tools, input has image, in no conversation)")


# Inheriting


def test_a_route_inherits_key_by_key_and_replaces_what_it_says_itself() -> None:
    known = routes(
        low={"inherits": ["mid", "other"], "max_cost_usd": 5.0, "features": []},
        mid={"inherits": "top", "min_quality": 0.7, "avoid": "x"},
        top={"place": "local", "min_quality": 0.5, "max_cost_usd": 1.0, "features": "tools"},
        other={"avoid": ["y", "z"], "languages": "de"},
    )
    said = known.resolve(Need(route="low"), task="chat")[1]
    assert said == Need(
        place="local", min_quality=0.7, max_cost_usd=5.0, avoid=("y", "z"), languages=frozenset({"de"}), route="low"
    )


def test_match_and_description_are_not_inherited() -> None:
    known = routes(child={"inherits": "parent"}, parent={"match": {"task": "chat"}, "description": "of the parent"})
    assert known.resolve(Need(), task="chat")[0] == "parent"
    assert known.why("child", asked=True) == "route child (asked for)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[route.a]\n\ninherits = "b"\n', ", line 3: route.a.inherits: there is no route 'b'; there are: a"),
        ('[route.a]\ninherits = "a"\n', ", line 2: route.a.inherits: it inherits itself: a -> a"),
        (
            '[route.a]\ninherits = "b"\n[route.b]\ninherits = ["c"]\n[route.c]\ninherits = "a"\n',
            ", line 2: route.a.inherits: it inherits itself: a -> b -> c -> a",
        ),
        (
            "[route.a]\nmin_params = 7e9\nmax_params = 1e9\n",
            ", line 3: route.a.max_params: max_params 1e+09 is below min_params",
        ),
        (
            '[route.a]\nmax_params = 1\n[route.b]\ninherits = "a"\nmin_params = 2\n',
            ", line 5: route.b.min_params: max_params 1 is",
        ),
        ('[route.a]\nmodel = ["x", "y-*"]\navoid = ["x*", "y-*"]\n', ", line 3: route.a.avoid: avoid leaves none"),
        (
            "[route.a]\nmatch = { min_input_tokens = 5, max_input_tokens = 4 }\n",
            ", line 2: route.a.match.max_input_tokens: 4 is",
        ),
        ("[route.a.match]\nmax_input_tokens = -1\n", ", line 2: route.a.match.max_input_tokens: -1 is below"),
        ("[route.a.match]\nmax_input_tokens = -1\nmin_input_tokens = -2\n", ", line 2: route.a.match.max_input_tokens: -1 is"),
        ("[route.a]\npercentile = 1.0\n", ", line 2: route.a.percentile: "),
        ("[route.a]\ncontext = -1\n", ", line 2: route.a.context: "),
        (
            '[route.a]\nplace = "moon"\n',
            ", line 2: route.a.place: Input should be one of local, process, host, private, hosted",
        ),
        ('[route.a]\nplace = "nowhere"\n', ", line 2: route.a.place: "),
        ("[route.a]\nplace = []\n", ", line 2: route.a.place: "),
        ("[route.a]\nmodel = []\n", ", line 2: route.a.model: "),
        ("[route.a]\nmodel = 5\n", ", line 2: route.a.model: Input should be a name, or a list of them that is not empty"),
        ('[route.a]\navoid = ["", "x"]\n', ", line 2: route.a.avoid: Input should be a name, or a list of them"),
        ("[route.a]\nmin_quality = 1.5\n", ", line 2: route.a.min_quality: "),
        ("[route.a]\nmax_cost_usd = nan\n", ", line 2: route.a.max_cost_usd: "),
        ("[route.a]\n[route.b]\nmax_cost = 1\n", ", line 3: route.b.max_cost: unknown key"),
        ('[route.a]\nmatch = { tenants = "x" }\n', ", line 2: route.a.match.tenants: unknown key"),
        ("[route.a]\n[route.a.match]\ntask = []\n", ", line 3: route.a.match.task: "),
        ('[route.a]\nroute = "b"\n', ", line 2: route.a.route: unknown key"),
    ],
)
def test_a_wrong_key_of_a_route_is_named_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, text)
    assert caught.value.message.startswith(told)


@pytest.mark.parametrize("avoid", ["x", "y-1", "[xy]", "y-?", ["x", "y-?"]])
def test_avoiding_some_of_the_models_that_it_names_is_no_contradiction(avoid: Any) -> None:
    assert routes(a={"model": ["x", "y-*"], "avoid": avoid}).names == ("a",)


def test_a_long_chain_of_routes_in_any_order_is_no_trouble() -> None:
    chain = {f"r{at}": {"inherits": f"r{at + 1}"} for at in range(3000)}
    known = routes(**chain, r3000={"max_params": 1.0})
    assert known.resolve(Need(route="r0"), task="chat")[1].max_params == 1.0


def test_a_route_may_say_everything_that_a_need_may() -> None:
    keys = {f.name for f in fields(RouteConfig)} - {"inherits", "match", "description"}
    assert keys == set(KEYS) == {f.name for f in fields(Need) if f.init} - {"route", "within"}
    schema = config_schema()["$defs"]
    for part in (schema["RouteConfig"], schema["MatchConfig"]):
        assert part["additionalProperties"] is False and part["description"] and "required" not in part
        assert all(one["description"] for one in part["properties"].values())
    assert set(schema["RouteConfig"]["properties"]) == keys | {"inherits", "match", "description"}


# What can never be served


def test_a_route_that_no_model_can_ever_serve_is_reported_with_each_models_vetoes() -> None:
    known = routes(
        far={"place": "hosted", "max_params": 10},
        near={"place": "local"},
        embed={"match": {"task": "embed*"}},
        tools={"match": {"features": "tools"}},
        pii={"place": "hosted", "match": {"data_class": "pii"}},
    )
    cards = [card("a", place="host", features={"tools"}), card("b", tasks={Chat, Generate}, place="hosted", params=20)]
    told = known.unservable(cards, POLICIES)
    assert set(told) == {"far", "embed", "pii"}
    assert told["far"] == (
        "no model can serve it: "
        "a: need.place: host (allowed: hosted) and need.params: unknown (allowed: a model that states it); "
        "b: need.max_params: 20 (allowed: at most 10)"
    )
    assert told["embed"] == "no model does a task that fits embed*"
    assert "b: local_data_classes: hosted; the request holds pii" in told["pii"]
    assert known.unservable([*cards, card("c", tasks={Embed})], POLICIES).keys() == {"far", "pii"}
    assert "features: lacks tools" in known.unservable(cards[1:], POLICIES)["tools"]
    assert set(known.unservable([], POLICIES)) == set(known.names)


class OnlyEmbed(Policy):
    name = "only"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        return None if shape.task is Embed else Veto("only", shape.task.task, "embed")


def test_a_route_is_servable_when_one_task_of_one_model_is_left() -> None:
    known = routes(any={}, chats={"match": {"task": ["chat", "generate"]}})
    cards = [card("a", tasks={Chat, Generate}), card("b", tasks={Chat, Embed})]
    assert known.unservable(cards, [OnlyEmbed()]).keys() == {"chats"}
    assert known.unservable(cards[:1], [OnlyEmbed()]).keys() == {"any", "chats"}


class Broken(Policy):
    name = "broken"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        raise KeyError("a prompt")


def test_a_policy_that_raises_serves_no_route_and_its_words_are_left_out() -> None:
    told = routes(any={}).unservable([card()], [Broken()])["any"]
    assert "policy 'broken' raised KeyError" in told and "a prompt" not in told


def test_a_pattern_that_no_name_fits_is_told_before_any_card_is_known() -> None:
    known = routes(a={"model": ["big-*", "x"]}, b={"model": "big-*", "avoid": "big-1"}, c={"model": "sm*"}, d={})
    assert known.nameless(["small", "big-1"]) == {"b": "no model answers to big-*; there are: big-1, small"}
    assert known.nameless(["small"])["a"] == "no model answers to big-*, x; there are: small"


# Merging loosens nothing

patterns = st.sampled_from(["a", "b", "a*", "*b", "ab", "*", "[ab]"])
groups = st.lists(patterns, min_size=1, max_size=2).map(tuple)
numbers = st.none() | st.sampled_from([0.0, 1.0, 2.0, 3.0])
shares = st.none() | st.sampled_from([0.1, 0.5, 0.9])
places = st.lists(st.sampled_from(["local", *PLACES]), min_size=1, max_size=3).map(tuple)
some = st.frozensets(st.sampled_from(["x", "y"]))
said: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("model", "avoid"), groups),
    **dict.fromkeys(("features", "languages"), some),
    **dict.fromkeys(("min_quality", "percentile"), shares),
    **{name: numbers for name in KEYS if name.startswith(("max_", "min_")) and name != "min_quality"},
    "place": places,
    "context": st.none() | st.integers(0, 3),
}
# What is judged by a card alone. The needs of one example say the same few keys, so that what they say meets.
STATIC = [
    ("model",), ("model", "avoid"), ("place",), ("min_params", "max_params"), ("max_bytes",), ("context",), ("features",),
    ("languages",), ("max_cost_usd", "place"),
]  # fmt: skip


def need_of(given: dict[str, Any]) -> Need:
    return Need(**given)


def several(count: int, keys: st.SearchStrategy[tuple[str, ...]]) -> st.SearchStrategy[list[Need]]:
    """So many needs that say the same keys, or some of them."""
    return keys.flatmap(
        lambda names: st.lists(
            st.fixed_dictionaries({}, optional={name: said[name] for name in names}).map(need_of),
            min_size=count,
            max_size=count,
        )
    )


counts = st.none() | st.integers(0, 4)
cards = st.builds(
    card,
    st.sampled_from(["a", "b", "ab", "c"]),
    place=st.sampled_from(PLACES),
    params=counts,
    bytes=counts,
    context=counts,
    features=some,
    languages=st.none() | some,
    price=st.none() | st.just(Price()),
    quality=shares,
)


@pytest.mark.parametrize("names", STATIC, ids="-".join)
@settings(max_examples=60)
@given(st.data(), cards)
def test_a_merged_need_admits_the_models_that_each_of_the_needs_admits_and_no_others(
    names: tuple[str, ...], data: st.DataObject, model: ModelCard
) -> None:
    one, two, three = data.draw(several(3, st.just(names)))
    each = [not refused(need, model) for need in (one, two, three)]
    assert (not refused(one.merge(two), model)) is (each[0] and each[1])
    assert (not refused(two.merge(one), model)) is (each[0] and each[1])
    assert (not refused(one.merge(one), model)) is each[0]
    assert (not refused(one.merge(two).merge(three), model)) is all(each)
    assert (not refused(one.merge(two.merge(three)), model)) is all(each)


@pytest.mark.parametrize("name", [name for name in KEYS if name.startswith(("max_", "min_"))] + ["context"])
def test_a_merged_need_keeps_the_stricter_of_both_limits(name: str) -> None:
    zero: dict[str, Any] = {name: 0}
    one: dict[str, Any] = {name: 1}
    low, high = Need(**zero), Need(**one)
    assert low.merge(high) == high.merge(low) == (low if name.startswith("max_") else high)


@given(*[st.builds(Need, max_first_token_s=numbers, max_latency_s=numbers, percentile=shares)] * 2)
def test_a_limit_on_time_holds_for_no_smaller_share_of_the_requests_than_each_need_says(one: Need, two: Need) -> None:
    merged = one.merge(two)
    for need in (one, two):
        if need.max_first_token_s is not None or need.max_latency_s is not None:
            assert (merged.percentile or 0.5) >= (need.percentile or 0.5)
    assert merged.percentile in (None, one.percentile, two.percentile)
    assert merged.percentile == two.merge(one).percentile


@given(several(2, st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(tuple)))
def test_merging_again_changes_nothing_and_nothing_is_lost_on_the_way(needs: list[Need]) -> None:
    one, two = needs
    merged = one.merge(two)
    assert merged.merge(merged) == merged.merge(one) == merged.merge(two) == merged
    assert replace(merged) == merged and hash(replace(merged)) == hash(merged)
    assert replace(merged).places == merged.places and bool(merged.places) is bool(one.places or two.places)
    assert one.merge(Need()).places == one.places and Need().merge(one).model == one.model


EVERY: dict[str, Any] = {
    **dict.fromkeys(KEYS, 0.5), "model": "m", "avoid": "m", "place": "host", "context": 1, "features": "x", "languages": "x",
    "route": "r", "within": (("a",), ("b",)),
}  # fmt: skip


@pytest.mark.parametrize("need", [Need(**{name: value}) for name, value in EVERY.items()], ids=EVERY.keys())
def test_no_field_of_a_need_is_forgotten_in_merging(need: Need) -> None:
    both = need.merge(Need()), Need().merge(need)
    if not need.within:
        assert both == (need, need)
    for merged in both:
        assert {merged.model, *merged.within} - {()} == {need.model, *need.within} - {()}


def test_every_field_of_a_need_is_tried_above() -> None:
    assert {f.name for f in fields(Need) if f.init} == set(EVERY)


def test_places_without_one_in_common_leave_nowhere_rather_than_everywhere() -> None:
    need = routes(far={"place": "hosted"}).resolve(Need(route="far", place="local"), task="chat")[1]
    assert all(refused(need, card(place=place)) == {"need.place"} for place in PLACES)
    assert all(refused(need.merge(Need(place=place)), card(place=place)) == {"need.place"} for place in PLACES)
    assert need.places and not need.places & set(PLACES)


def test_a_model_must_fit_the_callers_names_and_the_routes() -> None:
    need = routes(big={"model": ["big-*", "huge"]}).resolve(Need(route="big", model="*-de"), task="chat")[1]
    assert need.model == ("*-de",) and need.within == (("big-*", "huge"),)
    admitted = [name for name in ("big-de", "big-en", "small-de", "huge") if not refused(need, card(name))]
    assert admitted == ["big-de"]


def test_groups_of_names_may_be_lists() -> None:
    assert Need(within=[["a", "b"]]) == Need(within=(("a", "b"),))  # type: ignore[arg-type]


@pytest.mark.parametrize("within", ["a", ("a",), {("a",)}, ((),), (("",),), ((5,),), None, 5])
def test_groups_of_names_are_checked(within: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Need(within=within)
    assert caught.value.field == "need.within"


def test_needs_that_ask_for_two_routes_are_not_merged() -> None:
    with pytest.raises(InvalidRequest, match="'a' and 'b' are two routes") as caught:
        Need(route="a").merge(Need(route="b"))
    assert caught.value.field == "need.route"
