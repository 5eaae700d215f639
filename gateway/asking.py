"""Asking: one model's answer within its limits of time; and, where hedging is on, of two models the one that begins first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, Literal, TypeVar

from gateway.call import Call
from gateway.errors import AttemptTimeout, GatewayError, ServiceCrashed
from gateway.hop import Hop
from gateway.parts import Delta, Restart
from gateway.patience import Patience
from gateway.request import Response

T = TypeVar("T")
Events = AsyncGenerator[Delta | Restart | Response, None]

LET_GO_S = 0.1


async def reply(call: Call, hop: Hop) -> Any:
    """The model's whole reply, or a transform's own answer. AttemptTimeout when it is silent for too long."""
    if hop.answer is not None:
        return hop.answer
    limit_s = _limit_s(call, hop, "reply_s")
    if limit_s is None:
        return await hop.entry.service.run(hop.request)
    scope = asyncio.timeout(limit_s)
    try:
        async with scope:
            return await hop.entry.service.run(hop.request)
    except TimeoutError:
        if scope.expired():
            raise _silent(hop, limit_s, "without a reply") from None
        raise


def events(call: Call, hop: Hop) -> Events:
    """What the model streams, or a transform's own answer in the same form. AttemptTimeout as for `reply`."""
    if hop.answer is not None:
        return _whole(hop.answer)
    stream: Any = hop.entry.service.stream(hop.request)
    first_s = _limit_s(call, hop, "first_token_s")
    between_s = (hop.entry.service.limits or call.house.attempt).between_s
    if first_s is None and between_s is None:
        return stream if hasattr(stream, "aclose") else _closable(stream)
    return _timed(stream, hop, first_s, between_s)


def hedge_after_s(call: Call, hop: Hop, *, streamed: bool = False) -> float | None:
    """How long to wait for the hop before a hedge is asked beside it; None: no hedging."""
    config, decision, live = call.house.hedge, call.decision, hop.live
    if not config.share or hop.answer is not None or decision is None or not decision.basis.others():
        return None
    if streamed:
        return live.first_s(config.percentile)
    return live.latency_s(live.expected_tokens(call.ask.output_tokens, high=True), config.percentile)


class Race(Generic[T]):
    """The first of two hops to begin. `hop` is the one that the caller has to settle, also when `begin` raises."""

    def __init__(self, call: Call, hop: Hop) -> None:
        self.hop = hop
        self._call = call

    async def begin(self, start: Callable[[Call, Hop], Awaitable[T]], after_s: float) -> T:
        """Start the hop and, when it has not begun after `after_s`, a hedge beside it. The loser is cancelled and settled."""
        running: dict[asyncio.Future[T], Hop] = {asyncio.ensure_future(_held(start(self._call, self.hop), self.hop)): self.hop}
        won: asyncio.Future[T] | None = None
        try:
            await asyncio.wait(running, timeout=after_s)
            if not any(task.done() for task in running):
                second = await self._call.beside(self.hop)
                if second is not None:
                    running[asyncio.ensure_future(_held(start(self._call, second), second))] = second
            while True:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task in done]:
                    self.hop, error = running.pop(task), _error(task)
                    if error is None:
                        won = task
                        return task.result()
                    if not running:
                        raise error
                    try:
                        await self._call.fail(self.hop, error)
                    except GatewayError:
                        if not self.hop.hedge:
                            raise  # what no other model can cure; a hedge's error is none of that: the first one goes on
                    self.hop = next(iter(running.values()))
        finally:
            try:
                await self._let_go(running)
            except BaseException:
                if won is not None:  # nobody gets it
                    _dropped(won)
                raise

    async def _let_go(self, running: dict[asyncio.Future[T], Hop]) -> None:
        for task in running:
            task.cancel()
            task.add_done_callback(_dropped)  # no news any more
        try:
            if running:  # one that does not heed its cancellation is not waited for
                await asyncio.wait(running, timeout=LET_GO_S)
        finally:
            for hop in running.values():
                if hop is not self.hop:
                    await self._call.lost(hop, self.hop.card.name)


