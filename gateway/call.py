"""Call: one request's way through the gateway. Inspect, decide, rewrite, reserve, hand over; then settle, learn, record.

`run` and `stream` of the gateway differ only in how they take the service's answer: everything around it is here, once.
Whatever a hop took is given back in `succeed` or `fail`, however the call ends. What may be asked after a failure is decided
here alone: another model at once, the same one again when no other is left; no service retries by itself.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import Any

from gateway import outcome
from gateway.card import Need, Usage, finite
from gateway.decision import Decision, Veto
from gateway.errors import (
    BadReply,
    Closed,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ServiceCrashed,
    ServiceError,
    TransformFailed,
    told,
    unfit,
)
from gateway.hop import Hop, House
from gateway.journal import Journal
from gateway.parts import Delta
from gateway.ranking import Row
from gateway.request import NOTHING, Request, Response
from gateway.retry import Retries, ruled_out
from gateway.routing import BYTES_PER_TOKEN, Ask, Shape, ask_of
from gateway.settle import MOST, give_back, refusal_veto, reserve, sound
from gateway.state import Refusal
from gateway.trace import Trace
from gateway.transform import Findings

SLICE_S = 0.1
"""Who waits for a model that is shut looks again so soon, then less often: another request's probe may have opened it."""


class Call:
    """The state of one request on its way. `inside`: asked by a transform, so not transformed again, and kept local."""

    def __init__(self, house: House, request: Request[Any], need: Need, *, streamed: bool, inside: bool = False) -> None:
        house.calls += 1
        house.spare.earn()
        if house.hedge.share:
            house.hedges.earn()
        self.request = request
        self.clock = house.clock
        self.house = house
        self._need = need
        self._restartable = streamed and request.meta.restart
        self._journal = Journal(house, request, streamed=streamed)
        self._local_only = "asked by a transform" if inside else ""
        self._transforms = () if inside else house.transforms
        self._findings: list[Findings | None] = []
        self._tried: dict[str, Veto] = {}
        self._refusals: list[Refusal] = []
        self._last: ServiceError | None = None
        self._retries = Retries(house.retry)
        self._waited_s = 0.0
        self.decision: Decision | None = None
        self._delivered: list[Delta] = []

    async def open(self) -> None:
        """Let the transforms look, and gather what routing may know."""
        classes, cancels = NOTHING, cancellations(self.house) if self._transforms else 0
        for transform in self._transforms:
            findings = None
            try:
                findings = await transform.inspect(self.request, self.house.resources)
                classes |= findings.data_classes if findings is not None else NOTHING
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and cancellations(self.house) > cancels:
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
        tokens, need, route = traits.input_bytes // BYTES_PER_TOKEN, self._need, ""
        if self.house.routes.names or need.route:
            route, need = self.house.routes.resolve(
                need,
                task=self.request.task,
                tenant=meta.tenant,
                data_classes=classes,
                features=traits.features,
                modalities=traits.modalities,
                input_tokens=tokens,
                conversation=bool(meta.conversation),
            )
        shape = Shape(
            task=type(self.request),
            need=need,
            route=route,
            features=traits.features,
            modalities=traits.modalities,
            data_classes=classes,
            local_only=self._local_only,
        )
        self.ask = ask_of(shape, traits, meta, self._journal.began)

    async def decide(self, *, dry: bool = False) -> Decision:
        """Judge every model for this request as things stand now. A dry run leaves no mark."""
        registry = self.house.registry
        entries = registry.known or await registry.described()
        if self._journal.attempts or self._waited_s:
            self.ask = self._ask_now()
        self.decision = self.house.router.decide(self.ask, entries, registry.version, self._tried, dry=dry)
        if dry and (shape := self.ask.shape).route:
            why = self.house.routes.why(
                shape.route,
                asked=bool(self._need.route),
                task=shape.task.task,
                tenant=self.ask.tenant,
                data_classes=shape.data_classes,
            )
            self.decision.notes = (why, *self.decision.notes)
            self.decision.basis.notes = (why, *self.decision.basis.notes)
        return self.decision

    async def next(self) -> Hop:
        """The next model to ask, with its request written, paid for and started. Raises when nobody is left."""
        while True:
            decision = await self.decide()
            if decision.chosen is not None:
                hop = await self._dispatched(decision)
                if hop is not None:
                    return hop
            elif not await self._waited(decision):
                raise self._nobody(decision)

    async def beside(self, hop: Hop) -> Hop | None:
        """A hedge: a loaded model of another provider to ask beside a hop that is slow to begin, if that may be spent."""
        house = self.house
        alike = Veto("hedge", "of the provider that is slow to begin", "another provider, loaded", "gateway")
        entries = tuple(house.registry.entries.values())
        whose = hop.card.provider or hop.card.name
        same = {
            entry.name: alike
            for entry in entries
            if entry.vitals is None
            or entry.card is None
            or (entry.card.local and entry.vitals.state != "ready")
            or (entry.card.provider or entry.name) == whose
        }
        decision = house.router.decide(self._ask_now(), entries, house.registry.version, {**self._tried, **same}, dry=True)
        if decision.chosen is None or decision.basis.row.card.last_resort or not house.hedges.take():
            return None
        if not house.spare.take():
            house.hedges.put_back()
            return None
        try:
            second = await self._dispatched(decision, mark=False)
        except GatewayError:
            second = None  # limits that cannot be counted, say: the first one goes on
        if second is None:
            house.hedges.put_back()
            house.spare.put_back()
        else:
            second.hedge = True
        return second

    async def _dispatched(self, decision: Decision, *, mark: bool = True) -> Hop | None:
        """A hop on the chosen model; None when it could not even be asked, and why is noted."""
        row: Row = decision.basis.row
        entry = self.house.registry.entries[row.name]
        assert entry.vitals is not None  # only described entries are chosen
        cancels, now = cancellations(self.house), self.clock.monotonic()
        hop = Hop(entry, row.card, entry.vitals, row.live, self.request, cancels, began=now, asked=now)
        if self._transforms:
            try:
                self.rewrite(hop)
            except TransformFailed as error:
                if not mark:
                    return None
                await self.fail(hop, error)
                return None
        vitals = hop.vitals
        vitals.in_flight += 1  # before the reservation, which may take a while: who decides meanwhile must see it
        hop.taken = True
        if self.house.limits and hop.answer is None:
            try:
                refusal = await self._reserve(hop)
            except BaseException:
                hop.release()
                raise
            if refusal is not None:
                hop.release()
                if mark:
                    self._refusals.append(refusal)
                    self._tried[entry.name] = refusal_veto(refusal)
                return None
            hop.began = self.clock.monotonic()  # the reservation is not the model's latency
            if hop.lease is not None and self.house.router.standing(row, replace(self.ask, now=hop.began)):
                # It was shut, or its quota was used up, while the reservation was made.
                await give_back(self.house, hop, Usage(), 0.0, sent=False)
                return None
        if hop.answer is None:
            hop.probe = vitals.asked(hop.began)
            vitals.tokens_left -= self.ask.input_tokens
            if vitals.state != "ready":
                try:
                    await self.house.registry.start(entry)
                except BaseException as error:
                    await self.fail(hop, error)
                    return None
                hop.began = self.clock.monotonic()  # loading is not the model's latency
        return hop

    async def _waited(self, decision: Decision) -> bool:
        """Wait until somebody may be asked again, if that is soon enough and may be spent. False: nobody will be."""
        soonest = decision.basis.soonest(self._retries.due)
        if soonest is None:
            return False
        at, model = soonest
        now = self.clock.monotonic()
        left = self.left_s(now)
        if at - now > (self.house.retry.wait_s - self._waited_s if left is None else left):
            return False
        if at > now:
            pause = min(at - now, max(SLICE_S, self._waited_s / 2))
            self._waited_s += pause
            await self.clock.sleep(pause)
            return True
        self._waited_s += 1e-6  # so that the clock is read again
        if self._retries.due.pop(model, None) is None:
            return True
        if not self.house.spare.take():
            return bool(self._retries.due)
        del self._tried[model]
        return True

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
            message = f"the reply of {name!r} does not fit what was asked for ({unfit(error)})"
            raise BadReply(message, model=name, reply=restored) from None

    async def succeed(self, hop: Hop, response: Response) -> Response:
        """Settle the hop, learn from it, and give the response its model, cost and trace."""
        trace = Trace(model=hop.card.name, first_token_s=hop.first_token_s, notes=hop.notes, decision=self.decision)
        return await self._journal.answered(hop, response, self.ask, trace)

    async def fail(self, hop: Hop, error: BaseException) -> None:
        """Settle a failed hop. Returns when a model may be asked again; raises what the caller gets otherwise."""
        if hop.settled:
            raise error
        if isinstance(error, Exception) and cancellations(self.house) > hop.cancels:
            error = asyncio.CancelledError()  # the caller gave up, and the service made an error of its own of that
        name, now = hop.card.name, self.clock.monotonic()
        known, left = self._as_ours(hop, error), self.left_s(now)
        late = known is None and left is not None and left <= 0
        kind = "DeadlineExceeded" if late else type(known or error).__name__
        failure = known if isinstance(known, ServiceError) else None
        if late and hop.vitals.state == "ready" and not hop.delivered and now - hop.began - hop.idle_s > self._usual_s(hop):
            # What hangs must not stay first. No AttemptTimeout: one caller's short deadline must not shut it to the others.
            failure = ServiceError("silent past its own forecast", model=name)
        sent = not isinstance(known, InvalidRequest)
        await self._journal.failed(hop, failure, kind, str(known or ""), self.ask, sent=sent)
        self._delivered = hop.delivered
        if known is None:  # cancelled, closed early, or the interpreter is going down
            self._journal.over(kind, hop)
            raise error
        if not isinstance(known, ServiceError):
            self._journal.over(kind, hop)
            raise known
        known.in_stream = known.in_stream or bool(hop.delivered)
        known.partial = "".join(delta.text for delta in hop.delivered)
        if not known.fallbackable or (hop.delivered and not self._restartable):
            self._journal.over(kind, hop)
            known.attempts = self._journal.attempts
            raise known
        self._last = known
        if known.spare_key and self.house.spare.take():
            if self._retries.with_another_key(name):
                return  # it stays among those that may be asked
            self.house.spare.put_back()
        self._tried[name] = Veto("asked already", kind, "one attempt a model until no other is left", "gateway")
        self._retries.failed(name, known, now, self.house.random.random())
        for other, veto in ruled_out(self.house.registry.entries.values(), hop.card, known).items():
            self._tried.setdefault(other, veto)

    def _usual_s(self, hop: Hop) -> float:
        return hop.live.latency_s(hop.live.expected_tokens(self.ask.output_tokens, high=True), 0.95)

    async def lost(self, hop: Hop, winner: str) -> None:
        """Settle the slower of two hedged hops."""
        await self._journal.lost(hop, winner, self.ask)

    def late(self) -> DeadlineExceeded:
        """The error for when the caller's deadline has passed."""
        return outcome.late(self.request.meta.deadline_s or 0.0, self._journal.attempts, self._delivered)

    def _ask_now(self) -> Ask:
        now = self.clock.monotonic()
        return replace(self.ask, now=now, deadline_s=self.left_s(now))

    def left_s(self, now: float) -> float | None:
        """What is left of the caller's deadline; None without one."""
        deadline_s = self.request.meta.deadline_s
        return None if deadline_s is None else deadline_s - (now - self._journal.began)

    def _nobody(self, decision: Decision) -> GatewayError:
        """The error for when no model is left, with the most telling reason."""
        if self._last is not None:
            self._journal.over(type(self._last).__name__)
            return outcome.failed(self._last, self._journal.attempts)
        if self._refusals:
            return outcome.over_limit(self._refusals)
        soonest: tuple[float, str] | None = decision.basis.soonest({})
        if soonest is not None:
            return outcome.shut(decision, *soonest, self.ask.now)
        return outcome.nobody(decision, self.ask.shape.need, tuple(sorted(self.house.registry.entries)))

    async def _reserve(self, hop: Hop) -> Refusal | None:
        try:
            return await reserve(self.house, hop, self.ask)
        except GatewayError as error:
            self._journal.over(type(error).__name__)
            raise

    def _as_ours(self, hop: Hop, error: BaseException) -> GatewayError | None:
        """The error as one of the tree, and this caller's own; None for what must pass through untouched."""
        name = hop.card.name
        if isinstance(error, ServiceError):
            # A copy: a service may raise one and the same instance to many callers, and it gathers facts from here on.
            known = copy.copy(error).with_traceback(error.__traceback__)
            known.__cause__, known.model = error.__cause__, error.model or name
            if not finite(known.retry_after_s) or not 0.0 <= (known.retry_after_s or 0.0) < MOST:
                known.retry_after_s = None  # a service may say anything
            return known
        if isinstance(error, asyncio.CancelledError):
            if cancellations(self.house) > hop.cancels:
                return None
        elif not isinstance(error, (Exception, SystemExit)):
            return None
        if isinstance(error, Closed) and self.house.registry.closed:
            return error
        if type(error) is InvalidRequest and error.field and hop.vitals.state == "ready":
            return error  # it names what is wrong of the request: nobody is to blame, and nobody else is asked
        what = error.message if isinstance(error, GatewayError) else f"model {name!r} raised {told(error)}"
        crash = ServiceCrashed(what, model=name, cause=type(error).__name__)
        crash.__cause__ = error
        return crash


def cancellations(house: House) -> int:
    """How often the running task has been cancelled: a CancelledError without a new one is the service's own."""
    task = asyncio.current_task(house.loop)
    return task.cancelling() if task is not None else 0
