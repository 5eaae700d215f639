"""Words of context: whether they stand in a piece of text, told by one split of it, however many words there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

LETTER = "[a-z\u00df-\u052f]"
"""What a word of a script with spaces is made of, in lower case: Latin, Greek and Cyrillic letters."""
WORD = re.compile(f"{LETTER}+")
PARTS = bytes(code if chr(code).isalpha() and code < 128 else 32 for code in range(256))
"""ASCII with everything blank that is no part of a word."""


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, as far as its scripts part them by spaces."""
    if text.isascii():
        return set(text.encode().translate(PARTS).decode("ascii").split())
    return set(WORD.findall(text))


def spaced(word: str) -> bool:
    """Whether a word is of a script that parts words by spaces and adds nothing to them at their front."""
    return all(char < "\u0530" for char in word) and WORD.search(word) is not None


class Phrases:
    """Words and phrases in lower case. Those of Latin, Greek and Cyrillic stand as whole words; others, within words too."""

    def __init__(self, phrases: Iterable[str]) -> None:
        phrases = sorted(phrases, key=len, reverse=True)
        self._words = frozenset(phrase for phrase in phrases if WORD.fullmatch(phrase))
        self._longer: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
        for phrase in phrases:
            if spaced(phrase) and phrase not in self._words:
                whole = re.compile(rf"(?<!{LETTER}){re.escape(phrase)}(?!{LETTER})")
                self._longer.setdefault(_key(phrase), []).append((phrase, whole))
        self._joined = [phrase for phrase in phrases if not spaced(phrase)]

    def stand_in(self, text: str) -> bool:
        """Whether one of them stands in `text`, which is in lower case."""
        words = words_of(text)
        if not self._words.isdisjoint(words):
            return True
        for key in self._longer.keys() & words:
            if any(phrase in text and whole.search(text) for phrase, whole in self._longer[key]):
                return True
        return not text.isascii() and any(phrase in text for phrase in self._joined)


class Words:
    """Many sets of words and phrases, by number."""

    def __init__(self, sets: Mapping[int, Sequence[str]]) -> None:
        self._spaced: dict[str, frozenset[int]] = {}
        self._joined: dict[str, frozenset[int]] = {}
        for number, phrases in sets.items():
            for phrase in phrases:
                into, key = (self._spaced, _key(phrase)) if spaced(phrase) else (self._joined, phrase)
                into[key] = into.get(key, frozenset()) | {number}

    def near(self, text: str) -> set[int]:
        """The numbers of the sets that may stand in `text`, which is in lower case; none that does is left out. Of a phrase
        only its longest word is looked for."""
        heard: set[int] = set()
        for word in self._spaced.keys() & words_of(text):
            heard |= self._spaced[word]
        if not text.isascii():
            for phrase, numbers in self._joined.items():
                if phrase in text:
                    heard |= numbers
        return heard


def _key(phrase: str) -> str:
    words: list[str] = WORD.findall(phrase)
    return max(words, key=len)
