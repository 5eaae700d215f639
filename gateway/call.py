"""Call: one request's way through the gateway. Inspect, decide, reserve, rewrite, hand over; then settle, learn, record.

`run` and `stream` of the gateway differ only in how they take the service's answer: everything around it is here, once.
Whatever a hop took is given back in `succeed` or `fail`, however the call ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from gateway.card import Need, Usage, matches
from gateway.config import LimitConfig
from gateway.decision import Decision, Veto
from gateway.errors import (
    AllModelsFailed,
    BadReply,
    BudgetExceeded,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    NoEligibleModel,
    Rejected,
    ServiceCrashed,
    ServiceError,
    UnknownModel,
    Unsupported,
)
from gateway.events import Event
from gateway.hop import Hop, House
from gateway.live import OUTPUT_TOKENS
from gateway.parts import Delta
from gateway.policies import expected_usd
from gateway.routing import BYTES_PER_TOKEN, Ask, Shape
from gateway.state import Limit, Refusal, Unit
from gateway.tasks import NOTHING, Request, Response
from gateway.trace import Attempt, Trace
from gateway.transform import Findings

R = TypeVar("R", bound=Response)

# The caller's own faults: they say nothing about how reliable a service is.
CALLERS_FAULT = (Unsupported, ContextTooLong, ContentFiltered, Rejected)
SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 30 * 86_400.0}


class Call:
    """The state of one request on its way."""

    def __init__(self, house: House, request: Request[Any], need: Need, *, streamed: bool) -> None:
        house.calls += 1
        self.id = house.calls
        self.request = request
        self._house = house
        self._need = need
        self._streamed = streamed
        self._findings: list[Findings | None] = []
        self._attempts: list[Attempt] = []
        self._tried: dict[str, Veto] = {}
        self._refusals: list[Refusal] = []
        self._last: GatewayError | None = None
        self._decision: Decision | None = None
        self._delivered: list[Delta] = []
        self.clock = house.clock
        self._began = house.clock.monotonic()

    async def open(self) -> None:
        """Let the transforms look, then describe what has not been described."""
        reason, classes = "", NOTHING
        for transform in self._house.transforms:
            try:
                findings = await transform.inspect(self.request, self._house.resources)
            except Exception:
                # Fail closed: what could not be inspected must not leave this machine. No detail: it may be content.
                findings, reason = None, f"transform {transform.name!r} failed to inspect the request"
            self._findings.append(findings)
            if findings is not None:
                classes |= findings.data_classes
        meta, traits = self.request.meta, self.request.traits()
        if meta.data_class:
            classes |= {meta.data_class}
        shape = Shape(
            task=type(self.request),
            need=self._need,
            features=traits.features,
            modalities=traits.modalities,
            data_classes=classes,
            tenant=meta.tenant,
            local_only=reason,
        )
        self.ask = Ask(
            shape=shape,
            input_bytes=traits.input_bytes,
            input_tokens=traits.input_bytes // BYTES_PER_TOKEN,
            output_tokens=traits.output_tokens,
            conversation=meta.conversation,
            deadline_s=meta.deadline_s,
            now=self._began,
        )

    async def decide(self) -> Decision:
        """Judge every model for this request as things stand now."""
        entries = await self._house.registry.described()
        self._decision = self._house.router.decide(self.ask, entries, self._house.registry.version, self._tried)
        return self._decision

    async def next(self) -> Hop:
        """The next model to ask, started, paid for and with its request written. Raises when nobody is left."""
        while True:
            decision = await self.decide()
            if decision.chosen is None:
                raise self._nobody(decision)
            entry = self._house.registry.entries[decision.chosen]
            assert entry.card is not None and entry.live is not None  # only described entries are chosen
            hop = Hop(entry, entry.card, entry.live, self.request, began=self._house.clock.monotonic())
            hop.live.in_flight += 1
            try:
                refusal = await self._reserve(hop)
                if refusal is not None:
                    hop.live.in_flight -= 1
                    self._refusals.append(refusal)
                    frees = f"{refusal.used:g} used, frees in {refusal.frees_in_s:.0f} s"
                    allowed = f"{refusal.limit.max:g} {refusal.limit.unit} per {refusal.limit.window_s:g} s"
                    self._tried[entry.name] = Veto(f"limit {refusal.limit.key}", frees, allowed, "gateway")
                    continue
                if hop.live.state != "ready":
                    await self._house.registry.start(entry)
                    hop.began = self._house.clock.monotonic()  # loading is not the model's latency
                self._rewrite(hop)
            except BaseException as error:
                await self.fail(hop, error)
                continue
            return hop

    def accept(self, hop: Hop, response: object) -> Response:
        """A service's response, checked, restored by the rewrites, and made to fit the request."""
        expected = type(self.request).response
        if not isinstance(response, expected):
            got = type(response).__name__
            message = f"model {hop.card.name!r} answered with a {got}, not a {expected.__name__}"
            raise BadReply(message, model=hop.card.name)
        restored: Response = response
        for rewrite in reversed(hop.rewrites):
            restored = rewrite.incoming(restored)
        try:
            return self.request.accept(restored)
        except ValueError as error:
            # pydantic's message would quote the reply: only its type is told, the reply itself is an attribute.
            message = f"the reply of {hop.card.name!r} does not fit the asked-for shape ({type(error).__name__})"
            raise BadReply(message, model=hop.card.name, reply=restored) from None

    async def succeed(self, hop: Hop, response: Response) -> Response:
        """Settle the hop, learn from it, and give the response its model, cost and trace."""
        now = self._house.clock.monotonic()
        took, usage, name = now - hop.began, response.usage, hop.card.name
        cost = usage.cost_usd or self._cost(hop, usage)
        await self._give_back(hop, usage.input_tokens + usage.output_tokens, cost)
        if hop.answer is None:
            hop.live.succeeded(self.request.task, took, hop.first_token_s, usage.output_tokens)
        self._attempts.append(Attempt(model=name, seconds=took, first_token_s=hop.first_token_s, cost_usd=cost))
        total = cost if len(self._attempts) == 1 else sum(attempt.cost_usd for attempt in self._attempts)
        if total != usage.cost_usd:
            usage = stamped(usage, cost_usd=total)
        trace = Trace(
            model=name,
            attempts=tuple(self._attempts),
            seconds=now - self._began,
            first_token_s=hop.first_token_s,
            cost_usd=total,
            notes=tuple([rewrite.note for rewrite in hop.rewrites if rewrite.note]),
            decision=self._decision,
        )
        response = stamped(response, model=name, usage=usage, trace=trace)
        if self._house.watched:
            self._tell("attempt", hop, took, usage=response.usage, response=response)
            self._tell("request", hop, trace.seconds, usage=response.usage, response=response)
        return response

    async def fail(self, hop: Hop, error: BaseException) -> None:
        """Settle a failed hop. Returns when another model may be asked; raises what the caller gets otherwise."""
        if not hop.open:
            raise error
        name, now = hop.card.name, self._house.clock.monotonic()
        known = self._as_ours(hop, error)
        cost = self._cost_of_failure(hop, known)
        await self._give_back(hop, 0, cost)
        deadline_s = self.request.meta.deadline_s
        late = known is None and deadline_s is not None and now - self._began >= deadline_s
        kind = "DeadlineExceeded" if late else type(known or error).__name__
        message = str(known) if known is not None else ""
        self._attempts.append(
            Attempt(model=name, seconds=now - hop.began, first_token_s=hop.first_token_s, cost_usd=cost,
                    error=kind, message=message)
        )  # fmt: skip
        if self._house.watched:
            self._tell("attempt", hop, now - hop.began, usage=Usage(cost_usd=cost), error=kind)
        self._delivered = hop.delivered
        if known is None:  # cancelled, closed early, or the interpreter is going down
            if late and now - hop.began > hop.live.latency_s(OUTPUT_TOKENS):
                hop.live.failed(now)  # silent past its own forecast: a model that hangs must not stay first
            self._over(kind, hop)
            raise error
        if isinstance(known, ServiceError) and not isinstance(known, CALLERS_FAULT):
            hop.live.failed(now)
        curable = isinstance(known, ServiceError) and bool(known.fallbackable) and not hop.delivered
        if not curable:
            if hop.delivered and isinstance(known, (ServiceError, DeadlineExceeded)):
                known.partial = "".join(delta.text for delta in hop.delivered)
                if isinstance(known, ServiceError):
                    known.in_stream = True
            self._over(kind, hop)
            if isinstance(known, (ServiceError, DeadlineExceeded)):
                known.attempts = tuple(self._attempts)
            raise known from (error if known is not error else error.__cause__)
        self._last = known
        self._tried[name] = Veto("asked already", kind, "one attempt a model", "gateway")

    def late(self) -> DeadlineExceeded:
        """The error for when the caller's deadline has passed."""
        deadline_s = self.request.meta.deadline_s or 0.0
        return DeadlineExceeded(
            f"no whole answer within the deadline of {deadline_s:g} s",
            deadline_s=deadline_s,
            attempts=tuple(self._attempts),
            partial="".join(delta.text for delta in self._delivered),
        )

    def _nobody(self, decision: Decision) -> GatewayError:
        """The error for when no model is left, with the most telling reason."""
        failed = [attempt for attempt in self._attempts if attempt.error]
        if self._last is not None:
            self._over(type(self._last).__name__, None)
            if len(failed) == 1 and isinstance(self._last, ServiceError):
                self._last.attempts = tuple(self._attempts)
                return self._last
            tried = "; ".join(f"{attempt.model}: {attempt.error}: {attempt.message}" for attempt in failed)
            error = AllModelsFailed(f"each of {len(failed)} models failed: {tried}", attempts=tuple(self._attempts))
            error.__cause__ = self._last
            return error
        if self._refusals:
            soonest = min(self._refusals, key=lambda refusal: refusal.frees_in_s)
            limit = soonest.limit
            return BudgetExceeded(
                f"limit {limit.key}: {soonest.used:g} of {limit.max:g} {limit.unit} are used or reserved; "
                f"this request fits in {soonest.frees_in_s:.0f} s",
                limit=limit.key,
                frees_in_s=soonest.frees_in_s,
            )
        known = tuple(sorted(self._house.registry.entries))
        if self._need.model and not any(matches(name, self._need.model) for name in known):
            wanted = ", ".join(self._need.model)
            message = f"need.model: no model answers to {wanted!r}; there are: {', '.join(known) or 'none'}"
            return UnknownModel(message, field="need.model", known=known)
        if not known:
            message = "no model is installed or configured: install a plugin, or list one in gateway.toml"
            return NoEligibleModel(message, decision=decision)
        named = [c for c in decision.candidates if not self._need.model or matches(c.model, self._need.model)]
        reasons = "; ".join(f"{c.model}: {' and '.join(str(veto) for veto in c.vetoes)}" for c in named)
        message = f"no model can serve this {decision.task} request. {reasons}"
        return NoEligibleModel(message, decision=decision)

    def _rewrite(self, hop: Hop) -> None:
        for transform, findings in zip(self._house.transforms, self._findings, strict=True):
            result = transform.begin(hop.request, findings, hop.card)
            if isinstance(result, Response):
                hop.answer = result
                return
            if result is not None:
                hop.rewrites.append(result)
                hop.request = result.request

    async def _reserve(self, hop: Hop) -> Refusal | None:
        if not self._house.limits:
            return None
        tokens = hop.live.expected_tokens(self.request.task, self.ask.output_tokens)
        usd = expected_usd(self.ask, hop.card, hop.live)
        amounts: Mapping[Unit, float] = {"requests": 1.0, "tokens": self.ask.input_tokens + tokens, "usd": usd}
        outcome = await self._house.state.reserve(amounts, [self._limit(one, hop) for one in self._house.limits])
        if isinstance(outcome, Refusal):
            return outcome
        hop.lease = outcome
        return None

    def _limit(self, one: LimitConfig, hop: Hop) -> Limit:
        whose = {"all": "", "tenant": self.request.meta.tenant, "model": hop.card.name, "provider": hop.card.provider}
        key = f"{one.by}:{whose[one.by]}" if one.by != "all" else "all"
        return Limit(key, one.unit, one.max, SECONDS[one.per])

    async def _give_back(self, hop: Hop, tokens: float, usd: float) -> None:
        """Once per hop, however it ended."""
        hop.open = False
        hop.live.in_flight -= 1
        if hop.lease is not None:
            await self._house.state.settle(hop.lease, {"requests": 1.0, "tokens": tokens, "usd": usd})

    def _cost(self, hop: Hop, usage: Usage) -> float:
        price = hop.card.price_or_free()
        if price is None or hop.answer is not None:
            return 0.0
        return price.usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens)

    def _cost_of_failure(self, hop: Hop, error: GatewayError | None) -> float:
        """What a failed attempt was billed: by its own usage when it came, else as far as the stream had come."""
        if isinstance(error, BadReply) and error.reply is not None:
            return error.reply.usage.cost_usd or self._cost(hop, error.reply.usage)
        if hop.delivered:
            tokens = sum(len(delta.data) for delta in hop.delivered) // BYTES_PER_TOKEN
            return self._cost(hop, Usage(input_tokens=self.ask.input_tokens, output_tokens=tokens))
        return 0.0

    def _as_ours(self, hop: Hop, error: BaseException) -> GatewayError | None:
        """The error as one of the tree; None for what must pass through untouched."""
        name = hop.card.name
        if isinstance(error, GatewayError):
            if isinstance(error, ServiceError) and not error.model:
                error.model = name
            return error
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return None
        elif not isinstance(error, Exception):
            return None
        kind = type(error).__name__
        return ServiceCrashed(f"model {name!r} raised {kind}", model=name, cause=kind)

    def _over(self, kind: str, hop: Hop | None) -> None:
        if self._house.watched:
            took = self._house.clock.monotonic() - self._began
            total = sum(attempt.cost_usd for attempt in self._attempts)
            self._tell("request", hop, took, usage=Usage(cost_usd=total), error=kind)

    def _tell(
        self, kind: Any, hop: Hop | None, seconds: float, *, usage: Usage, response: Response | None = None, error: str = ""
    ) -> None:
        request, meta = self.request, self.request.meta
        card = hop.card if hop is not None else None
        self._house.emit(
            Event(
                kind=kind,
                at=self._house.clock.now(),
                seconds=seconds,
                request_id=self.id,
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
                attempts=len(self._attempts),
                tenant=meta.tenant,
                conversation=meta.conversation,
                max_tokens=getattr(request, "max_tokens", None),
                temperature=getattr(request, "temperature", None),
                top_p=getattr(request, "top_p", None),
            )
        )


T = TypeVar("T")


def stamped(record: T, **facts: Any) -> T:
    """A copy of a frozen record with facts filled in: `dataclasses.replace` without checking everything again."""
    if hasattr(type(record), "__slots__"):  # a third party's own choice
        return cast("T", replace(cast("Any", record), **facts))
    new = object.__new__(type(record))
    vars(new).update(vars(record), **facts)
    return new
