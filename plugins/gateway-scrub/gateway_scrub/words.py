"""Words: which of many sets of words have one near a place, told at the cost of one split of the text there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gateway_scrub.rules import LETTER, spaced

PARTS = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
"""ASCII with everything blank that is no part of a word."""
WORD = re.compile(f"{LETTER}+")


class Words:
    """`sets` are words and phrases in lower case, by number. Of a phrase its longest word is looked for."""

    def __init__(self, sets: Mapping[int, Sequence[str]]) -> None:
        self._plain: dict[bytes, frozenset[int]] = {}
        self._spaced: dict[str, frozenset[int]] = {}
        self._joined: dict[str, frozenset[int]] = {}
        for number, words in sets.items():
            for word in words:
                key = max(WORD.findall(word), key=len) if spaced(word) else word
                into = self._spaced if spaced(word) else self._joined
                into[key] = into.get(key, frozenset()) | {number}
        self._plain = {word.encode(): found for word, found in self._spaced.items()}
        joined = sorted(self._joined, key=len, reverse=True)
        self._any_joined = re.compile(f"(?=({'|'.join(map(re.escape, joined)) or '(?!)'}))")
        for word in joined:  # where a longer word is found, those that it begins with are found as well
            for other in joined:
                if word.startswith(other):
                    self._joined[word] |= self._joined[other]

    def near(self, text: str) -> set[int]:
        """The numbers of the sets that may have a word in `text`, which is in lower case; none that has one is left out."""
        heard: set[int] = set()
        if text.isascii():
            for part in self._plain.keys() & set(text.encode().translate(PARTS).split()):
                heard |= self._plain[part]
            return heard
        for word in self._spaced.keys() & set(WORD.findall(text)):
            heard |= self._spaced[word]
        for match in self._any_joined.finditer(text):
            heard |= self._joined[match.group(1)]
        return heard
