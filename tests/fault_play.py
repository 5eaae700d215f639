"""The runner of the fault table: it plays a row with the real remote plugin, the real clock, and a server for each provider.

`play` gives what was seen, and every general law that was broken. The rows are in fault_table.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal, TypeVar

import trustme
from fault_wires import OPENAI, QUESTION, Step, Wire

from gateway import AsyncGateway, Attempt, Chat, ChatResponse, GatewayError, Meta, Need, Restart, SystemClock
from gateway.testing import Fault, LoopbackServer, Reply

Way = Literal["run", "stream"]
T = TypeVar("T")

CLOCK = SystemClock()
NAMES = ("one", "two", "three")
"""The providers, the best one first."""
SECRET = "sk-of-the-fault-table"
ASK = Chat.ask(QUESTION, max_tokens=60)
HANG_S = 20.0
"""A safety net: nothing here takes so long."""
LIMITS = {"connect_s": 2.0, "first_token_s": 0.4, "between_s": 0.4, "reply_s": 0.4}
FEATURES = ["streaming", "stop", "tools"]


def whole(name: str) -> str:
    """The whole answer of a provider."""
    return f"I am {name}: 你好, grüß dich, 🦀 and all the rest."


@dataclass(frozen=True, kw_only=True)
class Provider:
    """How one provider behaves: `steps` meet its first requests, `then` every other one; None answers.

    `down`: no connection comes about, since nobody listens at its port ("refused"), its name is unknown ("dns"), or its
    certificate is not trusted ("untrusted"). `facts` are further keys of its row.
    """

    steps: tuple[Step, ...] = ()
    then: Step | None = None
    down: Literal["", "refused", "dns", "untrusted"] = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row. `answer`: the model whose whole answer the caller gets; or else `error`, its class, and how much of
    the answer of `partial_of` had been delivered. `attempts`: by provider; `errors`: those of the attempts, in their order.

    `times`: so many requests one after another, all with that outcome; `attempts` and `errors` are of the last.
    `warm`: models that are asked once before, so that they are loaded. `restarts`: the models that a Restart names.
    """

    name: str
    providers: tuple[Provider, ...]
    answer: str = ""
    error: str = ""
    attempts: Mapping[str, int]
    errors: tuple[str, ...]
    ways: tuple[Way, ...] = ("run", "stream")
    partial: bool = False
    restarts: tuple[str, ...] = ()
    ask: Chat = ASK
    meta: Meta = field(default_factory=Meta)
    config: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1
    warm: tuple[str, ...] = ()
    least_s: float = 0.0
    """It must have waited so long: what Retry-After asked for."""


@dataclass(kw_only=True)
class Outcome:
    """What was seen of one request."""

    reply: ChatResponse | None = None
    error: Exception | None = None
    text: str = ""
    """What a stream delivered after the last Restart, or the reply's text."""
    restarts: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    counted: dict[str, int] = field(default_factory=dict)
    """Requests by provider, as its own server counted them."""
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    """The general laws that did not hold."""

    @property
    def by_provider(self) -> dict[str, int]:
        """Attempts by provider, as the trace tells."""
        out: dict[str, int] = {}
        for attempt in self.attempts:
            out[attempt.model] = out.get(attempt.model, 0) + 1
        return out

    def __str__(self) -> str:
        if self.reply is not None:
            again = f"{len(self.restarts)} Restart, then " if self.restarts else ""
            return f"{again}the whole answer of {self.reply.model}"
        kind = type(self.error).__name__
        part = getattr(self.error, "partial", "")
        return f"{kind}, with {len(part)} characters of the answer" if part else kind


