"""Transform and Rewrite: what happens to a request on its way out, and to the reply on its way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.card import ModelCard
from gateway.parts import Delta
from gateway.request import Request, Response
from gateway.service import Resources


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a transform found in a request. `data_classes` route; `detail` is the transform's own and never shown."""

    data_classes: frozenset[str] = frozenset()
    detail: Any = field(default=None, repr=False, compare=False)


class Rewrite:
    """One attempt's way out and back: pure, and used for this attempt only.

    `request` is what goes out instead. The stream comes back through `feed`, one delta at a time, and `flush` at its
    end, like an incremental codec; what they yield must add up to what `incoming` makes of the whole response.
    """

    def __init__(self, request: Request[Any]) -> None:
        self.request = request
        self.note = ""
        """A line for the trace: counts and names, never content."""

    def incoming(self, response: Response) -> Response:
        """The whole response as the caller gets it."""
        return response

    def feed(self, delta: Delta) -> Iterable[Delta]:
        """What can be passed on now."""
        return (delta,)

    def flush(self) -> Iterable[Delta]:
        """What was held back, at the end of the stream."""
        return ()


class Transform:
    """Rewrites requests and replies. Applied in the configured order, undone in reverse."""

    name: str = ""

    async def inspect(self, request: Request[Any], resources: Resources) -> Findings | None:
        """Look at a request once, before any model is chosen. If this raises, only local models may serve it."""
        return None

    def begin(self, request: Request[Any], findings: Findings | None, card: ModelCard) -> Rewrite | Response | None:
        """Rewrite for one attempt on one model. None: nothing to do. A Response answers at once (a cache, a guard)."""
        return None
