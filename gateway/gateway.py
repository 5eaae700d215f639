"""AsyncGateway: decide, rewrite, call, restore, fall back. Read `run`, then call.py, then stream.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.asking import Race, hedge_after_s, reply
from gateway.batch import Batch
from gateway.call import Call
from gateway.card import ANYTHING, ModelCard, Need, check_number
from gateway.clock import Clock, SystemClock, seeded
from gateway.config import GatewayConfig, located
from gateway.decision import Decision
from gateway.errors import Closed, ConfigError, GatewayError, InvalidRequest, told
from gateway.events import Event, Observer
from gateway.hop import House
from gateway.keys import EnvKey, FileKey, KeyringKey, Keys
from gateway.live import State
from gateway.otel import JsonLines
from gateway.plugins import Plugins, chosen_state, chosen_transforms, load
from gateway.policies import builtin_policies
from gateway.registry import Registry
from gateway.remember import recall, snapshot, write
from gateway.request import Meta, Request, Response
from gateway.retry import RetryBudget
from gateway.router import Router
from gateway.routes import Routes
from gateway.routing import Policy
from gateway.service import Footprint, ModelService, Progress, Resources, no_progress
from gateway.settle import unpriced
from gateway.stream import Stream
from gateway.survey import checked, footprint_of, offered
from gateway.tasks import Chat, ChatResponse
from gateway.transform import Transform
from gateway.weights import FileStore

R = TypeVar("R", bound=Response)
Source = str | Path | Mapping[str, Any] | None

REMEMBER_S = 60.0
"""How often what was measured is written down, where it is to be remembered."""

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
    shut: str = ""
    """Why it is not asked at the moment, where it has failed or asked to wait."""
    footprint: Footprint | None = None


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
            keys=[*(("gateway", own) for own in (EnvKey(), FileKey(), KeyringKey())), *plugins.keys],
            observers=[*plugins.observers, *(("the app", observer) for observer in observers)],
        )
        clock = clock or SystemClock()
        random = seeded(config.seed)
        self._observers: list[Observer] = [*app.named("observers").values()]
        if config.events is not None:
            self._observers.append(JsonLines(config.events))
        chosen, notes = chosen_transforms(app.named("transforms"), config)
        stores, keys = app.named("stores"), Keys(app.named("keys"))
        lent = partial(Resources, stores=stores, keys=keys, clock=clock, random=random, progress=progress)
        self._resources = lent(run=self.run)
        rules = {policy.name: policy for policy in builtin_policies(config.policy)} | app.named("policies")
        registry = Registry(app.models, resources=self._resources, clock=clock, emit=self._emit)
        self._resources.unloaded = registry.unloaded
        knowledge = registry.knowledge
        self._house = House(
            registry=registry,
            router=Router(rules.values(), random=random, config=config.policy, knowledge=knowledge, notes=notes),
            transforms=chosen,
            resources=lent(run=self._inside),
            state=chosen_state(plugins, config, clock),
            limits=config.limit,
            routes=Routes(config.route),
            attempt=config.attempt,
            retry=config.retry,
            hedge=config.hedge,
            spare=RetryBudget(clock, config.retry.share),
            hedges=RetryBudget(clock, config.hedge.share, begin=1.0, per_second=0.0),
            random=random,
            clock=clock,
            emit=self._emit,
            watched=bool(self._observers),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._check_routes()
        registry.on_described = self._warn_of_routes
        self._remember, self._remember_at = config.policy.remember, clock.monotonic() + REMEMBER_S
        if self._remember is not None:
            recall(self._remember, knowledge)

    @classmethod
    def discover(cls, *, progress: Progress = no_progress) -> Self:
        """A gateway of everything that is installed, without a configuration file."""
        return cls.from_config(None, progress=progress)

    @classmethod
    def from_config(cls, source: Source, *, progress: Progress = no_progress) -> Self:
        """A gateway as gateway.toml says; `source` is its path or a mapping of the same shape. ConfigError, PluginError."""
        config, plugins = load(source)
        try:
            return cls(config=config, plugins=plugins, progress=progress)
        except ConfigError as error:
            raise located(error, source) from None

    async def run(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> R:
        """The answer of the best model that may and can. Falls back on failure; `reply.trace` says what happened.

        Raises NoEligibleModel, BudgetExceeded, DeadlineExceeded, a ServiceError, or AllModelsFailed.
        """
        return await self._answer(self._call(request, need, meta))  # type: ignore[no-any-return]  # `accept` checked it

    async def _answer(self, call: Call) -> Any:
        deadline_s = call.request.meta.deadline_s
        if deadline_s is None:
            return await self._run(call)
        scope = asyncio.timeout(deadline_s)
        try:
            async with scope:
                return await self._run(call)
        except TimeoutError:
            if scope.expired():
                raise call.late() from None
            raise

    async def _run(self, call: Call) -> Any:
        await call.open()
        while True:
            hop = await call.next()
            try:
                after_s = hedge_after_s(call, hop) if self._house.hedge.share else None
                if after_s is None:
                    raw = await reply(call, hop)
                else:
                    race: Race[Any] = Race(call, hop)
                    try:
                        raw = await race.begin(reply, after_s)
                    finally:
                        hop = race.hop
                return await call.succeed(hop, call.accept(hop, raw))
            except BaseException as error:
                await call.fail(hop, error)

    async def _inside(self, request: Request[Any], need: Need) -> Response:
        """What a transform's resources run: without transforms, and on this machine only."""
        answer: Response = await self._answer(self._call(request, need, None, inside=True))
        return answer

    def stream(self, request: Request[R], need: Need | None = None, *, meta: Meta | None = None) -> Stream[R]:
        """The answer as it comes: ``async with gw.stream(...) as s: async for delta in s: ...``; then `s.response`."""
        return Stream(self._call(request, need, meta, streamed=True))

    async def chat(self, text: str, need: Need | None = None, *, meta: Meta | None = None, **options: Any) -> ChatResponse:
        """Sugar for ``run(Chat.ask(text, **options), need)``."""
        return await self.run(Chat.ask(text, **options), need, meta=meta)

    async def map(
        self,
        requests: Iterable[Request[R] | GatewayError] | AsyncIterable[Request[R] | GatewayError],
        need: Need | None = None,
        *,
        meta: Meta | None = None,
        max_concurrency: int = 32,
        max_rps: float | None = None,
        journal: str | Path | None = None,
        progress: Progress | bool = True,
        each: Callable[[int, R | GatewayError], object] | None = None,
    ) -> list[R | GatewayError]:
        """The answers to many requests, in their order, with the error in the place of each that failed.

        Requests are read as they can begin, on this event loop, so there may be any number; at most `max_concurrency` are under
        way, and at most `max_rps` begin in a second. With a `journal`, a file that holds answers, what it answers is not asked
        again: see batch_journal.py. `progress` is a bar on a terminal, or is told how many are done. A GatewayError among the
        requests is its own result. Closed, a ConfigError of the journal, and what `requests` or `each` raises end it all.

        All the results are kept and returned. With `each` none is: it is called with the place of a request, from 0, and its
        result, in their order, as soon as all before it are there; what it returns is awaited if that can be. A slow one holds
        the batch up, and at most 8 times `max_concurrency` results wait for an earlier one.
        """
        self._check_loop()
        ask = partial(self.run, need=need, meta=meta)
        batch = Batch(
            ask, self._house.clock, need=need, meta=meta, max_concurrency=max_concurrency, max_rps=max_rps, journal=journal,
            progress=progress, each=each,
        )  # fmt: skip
        return await batch.run(requests)

    async def explain(self, request: Request[Any], need: Need | None = None, *, meta: Meta | None = None) -> Decision:
        """How this request would be routed now: a table of every model, its scores, and why it was refused.

        No model is asked, but by a transform that needs one to inspect the request; limits are not looked at.
        """
        call = self._call(request, need, meta)
        await call.open()
        return await call.decide(dry=True)

    async def feedback(self, reply: Response, score: float) -> None:
        """Say how good an answer was, from 0 to 1: what its model's quality for the task is taken to be moves towards it.

        InvalidRequest for a score out of range, and for a reply that none of this gateway's models gave.
        """
        self._check_loop()
        check_number(score, "score", low=0.0, high=1.0)
        trace = reply.trace if isinstance(reply, Response) else None
        vitals = self._house.registry.knowledge.vitals.get(trace.model) if trace is not None else None
        if score is None or trace is None or vitals is None or trace.decision is None:
            raise InvalidRequest(
                "feedback takes a reply of this gateway, with its trace, and a score from 0 to 1", field="reply"
            )
        vitals.scored(trace.decision.task, float(score))

    async def models(self) -> list[ModelStatus]:
        """Every model by name, described."""
        self._check_loop()
        now = self._house.clock.monotonic()
        out = []
        for entry in sorted(await self._house.registry.described(), key=lambda entry: entry.name):
            live = entry.vitals.read("chat", now) if entry.vitals else None
            out.append(
                ModelStatus(
                    name=entry.name,
                    plugin=entry.plugin,
                    card=entry.card,
                    state=live.state if live else None,
                    error=entry.error,
                    in_flight=live.in_flight if live else 0,
                    first_token_s=live.first_token_s if live else None,
                    per_token_s=live.per_token_s if live else None,
                    success=live.success if live else 1.0,
                    shut=str(shut) if entry.vitals and (shut := entry.vitals.breaker.refusal(now)) else "",
                    footprint=footprint_of(entry),
                )
            )
        return out

    async def check(self) -> dict[str, str | GatewayError]:
        """By model: a line about it, or the error that says what is wrong; each route that no model can serve, and each limit
        that refuses models for want of a price.

        Sends no request to a model.
        """
        self._check_loop()
        entries = sorted(await self._house.registry.described(), key=lambda entry: entry.name)
        found = await checked(entries, self._resources)
        cards = [entry.card for entry in entries if entry.card is not None]
        found |= {f"route {name}": ConfigError(why) for name, why in self._unservable(cards).items()}
        return found | {f"limit {name}": ConfigError(why) for name, why in unpriced(self._house.limits, cards).items()}

    async def offered(self, name: str) -> Sequence[ModelCard]:
        """What the endpoint of a model, or of a provider, offers: see `ModelService.offered`. UnknownModel, ServiceError."""
        self._check_loop()
        entries = sorted(await self._house.registry.described(), key=lambda entry: entry.name)
        return await offered(name, entries, self._resources)

    async def aclose(self) -> None:
        """Close every service. Calls under way fail with Closed or their own error; closing twice is harmless."""
        self._closed = True
        try:
            await self._house.registry.aclose()
        finally:
            if self._remember is not None:
                await asyncio.to_thread(write, self._remember, snapshot(self._house.registry.knowledge))
                self._remember = None
            if (close := getattr(self._house.state, "aclose", None)) is not None:
                await close()
            for observer in self._observers:
                if isinstance(observer, JsonLines):
                    observer.close()

    async def __aenter__(self) -> Self:
        self._check_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self.aclose()

    def _call(
        self, request: Request[Any], need: Need | None, meta: Meta | None, *, streamed: bool = False, inside: bool = False
    ) -> Call:
        self._check_loop()
        if not isinstance(request, Request):
            kind = type(request).__name__
            raise InvalidRequest(f"request is a {kind}, not a Request such as Chat.ask(...)", field="request")
        if need is not None and not isinstance(need, Need):
            raise InvalidRequest(f"need is a {type(need).__name__}, not a Need", field="need")
        if meta is not None:
            request = request.with_meta(meta)
        if self._remember is not None and (now := self._house.clock.monotonic()) >= self._remember_at:
            self._remember_at = now + REMEMBER_S
            kept = snapshot(self._house.registry.knowledge)
            asyncio.get_running_loop().run_in_executor(None, write, self._remember, kept)
        if not isinstance(request.meta, Meta):
            raise InvalidRequest(f"meta is a {type(request.meta).__name__}, not a Meta", field="meta")
        return Call(self._house, request, need or ANYTHING, streamed=streamed, inside=inside)

    def _unservable(self, cards: Iterable[ModelCard]) -> dict[str, str]:
        return self._house.routes.unservable(cards, self._house.router.policies)

    def _check_routes(self) -> None:
        """ConfigError for a route that no model can ever serve, as far as that can be told before models are described."""
        routes, entries = self._house.routes, self._house.registry.entries
        if not routes.names:
            return
        wrong = {f"{name}.model": why for name, why in routes.nameless(entries).items()}
        cards = [getattr(entry.service, "card", None) for entry in entries.values()]
        if not wrong and all(isinstance(card, ModelCard) for card in cards):
            wrong = self._unservable([card for card in cards if card is not None])
        if wrong:
            raise ConfigError("; ".join(f"route.{key}: {why}" for key, why in wrong.items()))

    def _warn_of_routes(self) -> None:
        routes, entries = self._house.routes, self._house.registry.entries.values()
        if routes.names and all(entry.card is not None for entry in entries):
            for name, why in self._unservable([entry.card for entry in entries if entry.card is not None]).items():
                log.warning("route.%s: %s", name, why)

    def _check_loop(self) -> None:
        if self._closed:
            raise Closed("this gateway has been closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = self._house.loop = loop
        elif self._loop is not loop:
            raise Closed("an AsyncGateway belongs to one event loop, and this is another: make one per loop, or use Gateway")

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.on_event(event)
            except (Exception, asyncio.CancelledError) as error:
                # What is raised may quote anything: only its type and place are logged.
                log.error("observer %r raised %s", observer.name, told(error))
