"""What the configuration's policy sections do in a whole gateway: routes, limits by key, shared limits, feedback, quotas."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from gateway import (
    AsyncGateway,
    BudgetExceeded,
    Chat,
    ChatResponse,
    ConfigError,
    Denied,
    Gateway,
    InvalidRequest,
    Message,
    Meta,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Overloaded,
    PluginError,
    Price,
    Quota,
    RateLimited,
    Request,
    Response,
    Usage,
)
from gateway.call import Call
from gateway.config import load_config
from gateway.plugins import Plugins
from gateway.testing import Echo, FakeClock, Recorder, Scripted

ASK = Chat.ask("hello")


def gateway(*models: ModelService, clock: FakeClock | None = None, **config: Any) -> AsyncGateway:
    return AsyncGateway(models, config=load_config(config), clock=clock)


def three() -> list[Echo]:
    return [
        Echo("strong", place="hosted", quality=0.95, price=Price(input=5.0, output=15.0)),
        Echo("quick", place="hosted", quality=0.6, price=Price(input=0.1, output=0.4), first_token_s=0.2),
        Echo("local", quality=0.3),
    ]


def test_a_route_is_taken_by_name_or_by_what_the_request_is_and_explained() -> None:
    routes = {
        "private": {"place": "local", "description": "stays here"},
        "batch": {"avoid": "strong", "match": {"tenant": "nightly-*"}},
    }

    async def main() -> None:
        async with gateway(*three(), route=routes, policy={"time": 0.0}) as gw:
            assert (await gw.run(ASK)).model == "strong"
            assert (await gw.run(ASK, Need(route="private"))).model == "local"
            nightly = Meta(tenant="nightly-7")
            assert (await gw.run(ASK, meta=nightly)).model == "quick"
            decision = await gw.explain(ASK, meta=nightly)
            assert decision.route == "batch"
            assert "route batch (matched: tenant nightly-*)" in decision.notes[0]
            with pytest.raises(NoEligibleModel, match="on route 'private'"):
                await gw.run(ASK, Need(route="private", place="hosted"))
            with pytest.raises(InvalidRequest, match="there is no route 'nowhere'; there are: private, batch"):
                await gw.run(ASK, Need(route="nowhere"))

    asyncio.run(main())


def test_a_route_that_no_model_can_ever_serve_is_an_error_when_it_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"route.vast: .*need.params.*"):
        gateway(*three(), route={"vast": {"min_params": 1e12}})
    with pytest.raises(ConfigError, match=r"route.odd.model: no model answers to mega"):
        gateway(*three(), route={"odd": {"model": "mega*"}})


def test_the_file_and_line_of_a_bad_route_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('plugins = []\n\n[route.a]\ninherits = "b"\n')
    with pytest.raises(ConfigError, match=r"gateway.toml', line 4: route.a.inherits"):
        AsyncGateway.from_config(path)


class Late(Echo):
    """Its facts are known only when it is asked."""

    def __init__(self) -> None:
        super().__init__("late", params=7_000_000_000)
        self.facts = self.card
        self.name = "late"
        del self.card

    async def describe(self, resources: Any) -> ModelCard:
        self.card = self.facts
        return self.card


def test_a_route_that_turns_out_to_have_no_model_is_warned_of_and_shown_by_check(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with gateway(Late(), route={"vast": {"min_params": 1e12}}) as gw:
            with caplog.at_level(logging.WARNING):
                found = await gw.check()
            assert isinstance(found["route vast"], ConfigError)
            assert "route.vast" in caplog.text

    asyncio.run(main())


def test_limits_hold_by_key_and_for_those_named_alone() -> None:
    limits = [{"unit": "requests", "max": 2, "per": "day", "by": "key", "only": ["env:ONE"]}]

    async def main() -> None:
        one, same = Echo("one", key="env:ONE", quality=0.9), Echo("same", key="env:ONE", quality=0.8)
        other = Echo("other", key="env:OTHER")
        async with gateway(one, same, other, limit=limits) as gw:
            assert [(await gw.run(ASK)).model for _ in range(4)] == ["one", "one", "other", "other"]
            with pytest.raises(BudgetExceeded, match="limit key:env:ONE: 2 of 2 requests") as spent:
                await gw.run(ASK, Need(model=("one", "same")))
            assert 0 < spent.value.frees_in_s <= 86_400

    asyncio.run(main())


def test_a_limit_of_money_refuses_a_model_whose_price_is_not_known() -> None:
    limits = [{"unit": "usd", "max": 5.0, "per": "day"}, {"unit": "tokens", "max": 1e6, "per": "day"}]

    async def main() -> None:
        big = Echo("big", place="hosted", quality=0.9)
        async with gateway(big, limit=limits) as gw:
            with pytest.raises(BudgetExceeded, match="limit all: price unknown: set `price` in the row of 'big'") as spent:
                await gw.run(ASK)
            assert spent.value.frees_in_s == math.inf
            found = await gw.check()
            assert isinstance(found["big"], str) and list(found) == ["big", "limit 5 usd per day by all"]
            assert "price unknown: set `price` in the row of 'big'" in str(found["limit 5 usd per day by all"])
        priced, local = (
            Echo("priced", place="hosted", quality=0.5, price=Price(input=1e3)),
            Echo("local", place="host", quality=0.1),
        )
        async with gateway(big, priced, local, limit=limits) as gw:
            reply = await gw.run(ASK)
            assert reply.model == "priced" and reply.usage.cost_usd is not None and reply.usage.cost_usd > 0
            assert (await gw.run(ASK, Need(model=("big", "local")))).model == "local"
            assert "price unknown" in str((await gw.run(ASK)).trace.decision.candidate("big").vetoes[0])

    asyncio.run(main())


def test_check_names_each_limit_of_money_that_refuses_a_model() -> None:
    async def main() -> None:
        limits = [{"unit": "usd", "max": 5.0, "per": "day", "by": "model", "only": [one]} for one in ("big", "vast")]
        async with gateway(Echo("big", place="hosted"), Echo("vast", place="private"), limit=limits) as gw:
            found = {name: str(what) for name, what in (await gw.check()).items() if name.startswith("limit ")}
            assert list(found) == ["limit 5 usd per day by model, big", "limit 5 usd per day by model, vast"]
            assert all(repr(name.split()[-1]) in what for name, what in found.items())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        ({"by": "tenant", "only": ["acme"]}, [True, False]),
        ({"by": "model", "only": ["big"]}, [True, True]),
        ({"by": "model", "only": ["other"]}, [False, False]),
        ({"by": "all", "unit": "tokens", "max": 1e6}, [False, False]),
    ],
)
def test_only_a_limit_of_money_that_holds_for_the_request_refuses_it(limit: dict[str, Any], refused: list[bool]) -> None:
    async def main() -> None:
        async with gateway(Echo("big", place="hosted"), limit=[{"unit": "usd", "max": 5.0, "per": "day", **limit}]) as gw:
            asked = [
                await asyncio.gather(gw.run(ASK, meta=Meta(tenant=one)), return_exceptions=True) for one in ("acme", "beta")
            ]
            assert [isinstance(outcome, BudgetExceeded) for [outcome] in asked] == refused
            assert any(name.startswith("limit ") for name in await gw.check()) is any(refused)

    asyncio.run(main())


def test_a_cost_that_is_not_known_is_none_and_a_local_models_is_nothing() -> None:
    async def main() -> None:
        recorder = Recorder()
        models = [Echo("big", place="hosted", quality=0.9), Scripted("free", otherwise=Overloaded("no room"), place="host")]
        async with AsyncGateway([*models, Echo("spare")], observers=[recorder]) as gw:
            reply = await gw.run(ASK, Need(model="big"))
            assert reply.usage.output_tokens > 0 and reply.trace is not None
            assert (reply.usage.cost_usd, reply.trace.cost_usd, reply.trace.attempts[0].cost_usd) == (None, None, None)
            assert [event.usage.cost_usd for event in recorder.events if event.usage is not None] == [None, None]
            assert "price unknown" in str(reply.trace)
            local = await gw.run(ASK, Need(model=("free", "spare")))
            assert (local.model, local.usage.cost_usd) == ("spare", 0.0)

    asyncio.run(main())


def test_what_a_service_says_that_it_cost_is_believed_where_the_price_is_not_known() -> None:
    async def main() -> None:
        told = ChatResponse.of("hi", usage=Usage(output_tokens=3, cost_usd=0.25))
        async with gateway(Scripted("big", otherwise=told, place="hosted")) as gw:
            assert (await gw.run(ASK)).usage.cost_usd == 0.25

    asyncio.run(main())


def test_a_last_resort_answers_after_a_failure_and_never_beside_another_model() -> None:
    async def main() -> None:
        real = Scripted("real", "hi", Overloaded("busy"), otherwise="hi", place="hosted")
        toy = Echo("toy", quality=0.5, last_resort=True)
        async with gateway(real, toy, route={"toys": {"model": "toy"}}, hedge={"share": 1.0}) as gw:
            assert [(await gw.run(ASK)).model for _ in range(2)] == ["real", "toy"]
            assert (await gw.run(ASK, Need(route="toys"))).model == "toy"
            call = Call(gw._house, ASK, Need(), streamed=False)
            await call.open()
            assert await call.beside(await call.next()) is None
            with pytest.raises(NoEligibleModel) as error:
                await gw.run(ASK, Need(min_quality=0.99))
            assert "toy: need.min_quality: 0.5 (allowed: at least 0.99)" in str(error.value)

    asyncio.run(main())


def test_a_limit_is_shared_through_a_file(tmp_path: Path) -> None:
    config = {"state": {"path": str(tmp_path / "limits.sqlite")}, "limit": [{"unit": "requests", "max": 3, "per": "day"}]}

    async def main() -> None:
        async with gateway(Echo("m"), **config) as first, gateway(Echo("m"), **config) as second:
            for gw in (first, second, first):
                await gw.run(ASK)
            with pytest.raises(BudgetExceeded):
                await second.run(ASK)
        async with gateway(Echo("m"), **config) as again:
            with pytest.raises(BudgetExceeded):
                await again.run(ASK)

    asyncio.run(main())


def test_a_state_file_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "no" / "limits.sqlite"
    config = {"state": {"path": str(path)}, "limit": [{"unit": "requests", "max": 3, "per": "day"}]}
    with Gateway([Echo("m")], config=load_config(config)) as gw, pytest.raises(Exception, match=r"limits\.sqlite") as error:
        gw.run(ASK)
    assert type(error.value).__name__ == "GatewayError"


def test_a_state_file_and_a_plugins_state_store_are_one_too_many() -> None:
    plugins = Plugins(states=[("mine", object())])  # type: ignore[list-item]
    with pytest.raises((ConfigError, PluginError), match=r"state.path: plugin 'mine'"):
        AsyncGateway(config=load_config({"state": {"path": "x.sqlite"}}), plugins=plugins)


def test_feedback_moves_the_quality_that_a_model_is_believed_to_have() -> None:
    async def main() -> None:
        liked, shiny = Echo("liked", quality=0.6), Echo("shiny", quality=0.7)
        async with gateway(liked, shiny) as gw:
            assert (await gw.run(ASK)).model == "shiny"
            for _ in range(10):
                await gw.feedback(await gw.run(ASK, Need(model="shiny")), 0.0)
                await gw.feedback(await gw.run(ASK, Need(model="liked")), 1.0)
            decision = await gw.explain(ASK)
            assert decision.chosen == "liked"
            assert decision.candidate("liked").scores["quality"].seen == pytest.approx((0.6 * 8 + 9.16) / (8 + 9.16), abs=0.02)
            with pytest.raises(NoEligibleModel):
                await gw.run(ASK, Need(model="shiny", min_quality=0.6))
            for bad in (1.1, -0.1, float("nan"), None, "good"):
                with pytest.raises(InvalidRequest):
                    await gw.feedback(await gw.run(ASK), bad)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="reply of this gateway"):
                await gw.feedback(ChatResponse.of("made up"), 1.0)

    asyncio.run(main())


def test_feedback_for_one_task_says_nothing_about_another() -> None:
    with Gateway([Echo("m", quality=0.5)]) as gw:
        for _ in range(5):
            gw.feedback(gw.run(ASK), 0.0)
        from gateway import Generate

        seen = gw.explain(Generate(prompt="x")).candidate("m").scores["quality"].seen
        assert seen == 0.5
        worse = gw.explain(ASK).candidate("m").scores["quality"].seen
        assert worse is not None and worse < 0.5


class Metered(Echo):
    """Says that its provider's quota is used up."""

    async def run(self, request: Request[Any], /) -> Response:
        from dataclasses import replace

        return replace(await super().run(request), quota=Quota(requests=0, requests_reset_s=30.0))