class Host:
    """A provider at work: its server, when it was asked, and its row."""

    def __init__(self, at: int, provider: Provider, folder: Path, wire: Wire = OPENAI) -> None:
        self.name = NAMES[at]
        self.provider, self.wire = provider, wire
        self.asked_at: list[float] = []
        tls = _stranger() if provider.down == "untrusted" else None
        self.server = LoopbackServer(answer=lambda _: whole(self.name), tls=tls)
        self._at, self._folder = at, folder
        self._nobody: socket.socket | None = None

    def __enter__(self) -> Host:
        if self.provider.down == "refused":
            # Bound but not listening: the port stays refused, and nobody else can take it.
            self._nobody = socket.socket()
            self._nobody.bind(("127.0.0.1", 0))
        else:
            self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._nobody is not None:
            self._nobody.close()
        else:
            self.server.__exit__()

    def begin(self) -> None:
        """From now on fail as the scenario says, and count from 0."""
        self.server.clear()
        self.asked_at.clear()
        self.server.always(self.spoken(self.provider.then or Reply()), when=self.noted)
        self.server.script(*[self.spoken(step) for step in self.provider.steps], when=self.noted)

    def spoken(self, step: Step) -> Reply | Fault:
        """A step as the server takes it."""
        return _dated(self.wire.spoken(step))

    def noted(self, request: object) -> bool:
        """True, for every request: when it came is kept."""
        self.asked_at.append(CLOCK.monotonic())
        return True

    def row(self) -> dict[str, Any]:
        """The provider as [plugin.remote] lists it: the first one is preferred for its quality."""
        facts = dict(self.provider.facts)
        if "api_key" in facts:
            secret = self._folder / facts["api_key"]
            secret.touch(0o600)
            secret.write_text(f"{SECRET}-{facts['api_key']}")
            facts["api_key"] = f"file:{secret}"
        if self._nobody is not None:
            origin = f"http://127.0.0.1:{self._nobody.getsockname()[1]}"
        else:
            origin = "http://no-such-host.invalid" if self.provider.down == "dns" else self.server.origin
        return {
            "name": self.name,
            "provider": self.name,
            "api": self.wire.api,
            "base_url": origin + self.wire.path,
            "features": FEATURES,
            "quality": (0.9, 0.5, 0.3)[self._at],
            "price": {"input": 1.0, "output": 1.0},
            "first_token_s": 0.05,
            "per_token_s": 0.0005,
            "limits": LIMITS,
            **facts,
        }


