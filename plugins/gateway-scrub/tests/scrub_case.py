"""A scrubber of few rules, a model that says what it was told, and what reached it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gateway_scrub.conversations import Conversations
from gateway_scrub.detect import Detector, Detectors
from gateway_scrub.options import ScrubOptions, read_options
from gateway_scrub.rules import Rule
from gateway_scrub.scan import Scanner
from gateway_scrub.transform import Scrub, ScrubPolicy

from gateway import (
    Chat,
    ChatResponse,
    Delta,
    Gateway,
    GatewayConfig,
    ModelCard,
    ModelService,
    Part,
    Place,
    Reasoning,
    Request,
    Response,
    Restart,
    Text,
    ToolCall,
)
from gateway.wire import to_wire

CAN: Any = {"features": frozenset({"tools"}), "modalities": frozenset({"text", "image", "file"})}
# Few, so that each test says what is found.
RULES = (
    Rule(name="email", type="EMAIL", finder="email", score=0.9),
    Rule(name="key", type="API_KEY", anchors=("sk-",), pattern="sk-[a-z0-9]{8,}", score=0.9, secret=True),
    Rule(name="number", type="PHONE", first=(11,), pattern="{D}[0-9]{11}{E}", score=0.9),
    Rule(name="ssn", type="US_SSN", first=(9,), pattern="{D}[0-9]{9}{E}", score=0.2, context=("ssn",), boost=0.5),
)


def scrub(models: Sequence[Detector] = (), conversations: Conversations | None = None, **options: Any) -> Scrub:
    """The transform, with these options and the four rules."""
    read = read_options(options)
    return Scrub(read, lambda: (detectors(read, models), frozenset({"API_KEY"})), conversations or Conversations())


def detectors(options: ScrubOptions, models: Sequence[Detector] = ()) -> Detectors:
    return Detectors([Scanner(RULES).find], models, allow=options.allow)


class Echo(ModelService):
    """Says the last message again, or the parts that it is given, in pieces of `cut` characters; keeps what it was asked."""

    def __init__(
        self, name: str = "hosted", place: Place = "hosted", *, parts: Sequence[Part] = (), cut: int = 3, **card: Any
    ) -> None:
        self.card = ModelCard(name=name, tasks=frozenset({Chat}), place=place, **CAN, **card)
        self.asked: list[Request[Any]] = []
        self._parts, self._cut = tuple(parts), cut

    async def run(self, request: Request[Any], /) -> Response:
        self.asked.append(request)
        assert isinstance(request, Chat)
        return ChatResponse(parts=self._parts or (Text(request.messages[-1].text),))

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        whole = await self.run(request)
        assert isinstance(whole, ChatResponse)
        for at, part in enumerate(whole.parts):
            match part:
                case Text(text) | Reasoning(text):
                    kind, data, first = part.type, text, {}
                case ToolCall():
                    kind, data, first = part.type, part.arguments, {"id": part.id, "name": part.name}
                case _:
                    yield Delta(part=at, kind="whole", whole=part)
                    continue
            pieces = [data[i : i + self._cut] for i in range(0, len(data), self._cut)] or [""]
            for number, piece in enumerate(pieces):
                yield Delta(piece, at, kind=kind, **first) if number == 0 else Delta(piece, at)  # type: ignore[arg-type]
        yield whole

    @property
    def saw(self) -> str:
        """All that it was told, as text."""
        return json.dumps([to_wire(request) for request in self.asked], ensure_ascii=False, default=str)


def gateway(*models: ModelService, transform: Scrub | None = None, **options: Any) -> Gateway:
    """A gateway of these models, with the scrubber and its policy."""
    made = transform or scrub(**options)
    return Gateway(models, policies=[ScrubPolicy()], transforms=[made], config=GatewayConfig(plugins=[]))
