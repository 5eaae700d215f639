"""Stand-ins that behave: models, a clock, a weight store and an observer, for tests of plugins and of apps.

    model = Echo("big", place="hosted", price=Price(input=1, output=2), params=8_000_000_000)
    flaky = Scripted("flaky", RateLimited("busy", model="flaky"), "Hello.")     # fails first, then answers
    clock = FakeClock(); clock.advance(60)

None of them sleeps, draws chance or touches a disk or network. They keep the contracts of `gateway.testing.contract`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from gateway.card import ModelCard, Usage
from gateway.clock import SystemClock, seeded
from gateway.errors import ContextTooLong, UnsupportedOption, UnsupportedTask, WeightsError
from gateway.events import Event
from gateway.keys import EnvKey, FileKey, Keys
from gateway.parts import Delta, Part, Restart, Text, ToolCall
from gateway.request import Request, Response
from gateway.safetensors import TensorInfo
from gateway.service import ModelService, Resources
from gateway.tasks import Chat, ChatResponse, Embed, EmbedResponse, Finish, Generate, GenerateResponse
from gateway.testing.schemas import instance
from gateway.weight_files import FileStore
from gateway.weights import Weights, WeightsWriter

FEATURES = frozenset({"tools", "json_schema", "stop", "seed", "dimensions", "prefill"})
DIMENSIONS = 16


class Echo(ModelService):
    """A model that answers with the text it was asked, word by word when streamed; each word counts as a token.

    Keyword arguments are facts of its card. It does what its card claims: with tools and ``tool_choice="required"`` (or a
    tool's name) it calls that tool, with a `response_format` it answers with JSON that fits, it stops at `max_tokens` and
    at stop strings, refuses media that it does not claim, and embeds texts such that equal words are near.
    """

    def __init__(self, name: str = "echo", **facts: Any) -> None:
        given = {"tasks": frozenset({Chat, Generate, Embed}), "context": 8192, "features": FEATURES, **facts}
        self.card = ModelCard(name=name, **given)

    async def run(self, request: Request[Any], /) -> Response:
        await asyncio.sleep(0)  # a real model suspends, so that a cancellation can reach it
        return self._answer(request)

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        response = await self.run(request)
        for delta in response.deltas():
            for piece in pieces(delta):
                yield piece
                await asyncio.sleep(0)
        yield response

    def _answer(self, request: Request[Any]) -> Response:
        if type(request) not in self.card.tasks:
            raise UnsupportedTask.of(self.card, request)
        match request:
            case Chat():
                return self._chat(request)
            case Generate():
                words, finish = limited(request.prompt, request.max_tokens, request.stop)
                return GenerateResponse(text=words, finish=finish, usage=self._used(request.prompt, words))
            case Embed():
                if request.dimensions is not None and "dimensions" not in self.card.features:
                    raise self._cannot("dimensions")
                size = request.dimensions or self.card.dimensions or DIMENSIONS
                vectors = tuple(vector_of(text, size) for text in request.texts)
                return EmbedResponse(vectors=vectors, usage=self._used(" ".join(request.texts), ""))
        raise UnsupportedTask.of(self.card, request)

    def _chat(self, request: Chat) -> ChatResponse:
        for kind in request.traits().modalities - self.card.modalities:
            raise self._cannot(kind)
        for feature, asked in (("tools", request.tools), ("json_schema", request.response_format)):
            if asked and feature not in self.card.features:
                raise self._cannot(feature)
        asked_text = " ".join(message.text for message in request.messages)
        parts: tuple[Part, ...]
        if request.tools and request.tool_choice not in ("auto", "none"):
            tool = next((t for t in request.tools if t.name == request.tool_choice), request.tools[0])
            arguments = json.dumps(instance(tool.parameters))
            parts = (ToolCall("call_1", tool.name, arguments),)
            return ChatResponse(parts=parts, finish="tool_calls", usage=self._used(asked_text, arguments))
        if request.response_schema is not None:
            text, finish = limited(json.dumps(instance(request.response_schema)), request.max_tokens, request.stop)
        else:
            text, finish = limited(request.messages[-1].text, request.max_tokens, request.stop)
        parts = (Text(text),) if text else ()
        return ChatResponse(parts=parts, finish=finish, usage=self._used(asked_text, text))

    def _used(self, asked: str, answered: str) -> Usage:
        size = len(asked.split())
        if self.card.context is not None and size > self.card.context:
            message = f"{size} tokens do not fit the context of {self.card.name!r}, {self.card.context}"
            raise ContextTooLong(message, model=self.card.name, tokens=size, context=self.card.context)
        return Usage(input_tokens=size, output_tokens=len(answered.split()))

    def _cannot(self, option: str) -> UnsupportedOption:
        return UnsupportedOption(f"model {self.card.name!r} does not take {option}", model=self.card.name, option=option)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call's outcome: `answer`, or `error`, in a stream after `after_deltas` deltas of the answer.

    `began` is set when the call begins; then the call waits for `wait`. So a test decides what happens in which order.
    """

    answer: str | Response = ""
    error: BaseException | None = None
    after_deltas: int = 0
    began: asyncio.Event | None = None
    wait: asyncio.Event | None = None


class Scripted(ModelService):
    """A model that does what a script says, one step a call: a string or Response to answer, an exception to raise, a Step.

    After the last step it does `otherwise`, and without one an AssertionError tells that it was asked too often.
    `fail_describe` and `fail_start` are raised there. `asked` keeps the requests; `started` and `closed` count.
    Further keyword arguments are facts of its card.
    """

    def __init__(
        self,
        name: str,
        *steps: str | Response | BaseException | Step,
        otherwise: str | Response | BaseException | Step | None = None,
        fail_describe: BaseException | None = None,
        fail_start: BaseException | None = None,
        **facts: Any,
    ) -> None:
        self.card = ModelCard(name=name, **{"tasks": frozenset({Chat}), **facts})
        self.asked: list[Request[Any]] = []
        self.started = 0
        self.closed = 0
        self._steps = [as_step(step) for step in steps]
        self._otherwise = None if otherwise is None else as_step(otherwise)
        self._fail_describe = fail_describe
        self._fail_start = fail_start

    async def describe(self, resources: Resources) -> ModelCard:
        if self._fail_describe is not None:
            raise self._fail_describe
        return self.card

    async def start(self, resources: Resources) -> None:
        self.started += 1
        if self._fail_start is not None:
            raise self._fail_start

    async def run(self, request: Request[Any], /) -> Response:
        step = await self._next(request)
        if step.error is not None:
            raise step.error
        return response_of(step, request)

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        step = await self._next(request)
        response = response_of(step, request)
        for sent, piece in enumerate(piece for delta in response.deltas() for piece in pieces(delta)):
            if step.error is not None and sent >= step.after_deltas:
                break
            yield piece
            await asyncio.sleep(0)
        if step.error is not None:
            raise step.error
        yield response

    async def aclose(self) -> None:
        self.closed += 1

    async def _next(self, request: Request[Any]) -> Step:
        if type(request) not in self.card.tasks:
            raise UnsupportedTask.of(self.card, request)
        if isinstance(request, Chat):
            for media in request.traits().modalities - self.card.modalities:
                raise UnsupportedOption(f"model {self.card.name!r} does not take {media}", model=self.card.name, option=media)
        self.asked.append(request)
        step = self._steps.pop(0) if self._steps else self._otherwise
        if step is None:
            raise AssertionError(f"the script of {self.card.name!r} ended before call {len(self.asked)}")
        if step.began is not None:
            step.began.set()
        await (asyncio.sleep(0) if step.wait is None else step.wait.wait())
        return step


def as_step(step: str | Response | BaseException | Step) -> Step:
    """A step from its short form."""
    if isinstance(step, Step):
        return step
    return Step(error=step) if isinstance(step, BaseException) else Step(answer=step)


def response_of(step: Step, request: Request[Any]) -> Response:
    """A step's answer as the response of the request's task; a string becomes the text of a Chat or Generate."""
    if isinstance(step.answer, Response):
        return step.answer
    if isinstance(request, Generate):
        return GenerateResponse(text=step.answer)
    return ChatResponse.of(step.answer)


def limited(text: str, max_tokens: int | None, stop: Sequence[str]) -> tuple[str, Finish]:
    """The text up to a stop string and to `max_tokens` words, and how it ended."""
    for end in stop:
        text = text.partition(end)[0]
    words = words_of(text)
    if max_tokens is not None and len(words) > max_tokens:
        return "".join(words[:max_tokens]), "length"
    return text, "stop"


def words_of(text: str) -> list[str]:
    """The words of a text, each with the space before it; they join to the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


def pieces(delta: Delta) -> list[Delta]:
    """A delta cut into one delta a word."""
    words = words_of(delta.data)
    return [replace(delta, data=words[0]), *(Delta(word, delta.part, delta.kind) for word in words[1:])] if words else [delta]


def vector_of(text: str, size: int) -> tuple[float, ...]:
    """A unit vector of hashed words: the nearer, the more words two texts share."""
    sums = [0.0] * size
    for word in text.lower().split() or [text]:
        digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(size)
        sums = [total + byte - 127.5 for total, byte in zip(sums, digest, strict=True)]
    length = math.hypot(*sums)
    return tuple(value / length for value in sums)


class FakeClock:
    """A clock that stands still until a test advances it, or somebody sleeps by it.

    It starts at the start of a day, and so of every window.
    """

    def __init__(self, start: float = 1_728_000_000.0) -> None:
        self._start = start
        self._passed = 0.0

    def now(self) -> float:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Let time pass. ValueError for a negative time: a clock that runs backwards would test nothing real."""
        if seconds < 0:
            raise ValueError(f"a clock advances by at least 0 seconds, not {seconds}")
        self._passed += seconds


class MemoryStore:
    """``memory:NAME``: weights kept in this object, for tests of what loads or writes weights."""

    scheme = "memory"

    def __init__(self) -> None:
        self._models: dict[str, MemoryWeights] = {}

    def open(self, uri: str, keys: Keys) -> Weights:
        if uri not in self._models:
            raise WeightsError(f"no weights at {uri!r}")
        return self._models[uri]

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        if uri in self._models:
            raise WeightsError(f"{uri!r} exists already")
        return MemoryWriter(self._models, uri)


class MemoryWeights(Weights):
    """An opened model in memory. `read` gives a copy, so what is stored never changes."""

    def __init__(self, data: Mapping[str, tuple[str, tuple[int, ...], bytes]], files: Mapping[str, bytes]) -> None:
        infos = {name: TensorInfo(dtype, shape, len(raw)) for name, (dtype, shape, raw) in data.items()}
        self.tensors = MappingProxyType(infos)
        self.files = tuple(sorted(files))
        self._data = {name: raw for name, (_, _, raw) in data.items()}
        self._files = dict(files)

    def read(self, name: str) -> memoryview:
        if name not in self._data:
            raise WeightsError(f"there is no tensor {name!r}")
        return memoryview(bytearray(self._data[name]))

    def file(self, name: str) -> bytes:
        if name not in self._files:
            raise WeightsError(f"there is no file {name!r}")
        return self._files[name]


class MemoryWriter(WeightsWriter):
    """A model on its way into a MemoryStore."""

    def __init__(self, models: dict[str, MemoryWeights], uri: str) -> None:
        self._models = models
        self._uri = uri
        self._data: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
        self._files: dict[str, bytes] = {}

    def add_file(self, name: str, data: bytes) -> None:
        self._files[name] = bytes(data)

    def add_tensors(self, name: str, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> None:
        for tensor, (dtype, shape, data) in tensors.items():
            if tensor in self._data:
                raise WeightsError(f"tensor {tensor!r} is given twice")
            self._data[tensor] = (dtype, tuple(shape), bytes(data))

    def commit(self) -> None:
        if self._uri in self._models:
            raise WeightsError(f"{self._uri!r} exists already")
        self._models[self._uri] = MemoryWeights(self._data, self._files)

    def abort(self) -> None:
        self._data, self._files = {}, {}


class Recorder:
    """An observer that keeps every event in `events`."""

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def resources(**overrides: Any) -> Resources:
    """What a service is lent, outside a gateway: "file" and "memory" weights, "env" and "file" keys, a seeded source of chance.

    Keyword arguments replace those of `Resources`: ``resources(clock=FakeClock(), run=my_run)``.
    """
    usual: dict[str, Any] = {
        "stores": {"file": FileStore(), "memory": MemoryStore()},
        "keys": Keys({"env": EnvKey(), "file": FileKey()}),
        "clock": SystemClock(),
        "random": seeded(0),
    }
    return Resources(**{**usual, **overrides})
