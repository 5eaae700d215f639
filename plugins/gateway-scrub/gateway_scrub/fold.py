"""Text as it is searched: full-width letters, digits and signs as ASCII, zero-width characters taken out; and the way back."""

from __future__ import annotations

import re
from bisect import bisect_right

WIDE = re.compile("[\uff0b\uff0d-\uff1a\uff20-\uff3a\uff3f\uff41-\uff5a\uff08\uff09]+")
"""What is folded: only what matters in a number, an address or a key."""
TABLE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
ALIKE = (*((dash, "-") for dash in "\u2010\u2011\u2012\u2013\u2212"), *((blank, " ") for blank in "\u00a0\u2007\u202f\u3000"))
"""Single characters are folded one by one: that is many times as fast as a set of them."""
HIDDEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]+")
HIDDEN_EACH = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
EAST = re.compile("[\u3001-\uffef]")
"""A character of Chinese, Japanese or Korean: most texts have none, and need not be searched for words of theirs."""


class Folded:
    """`text`, to be searched; `lower`, the same in lower case, character for character; `east`: whether it has characters of
    East Asia. `span` leads back."""

    def __init__(self, original: str) -> None:
        text = original
        self._cuts: list[tuple[int, int]] = []
        self.east = False
        if not text.isascii():
            if any(char in text for char in HIDDEN_EACH) or _beyond(text):
                text = self._without_hidden(text)
            for char, plain in ALIKE:
                text = text.replace(char, plain)
            self.east = EAST.search(text) is not None
            if self.east:
                text = WIDE.sub(_narrow, text)
        self.text = text
        self.lower = text.replace("İ", "i").lower()  # the one letter that becomes two in lower case

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the original a stretch of `text` lies; hidden characters within it belong to it."""
        if not self._cuts:
            return start, end
        return self._original(start), self._original(end - 1) + 1

    def _without_hidden(self, text: str) -> str:
        pieces, at, removed = [], 0, 0
        for match in HIDDEN.finditer(text):
            pieces.append(text[at : match.start()])
            at = match.end()
            removed += match.end() - match.start()
            self._cuts.append((match.end() - removed, removed))  # from here on, so many have been taken out
        return "".join((*pieces, text[at:]))

    def _original(self, at: int) -> int:
        cut = bisect_right(self._cuts, (at, 1 << 60)) - 1
        return at if cut < 0 else at + self._cuts[cut][1]


def _narrow(match: re.Match[str]) -> str:
    return match.group().translate(TABLE)


def _beyond(text: str) -> bool:
    """Whether it has characters beyond the basic plane, some of which are hidden ones."""
    return len(text.encode("utf-16-le", "surrogatepass")) > 2 * len(text)
