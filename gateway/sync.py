"""Gateway: AsyncGateway's verbs for code that is not async, on a private event loop in a thread of its own.

It works in a notebook, from several threads at once, and after a fork: the child gets a loop of its own, and services that were
given as instances are started again there. Context variables pass through. Ctrl-C cancels what is under way, waits until it has
let go, and is raised again.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from gateway.batch import Handed, in_thread, next_of
from gateway.card import ModelCard, Need
from gateway.decision import Decision
from gateway.errors import Closed, GatewayError
from gateway.gateway import AsyncGateway, ModelStatus, Source
from gateway.loop import Job, Loop
from gateway.parts import Delta, Restart
from gateway.request import Meta, Request, Response
from gateway.service import ModelService, Progress, no_progress
from gateway.tasks import Chat, ChatResponse

R = TypeVar("R", bound=Response)

BUFFERED_DELTAS = 64
"""How far a stream may run ahead of a slow reader."""


class Gateway:
    """Models, local and hosted, behind one interface; see AsyncGateway for what each verb does. Close it with ``with``."""

    def __init__(self, models: Iterable[ModelService] = (), **options: Any) -> None:
        given = tuple(models)
        self._open(lambda: AsyncGateway(given, **options))

    @classmethod
    def discover(cls, *, progress: Progress = no_progress) -> Self:
        """A gateway of everything that is installed, without a configuration file."""
        return cls.from_config(None, progress=progress)

    @classmethod
    def from_config(cls, source: Source, *, progress: Progress = no_progress) -> Self:
        """A gateway as gateway.toml says; `source` is its path or a mapping of the same shape."""
        gateway = cls.__new__(cls)
        gateway._open(lambda: AsyncGateway.from_config(source, progress=progress))
        return gateway

    def _open(self, make: Callable[[], AsyncGateway]) -> None:
        self._make = make
        self._closed = False
        self._forking = threading.Lock()
        self._renew()

    def _renew(self) -> None:
        self._gateway = self._make()
        self._loop = Loop()
        # Closes an abandoned gateway when it is collected, and at exit; a forked child has nothing to close.
        self._finalizer = weakref.finalize(self, _shut, self._gateway, self._loop)

    def run(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> R:
        """The answer of the best model that may and can."""
        gateway, loop = self._current()
        return loop.call(gateway.run(request, need, meta=meta))

    def stream(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> SyncStream[R]:
        """The answer as it comes: ``with gw.stream(...) as s: for delta in s: ...``; then `s.response`."""
        gateway, loop = self._current()
        return SyncStream(self, gateway, loop, request, need, meta)

    def chat(self, text: str, need: Need | None = None, *, meta: Meta | None = None, **options: Any) -> ChatResponse:
        """Sugar for ``run(Chat.ask(text, **options), need)``."""
        return self.run(Chat.ask(text, **options), need, meta=meta)

    def map(
        self,
        requests: Iterable[Request[R] | GatewayError],
        need: Need | None = None,
        *,
        meta: Meta | None = None,
        max_concurrency: int = 32,
        max_rps: float | None = None,
        journal: str | Path | None = None,
        progress: Progress | bool = True,
        each: Callable[[int, R | GatewayError], object] | None = None,
    ) -> list[R | GatewayError]:
        """See `AsyncGateway.map`. The requests are read in the thread that calls; `progress` and `each` are called in others.

        `each` may block: it is called once at a time, and never on the event loop.
        """
        gateway, loop = self._current()
        handed = Handed(requests)
        batch = gateway.map(
            handed,
            need,
            meta=meta,
            max_concurrency=max_concurrency,
            max_rps=max_rps,
            journal=journal,
            progress=progress,
            each=in_thread(each) if callable(each) else each,
        )
        return loop.call(batch, meanwhile=handed)

    def explain(self, request: Request[Any], need: Need | None = None, *, meta: Meta | None = None) -> Decision:
        """How this request would be routed now, as a table that prints. Asks no model."""
        gateway, loop = self._current()
        return loop.call(gateway.explain(request, need, meta=meta))

    def feedback(self, reply: Response, score: float) -> None:
        """See `AsyncGateway.feedback`."""
        gateway, loop = self._current()
        loop.call(gateway.feedback(reply, score))

    def models(self) -> list[ModelStatus]:
        """Every model by name, described."""
        gateway, loop = self._current()
        return loop.call(gateway.models())

    def check(self) -> dict[str, str | GatewayError]:
        """By model: a line about it, or the error that says what is wrong."""
        gateway, loop = self._current()
        return loop.call(gateway.check())

    def offered(self, name: str) -> Sequence[ModelCard]:
        """What the endpoint of a model, or of a provider, offers."""
        gateway, loop = self._current()
        return loop.call(gateway.offered(name))

    def close(self) -> None:
        """Close every service and end the thread; calls under way end with Closed. Closing twice is harmless."""
        self._closed = True
        if self._loop.forked:
            self._finalizer.detach()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _current(self) -> tuple[AsyncGateway, Loop]:
        if self._closed:
            raise Closed("this gateway has been closed")
        if self._loop.forked:
            with self._forking:
                if self._loop.forked:
                    self._finalizer.detach()
                    self._renew()
        return self._gateway, self._loop


class SyncStream(Generic[R]):
    """A streamed answer: an iterator of deltas, and after its end `response`. Always open it with ``with``."""

    def __init__(
        self,
        owner: Gateway,
        gateway: AsyncGateway,
        loop: Loop,
        request: Request[R],
        need: Need | None,
        meta: Meta | None,
    ) -> None:
        self._owner = owner  # an unreferenced Gateway is closed, and this needs it open
        self._loop = loop
        self._pump: Callable[[], Coroutine[Any, Any, None]] = lambda: self._read(gateway, request, need, meta)
        self._ready: SimpleQueue[Delta | Restart | None] = SimpleQueue()  # whose `get` Ctrl-C may end at any moment
        self._full = False
        self._room: asyncio.Event | None = None
        self._response: R | None = None
        self._job: Job[None] | None = None

    def __iter__(self) -> Iterator[Delta | Restart]:
        job = self._begin()
        while (delta := next_of(self._ready)) is not None:
            if self._full and self._ready.empty() and self._room is not None:
                self._full = False
                self._loop.soon(self._room.set)
            yield delta
        self._ready.put(None)  # for whoever iterates again, or beside this
        if not job.ended.cancelled():
            job.ended.result()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait until everything that the answer held is free."""
        if self._job is not None and not self._loop.forked:
            self._job.cancel()

    @property
    def response(self) -> R:
        """The whole response, once the stream has ended. RuntimeError before that."""
        if self._response is None:
            raise RuntimeError("the stream has not ended: iterate to its end first, or call result()")
        return self._response

    def result(self) -> R:
        """Read the stream to its end and give the whole response."""
        for _ in self:
            pass
        return self.response

    def _begin(self) -> Job[None]:
        if self._loop.forked:
            raise Closed("this stream was begun before a fork: the child cannot read it")
        if self._job is None:
            self._job = self._loop.begin(self._pump())
            self._job.ended.add_done_callback(self._finish)
        return self._job

    async def _read(self, gateway: AsyncGateway, request: Request[R], need: Need | None, meta: Meta | None) -> None:
        # One task reads the whole stream: a source may hold a cancel scope, which belongs to the task that entered it.
        self._room = asyncio.Event()
        async with gateway.stream(request, need, meta=meta) as stream:
            async for delta in stream:
                full = self._ready.qsize() >= BUFFERED_DELTAS - 1
                self._full = full  # before the last one is there: whoever takes that one sees it
                self._ready.put(delta)
                if full:
                    await self._room.wait()
                    self._room.clear()
            self._response = stream.response

    def _finish(self, _: Future[None]) -> None:
        self._ready.put(None)


def _shut(gateway: AsyncGateway, loop: Loop) -> None:
    if loop.forked or loop.unused:
        return
    if loop.inside:  # the last reference was dropped on the loop itself: it cannot wait for itself

        async def close_and_stop() -> None:
            try:
                await gateway.aclose()
            finally:
                loop.stop()

        loop.soon(lambda: asyncio.get_running_loop().create_task(close_and_stop()))
        return
    try:
        loop.call(gateway.aclose())
    except Closed:
        pass  # the loop has ended by itself, and with it every service
    finally:
        loop.stop()
