"""The owner's thread: work in order, a bounded queue, callers who leave, and errors that harm one call alone."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest
from gateway_local.owner import Call, Done, Owner

from gateway import Closed, FileStore, Generate, Keys, Overloaded, Rejected, ServiceCrashed, Weights
from gateway.testing import resources


class Gate:
    """Work that says when it began and waits until it may go on."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.open = threading.Event()

    def __call__(self, call: Call) -> str:
        self.began.set()
        self.open.wait()
        return "through"


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


def with_owner(check: Any, *, max_queue: int = 4) -> None:
    async def whole() -> None:
        owner = Owner("tiny", max_queue=max_queue)
        owner.start()
        try:
            await check(owner)
        finally:
            await asyncio.to_thread(owner.close)

    asyncio.run(whole())


def test_work_is_done_in_order_on_one_thread() -> None:
    async def check(owner: Owner) -> None:
        order: list[int] = []
        threads = set()

        def work(number: int) -> Any:
            def do(call: Call) -> int:
                order.append(number)
                threads.add(threading.get_ident())
                return number

            return do

        answers = await asyncio.gather(*(owner.run(work(number)) for number in range(4)))
        assert answers == order == [0, 1, 2, 3]
        assert len(threads) == 1 and threading.get_ident() not in threads

    with_owner(check)


def test_how_many_are_let_in_does_not_hang_on_when_the_thread_wakes() -> None:
    async def whole() -> None:
        owner = Owner("tiny", max_queue=2)
        owner.beside = 3
        calls = [asyncio.create_task(owner.run(lambda call: "done")) for _ in range(7)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # the last one, refused: the thread has not begun yet
        owner.start()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:6] == ["done"] * 6 and isinstance(results[6], Overloaded)
        await asyncio.to_thread(owner.close)

    asyncio.run(whole())


