"""What the tests of batches share: services that count, and a reader of journals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway import (
    Chat,
    ChatResponse,
    ModelCard,
    ModelService,
    Overloaded,
    Rejected,
    Request,
    Response,
)
from gateway.testing import Echo


def asks(count: int) -> list[Chat]:
    return [Chat.ask(f"number {n}") for n in range(count)]


def texts(results: Iterable[Any]) -> list[str]:
    return [result.text if isinstance(result, ChatResponse) else type(result).__name__ for result in results]


class Gate(ModelService):
    """Counts what is under way, notes what was asked, and answers only once `full` are under way or `open` is set."""

    def __init__(self, full: int = 1) -> None:
        self.card = ModelCard(name="gate", tasks=frozenset({Chat}))
        self.full = full
        self.open = asyncio.Event()
        self.asked: list[str] = []
        self.now = self.most = self.done = self.let_go = 0

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Chat)
        self.asked.append(request.messages[-1].text)
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self.full:
            self.open.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # letting go takes a turn
            self.let_go += 1
            raise
        finally:
            self.now -= 1
        self.done += 1
        return ChatResponse.of(request.messages[-1].text.upper())


class Counting(Echo):
    """An echo that notes what it is asked."""

    def __init__(self, *args: Any, **facts: Any) -> None:
        super().__init__(*args, **facts)
        self.asked: list[Request[Any]] = []

    async def run(self, request: Request[Any], /) -> Response:
        self.asked.append(request)
        return await super().run(request)


class Picky(Counting):
    """Refuses every text with the word bad; with `down` it has no room at all."""

    down = False

    async def run(self, request: Request[Any], /) -> Response:
        response = await super().run(request)
        if self.down:
            raise Overloaded("no room", fallbackable=False)
        if "bad" in getattr(response, "text", ""):
            raise Rejected("not this")
        return response


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
