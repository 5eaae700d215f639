"""House, what all calls of one gateway share; Hop, one attempt on one model, from reservation to settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.card import ModelCard
from gateway.clock import Clock, Random
from gateway.config import AttemptConfig, HedgeConfig, LimitConfig, RetryConfig
from gateway.errors import TransformFailed, told
from gateway.events import Event
from gateway.live import Live
from gateway.parts import Delta
from gateway.registry import Entry, Registry
from gateway.request import Request, Response
from gateway.retry import RetryBudget
from gateway.router import Router
from gateway.routes import Routes
from gateway.service import Resources
from gateway.state import Lease, StateStore
from gateway.transform import Rewrite, Transform
from gateway.vitals import Vitals


@dataclass(kw_only=True)
class House:
    """What every call of one gateway shares."""

    registry: Registry
    router: Router
    transforms: Sequence[Transform]
    resources: Resources
    """What a transform may use: other models too, but without transforms, and none that is not local."""
    state: StateStore
    limits: Sequence[LimitConfig]
    routes: Routes
    attempt: AttemptConfig
    retry: RetryConfig
    hedge: HedgeConfig
    spare: RetryBudget
    """What may be spent on retries and hedges, over all calls;"""
    hedges: RetryBudget
    """and on hedges alone."""
    random: Random
    clock: Clock
    emit: Callable[[Event], None]
    watched: bool
    calls: int = 0
    loop: asyncio.AbstractEventLoop | None = None
    """The loop that the gateway belongs to. To ask Python which one runs is a system call, each time."""


@dataclass(slots=True)
class Hop:
    """One attempt on one model, from reservation to settlement."""

    entry: Entry
    card: ModelCard
    vitals: Vitals
    live: Live
    """What was known of the model when it was chosen."""
    request: Request[Any]
    cancels: int = 0
    """How often the task had been cancelled when this began: a higher count later is the caller's own doing."""
    rewrites: list[tuple[str, Rewrite]] = field(default_factory=list)
    """With the name of each one's transform."""
    answer: Response | None = None
    """A transform's own answer: the model is then not asked."""
    lease: Lease | None = None
    taken: bool = False
    """It counts as in flight."""
    hedge: bool = False
    """It was asked beside another one that was slow to begin."""
    probe: bool = False
    """Its outcome decides whether the model's breaker closes."""
    settled: bool = False
    """What it took has been given back."""
    began: float = 0.0
    """When it was sent: after loading."""
    asked: float = 0.0
    """When the model was chosen."""
    idle_s: float = 0.0
    """How long the reader of the stream kept the model waiting: no part of its latency."""
    first_token_s: float | None = None
    delivered: list[Delta] = field(default_factory=list)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the rewrites say of themselves."""
        return tuple([rewrite.note for _, rewrite in self.rewrites if rewrite.note])

    def release(self) -> None:
        """No longer count as in flight; called once."""
        self.settled = True
        if self.taken:
            self.vitals.in_flight -= 1

    def feed(self, delta: Delta) -> Iterable[Delta]:
        """A delta of the model, through the rewrites in reverse order."""
        deltas: Iterable[Delta] = (delta,)
        for name, rewrite in reversed(self.rewrites):
            try:
                deltas = [out for one in deltas for out in rewrite.feed(one)]
            except Exception as error:
                raise self.broken(name, error) from error
        return deltas

    def flush(self) -> Iterable[Delta]:
        """What the rewrites still held back at the end of the stream."""
        held: list[Delta] = []
        for name, rewrite in reversed(self.rewrites):
            try:
                held = [out for one in held for out in rewrite.feed(one)]
                held.extend(rewrite.flush())
            except Exception as error:
                raise self.broken(name, error) from error
        return held

    def incoming(self, response: Response) -> Response:
        """The model's whole response, through the rewrites in reverse order."""
        for name, rewrite in reversed(self.rewrites):
            try:
                response = rewrite.incoming(response)
            except Exception as error:
                raise self.broken(name, error) from error
        return response

    def broken(self, transform: str, error: Exception, *, fallbackable: bool | None = None) -> TransformFailed:
        """The error for a transform that raised; a reply that cannot be restored cannot be used, nor asked for again."""
        message = f"transform {transform!r} raised {told(error)}"
        return TransformFailed(message, model=self.card.name, transform=transform, fallbackable=fallbackable)
