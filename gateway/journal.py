"""Journal: what happened on one call. It keeps the attempts, teaches the vitals of the services, and tells observers."""

from __future__ import annotations

from typing import Literal

from gateway.card import Usage
from gateway.errors import (
    AttemptTimeout,
    ContentFiltered,
    ContextTooLong,
    ModelMissing,
    Rejected,
    ServiceError,
    TransformFailed,
    Unsupported,
)
from gateway.events import Event
from gateway.hop import Hop, House
from gateway.request import Request, Response
from gateway.retry import refuses_the_key
from gateway.routing import Ask
from gateway.settle import cost_usd, give_back, stamped, usage_of_failure
from gateway.trace import Attempt, Trace, total_usd

# The caller's own faults, and a transform's: they say nothing about how reliable a service is.
NOT_THE_SERVICES_FAULT = (Unsupported, ContextTooLong, ContentFiltered, Rejected, TransformFailed)
# One is enough to leave a service alone for a while: its key, its account or its model is not there, or it hangs.
AT_ONCE = (ModelMissing, AttemptTimeout)


class Journal:
    """One call's. Times are the clock's monotonic readings."""

    def __init__(self, house: House, request: Request[Response], *, streamed: bool) -> None:
        self.began = house.clock.monotonic()
        self.attempts: tuple[Attempt, ...] = ()
        self._id = house.calls
        self._house = house
        self._request = request
        self._streamed = streamed

    async def answered(self, hop: Hop, response: Response, ask: Ask, trace: Trace) -> Response:
        """Settle a hop that answered, and learn from it. The response with its model, its whole cost and the trace."""
        house, usage, name = self._house, response.usage, hop.card.name
        now = house.clock.monotonic()
        took, cost = now - hop.began - hop.idle_s, cost_usd(hop, usage)
        before = self.attempts
        attempts = (*before, self._attempt(hop, took, cost))
        total = cost if not before else total_usd(attempts)
        trace.attempts, trace.seconds, trace.cost_usd = attempts, now - self.began, total
        usage = usage if total == usage.cost_usd else stamped(usage, cost_usd=total)
        response = stamped(response, model=name, usage=usage, trace=trace)
        if hop.lease is None:
            hop.release()
        else:
            await give_back(house, hop, usage, cost)
        self.attempts = attempts
        if hop.answer is None:
            vitals = hop.vitals
            vitals.succeeded(self._request.task, took, hop.first_token_s, usage.output_tokens, now, hop.live)
            vitals.spent_usd += cost or 0.0
            if response.quota is not None:
                vitals.allowed(response.quota, now)
            if ask.conversation:
                house.router.answered(ask, name)
        if house.watched:
            self._tell("attempt", hop, took, usage=usage, response=response)
            self._tell("request", hop, trace.seconds, usage=usage, response=response)
        return response

    async def failed(
        self, hop: Hop, error: ServiceError | None, kind: str, message: str, ask: Ask, *, sent: bool = True
    ) -> None:
        """Settle a hop that failed, and learn from it; `error` is None when its caller gave up, or its request is wrong.

        `sent` is False when nothing has left for the model.
        """
        # Who gives up, or waits no longer, is billed for what the model has read all the same.
        billed = (
            sent
            and hop.taken
            and hop.answer is None
            and hop.vitals.state == "ready"
            and (error is None or isinstance(error, AttemptTimeout))
        )
        usage = usage_of_failure(hop, error, ask.input_tokens, billed=billed)
        await give_back(self._house, hop, usage, usage.cost_usd, sent=sent)
        now = self._house.clock.monotonic()
        self._note(hop, kind, message, now, usage)
        if error is not None and error.spare_key:
            if hop.probe:  # one key's trouble says nothing of the model
                hop.vitals.breaker.left(now)
        elif error is not None and not isinstance(error, NOT_THE_SERVICES_FAULT):
            self._learn(hop, error, now)
        elif hop.probe and error is not None and not isinstance(error, TransformFailed):
            hop.vitals.breaker.succeeded(now)  # it answers: what was wrong is the request
        elif hop.probe:
            hop.vitals.breaker.left(now)

    async def lost(self, hop: Hop, winner: str, ask: Ask) -> None:
        """Settle the slower of two hedged hops: it was cancelled, and its input is billed."""
        usage = usage_of_failure(hop, None, ask.input_tokens, billed=True)
        await give_back(self._house, hop, usage, usage.cost_usd)
        now = self._house.clock.monotonic()
        if hop.probe:
            hop.vitals.breaker.left(now)
        if not hop.delivered:
            hop.vitals.slow(now - hop.began)
        self._note(hop, "Hedged", f"{winner!r} began first", now, usage)

    def over(self, kind: str, hop: Hop | None = None) -> None:
        """The whole request has failed."""
        if self._house.watched:
            total = total_usd(self.attempts)
            seconds = self._house.clock.monotonic() - self.began
            self._tell("request", hop, seconds, usage=Usage(cost_usd=total), error=kind)

    def _note(self, hop: Hop, kind: str, message: str, now: float, usage: Usage) -> None:
        took = now - hop.began - hop.idle_s
        self.attempts = (*self.attempts, self._attempt(hop, took, usage.cost_usd, kind, message))
        hop.vitals.spent_usd += usage.cost_usd or 0.0
        if self._house.watched:
            self._tell("attempt", hop, took, usage=usage, error=kind)

    def _attempt(self, hop: Hop, took: float, cost: float | None, error: str = "", message: str = "") -> Attempt:
        return Attempt(
            model=hop.card.name,
            at_s=hop.asked - self.began,
            seconds=took,
            first_token_s=hop.first_token_s,
            cost_usd=cost,
            error=error,
            message=message,
            hedge=hop.hedge,
        )

    def _learn(self, hop: Hop, error: ServiceError, now: float) -> None:
        """A failure of the service's own: its chances fall, its breaker counts, and what it asks for is kept to."""
        vitals, kind, chance = hop.vitals, type(error).__name__, self._house.random.random()
        vitals.failed(
            now, kind, chance, began=hop.began, probe=hop.probe, at_once=isinstance(error, AT_ONCE) or refuses_the_key(error)
        )
        if error.retry_after_s:
            vitals.breaker.wait(now + error.retry_after_s, now, f"{kind}: it asked to wait {error.retry_after_s:g} s")
        if refuses_the_key(error):
            self._house.registry.knowledge.denied(vitals, now, kind, chance)

    def _tell(
        self,
        kind: Literal["request", "attempt"],
        hop: Hop | None,
        seconds: float,
        *,
        usage: Usage,
        response: Response | None = None,
        error: str = "",
    ) -> None:
        request, meta = self._request, self._request.meta
        card = hop.card if hop is not None else None
        self._house.emit(
            Event(
                kind=kind,
                at=self._house.clock.now(),
                seconds=seconds,
                request_id=self._id,
                task=request.task,
                model=card.name if card else "",
                provider=(card.provider or card.name) if card else "",
                served_by=getattr(response, "served_by", ""),
                place=card.place if card else "",
                stream=self._streamed,
                first_token_s=hop.first_token_s if hop else None,
                usage=usage,
                finish=getattr(response, "finish", ""),
                error=error,
                attempts=len(self.attempts),
                tenant=meta.tenant,
                conversation=meta.conversation,
                max_tokens=getattr(request, "max_tokens", None),
                temperature=getattr(request, "temperature", None),
                top_p=getattr(request, "top_p", None),
                notes=hop.notes if hop else (),
            )
        )
