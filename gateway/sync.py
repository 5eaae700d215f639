"""Gateway: AsyncGateway's verbs for code that is not async, on a private event loop in a thread of its own.

It works in a notebook, from several threads at once, and after a fork: the child gets a loop of its own, and services that were
given as instances are started again there. Context variables pass through. Ctrl-C cancels what is under way, waits until it has
let go, and is raised again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from gateway.batch import Handed
from gateway.card import ModelCard, Need
from gateway.decision import Decision
from gateway.errors import Closed, GatewayError
from gateway.gateway import AsyncGateway, ModelStatus, Source
from gateway.parts import Delta, Restart
from gateway.request import Meta, Request, Response
from gateway.service import ModelService, Progress, no_progress
from gateway.tasks import Chat, ChatResponse

R = TypeVar("R", bound=Response)
T = TypeVar("T")

BUFFERED_DELTAS = 64
"""How far a stream may run ahead of a slow reader."""
LET_GO_S = 10.0
"""How long an interrupted call is waited for."""


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
    ) -> list[R | GatewayError]:
        """See `AsyncGateway.map`. The requests are read in the thread that calls; `progress` is called in another one."""
        gateway, loop = self._current()
        handed = Handed(requests)
        limits: dict[str, Any] = {"max_concurrency": max_concurrency, "max_rps": max_rps}
        return loop.call(gateway.map(handed, need, meta=meta, journal=journal, progress=progress, **limits), meanwhile=handed)

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
        self._changed = threading.Condition()
        self._ready: deque[Delta | Restart] = deque()
        self._full = False
        self._room: asyncio.Event | None = None
        self._response: R | None = None
        self._job: Job[None] | None = None

    def __iter__(self) -> Iterator[Delta | Restart]:
        job = self._begin()
        while True:
            with self._changed:
                while not self._ready and not job.ended.done():
                    self._changed.wait()
                if not self._ready:
                    break
                delta = self._ready.popleft()
                resume = self._full and not self._ready
                self._full = self._full and not resume
            if resume and self._room is not None:
                self._loop.soon(self._room.set)
            yield delta
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
            self._job.ended.add_done_callback(self._notify)
        return self._job

    async def _read(self, gateway: AsyncGateway, request: Request[R], need: Need | None, meta: Meta | None) -> None:
        # One task reads the whole stream: a source may hold a cancel scope, which belongs to the task that entered it.
        self._room = asyncio.Event()
        async with gateway.stream(request, need, meta=meta) as stream:
            async for delta in stream:
                with self._changed:
                    self._ready.append(delta)
                    self._full = full = len(self._ready) >= BUFFERED_DELTAS
                    self._changed.notify()
                if full:
                    await self._room.wait()
                    self._room.clear()
            self._response = stream.response

    def _notify(self, _: Future[None]) -> None:
        with self._changed:
            self._changed.notify_all()


class Job(Generic[T]):
    """A coroutine on the loop. `ended` has its result, and is done only when it has let go of everything."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self.ended: Future[T] = Future()
        self._loop = loop
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._asked = False

    def start(self) -> None:
        """Begin; called on the loop."""
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel it if it is still going, and wait until it has ended."""
        self._asked = True
        if not self.ended.done():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and so has this
                self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
            wait([self.ended], timeout=LET_GO_S)

    def abandon(self) -> None:
        """The loop has ended: if this never began, or never ended, it does so now."""
        if self._task is None:
            self._work.close()
        if not self.ended.done():
            self.ended.set_exception(Closed("the gateway was closed"))

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self.ended.set_exception(error)
            else:
                self.ended.set_result(task.result())
        elif self._asked:
            self.ended.cancel()
            self.ended.set_running_or_notify_cancel()
        else:
            self.ended.set_exception(Closed("the gateway was closed"))


class Loop:
    """An event loop in a daemon thread, started when first used. Once it has ended it is not used again."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a finalizer may run in the midst of anything, on this very thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        self._jobs: set[Job[Any]] = set()

    @property
    def forked(self) -> bool:
        """True in a process that was forked from the one that made this: the thread is not here."""
        return self._pid != os.getpid()

    @property
    def unused(self) -> bool:
        """True while nothing has been begun: there is nothing to end."""
        return self._loop is None

    @property
    def inside(self) -> bool:
        """True on the loop's own thread, where nothing may wait for the loop."""
        return self._thread is not None and self._thread is threading.current_thread()

    def begin(self, work: Coroutine[Any, Any, T]) -> Job[T]:
        """Start a coroutine on the loop, in the caller's context."""
        if self.inside:
            work.close()
            raise Closed("Gateway was called from inside its own event loop: a service asks others with resources.run")
        with self._lock:
            if self._ended:
                work.close()
                raise Closed("this gateway has been closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="gateway loop", daemon=True)
                self._thread.start()
            job: Job[T] = Job(self._loop, work)
            self._jobs.add(job)
            self._loop.call_soon_threadsafe(job.start)  # which keeps the caller's context variables
        job.ended.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    def call(self, work: Coroutine[Any, Any, T], *, meanwhile: Handed[Any] | None = None) -> T:
        """The coroutine's result. When interrupted it is cancelled, and waited for, before the interrupt goes on.

        `meanwhile` is served in this thread until then.
        """
        job: Job[T] | None = None
        try:
            job = self.begin(work)
            if meanwhile is not None:
                job.ended.add_done_callback(meanwhile.end)
                meanwhile.serve()
            return job.ended.result()
        except BaseException:
            if job is not None:
                job.cancel()
            raise

    def soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the loop; nothing happens once the loop has ended."""
        with self._lock, contextlib.suppress(RuntimeError):
            if self._loop is not None and not self._ended:
                self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """End the loop and its thread."""
        with self._lock:
            self._ended = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(loop.stop)
            if not self.inside:
                thread.join(LET_GO_S)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                # The Runner, left with the loop stopped, cancels what is still there and closes generators and loop.
                runner.get_loop().run_forever()
        finally:
            with self._lock:
                self._ended = True
            for job in list(self._jobs):
                job.abandon()


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
