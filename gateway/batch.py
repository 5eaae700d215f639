"""Batch: many requests at once, so many under way and no more, their results in order; what `map` is made of."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from concurrent.futures import Future
from operator import length_hint
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from gateway.bars import Bars
from gateway.batch_journal import BatchJournal
from gateway.card import ANYTHING, Need, check_number
from gateway.clock import Clock
from gateway.errors import Closed, GatewayError, InvalidRequest
from gateway.request import Meta, Request, Response
from gateway.service import Progress, no_progress

T = TypeVar("T")

Each = Callable[[int, Any], object]
"""What is told of each result: the place of its request, from 0, and the result. An awaitable that it returns is awaited."""

LABEL = "requests"
"""What the progress is of."""
AHEAD = 8
"""So many times `max_concurrency` results may wait for an earlier one, where they are told and not kept."""
END: Any = object()
"""Where an item would be, had there been another one."""
SLOWEST_RPS = 1e-6


class Batch:
    """One `AsyncGateway.map` on its way. InvalidRequest names the argument that is wrong."""

    def __init__(
        self,
        ask: Callable[[Any], Awaitable[Response]],
        clock: Clock,
        *,
        need: Need | None,
        meta: Meta | None,
        max_concurrency: int,
        max_rps: float | None,
        journal: str | Path | None,
        progress: Progress | bool,
        each: Each | None,
    ) -> None:
        for name, value, kind in (("need", need, Need), ("meta", meta, Meta)):
            if value is not None and not isinstance(value, kind):
                raise InvalidRequest(f"{name} is a {type(value).__name__}, not a {kind.__name__}", field=name)
        if max_concurrency is None:
            raise InvalidRequest("max_concurrency must be a whole number of at least 1, not None", field="max_concurrency")
        check_number(max_concurrency, "max_concurrency", low=1, whole=True)
        check_number(max_rps, "max_rps", low=SLOWEST_RPS)
        if not (journal is None or (isinstance(journal, (str, Path)) and str(journal))):
            raise InvalidRequest("journal must be the path of a file", field="journal")
        if not (isinstance(progress, bool) or callable(progress)):
            raise InvalidRequest("progress must be true, false, or be called with (label, done, total)", field="progress")
        if not (each is None or callable(each)):
            raise InvalidRequest("each must be called with (index, result)", field="each")
        self._ask, self._clock = ask, clock
        self._max_concurrency, self._gap_s = max_concurrency, 0.0 if max_rps is None else 1.0 / max_rps
        self._due = 0.0
        self._journal = None if journal is None else BatchJournal(Path(journal), need or ANYTHING)
        self._own = Bars() if progress is True else None
        self._progress: Progress = self._own or (no_progress if isinstance(progress, bool) else progress)
        self._results: list[Any] = []
        self._each: Each = each or (lambda _, result: self._results.append(result))
        self._waiting: dict[int, Response | GatewayError] = {}  # until those before them have been told
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(sys.maxsize if each is None else AHEAD * max_concurrency)
        self._read = self._done = self._failed = self._told = 0
        self._total: int | None = None

    async def run(self, requests: Any) -> list[Any]:
        """What became of each request, in order; none where `each` is told. Whatever ends it is raised when all has ended."""
        read, hint, ending = _reader(requests), length_hint(requests, -1), None
        self._total = None if hint < 0 else hint
        try:
            if self._journal is not None:
                self._journal.open()
                await asyncio.to_thread(self._journal.read)
                self._journal.mend()
            self._tell()
            async with asyncio.TaskGroup() as group:
                await self._feed(read, group)
        except BaseExceptionGroup as error:
            ending = error.exceptions[0]  # the first: the others are of the same end
        finally:
            if self._journal is not None:
                self._journal.close()
            if self._own is not None:
                self._own.close()
        if ending is not None:
            raise ending
        return self._results

    async def _feed(self, read: Callable[[], Awaitable[Any]], group: asyncio.TaskGroup) -> None:
        slots = asyncio.Semaphore(self._max_concurrency)
        while True:
            await self._room.acquire()
            await slots.acquire()  # before it is read: what cannot begin yet need not exist yet
            request = await read()
            if request is END:
                break
            at, key = self._read, ""
            self._read += 1
            known: Response | GatewayError | None = request if isinstance(request, GatewayError) else None
            if self._journal is not None and isinstance(request, Request):
                try:
                    key = self._journal.key(request)
                    known = self._journal.answer(key, request)
                except InvalidRequest as error:
                    known = error
            if known is None:
                await self._pace()
                group.create_task(self._one(at, request, key)).add_done_callback(lambda _: slots.release())
            else:
                await self._end(at, known)
                slots.release()
                await asyncio.sleep(0)  # a long row of these must not keep the loop from others
            del request, known  # the next one may be long in coming
        if self._total != self._read:
            self._total = self._read
            self._tell()

    async def _pace(self) -> None:
        now = self._clock.monotonic()
        if now < self._due:
            await self._clock.sleep(self._due - now)
        self._due = max(now, self._due) + self._gap_s

    async def _one(self, at: int, request: Any, key: str) -> None:
        result: Response | GatewayError
        try:
            result = await self._ask(request)
        except Closed:
            raise
        except GatewayError as error:
            result = _bare(error)
        if key and self._journal is not None:
            self._journal.write(key, result, request.task)
        await self._end(at, result)

    async def _end(self, at: int, result: Response | GatewayError) -> None:
        self._waiting[at] = result
        self._done += 1
        self._failed += isinstance(result, GatewayError)
        self._tell()
        async with self._turn:  # which is waited for in one's slot: where `each` is slow, nothing more begins
            while self._told in self._waiting:
                await self._say(self._told, self._waiting.pop(self._told))
                self._told += 1
                self._room.release()

    async def _say(self, at: int, result: Response | GatewayError) -> None:
        try:
            said = self._each(at, result)
            if inspect.isawaitable(said):
                await said
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # A task that ends so ends alone, in silence: the batch would go on without this result.
            raise RuntimeError("each has been cancelled, and not by its batch") from None

    def _tell(self) -> None:
        if isinstance(self._progress, Bars):
            self._progress.count(LABEL, self._done, self._total, failed=self._failed)
        else:
            self._progress(LABEL, self._done, self._total)


def next_of(queue: SimpleQueue[T]) -> T:
    """What comes next. Ctrl-C ends the wait, and is itself raised.

    A signal that comes just before a thread begins to wait does not wake it: so it waits for a second at a time.
    """
    while True:
        try:
            return queue.get(timeout=1.0)
        except Empty:
            continue


class Handed(Generic[T]):
    """One thread's iterable as an async one of another's, whose every item the first thread reads when it is wanted."""

    def __init__(self, items: Iterable[T]) -> None:
        _check(items, Iterable)
        self._items = items
        self._wanted: SimpleQueue[asyncio.Future[T] | None] = SimpleQueue()

    def serve(self) -> None:
        """Read what is wanted, until `end`."""
        items = iter(self._items)
        while (wanted := next_of(self._wanted)) is not None:
            item = next(items, END)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                wanted.get_loop().call_soon_threadsafe(_give, wanted, item)

    def end(self, _: Future[Any]) -> None:
        """Nothing more is wanted."""
        self._wanted.put(None)

    def __length_hint__(self) -> int:
        hint = length_hint(self._items, -1)
        return NotImplemented if hint < 0 else hint

    def __aiter__(self) -> Handed[T]:
        return self

    async def __anext__(self) -> T:
        wanted: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wanted.put(wanted)
        item = await wanted
        if item is END:
            raise StopAsyncIteration
        return item


def in_thread(each: Each) -> Each:
    """The same in a thread, where it may block. Whoever cancels it waits until it has returned."""

    async def told(at: int, result: Any) -> None:
        call = asyncio.ensure_future(asyncio.to_thread(each, at, result))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            if not call.cancelled():
                call.exception()  # it has been seen: whoever cancels has no use for it
            raise

    return told


def _reader(requests: Any) -> Callable[[], Awaitable[Any]]:
    _check(requests, (Iterable, AsyncIterable))
    if isinstance(requests, AsyncIterable):
        source = aiter(requests)
        return lambda: anext(source, END)
    items = iter(requests)

    async def read() -> Any:
        return next(items, END)

    return read


def _check(requests: Any, kinds: Any) -> None:
    if isinstance(requests, (str, bytes)) or not isinstance(requests, kinds):
        raise InvalidRequest(f"requests is a {type(requests).__name__}, not an iterable of requests", field="requests")


def _bare(error: GatewayError) -> GatewayError:
    """The error without tracebacks, which would keep all that the failed call held for as long as the results are kept."""
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _give(wanted: asyncio.Future[T], item: T) -> None:
    if not wanted.done():
        wanted.set_result(item)
