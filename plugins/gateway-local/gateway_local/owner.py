"""Owner: the one thread that may touch a loaded model. Work waits for it in a bounded queue, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway import Closed, GatewayError, Overloaded, ServiceCrashed


@dataclass(frozen=True, slots=True)
class Done:
    """The last thing that a call sends: what its work returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The last thing that a call sends when its work raised."""

    error: GatewayError


class Call:
    """One piece of work. Its own loop reads what the owner's thread sends."""

    def __init__(self, work: Callable[[Call], Any], job: Any = None) -> None:
        self.work, self.job = work, job
        self.gone = False
        """True when nobody waits for this any more: the work looks at it between steps and stops. Set on the loop,
        read on the owner's thread; a bool needs no lock."""
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, item: Any) -> None:
        """Hand something to whoever waits. Called on the owner's thread."""
        try:
            self._loop.call_soon_threadsafe(self.sent.put_nowait, item)
        except RuntimeError:  # the loop has been closed: nobody waits
            self.gone = True


class Owner:
    """Runs work on one thread, one call at a time, off the event loop."""

    def __init__(self, name: str, *, max_queue: int) -> None:
        self.name = name
        self.beside = 0
        """How many calls are served beside the one that runs: those do not wait."""
        self._max_queue = max_queue
        self._waiting: deque[Call] = deque()
        self._change = threading.Condition()
        self._running: Call | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._live, name=f"gateway-local {name}", daemon=True)

    def start(self) -> None:
        """Start the thread, if it does not run yet: a load that failed may be tried again."""
        if self._thread.ident is None:
            self._thread.start()

    async def run(self, work: Callable[[Call], Any], job: Any = None) -> Any:
        """What `work` returns, run on the thread. Calls with a `job` may be done together: see `peers`."""
        async with aclosing(self.stream(work, job)) as items:
            async for item in items:
                if isinstance(item, Done):
                    return item.value
        raise self._closed_error()

    async def stream(self, work: Callable[[Call], Any], job: Any = None) -> AsyncGenerator[Any, None]:
        """What `work` sends, then Done with what it returned. Closing this early stops the work at its next step.

        Overloaded at once when the queue is full; an error of the work is raised here, as a GatewayError.
        """
        call = Call(work, job)
        self._enter(call)
        try:
            while True:
                item = await call.sent.get()
                if isinstance(item, Failed):
                    raise item.error
                yield item
                if isinstance(item, Done):
                    return
        finally:
            self._leave(call)

    def peers(self) -> list[Call]:
        """The calls that wait and have a job. Called on the thread, by work that can do some of it beside its own."""
        with self._change:
            return [] if self._closed else [call for call in self._waiting if call.job is not None and not call.gone]

    def settle(self, call: Call, outcome: Done | Failed) -> None:
        """A waiting call whose job has been done before its turn. Called on the thread."""
        with self._change:
            if call not in self._waiting:  # it has gone, or the model is being closed
                return
            self._waiting.remove(call)
        call.send(outcome)

    def close(self) -> None:
        """Refuse what waits, stop what runs, and end the thread. Blocks until it has ended."""
        self._stop()
        if self._thread.ident is not None:
            self._thread.join()

    def abandon(self) -> None:
        """Refuse what waits, and what runs too, without waiting: the thread ends at the next step of its work."""
        running = self._stop()
        if running is not None:
            running.send(Failed(self._closed_error()))
        elif self._thread.ident is not None:  # it is idle, and ends at once
            self._thread.join()

    def _stop(self) -> Call | None:
        """Tell the thread to end; what it is at."""
        with self._change:
            self._closed = True
            if self._running is not None:
                self._running.gone = True
            self._change.notify()
            return self._running

    def _closed_error(self) -> Closed:
        return given_up(self.name)

    def _enter(self, call: Call) -> None:
        with self._change:
            if self._closed:
                raise self._closed_error()
            # One runs, or will as soon as the thread wakes: how many are let in does not hang on when it does.
            if len(self._waiting) + (self._running is not None) > self._max_queue + self.beside:
                message = f"model {self.name!r} has {self._max_queue} requests waiting already (max_queue)"
                raise Overloaded(message, model=self.name)
            self._waiting.append(call)
            self._change.notify()

    def _leave(self, call: Call) -> None:
        call.gone = True
        with self._change:
            if call in self._waiting:  # its place is free at once, not when its turn would have come
                self._waiting.remove(call)

    def _next(self) -> Call | None:
        with self._change:
            self._running = None
            while not self._waiting and not self._closed:
                self._change.wait()
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            self._running.gone |= self._closed
            return self._running

    def _live(self) -> None:
        while (call := self._next()) is not None:
            if self._closed:
                call.send(Failed(self._closed_error()))
            elif not call.gone:
                call.send(outcome(partial(call.work, call), self.name))
            call = None


def outcome(work: Callable[[], Any], name: str) -> Done | Failed:
    """Do the work of one call. Whatever it raises harms this call alone."""
    try:
        return Done(work())
    except GatewayError as error:
        return Failed(error)
    except BaseException as error:  # a panic of the tokenizers library is no Exception, and would end the thread
        return Failed(as_gateway_error(error, name))


def as_gateway_error(error: BaseException, name: str) -> GatewayError:
    """An exception of torch or transformers as one that a caller can react to. It stays reachable as ``__cause__``."""
    kind = type(error).__name__
    mapped: GatewayError
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error):
        mapped = Overloaded(f"model {name!r} ran out of memory on this request", model=name)
    else:
        # The exception's own words may hold the prompt: only its type is repeated.
        mapped = ServiceCrashed(f"model {name!r} failed with {kind}", model=name, cause=kind)
    mapped.__cause__ = error
    return mapped


def given_up(name: str) -> Closed:
    """What ends work whose caller has gone; nobody reads it unless the model is being closed."""
    return Closed(f"model {name!r} has been closed")
