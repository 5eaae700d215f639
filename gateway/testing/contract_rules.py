"""What all contracts share: no subclass can weaken one, every check runs on a guarded loop, a breach is one message."""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, ClassVar, TypeVar

import pytest

from gateway.clock import SystemClock

T = TypeVar("T")

BEAT_S = 0.01
GRACE_S = 1.0
FIRST = "test_every_task_on_the_card_is_answered"
CHECK_PATIENCE = 60
"""A whole check may take so many times the patience of one step."""
WEAKENING_MARKS = frozenset({"skip", "skipif", "xfail"})
CLOSED_NAMES = frozenset({"__test__", "__init__", "__new__", "__getattribute__", "__getattr__", "__call__"})


class Broken(AssertionError):
    """A contract is broken: what was seen, what was expected, and why it matters."""

    def __init__(self, seen: str, expected: str, why: str) -> None:
        super().__init__(f"{seen}\n  expected: {expected}\n  why: {why}")


class Unweakable(type):
    """The type of every contract: a subclass that takes a check away, or marks it to be passed over, is no class."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        if not is_contract(cls):
            refuse_weakening(cls)

    def __setattr__(cls, name: str, value: Any) -> None:
        # A class decorator such as @pytest.mark.skip sets `pytestmark` only after the class has been made.
        if name == "pytestmark":
            refuse_marks(cls, value)
        elif name in protected(cls) | CLOSED_NAMES:
            raise TypeError(f"{cls.__name__}.{name} belongs to the contract and cannot be replaced")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if name in protected(cls):
            raise TypeError(f"{cls.__name__}.{name} belongs to the contract and cannot be removed")
        super().__delattr__(name)


def is_contract(cls: type) -> bool:
    """True for the classes of this package, False for an author's."""
    return isinstance(cls, Unweakable) and cls.__module__.startswith("gateway.testing.contract")


def protected(cls: type) -> frozenset[str]:
    """The names that a subclass may not define: everything of the contract but its fixtures and settings."""
    names: set[str] = set()
    allowed: set[str] = set()
    for owner in filter(is_contract, cls.__mro__):
        names.update(n for n in vars(owner) if not (n.startswith("__") and n.endswith("__")))
        allowed |= vars(owner).get("fixtures", frozenset()) | vars(owner).get("settings", {}).keys()
    return frozenset(names - allowed)


def refuse_weakening(cls: type) -> None:
    """TypeError, naming what was overridden, when an author's class takes anything away from its contract."""
    contract = next(filter(is_contract, cls.__mro__))
    mine = [owner for owner in cls.__mro__ if owner is not object and not is_contract(owner)]
    closed = protected(cls)
    overridden = sorted({n for owner in mine for n in vars(owner) if n in closed | CLOSED_NAMES})
    if overridden:
        allowed = ", ".join(sorted(contract.fixtures | contract.settings.keys()))  # type: ignore[attr-defined]
        raise TypeError(
            f"{cls.__name__} overrides {', '.join(overridden)} of {contract.__name__}: a contract cannot be weakened. "
            f"Give your own tests other names; what may be defined is: {allowed}"
        )
    for owner in mine:
        refuse_marks(cls, vars(owner).get("pytestmark", ()))
    for name, (least, most) in contract.settings.items():  # type: ignore[attr-defined]
        value = inspect.getattr_static(cls, name)
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or not least <= value <= most:
            raise TypeError(f"{cls.__name__}.{name} must be a plain number from {least} to {most}, not {value!r}")


def refuse_marks(cls: type, marks: Any) -> None:
    """TypeError for a mark that lets checks be passed over."""
    for mark in marks if isinstance(marks, (list, tuple)) else [marks]:
        if getattr(mark, "name", "") in WEAKENING_MARKS:
            raise TypeError(f"{cls.__name__} is marked {mark.name}: a contract cannot be weakened; mend the subject instead")


class Contract(metaclass=Unweakable):
    """A set of checks that a plugin author inherits. `settings` are plain attributes with their bounds."""

    fixtures: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[dict[str, tuple[float, float]]] = {"patience_s": (0.05, 3600.0)}

    patience_s: float = 10.0
    """How long one step (a run, a load, a stream) may take before it counts as hanging."""


def on_a_loop(
    check: Callable[[Pulse], Coroutine[Any, Any, T]], *, patience_s: float, told_elsewhere: type[Broken] | None = None
) -> T:
    """What `check` returns, run on a loop and thread of its own. Fails, and never hangs, when that loop is stuck.

    A breach of the class `told_elsewhere` fails in another check, which the skipped one points to.
    """
    pulse = Pulse(patience_s)
    thread = threading.Thread(target=pulse.live, args=(check,), daemon=True, name="contract")
    thread.start()
    pulse.watch(thread)
    if told_elsewhere is not None and isinstance(pulse.error, told_elsewhere):
        pytest.skip(f"nothing to check with: see {FIRST}, which fails for it")
    if isinstance(pulse.error, Broken):
        pytest.fail(str(pulse.error), pytrace=False)
    if pulse.error is not None:
        raise pulse.error
    return pulse.result  # type: ignore[no-any-return]


