"""A service under test: asked with a guard, its stream read to the end, what it says compared with what was expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.card import ModelCard, Usage
from gateway.errors import GatewayError
from gateway.parts import Delta, Restart, ToolCall, assemble
from gateway.request import Request, Response
from gateway.service import ModelService, Resources
from gateway.tasks import Chat, Embed, Generate, Message
from gateway.testing.contract_rules import Broken, raised_at, within
from gateway.text_tasks import Answer, Classify, Extract, Rerank, Summarize, Translate

CANARY = "Quetzalcoatlus"
"""A rare word in the prompts: where it turns up, a prompt has leaked."""

MAX_ITEMS = 100_000
NOT_CONTENT = frozenset({"usage", "model", "trace", "id", "served_by", "parsed", "meta"})


class NoRequest(Broken):
    """The card lists a task of the author's own, and the fixture `requests` has none of it: there is nothing to check with."""


def usual_requests(task: type[Request[Any]]) -> list[Request[Any]]:
    """Requests of a built-in task that a model may be asked without harm; none for a task of one's own."""
    if task is Chat:
        turns = (Message.system("Be brief."), Message.user("Hi."), Message.assistant("Hello."), Message.user("Name a river."))
        return [
            Chat.ask(f"What is a {CANARY}?", max_tokens=12, temperature=0.0),
            Chat(messages=turns, max_tokens=12, temperature=0.0),
        ]
    if task is Generate:
        return [Generate(prompt=f"The {CANARY} and other animals:", max_tokens=12, temperature=0.0)]
    if task is Embed:
        return [Embed(texts=("a cat", "a dog")), Embed(texts=(f"the {CANARY}",))]
    text = f"The {CANARY} of Mr. Brown flew from Bern to Paris."
    of_text: tuple[Request[Any], ...] = (
        Classify(inputs=text),
        Extract(inputs=text),
        Answer(question="Where did it fly from?", context=text),
        Summarize(inputs=text),
        Translate(inputs=text),
        Rerank(query="flight", documents=(text, "A cat sat on the mat.")),
    )
    return [request for request in of_text if type(request) is task]


def chosen_requests(card: ModelCard, given: Iterable[Request[Any]]) -> list[Request[Any]]:
    """The author's requests, and usual ones for each task of the card that the author gave none of."""
    out = list(given)
    for task in sorted(card.tasks, key=lambda task: task.task):
        if any(isinstance(request, task) for request in out):
            continue
        usual = usual_requests(task)
        if not usual:
            raise NoRequest(
                f"the card lists the task {task.task!r}, and the contract has no request of it",
                f"a fixture `requests` that returns a list with a {task.__name__} in it",
                "only the author of a task knows what a sensible request of it is",
            )
        out += usual
    return out


def unbare(error: Exception, what: str) -> Broken:
    """The breach of a service that lets an exception of its own escape."""
    return Broken(
        f"{what} raised a bare {type(error).__name__}: {error}{raised_at(error)}",
        "a GatewayError (see gateway.errors), raised from the exception",
        "callers and the gateway react to the class of a GatewayError; anything else counts as a crash of the service",
    )


@dataclass
class Subject:
    """A service that has been described and started, with what it is to be asked."""

    service: ModelService
    card: ModelCard
    requests: list[Request[Any]]
    patience_s: float

    def one_per_task(self) -> list[Request[Any]]:
        """The first request of each kind."""
        return list({type(request): request for request in reversed(self.requests)}.values())

    async def run(self, request: Request[Any]) -> Response:
        """The checked answer, or Broken. GatewayErrors pass through."""
        what = f"run of a {request.task} request"
        try:
            response = await within(self.patience_s, self.service.run(request), what)
        except (GatewayError, Broken):
            raise
        except Exception as error:
            raise unbare(error, what) from error
        check_response(request, response, what)
        return response

    async def answer(self, request: Request[Any]) -> Response:
        """As `run`, for a request that must be answered."""
        try:
            return await self.run(request)
        except GatewayError as error:
            raise refused(error, request, "run") from error

    async def stream(self, request: Request[Any]) -> Response:
        """The checked last Response of a stream, which its deltas add up to."""
        what = f"stream of a {request.task} request"
        try:
            items = await within(self.patience_s, self._drain(request), what)
        except (GatewayError, Broken):
            raise
        except Exception as error:
            raise unbare(error, what) from error
        return check_stream(request, items, what)

    async def streamed(self, request: Request[Any]) -> Response:
        """As `stream`, for a request that must be answered."""
        try:
            return await self.stream(request)
        except GatewayError as error:
            raise refused(error, request, "stream") from error

    async def outcome(self, request: Request[Any], *, stream: bool) -> Response | GatewayError:
        """The answer, or the GatewayError in its place."""
        try:
            return await (self.stream(request) if stream else self.run(request))
        except GatewayError as error:
            return error

    async def _drain(self, request: Request[Any]) -> list[Delta | Restart | Response]:
        items: list[Delta | Restart | Response] = []
        stream = self.service.stream(request)
        try:
            async for item in stream:
                items.append(item)
                if len(items) > MAX_ITEMS:
                    raise Broken(
                        f"the stream of a {request.task} request did not end within {MAX_ITEMS} items",
                        "deltas, then one Response, then the end",
                        "a caller would read for ever",
                    )
        finally:
            await close(stream)
        return items


