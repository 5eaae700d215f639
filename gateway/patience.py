"""Patience: asyncio.timeout_at for many short waits in a row, with one timer for them all."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self


class Patience:
    """``with patience.until(deadline_s): await ...`` raises TimeoutError at the deadline, in the loop's time; `close` it.

    A timer for each piece of a stream took a fifth of the time that its reading takes. Here one is left alone while waits
    come and go: when it fires, it ends the wait of that moment if that is due, and else is set to its deadline.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = 0.0
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._fired = False
        self._raised: TimeoutError | None = None

    def until(self, deadline_s: float) -> Self:
        """The same, for a wait until then."""
        self._deadline_s = deadline_s
        return self

    def ended(self, error: TimeoutError) -> bool:
        """True when this is the TimeoutError that was raised here, and not one from inside the wait."""
        return error is self._raised

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._waiting, self._cancelling = task, task.cancelling()
        if self._timer is None or self._timer.when() > self._deadline_s:
            self._arm()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        task, self._waiting = self._waiting, None
        if self._fired:
            self._fired = False
            assert task is not None
            # As asyncio.timeout has it: a cancellation from elsewhere stays one, though the deadline has passed too.
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                self._raised = TimeoutError()
                raise self._raised from error

    def _arm(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._deadline_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._waiting is None:  # the next wait sets it again
            return
        if self._loop.time() < self._deadline_s:
            self._arm()
        elif not self._fired:
            self._fired = True
            self._waiting.cancel()
