"""Conversation: what stands for what in one conversation; it covers texts on their way out and restores them on the way back.

    conversation = Conversation()
    sent = conversation.cover("Ask Anna.", [Span(4, 8, "PERSON", 0.9, "model")])      # Ask <PERSON_1:3fa9c2xk>.
    conversation.restore("Anna, or <PERSON_1:3fa9c2xk>?")                               # Anna, or Anna?

Whatever `restore` would change in a text that the user wrote is covered too, as a TEXT of its own: restore(cover(x)) is x.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from gateway_scrub.errors import ScrubError
from gateway_scrub.escapes import decoded
from gateway_scrub.restore import Finder, Restorer, restored
from gateway_scrub.spans import Span
from gateway_scrub.surrogate import ATTEMPTS, Inventor, Surrogates
from gateway_scrub.tokens import STRICT, TYPE, Hit, Known, Placeholders, lookalikes, tail_of

How = Literal["keep", "mask", "placeholder", "surrogate", "drop"]
MASK = "***"
MAX_TOKENS = 10_000
_HOWS = ("keep", "mask", "placeholder", "surrogate", "drop")


class Conversation:
    """The placeholders and surrogates of one conversation. Any thread may use it.

    `key`: 32 bytes that nobody else has; without it, random ones. At most `max_tokens` texts get a placeholder or surrogate:
    the next one is a ScrubError, and its text must stay here.
    """

    def __init__(self, key: bytes = b"", *, max_tokens: int = MAX_TOKENS, inventor: Inventor | None = None) -> None:
        if key and len(key) != 32:
            raise ValueError("a conversation's key is 32 bytes")
        self._key = key or os.urandom(32)
        self._max_tokens = max_tokens
        self._inventor = inventor or Inventor()
        self._lock = threading.RLock()
        self._placeholders, self._surrogates = Placeholders(), Surrogates()
        self._known: dict[tuple[str, str], Known] = {}
        self._invented: dict[tuple[str, str], str] = {}
        self._numbers: dict[tuple[str, str], int] = {}  # by type and normalised value
        self._last: dict[str, int] = {}
        self._written: dict[str, None] = {}
        """Tails that users wrote themselves, and that are therefore never given out: the latest `max_tokens` of them."""
        self.changes = 0
        """How often something was added."""

    def __repr__(self) -> str:
        return f"<Conversation {len(self._known)} placeholders, {len(self._invented)} surrogates>"

    def __reduce__(self) -> Any:
        raise TypeError("a conversation is not serialised: it holds what it hides")

    @property
    def size(self) -> int:
        """How many placeholders and surrogates there are."""
        return len(self._known) + len(self._invented)

    @property
    def longest(self) -> int:
        """A restorer holds back at most so many characters: those of the longest near form and the longest surrogate."""
        return self._placeholders.longest + self._surrogates.longest

    def token(self, type: str, text: str, normal: str | None = None) -> str:
        """The placeholder of this text, the same for the whole conversation.

        Texts of one `normal` value share their number; without it, those that differ in case or width alone or, of numbers, in
        how they are grouped. Each has its own tail, and comes back as it was.
        """
        if not TYPE.fullmatch(type):
            raise ValueError("a type is upper-case letters, digits and _, such as EMAIL")
        with self._lock:
            known = self._known.get((type, text))
            if known is None:
                self._make_room()
                attempt = 0
                while (tail := tail_of(self._key, type, text, attempt)) in self._placeholders.by_tail or tail in self._written:
                    attempt += 1
                known = self._add(type, self._number(type, _normal(text) if normal is None else normal), tail, text)
            return known.token

    def cover(
        self, text: str, spans: Sequence[Span], how: Callable[[Span], How] | None = None, *, beside: Iterable[str] = ()
    ) -> str:
        """The text with its spans replaced; `how` says by what, a placeholder if it is None.

        What is masked or dropped cannot be restored. Where spans overlap, all that they cover is replaced, as one. `beside` are
        the request's other texts, in which a new surrogate must not occur either.
        """
        with self._lock:
            pieces = list(_pieces(text, spans, how))
            if any(kind == "surrogate" for kind, _, _ in pieces):
                covered = self._assembled(pieces, [text, *beside])
                if self.restore(covered) == "".join([MASK if kind == "mask" else part for kind, _, part in pieces]):
                    return covered
            return self._assembled(pieces, None)

    def restore(self, text: str, *, json: bool = False) -> str:
        """The text with every known placeholder and surrogate replaced, once; what is not known stays as it is.

        `json`: the text is JSON, whose strings hold them, perhaps with escapes such as ``\\u003c``; values are escaped to stand
        in a string.
        """
        return restored(text, self._finders, json=json) if self.size else text

    def hits(self, text: str) -> list[Hit]:
        """What `restore` replaces in a text, in order: from where to where, and by what."""
        out: list[Hit] = []
        at = 0
        for hit in [*self._placeholders.find(text, 0, final=True)[0], (len(text), len(text), "")]:
            if self._surrogates.values:
                found: list[Hit] = self._surrogates.find(text[at : hit[0]], 0, final=True)[0]
                out += [(at + start, at + end, value) for start, end, value in found]
            out.append(hit)
            at = hit[1]
        return out[:-1]

    def restorer(self, *, json: bool = False) -> Restorer:
        """The same for a text that comes in pieces."""
        return Restorer(self._finders, json=json)

    @property
    def _finders(self) -> list[Finder]:
        return [self._placeholders, self._surrogates] if self._surrogates.values else [self._placeholders]

    def _assembled(self, pieces: Iterable[tuple[str, str, str]], texts: Sequence[str] | None) -> str:
        """Spans replaced, and what lies between them safe; surrogates, checked against `texts`, only if those are given."""
        out: list[str] = []
        between: list[str] = []

        def put(replacement: str) -> None:
            out.extend((self._escaped("".join(between)), replacement))
            between.clear()

        for kind, type, part in pieces:
            if kind == "keep":
                between.append(part)
            elif kind == "mask":
                between.append(MASK)  # no border: a placeholder could come of what stands left and right of it
            elif kind == "surrogate" and texts is not None:
                put(self._surrogate(type, part, texts) or self.token(type, part))
            elif part:
                put(self.token(type, part))
        put("")
        return "".join(out)

    def _escaped(self, text: str) -> str:
        """A user's own text, with what would be restored in it, or is shaped like a placeholder, as placeholders of its own."""
        for tail in lookalikes(text):
            self._note(tail)
        for finder in (self._placeholders, self._surrogates):
            hits: list[Hit] = finder.find(text, 0, final=True)[0]
            ends = {(start, end) for start, end, _ in hits}
            if finder is self._placeholders:
                ends.update(found.span() for found in STRICT.finditer(text))
            if ends:
                return self._around(text, ends)
        return text

    def _around(self, text: str, ends: Iterable[tuple[int, int]]) -> str:
        out, at = [], 0
        for start, end in sorted(ends):
            if start < at:
                continue  # a part of the one before
            out += [self._escaped(text[at:start]), self.token("TEXT", text[start:end])]
            at = end
        return "".join([*out, self._escaped(text[at:])])

    def _surrogate(self, type: str, text: str, texts: Sequence[str]) -> str | None:
        invented = self._invented.get((type, text))
        attempt = 0
        while invented is None and attempt < ATTEMPTS:
            candidate = self._inventor.invent(self._key, type, text, attempt)
            if candidate is None:
                return None
            values = (known.text for known in self._known.values())
            if self._surrogates.free(candidate, [*texts, *values, text]):
                self._make_room()
                self._invent(type, text, invented := candidate)
            attempt += 1
        return invented

    def _number(self, type: str, normal: str) -> int:
        number = self._numbers.get((type, normal))
        if number is None:
            number = self._last[type] = self._last.get(type, 0) + 1
            self._numbers[type, normal] = number
        return number

    def _note(self, tail: str) -> None:
        if tail not in self._placeholders.by_tail and tail not in self._written:
            self._written[tail] = None
            self.changes += 1
            if len(self._written) > self._max_tokens:
                del self._written[next(iter(self._written))]

    def _make_room(self) -> None:
        if self.size >= self._max_tokens:
            raise ScrubError(
                f"this conversation has {self._max_tokens} placeholders, and keeps no more: begin another, or raise max_tokens"
            )

    def _add(self, type: str, number: int, tail: str, text: str) -> Known:
        known = self._known[type, text] = Known(type, number, tail, text)
        self._placeholders.add(known)
        self.changes += 1
        return known

    def _invent(self, type: str, text: str, surrogate: str) -> None:
        self._invented[type, text] = surrogate
        self._surrogates.add(surrogate, text)
        self.changes += 1

    def dump(self) -> dict[str, Any]:
        """All that it knows, but for its key, as JSON has it: the very values, for an encrypted file alone."""
        with self._lock:
            return {
                "placeholders": [[known.type, known.number, known.tail, known.text] for known in self._known.values()],
                "numbers": [[type, normal, number] for (type, normal), number in self._numbers.items()],
                "surrogates": [[type, text, invented] for (type, text), invented in self._invented.items()],
                "written": list(self._written),
            }

    def load(self, kept: dict[str, Any]) -> None:
        """What `dump` gave, into a conversation that knows nothing yet."""
        with self._lock:
            for type, number, tail, text in kept["placeholders"]:
                self._add(type, number, tail, text)
            for type, normal, number in kept["numbers"]:
                self._numbers[type, normal] = number
                self._last[type] = max(number, self._last.get(type, 0))
            for type, text, invented in kept["surrogates"]:
                self._invent(type, text, invented)
            self._written = dict.fromkeys(kept["written"])


