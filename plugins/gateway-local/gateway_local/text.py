"""Tokens to text, piece by piece: no piece splits a character, and none is part of a stop string. Pure; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT_TOKENS = 6
"""How many tokens before a piece are decoded with it: a decoder may join or strip at the very start of a text."""

LONGEST_CHARACTER = 8
"""After so many tokens that make no whole character, none will come of them."""


class Detokenizer:
    """The text that tokens add up to after a prompt: `feed` gives what is certain, `flush` what is left."""

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(prompt[-CONTEXT_TOKENS:])
        self._known = self._decode(self._ids) if self._ids else ""
        self._done = len(self._ids)

    def feed(self, token: int) -> str:
        """More text, "" while the bytes so far end within a character."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._done < LONGEST_CHARACTER:
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """The rest, with U+FFFD for bytes that never became a character."""
        return self._advance(self._decode(self._ids)) if self._ids else ""

    def _advance(self, text: str) -> str:
        new = text[len(self._known) :]
        if not new:  # a special token shows nothing, and would be no context for the next piece
            return ""
        # The tokens of this piece are the context of the next one; what came before them is settled.
        self._ids = self._ids[self._done :][-CONTEXT_TOKENS:] or self._ids
        self._done = len(self._ids)
        self._known = self._decode(self._ids) if self._ids else ""
        return new


class StopFilter:
    """Passes text on until a stop string is complete; keeps back what may yet become one.

    The stop string that is complete first ends the text, and of several complete at one character the longest: what
    comes out does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What may be shown now. After a stop string: nothing, and `stopped` is True."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        keep = max(self._overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was kept back and became no stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many characters at the end of `text` may be the beginning of `stop`."""
        for size in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:size]):
                return size
        return 0


class Telling:
    """The text of an answer, as far as it may be told: tokens become characters, and a stop string ends it."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str], prompt: Sequence[int] = ()) -> None:
        self._detokenizer, self._stops = Detokenizer(decode, prompt), StopFilter(stops)

    @property
    def stopped(self) -> bool:
        """True when a stop string is complete."""
        return self._stops.stopped

    def feed(self, token: int) -> str:
        """What this token makes certain."""
        return self._stops.feed(self._detokenizer.feed(token))

    def flush(self) -> str:
        """What is left when no token follows."""
        return "" if self.stopped else self._stops.feed(self._detokenizer.flush()) + self._stops.flush()
