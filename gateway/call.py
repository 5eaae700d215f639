"""Call: one request's way through the gateway. Inspect, decide, rewrite, reserve, hand over; then settle, learn, record.

`run` and `stream` of the gateway differ only in how they take the service's answer: everything around it is here, once.
Whatever a hop took is given back in `succeed` or `fail`, however the call ends.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import Any, Literal

from gateway.card import Need, Usage, matches
from gateway.decision import Decision, Veto
from gateway.errors import (
    AllModelsFailed,
    BadReply,
    BudgetExceeded,
    Closed,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    NoEligibleModel,
    Rejected,
    ServiceCrashed,
    ServiceError,
    TransformFailed,
    UnknownModel,
    Unsupported,
    told,
)
from gateway.events import Event
from gateway.hop import Hop, House
from gateway.live import OUTPUT_TOKENS
from gateway.parts import Delta
from gateway.request import NOTHING, Request, Response
from gateway.routing import BYTES_PER_TOKEN, Ask, Shape
from gateway.settle import cost_usd, fits, give_back, refusal_veto, reserve, sound, stamped, usage_of_failure
from gateway.state import Refusal
from gateway.trace import Attempt, Trace
from gateway.transform import Findings

# The caller's own faults, and a transform's: they say nothing about how reliable a service is.
NOT_THE_SERVICES_FAULT = (Unsupported, ContextTooLong, ContentFiltered, Rejected, TransformFailed)


class Call:
    """The state of one request on its way. `inside`: asked by a transform, so not transformed again, and kept local."""

    def __init__(self, house: House, request: Request[Any], need: Need, *, streamed: bool, inside: bool = False) -> None:
        house.calls += 1
        self.id = house.calls
        self.request = request
        self.clock = house.clock
        self._house = house
        self._need = need
        self._streamed = streamed
        self._local_only = "asked by a transform" if inside else ""
        self._transforms = () if inside else house.transforms
        self._findings: list[Findings | None] = []
        self._attempts: list[Attempt] = []
        self._tried: dict[str, Veto] = {}
        self._refusals: list[Refusal] = []
        self._last: GatewayError | None = None
        self._decision: Decision | None = None
        self._delivered: list[Delta] = []
        self._began = house.clock.monotonic()

    async def open(self) -> None:
        """Let the transforms look, and gather what routing may know."""
        classes, cancels = NOTHING, cancellations() if self._transforms else 0
        for transform in self._transforms:
            findings = None
            try:
                findings = await transform.inspect(self.request, self._house.resources)
                classes |= findings.data_classes if findings is not None else NOTHING
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and cancellations() > cancels:
                    raise
                # Fail closed: what could not be inspected must not leave this machine. No detail: it may be content.
                self._local_only = f"transform {transform.name!r} failed to inspect the request"
            self._findings.append(findings)
        meta = self.request.meta
        try:
            traits = self.request.traits()
        except Exception as error:
            task = type(self.request).__name__
            raise InvalidRequest(f"{task}.traits() raised {told(error)}", field="request") from error
        if meta.data_class:
            classes |= {meta.data_class}
        shape = Shape(
            task=type(self.request),
            need=self._need,
            features=traits.features,
            modalities=traits.modalities,
            data_classes=classes,
            local_only=self._local_only,
        )
        self.ask = Ask(
            shape=shape,
            input_bytes=traits.input_bytes,
            input_tokens=traits.input_bytes // BYTES_PER_TOKEN,
            output_tokens=traits.output_tokens,
            tenant=meta.tenant,
            conversation=meta.conversation,
            deadline_s=meta.deadline_s,
            now=self._began,
        )

    async def decide(self, *, dry: bool = False) -> Decision:
        """Judge every model for this request as things stand now. A dry run leaves no mark."""
        registry = self._house.registry
        entries = registry.known or await registry.described()
        if self._attempts:
            self.ask = replace(self.ask, now=self.clock.monotonic())
        self._decision = self._house.router.decide(self.ask, entries, registry.version, self._tried, dry=dry)
        return self._decision

    async def next(self) -> Hop:
        """The next model to ask, with its request written, paid for and started. Raises when nobody is left."""
        while True:
            decision = await self.decide()
            if decision.chosen is None:
                raise self._nobody(decision)
            entry = self._house.registry.entries[decision.chosen]
            assert entry.card is not None  # only described entries are chosen
            assert entry.live is not None
            hop = Hop(entry, entry.card, entry.live, self.request, cancellations(), began=self.clock.monotonic())
            if self._transforms:
                try:
                    self.rewrite(hop)
                except TransformFailed as error:
                    await self.fail(hop, error)
                    continue
            if self._house.limits and hop.answer is None and (refusal := await self._reserve(hop)) is not None:
                self._refusals.append(refusal)
                self._tried[entry.name] = refusal_veto(refusal)
                continue
            hop.live.in_flight += 1
            hop.taken = True
            if hop.answer is None and hop.live.state != "ready":
                try:
                    await self._house.registry.start(entry)
                except BaseException as error:
                    await self.fail(hop, error)
                    continue
                hop.began = self.clock.monotonic()  # loading is not the model's latency
            return hop

    def rewrite(self, hop: Hop) -> None:
        """Write the request for the hop's model, from the start."""
        hop.rewrites, hop.request = [], self.request
        for transform, findings in zip(self._transforms, self._findings, strict=True):
            try:
                result = transform.begin(hop.request, findings, hop.card)
                if isinstance(result, Response):
                    hop.answer = result
                    return
                if result is not None:
                    hop.rewrites.append((transform.name, result))
                    hop.request = result.request
            except Exception as error:
                raise hop.broken(transform.name, error, fallbackable=True) from error

    def accept(self, hop: Hop, response: object) -> Response:
        """A service's response, checked, restored by the rewrites, and made to fit the request."""
        expected, name = type(self.request).response, hop.card.name
        if not isinstance(response, expected):
            raise BadReply(f"model {name!r} answered with a {type(response).__name__}, not a {expected.__name__}", model=name)
        if not sound(response.usage):
            raise BadReply(f"model {name!r} reports a usage that cannot be: not finite, or below 0", model=name)
        restored = hop.incoming(response) if hop.rewrites else response
        if not isinstance(restored, expected):
            message = f"a transform turned the reply of {name!r} into a {type(restored).__name__}"
            raise TransformFailed(message, model=name)
        try:
            return self.request.accept(restored)
        except Exception as error:
            # The message of a validation error would quote the reply: only its type is told, the reply is an attribute.
            message = f"the reply of {name!r} does not fit what was asked for ({type(error).__name__})"
            raise BadReply(message, model=name, reply=restored) from None

    async def succeed(self, hop: Hop, response: Response) -> Response:
        """Settle the hop, learn from it, and give the response its model, cost and trace."""
        now, usage, name = self.clock.monotonic(), response.usage, hop.card.name
        took = now - hop.began - hop.idle_s
        cost = usage.cost_usd or cost_usd(hop, usage)
        attempt = Attempt(model=name, seconds=took, first_token_s=hop.first_token_s, cost_usd=cost)
        attempts = (*self._attempts, attempt)
        total = cost if not self._attempts else sum(one.cost_usd for one in attempts)
        trace = Trace(
            model=name,
            attempts=attempts,
            seconds=now - self._began,
            first_token_s=hop.first_token_s,
            cost_usd=total,
            notes=tuple([rewrite.note for _, rewrite in hop.rewrites if rewrite.note]) if hop.rewrites else (),
            decision=self._decision,
        )
        usage = usage if total == usage.cost_usd else stamped(usage, cost_usd=total)
        response = stamped(response, model=name, usage=usage, trace=trace)
        if hop.lease is None:
            hop.release()
        else:
            await give_back(self._house, hop, usage, cost)
        self._attempts.append(attempt)
        if hop.answer is None:
            hop.live.succeeded(self.request.task, took, hop.first_token_s, usage.output_tokens)
        if self._house.watched:
            self._tell("attempt", hop, took, usage=usage, response=response)
            self._tell("request", hop, trace.seconds, usage=usage, response=response)
        return response

    async def fail(self, hop: Hop, error: BaseException) -> None:
        """Settle a failed hop. Returns when another model may be asked; raises what the caller gets otherwise."""
        if hop.settled:
            raise error
        if isinstance(error, Exception) and cancellations() > hop.cancels:
            error = asyncio.CancelledError()  # the caller gave up, and the service made an error of its own of that
        name, now = hop.card.name, self.clock.monotonic()
        known = self._as_ours(hop, error)
        usage = usage_of_failure(hop, known, self.ask.input_tokens)
        await give_back(self._house, hop, usage, usage.cost_usd)
        took, deadline_s = now - hop.began - hop.idle_s, self.request.meta.deadline_s
        late = known is None and deadline_s is not None and now - self._began >= deadline_s
        kind = "DeadlineExceeded" if late else type(known or error).__name__
        attempt = Attempt(
            model=name,
            seconds=took,
            first_token_s=hop.first_token_s,
            cost_usd=usage.cost_usd,
            error=kind,
            message=str(known) if known is not None else "",
        )
        self._attempts.append(attempt)
        self._delivered = hop.delivered
        if self._house.watched:
            self._tell("attempt", hop, took, usage=usage, error=kind)
        if known is None:  # cancelled, closed early, or the interpreter is going down
            if late and hop.live.state == "ready" and took > hop.live.latency_s(OUTPUT_TOKENS):
                hop.live.failed(now)  # silent past its own forecast: a model that hangs must not stay first
            self._over(kind, hop)
            raise error
        if isinstance(known, ServiceError) and not isinstance(known, NOT_THE_SERVICES_FAULT):
            hop.live.failed(now)
        if not isinstance(known, ServiceError) or not known.fallbackable or hop.delivered:
            self._over(kind, hop)
            if isinstance(known, ServiceError):
                known.attempts = tuple(self._attempts)
                known.in_stream = known.in_stream or bool(hop.delivered)
                known.partial = "".join(delta.text for delta in hop.delivered)
            raise known
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
                ours = self._last.__cause__  # a WeightsError, say, that a service raised: nobody else was eligible
                return ours if isinstance(ours, GatewayError) else self._last
            tried = "; ".join(f"{attempt.model}: {attempt.error}: {attempt.message}" for attempt in failed)
            error = AllModelsFailed(f"each of {len(failed)} models failed: {tried}", attempts=tuple(self._attempts))
            error.__cause__ = self._last
            return error
        if self._refusals:
            soonest = min(self._refusals, key=lambda refusal: refusal.frees_in_s)
            limit = soonest.limit
            return BudgetExceeded(
                f"limit {limit.key}: {soonest.used:g} of {limit.max:g} {limit.unit} are used or reserved; "
                f"this request {fits(soonest)}",
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
        return NoEligibleModel(f"no model can serve this {decision.task} request. {reasons}", decision=decision)

    async def _reserve(self, hop: Hop) -> Refusal | None:
        try:
            return await reserve(self._house, hop, self.ask)
        except GatewayError as error:
            self._over(type(error).__name__, None)
            raise

    def _as_ours(self, hop: Hop, error: BaseException) -> GatewayError | None:
        """The error as one of the tree, and this caller's own; None for what must pass through untouched."""
        name = hop.card.name
        if isinstance(error, ServiceError):
            # A copy: a service may raise one and the same instance to many callers, and it gathers facts from here on.
            known = copy.copy(error).with_traceback(error.__traceback__)
            known.__cause__, known.model = error.__cause__, error.model or name
            return known
        if isinstance(error, asyncio.CancelledError):
            if cancellations() > hop.cancels:
                return None
        elif not isinstance(error, (Exception, SystemExit)):
            return None
        if isinstance(error, Closed) and self._house.registry.closed:
            return error
        what = error.message if isinstance(error, GatewayError) else f"model {name!r} raised {told(error)}"
        crash = ServiceCrashed(what, model=name, cause=type(error).__name__)
        crash.__cause__ = error
        return crash

    def _over(self, kind: str, hop: Hop | None) -> None:
        if self._house.watched:
            total = sum(attempt.cost_usd for attempt in self._attempts)
            self._tell("request", hop, self.clock.monotonic() - self._began, usage=Usage(cost_usd=total), error=kind)

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
        request, meta = self.request, self.request.meta
        card = hop.card if hop is not None else None
        self._house.emit(
            Event(
                kind=kind,
                at=self.clock.now(),
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


def cancellations() -> int:
    """How often the running task has been cancelled: a CancelledError without a new one is the service's own."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
