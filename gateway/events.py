"""Event and Observer: what happened, told as sizes, times, counts and choices; never content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gateway.card import Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that happened. `kind`: a whole request, one attempt on a model, or the start of a model.

    `at` is seconds since the epoch when it ended, `seconds` how long it took. `error` is an error's class name.
    """

    kind: Literal["request", "attempt", "start"]
    at: float
    seconds: float
    request_id: int = 0
    task: str = ""
    model: str = ""
    provider: str = ""
    served_by: str = ""
    place: str = ""
    stream: bool = False
    first_token_s: float | None = None
    usage: Usage | None = None
    finish: str = ""
    error: str = ""
    attempts: int = 0
    tenant: str = ""
    conversation: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    notes: tuple[str, ...] = ()
    """What transforms did to the request, such as ``scrub: 1 EMAIL``: counts and names, never content."""


@runtime_checkable
class Observer(Protocol):
    """Told of every event, on the gateway's loop: be quick. An observer that raises is logged and harms no request."""

    name: str

    def on_event(self, event: Event) -> None:
        """Something happened."""
