"""Registry: name -> service, described and started lazily, each once; one that fails fails alone."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence

from gateway.card import ModelCard
from gateway.clock import Clock
from gateway.errors import (
    BadReply,
    Closed,
    GatewayError,
    PluginError,
    ServiceCrashed,
    ServiceError,
)
from gateway.events import Event
from gateway.live import Live
from gateway.service import ModelService, Resources, service_name

DESCRIBE_LIMIT_S = 30.0
RETRY_S = 30.0
"""A describe or start that failed is tried again after so long, when next needed."""


class Entry:
    """One service with what is known of it. `card` and `live` are None until it has been described."""

    __slots__ = ("card", "error", "failed_at", "live", "name", "plugin", "service", "starting")

    def __init__(self, service: ModelService, plugin: str) -> None:
        self.service = service
        self.name = service_name(service)
        self.plugin = plugin
        self.card: ModelCard | None = None
        self.live: Live | None = None
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
        self.entries: dict[str, Entry] = {}
        self.version = 0
        """Changes whenever a card is learnt or lost: what was cached about cards is then stale."""
        self._resources = resources
        self._clock = clock
        self._emit = emit
        self._describing: asyncio.Task[None] | None = None
        self._undescribed = True
        self._retry_at = 0.0
        for plugin, service in services:
            entry = Entry(service, plugin)
            other = self.entries.setdefault(entry.name, entry)
            if other is not entry:
                who = f"{other.plugin!r} and {plugin!r}"
                raise PluginError(f"two models are named {entry.name!r}: from the plugins {who}; rename one", plugin=plugin)

    async def described(self) -> Sequence[Entry]:
        """All entries, each described or with the reason why not. Concurrent callers share one round."""
        if self._undescribed and (self._describing is not None or self._clock.monotonic() >= self._retry_at):
            if self._describing is None:
                self._describing = asyncio.create_task(self._describe_all(), name="gateway describe")
            await asyncio.shield(self._describing)
        return tuple(self.entries.values())

    async def start(self, entry: Entry) -> None:
        """Start a service once. Raises its error, also to those who come within `RETRY_S` of the failure."""
        live = entry.live
        assert live is not None  # only described entries are chosen
        if live.state == "ready":
            return
        if live.state == "failed" and self._clock.monotonic() < entry.failed_at + RETRY_S:
            assert entry.error is not None
            raise copy.copy(entry.error)  # errors gather facts on their way: each caller gets its own
        if entry.starting is None:
            # A task of its own: a caller that gives up must not stop the loading that others wait for.
            entry.starting = asyncio.create_task(self._start(entry, live), name=f"gateway start {entry.name}")
        try:
            await asyncio.shield(entry.starting)
        except GatewayError as error:
            raise copy.copy(error) from error.__cause__

    async def aclose(self) -> None:
        """Stop what is being started and close every service; the last error is raised when all are closed."""
        tasks = [entry.starting for entry in self.entries.values() if entry.starting] + [self._describing]
        for task in tasks:
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, GatewayError):
                    await task
        failure: GatewayError | None = None
        for entry in self.entries.values():
            try:
                await entry.service.aclose()
            except Exception as error:
                failure = _own(error, entry.name, "aclose")
                failure.__cause__ = error
        if failure is not None:
            raise failure

    async def _describe_all(self) -> None:
        try:
            todo = [entry for entry in self.entries.values() if entry.card is None]
            await asyncio.gather(*(self._describe(entry) for entry in todo))
            self._undescribed = any(entry.card is None for entry in self.entries.values())
            self._retry_at = self._clock.monotonic() + RETRY_S
            self.version += 1
        finally:
            self._describing = None

    async def _describe(self, entry: Entry) -> None:
        try:
            async with asyncio.timeout(DESCRIBE_LIMIT_S):
                card = await entry.service.describe(self._resources)
            if not isinstance(card, ModelCard) or card.name != entry.name:
                raise BadReply(f"describe of {entry.name!r} gave no ModelCard of that name", model=entry.name)
        except TimeoutError:
            entry.error = ServiceCrashed(f"describe took longer than {DESCRIBE_LIMIT_S:g} s", model=entry.name)
        except Exception as error:
            entry.error = _own(error, entry.name, "describe")
        else:
            entry.card, entry.live, entry.error = card, Live(card), None

    async def _start(self, entry: Entry, live: Live) -> None:
        live.state, began = "starting", self._clock.monotonic()
        try:
            await entry.service.start(self._resources)
        except asyncio.CancelledError:
            live.state = "cold"
            raise Closed(f"the gateway was closed while {entry.name!r} was starting") from None
        except Exception as error:
            live.state, entry.failed_at = "failed", self._clock.monotonic()
            entry.error = _own(error, entry.name, "start")
            raise entry.error from error
        else:
            live.state, entry.error = "ready", None
        finally:
            entry.starting = None
            took = self._clock.monotonic() - began
            failure = type(entry.error).__name__ if live.state == "failed" else ""
            self._emit(Event(kind="start", at=self._clock.now(), seconds=took, model=entry.name, error=failure))


def _own(error: Exception, model: str, step: str) -> GatewayError:
    """The error itself when it is gateway's, else one that names only its type: its message may hold anything."""
    if isinstance(error, GatewayError):
        if isinstance(error, ServiceError) and not error.model:
            error.model = model
        return error
    kind = type(error).__name__
    return ServiceCrashed(f"model {model!r} raised {kind} in {step}", model=model, cause=kind)
