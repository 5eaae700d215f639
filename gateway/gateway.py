"""AsyncGateway: decide, rewrite, call, restore, fall back. Read `run`, then `Stream`, then call.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from gateway.call import Call
from gateway.card import ANYTHING, ModelCard, Need
from gateway.clock import Clock, SystemClock, seeded
from gateway.config import GatewayConfig
from gateway.decision import Decision
from gateway.errors import BadReply, Closed, ConfigError, GatewayError, InvalidRequest, PluginError, ServiceCrashed
from gateway.events import Event, Observer
from gateway.hop import Hop, House
from gateway.keys import EnvKey, FileKey, Keys
from gateway.live import State
from gateway.otel import JsonLines
from gateway.parts import Delta, Restart
from gateway.plugins import Plugins, load
from gateway.policies import builtin_policies
from gateway.registry import DESCRIBE_LIMIT_S, Entry, Registry
from gateway.routing import Policy, Router
from gateway.service import ModelService, Progress, Resources, no_progress
from gateway.state import MemoryState, StateStore
from gateway.tasks import Chat, ChatResponse, Meta, Request, Response
from gateway.transform import Transform
from gateway.weights import FileStore

R = TypeVar("R", bound=Response)
Source = str | Path | Mapping[str, Any] | None

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus:
    """One model as it stands: its facts, who provides it, and what is known of it now."""

    name: str
    plugin: str
    card: ModelCard | None
    state: State | None
    error: GatewayError | None
    in_flight: int = 0
    first_token_s: float | None = None
    per_token_s: float | None = None
    success: float = 1.0


class AsyncGateway:
    """Models, local and hosted, behind one interface. Made by `discover`, `from_config`, or from services of your own.

    It belongs to the event loop that first uses it; close it with ``async with`` or `aclose`.
    """

    def __init__(
        self,
        models: Iterable[ModelService] = (),
        *,
        policies: Iterable[Policy] = (),
        transforms: Iterable[Transform] = (),
        observers: Iterable[Observer] = (),
        config: GatewayConfig | None = None,
        plugins: Plugins | None = None,
        clock: Clock | None = None,
        progress: Progress = no_progress,
    ) -> None:
        config = config or GatewayConfig()
        plugins = plugins or Plugins()
        app = Plugins(
            models=[*plugins.models, *(("the app", model) for model in models)],
            policies=[*plugins.policies, *(("the app", policy) for policy in policies)],
            transforms=[*plugins.transforms, *(("the app", transform) for transform in transforms)],
            stores=[("gateway", FileStore()), *plugins.stores],
            keys=[("gateway", EnvKey()), ("gateway", FileKey()), *plugins.keys],
            observers=[*plugins.observers, *(("the app", observer) for observer in observers)],
        )
        clock = clock or SystemClock()
        random = seeded(config.seed)
        self._observers: list[Observer] = [*app.named("observers").values()]
        if config.events is not None:
            self._observers.append(JsonLines(config.events))
        chosen, notes = _transforms(app.named("transforms"), config)
        resources = Resources(
            stores=app.named("stores"),
            keys=Keys(app.named("keys")),
            clock=clock,
            random=random,
            run=self.run,
            progress=progress,
        )
        rules = {policy.name: policy for policy in builtin_policies(config.policy)} | app.named("policies")
        self._house = House(
            registry=Registry(app.models, resources=resources, clock=clock, emit=self._emit),
            router=Router(rules.values(), random=random, notes=notes),
            transforms=chosen,
            resources=resources,
            state=_state(plugins, clock),
            limits=config.limit,
            clock=clock,
            emit=self._emit,
            watched=bool(self._observers),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @classmethod
    def discover(cls, *, progress: Progress = no_progress) -> Self:
        """A gateway of everything that is installed, without a configuration file."""
        return cls.from_config(None, progress=progress)

    @classmethod
    def from_config(cls, source: Source, *, progress: Progress = no_progress) -> Self:
        """A gateway as gateway.toml says; `source` is its path or a mapping of the same shape. ConfigError, PluginError."""
        config, plugins = load(source)
        return cls(config=config, plugins=plugins, progress=progress)

    async def run(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> R:
        """The answer of the best model that may and can. Falls back on failure; `reply.trace` says what happened.

        Raises NoEligibleModel, BudgetExceeded, DeadlineExceeded, a ServiceError, or AllModelsFailed.
        """
        call = self._call(request, need, meta, streamed=False)
        deadline_s = call.request.meta.deadline_s
        if deadline_s is None:
            return await self._run(call)  # type: ignore[no-any-return]  # `accept` has checked it
        scope = asyncio.timeout(deadline_s)
        try:
            async with scope:
                return await self._run(call)  # type: ignore[no-any-return]
        except TimeoutError:
            raise call.late() from None

    async def _run(self, call: Call) -> Any:
        await call.open()
        while True:
            hop = await call.next()
            try:
                raw = hop.answer if hop.answer is not None else await hop.entry.service.run(hop.request)
                response = call.accept(hop, raw)
            except BaseException as error:
                await call.fail(hop, error)
            else:
                return await call.succeed(hop, response)

    def stream(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> Stream[R]:
        """The answer as it comes: ``async with gw.stream(...) as s: async for delta in s: ...``; then `s.response`."""
        return Stream(self._call(request, need, meta, streamed=True))

    async def chat(self, text: str, need: Need | None = None, *, meta: Meta | None = None, **options: Any) -> ChatResponse:
        """Sugar for ``run(Chat.ask(text, **options), need)``."""
        return await self.run(Chat.ask(text, **options), need, meta=meta)

    async def explain(self, request: Request[Any], need: Need | None = None, *, meta: Meta | None = None) -> Decision:
        """How this request would be routed now: a table of every model, its scores, and why it was refused. Asks nobody."""
        call = self._call(request, need, meta, streamed=False)
        await call.open()
        return await call.decide()

    async def models(self) -> list[ModelStatus]:
        """Every model by name, described."""
        self._check_loop()
        now = self._house.clock.monotonic()
        out = []
        for entry in sorted(await self._house.registry.described(), key=lambda entry: entry.name):
            live = entry.live
            out.append(
                ModelStatus(
                    name=entry.name,
                    plugin=entry.plugin,
                    card=entry.card,
                    state=live.state if live else None,
                    error=entry.error,
                    in_flight=live.in_flight if live else 0,
                    first_token_s=live.first_token_s.value if live else None,
                    per_token_s=live.per_token_s.value if live else None,
                    success=live.success(now) if live else 1.0,
                )
            )
        return out

    async def check(self) -> dict[str, str | GatewayError]:
        """By model: a line about it, or the error that says what is wrong. Sends no request to a model."""

        async def one(entry: Entry) -> str | GatewayError:
            if entry.card is None:
                return entry.error or Closed("the gateway was closed meanwhile")
            try:
                async with asyncio.timeout(DESCRIBE_LIMIT_S):
                    return await entry.service.check(self._house.resources)
            except GatewayError as error:
                return error
            except Exception as error:
                kind = type(error).__name__  # its message may hold anything
                return ServiceCrashed(f"model {entry.name!r} raised {kind} in check", model=entry.name, cause=kind)

        self._check_loop()
        entries = sorted(await self._house.registry.described(), key=lambda entry: entry.name)
        return dict(zip([e.name for e in entries], await asyncio.gather(*map(one, entries)), strict=True))

    async def aclose(self) -> None:
        """Close every service. Calls under way fail with Closed or their own error; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._house.registry.aclose()
        finally:
            for observer in self._observers:
                if isinstance(observer, JsonLines):
                    observer.close()

    async def __aenter__(self) -> Self:
        self._check_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self.aclose()

    def _call(self, request: Request[Any], need: Need | None, meta: Meta | None, *, streamed: bool) -> Call:
        self._check_loop()
        if not isinstance(request, Request):
            kind = type(request).__name__
            raise InvalidRequest(f"request is a {kind}, not a Request such as Chat.ask(...)", field="request")
        if need is not None and not isinstance(need, Need):
            raise InvalidRequest(f"need is a {type(need).__name__}, not a Need", field="need")
        if meta is not None:
            request = request.with_meta(meta)
        return Call(self._house, request, need or ANYTHING, streamed=streamed)

    def _check_loop(self) -> None:
        if self._closed:
            raise Closed("this gateway has been closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise Closed("an AsyncGateway belongs to one event loop, and this is another: make one per loop, or use Gateway")

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception as error:
                # What is raised may quote anything: only its type is logged.
                log.error("observer %r raised %s", observer.name, type(error).__name__)


class Stream(Generic[R]):
    """A streamed answer: an async iterator of deltas, and after its end `response`. Always open it with ``async with``."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._response: R | None = None
        source = self._deltas()
        deadline_s = call.request.meta.deadline_s
        self._source = source if deadline_s is None else self._timed(source, deadline_s)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._source

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop, and free everything that the answer held: the service's slot, socket or thread."""
        await self._source.aclose()

    @property
    def response(self) -> R:
        """The whole response, once the stream has ended. RuntimeError before that."""
        if self._response is None:
            raise RuntimeError("the stream has not ended: iterate to its end first, or await result()")
        return self._response

    async def result(self) -> R:
        """Read the stream to its end and give the whole response."""
        async for _ in self._source:
            pass
        return self.response

    async def _deltas(self) -> AsyncGenerator[Delta, None]:
        call = self._call
        await call.open()
        while self._response is None:
            hop = await call.next()
            try:
                async with aclosing(self._of_hop(hop)) as deltas:
                    async for delta in deltas:
                        yield delta
            except BaseException as error:
                await call.fail(hop, error)

    async def _of_hop(self, hop: Hop) -> AsyncGenerator[Delta, None]:
        call, response, clock = self._call, None, self._call.clock
        delivered = hop.delivered
        async with aclosing(_events(hop)) as events:
            async for event in events:
                if response is not None:
                    raise BadReply(f"model {hop.card.name!r} sent more after its final response", model=hop.card.name)
                if isinstance(event, Delta):
                    if hop.first_token_s is None:
                        hop.first_token_s = clock.monotonic() - hop.began
                    if not hop.rewrites:
                        delivered.append(event)
                        yield event
                        continue
                    for out in hop.feed(event):
                        delivered.append(out)
                        yield out
                elif isinstance(event, Restart):
                    if delivered:
                        raise BadReply(f"model {hop.card.name!r} began again in mid-stream", model=hop.card.name)
                elif isinstance(event, Response):
                    response = event
                else:
                    kind = type(event).__name__
                    raise BadReply(f"model {hop.card.name!r} streamed a {kind}", model=hop.card.name)
        if response is None:
            raise BadReply(f"the stream of {hop.card.name!r} ended without a response", model=hop.card.name)
        for out in hop.flush():
            delivered.append(out)
            yield out
        self._response = await call.succeed(hop, call.accept(hop, response))  # type: ignore[assignment]

    async def _timed(self, source: AsyncGenerator[Delta, None], deadline_s: float) -> AsyncGenerator[Delta, None]:
        # The limit is set anew around each step: no cancel scope may span a yield (PEP 789).
        end = asyncio.get_running_loop().time() + deadline_s
        async with aclosing(source):
            while True:
                try:
                    async with asyncio.timeout_at(end):
                        delta = await anext(source)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise self._call.late() from None
                yield delta


def _events(hop: Hop) -> AsyncGenerator[Delta | Restart | Response, None]:
    """What the hop's service streams, or a transform's own answer in the same form."""
    if hop.answer is not None:
        return _whole(hop.answer)
    events: Any = hop.entry.service.stream(hop.request)
    return events if hasattr(events, "aclose") else _closable(events)


async def _whole(response: Response) -> AsyncGenerator[Delta | Restart | Response, None]:
    for delta in response.deltas():
        yield delta
    yield response


async def _closable(events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for event in events:
        yield event


def _transforms(installed: Mapping[str, Transform], config: GatewayConfig) -> tuple[list[Transform], tuple[str, ...]]:
    """The transforms to apply, in order, and a note for each that is installed but left out."""
    if config.transforms is None:
        return [installed[name] for name in sorted(installed)], ()
    for name in config.transforms:
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            raise ConfigError(f"transforms: no transform {name!r} is installed (there are: {known})")
    left_out = sorted(set(installed) - set(config.transforms))
    notes = tuple(f"transform {name!r} is installed but left out of `transforms`" for name in left_out)
    return [installed[name] for name in config.transforms], notes


def _state(plugins: Plugins, clock: Clock) -> StateStore:
    if len(plugins.states) > 1:
        names = ", ".join(sorted(name for name, _ in plugins.states))
        raise PluginError(f"more than one plugin provides a state store: {names}; leave all but one out")
    return plugins.states[0][1] if plugins.states else MemoryState(clock)
