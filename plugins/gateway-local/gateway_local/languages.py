"""Which languages a translator speaks, and how each is asked for: language codes, prefixes, single pairs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from gateway_local.seq2seq import Pairs, RewriteFacts, Way

CODE = re.compile(r"__([a-z]{2,3})__|([a-z]{2,3}_(?:[A-Z]{2}|[A-Z][a-z]{3}))")
"""The token of a language: M2M100's, or mBART's and NLLB's."""
TARGET = re.compile(r">>([^<>\s]+)<<")
"""Marian's, of the language to write."""
SHOWN = 12

Refuse = Callable[[str, str], NoReturn]
"""Told the field that cannot be honoured, and why."""


class Translator(Protocol):
    """What knows how a translation is asked for. `codes` are the numbers of the tokens of languages, which are no text."""

    @property
    def codes(self) -> Set[int]: ...

    def way(self, src: str | None, tgt: str | None, refuse: Refuse, needs: Refuse) -> Way:
        """The way from one language to another; `refuse` for one that is not spoken, `needs` for one that must be named."""


@dataclass(frozen=True)
class Listed:
    """A translator whose pairs are listed: T5's by prefix, Marian's one pair or its several targets."""

    pairs: Pairs
    codes: frozenset[int] = frozenset()

    def way(self, src: str | None, tgt: str | None, refuse: Refuse, needs: Refuse) -> Way:
        """The only pair that these languages leave open."""
        fits = [pair for pair in self.pairs if src in (None, pair[0]) and tgt in (None, pair[1])]
        if len(fits) == 1:
            return self.pairs[fits[0]]
        known = listed([f"{one} to {other}" for one, other in self.pairs if one or other])
        told = f"it translates {known}" if known else "its files do not say which languages it translates"
        if fits:
            needs("src_lang" if tgt is not None else "tgt_lang", told)
        refuse("src_lang" if src is not None and all(src != one for one, _ in self.pairs) else "tgt_lang", told)


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A translator from any of its languages to any: each has a token, by its code, with a number."""

    facts: RewriteFacts
    tokens: Mapping[str, tuple[str, int]]
    tgt: str | None
    eos: tuple[str, ...]

    @property
    def codes(self) -> frozenset[int]:
        """The numbers of all languages' tokens."""
        return frozenset(number for _, number in self.tokens.values())

    def way(self, src: str | None, tgt: str | None, refuse: Refuse, needs: Refuse) -> Way:
        """The tokens of both languages, where they belong."""
        chosen = {"src_lang": src or self.facts.src, "tgt_lang": tgt or self.tgt}
        for name, code in chosen.items():
            if code is None:
                needs(name, f"it speaks {listed(self.tokens)}")
            elif code not in self.tokens:
                refuse(name, f"it speaks {listed(self.tokens)}")
        source, _ = self.tokens[str(chosen["src_lang"])]
        _, target = self.tokens[str(chosen["tgt_lang"])]
        return Way(
            before=(source,) if self.facts.first else (),
            after=self.eos if self.facts.first else (*self.eos, source),
            settings={"decoder_start_token_id" if self.facts.starts else "forced_bos_token_id": target},
        )


def translator_of(
    facts: RewriteFacts, vocabulary: Mapping[str, int], *, special: Set[str], eos: tuple[str, ...], begins: Set[int]
) -> Translator:
    """Who translates. `special` tokens are no text, `eos` ends one, `begins` are what an answer begins with unasked."""
    if facts.family == "t5":
        return Listed(facts.pairs)
    if facts.family == "marian":
        targets = {match[1]: token for token in sorted(vocabulary) if (match := TARGET.fullmatch(token))}
        pairs = {(facts.src, code): Way(before=(token,), after=eos) for code, token in targets.items()}
        return Listed(pairs or {(facts.src, facts.tgt): Way()})
    codes = {token: match[1] or match[2] for token in sorted(vocabulary) if (match := CODE.fullmatch(token))}
    marked = codes.keys() & special or codes.keys()  # where none is marked they are plain entries of the vocabulary
    tokens = {code: (token, vocabulary[token]) for token, code in codes.items() if token in marked}
    usual = next((code for code, (_, number) in tokens.items() if number in begins), None)
    return Coded(facts=facts, tokens=tokens, tgt=facts.tgt or usual, eos=eos)


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Some names, and how many others."""
    shown, others = sorted(names)[:SHOWN], len(names) - SHOWN
    return ", ".join(shown) + (f" and {others} others" if others > 0 else "")
