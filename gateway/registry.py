"""Registry: name -> service, described and started lazily, each once; one that fails fails alone."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from gateway.card import ModelCard
from gateway.clock import Clock
from gateway.errors import (
    BadReply,
    Closed,
    GatewayError,
    Overloaded,
    PluginError,
    ServiceCrashed,
    ServiceError,
    told,
)
from gateway.events import Event
from gateway.service import ModelService, Resources, service_name
from gateway.vitals import Knowledge, Vitals

DESCRIBE_LIMIT_S = 10.0
CLOSE_LIMIT_S = 10.0
RETRY_S = 30.0
"""A describe or start that failed is tried again after so long, when next needed."""


class Entry:
    """One service with what is known of it. `card` and `vitals` are None until it has been described."""

    __slots__ = ("card", "error", "failed_at", "name", "plugin", "service", "starting", "vitals")

    def __init__(self, service: ModelService, plugin: str) -> None:
        self.service = service
        self.name = service_name(service)
        self.plugin = plugin
        self.card: ModelCard | None = None
        self.vitals: Vitals | None = None
        self.error: GatewayError | None = None
        """Why it cannot be used: from describe while there is no card, else from start."""
        self.failed_at = 0.0
        self.starting: asyncio.Task[None] | None = None


class Registry:
    """The services of one gateway."""

    def __init__(
        self,
        services: Iterable[tuple[str, ModelService]],
        *,
        resources: Resources,
        clock: Clock,
        emit: Callable[[Event], None],
    ) -> None:
        self.knowledge = Knowledge()
        self.entries: dict[str, Entry] = {}
        self.version = 0
        """Changes whenever a card is learnt or lost: what was cached about cards is then stale."""
        self._resources = resources
        self._clock = clock
        self._emit = emit
        self.known: tuple[Entry, ...] = ()
        """All entries, once each of them is described; empty before that, and once closed."""
        self.closed = False
        self.on_described: Callable[[], object] = bool
        """Called after each round of describing."""
        self._closing: asyncio.Task[None] | None = None
        self._describing: asyncio.Task[None] | None = None
        self._undescribed = True
        self._retry_at = 0.0
        for plugin, service in services:
            entry = Entry(service, plugin)
            other = self.entries.setdefault(entry.name, entry)
            if other is not entry:
                who = f"{whose(other.plugin)} and {whose(plugin)}"
                raise PluginError(f"two models are named {entry.name!r}: from {who}; leave one of them out", plugin=plugin)

    async def described(self) -> Sequence[Entry]:
        """All entries, each described or with the reason why not. The first round is waited for; those who failed in it
        are tried again later, in the background, so that one endpoint that hangs does not hold up the others."""
        if self.closed:
            raise Closed("the gateway has been closed")
        if self._undescribed:
            due = self._clock.monotonic() >= self._retry_at
            if self._describing is None and due:
                self._describing = _task(self._describe_all(), "gateway describe")
            if self._describing is not None and self.version == 0:
                await self._wait(self._describing)
        return tuple(self.entries.values())

    async def start(self, entry: Entry) -> None:
        """Start a service once. Raises its error, also to those who come within `RETRY_S` of the failure."""
        vitals = entry.vitals
        assert vitals is not None  # only described entries are chosen
        if self.closed:
            raise Closed("the gateway has been closed")
        if vitals.state == "ready":
            return
        if vitals.state == "failed" and self._clock.monotonic() < entry.failed_at + RETRY_S:
            assert entry.error is not None
            raise copy.copy(entry.error)  # errors gather facts on their way: each caller gets its own
        if entry.starting is None:
            # A task of its own: a caller that gives up must not stop the loading that others wait for.
            entry.starting = _task(self._start(entry, vitals), f"gateway start {entry.name}")
        try:
            await self._wait(entry.starting)
        except GatewayError as error:
            raise copy.copy(error) from error.__cause__

    def unloaded(self, name: str) -> None:
        """A service has let go of what it had loaded: it is to be started again."""
        entry = self.entries.get(name)
        if entry is not None and entry.vitals is not None and entry.vitals.state == "ready":
            entry.vitals.state = "cold"

    async def aclose(self) -> None:
        """Stop what is being started and close every service; the last error is raised when all are closed."""
        self.closed, self.known = True, ()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="gateway close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        tasks = [entry.starting for entry in self.entries.values() if entry.starting]
        tasks += [self._describing] if self._describing else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ends = await asyncio.gather(*(self._end(entry) for entry in self.entries.values()))
        for failure in ends:
            if failure is not None:
                raise failure

    async def _end(self, entry: Entry) -> GatewayError | None:
        scope = asyncio.timeout(CLOSE_LIMIT_S)
        try:
            async with scope:
                await entry.service.aclose()
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            if scope.expired():
                return ServiceCrashed(f"model {entry.name!r}: aclose took longer than {CLOSE_LIMIT_S:g} s", model=entry.name)
            return _own(error, entry.name, "aclose")
        return None

    async def _wait(self, task: asyncio.Task[None]) -> None:
        """Wait for shared work; that it was cancelled means that the gateway is closing, not that the caller is."""
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self.closed:
                raise Closed("the gateway has been closed") from None
            raise

    async def _describe_all(self) -> None:
        try:
            todo = [entry for entry in self.entries.values() if entry.card is None]
            await asyncio.gather(*(self._describe(entry) for entry in todo))
            self._undescribed = any(entry.card is None for entry in self.entries.values())
            self.known = () if self._undescribed or self.closed else tuple(self.entries.values())
            self._retry_at = self._clock.monotonic() + RETRY_S
            self.version += 1
            self.on_described()
        finally:
            self._describing = None

    async def _describe(self, entry: Entry) -> None:
        scope = asyncio.timeout(DESCRIBE_LIMIT_S)
        try:
            async with scope:
                card = await entry.service.describe(self._resources)
            if not isinstance(card, ModelCard) or card.name != entry.name:
                raise BadReply(f"describe of {entry.name!r} gave no ModelCard of that name", model=entry.name)
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            if scope.expired():
                entry.error = ServiceCrashed(f"describe took longer than {DESCRIBE_LIMIT_S:g} s", model=entry.name)
            elif isinstance(error, asyncio.CancelledError) and self.closed:
                raise
            else:
                entry.error = _own(error, entry.name, "describe")
        else:
            entry.card, entry.vitals, entry.error = card, self.knowledge.of(card), None

    async def _start(self, entry: Entry, vitals: Vitals) -> None:
        vitals.state, began = "starting", self._clock.monotonic()
        try:
            await entry.service.start(self._resources)
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            if isinstance(error, asyncio.CancelledError) and self.closed:
                vitals.state = "cold"
                raise
            # No room now is no fault of its own, and may be over at once.
            vitals.state = "cold" if isinstance(error, Overloaded) else "failed"
            entry.failed_at = self._clock.monotonic()
            entry.error = _own(error, entry.name, "start")
            raise entry.error from error
        else:
            vitals.state, entry.error = "ready", None
        finally:
            entry.starting = None
            took = self._clock.monotonic() - began
            failure = type(entry.error).__name__ if entry.error is not None and vitals.state != "ready" else ""
            self._emit(Event(kind="start", at=self._clock.now(), seconds=took, model=entry.name, error=failure))


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Work that many callers share: it sees no caller's context variables, and nobody need be there for its error."""
    task = asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _own(error: BaseException, model: str, step: str) -> GatewayError:
    """The error itself when it is gateway's, else one that names only its type and place: its message may hold anything."""
    if isinstance(error, GatewayError):
        if isinstance(error, ServiceError) and not error.model:
            error.model = model
        return error
    crash = ServiceCrashed(f"model {model!r} raised {told(error)} in {step}", model=model, cause=type(error).__name__)
    crash.__cause__ = error
    return crash


def whose(plugin: str) -> str:
    """Who provides something, in words; plugins are quoted, the app and gateway itself are not."""
    return plugin if plugin in ("the app", "gateway") else f"plugin {plugin!r}"
