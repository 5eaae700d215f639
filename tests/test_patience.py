"""One timer for many waits: it ends the one that is due and no other."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway import Patience


def with_patience(test: Callable[[Patience], Awaitable[None]]) -> None:
    async def whole() -> None:
        patience = Patience()
        try:
            await test(patience)
        finally:
            patience.close()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    asyncio.run(whole())


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_wait_ends_at_its_deadline_and_the_next_one_begins_afresh() -> None:
    async def test(patience: Patience) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError), patience.until(now_s() + 0.01):
                await forever()
            with patience.until(now_s() + 60):
                await asyncio.sleep(0)

    with_patience(test)


def test_a_deadline_that_moves_on_or_back_holds() -> None:
    async def test(patience: Patience) -> None:
        began = now_s()
        with patience.until(began + 0.01):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), patience.until(began + 0.05):  # the timer fires once on the way
            await forever()
        assert now_s() >= began + 0.05
        with patience.until(now_s() + 60):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), patience.until(now_s() + 0.01):
            await forever()

    with_patience(test)


def test_nothing_is_ended_while_nobody_waits() -> None:
    async def test(patience: Patience) -> None:
        fired = asyncio.Event()
        with patience.until(now_s() + 0.01):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(now_s() + 0.02, fired.set)
        await fired.wait()
        with patience.until(now_s() + 60):
            await asyncio.sleep(0)

    with_patience(test)


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def test(patience: Patience) -> None:
        async def wait(deadline_s: float) -> None:
            with patience.until(deadline_s):
                await forever()

        for deadline_s in (now_s() + 60, now_s()):
            task = asyncio.create_task(wait(deadline_s))
            await asyncio.sleep(0)
            if deadline_s <= now_s():
                # Both at once: the timer that is due is called in the same turn of the loop.
                asyncio.get_running_loop().call_soon(task.cancel)
            else:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with_patience(test)


def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    async def test(patience: Patience) -> None:
        with pytest.raises(ValueError, match="torn"), patience.until(now_s() + 60):
            raise ValueError("torn")

    with_patience(test)