@asynccontextmanager
async def started(
    service: ModelService, resources: Resources, requests: Iterable[Request[Any]], patience_s: float
) -> AsyncIterator[Subject]:
    """A subject, closed at the end."""
    card = await within(patience_s, service.describe(resources), "describe")
    try:
        await within(patience_s, service.start(resources), "start")
        yield Subject(service, card, chosen_requests(card, requests), patience_s)
    finally:
        await within(patience_s, service.aclose(), "aclose")


async def close(stream: AsyncIterator[Any]) -> None:
    """Close an async generator; another kind of iterator has nothing to close."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


def refused(error: GatewayError, request: Request[Any], verb: str) -> Broken:
    """The breach of a service that does not do what its card says."""
    return Broken(
        f"{verb} of a {request.task} request, a task on its card, raised {type(error).__name__}: {error}",
        f"a {request.response.__name__} (if only this request is unfit, give others in the fixture `requests`)",
        "the gateway routes by the card: a task listed there is a promise",
    )


def check_response(request: Request[Any], response: Any, what: str) -> None:
    """Broken unless this is a response of the task, with sane usage."""
    promised = request.response
    if type(response) is not promised and not (promised is Response and isinstance(response, Response)):
        raise Broken(
            f"{what} returned a {type(response).__name__}",
            f"exactly a {promised.__name__}",
            "the request's class promises the response's class to the caller and to the type checker",
        )
    finish = getattr(response, "finish", "stop")
    if finish not in ("stop", "length", "tool_calls", "filter"):
        raise Broken(
            f"{what} returned the finish {finish!r}",
            "stop, length, tool_calls or filter",
            "callers branch on why a reply ended",
        )
    check_usage(response.usage, what)


def check_usage(usage: Usage, what: str) -> None:
    """Broken unless the counts can be true."""
    cached = usage.cached_tokens + usage.cache_write_tokens
    counts = (usage.input_tokens, cached, usage.output_tokens, usage.reasoning_tokens)
    whole = all(isinstance(count, int) and count >= 0 for count in counts)
    cost = 0.0 if usage.cost_usd is None else usage.cost_usd
    if not whole or not math.isfinite(cost) or cost < 0:
        seen, expected = f"{what} reported {usage}", "whole token counts and a finite cost, none below 0"
    elif cached > usage.input_tokens:
        seen, expected = f"{what} reported {usage}", "cached_tokens within input_tokens"
    elif usage.reasoning_tokens > usage.output_tokens:
        seen, expected = f"{what} reported {usage}", "reasoning_tokens within output_tokens"
    else:
        return
    raise Broken(seen, expected, "budgets, limits and prices are reckoned from it")


def check_stream(request: Request[Any], items: Sequence[object], what: str) -> Response:
    """The one Response at the end of a stream. Broken unless the stream is well formed and adds up to it."""
    why = "a reader shows the deltas as they come and keeps the response: both must tell the same"
    for item in items:
        if not isinstance(item, (Delta, Restart, Response)):
            raise Broken(f"{what} yielded a {type(item).__name__}", "Delta, Restart and Response only", why)
    responses = [item for item in items if isinstance(item, Response)]
    if len(responses) != 1:
        raise Broken(f"{what} yielded {len(responses)} responses", "exactly one Response, as the last item", why)
    response = responses[0]
    if items[-1] is not response:
        raise Broken(f"{what} yielded {type(items[-1]).__name__} after the response", "nothing after the Response", why)
    check_response(request, response, what)
    deltas: list[Delta] = []
    for item in items:
        if isinstance(item, Restart):
            deltas = []
        elif isinstance(item, Delta):
            deltas.append(item)
    indices = sorted({delta.part for delta in deltas})
    if indices != list(range(len(indices))):
        raise Broken(f"{what} used the part indices {indices}", "0, 1, 2, ... without gaps", "indices place the parts")
    if not same(assemble(deltas), assemble(response.deltas())):
        raise Broken(
            f"the deltas of a {what} add up to {assemble(deltas)}, its response holds {assemble(response.deltas())}",
            "the response to equal the sum of the deltas",
            why,
        )
    return response


def same(one: object, other: object, *, ids: bool = True) -> bool:
    """True when two contents agree: floats to a thousandth (batching changes their last digits), usage left out.

    Without `ids` the ids of tool calls, which are made up for each reply, are left out too.
    """
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        skipped = NOT_CONTENT if isinstance(one, Response) else frozenset({"meta"})
        if isinstance(one, ToolCall) and not ids:
            skipped |= {"id"}
        names = [f.name for f in dataclasses.fields(one) if f.name not in skipped]
        return all(same(getattr(one, name), getattr(other, name), ids=ids) for name in names)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key], ids=ids) for key in one)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(same(a, b, ids=ids) for a, b in zip(one, other, strict=True))
    return bool(one == other)
