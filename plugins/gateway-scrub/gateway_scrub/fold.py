"""Text as it is searched: full-width letters and signs, and the digits of other scripts, as ASCII; zero-width characters taken
out; and the way back."""

from __future__ import annotations

import re
from bisect import bisect_right

WIDE = re.compile(
    "[\uff0b\uff0d-\uff1a\uff20-\uff3a\uff3f\uff41-\uff5a\uff08\uff09\u2010-\u2013\u2212\u00a0\u2007\u202f\u3000"
    "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0be6-\u0bef\u0e50-\u0e59]+"
)
"""What is folded: only what matters in a number, an address or a key."""
HIDDEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]+")
TABLE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x2010: 0x2D, 0x2011: 0x2D, 0x2012: 0x2D, 0x2013: 0x2D, 0x2212: 0x2D, 0xA0: 0x20, 0x2007: 0x20, 0x202F: 0x20, 0x3000: 0x20,
}  # fmt: skip
DIGIT_ROWS = (0x660, 0x6F0, 0x966, 0x9E6, 0xBE6, 0xE50)
"""Where the digits of Arabic, Persian and Urdu, Devanagari, Bengali, Tamil and Thai begin."""
TABLE |= {row + digit: 0x30 + digit for row in DIGIT_ROWS for digit in range(10)}

EAST = re.compile("[\u3001-\uffef]")
"""A character of Chinese, Japanese or Korean: most texts have none, and need not be searched for words of theirs."""
ASCII = bytes(range(128))
FEW = 8
"""Up to so many different characters are folded one by one, which is faster than an expression over the whole text."""


class Folded:
    """`text`, to be searched; `lower`, the same in lower case, character for character; `words`, that with spaces
    for underscores; `east`: whether it has characters of East Asia. `span` leads back."""

    def __init__(self, original: str) -> None:
        text = original
        self.heard: dict[int, set[int]] = {}
        """What the scanner found out about the words of each piece of it."""
        self._cuts: list[tuple[int, int]] = []
        self.east = False
        if not text.isascii():
            others = text.encode("utf-8", "surrogatepass").translate(None, ASCII).decode("utf-8", "surrogatepass")
            if HIDDEN.search(others):
                text = self._without_hidden(text)
            self.east = EAST.search(others) is not None
            wide = set("".join(WIDE.findall(others)))
            if len(wide) > FEW:
                text = WIDE.sub(_narrow, text)
            else:
                for char in wide:
                    text = text.replace(char, char.translate(TABLE))
        self.text = text
        self.lower = text.replace("İ", "i").lower()  # the one letter that becomes two in lower case
        self.words = self.lower.replace("_", " ")

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
