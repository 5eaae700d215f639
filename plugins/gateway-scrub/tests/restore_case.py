"""Texts, spans and cuts for the tests of covering and restoring; conversations whose placeholders are known beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from gateway_scrub.conversation import Conversation
from gateway_scrub.spans import Span
from gateway_scrub.tokens import GAP
from hypothesis import strategies as st

KEY = bytes(range(32))
TYPES = ("PERSON", "EMAIL", "CN_ID", "IPV4", "A", "A_B", "TEXT", "US_PASSPORT", "PASSPORT")
VALUES = ("Anna", 'a "quoted"\\ value\n', "张伟", "<", "\ud800")


def known(key: bytes = KEY) -> list[tuple[str, str, str]]:
    """Type, value and placeholder of each, as a conversation with this key has them, once all are known."""
    conversation = Conversation(key)
    return [(type, value, conversation.token(type, value)) for type in TYPES for value in VALUES]


KNOWN = known()
FOREIGN = known(bytes(32))
"""Another conversation's."""


def span(start: int, end: int, type: str = "PERSON", *, score: float = 0.9, rank: int = 0) -> Span:
    return Span(start, end, type, score, "test", rank)


@st.composite
def tampered(draw: st.DrawFn, tokens: Sequence[str]) -> str:
    """A placeholder as a model, or an adversary, may write it: a near form, a piece, a wrong one, two in one."""
    token = draw(st.sampled_from(tokens))
    head, tail = token[1:-1].split(":")
    type, number = head.rsplit("_", 1)
    gap = st.text(" *_`-\\\u200b\u00a0", max_size=GAP + 1)
    opened, closed = draw(
        st.sampled_from([("<", ">"), ("", ""), ("[", "]"), ("＜", "＞"), ("&lt;", "&gt;"), ("(", ""), ("", "}")])
    )
    parts = type.split("_")
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return token
    if kind == 1:
        cut = draw(st.integers(0, len(token)))
        return draw(st.sampled_from([token[:cut], token[cut:]]))
    if kind == 2:
        at = draw(st.integers(0, len(token) - 1))
        return token[:at] + draw(st.sampled_from("0aZ_ <:")) + token[at + 1 :]
    if kind == 3:
        cut = draw(st.integers(0, len(token)))
        return token[:cut] + draw(st.sampled_from(tokens)) + token[cut:]
    if kind == 4:
        number = str(draw(st.integers(0, 12)))
    written = draw(gap).join(parts) + draw(gap) + number + draw(gap) + draw(st.sampled_from(":：_-")) + draw(gap) + tail
    written = draw(st.sampled_from([written, written.lower(), written.upper(), written.title()]))
    return opened + draw(gap) + written + draw(gap) + closed


def texts(*tokens: str) -> st.SearchStrategy[str]:
    """Texts in which all that matters to placeholders is likely."""
    plain = st.text(st.sampled_from(" <>[](){}&;lt:：_-*`~\\/\"'012abcPERSONemail张伟é\n\u200b"), max_size=8)
    words = st.sampled_from(["per", "person 1", "Step 1: payments", "<A_1:abcdefgh>", "cn id", "***", *VALUES])
    return st.lists(plain | words | tampered(tokens or [token for _, _, token in KNOWN]), max_size=8).map("".join)


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces that end at these places, some of them empty."""
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@st.composite
def covered(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text and spans in it, which may touch and overlap."""
    text = draw(texts())
    if not text:
        return text, []
    places = st.integers(0, len(text))
    pairs = draw(st.lists(st.tuples(places, places, st.sampled_from(TYPES), st.sampled_from([0.4, 0.9])), max_size=5))
    return text, [span(min(a, b), max(a, b), type, score=score) for a, b, type, score in pairs]


@lru_cache
def slow_patterns(tokens: tuple[tuple[str, str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    """Each placeholder's near forms, and its value; those with brackets first."""
    noise = r"[ \t\u00a0\u3000*_`~\\#\u200b-\u200d\u2060\ufeff-]"
    pairs = [("<|＜|&lt;", ">|＞|&gt;"), (r"\[|［", r"\]|］"), (r"\(|（", r"\)|）"), (r"\{|｛", r"\}|｝"),
             ("【", "】"), ("《", "》"), ("〈", "〉"), ("「", "」")]  # fmt: skip
    patterns = []
    for type, value, token in tokens:
        number, tail = token[1:-1].removeprefix(type + "_").split(":")
        head = rf"{noise}{{0,{GAP}}}".join(type.split("_")) + rf"{noise}{{0,{GAP}}}{number}"
        begin = r"(?<![0-9A-Za-z])(?<![0-9A-Za-z][_-])(?<![0-9A-Za-z]__)"
        join = rf"(?=(?:{noise}|[:：]){{0,{GAP + 1}}}[:：_-]{noise}{{0,3}}{tail})(?:{noise}|[:：]){{1,{GAP + 2}}}"
        core = rf"{begin}{head}{join}{tail}(?![0-9A-Za-z])"
        gap = rf"{noise}{{0,{GAP}}}"
        for opener, closer in pairs:
            patterns.append((rf"(?:{opener}){gap}{core}{gap}(?:{closer})", value))
        patterns.append((core, value))
    return [(re.compile(pattern, re.IGNORECASE | re.ASCII), value) for pattern, value in patterns]


def slow_restore(text: str, tokens: Sequence[tuple[str, str, str]]) -> str:
    """Restoring written once more, in the plainest way: each placeholder has its patterns, tried at each place."""
    out, at = [], 0
    while at < len(text):
        for pattern, value in slow_patterns(tuple(tokens)):
            if found := pattern.match(text, at):
                out.append(value)
                at = found.end()
                break
        else:
            out.append(text[at])
            at += 1
    return "".join(out)
