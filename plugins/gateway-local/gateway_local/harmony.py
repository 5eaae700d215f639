"""The channels of gpt-oss: analysis is thought, commentary to a function is a call, the rest is text. Pure; no torch.

https://cookbook.openai.com/articles/openai-harmony: ``<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>
commentary to=functions.look <|constrain|>json<|message|>{...}<|call|>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway_local.syntax import overlap
from gateway_local.written import Written

MESSAGE = "<|message|>"
BEGINS = ("<|channel|>", "<|start|>", MESSAGE, "to=")
"""How the head of a message may begin; a first one follows ``<|start|>assistant``."""
ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
TO = re.compile(r"\bto=functions\.([^\s<]+)")
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class Harmony:
    """A reader of one reply, message after message."""

    def __init__(self, out: Written, *, calls: bool) -> None:
        self._out, self._calls = out, calls
        self._held = ""
        self._write: Callable[[str], None] | None = None  # None within a head
        self._called = False
        self.thinking = False

    def feed(self, text: str) -> None:
        self._held += text
        while not self._out.full and self._step():
            pass

    def flush(self) -> None:
        """A head that was cut off says nothing."""
        if self._write is None and self._headless(last=True):
            self._write = self._out.text
        while not self._out.full and self._step():
            pass
        if self._write is not None and self._held and not self._out.full:
            self._write(self._held)
        self._held = ""

    def _step(self) -> bool:
        if self._write is None:
            return self._head()
        found = [(at, mark) for mark in ENDS if (at := self._held.find(mark)) >= 0]
        if not found:
            size = len(self._held) - overlap(self._held, ENDS)
            if size:
                self._write(self._held[:size])
            self._held = self._held[size:]
            return False
        at, mark = min(found)
        self._write(self._held[:at])
        self._held = self._held[at if mark in BEGINS else at + len(mark) :]
        self._end()
        return True

    def _head(self) -> bool:
        if self._headless(last=False):
            self._write = self._out.text
            return True
        at = self._held.find(MESSAGE)
        if at < 0:
            return False
        head, self._held = self._held[:at], self._held[at + len(MESSAGE) :]
        to, channel = TO.search(head), CHANNEL.search(head)
        self._called = self._calls and to is not None
        self._out.close()
        if self._called and to is not None:
            self._out.call(to[1])
            self._write = self._out.arguments
        elif channel is not None and channel[1] == "analysis":
            self._write, self.thinking = self._out.thought, True
        else:
            self._write = self._out.text
        return True

    def _headless(self, *, last: bool) -> bool:
        """Whether what is held is no head of a message, as where a model forgets it."""
        said = self._held.lstrip()
        if any(said.startswith(mark) for mark in BEGINS):
            return False
        return bool(said) and (last or not any(mark.startswith(said) for mark in BEGINS))

    def _end(self) -> None:
        self._out.whole += self._called
        self._write, self._called, self.thinking = None, False, False
