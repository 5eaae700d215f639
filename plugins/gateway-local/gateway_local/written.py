"""The parts of a reply as they are written: numbered, each with its deltas. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gateway import Delta


class Written:
    """What a reply is so far."""

    def __init__(self, new_id: Callable[[], str], *, most: int | None = None) -> None:
        self.deltas: list[Delta] = []
        self._most = most
        self.calls = 0
        """How many tool calls have begun."""
        self.whole = 0
        """How many of them are whole."""
        self._new_id = new_id
        self._kind: Literal["text", "reasoning", "tool_call", ""] = ""
        self._part = -1
        self._sent = 0

    @property
    def full(self) -> bool:
        """Whether as many calls are whole as there may be."""
        return self._most is not None and self.whole >= self._most

    def text(self, text: str) -> None:
        """More of the answer."""
        if text:
            self._begin("text")
            self.deltas.append(Delta(text, self._part))

    def thought(self, text: str) -> None:
        """More of a thought."""
        if text:
            self._begin("reasoning")
            self.deltas.append(Delta(text, self._part, "reasoning"))

    def call(self, name: str) -> None:
        """A call begins."""
        self.close()
        self._begin("tool_call")
        self.calls += 1
        self.deltas.append(Delta("", self._part, "tool_call", self._new_id(), name))

    def arguments(self, text: str) -> None:
        """More of a call's arguments; nothing at all is a sign that it goes on."""
        self.deltas.append(Delta(text, self._part, "tool_call"))

    def close(self) -> None:
        """What comes next is a part of its own."""
        self._kind = ""

    def taken(self) -> list[Delta]:
        """The deltas since the last time."""
        new, self._sent = self.deltas[self._sent :], len(self.deltas)
        return new

    def _begin(self, kind: Literal["text", "reasoning", "tool_call"]) -> None:
        if kind != self._kind:
            self._kind, self._part = kind, self._part + 1
