"""House, what all calls of one gateway share; Hop, one attempt on one model, from reservation to settlement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.card import ModelCard
from gateway.clock import Clock
from gateway.config import LimitConfig
from gateway.events import Event
from gateway.live import Live
from gateway.parts import Delta
from gateway.registry import Entry, Registry
from gateway.routing import Router
from gateway.service import Resources
from gateway.state import Lease, StateStore
from gateway.tasks import Request, Response
from gateway.transform import Rewrite, Transform


@dataclass(kw_only=True)
class House:
    """What every call of one gateway shares."""

    registry: Registry
    router: Router
    transforms: Sequence[Transform]
    resources: Resources
    state: StateStore
    limits: Sequence[LimitConfig]
    clock: Clock
    emit: Callable[[Event], None]
    watched: bool
    calls: int = 0


@dataclass(slots=True)
class Hop:
    """One attempt on one model, from reservation to settlement."""

    entry: Entry
    card: ModelCard
    live: Live
    request: Request[Any]
    rewrites: list[Rewrite] = field(default_factory=list)
    answer: Response | None = None
    """A transform's own answer: the model is then not asked."""
    lease: Lease | None = None
    began: float = 0.0
    first_token_s: float | None = None
    delivered: list[Delta] = field(default_factory=list)
    open: bool = True

    def feed(self, delta: Delta) -> Iterable[Delta]:
        """A delta of the model, through the rewrites in reverse order."""
        deltas: Iterable[Delta] = (delta,)
        for rewrite in reversed(self.rewrites):
            deltas = [out for one in deltas for out in rewrite.feed(one)]
        return deltas

    def flush(self) -> Iterable[Delta]:
        """What the rewrites still held back at the end of the stream."""
        held: list[Delta] = []
        for rewrite in reversed(self.rewrites):
            held = [out for one in held for out in rewrite.feed(one)]
            held.extend(rewrite.flush())
        return held
