"""Crew: as many threads as cores that go through the segments of a blob together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from gateway_seal.floe import GCM256_IV256_1M
from gateway_seal.memory import private

RUN = 8
"""How many segments, one after the other, a thread takes at a time: 8 MiB, which are its alone to touch first."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scratch(threading.local):
    """A thread's own room for an encrypted segment, and for a segment's text."""

    def __init__(self) -> None:
        self.sealed = memoryview(bytearray(GCM256_IV256_1M.segment_bytes))
        self.text = private(GCM256_IV256_1M.text_bytes)


Work = Callable[[int, Scratch], object]


class Crew:
    """Threads that are started when there is more to do than one would do alone. The caller always works along."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or cores()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._scratch = Scratch()

    def each(self, numbers: Sequence[int], work: Work) -> None:
        """`work` for each number, in runs, in no order. What it raises first is raised, once all threads have stopped."""
        runs = [numbers[at : at + RUN] for at in range(0, len(numbers), RUN)]
        if len(runs) == 1 or self.threads == 1:
            return self._alone(numbers, work)
        left, stop = iter(runs), threading.Event()
        take = threading.Lock()

        def taken() -> Iterator[int]:
            while not stop.is_set():
                with take:
                    run = next(left, None)
                if run is None:
                    return
                for number in run:
                    if stop.is_set():
                        return
                    yield number

        def go() -> None:
            try:
                for number in taken():
                    work(number, self._scratch)
            except BaseException:
                stop.set()
                raise

        others: list[Future[None]] = []
        try:
            self._start(go, min(self.threads, len(runs)) - 1, others)
        except BaseException as error:
            stop.set()
            self.close()  # those that have begun come to an end first: none may write after this
            wait([other for other in others if not other.cancel()])
            if not isinstance(error, RuntimeError):
                raise
            return self._alone(numbers, work)  # the system has no thread to give
        try:
            go()
        finally:  # also for Ctrl-C, which only the caller's thread hears
            started = [other for other in others if not other.cancel()]
            wait(started)
        for other in started:
            other.result()

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _alone(self, numbers: Sequence[int], work: Work) -> None:
        for number in numbers:
            work(number, self._scratch)

    def _start(self, go: Callable[[], None], count: int, others: list[Future[None]]) -> None:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="gateway-seal")
            pool = self._pool
        for _ in range(count):
            others.append(pool.submit(go))

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
