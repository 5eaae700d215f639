"""Surrogates: invented values in the place of real ones, for models that write better about a name than about a placeholder.

They need Faker (``pip install 'gateway-scrub[surrogates]'``). What they cannot do, placeholders can:

- A surrogate is found again only as it was given, character for character, where no word goes on (Chinese has no such places).
  A model that shortens it ("Ms Miller"), declines, translates or reformats it has lost it: the caller then reads the invented
  value, and nothing tells that it is one.
- It is no secret that it was invented, but which of the values in a text were cannot be told. A model may state it as a fact.
- It may be somebody's: only the e-mail addresses (example.org) and the English telephone numbers (555-01xx) are nobody's.

So placeholders are the default. A surrogate is never one that occurs in the texts that it was checked against, in a known value
or in another surrogate; where none is found, a placeholder takes its place.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from gateway import ConfigError
from gateway_scrub.tokens import Hit, derive

ATTEMPTS = 20
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")

_EN: Mapping[str, Callable[[Any], str]] = {
    "PERSON": lambda faker: f"{faker.first_name()} {faker.last_name()}",
    "EMAIL": lambda faker: faker.ascii_safe_email(),
    "PHONE": lambda faker: faker.numerify("(%##) 555-01##"),
    "ADDRESS": lambda faker: f"{faker.street_address()}, {faker.city()}",
    "ORGANIZATION": lambda faker: faker.company(),
    "CARD": lambda faker: faker.credit_card_number(),
}
_ZH: Mapping[str, Callable[[Any], str]] = {
    "PERSON": lambda faker: faker.name(),
    "EMAIL": lambda faker: faker.ascii_safe_email(),
    "PHONE": lambda faker: faker.phone_number(),
    "ADDRESS": lambda faker: faker.address().rpartition(" ")[0],  # a postcode follows
    "ORGANIZATION": lambda faker: faker.company(),
    "CARD": lambda faker: faker.credit_card_number(),
    "CN_ID": lambda faker: faker.ssn(),
}


class Inventor:
    """Invents values by Faker: the same for the same key, type and text. `language` "" is that of the text's script."""

    def __init__(self, language: Literal["", "en", "zh"] = "") -> None:
        self._language = language
        self._fakers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def invent(self, key: bytes, type: str, text: str, attempt: int = 0) -> str | None:
        """A value in the place of `text`, another one for each attempt. None: there is none for this type."""
        chinese = self._language == "zh" or (not self._language and (type == "CN_ID" or bool(_CJK.search(text))))
        make = (_ZH if chinese else _EN).get(type)
        if make is None:
            return None
        info = f"surrogate\0{type}\0{attempt}\0{text}".encode("utf-8", "surrogatepass")
        with self._lock:  # a Faker's seed is its state
            faker = self._faker("zh_CN" if chinese else "en_US")
            faker.seed_instance(int.from_bytes(derive(key, info)))
            return str(make(faker))

    def _faker(self, locale: str) -> Any:
        if locale not in self._fakers:
            try:
                from faker import Faker
            except ImportError as error:
                raise ConfigError("surrogates need the package faker: pip install 'gateway-scrub[surrogates]'") from error
            self._fakers[locale] = Faker(locale)
        return self._fakers[locale]


class Surrogates:
    """The surrogates of one conversation, to be found in texts. Adding one is for who holds the conversation's lock."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        """What each stands for."""
        self.longest = 0
        self._sorted: list[str] = []
        self._first: set[str] = set()
        self._pattern = 0, re.compile("")  # of how many

    def add(self, surrogate: str, text: str) -> None:
        """Know one more, of which no part of another is made."""
        insort(self._sorted, surrogate)
        self._first.add(surrogate[0])
        self.longest = max(self.longest, len(surrogate) + 1)
        self.values[surrogate] = text

    def free(self, surrogate: str, texts: Iterable[str]) -> bool:
        """Whether it may be given out: it is in none of these texts, in no value and no surrogate, and none of those in it."""
        folded = surrogate.casefold()
        known = (one.casefold() for pair in self.values.items() for one in pair)
        return not any(folded in text.casefold() for text in texts) and not any(one in folded or folded in one for one in known)

    def find(self, text: str, at: int, *, final: bool) -> tuple[list[Hit], int]:
        """As `Finder.find`."""
        hits: list[Hit] = []
        if not self.values:
            return hits, len(text)
        size, pattern = self._pattern
        if size != len(self.values):
            names = list(self.values)  # none is in another: their order does not matter
            pattern = re.compile("|".join(map(re.escape, names)))
            self._pattern = len(names), pattern
        while found := pattern.search(text, at):
            start, end = found.span()
            if not final and len(text) - end < 2:
                break
            if _stands_alone(text, start, end):
                hits.append((start, end, self.values[found[0]]))
                at = end
            else:
                at = start + 1
        return hits, len(text) if final else self._settled(text, at)

    def _settled(self, text: str, at: int) -> int:
        for start in range(max(at, len(text) - self.longest), len(text)):
            if text[start] not in self._first:
                continue
            rest = text[start:]
            after = bisect_right(self._sorted, rest)
            if after < len(self._sorted) and self._sorted[after].startswith(rest):
                return start
            if rest in self.values or rest[:-1] in self.values:  # what follows decides whether a word goes on
                return start
        return len(text)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word goes on before or after; of an address or a number, neither what would make it another one."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    if _one_word(before, text[start]) or _one_word(text[end - 1], after[:1]):
        return False
    if any(char == "@" or char.isdigit() for char in text[start:end]):
        return before not in tuple(".+-@_/") and not (after[:1] in tuple(".-@_") and after[1:].isalnum())
    return True


def _one_word(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not (_CJK.match(left) or _CJK.match(right))
