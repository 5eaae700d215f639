"""Spans of tokens as spans of characters: token classification aggregated, and answers in a context. Pure; numpy alone.

Truth: transformers' TokenClassificationPipeline for a text of one window, and for answers its question answering of version 4,
which version 5 has dropped. A text of several windows is put together before it is judged: each token is taken from the
window in which it has the most context on its poorer side, so there is one judgement a token and none to reconcile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gateway import Found, Span

Strategy = Literal["none", "simple", "first", "average", "max"]


@dataclass(slots=True)
class Token:
    """One token of a text: its scores `(labels,)`, where it stands, and whether it goes on with the word before it."""

    scores: Any
    start: int
    end: int
    inner: bool

    @property
    def best(self) -> int:
        """The number of its likeliest label."""
        return int(self.scores.argmax())


@dataclass(slots=True)
class Window:
    """A piece of a text: of each token of it that is text, its place in the window, its characters, and those of its word."""

    size: int
    places: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    words: Sequence[tuple[int, int]]


def tokens_of(windows: Sequence[Window], logits: Sequence[Any], stride: int) -> list[Token]:
    """Every token of a text once, in order. `logits` are `(time, labels)` for each window, `stride` is their overlap."""
    found: dict[int, tuple[int, Token]] = {}
    first = 0  # the number of the window's first token in the whole text
    for window, values in zip(windows, logits, strict=True):
        scores, before = softmax(np.asarray(values, dtype=np.float64)), -1
        for at, (place, (start, end), word) in enumerate(zip(window.places, window.offsets, window.words, strict=True)):
            context = min(place, window.size - 1 - place)
            known = found.get(first + at)
            if known is None or context > known[0]:
                found[first + at] = context, Token(scores[place], start, end, inner=start > word[0] or start == before)
            before = start
        first += len(window.places) - stride
    return [token for _, (_, token) in sorted(found.items())]


def spans_of(
    text: str, tokens: Sequence[Token], labels: Sequence[str], strategy: Strategy, ignored: Sequence[str]
) -> list[Span]:
    """What the tokens say is in the text, without the labels that are ignored."""
    judged = [_judged(token.scores, token.start, token.end, labels) for token in tokens]
    if strategy in ("first", "average", "max"):
        judged = [_judged(_word(word, strategy), word[0].start, word[-1].end, labels) for word in words_of(tokens)]
    spans = [_span(text, [one], one[0]) for one in judged] if strategy == "none" else _grouped(text, judged)
    return [span for span in spans if span.entity_group not in ignored]


def words_of(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens, word by word."""
    words: list[list[Token]] = []
    for token in tokens:
        if token.inner and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def softmax(logits: Any) -> Any:
    """Along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


Judged = tuple[str, float, int, int]
"""(label, score, start, end)."""


def _judged(scores: Any, start: int, end: int, labels: Sequence[str]) -> Judged:
    best = int(scores.argmax())
    return labels[best], float(scores[best]), start, end


def _word(word: Sequence[Token], strategy: Strategy) -> Any:
    if strategy == "first":
        return word[0].scores
    if strategy == "max":
        return max(word, key=lambda token: token.scores.max()).scores
    return np.mean([token.scores for token in word], axis=0)


def _grouped(text: str, judged: Sequence[Judged]) -> list[Span]:
    """Neighbours of one class as one span; a "B-" begins another."""
    groups: list[list[Judged]] = []
    for one in judged:
        tag = _tag(one[0])
        if groups and tag == _tag(groups[-1][-1][0]) and not one[0].startswith("B-"):
            groups[-1].append(one)
        else:
            groups.append([one])
    return [_span(text, group, group[0][0].split("-", 1)[-1]) for group in groups]


def _tag(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _span(text: str, group: Sequence[Judged], name: str) -> Span:
    start, end = group[0][2], group[-1][3]
    score = sum(one[1] for one in group) / len(group)
    return Span(entity_group=name, score=score, word=text[start:end], start=start, end=end)


def answers_of(
    context: str, windows: Sequence[Window], starts: Sequence[Any], ends: Sequence[Any], *, top_k: int, most_tokens: int,
    impossible: bool, words: bool,
) -> list[Found]:  # fmt: skip
    """The best answers, of at most so many tokens; none when `impossible` is allowed and likelier. Logits are `(time,)`."""
    found: dict[tuple[int, int], float] = {}
    nothing = 1.0
    for window, start, end in zip(windows, starts, ends, strict=True):
        places = [*window.places]
        begin, stop = (_shares(np.asarray(logits, dtype=np.float64), places) for logits in (start, end))
        nothing = min(nothing, float(begin[0] * stop[0]))  # of the first token, which stands for no answer
        count = len(places)
        # Row n: an answer of n + 1 tokens, by where it begins.
        band = np.zeros((min(most_tokens, count), count))
        for more in range(len(band)):
            band[more, : count - more] = begin[places][: count - more] * stop[places][more:]
        whole, here = window.words if words else window.offsets, set[tuple[int, int]]()
        for flat in np.argsort(-band, axis=None, kind="stable"):
            more, one = divmod(int(flat), count)
            if band[more, one] <= 0.0 or len(here) == top_k:
                break
            where = whole[one][0], whole[one + more][1]
            here.add(where)
            found[where] = max(found.get(where, 0.0), float(band[more, one]))
    best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:top_k]
    if impossible and (not best or nothing > best[0][1]):
        return []
    return [Found(answer=context[a:b], score=min(score, 1.0), start=a, end=b) for (a, b), score in best]


def _shares(logits: Any, places: Sequence[int]) -> Any:
    """How likely each token is, of those of the context and the first one, which stands for no answer."""
    masked = np.full(logits.shape, -10000.0)
    shown = [0, *places]
    masked[shown] = logits[shown]
    return softmax(masked)
