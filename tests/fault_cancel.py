"""Callers who give up, at each moment of a request: how long until the service's slot and the socket are free again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fault_play import ASK, CLOCK, Provider, Way, at_work, whole
from fault_table import HEDGED, PATIENT, SLOW
from gateway_remote.service import RemoteModel

from gateway import AsyncGateway, Resources
from gateway.testing import Fault, LoopbackServer


def _asked(server: LoopbackServer) -> bool:
    return bool(server.requests)


def _answered(server: LoopbackServer) -> bool:
    return bool(server.requests) and not server.connections


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a caller gives up: once `reached` holds of each server, or after the first words of a stream.

    `again`: the next request is answered at once.
    """

    name: str
    providers: tuple[Provider, ...]
    reached: Callable[[LoopbackServer], bool] = _asked
    ways: tuple[Way, ...] = ("run", "stream")
    words: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    again: bool = True


LATER = Provider(steps=(Fault(delay_s=15.0),), facts=PATIENT)
TALKS = Provider(steps=(Fault(stall_after=5),), facts=PATIENT)
NOT_NOW = Provider(steps=(Fault(status=429, retry_after=5, hang_up=True),))

MOMENTS = (
    Moment(name="before the headers", providers=(LATER,)),
    Moment(name="after the first words", providers=(TALKS,), ways=("stream",), words=True),
    Moment(name="while waiting to ask again", providers=(NOT_NOW,), reached=_answered, again=False),
    Moment(name="while a fallback is asked", providers=(Provider(steps=(Fault(status=503, hang_up=True),)), LATER)),
    Moment(name="while hedging", providers=(SLOW, SLOW), config=HEDGED["config"], again=False),
)


async def give_up(moment: Moment, way: Way) -> float:
    """Cancel a request at that moment. Seconds until its caller, every slot and every socket are free; or TimeoutError."""
    warm = HEDGED["warm"] if "hedge" in moment.config else ()
    async with at_work(moment.providers, moment.config, warm=warm) as (gw, hosts):
        talking = asyncio.Event()

        async def read() -> None:
            async with gw.stream(ASK) as stream:
                async for delta in stream:
                    if delta.text:
                        talking.set()

        async def run() -> None:
            await gw.run(ASK)

        task = asyncio.create_task(run() if way == "run" else read())
        if moment.words:
            await talking.wait()
        else:
            for host in hosts.values():
                await host.server.wait_for(moment.reached)
        seconds = await _cancelled(task, gw, *[host.server for host in hosts.values()])
        if moment.again:
            reply = await gw.run(ASK)
            assert reply.text == whole(reply.model), "the next request is not answered"
        return seconds


async def leave(after_words: int) -> float:
    """Leave a stream by its `async with`, after so many deltas. Seconds as for `give_up`."""
    async with at_work((TALKS,), {}) as (gw, hosts):
        server = hosts["one"].server
        async with gw.stream(ASK) as stream:
            async for _ in stream:
                after_words -= 1
                if not after_words:
                    break
            began = CLOCK.monotonic()
        await _free(gw, server)
        return CLOCK.monotonic() - began


class Loading(RemoteModel):
    """A remote model whose start takes for ever."""

    async def start(self, resources: Resources) -> None:
        self.loading = asyncio.Event()
        self.loading.set()
        await asyncio.Event().wait()


async def give_up_loading(way: Way) -> float:
    """Cancel a request whose model is being loaded. Seconds as for `give_up`."""
    with LoopbackServer() as server:
        model = Loading({"name": "one", "base_url": server.url})
        async with AsyncGateway([model]) as gw:
            await gw.models()

            async def ask() -> None:
                if way == "run":
                    await gw.run(ASK)
                else:
                    async with gw.stream(ASK) as stream:
                        await stream.result()

            task = asyncio.create_task(ask())
            while (await gw.models())[0].state != "starting":
                await asyncio.sleep(0)
            return await _cancelled(task, gw, server)


async def _cancelled(task: asyncio.Task[None], gw: AsyncGateway, *servers: LoopbackServer) -> float:
    began = CLOCK.monotonic()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), f"the caller does not see its cancellation: {task.exception()!r}"
    await _free(gw, *servers)
    return CLOCK.monotonic() - began


async def _free(gw: AsyncGateway, *servers: LoopbackServer) -> None:
    busy = {model.name: model.in_flight for model in await gw.models() if model.in_flight}
    assert not busy, f"slots are still taken: {busy}"
    for server in servers:
        await server.wait_for(lambda one: one.connections == 0 and one.in_flight == 0)
