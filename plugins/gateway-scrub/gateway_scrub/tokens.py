"""The grammar of placeholders, ``<TYPE_N:tail>``; their near forms, as models write them; which of them in a text are known.

A model may change letters' case, put spaces or emphasis between the parts, write another colon or ``_`` or ``-`` for it, lose
the underscore or the brackets, or use others. What counts is the tail, whole and right, and that TYPE and N are those of its
placeholder: then nothing is guessed, for a tail names one of the conversation's placeholders, or none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
TAIL = 8
"""Characters of a tail: 40 bits."""

TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
STRICT = re.compile(rf"<[A-Z][A-Z0-9_]{{0,63}}_[1-9][0-9]*:[{CROCKFORD}]{{{TAIL}}}>")

NOISE = r" \t\u00a0\u3000*_`~\\#\u200b-\u200d\u2060\ufeff\-"
"""What may stand between the parts, in a character class."""
SEP = ":："
GAP = 4
"""At most so much of it in one place, so that what a stream holds back is bounded."""

PAIRS = {
    "<": ">", "＜": ">", "&lt;": ">", "[": "]", "［": "]", "(": ")", "（": ")", "{": "}", "｛": "}",
    "【": "】", "《": "》", "〈": "〉", "「": "」",
}  # fmt: skip
_CLOSERS = {">": ">|＞|&gt;", "]": "]|］", ")": "[)）]", "}": "[}｝]"}
_OPEN = "|".join(re.escape(opener) for opener in PAIRS)
CLOSE = {opener: re.compile(rf"[{NOISE}]{{0,{GAP}}}(?:{_CLOSERS.get(kind, kind)})") for opener, kind in PAIRS.items()}
MAY_CLOSE = re.compile(rf"[{NOISE}]{{0,{GAP}}}(?:&(?:gt?)?)?")

# A type begins where no longer word does: US_PASSPORT is not PASSPORT.
_BEGIN = r"(?<![0-9A-Za-z])(?<![0-9A-Za-z][_-])(?<![0-9A-Za-z]__)"
_TAIL = rf"[{NOISE}]{{0,3}}+([0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]{{{TAIL}}})(?![0-9A-Za-z])"
# A pattern that begins with one fixed character is searched for at gigabytes a second, one that begins with a class is not.
_FAST = tuple(re.compile(char + _TAIL) for char in ":_-：")
_ANY = re.compile(f"[:_：-]{_TAIL}")
_NUMBERED = re.compile(rf"[0-9][{NOISE}{SEP}]{{1,{GAP + 2}}}\Z")
_END = re.compile(rf"(?:(?=[A-Za-z])|{_OPEN})([0-9A-Za-z{NOISE}{SEP}]*)\Z|&(?:lt?)?\Z")
LEAST = 3 + TAIL
"""Characters of the shortest that could be known."""
_DROP = {ord(char): None for char in " \t\u00a0\u3000*_`~\\#\u200b\u200c\u200d\u2060\ufeff-" + SEP}

Hit = tuple[int, int, str]
"""Where something known stands in a text, and the value that it stands for."""


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA-256 (RFC 5869), without salt: one key for each use of a secret."""
    return hmac.digest(hmac.digest(bytes(32), secret, hashlib.sha256), info + b"\1", hashlib.sha256)