def _normal(text: str) -> str:
    escapes = decoded(text)
    folded = unicodedata.normalize("NFKC", text if escapes is None else escapes.text).casefold()
    if any(char.isalpha() for char in folded) or not any(char.isdigit() for char in folded):
        return folded
    return "".join(char for char in folded if char.isdigit() or char == "+")


def _pieces(text: str, spans: Iterable[Span], how: Callable[[Span], How] | None) -> Iterable[tuple[str, str, str]]:
    """How, type and text of each piece in order. "keep": it lies between the spans, or is kept; "drop" ones are left out."""
    chosen: dict[Span, str] = {span: how(span) if how is not None else "placeholder" for span in spans}
    for span, kind in chosen.items():
        if kind not in _HOWS:
            raise ValueError(f"a span is one of {', '.join(_HOWS)}: {span.type} is none of them")
        if not 0 <= span.start <= span.end <= len(text):
            raise ValueError(f"a span from {span.start} to {span.end} does not lie in a text of {len(text)} characters")
    groups: list[list[Span]] = []
    end = at = 0
    for span in sorted(span for span, kind in chosen.items() if kind != "keep" and span.start < span.end):
        if groups and span.start < end:
            groups[-1].append(span)
        else:
            groups.append([span])
        end = max(span.end, end)
    for group in groups:
        start, stop = group[0].start, max(span.end for span in group)
        best = max(group, key=lambda span: (span.rank, span.score, span.end - span.start, -span.start))
        yield "keep", "", text[at:start]
        if chosen[best] != "drop":
            yield chosen[best], best.type, text[start:stop]
        at = stop
    yield "keep", "", text[at:]