def test_a_quota_that_is_used_up_sends_requests_elsewhere_until_it_is_full_again() -> None:
    async def main() -> None:
        clock = FakeClock()
        async with gateway(Metered("metered", quality=0.9), Echo("spare"), clock=clock) as gw:
            assert (await gw.run(ASK)).model == "metered"
            assert (await gw.run(ASK)).model == "spare"
            assert "quota" in str((await gw.explain(ASK)).candidate("metered").vetoes[0])
            clock.advance(31)
            assert (await gw.run(ASK)).model == "metered"

    asyncio.run(main())


def test_a_refused_key_sits_out_with_all_its_models_and_one_request_tries_again() -> None:
    async def main() -> None:
        clock = FakeClock()
        denied = Scripted("denied", Denied("bad key"), otherwise="works", key="env:ONE", quality=0.9)
        same = Scripted("same", otherwise="works", key="env:ONE", quality=0.8)
        other = Scripted("other", otherwise="works", key="env:TWO", quality=0.1)
        async with gateway(denied, same, other, clock=clock) as gw:
            reply = await gw.run(ASK)
            assert reply.trace is not None
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("denied", "Denied"), ("other", "")]
            assert (await gw.run(ASK)).model == "other"
            assert {status.name for status in await gw.models() if status.shut} == {"denied", "same"}
            clock.advance(120)
            assert (await gw.run(ASK)).model == "denied"
            assert not any(status.shut for status in await gw.models() if status.name == "denied")

    asyncio.run(main())