class Pulse:
    """The heartbeat of a loop: `longest_s` is the longest time between two beats since `reset`, `where` what ran then."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.result: Any = None
        self.error: BaseException | None = None
        self.longest_s = 0.0
        self.where = ""
        self._clock = SystemClock()
        self._beat_at = self._clock.monotonic()
        self._done = threading.Event()

    def reset(self) -> None:
        """Measure anew from here."""
        self._beat_at, self.longest_s, self.where = self._clock.monotonic(), 0.0, ""

    def read(self) -> float:
        """The longest time in seconds between two beats, the one that is still running included."""
        return max(self.longest_s, self._clock.monotonic() - self._beat_at)

    def live(self, check: Callable[[Pulse], Coroutine[Any, Any, Any]]) -> None:
        """Run the check on a new loop of this thread, and take the loop down whatever is left on it."""
        loop = asyncio.new_event_loop()
        executor = ThreadPoolExecutor(thread_name_prefix="contract")
        loop.set_default_executor(executor)
        loop.call_soon(self._beat, loop)
        try:
            self.result = loop.run_until_complete(check(self))
        except BaseException as error:  # handed to the thread that waits, which raises it
            self.error = error
        finally:
            loop.run_until_complete(self._sweep())
            self._done.set()
            executor.shutdown(wait=False, cancel_futures=True)
            loop.close()

    def watch(self, thread: threading.Thread) -> None:
        """Wait for the check; give up on a loop that stands still, and say where."""
        waited_from = self._clock.monotonic()
        while not self._done.wait(BEAT_S):
            silent_s = self._clock.monotonic() - self._beat_at
            if silent_s > 5 * BEAT_S and silent_s > self.longest_s:
                self.where = frame_place(sys._current_frames().get(thread.ident or 0))
            if self._clock.monotonic() - waited_from > CHECK_PATIENCE * self.patience_s:
                seen = f"the check did not end within {CHECK_PATIENCE * self.patience_s:g} s"
                self.error = Broken(seen, "an end (set `patience_s` if the subject is only slow)", "tests must end")
                return
            if silent_s > self.patience_s + GRACE_S:
                seen = f"the event loop stood still for more than {self.patience_s:g} s, in {self.where or 'its own work'}"
                self.error = Broken(seen, BLOCKED_EXPECTED, BLOCKED_WHY)
                return
        thread.join(GRACE_S)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock.monotonic()
        self.longest_s = max(self.longest_s, now - self._beat_at)
        self._beat_at = now
        loop.call_later(BEAT_S, self._beat, loop)

    async def _sweep(self) -> None:
        """End what is left over, without waiting for what refuses to end."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            done, _ = await asyncio.wait(left, timeout=GRACE_S)
            for task in done:
                if not task.cancelled():
                    task.exception()
            left = {task for task in left if not task.done()}
        if not left:
            await asyncio.get_running_loop().shutdown_asyncgens()


BLOCKED_EXPECTED = "blocking work in a thread (asyncio.to_thread), so that the loop stays free"
BLOCKED_WHY = "every other request of the gateway waits while one service holds the loop, its timeouts too"


def frame_place(frame: FrameType | None) -> str:
    """``file.py:12 in run`` for a frame."""
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def raised_at(error: BaseException) -> str:
    """Where an exception came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" (at {frame_place(trace.tb_frame)})"


async def within(patience_s: float, awaitable: Awaitable[T], what: str) -> T:
    """The result of a step; Broken when it hangs, or is cancelled though nobody cancelled it."""
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait({task}, timeout=patience_s)
    if not done:
        task.cancel()
        raise Broken(
            f"{what} did not end within {patience_s:g} s",
            "an end (set `patience_s` on the contract's class if it is only slow)",
            "a caller would wait for ever",
        )
    if task.cancelled():
        raise Broken(
            f"{what} raised CancelledError although nobody cancelled it",
            "a GatewayError that says what went wrong",
            "the gateway takes it for its own caller's cancellation, and falls back to no other model",
        )
    return task.result()


async def new_tasks(before: Iterable[asyncio.Task[Any]]) -> list[str]:
    """The tasks that are there now and were not before, after time to end by themselves; as names."""
    known = {*before, asyncio.current_task()}
    for _ in range(20):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() if task not in known}
    if left:
        await asyncio.wait(left, timeout=0.2)
    names = (getattr(task.get_coro(), "__qualname__", "task") for task in left if not task.done())
    return sorted(names)
