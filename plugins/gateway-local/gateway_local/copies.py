"""Copies: the loaded copies of one model: loaded when needed, once for all who ask, and let go of when they are idle."""

from __future__ import annotations

import asyncio
import copy
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gateway import Closed, GatewayError
from gateway_local.keeper import Keeper
from gateway_local.options import ModelOptions
from gateway_local.owner import Call, Owner

if TYPE_CHECKING:
    from gateway_local.answer import Answers
    from gateway_local.encodes import Encodes
    from gateway_local.rewrite import Rewrites

    Load = Callable[[Owner, int, Call], Answers | Encodes | Rewrites]
    """Loads a copy on its owner's thread; the number is the copy's, from 1."""

GRACE_S = 1.0
"""Whoever has had a model loaded has this long to ask it."""


@dataclass(eq=False, slots=True)
class Copy:
    """One loaded copy, the owner of its thread, and how many requests are with it."""

    owner: Owner
    answers: Answers | Encodes | Rewrites
    calls: int = 0


class Copies:
    """All copies of one model: they come and go together. Used on the event loop alone.

    `there` is empty while they are not loaded. `weight_bytes`: what the weights of all take; to be set before they are loaded.
    """

    def __init__(self, options: ModelOptions, keeper: Keeper) -> None:
        self.name, self.pinned = options.name, options.pinned
        self.weight_bytes = 0
        self._options, self._keeper = options, keeper
        self.there: list[Copy] = []
        self._load: Load | None = None
        self._unloaded: Callable[[], object] = bool
        self._loading: asyncio.Task[None] | None = None
        self._freeing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = 0
        self._closed = False

    @property
    def bytes(self) -> int:
        """What they take, or will take once they are loaded: weights, and the keys and values of texts."""
        return self.weight_bytes + sum(one.answers.cache_bytes for one in self.there)

    @property
    def busy(self) -> bool:
        """Whether they are being loaded, or wanted by a request."""
        return self._loading is not None or self._wanted > 0

    @property
    def queue(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        running = sum(min(one.calls, 1 + one.owner.beside) for one in self.there)
        return running, sum(one.calls for one in self.there) - running

    async def start(self, load: Load, unloaded: Callable[[], object]) -> None:
        """Load them. They will be loaded so again when they are needed after they have been let go of; `unloaded` is told."""
        self._unloaded = unloaded
        await self._loaded(load)
        self._load = load

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Copy]:
        """The copy with the fewest requests, loaded first where need be; it is there until the block ends."""
        self._wanted += 1  # from here on: what has been loaded for this must not go before it is used
        self._stop_timer()
        try:
            await self._loaded(self._load)
            chosen = min(self.there, key=lambda one: one.calls)
            chosen.calls += 1
            try:
                yield chosen
            finally:
                chosen.calls -= 1
        finally:
            self._wanted -= 1
            self._rest()

    def unload(self) -> None:
        """Let go of them; they are to be idle. Their memory is free once `Keeper.leave`'s future is done."""
        self._let_go()
        self._unloaded()

    async def aclose(self) -> None:
        """Stop what runs and let go of everything. A load that is under way is not waited for."""
        self._closed = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        self._let_go()
        if self._freeing is not None:
            await asyncio.wait({self._freeing})

    async def _loaded(self, load: Load | None) -> None:
        if self.there:
            return
        if self._closed or load is None:
            raise Closed(f"model {self.name!r} is not running: it has not been started, or has been closed")
        if self._loading is None:
            # A task of its own: a caller that gives up must not stop the load that others wait for.
            loop = asyncio.get_running_loop()
            self._loading = loop.create_task(self._bring(load), name=f"load {self.name}", context=Context())
            self._loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        loading = self._loading
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            if self._closed and loading.cancelled():
                raise Closed(f"model {self.name!r} has been closed") from None
            raise
        except GatewayError as error:  # errors gather facts on their way: each caller gets its own
            raise copy.copy(error) from error.__cause__

    async def _bring(self, load: Load) -> None:
        owners, there = list[Owner](), list[Copy]()
        try:
            await self._keeper.admit(self)
            for number in range(1, self._options.replicas + 1):
                owners.append(Owner(self.name, max_queue=self._options.max_queue))
                owners[-1].start()
                there.append(Copy(owners[-1], await owners[-1].run(partial(load, owners[-1], number))))
        except BaseException:
            for owner in owners:
                owner.abandon()  # importing torch takes seconds and cannot be interrupted; the thread is a daemon
            there.clear()
            self._keeper.leave(self)
            raise
        finally:
            self._loading = None
        self.there = there
        self._rest(least_s=GRACE_S)

    def _rest(self, *, least_s: float = 0.0) -> None:
        """A request has ended, or the load: tell the keeper, and begin to count the idle time."""
        if not self.there:
            return
        self._keeper.used(self)
        if self._options.idle_s is not None and not self.busy:
            self._timer = asyncio.get_running_loop().call_later(max(self._options.idle_s, least_s), self.unload)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self) -> None:
        self._stop_timer()
        if self.there:
            there, self.there = self.there, []
            self._freeing = asyncio.get_running_loop().run_in_executor(None, free, there)
            self._keeper.leave(self, self._freeing)


def free(copies: list[Copy]) -> None:
    """End the threads of copies, and give their memory back. Blocks; the list is emptied: the caller must keep none of it."""
    roots = [weakref.ref(one.answers) for one in copies]
    while copies:
        copies.pop().owner.close()
    if any(root() is not None for root in roots):  # rare, and a third of a second in which no other thread runs
        gc.collect()
    import torch

    torch.cuda.empty_cache()  # nothing, where there is no GPU
