"""Loop: an event loop in a thread of its own, for code that is not async; what `Gateway` runs on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from gateway.batch import Handed, next_of
from gateway.errors import Closed

T = TypeVar("T")

LET_GO_S = 10.0
"""How long an interrupted call is waited for."""


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
        if self.ended.done():
            return
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel it if it is still going, and wait until it has ended."""
        self._asked = True
        if not self.ended.done():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and so has this
                self._loop.call_soon_threadsafe(self._stop)
            with contextlib.suppress(Empty):
                self._wait(LET_GO_S)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # it was never begun: Ctrl-C came before
            self.abandon()

    def result(self) -> T:
        """Wait until it has ended, and give its result."""
        self._wait(None)
        return self.ended.result()

    def abandon(self) -> None:
        """The loop has ended: if this never began, or never ended, it does so now."""
        if self._task is None:
            self._work.close()
        if not self.ended.done():
            self.ended.set_exception(Closed("the gateway was closed"))

    def _wait(self, timeout_s: float | None) -> None:
        # Not in the Future itself: Ctrl-C in the midst of Condition.wait becomes "cannot release un-acquired lock".
        ended: SimpleQueue[Future[T]] = SimpleQueue()
        self.ended.add_done_callback(ended.put)
        if timeout_s is None:
            next_of(ended)
        else:
            ended.get(timeout=timeout_s)

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

    def begin(self, work: Coroutine[Any, Any, T], made: list[Job[T]] | None = None) -> Job[T]:
        """Start a coroutine on the loop, in the caller's context.

        The job is put into `made` before it begins: Ctrl-C may come before this has returned it.
        """
        if self.inside:
            work.close()
            raise Closed("Gateway was called from inside its own event loop: a service asks others with resources.run")
        with self._lock:
            if self._ended:
                work.close()
                raise Closed("this gateway has been closed")
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._serve, args=(loop,), name="gateway loop", daemon=True)
                try:
                    thread.start()
                except BaseException:
                    # Ctrl-C while it starts: it may run already, or never. Whoever calls next begins with another.
                    loop.call_soon_threadsafe(loop.stop)
                    raise
                self._loop, self._thread = loop, thread
            job: Job[T] = Job(self._loop, work)
            self._jobs.add(job)
            if made is not None:
                made.append(job)
            self._loop.call_soon_threadsafe(job.start)  # which keeps the caller's context variables
        job.ended.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    def call(self, work: Coroutine[Any, Any, T], *, meanwhile: Handed[Any] | None = None) -> T:
        """The coroutine's result. When interrupted it is cancelled, and waited for, before the interrupt goes on.

        `meanwhile` is served in this thread until then.
        """
        made: list[Job[T]] = []
        try:
            job = self.begin(work, made)
            if meanwhile is not None:
                job.ended.add_done_callback(meanwhile.end)
                meanwhile.serve()
            return job.result()
        except BaseException:
            for job in made:
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
                ours = self._loop is loop  # not so where Ctrl-C came while this thread was being started
                self._ended = self._ended or ours
            for job in list(self._jobs) if ours else ():
                job.abandon()