class Pump:
    """A stream that a task of its own reads ahead by one, so that whoever waits for its beginning may give up waiting."""

    def __init__(self, source: Events) -> None:
        self._queue: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue(1)
        self._first: tuple[Any, BaseException | None] | None = None
        self._task = asyncio.create_task(self._read(source))

    @classmethod
    async def begun(cls, call: Call, hop: Hop) -> Pump:
        """The pump of a hop whose stream has begun. Raises what the stream raises before that."""
        pump = cls(events(call, hop))
        try:
            pump._first = await pump._queue.get()
            if pump._first[1] is not None:
                raise pump._first[1]
        except BaseException:
            await pump.aclose()
            raise
        return pump

    async def events(self) -> Events:
        """The stream from its beginning. Closing it stops the model."""
        try:
            event: Any
            event, error = self._first or (None, StopAsyncIteration())
            while error is None:
                yield event
                event, error = await self._queue.get()
            if not isinstance(error, StopAsyncIteration):
                raise error
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop reading, and close the stream."""
        self.stop()
        await asyncio.wait([self._task])

    def stop(self) -> None:
        """Stop reading; the stream is closed in the reading task."""
        self._task.cancel()

    async def _read(self, source: Events) -> None:
        error: BaseException = StopAsyncIteration()
        try:
            async with aclosing(source):
                async for event in source:
                    await self._queue.put((event, None))
        except (Exception, asyncio.CancelledError, SystemExit) as raised:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # by aclose: nobody reads on
            error = raised
        await self._queue.put((None, error))


async def _timed(stream: AsyncIterator[Any], hop: Hop, first_s: float | None, between_s: float | None) -> Events:
    # Each wait is timed by itself: nothing runs out while the reader holds a delta.
    patience, monotonic = Patience(), asyncio.get_running_loop().time
    limit_s, waiting = first_s, "before its first token"
    try:
        while True:
            try:
                if limit_s is None:
                    event = await anext(stream)
                else:
                    with patience.until(monotonic() + limit_s):
                        event = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if patience.ended(error):
                    raise _silent(hop, limit_s or 0.0, waiting) from None
                raise
            yield event
            limit_s, waiting = between_s, "between two deltas"
    finally:
        patience.close()
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()


def _limit_s(call: Call, hop: Hop, step: Literal["first_token_s", "reply_s"]) -> float | None:
    """How long the hop's first token or whole reply is waited for.

    With a deadline, a silent model gets no more than half of what is left while another could still be asked: unless it is
    usually slower than that.
    """
    limits = hop.entry.service.limits or call.house.attempt
    limit: float | None = getattr(limits, step)
    if call.request.meta.deadline_s is None:
        return limit
    left = call.left_s(call.clock.monotonic())
    if left is None or call.decision is None or not call.decision.basis.others():
        return limit
    tokens = 0.0 if step == "first_token_s" else hop.live.expected_tokens(call.ask.output_tokens, high=True)
    patience = max(left / 2, 1.5 * hop.live.latency_s(tokens, 0.95))
    return patience if patience < left and (limit is None or patience < limit) else limit


async def _held(work: Awaitable[T], hop: Hop) -> T:
    """A service's SystemExit is its own failure: out of a task it would end the event loop."""
    try:
        return await work
    except SystemExit as error:
        raise ServiceCrashed(f"model {hop.card.name!r} raised SystemExit", model=hop.card.name, cause="SystemExit") from error


def _silent(hop: Hop, limit_s: float, waiting: str) -> AttemptTimeout:
    name = hop.card.name
    return AttemptTimeout(f"model {name!r}: silent for {limit_s:.3g} s {waiting}; no more is allowed here", model=name)


def _error(task: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _dropped(done: asyncio.Future[Any]) -> None:
    """What has begun though nobody wants it any more is stopped."""
    if not done.cancelled() and done.exception() is None and isinstance(pump := done.result(), Pump):
        pump.stop()


async def _whole(response: Response) -> Events:
    for delta in response.deltas():
        yield delta
    yield response


async def _closable(events: AsyncIterator[Any]) -> Events:
    async for event in events:
        yield event