def tail_of(key: bytes, type: str, text: str, attempt: int = 0) -> str:
    """The tail for this very text; another one for each attempt. No type has control characters: no two messages are equal."""
    told = type if not attempt else f"{type}\1{attempt}"
    digest = hmac.digest(key, f"{told}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256)
    bits = int.from_bytes(digest[:5])
    return "".join(CROCKFORD[bits >> shift & 31] for shift in range(35, -1, -5))


@dataclass(frozen=True, slots=True)
class Known:
    """A placeholder of the conversation, and the text that it stands for."""

    type: str
    number: int
    tail: str
    text: str = field(repr=False)

    @property
    def token(self) -> str:
        return f"<{self.type}_{self.number}:{self.tail}>"


def tails(text: str, at: int = 0) -> Iterator[int] | list[int]:
    """Where in the text, from `at`, what may be a tail begins, in order."""
    if len(text) - at < 512:
        return (found.start(1) for found in _ANY.finditer(text, at))
    patterns = _FAST if not text.isascii() else _FAST[:3]
    return sorted({found.start(1) for pattern in patterns for found in pattern.finditer(text, at)})


def lookalikes(text: str) -> Iterator[str]:
    """The tails of all that looks like some placeholder, known or not."""
    for at in tails(text):
        if _NUMBERED.search(text, max(0, at - GAP - 3), at):
            yield text[at : at + TAIL].lower()


@lru_cache(maxsize=1024)
def _head(type: str) -> re.Pattern[str]:
    parts = rf"[{NOISE}]{{0,{GAP}}}".join(part for part in type.split("_") if part)
    return re.compile(
        rf"(?:({_OPEN})[{NOISE}]{{0,{GAP}}})?{_BEGIN}({parts})[{NOISE}]{{0,{GAP}}}([0-9]+)[{NOISE}{SEP}]{{1,{GAP + 2}}}\Z",
        re.IGNORECASE | re.ASCII,
    )


@lru_cache(maxsize=1024)
def _beginning(firsts: tuple[str, ...]) -> re.Pattern[str]:
    """How what is known may begin: an opening bracket, or these first two letters of types, of which the text may have one."""
    openers = re.escape("".join(sorted({opener[0] for opener in PAIRS})))
    letters: dict[str, str] = {}
    for two in firsts:
        first, second = two[0], two[1:]
        after = second + second.lower()
        if not second or second == "_":  # which may be lost, before whatever follows
            after = f"0-9A-Za-z{NOISE}"
        letters[first] = letters.get(first, "") + after
    words = "|".join(f"[{first}{first.lower()}](?:[{after}]|\\Z)" for first, after in letters.items())
    return re.compile(f"[{openers}]|{_BEGIN}(?:{words})" if words else f"[{openers}]")


class Placeholders:
    """The placeholders of one conversation, to be found in texts. Adding one is for who holds the conversation's lock; finding
    needs no lock."""

    def __init__(self) -> None:
        self.by_tail: dict[str, Known] = {}
        self.longest = 0
        """Characters of the longest near form."""
        self._squeezed: list[str] = []
        self._firsts: tuple[str, ...] = ()
        self._beginning = _beginning(())

    def add(self, known: Known) -> None:
        """Know one more; its tail must be new."""
        insort(self._squeezed, f"{known.type}{known.number}{known.tail}".translate(_DROP).lower())
        self.longest = max(self.longest, self._width(known) + TAIL + GAP + len("&gt;"))
        if known.type[:2] not in self._firsts:
            self._firsts = tuple(sorted((*self._firsts, known.type[:2])))
            self._beginning = _beginning(self._firsts)
        self.by_tail[known.tail] = known

    def find(self, text: str, at: int, *, final: bool) -> tuple[list[Hit], int]:
        """The known ones that begin at `at` or after it, and up to where what follows the text cannot change that.

        `final`: nothing follows. What stands before `at` is looked at, and never part of a hit.
        """
        hits: list[Hit] = []
        for tail in tails(text, at) if len(text) - at >= LEAST else ():
            end = tail + TAIL
            known = self.by_tail.get(text[tail:end].lower())
            if known is None:
                continue
            head = _head(known.type).search(text, max(at, tail - self._width(known)), tail)
            if head is None or head[3] != str(known.number):
                continue
            if not final and end == len(text):
                return hits, head.start()
            start = head.start(2)
            if head[1]:
                closed = CLOSE[head[1]].match(text, end)
                if closed:
                    start, end = head.start(), closed.end()
                elif not final and MAY_CLOSE.fullmatch(text, end):
                    return hits, head.start()
            hits.append((start, end, known.text))
            at = end
        if final:
            return hits, len(text)
        at = max(at, len(text) - self.longest)
        while begun := self._beginning.search(text, at):  # the suffix that may yet become a known one
            at = begun.start()
            if (suffix := _END.match(text, at)) and (suffix[1] is None or self._begins(suffix[1])):
                return hits, at
            at += 1
        return hits, len(text)

    def _begins(self, written: str) -> bool:
        squeezed = written.translate(_DROP).lower()
        after = bisect_right(self._squeezed, squeezed)
        return after < len(self._squeezed) and self._squeezed[after].startswith(squeezed)

    @staticmethod
    def _width(known: Known) -> int:
        """Characters of the longest head: opening bracket, parts, and what is between them."""
        gaps = known.type.count("_") + 3
        return 4 + len(known.type) + len(str(known.number)) + GAP * gaps + 2
