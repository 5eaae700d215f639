"""Stream: a streamed answer as its reader sees it, over one attempt after another until a first delta has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Generic, Self, TypeVar

from gateway.asking import Pump, Race, events, hedge_after_s
from gateway.call import Call
from gateway.errors import BadReply
from gateway.parts import Delta, Restart
from gateway.request import Response

R = TypeVar("R", bound=Response)


class Stream(Generic[R]):
    """A streamed answer: an async iterator of deltas, and after its end `response`. Always open it with ``async with``.

    With ``Meta(restart=True)`` a `Restart` may come: what was delivered before it is void, and the answer begins again.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._response: R | None = None
        self._leaving = False
        source = self._deltas()
        deadline_s = call.request.meta.deadline_s
        self._source = source if deadline_s is None else self._timed(source, deadline_s)

    def __aiter__(self) -> AsyncIterator[Delta | Restart]:
        return self._source

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop, and free everything that the answer held: the service's slot, socket or thread."""
        if getattr(self._source, "ag_running", False):
            raise RuntimeError("another task is reading this stream: cancel that task, and it stops")
        self._leaving = True
        await self._source.aclose()

    @property
    def response(self) -> R:
        """The whole response, once the stream has ended. RuntimeError before that."""
        if self._response is None:
            raise RuntimeError("the stream has not ended: iterate to its end first, or await result()")
        return self._response

    async def result(self) -> R:
        """Read the stream to its end and give the whole response."""
        async for _ in self._source:
            pass
        return self.response

    async def _deltas(self) -> AsyncGenerator[Delta | Restart, None]:
        call, void = self._call, False
        await call.open()
        while self._response is None:
            race: Race[Pump] = Race(call, await call.next())
            try:
                async with aclosing(self._of_hop(race)) as deltas:
                    async for delta in deltas:
                        if void:  # told only now: this one does begin
                            void = False
                            yield Restart(race.hop.card.name)
                        yield delta
            except BaseException as error:
                # What a service raises while it is being closed is no news to a reader who is leaving.
                await call.fail(race.hop, GeneratorExit() if self._leaving and isinstance(error, Exception) else error)
                void = void or bool(race.hop.delivered)
        if void:  # an answer without a delta
            yield Restart(self._response.model)

    async def _of_hop(self, race: Race[Pump]) -> AsyncGenerator[Delta, None]:
        call, response, monotonic = self._call, None, self._call.clock.monotonic
        after_s = hedge_after_s(call, race.hop, streamed=True)
        source = events(call, race.hop) if after_s is None else (await race.begin(Pump.begun, after_s)).events()
        hop = race.hop
        delivered = hop.delivered
        async with aclosing(source):
            async for event in source:
                if response is not None:
                    raise BadReply(f"model {hop.card.name!r} sent more after its final response", model=hop.card.name)
                if isinstance(event, Delta):
                    if hop.first_token_s is None:
                        hop.first_token_s = monotonic() - hop.began
                    if not hop.rewrites:
                        delivered.append(event)
                        paused = monotonic()
                        yield event
                        hop.idle_s += monotonic() - paused
                        continue
                    for out in hop.feed(event):
                        delivered.append(out)
                        paused = monotonic()
                        yield out
                        hop.idle_s += monotonic() - paused
                elif isinstance(event, Restart):
                    if delivered:
                        raise BadReply(f"model {hop.card.name!r} began again in mid-stream", model=hop.card.name)
                    call.rewrite(hop)  # what the rewrites hold back of the void beginning goes with them
                elif isinstance(event, Response):
                    response = event
                else:
                    kind = type(event).__name__
                    raise BadReply(f"model {hop.card.name!r} streamed a {kind}", model=hop.card.name)
        if response is None:
            raise BadReply(f"the stream of {hop.card.name!r} ended without a response", model=hop.card.name)
        for out in hop.flush():
            delivered.append(out)
            yield out
        self._response = await call.succeed(hop, call.accept(hop, response))  # type: ignore[assignment]

    async def _timed(
        self, source: AsyncGenerator[Delta | Restart, None], deadline_s: float
    ) -> AsyncGenerator[Delta | Restart, None]:
        # The limit is set anew around each step: no cancel scope may span a yield (PEP 789).
        end = asyncio.get_running_loop().time() + deadline_s
        async with aclosing(source):
            while True:
                scope = asyncio.timeout_at(end)
                try:
                    async with scope:
                        delta = await anext(source)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if scope.expired():
                        raise self._call.late() from None
                    raise
                yield delta
