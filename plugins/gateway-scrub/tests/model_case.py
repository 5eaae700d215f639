"""A hosted and a local model that keep what they were told, services that extract, and a gateway with detectors between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway_scrub.conversations import Conversations
from gateway_scrub.detect import Detector, Detectors, Find
from gateway_scrub.model import ExtractDetector
from gateway_scrub.options import NamesOptions, ScrubOptions
from gateway_scrub.transform import Scrub, ScrubPolicy

from gateway import (
    AsyncGateway,
    Chat,
    ChatResponse,
    Extract,
    ExtractResponse,
    GatewayConfig,
    Message,
    Meta,
    ModelCard,
    ModelService,
    Need,
    Place,
    Request,
    Resources,
    Response,
    Span,
)
from gateway.testing.fakes import resources


class Told(ModelService):
    """Says the last message again; `saw` is all that it was told."""

    def __init__(self, name: str = "hosted", place: Place = "hosted") -> None:
        self.card = ModelCard(name=name, tasks=frozenset({Chat}), place=place)
        self.saw: list[str] = []

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Chat)
        self.saw.append("\n".join(message.text for message in request.messages))
        return ChatResponse.of(request.messages[-1].text)


NAME = "Maren Okafor"
SENTENCE = f"Please write to {NAME} today."
ASKED = Chat(messages=(Message.user(SENTENCE),))
HOSTED, HERE = Need(model="hosted"), Need(model="here")
"""A request that holds a name, and whom to ask."""

Answers = Callable[[str], Sequence[Span]]


class Finder(ModelService):
    """Extracts what `answers` finds in a text, when `gate` lets it; `asked` are the texts, `most` were asked about at once.

    It loads until `loaded` is set, where that is given.
    """

    def __init__(self, answers: Answers, place: Place = "process", gate: asyncio.Event | None = None) -> None:
        self.card = ModelCard(name="ner", tasks=frozenset({Extract}), place=place)
        self.asked: list[str] = []
        self.now = self.most = 0
        self._answers, self.gate = answers, gate
        self.loaded: asyncio.Event | None = None
        self.starts = 0

    async def start(self, resources: Resources) -> None:
        self.starts += 1
        if self.loaded is not None:
            await self.loaded.wait()

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Extract)
        self.asked.append(request.inputs)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
        finally:
            self.now -= 1
        return ExtractResponse(spans=tuple(self._answers(request.inputs)))


def names(*known: str, label: str = "PER", score: float = 0.9) -> Answers:
    """Finds these names wherever they stand whole."""

    def find(text: str) -> list[Span]:
        out = []
        for name in known:
            at = text.find(name)
            while at >= 0:
                out.append(span(text, at, at + len(name), label, score))
                at = text.find(name, at + 1)
        return out

    return find


def span(text: str, start: int, end: int, label: str = "PER", score: float = 0.9) -> Span:
    return Span(entity_group=label, score=score, word=text[start:end], start=start, end=end)


def names_options(**options: Any) -> NamesOptions:
    return NamesOptions(**{"model": "ner", **options})


def gateway_of(
    *models: ModelService,
    finds: Sequence[Find] = (),
    detectors: Sequence[Detector] | None = None,
    options: ScrubOptions | None = None,
    **names: Any,
) -> AsyncGateway:
    """These models, scrubbed by `finds` and, unless there are other `detectors`, the model "ner"; `names` are its options."""
    asked = [ExtractDetector(names_options(**names))] if detectors is None else detectors
    look = Detectors(finds, asked)
    scrub = Scrub(options or ScrubOptions(), lambda: (look, frozenset[str]()), Conversations())
    return AsyncGateway(models, policies=[ScrubPolicy()], transforms=[scrub], config=GatewayConfig(plugins=[]))


async def said(gateway: AsyncGateway, *texts: str) -> ChatResponse:
    return await gateway.run(Chat(messages=tuple(Message.user(text) for text in texts)))


async def found(text: str, service: Finder, **options: object) -> list[tuple[str, str]]:
    """What is found in a text, and of what type."""
    detector = ExtractDetector(names_options(**options))
    async with gateway_of(service, detectors=[]) as gateway:
        [spans] = await detector.find([text], resources(run=gateway.run), Meta())
    return [(text[each.start : each.end], each.type) for each in spans]