def test_a_standing_retry_after_is_waited_for_when_nobody_else_is_left_and_the_deadline_allows() -> None:
    async def main() -> None:
        clock = FakeClock()
        async with gateway(Scripted("m", RateLimited("wait", retry_after_s=4.0), "well"), clock=clock) as gw:
            reply = await gw.run(ASK)
            assert reply.text == "well" and 4.0 <= clock.monotonic() < 5.0
        clock = FakeClock()
        async with gateway(Scripted("m", RateLimited("wait", retry_after_s=400.0), "well"), clock=clock) as gw:
            with pytest.raises(RateLimited) as limited:
                await gw.run(ASK)
            assert limited.value.retry_after_s == 400.0 and clock.monotonic() < 1.0

    asyncio.run(main())


def test_a_prefill_goes_only_to_a_model_that_takes_it() -> None:
    async def main() -> None:
        plain = Echo("plain", quality=1.0, features=frozenset())
        takes = Echo("takes", quality=0.1)
        prefill = Chat(messages=(Message.user("List three rivers."), Message.assistant("1. The")))
        async with gateway(plain, takes) as gw:
            assert (await gw.run(ASK)).model == "plain"
            assert (await gw.run(prefill)).model == "takes"
            assert "prefill" in str((await gw.explain(prefill)).candidate("plain").vetoes[0])

    asyncio.run(main())