def test_a_full_queue_refuses_and_a_caller_who_leaves_frees_the_place() -> None:
    async def check(owner: Owner) -> None:
        gate = Gate()
        running = asyncio.create_task(owner.run(gate))
        await until(gate.began)
        waiting = [asyncio.create_task(owner.run(lambda call: "late")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="max_queue"):
            await owner.run(lambda call: "never")
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        taken = asyncio.create_task(owner.run(lambda call: "taken"))
        await asyncio.sleep(0)
        gate.open.set()
        assert [await running, await waiting[1], await taken] == ["through", "late", "taken"]

    with_owner(check, max_queue=2)


def test_work_whose_caller_has_gone_is_never_begun() -> None:
    async def check(owner: Owner) -> None:
        gate = Gate()
        running = asyncio.create_task(owner.run(gate))
        await until(gate.began)
        begun: list[str] = []
        left = asyncio.create_task(owner.run(lambda call: begun.append("left")))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait({left})
        gate.open.set()
        await running
        await owner.run(lambda call: None)
        assert begun == []

    with_owner(check)


def test_closing_a_stream_early_tells_the_work() -> None:
    async def check(owner: Owner) -> None:
        ended = threading.Event()

        def endless(call: Call) -> None:
            while not call.gone:
                call.send("more")
            ended.set()

        async with aclosing(owner.stream(endless)) as items:
            async for item in items:
                assert item == "more"
                break
        await until(ended)
        assert await owner.run(lambda call: "next") == "next"

    with_owner(check)


def test_an_error_harms_its_own_call_alone_and_repeats_no_content() -> None:
    async def check(owner: Owner) -> None:
        def crash(call: Call) -> None:
            raise ValueError("SECRET PROMPT")

        def refuse(call: Call) -> None:
            raise Rejected("no", model="tiny")

        def run_out(call: Call) -> None:
            raise MemoryError

        with pytest.raises(ServiceCrashed, match="ValueError") as caught:
            await owner.run(crash)
        assert "SECRET" not in str(caught.value) + repr(caught.value)
        assert caught.value.cause == "ValueError" and isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(Rejected):
            await owner.run(refuse)
        with pytest.raises(Overloaded, match="memory"):
            await owner.run(run_out)
        assert await owner.run(lambda call: "well") == "well"

    with_owner(check)


def test_closing_answers_everyone_and_refuses_the_rest() -> None:
    async def whole() -> None:
        owner = Owner("tiny", max_queue=4)
        owner.start()
        stopped = threading.Event()
        began = threading.Event()

        def endless(call: Call) -> None:
            began.set()
            while not call.gone:
                stopped.wait(0.001)
            raise Overloaded("given up", model="tiny")

        running = asyncio.create_task(owner.run(endless))
        await until(began)
        waiting = asyncio.create_task(owner.run(lambda call: "late"))
        await asyncio.sleep(0)
        await asyncio.to_thread(owner.close)
        with pytest.raises(Overloaded):
            await running
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await owner.run(lambda call: "later")
        await asyncio.to_thread(owner.close)

    asyncio.run(whole())


def test_abandoning_answers_everyone_though_the_work_goes_on() -> None:
    async def whole() -> None:
        owner = Owner("tiny", max_queue=4)
        owner.start()
        gate = Gate()
        running = asyncio.create_task(owner.run(gate))
        await until(gate.began)
        waiting = asyncio.create_task(owner.run(lambda call: "late"))
        await asyncio.sleep(0)
        owner.abandon()
        with pytest.raises(Closed):
            await running
        gate.open.set()
        with pytest.raises(Closed):
            await waiting
        await asyncio.to_thread(owner.close)

    asyncio.run(whole())


def test_closing_a_model_does_not_wait_for_its_load(llama: Any, service: Any) -> None:
    gate = Gate()

    class Slow(FileStore):
        """Opens a second time, to load, when the gate is open."""

        opened = 0

        def open(self, uri: str, keys: Keys) -> Weights:
            self.opened += 1
            if self.opened > 1:
                gate(None)  # type: ignore[arg-type]
            return super().open(uri, keys)

    lent = resources(stores={"file": Slow()})

    async def whole() -> None:
        model = service(llama)
        await model.describe(lent)
        starting = asyncio.create_task(model.start(lent))
        await until(gate.began)
        await model.aclose()
        assert not gate.open.is_set()
        with pytest.raises(Closed):
            await starting
        gate.open.set()
        for thread in threading.enumerate():
            if thread.name == "gateway-local tiny":
                await asyncio.to_thread(thread.join)
        with pytest.raises(Closed):
            await model.run(Generate(prompt="the cat"))

    asyncio.run(whole())


def test_done_is_the_last_thing_sent() -> None:
    async def check(owner: Owner) -> None:
        def two(call: Call) -> int:
            call.send("a")
            call.send("b")
            return 2

        assert [item async for item in owner.stream(two)] == ["a", "b", Done(2)]

    with_owner(check)


def test_a_cancelled_request_stops_within_a_token_and_the_next_one_runs(llama: Any, started: Any) -> None:
    async def whole() -> None:
        async with started(llama) as model:
            request = Generate(prompt="the cat", max_tokens=200, temperature=1.0, seed=1)
            async with aclosing(model.stream(request)) as items:
                async for _ in items:
                    break
            call = asyncio.create_task(model.run(request))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            reply = await model.run(Generate(prompt="the cat", max_tokens=3, temperature=0.0))
            assert 0 < reply.usage.output_tokens <= 3

    asyncio.run(whole())


def test_a_model_whose_queue_is_full_says_so(llama: Any, started: Any) -> None:
    async def whole() -> None:
        async with started(llama, max_queue=1, max_batch=1) as model:
            gate = Gate()
            held = asyncio.create_task(model._copies.there[0].owner.run(gate))
            await until(gate.began)
            waiting = asyncio.create_task(model.run(Generate(prompt="the cat", max_tokens=1)))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await model.run(Generate(prompt="the cat", max_tokens=1))
            gate.open.set()
            await held
            assert (await waiting).usage.output_tokens == 1

    asyncio.run(whole())
