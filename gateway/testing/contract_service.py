"""ModelServiceContract: what every model behind gateway must do, as tests that its author inherits."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

import pytest

from gateway.card import ModelCard
from gateway.errors import GatewayError, ServiceError, UnsupportedTask
from gateway.request import Request, Response
from gateway.service import Footprint, ModelService, Resources, service_name
from gateway.tasks import Chat, Tool
from gateway.testing.contract_features import check_feature, check_max_tokens
from gateway.testing.contract_rules import BLOCKED_EXPECTED, BLOCKED_WHY, Broken, Contract, Pulse, new_tasks, on_a_loop, within
from gateway.testing.contract_subject import CANARY, NoRequest, Subject, close, same, started
from gateway.testing.fakes import resources as outside_resources

Check = Callable[[Subject, Pulse], Coroutine[Any, Any, None]]
AT_ONCE = 16
TURNS = (1, 2, 3, 8, 0)
"""Loop turns after which a call is cancelled; 0 stands for a short while, to cancel in the middle of real work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnNoCard(Request[Response]):
    """A task that no model does."""

    task: ClassVar[str] = "contract-on-no-card"
    text: str = dataclasses.field(default=CANARY, repr=False)


class ModelServiceContract(Contract):
    """Inherit, and define the fixture `service`: a fresh instance each time, not started.

    Fixtures that may be defined: `service`; `requests`, a list of requests to ask (tasks without one get usual ones, a
    task of your own needs one); `resources`, what the service is lent. Settings, as plain class attributes:
    `patience_s`, `max_block_s`, and `deterministic = False` for a model that answers the same request differently.
    """

    fixtures = frozenset({"service", "requests", "resources"})
    settings: ClassVar[dict[str, tuple[float, float]]] = {
        "patience_s": (0.05, 3600.0),
        "max_block_s": (0.01, 5.0),
        "deterministic": (0, 1),
    }

    max_block_s: float = 0.25
    """How long the event loop may be held in one go."""
    deterministic: bool = True
    """Whether one request always gets one answer; give `requests` with a seed or temperature 0 where that is needed."""

    @pytest.fixture
    def service(self) -> ModelService:
        """The service under test, defined by the author."""
        pytest.fail(f"{type(self).__name__} needs a fixture `service` that returns a fresh service", pytrace=False)

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        """Empty: usual requests, made from the card's tasks."""
        return ()

    @pytest.fixture
    def resources(self) -> Resources:
        """Resources outside a gateway."""
        return outside_resources()

    def _check(
        self,
        service: ModelService,
        resources: Resources,
        requests: Sequence[Request[Any]],
        check: Check,
        told_elsewhere: type[Broken] | None = NoRequest,
    ) -> None:
        async def whole(pulse: Pulse) -> None:
            async with started(service, resources, requests, self.patience_s) as subject:
                await check(subject, pulse)

        on_a_loop(whole, patience_s=self.patience_s, told_elsewhere=told_elsewhere)

    def _expect_same(self, one: Response, other: Response, seen: str, why: str) -> None:
        if self.deterministic and not same(one, other, ids=False):
            expected = "the same content (or `deterministic = False` for a model that samples)"
            raise Broken(f"{seen}: {one} and {other}", expected, why)

    def test_the_card_is_true(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(pulse: Pulse) -> None:
            card = await within(self.patience_s, service.describe(resources), "describe before start")
            if not isinstance(card, ModelCard):
                raise Broken(f"describe returned a {type(card).__name__}", "a ModelCard", "the gateway routes by it")
            if not card.name or card.name != service_name(service):
                seen = f"the card is named {card.name!r}, the service {service_name(service)!r}"
                raise Broken(seen, "one name for both", "users pin models by name")
            for task in card.tasks:
                if not (isinstance(task, type) and issubclass(task, Request)):
                    raise Broken(f"the card lists {task!r} as a task", "Request classes", "the request's class is the task")
            if await within(self.patience_s, service.describe(resources), "describe") != card:
                raise Broken("describe gave two different cards", "the same facts each time", "decisions must replay")
            await within(self.patience_s, service.aclose(), "aclose without start")

        on_a_loop(check, patience_s=self.patience_s)

    def test_every_task_on_the_card_is_answered(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.requests:
                await subject.answer(request)

        self._check(service, resources, requests, check, told_elsewhere=None)

    def test_a_task_not_on_the_card_is_unsupported(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for stream in (False, True):
                outcome = await subject.outcome(OnNoCard(), stream=stream)
                if not isinstance(outcome, UnsupportedTask):
                    seen = f"{'stream' if stream else 'run'} of a task that is not on the card gave {type(outcome).__name__}"
                    raise Broken(seen, "UnsupportedTask (UnsupportedTask.of(card, request))", "another model is asked then")

        self._check(service, resources, requests, check)

    def test_a_stream_ends_in_one_response_that_its_deltas_add_up_to(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.requests:
                await subject.streamed(request)

        self._check(service, resources, requests, check)

    def test_a_stream_says_the_same_as_a_run(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.requests:
                whole, streamed = await subject.answer(request), await subject.streamed(request)
                seen = f"run and stream of one {request.task} request disagree"
                self._expect_same(whole, streamed, seen, "streaming is how an answer comes, not which one")

        self._check(service, resources, requests, check)

    def test_a_request_is_never_changed(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            rich = [Chat.ask("Use it.", tools=(TOOL,), max_tokens=8)] if Chat in subject.card.tasks else []
            for request in [*subject.requests, *rich]:
                before = copy.deepcopy(request)
                for stream in (False, True):
                    await subject.outcome(request, stream=stream)
                    if not same(request, before) or request.meta != before.meta:
                        seen = f"{'stream' if stream else 'run'} changed its {request.task} request"
                        why = "the same request goes to the next model when this one fails, and to other tasks at once"
                        raise Broken(seen, "the request as it was: copy it (dataclasses.replace) to alter it", why)

        self._check(service, resources, requests, check)

    def test_many_at_once_get_the_same_answers(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            alone = [await subject.answer(request) for request in subject.requests]
            order = [number % len(alone) for number in range(AT_ONCE)]
            # A model that takes one at a time lets the last of them wait for all the others.
            queued = dataclasses.replace(subject, patience_s=AT_ONCE * subject.patience_s)
            calls = [asyncio.ensure_future(queued.answer(subject.requests[number])) for number in order]
            try:
                together = await asyncio.gather(*calls)
            finally:
                for call in calls:
                    call.cancel()
            for number, response in zip(order, together, strict=True):
                seen = f"a {subject.requests[number].task} request got one answer alone and another among {AT_ONCE} at once"
                self._expect_same(alone[number], response, seen, "one service serves many callers: none may see another's")

        self._check(service, resources, requests, check)

    def test_cancelling_ends_a_call_at_once(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.one_per_task():
                first = await subject.answer(request)
                known = asyncio.all_tasks()
                for stream in (False, True):
                    for turns in TURNS:
                        await cancel_midway(subject, request, turns, stream=stream)
                await no_new_tasks(known, f"a cancelled {request.task} call")
                seen = f"a {request.task} request got another answer after calls had been cancelled"
                self._expect_same(first, await subject.answer(request), seen, "a cancelled call must leave nothing behind")

        self._check(service, resources, requests, check)

    def test_closing_a_stream_early_leaves_nothing(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.one_per_task():
                first = await subject.answer(request)
                known = asyncio.all_tasks()
                for _ in range(3):
                    await within(self.patience_s, first_item(subject, request), f"closing a {request.task} stream early")
                await no_new_tasks(known, f"a {request.task} stream that was closed early")
                seen = f"a {request.task} request got another answer after streams had been closed early"
                self._expect_same(first, await subject.answer(request), seen, "readers leave: their work must end with them")

        self._check(service, resources, requests, check)

    def test_no_call_leaves_a_task(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.one_per_task():
                await subject.answer(request)  # what a service sets up at its first call may stay until aclose
                known = asyncio.all_tasks()
                for _ in range(2):
                    await subject.answer(request)
                    await subject.streamed(request)
                await no_new_tasks(known, f"a {request.task} call")

        self._check(service, resources, requests, check)

    def test_aclose_frees_everything_and_may_be_called_twice(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(pulse: Pulse) -> None:
            known = asyncio.all_tasks()
            async with started(service, resources, requests, self.patience_s) as subject:
                await subject.answer(subject.requests[0])
            await within(self.patience_s, service.aclose(), "a second aclose")
            await no_new_tasks(known, "aclose")

        on_a_loop(check, patience_s=self.patience_s, told_elsewhere=NoRequest)

    def test_its_footprint_is_told_at_any_time(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(pulse: Pulse) -> None:
            told = [service.footprint()]
            async with started(service, resources, requests, self.patience_s) as subject:
                told.append(service.footprint())
                await subject.answer(subject.requests[0])
                told.append(service.footprint())
            for mark in (*told, service.footprint()):
                if mark is not None and not isinstance(mark, Footprint):
                    raise Broken(f"footprint gave a {type(mark).__name__}", "a Footprint, or None", "`gateway models` shows it")
                if mark is not None and (mark.running or mark.waiting):
                    raise Broken("its footprint counts requests that have ended", "0 running, 0 waiting", "the queue is shown")

        on_a_loop(check, patience_s=self.patience_s, told_elsewhere=NoRequest)

    def test_the_event_loop_is_never_blocked(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            for request in subject.one_per_task():
                for verb in (subject.answer, subject.streamed):
                    gaps: list[float] = []
                    # A busy machine may stop us too, but hardly three times in a row: the least gap is the service's.
                    while len(gaps) < 3 and min(gaps, default=1e9) > self.max_block_s:
                        await asyncio.sleep(0)
                        pulse.reset()
                        await verb(request)
                        gaps.append(pulse.read())
                    if min(gaps) > self.max_block_s:
                        seen = f"a {request.task} request held the event loop for {min(gaps):.2f} s at a time"
                        where = f", in {pulse.where}" if pulse.where else ""
                        raise Broken(seen + where, f"at most {self.max_block_s:g} s: {BLOCKED_EXPECTED}", BLOCKED_WHY)

        self._check(service, resources, requests, check)

    def test_what_goes_wrong_is_a_gateway_error_without_content(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            shown = [repr(subject.service), repr(subject.card), str(subject.card)]
            for request in [OnNoCard(), *impossible(subject.card)]:
                for stream in (False, True):
                    outcome = await subject.outcome(request, stream=stream)
                    if isinstance(outcome, GatewayError):
                        shown += [repr(outcome), str(outcome)]
                        if not isinstance(outcome, ServiceError):
                            seen = f"an impossible {request.task} request raised {type(outcome).__name__}"
                            raise Broken(seen, "a ServiceError", "only a ServiceError lets the gateway ask another model")
            for request in subject.requests:
                await subject.answer(request)
            shown += [repr(subject.service), repr(await subject.service.describe(resources))]
            if leaks := [text for text in shown if CANARY in text]:
                seen = f"the prompt shows in a repr or error of {leaks[0].split('(')[0][:60]!r}"
                raise Broken(seen, "sizes and names only", "messages and reprs land in logs; prompts must not")

        self._check(service, resources, requests, check)

    def test_max_tokens_is_honoured(self, service: Any, resources: Any, requests: Any) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            await check_max_tokens(subject)

        self._check(service, resources, requests, check)

    @pytest.mark.parametrize("feature", ["tools", "json_schema", "stop", "seed"])
    def test_a_claimed_feature_works(self, service: Any, resources: Any, requests: Any, feature: str) -> None:
        async def check(subject: Subject, pulse: Pulse) -> None:
            if Chat in subject.card.tasks and feature in subject.card.features:
                await check_feature(subject, feature, deterministic=self.deterministic)

        self._check(service, resources, requests, check)


TOOL = Tool(name="look", description="Looks.", parameters={"type": "object", "properties": {"at": {"type": "string"}}})


def impossible(card: ModelCard) -> list[Request[Any]]:
    """Requests that this model cannot carry: a text far longer than a small context."""
    if Chat not in card.tasks or card.context is None or card.context > 8192:
        return []
    return [Chat.ask(f"{CANARY} " * (2 * card.context), max_tokens=8)]


async def first_item(subject: Subject, request: Request[Any]) -> None:
    """Open a stream, read one item, close it."""
    stream = subject.service.stream(request)
    async for _ in stream:
        break
    await close(stream)


async def cancel_midway(subject: Subject, request: Request[Any], turns: int, *, stream: bool) -> None:
    """Cancel a call after some turns of the loop. Broken when it goes on, or ends as if nothing had been."""
    what = f"{'stream' if stream else 'run'} of a {request.task} request"
    call = asyncio.ensure_future(subject._drain(request) if stream else subject.service.run(request))
    for _ in range(turns):
        await asyncio.sleep(0)
    if not turns:
        await asyncio.wait({call}, timeout=0.02)
    if not call.cancel():
        if not call.cancelled():
            call.exception()
        return
    done, _ = await asyncio.wait({call}, timeout=subject.patience_s)
    why = "a caller's timeout, and the gateway's, work by cancelling; a model that runs on takes the machine from others"
    if not done:
        raise Broken(f"{what} went on for {subject.patience_s:g} s after it had been cancelled", "an end at once", why)
    if not call.cancelled():
        error = call.exception()
        seen = f"{what} was cancelled and {'returned' if error is None else f'raised {type(error).__name__}'} all the same"
        raise Broken(seen, "CancelledError to pass through", why)


async def no_new_tasks(known: set[asyncio.Task[Any]], what: str) -> None:
    """Broken when tasks are left that were not there before."""
    if left := await new_tasks(known):
        seen = f"{what} left {len(left)} task(s) running: {', '.join(sorted(set(left)))}"
        raise Broken(seen, "every task that a call starts to end with it", "leaked tasks pile up and hold memory and sockets")