def test_a_conversation_stays_with_the_model_that_knows_it() -> None:
    async def main() -> None:
        first, better = Echo("first", quality=0.5), Echo("better", quality=0.52)
        async with gateway(first, better, policy={"time": 0.0}) as gw:
            mine = Meta(conversation="mine")
            await gw.run(ASK, Need(model="first"), meta=mine)
            assert [(await gw.run(ASK, meta=mine)).model for _ in range(3)] == ["first"] * 3
            assert (await gw.run(ASK, meta=Meta(conversation="another"))).model == "better"
            assert (await gw.run(ASK, meta=Meta(conversation="mine", tenant="somebody else"))).model == "better"
        async with gateway(first, Echo("far better", quality=0.9), policy={"time": 0.0}) as gw:
            await gw.run(ASK, Need(model="first"), meta=mine)
            assert (await gw.run(ASK, meta=mine)).model == "far better"

    asyncio.run(main())


def test_a_loaded_model_is_preferred_to_one_that_must_be_loaded_first() -> None:
    async def main() -> None:
        big, small = Echo("big", bytes=20_000_000_000, quality=0.6), Echo("small", bytes=1_000_000, quality=0.58)
        async with gateway(big, small) as gw:
            assert (await gw.run(ASK)).model == "small"
            await gw.run(ASK, Need(model="big"))
            assert (await gw.explain(ASK)).chosen == "big"

    asyncio.run(main())
