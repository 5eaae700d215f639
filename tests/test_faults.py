"""What a flaky service, store, transform, policy or observer cannot do to a caller, to other callers, or to other models."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError

from gateway import (
    AsyncGateway,
    BadReply,
    Chat,
    ChatResponse,
    Closed,
    DeadlineExceeded,
    Delta,
    Embed,
    EmbedResponse,
    Findings,
    GatewayConfig,
    GatewayError,
    InvalidRequest,
    Meta,
    MissingSecret,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Overloaded,
    Policy,
    Price,
    Request,
    Response,
    Restart,
    Rewrite,
    ServiceCrashed,
    Text,
    Transform,
    TransformFailed,
    Usage,
    Veto,
    WeightsError,
    parse_config,
)
from gateway.plugins import Plugins
from gateway.state import Lease, MemoryState
from gateway.testing import Echo, FakeClock, Recorder, Scripted

ASK = Chat.ask("Name three rivers.")


class Does(ModelService):
    """Runs or streams what a function does."""

    def __init__(
        self, name: str, run: Any = None, stream: Any = None, describe: Any = None, start: Any = None, **facts: Any
    ) -> None:
        self.card = ModelCard(name=name, tasks=frozenset({Chat, Embed}), **facts)
        self._run, self._stream, self._describe, self._start = run, stream, describe, start
        self.closed = 0

    async def describe(self, resources: Any) -> ModelCard:
        return self.card if self._describe is None else await self._describe()  # type: ignore[no-any-return]

    async def start(self, resources: Any) -> None:
        if self._start is not None:
            await self._start()

    async def run(self, request: Request[Any], /) -> Response:
        return await self._run(request)  # type: ignore[no-any-return]

    async def stream(self, request: Request[Any], /) -> Any:
        async for event in self._stream(request) if self._stream is not None else super().stream(request):
            yield event

    async def aclose(self) -> None:
        self.closed += 1


def raising(error: BaseException) -> Callable[..., Any]:
    async def run(*_: Any) -> Any:
        raise error

    return run


def giving(response: Any) -> Callable[..., Any]:
    async def run(*_: Any) -> Any:
        return response

    return run


async def in_flight(gw: AsyncGateway) -> int:
    return sum(status.in_flight for status in await gw.models())


@pytest.mark.parametrize("where", ["run", "start"])
@pytest.mark.parametrize("error", [WeightsError("bad file"), MissingSecret("no key"), InvalidRequest("inner"), SystemExit(3)])
def test_whatever_a_service_raises_the_next_eligible_model_is_asked(where: str, error: BaseException) -> None:
    async def main() -> None:
        bad = Does("bad", **{"run": giving(None), where: raising(error)}, quality=1.0)
        async with AsyncGateway([bad, Echo("good")]) as gw:
            assert (await gw.run(ASK)).model == "good"
            if isinstance(error, GatewayError) and where == "run":
                with pytest.raises(type(error)):
                    await gw.run(ASK, Need(model="bad"))
            assert await in_flight(gw) == 0

    asyncio.run(main())


def test_a_service_that_turns_cancellation_into_an_error_does_not_swallow_the_callers_cancel_or_deadline() -> None:
    async def stubborn(_: Any) -> Response:
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Overloaded("closed") from None
        raise AssertionError

    async def main() -> None:
        other = Scripted("other")
        async with AsyncGateway([Does("bad", stubborn, quality=1.0), other]) as gw:
            task = asyncio.create_task(gw.run(ASK))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(DeadlineExceeded):
                await gw.run(ASK, meta=Meta(deadline_s=0.05))
            assert other.asked == []
            assert await in_flight(gw) == 0

    began = asyncio.Event()
    asyncio.run(main())


@pytest.mark.parametrize(
    "usage",
    [None, Usage(output_tokens=10**400), Usage(cost_usd=float("nan")), Usage(cost_usd=float("inf")), Usage(output_tokens=-5)],
)
def test_an_absurd_usage_is_a_bad_reply_and_leaks_no_slot(usage: Any) -> None:
    async def main() -> None:
        async with AsyncGateway([Does("bad", giving(ChatResponse.of("x", usage=usage)))]) as gw:
            with pytest.raises(BadReply, match="usage that cannot be"):
                await gw.run(ASK)
            assert await in_flight(gw) == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (ASK, ChatResponse(parts=None)),  # type: ignore[arg-type]
        (Embed(texts=("a", "b")), EmbedResponse(vectors=((1.0,),))),
        (Embed(texts=("a",)), EmbedResponse(vectors=((float("nan"),),))),
    ],
)
def test_a_reply_that_cannot_answer_the_request_is_a_bad_reply(request_: Any, response: Any) -> None:
    async def main() -> None:
        async with AsyncGateway([Does("bad", giving(response))]) as gw:
            with pytest.raises(BadReply, match="does not fit what was asked for"):
                await gw.run(request_)
            assert await in_flight(gw) == 0

    asyncio.run(main())


class Town(BaseModel):
    name: str
    people: int
    by_street: dict[str, int] = {}

    @field_validator("name")
    @classmethod
    def no_canary(cls, value: str) -> str:
        if value == "canary":
            raise PydanticCustomError(f"said_{value}", "no canary")  # type: ignore[arg-type]
        return value


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('{"name": "hunter2"}', "people: missing"),
        ('{"name": 5, "people": "hunter2"}', "name: string_type; people: int_parsing"),
        ('{"name": "a", "people": 1, "by_street": {"hunter2": "hunter2"}}', "by_street.*: int_parsing"),
        ("hunter2", "the whole: json_invalid"),
        ('{"name": "canary", "people": 1}', "name: refused"),
    ],
)
def test_a_reply_of_another_shape_says_where_and_nothing_of_the_reply(said: str, why: str) -> None:
    async def main() -> None:
        model = Does("bad", giving(ChatResponse(parts=(Text(said),))), features={"json_schema"})
        async with AsyncGateway([model]) as gw:
            with pytest.raises(BadReply) as caught:
                await gw.run(Chat.ask("Which?", response_format=Town))
            assert f"does not fit what was asked for ({why})" in str(caught.value)
            assert "hunter2" not in f"{caught.value!r}{caught.value.attempts}"
            assert isinstance(caught.value.reply, ChatResponse) and caught.value.reply.text == said

    asyncio.run(main())


def test_deltas_that_are_no_text_or_an_odd_reply_in_an_error_leak_no_slot() -> None:
    async def odd(_: Any) -> Any:
        yield Delta(5)  # type: ignore[arg-type]
        raise KeyError

    async def main() -> None:
        models = [Does("odd", stream=odd), Does("worse", raising(BadReply("x", reply="text")))]  # type: ignore[arg-type]
        async with AsyncGateway(models) as gw:
            with pytest.raises(Exception):  # noqa: B017 - which error does not matter here
                async with gw.stream(ASK, Need(model="odd")) as stream:
                    await stream.result()
            with pytest.raises(BadReply):
                await gw.run(ASK, Need(model="worse"))
            assert await in_flight(gw) == 0

    asyncio.run(main())


def test_a_describe_that_raises_cancelled_fails_alone() -> None:
    async def main() -> None:
        bad = Does("bad", giving(None), describe=raising(asyncio.CancelledError()))
        async with AsyncGateway([bad, Echo("good")]) as gw:
            assert (await gw.run(ASK)).model == "good"

    asyncio.run(main())


def test_a_describe_that_hangs_holds_up_only_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.registry.DESCRIBE_LIMIT_S", 0.05)
    calls = 0

    async def hang() -> ModelCard:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        clock = FakeClock()
        async with AsyncGateway([Does("bad", describe=hang), Echo("good")], clock=clock) as gw:
            await gw.run(ASK)
            clock.advance(60.0)
            monkeypatch.setattr("gateway.registry.DESCRIBE_LIMIT_S", 3600.0)
            for _ in range(3):
                assert (await gw.run(ASK)).model == "good"  # would hang if the second round were waited for
            assert calls == 2
            assert "took longer" in str(await gw.explain(ASK))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


LIMITS = {"limit": [{"unit": "tokens", "max": 1e6, "per": "hour"}, {"unit": "requests", "max": 1e6, "per": "hour"}]}


class SlowState(MemoryState):
    """Awaits in every method, so that a cancellation may land there."""

    async def reserve(self, amounts: Any, limits: Any) -> Any:
        outcome = await super().reserve(amounts, limits)
        return outcome

    async def settle(self, lease: Lease, actual: Any) -> None:
        await asyncio.sleep(0)
        await super().settle(lease, actual)
        await asyncio.sleep(0)


def test_leases_are_settled_exactly_once_though_callers_leave_at_any_moment() -> None:
    async def main() -> None:
        chance, clock = random.Random(1), FakeClock()
        state = SlowState(clock)
        plugins = Plugins(states=[("test", state)])
        config = parse_config(GatewayConfig, LIMITS, "")
        async with AsyncGateway([Echo("a")], config=config, plugins=plugins, clock=clock) as gw:

            async def streamed() -> None:
                async with gw.stream(ASK) as stream:
                    await stream.result()

            for n in range(300):
                task = asyncio.create_task(streamed() if n % 2 else gw.run(ASK))  # type: ignore[arg-type]
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            for _ in range(10):
                await asyncio.sleep(0)
            assert state._leases == {}
            assert await in_flight(gw) == 0

    asyncio.run(main())


def test_a_limit_on_tokens_is_not_evaded_by_leaving_early() -> None:
    async def endless(_: Any) -> Any:
        while True:
            yield Delta("word")

    async def main() -> None:
        state = MemoryState(FakeClock())
        plugins = Plugins(states=[("test", state)])
        config = parse_config(GatewayConfig, LIMITS, "")
        async with AsyncGateway([Does("a", stream=endless)], config=config, plugins=plugins) as gw, gw.stream(ASK) as stream:
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 500:
                    break
        assert max(used for count, used in state._used.items() if count.unit == "tokens") >= 500

    asyncio.run(main())


def test_a_store_that_raises_loses_no_paid_reply_and_blames_no_model(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryState):
        step = "settle"

        async def settle(self, lease: Lease, actual: Any) -> None:
            if self.step == "settle":
                raise TimeoutError("/secret/path")

        async def reserve(self, amounts: Any, limits: Any) -> Any:
            if self.step == "reserve":
                raise OSError("/secret/path")
            return await super().reserve(amounts, limits)

    async def main() -> None:
        state = Broken(FakeClock())
        plugins, config = Plugins(states=[("test", state)]), parse_config(GatewayConfig, LIMITS, "")
        async with AsyncGateway([Echo("a"), Echo("b")], config=config, plugins=plugins) as gw:
            assert (await gw.run(ASK, meta=Meta(deadline_s=60.0))).text
            state.step = "reserve"
            with pytest.raises(GatewayError, match="limits cannot be counted") as refused:
                await gw.run(ASK)
            assert "/secret" not in str(refused.value)
            assert all(status.success == 1.0 and status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())
    assert "/secret" not in caplog.text


def test_one_error_instance_raised_to_many_callers_carries_nothing_from_one_to_another() -> None:
    shared = Overloaded("full")

    async def half(request: Any) -> Any:
        if "alice" in request.messages[0].text:
            yield Delta("ALICE SECRET")
        raise shared

    async def main() -> None:
        async with AsyncGateway([Does("a", stream=half)]) as gw:
            partial = {}
            for who in ("alice", "bob"):
                with pytest.raises(Overloaded) as failed:
                    async with gw.stream(Chat.ask(who)) as stream:
                        await stream.result()
                partial[who] = failed.value.partial
            assert partial == {"alice": "ALICE SECRET", "bob": ""}
            assert not shared.in_stream
            assert shared.attempts == ()

    asyncio.run(main())


def test_a_start_that_fails_when_nobody_waits_any_more_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def start() -> None:
        began.set()
        await go.wait()
        raise ValueError("SECRET sk-123")

    async def main() -> None:
        async with AsyncGateway([Does("a", giving(None), start=start)]) as gw:
            task = asyncio.create_task(gw.run(ASK))
            await began.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            go.set()
            for _ in range(5):
                await asyncio.sleep(0)
        gc.collect()

    began, go = asyncio.Event(), asyncio.Event()
    asyncio.run(main())
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("answer", [False, True, "no", 0])
@pytest.mark.parametrize("step", ["admit", "admit_live"])
def test_a_policy_that_answers_with_anything_but_a_veto_or_none_refuses(step: str, answer: Any) -> None:
    odd = type("Odd", (Policy,), {"name": "odd", step: lambda self, *facts: answer})()

    async def main() -> None:
        async with AsyncGateway([Echo("a")], policies=[odd]) as gw:
            with pytest.raises(NoEligibleModel, match="the policy gave a"):
                await gw.run(ASK)

    asyncio.run(main())


class Odd(Transform):
    name = "odd"

    def __init__(self, **steps: Any) -> None:
        self.steps = steps

    async def inspect(self, request: Request[Any], resources: Any) -> Any:
        return await self.steps["inspect"](request, resources) if "inspect" in self.steps else None

    def begin(self, request: Request[Any], findings: Any, card: ModelCard) -> Any:
        return self.steps["begin"](request) if "begin" in self.steps else None


@pytest.mark.parametrize("inspect", [raising(ValueError()), raising(asyncio.CancelledError()), giving({"pii"})])
def test_a_bad_inspection_keeps_the_request_local_and_no_policy_can_lift_that(inspect: Any) -> None:
    class Place(Policy):
        name = "place"

    async def main() -> None:
        remote, transform = Echo("remote", place="hosted", quality=1.0), Odd(inspect=inspect)
        async with AsyncGateway([remote, Echo("local")], transforms=[transform], policies=[Place()]) as gw:
            assert (await gw.run(ASK)).model == "local"

    asyncio.run(main())


def test_a_transform_that_raises_is_named_and_no_model_is_blamed() -> None:
    class Breaks(Rewrite):
        step = ""

        def feed(self, delta: Delta) -> Any:
            return [delta] if self.step != "feed" else 1 / 0

        def flush(self) -> Any:
            return [] if self.step != "flush" else 1 / 0

        def incoming(self, response: Response) -> Response:
            return response if self.step != "incoming" else 1 / 0  # type: ignore[return-value]

    def begin(request: Any) -> Rewrite:
        if Breaks.step == "begin":
            raise ZeroDivisionError
        return Breaks(request)

    async def main() -> None:
        async with AsyncGateway([Echo("a"), Echo("b")], transforms=[Odd(begin=begin)]) as gw:
            for step in ("feed", "flush", "incoming"):
                Breaks.step = step
                with pytest.raises(TransformFailed, match="transform 'odd' raised ZeroDivisionError") as failed:
                    async with gw.stream(ASK) as stream:
                        await stream.result()
                assert len(failed.value.attempts) == 1
            Breaks.step = "begin"
            with pytest.raises(GatewayError, match="transform 'odd'"):
                await gw.run(ASK)
            assert all(status.success == 1.0 and status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())


def test_a_transform_may_ask_a_local_model_and_is_not_asked_about_that_request() -> None:
    asked = []

    async def inspect(request: Request[Any], resources: Any) -> Findings:
        asked.append(request)
        reply = await resources.run(Chat.ask("Is this private?"))
        with pytest.raises(NoEligibleModel):
            await resources.run(ASK, Need(model="remote"))
        return Findings(data_classes=frozenset({reply.model}))

    async def main() -> None:
        async with AsyncGateway([Echo("local"), Echo("remote", place="hosted")], transforms=[Odd(inspect=inspect)]) as gw:
            await gw.run(ASK)
            assert len(asked) == 1

    asyncio.run(main())


def test_a_data_class_that_must_stay_local_does() -> None:
    async def main() -> None:
        config = parse_config(GatewayConfig, {"policy": {"local_data_classes": ["medical"]}}, "")
        async with AsyncGateway(
            [Echo("local"), Echo("remote", place="hosted", quality=1.0, price=Price())], config=config
        ) as gw:
            assert (await gw.run(ASK)).model == "remote"
            assert (await gw.run(ASK, meta=Meta(data_class="medical"))).model == "local"
            with pytest.raises(NoEligibleModel, match="the request holds medical"):
                await gw.run(ASK, Need(model="remote"), meta=Meta(data_class="medical"))

    asyncio.run(main())


def test_what_a_rewrite_held_back_of_a_void_beginning_is_not_delivered() -> None:
    class Holds(Rewrite):
        def __init__(self, request: Any) -> None:
            super().__init__(request)
            self.held: list[Delta] = []

        def feed(self, delta: Delta) -> Any:
            self.held.append(delta)
            return ()

        def flush(self) -> Any:
            return self.held

    async def restarts(_: Any) -> Any:
        yield Delta("VOID ")
        yield Restart()
        yield Delta("good")
        yield ChatResponse.of("good")

    async def main() -> None:
        async with AsyncGateway([Does("a", stream=restarts)], transforms=[Odd(begin=Holds)]) as gw, gw.stream(ASK) as stream:
            assert [delta.text async for delta in stream] == ["good"]

    asyncio.run(main())


def test_a_slow_reader_does_not_make_a_model_look_slow() -> None:
    async def main() -> None:
        clock = FakeClock()

        async def quick(_: Any) -> Any:
            for _ in range(10):
                clock.advance(0.001)
                yield Delta("x")
            yield ChatResponse.of("x" * 10, usage=Usage(output_tokens=10))

        async with AsyncGateway([Does("a", stream=quick)], clock=clock) as gw:
            async with gw.stream(ASK) as stream:
                async for _ in stream:
                    clock.advance(5.0)
            assert stream.response.trace is not None
            assert stream.response.trace.attempts[0].seconds == pytest.approx(0.01)

    asyncio.run(main())


def test_leaving_a_stream_does_not_raise_what_the_service_raises_in_its_clean_up() -> None:
    async def untidy(_: Any) -> Any:
        try:
            while True:
                yield Delta("x")
        finally:
            raise KeyError("x")

    async def main() -> None:
        async with AsyncGateway([Does("a", stream=untidy), Echo("b")]) as gw:
            async with gw.stream(ASK, Need(model="a")) as stream:
                async for _ in stream:
                    break
            with pytest.raises(ZeroDivisionError):
                async with gw.stream(ASK, Need(model="a")) as stream:
                    async for _ in stream:
                        raise ZeroDivisionError
            assert await in_flight(gw) == 0

    asyncio.run(main())


def test_explain_leaves_no_mark() -> None:
    async def chosen(explaining: bool) -> list[str]:
        config = parse_config(GatewayConfig, {"seed": 5}, "")
        out = []
        async with AsyncGateway([Echo("a"), Echo("b"), Echo("c")], config=config, clock=FakeClock()) as gw:
            for _ in range(8):
                if explaining:
                    await gw.explain(ASK)
                out.append((await gw.run(ASK)).model)
        return out

    assert asyncio.run(chosen(False)) == asyncio.run(chosen(True))


def test_closing_closes_every_service_once_though_it_is_cancelled_or_one_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.registry.CLOSE_LIMIT_S", 0.2)

    class Hangs(Does):
        async def aclose(self) -> None:
            began.set()
            await asyncio.Event().wait()

    async def main() -> None:
        others = [Does("b", giving(None)), Does("c", giving(None))]
        gw = AsyncGateway([Hangs("a"), *others])
        await gw.models()
        closing = asyncio.create_task(gw.aclose())
        await began.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ServiceCrashed, match="aclose took longer"):
            await gw.aclose()
        assert [service.closed for service in others] == [1, 1]
        with pytest.raises(Closed):
            await gw.run(ASK)

    began = asyncio.Event()
    asyncio.run(main())


def test_a_stream_made_before_closing_starts_nothing_afterwards() -> None:
    async def start() -> None:
        raise AssertionError("started after closing")

    async def main() -> None:
        gw = AsyncGateway([Does("a", giving(None), start=start)])
        stream = gw.stream(ASK)
        await gw.aclose()
        with pytest.raises(Closed):
            async with stream:
                await stream.result()

    asyncio.run(main())


def test_many_tenants_share_one_judgement_of_the_cards() -> None:
    class Counts(Policy):
        name = "counts"
        asked = 0

        def admit(self, shape: Any, card: ModelCard) -> Veto | None:
            self.asked += 1
            return None

    async def main() -> None:
        counts = Counts()
        async with AsyncGateway([Echo("a")], policies=[counts]) as gw:
            for n in range(50):
                await gw.run(ASK, meta=Meta(tenant=f"t{n}"))
            assert counts.asked == 1

    asyncio.run(main())


def test_a_composite_model_sees_no_callers_context_and_passes_meta_on_when_it_wants() -> None:
    async def main() -> None:
        heard = Recorder()

        class Asks(Echo):
            async def start(self, resources: Any) -> None:
                self.resources = resources

            async def run(self, request: Request[Any], /) -> Response:
                inner: Response = await self.resources.run(ASK.with_meta(request.meta), Need(model="echo"))
                return replace(inner, trace=None)

        async with AsyncGateway([Asks("asks"), Echo("echo")], observers=[heard]) as gw:
            await gw.run(ASK, Need(model="asks"), meta=Meta(tenant="acme"))
        assert {event.tenant for event in heard.events if event.kind == "attempt"} == {"acme"}

    asyncio.run(main())


def test_garbage_in_meta_is_an_invalid_request_that_names_the_field() -> None:
    for make, field in (
        (lambda: Meta(tenant=[]), "meta.tenant"),  # type: ignore[arg-type]
        (lambda: Meta(deadline_s=10**400), "meta.deadline_s"),
        (lambda: Chat.ask("x", tools=(None,)), "tools"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            make()
        assert refused.value.field.startswith(field.partition(".")[0])

    async def main() -> None:
        async with AsyncGateway([Echo("a")]) as gw:
            with pytest.raises(InvalidRequest, match="meta is a dict"):
                await gw.run(ASK, meta={"deadline_s": 1})  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_check_that_hangs_or_raises_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.survey.LIMIT_S", 0.05)

    class Checks(Echo):
        async def check(self, resources: Any) -> str:
            if self.name == "hangs":
                await asyncio.Event().wait()
            raise ValueError("hunter2")

    async def main() -> None:
        hangs, raises = Checks("hangs"), Checks("raises")
        hangs.name = "hangs"
        async with AsyncGateway([hangs, raises, Echo("fine")]) as gw:
            found = await gw.check()
        assert str(found["hangs"]) == "check took longer than 0.05 s"
        assert "raised ValueError" in str(found["raises"])
        assert "hunter2" not in str(found["raises"])
        assert found["fine"] == "its card can be had"

    asyncio.run(main())
