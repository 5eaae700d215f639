"""A batch whose results are told one by one: in order, at once, never far ahead, and over when its listener has gone."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import AsyncGateway, Chat, ChatResponse, Gateway, InvalidRequest, ModelCard, ModelService, Request, Response
from gateway.batch import AHEAD, in_thread
from gateway.testing import Echo

sys.path.insert(0, str(Path(__file__).parent))
from batch_case import Counting, Gate, Picky, asks, texts


class Doors(ModelService):
    """Answers each number when its door is opened."""

    card = ModelCard(name="doors", tasks=frozenset({Chat}))

    def __init__(self, count: int) -> None:
        self.doors = [asyncio.Event() for _ in range(count)]
        self.asked = self.done = 0

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Chat)
        number = int(request.messages[0].text.split()[-1])
        self.asked += 1
        await self.doors[number].wait()
        self.done += 1
        return ChatResponse.of(f"{number}!")


async def settled() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_result_is_told_in_its_turn_and_none_is_kept(asynchronous: bool) -> None:
    told: list[tuple[int, str]] = []

    def each(index: int, result: Any) -> None:
        told.append((index, *texts([result])))

    async def aeach(index: int, result: Any) -> None:
        await asyncio.sleep(0)
        each(index, result)

    async def main() -> None:
        service = Doors(4)
        async with AsyncGateway([service]) as gw:
            requests = [*asks(2), InvalidRequest("made elsewhere"), *asks(4)[2:]]
            batch = asyncio.create_task(gw.map(requests, each=aeach if asynchronous else each))
            for opened, wanted in ((1, 0), (0, 3), (3, 3), (2, 5)):
                service.doors[opened].set()
                await settled()
                assert len(told) == wanted
            assert await batch == []

    asyncio.run(main())
    assert told == [(0, "0!"), (1, "1!"), (2, "InvalidRequest"), (3, "2!"), (4, "3!")]


def test_one_that_hangs_lets_the_others_get_ahead_but_not_without_bound() -> None:
    async def main() -> None:
        service = Doors(200)
        async with AsyncGateway([service]) as gw:
            told: list[int] = []
            batch = asyncio.create_task(gw.map(asks(200), max_concurrency=4, each=lambda index, _: told.append(index)))
            for door in service.doors[1:]:
                door.set()
            while service.asked < 4 * AHEAD:
                await asyncio.sleep(0)
            await settled()
            assert (told, service.asked) == ([], 4 * AHEAD)
            service.doors[0].set()
            await batch
            assert told == list(range(200))

    asyncio.run(main())


def test_a_slow_listener_holds_the_batch_up() -> None:
    read = 0

    def made() -> Iterator[Chat]:
        nonlocal read
        for request in asks(100):
            read += 1
            yield request

    async def main() -> None:
        room = asyncio.Semaphore(0)
        told: list[int] = []

        async def each(index: int, result: Any) -> None:
            await room.acquire()
            told.append(index)

        async with AsyncGateway([Echo()]) as gw:
            batch = asyncio.create_task(gw.map(made(), max_concurrency=3, each=each))
            for count in range(10):
                await settled()
                assert len(told) == count and read <= count + 3
                room.release()
            for _ in range(100):
                room.release()
            await batch
        assert told == list(range(100))

    asyncio.run(main())


@pytest.mark.parametrize("defect", [BrokenPipeError(), InvalidRequest("mine"), KeyError("x")])
def test_a_listener_that_raises_ends_the_batch(defect: Exception, tmp_path: Path) -> None:
    told: list[int] = []

    def each(index: int, result: Any) -> None:
        if index == 5:
            raise defect
        told.append(index)

    async def main() -> None:
        gate = Gate()
        async with AsyncGateway([gate]) as gw:
            with pytest.raises(type(defect)) as raised:
                await gw.map(asks(500), max_concurrency=4, journal=tmp_path / "j", each=each)
            assert raised.value is defect and gate.now == 0 and len(gate.asked) < 5 + 4 * AHEAD
        echo = Counting()
        async with AsyncGateway([echo]) as gw:  # in which the journal has some of the answers
            with pytest.raises(type(defect)):
                await gw.map(asks(500), max_concurrency=4, journal=tmp_path / "j", each=each)

    asyncio.run(main())
    echo = Counting()
    with Gateway([echo]) as gw, pytest.raises(type(defect)) as raised:
        gw.map(asks(500), max_concurrency=4, each=each)
    assert raised.value is defect and len(echo.asked) < 5 + 4 * AHEAD
    assert told == [0, 1, 2, 3, 4] * 3


def test_a_listener_that_is_cancelled_by_others_is_no_silent_loss() -> None:
    async def each(index: int, result: Any) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with AsyncGateway([Picky()]) as gw:
            with pytest.raises(RuntimeError, match="not by its batch"):
                await gw.map(asks(50), each=each)

    asyncio.run(main())


def test_results_that_were_told_are_let_go() -> None:
    alive: weakref.WeakSet[ChatResponse] = weakref.WeakSet()
    most = 0

    def each(index: int, result: Any) -> None:
        nonlocal most
        alive.add(result)
        if index % 100 == 0:
            gc.collect()
            most = max(most, len(alive))

    gc.freeze()  # what was there before is none of it, and not gone through thirty times
    try:
        with Gateway([Echo()]) as gw:
            assert gw.map((Chat.ask(str(n)) for n in range(3000)), max_concurrency=4, each=each) == []
    finally:
        gc.unfreeze()
    assert 0 < most < 4 * AHEAD


def test_without_async_a_result_is_told_while_the_next_request_is_waited_for() -> None:
    told = [threading.Event() for _ in range(3)]
    threads = set()

    def made() -> Iterator[Chat]:
        for n in range(3):
            yield Chat.ask(str(n))
            assert told[n].wait(60)

    def each(index: int, result: Any) -> None:
        threads.add(threading.get_ident())
        assert gw.chat("from inside").text == "from inside"
        told[index].set()

    with Gateway([Echo()]) as gw:
        assert gw.map(made(), each=each) == []
    assert threading.get_ident() not in threads


def test_whoever_cancels_waits_until_a_listener_in_a_thread_has_returned() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def each(index: int, result: Any) -> None:
        begun.set()
        assert may_end.wait(60)
        ended.set()

    async def main() -> None:
        async with AsyncGateway([Echo()]) as gw:
            batch = asyncio.create_task(gw.map(asks(9), each=in_thread(each)))
            await asyncio.to_thread(begun.wait, 60)
            batch.cancel()
            await settled()
            assert not batch.done()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await batch
            assert ended.is_set()

    asyncio.run(main())
