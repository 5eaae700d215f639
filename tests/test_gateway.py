"""AsyncGateway: choosing, falling back, streaming, deadlines, cancelling, limits; nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import (
    AllModelsFailed,
    AsyncGateway,
    BadReply,
    BudgetExceeded,
    Chat,
    ChatResponse,
    Closed,
    ContentFiltered,
    DeadlineExceeded,
    Delta,
    Embed,
    Findings,
    Footprint,
    GatewayConfig,
    Generate,
    InvalidRequest,
    Message,
    Meta,
    MissingSecret,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Overloaded,
    Price,
    RateLimited,
    Request,
    Resources,
    Response,
    Restart,
    Rewrite,
    ServiceCrashed,
    Text,
    Transform,
    UnknownModel,
    parse_config,
)
from gateway.testing import Echo, Recorder, Scripted, Step

ASK = Chat.ask("Name three rivers.")


def chat_card(name: str, **facts: Any) -> ModelCard:
    return ModelCard(name=name, tasks=frozenset({Chat}), **facts)


def said(request: Request[Any]) -> str:
    assert isinstance(request, Chat)
    return request.messages[0].text


async def text_of(stream: Any) -> str:
    return "".join([delta.text async for delta in stream])


def test_the_best_model_answers_and_the_reply_says_who_and_what_it_cost() -> None:
    async def main() -> None:
        price = Price(input=1.0, output=2.0)
        async with AsyncGateway([Echo("good", quality=0.9, price=price), Echo("poor", quality=0.1)]) as gw:
            reply = await gw.run(ASK)
            assert reply.model == "good"
            assert reply.trace is not None
            assert [attempt.model for attempt in reply.trace.attempts] == ["good"]
            used = reply.usage
            assert used.cost_usd == pytest.approx(price.usd(used.input_tokens, used.output_tokens))
            assert used.cost_usd > 0
            assert reply.trace.decision is not None
            assert reply.trace.decision.chosen == "good"

    asyncio.run(main())


def test_each_task_of_the_core_is_answered_with_its_own_response_class() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("echo")]) as gw:
            for request in (ASK, Generate(prompt="Once"), Embed(texts=("cat", "dog"))):
                reply = await gw.run(request)
                assert type(reply) is request.response
                async with gw.stream(request) as stream:
                    assert await stream.result() == replace(reply, trace=None)

    asyncio.run(main())


def test_a_service_that_raises_anywhere_fails_alone_and_the_next_model_answers() -> None:
    secret = "hunter2 is my password"
    broken: tuple[Callable[[], Scripted], ...] = (
        lambda: Scripted("bad", fail_describe=ValueError(secret), quality=1.0),
        lambda: Scripted("bad", fail_start=ValueError(secret), quality=1.0),
        lambda: Scripted("bad", ValueError(secret), quality=1.0),
        lambda: Scripted("bad", Overloaded("full"), quality=1.0),
        lambda: Scripted("bad", Step(error=asyncio.CancelledError()), quality=1.0),
    )

    async def main() -> None:
        for service in broken:
            async with AsyncGateway([service(), Echo("good")]) as gw:
                reply = await gw.run(ASK)
                assert reply.model == "good"
                assert secret not in str(reply.trace)
        for service in broken:
            async with AsyncGateway([service(), Echo("good")]) as gw, gw.stream(ASK) as stream:
                assert (await stream.result()).model == "good"

    asyncio.run(main())


def test_a_model_that_has_failed_is_asked_less_though_it_fails_fast() -> None:
    async def main() -> None:
        bad = Scripted("bad", otherwise=ServiceCrashed("down"), quality=0.8)
        async with AsyncGateway([bad, Echo("good", quality=0.7)]) as gw:
            for _ in range(20):
                assert (await gw.run(ASK)).model == "good"
            assert len(bad.asked) < 5

    asyncio.run(main())


def test_failed_attempts_are_in_the_trace_and_in_the_cost() -> None:
    async def main() -> None:
        price = Price(input=100.0, output=100.0)
        broken = BadReply("cut", reply=ChatResponse.of("half", usage=Usage10))
        async with AsyncGateway([Scripted("bad", broken, quality=1.0, price=price), Echo("good", price=price)]) as gw:
            reply = await gw.run(ASK)
            assert reply.trace is not None
            first, second = reply.trace.attempts
            assert (first.model, first.error, second.model, second.error) == ("bad", "BadReply", "good", "")
            assert first.cost_usd == pytest.approx(0.002)
            assert reply.usage.cost_usd == pytest.approx(first.cost_usd + second.cost_usd)
            assert reply.trace.cost_usd == reply.usage.cost_usd

    from gateway import Usage

    Usage10 = Usage(input_tokens=10, output_tokens=10)
    asyncio.run(main())


def test_when_the_only_model_fails_its_own_error_is_raised_and_when_several_do_all_are_listed() -> None:
    async def main() -> None:
        async with AsyncGateway([Scripted("one", RateLimited("slow down", retry_after_s=70))]) as gw:
            with pytest.raises(RateLimited) as limited:
                await gw.run(ASK)
            assert limited.value.retry_after_s == 70
            assert limited.value.model == "one"
            assert [attempt.error for attempt in limited.value.attempts] == ["RateLimited"]
        async with AsyncGateway([Scripted("one", RateLimited("a", retry_after_s=70)), Scripted("two", ValueError("b"))]) as gw:
            with pytest.raises(AllModelsFailed, match="RateLimited") as failed:
                await gw.run(ASK)
            assert {attempt.model for attempt in failed.value.attempts} == {"one", "two"}
            assert failed.value.__cause__ is not None

    asyncio.run(main())


def test_an_error_that_no_other_model_can_cure_is_passed_on_at_once() -> None:
    async def main() -> None:
        other = Echo("other")
        async with AsyncGateway([Scripted("picky", ContentFiltered("no"), quality=1.0), other]) as gw:
            with pytest.raises(ContentFiltered):
                await gw.run(ASK)

    asyncio.run(main())


def test_no_eligible_model_says_for_each_model_which_rule_refused_it() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("big", place="hosted", params=70_000_000_000)]) as gw:
            with pytest.raises(NoEligibleModel) as refused:
                await gw.run(ASK, Need(place="local", max_params=8e9))
            message = str(refused.value)
            assert "need.place: hosted (allowed: host, process)" in message
            assert "need.max_params: 70B (allowed: at most 8B)" in message
            assert refused.value.decision is not None
            assert {v.policy for v in refused.value.decision.candidate("big").vetoes} == {"place", "size"}
            with pytest.raises(UnknownModel, match="there are: big") as unknown:
                await gw.run(ASK, Need(model="bog"))
            assert unknown.value.field == "need.model"
        async with AsyncGateway() as gw:
            with pytest.raises(NoEligibleModel, match="install a plugin"):
                await gw.run(ASK)

    asyncio.run(main())


def test_a_missing_secret_makes_only_its_model_ineligible_and_is_named() -> None:
    async def main() -> None:
        keyless = Scripted("keyless", fail_describe=MissingSecret("environment variable BIG_KEY is not set"))
        async with AsyncGateway([keyless, Echo("good")]) as gw:
            assert (await gw.run(ASK)).model == "good"
            assert "BIG_KEY" in str(await gw.explain(ASK))
            with pytest.raises(NoEligibleModel, match="BIG_KEY"):
                await gw.run(ASK, Need(model="keyless"))

    asyncio.run(main())


def test_a_stream_is_its_deltas_and_one_response_that_equals_what_run_gives() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("echo")]) as gw:
            whole = await gw.run(ASK)
            async with gw.stream(ASK) as stream:
                with pytest.raises(RuntimeError, match="has not ended"):
                    _ = stream.response
                text = await text_of(stream)
            assert text == whole.text == stream.response.text
            assert stream.response == whole
            assert stream.response.trace is not None
            assert stream.response.trace.first_token_s is not None

    asyncio.run(main())


class Streams(ModelService):
    """Streams just what it is told."""

    def __init__(self, name: str, *events: Any, **facts: Any) -> None:
        self.card = chat_card(name, **facts)
        self.events = events
        self.closed_streams = 0

    async def run(self, request: Request[Any], /) -> Response:
        raise AssertionError("only streams")

    async def stream(self, request: Request[Any], /) -> Any:
        try:
            for event in self.events:
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, asyncio.Event):
                    await event.wait()
                    continue
                yield event
        finally:
            self.closed_streams += 1


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([Delta("a")], "ended without a response"),
        ([ChatResponse.of("a"), ChatResponse.of("a")], "more after its final response"),
        ([ChatResponse.of("a"), Delta("a")], "more after its final response"),
        ([Delta("a"), Restart(), ChatResponse.of("a")], "began again"),
        (["a"], "streamed a str"),
        ([Delta("a"), Response()], "not a ChatResponse"),
    ],
)
def test_a_stream_that_breaks_the_contract_is_an_error_and_is_closed(events: list[Any], message: str) -> None:
    async def main() -> None:
        service = Streams("odd", *events)
        async with AsyncGateway([service]) as gw:
            with pytest.raises(BadReply, match=message):
                async with gw.stream(ASK) as stream:
                    await stream.result()
            assert service.closed_streams == 1
            assert (await gw.models())[0].in_flight == 0

    asyncio.run(main())


def test_a_restart_before_the_first_delta_is_no_error() -> None:
    async def main() -> None:
        async with AsyncGateway([Streams("s", Restart(), Delta("a"), ChatResponse.of("a"))]) as gw, gw.stream(ASK) as stream:
            assert (await stream.result()).text == "a"

    asyncio.run(main())


def test_a_stream_falls_back_before_its_first_delta_and_never_after() -> None:
    async def main() -> None:
        early = Streams("bad", Overloaded("full"), quality=1.0)
        async with AsyncGateway([early, Echo("good")]) as gw, gw.stream(ASK) as stream:
            await stream.result()
            assert stream.response.model == "good"
        late = Streams("bad", Delta("Half an "), ValueError("x"), quality=1.0)
        async with AsyncGateway([late, Echo("good")]) as gw:
            heard = ""
            with pytest.raises(ServiceCrashed) as broken:
                async with gw.stream(ASK) as stream:
                    async for delta in stream:
                        heard += delta.text
            assert heard == broken.value.partial == "Half an "
            assert broken.value.in_stream
            assert "Half" not in str(broken.value) + repr(broken.value)

    asyncio.run(main())


def test_closing_a_stream_early_frees_the_service_and_counts_as_no_failure() -> None:
    async def main() -> None:
        service = Streams("s", Delta("a"), asyncio.Event(), ChatResponse.of("a"))
        async with AsyncGateway([service]) as gw:
            async with gw.stream(ASK) as stream:
                async for _ in stream:
                    break
            assert service.closed_streams == 1
            status = (await gw.models())[0]
            assert (status.in_flight, status.success) == (0, 1.0)

    asyncio.run(main())


def test_cancelling_frees_what_the_call_held() -> None:
    async def main() -> None:
        waiting = Step(answer="never", began=asyncio.Event(), wait=asyncio.Event())
        async with AsyncGateway([Scripted("slow", waiting)]) as gw:
            task = asyncio.create_task(gw.run(ASK))
            assert waiting.began is not None
            await waiting.began.wait()
            assert (await gw.models())[0].in_flight == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await gw.models())[0].in_flight == 0

    asyncio.run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_deadline_covers_everything_and_frees_what_was_held(streamed: bool) -> None:
    async def main() -> None:
        slow = Streams("slow", Delta("Half"), asyncio.Event()) if streamed else Scripted("slow", Step(wait=asyncio.Event()))
        async with AsyncGateway([slow]) as gw:
            with pytest.raises(DeadlineExceeded) as late:
                if streamed:
                    async with gw.stream(ASK, meta=Meta(deadline_s=0.05)) as stream:
                        await stream.result()
                else:
                    await gw.run(ASK, meta=Meta(deadline_s=0.05))
            assert late.value.deadline_s == 0.05
            assert [attempt.error for attempt in late.value.attempts] == ["DeadlineExceeded"]
            assert late.value.partial == ("Half" if streamed else "")
            assert (await gw.models())[0].in_flight == 0

    asyncio.run(main())


def test_a_deadline_also_covers_loading() -> None:
    class Loads(Echo):
        async def start(self, resources: Any) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        async with AsyncGateway([Loads("slow")]) as gw:
            with pytest.raises(DeadlineExceeded):
                await gw.run(ASK, meta=Meta(deadline_s=0.05))

    asyncio.run(main())


def test_a_thousand_requests_at_once_are_all_answered_and_leave_no_task() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("a"), Echo("b")]) as gw:
            replies = await asyncio.gather(*(gw.run(Chat.ask(f"number {n}")) for n in range(1000)))
            assert all(f"number {n}" in reply.text for n, reply in enumerate(replies))
            assert sum(status.in_flight for status in await gw.models()) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_service_starts_once_though_many_ask_at_once_and_one_of_them_gives_up() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Counted(Echo):
        starts = 0

        async def start(self, resources: Any) -> None:
            self.starts += 1
            begun.set()
            await go.wait()

    async def main() -> None:
        service = Counted("slow")
        async with AsyncGateway([service]) as gw:
            tasks = [asyncio.create_task(gw.run(ASK)) for _ in range(10)]
            await begun.wait()
            tasks[0].cancel()
            go.set()
            replies = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(replies[0], asyncio.CancelledError)
            assert all(isinstance(reply, ChatResponse) for reply in replies[1:])
        assert service.starts == 1

    asyncio.run(main())


def test_closing_while_a_service_starts_leaves_no_task() -> None:
    class Forever(Echo):
        async def start(self, resources: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

    async def main() -> None:
        gw = AsyncGateway([Forever("slow")])
        task = asyncio.create_task(gw.run(ASK))
        await begun.wait()
        await gw.aclose()
        with pytest.raises(Closed):
            await task
        with pytest.raises(Closed):
            await gw.run(ASK)
        await gw.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    begun = asyncio.Event()
    asyncio.run(main())


def test_a_gateway_belongs_to_one_event_loop() -> None:
    gw = AsyncGateway([Echo("echo")])
    asyncio.run(gw.run(ASK))
    with pytest.raises(Closed, match="one event loop"):
        asyncio.run(gw.run(ASK))


def test_what_is_no_request_or_need_is_refused_by_name() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("echo")]) as gw:
            with pytest.raises(InvalidRequest, match="request is a str"):
                await gw.run("hello")  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="need is a dict"):
                await gw.run(ASK, {"place": "local"})  # type: ignore[arg-type]

    asyncio.run(main())


class City(BaseModel):
    name: str
    people: int


def test_a_pydantic_model_as_response_format_comes_back_as_an_instance() -> None:
    async def main() -> None:
        request = Chat.ask("Which city?", response_format=City)
        async with AsyncGateway(
            [Scripted("s", '{"name": "Bern", "people": 134591}', features=frozenset({"json_schema"}))]
        ) as gw:
            reply = await gw.run(request)
            assert reply.parsed == City(name="Bern", people=134591)
        wrong = Scripted("s", '{"name": "Bern secret"}', features=frozenset({"json_schema"}))
        async with AsyncGateway([wrong]) as gw:
            with pytest.raises(BadReply, match="does not fit") as bad:
                await gw.run(request)
            assert isinstance(bad.value.reply, ChatResponse)
            assert "secret" not in str(bad.value)

    asyncio.run(main())


@dataclass(frozen=True, kw_only=True)
class RhymeResponse(Response):
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rhyme(Request[RhymeResponse]):
    word: str = field(repr=False)


class Rhymer(ModelService):
    card = ModelCard(name="rhymer", tasks=frozenset({Rhyme}))

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Rhyme)
        return RhymeResponse(words=("c" + request.word[1:],))


def test_a_third_party_adds_a_task_by_subclassing_request() -> None:
    async def main() -> None:
        async with AsyncGateway([Rhymer(), Echo("echo")]) as gw:
            reply = await gw.run(Rhyme(word="hat"))
            assert reply.words == ("cat",)
            assert reply.model == "rhymer"
            async with gw.stream(Rhyme(word="hat")) as stream:
                assert (await stream.result()).words == ("cat",)
            assert "chat" in str(await gw.explain(Rhyme(word="hat")))

    asyncio.run(main())


class Masked(Rewrite):
    """Sends X for every secret word and puts it back, also when it comes in single characters."""

    def __init__(self, request: Chat, word: str) -> None:
        said = tuple(Message.user(message.text.replace(word, "X")) for message in request.messages)
        super().__init__(replace(request, messages=said))
        self.note = "mask: 1 WORD"
        self._word = word

    def incoming(self, response: Response) -> Response:
        assert isinstance(response, ChatResponse)
        return replace(response, parts=(Text(response.text.replace("X", self._word)),))

    def feed(self, delta: Delta) -> list[Delta]:
        return [replace(delta, data=delta.data.replace("X", self._word))]

    def flush(self) -> list[Delta]:
        return []


class Mask(Transform):
    name = "mask"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    async def inspect(self, request: Request[Any], resources: Any) -> Findings:
        if self.fails:
            raise ValueError("hunter2")
        return Findings(data_classes=frozenset({"secret"}))

    def begin(self, request: Request[Any], findings: Findings | None, card: ModelCard) -> Rewrite | None:
        return None if card.local else Masked(request, "hunter2")  # type: ignore[arg-type]


def test_a_transform_rewrites_what_goes_out_and_restores_what_comes_back() -> None:
    async def main() -> None:
        remote = Scripted("remote", "I heard X", "I heard X", place="hosted")
        async with AsyncGateway([remote], transforms=[Mask()]) as gw:
            request = Chat.ask("say hunter2")
            reply = await gw.run(request)
            async with gw.stream(request) as stream:
                streamed = await text_of(stream)
            assert reply.text == streamed == "I heard hunter2"
            assert [said(asked) for asked in remote.asked] == ["say X", "say X"]
            assert reply.trace is not None
            assert reply.trace.notes == ("mask: 1 WORD",)

    asyncio.run(main())


def test_a_request_that_could_not_be_inspected_stays_on_this_machine() -> None:
    async def main() -> None:
        async with AsyncGateway(
            [Echo("remote", place="hosted", quality=1.0), Echo("local")], transforms=[Mask(fails=True)]
        ) as gw:
            assert (await gw.run(ASK)).model == "local"
            with pytest.raises(NoEligibleModel, match="failed to inspect") as refused:
                await gw.run(ASK, Need(model="remote"))
            assert "hunter2" not in str(refused.value)

    asyncio.run(main())


def test_a_fallback_is_rewritten_anew_and_passes_every_veto_again() -> None:
    async def main() -> None:
        remote = Scripted("remote", ServiceCrashed("down"), place="hosted", quality=1.0)
        local = Scripted("local", "done")
        async with AsyncGateway([remote, local], transforms=[Mask()]) as gw:
            await gw.run(Chat.ask("say hunter2"))
            assert said(remote.asked[0]) == "say X"
            assert said(local.asked[0]) == "say hunter2"
        down = Scripted("local", ServiceCrashed("down"))
        async with AsyncGateway([down, Echo("remote", place="hosted")]) as gw:
            with pytest.raises(ServiceCrashed):
                await gw.run(ASK, Need(place="local"))

    asyncio.run(main())


def test_a_transform_may_answer_by_itself() -> None:
    class Cache(Transform):
        name = "cache"

        def begin(self, request: Request[Any], findings: Findings | None, card: ModelCard) -> Response:
            return ChatResponse.of("from the cache")

    async def main() -> None:
        service = Scripted("never asked", price=Price(request=1.0))
        async with AsyncGateway([service], transforms=[Cache()]) as gw:
            reply = await gw.run(ASK)
            assert (reply.text, reply.usage.cost_usd) == ("from the cache", 0.0)
            async with gw.stream(ASK) as stream:
                assert await text_of(stream) == "from the cache"
            assert service.asked == []

    asyncio.run(main())


def test_a_spent_limit_is_a_veto_and_with_nobody_left_it_says_when_it_frees() -> None:
    limits = {"limit": [{"unit": "requests", "max": 2, "per": "hour", "by": "model"}]}

    async def main() -> None:
        config = parse_config(GatewayConfig, limits, "")
        async with AsyncGateway([Echo("first", quality=1.0), Echo("second")], config=config) as gw:
            assert [(await gw.run(ASK)).model for _ in range(4)] == ["first", "first", "second", "second"]
            with pytest.raises(BudgetExceeded, match="2 of 2 requests") as spent:
                await gw.run(ASK)
            assert 0 < spent.value.frees_in_s <= 3600

    asyncio.run(main())


def test_observers_hear_of_attempts_requests_and_starts_and_one_that_raises_harms_nothing(caplog: Any) -> None:
    class Broken:
        name = "broken"

        def on_event(self, event: Any) -> None:
            raise ValueError("Name three rivers")

    async def main() -> None:
        heard = Recorder()
        async with AsyncGateway(
            [Scripted("bad", Overloaded("x"), quality=1.0), Echo("good")], observers=[heard, Broken()]
        ) as gw:
            await gw.run(ASK)
        kinds = [(event.kind, event.model, event.error) for event in heard.events]
        assert kinds == [
            ("start", "bad", ""),
            ("attempt", "bad", "Overloaded"),
            ("start", "good", ""),
            ("attempt", "good", ""),
            ("request", "good", ""),
        ]
        assert "rivers" not in str(heard.events)

    asyncio.run(main())
    assert "rivers" not in caplog.text
    assert "broken" in caplog.text


def test_a_service_may_ask_another_model_of_its_gateway() -> None:
    class Asks(ModelService):
        card = chat_card("asks", quality=1.0)

        async def start(self, resources: Any) -> None:
            self.resources = resources

        async def run(self, request: Request[Any], /) -> Response:
            answer: Response = await self.resources.run(request, Need(model="echo"))
            return answer

    async def main() -> None:
        async with AsyncGateway([Asks(), Echo("echo")]) as gw:
            reply = await gw.run(ASK, Need(model="asks"))
            assert "rivers" in reply.text
            assert reply.model == "asks"

    asyncio.run(main())


def test_an_abandoned_stream_leaves_nothing_when_collected() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo("echo")]) as gw:
            gw.stream(ASK)
            gc.collect()
            assert (await gw.models())[0].in_flight == 0

    asyncio.run(main())


def test_a_transform_that_is_installed_but_left_out_is_shown_by_explain() -> None:
    async def main() -> None:
        config = parse_config(GatewayConfig, {"transforms": []}, "")
        async with AsyncGateway([Echo("echo")], transforms=[Mask()], config=config) as gw:
            assert "transform 'mask' is installed but left out" in str(await gw.explain(ASK))

    asyncio.run(main())


class Leaves(Echo):
    """Runs on this machine, and lets go of what it has loaded when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.starts = 0
        self.full = False

    async def start(self, resources: Resources) -> None:
        if self.full:
            raise Overloaded("no room", model=self.name)
        self.starts += 1
        self.leave = partial(resources.unloaded, self.card.name)

    def footprint(self) -> Footprint:
        return Footprint(device="cpu", bytes=100 * self.starts)