@contextlib.asynccontextmanager
async def at_work(
    providers: Sequence[Provider], config: Mapping[str, Any], *, warm: Sequence[str] = (), wire: Wire = OPENAI
) -> AsyncIterator[tuple[AsyncGateway, dict[str, Host]]]:
    """A gateway of these providers, and their hosts by name. Afterwards no connection is left, or TimeoutError."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = [stack.enter_context(Host(at, provider, folder, wire)) for at, provider in enumerate(providers)]
        models = [host.row() for host in hosts]
        async with AsyncGateway.from_config(
            {"plugins": ["remote"], "seed": 7, "plugin": {"remote": {"models": models}}, **config}
        ) as gw:
            for name in warm:
                await gw.run(ASK, Need(model=name))
            for host in hosts:
                host.begin()
            yield gw, {host.name: host for host in hosts}
        for host in hosts:
            await host.server.wait_for(lambda server: server.connections == 0)


def played(work: Coroutine[Any, Any, T]) -> T:
    """What the work gives, on a loop of its own. AssertionError when it leaves a task behind; TimeoutError when it hangs."""

    async def watched() -> T:
        async with asyncio.timeout(HANG_S):
            result = await work
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)  # a generator that was left half-read is closed in a task of the loop's own
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left over"
        return result

    return asyncio.run(watched())


async def play(scenario: Scenario, way: Way, wire: Wire = OPENAI) -> Outcome:
    """Play a row once: what the last request saw, and the laws that any of them broke."""
    broken: list[str] = []
    async with at_work(scenario.providers, scenario.config, warm=scenario.warm, wire=wire) as (gw, hosts):
        for _ in range(scenario.times):
            before = {name: len(host.asked_at) for name, host in hosts.items()}
            outcome = await ask(gw, way, scenario.ask, scenario.meta)
            for host in hosts.values():
                await host.server.wait_for(lambda server: server.in_flight == 0)
            outcome.counted = {name: len(host.server.requests) - before[name] for name, host in hosts.items()}
            broken += laws(outcome, hosts, before)
            if outcome.reply is None and scenario.answer:
                broken.append(f"no answer: {outcome}")
            busy = {model.name: model.in_flight for model in await gw.models() if model.in_flight}
            if busy:
                broken.append(f"in flight after the end: {busy}")
    outcome.broken = broken
    return outcome


async def ask(gw: AsyncGateway, way: Way, request: Chat, meta: Meta) -> Outcome:
    """One request, by run or by stream, and what its caller saw."""
    outcome, began = Outcome(), CLOCK.monotonic()
    try:
        if way == "run":
            outcome.reply = await gw.run(request, meta=meta)
            outcome.text = outcome.reply.text
        else:
            async with gw.stream(request, meta=meta) as stream:
                async for delta in stream:
                    if isinstance(delta, Restart):
                        outcome.restarts += (delta.model,)
                        outcome.text = ""
                    outcome.text += delta.text
            outcome.reply = stream.response
    except GatewayError as error:
        outcome.error = error
    outcome.seconds = CLOCK.monotonic() - began
    if outcome.reply is not None:
        assert outcome.reply.trace is not None
        outcome.attempts = outcome.reply.trace.attempts
    else:
        outcome.attempts = getattr(outcome.error, "attempts", ())
    return outcome


def laws(outcome: Outcome, hosts: Mapping[str, Host], before: Mapping[str, int]) -> list[str]:
    """What must hold for every request, whatever happened to it; the sentences of those that do not."""
    return [*_answer_laws(outcome), *_attempt_laws(outcome, hosts, before)]


def _answer_laws(outcome: Outcome) -> Iterator[str]:
    reply, error = outcome.reply, outcome.error
    if reply is not None and reply.trace is not None:
        trace = reply.trace
        if reply.text != whole(reply.model) or outcome.text != reply.text:
            yield f"a truncated or mixed answer is presented as whole: {reply.text!r}, delivered {outcome.text!r}"
        if [one.model for one in trace.attempts if not one.error] != [reply.model] or trace.model != reply.model:
            yield f"the reply names {reply.model!r}, and its trace does not say that it alone answered"
        total = sum(one.cost_usd for one in trace.attempts)
        if abs(total - trace.cost_usd) > 1e-12 or abs(total - reply.usage.cost_usd) > 1e-12 or total <= 0:
            yield f"costs do not add up: {total}, {trace.cost_usd}, {reply.usage.cost_usd}"
    elif error is not None:
        part = getattr(error, "partial", "")
        if not outcome.attempts or not all(one.error for one in outcome.attempts):
            yield f"the error does not list the attempts that failed: {outcome.attempts}"
        if outcome.text != part:
            yield f"delivered {outcome.text!r}, but the error's partial text is {part!r}"
        said = f"{error} {error!r} {outcome.attempts}"
        if any(secret in said for secret in (QUESTION, SECRET, "I am ")):
            yield "a message holds the prompt, the reply or a key"


def _attempt_laws(outcome: Outcome, hosts: Mapping[str, Host], before: Mapping[str, int]) -> Iterator[str]:
    traced = outcome.by_provider
    for name, host in hosts.items():
        if not host.provider.down and traced.get(name, 0) != outcome.counted[name]:
            yield f"the trace tells of {traced.get(name, 0)} attempts on {name!r}, and its server of {outcome.counted[name]}"
        own = [one for one in outcome.attempts if one.model == name]
        for times in (host.asked_at[before[name] :], [one.at_s for one in own]):
            if any(third - first < 1.5 for first, third in zip(times, times[2:], strict=False)):
                yield f"{name!r} was asked more than twice within 1.5 s: {times}"
        if any(one.error == "AttemptTimeout" for one in own[:-1]):
            yield f"{name!r} was silent, and was asked again"


def _stranger() -> ssl.SSLContext:
    """A certificate for the loopback address, of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def _dated(step: Reply | Fault) -> Reply | Fault:
    """A Retry-After that begins with "+" becomes the HTTP date of so many seconds from now."""
    if isinstance(step, Fault) and isinstance(step.retry_after, str) and step.retry_after.startswith("+"):
        return replace(step, retry_after=formatdate(CLOCK.now() + float(step.retry_after), usegmt=True))
    return step


def expected(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Where the outcome is not what the row says, and the laws that were broken; nothing when all is well."""
    seen = {
        "answer": outcome.reply.model if outcome.reply is not None else "",
        "error": type(outcome.error).__name__ if outcome.error is not None else "",
        "attempts": outcome.by_provider,
        "errors": tuple(one.error for one in outcome.attempts),
        "restarts": outcome.restarts,
        "partial": bool(getattr(outcome.error, "partial", "")),
    }
    if seen["error"] == "AllModelsFailed":  # chance orders their second attempts
        seen["errors"], scenario = tuple(sorted(seen["errors"])), replace(scenario, errors=tuple(sorted(scenario.errors)))
    wrong = [
        f"{name}: {value!r}, not {getattr(scenario, name)!r}"
        for name, value in seen.items()
        if value != getattr(scenario, name)
    ]
    if outcome.seconds < scenario.least_s:
        wrong.append(f"it came after {outcome.seconds:.2f} s; the provider had asked to wait {scenario.least_s:g} s")
    return [*wrong, *outcome.broken]
