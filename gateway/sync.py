"""Gateway: AsyncGateway's verbs for code that is not async, on a private event loop in a thread of its own.

It works in a notebook, from several threads at once, and after a fork (the child gets a loop and services of its own). Context
variables pass through. Ctrl-C cancels what is under way, waits until it has let go, and is raised again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from gateway.card import Need
from gateway.decision import Decision
from gateway.errors import Closed, GatewayError
from gateway.gateway import AsyncGateway, ModelStatus, Source
from gateway.parts import Delta
from gateway.service import ModelService, Progress, no_progress
from gateway.tasks import Chat, ChatResponse, Meta, Request, Response

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
        self._renew()

    def _renew(self) -> None:
        self._gateway = self._make()
        self._loop = Loop()
        self._lock = threading.Lock()
        # Closes an abandoned gateway when it is collected, and at exit; a forked child has nothing to close.
        self._finalizer = weakref.finalize(self, _shut, self._gateway, self._loop)

    def run(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> R:
        """The answer of the best model that may and can."""
        gateway, loop = self._current()
        return loop.call(gateway.run(request, need, meta=meta))

    def stream(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> SyncStream[R]:
        """The answer as it comes: ``with gw.stream(...) as s: for delta in s: ...``; then `s.response`."""
        gateway, loop = self._current()
        return SyncStream(gateway, loop, request, need, meta)

    def chat(self, text: str, need: Need | None = None, *, meta: Meta | None = None, **options: Any) -> ChatResponse:
        """Sugar for ``run(Chat.ask(text, **options), need)``."""
        return self.run(Chat.ask(text, **options), need, meta=meta)

    def explain(self, request: Request[Any], need: Need | None = None, *, meta: Meta | None = None) -> Decision:
        """How this request would be routed now, as a table that prints. Asks no model."""
        gateway, loop = self._current()
        return loop.call(gateway.explain(request, need, meta=meta))

    def models(self) -> list[ModelStatus]:
        """Every model by name, described."""
        gateway, loop = self._current()
        return loop.call(gateway.models())

    def check(self) -> dict[str, str | GatewayError]:
        """By model: a line about it, or the error that says what is wrong."""
        gateway, loop = self._current()
        return loop.call(gateway.check())

    def close(self) -> None:
        """Close every service and end the thread. Closing twice is harmless."""
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
            self._finalizer.detach()
            self._renew()
        return self._gateway, self._loop


class SyncStream(Generic[R]):
    """A streamed answer: an iterator of deltas, and after its end `response`. Always open it with ``with``."""

    def __init__(self, gateway: AsyncGateway, loop: Loop, request: Request[R], need: Need | None, meta: Meta | None) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._ready: list[Delta] = []
        self._room: asyncio.Event | None = None
        self._response: R | None = None
        self._job = loop.begin(self._pump(gateway, request, need, meta))
        self._job.ended.add_done_callback(self._notify)

    def __iter__(self) -> Iterator[Delta]:
        while True:
            with self._changed:
                while not self._ready and not self._job.ended.done():
                    self._changed.wait()
                batch, self._ready = self._ready, []
            if not batch:
                break
            if self._room is not None:
                self._loop.soon(self._room.set)
            yield from batch
        if not self._job.ended.cancelled():
            self._job.ended.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait until everything that the answer held is free."""
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

    async def _pump(self, gateway: AsyncGateway, request: Request[R], need: Need | None, meta: Meta | None) -> None:
        # One task reads the whole stream: a source may hold a cancel scope, which belongs to the task that entered it.
        self._room = asyncio.Event()
        async with gateway.stream(request, need, meta=meta) as stream:
            async for delta in stream:
                with self._changed:
                    self._ready.append(delta)
                    full = len(self._ready) >= BUFFERED_DELTAS
                    self._changed.notify()
                if full:
                    self._room.clear()
                    await self._room.wait()
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

    def start(self) -> None:
        """Begin; called on the loop."""
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel it if it is still going, and wait until it has ended."""
        if not self.ended.done():
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
            wait([self.ended], timeout=LET_GO_S)

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.ended.cancel()
            self.ended.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(task.result())


class Loop:
    """An event loop in a daemon thread, started when first used."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def forked(self) -> bool:
        """True in a process that was forked from the one that made this: the thread is not here."""
        return self._pid != os.getpid()

    def begin(self, work: Coroutine[Any, Any, T]) -> Job[T]:
        """Start a coroutine on the loop, in the caller's context."""
        if self._thread is not None and threading.get_ident() == self._thread.ident:
            work.close()
            raise Closed("Gateway was called from inside its own event loop: a service asks others with resources.run")
        loop = self._running()
        job: Job[T] = Job(loop, work)
        loop.call_soon_threadsafe(job.start)  # which keeps the caller's context variables
        return job

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. When interrupted it is cancelled, and waited for, before the interrupt goes on."""
        job = self.begin(work)
        try:
            return job.ended.result()
        except BaseException:
            job.cancel()
            raise

    def soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the loop; nothing happens once the loop has ended."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """End the loop and its thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="gateway loop", daemon=True)
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        # The Runner, left with the loop stopped, cancels what is still there and closes the generators and the loop.
        runner.get_loop().run_forever()


def _shut(gateway: AsyncGateway, loop: Loop) -> None:
    if loop.forked:
        return
    try:
        loop.call(gateway.aclose())
    finally:
        loop.stop()