def test_a_service_that_has_unloaded_is_cold_and_started_again() -> None:
    async def main() -> None:
        service = Leaves("s")
        async with AsyncGateway([service, Echo("hosted")]) as gw:
            for starts in (1, 2):
                for _ in range(2):
                    await gw.run(ASK, Need(model="s"))
                    hosted, status = await gw.models()
                    assert (service.starts, status.state, hosted.footprint) == (starts, "ready", None)
                    assert status.footprint == Footprint(device="cpu", bytes=100 * starts)
                service.leave()
                service.leave()
                assert (await gw.models())[1].state == "cold"

    asyncio.run(main())


def test_no_room_to_start_is_forgotten_at_once() -> None:
    async def main() -> None:
        heard, service = Recorder(), Leaves("s")
        config = parse_config(GatewayConfig, {"retry": {"attempts": 1}}, "test")
        async with AsyncGateway([service], observers=[heard], config=config) as gw:
            service.full = True
            with pytest.raises(Overloaded):
                await gw.run(ASK)
            status = (await gw.models())[0]
            assert status.state == "cold" and isinstance(status.error, Overloaded)
            service.full = False
            await gw.run(ASK)
            assert (await gw.models())[0].error is None
        assert [event.error for event in heard.events if event.kind == "start"] == ["Overloaded", ""]

    asyncio.run(main())


def test_a_footprint_that_fails_is_none_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Stumbles(Echo):
        def footprint(self) -> Footprint:
            raise ValueError("the prompt")

    async def main() -> None:
        async with AsyncGateway([Stumbles("s"), Leaves("t")]) as gw:
            assert [status.footprint is None for status in await gw.models()] == [True, False]

    asyncio.run(main())
    assert "ValueError" in caplog.text and "the prompt" not in caplog.text
