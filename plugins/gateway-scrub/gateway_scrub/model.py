"""Names, places and organisations, found by a model of this gateway that does the task `extract`, on this machine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from gateway import LOCAL, Extract, Meta, Need, Resources
from gateway_scrub.options import NamesOptions
from gateway_scrub.spans import Span

TYPES: Mapping[str, str] = {
    "PER": "PERSON", "PERSON": "PERSON", "PERS": "PERSON", "NAME": "PERSON", "PATIENT": "PERSON", "PRIVATE_PERSON": "PERSON",
    "LOC": "LOCATION", "LOCATION": "LOCATION", "GPE": "LOCATION", "PLACE": "LOCATION", "CITY": "LOCATION",
    "ADDRESS": "ADDRESS", "STREET": "ADDRESS", "PRIVATE_ADDRESS": "ADDRESS",
    "ORG": "ORGANIZATION", "ORGANIZATION": "ORGANIZATION", "ORGANISATION": "ORGANIZATION", "COMPANY": "ORGANIZATION",
    "EMAIL": "EMAIL", "PRIVATE_EMAIL": "EMAIL", "PHONE": "PHONE", "PRIVATE_PHONE": "PHONE",
}  # fmt: skip
"""What the labels of usual models are called here. Labels that are not here, such as MISC or O, are no find."""
WINDOW = 1000
"""Characters that a model is asked about at a time: fewer tokens than the usual 512 of one, in Chinese nearly as many."""
OVERLAP = 100
"""So many are in two windows: a name at an edge is whole in one of them."""
AT_ONCE = 32
"""So many windows are asked about at a time, of all requests together: a local model lets 64 wait, and refuses more."""
EDGES = " \t\r\n,;:。，；：、"
NAMELESS = re.compile(r"LABEL_\d+")
"""What transformers calls the labels of a model that has no names for them."""


class ExtractDetector:
    """Asks an Extract service about every text, in windows that overlap, all at once: it makes batches of them.

    It runs inside the gateway, so what it asks is not scrubbed again and goes to local models only. TimeoutError when it takes
    longer than its limit, ValueError when the model's scores or labels mean nothing, and whatever the model raises: then only
    local models may serve the request.
    """

    name = "names"

    def __init__(self, options: NamesOptions) -> None:
        self._options = options
        self._need = Need(model=options.model, place=tuple(sorted(LOCAL)))
        self._types = {**TYPES, **{label.upper(): kind for label, kind in options.types.items()}}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        """The spans of each text."""
        windows = [(at, begin) for at, text in enumerate(texts) for begin in starts(text)]
        out: list[list[Span]] = [[] for _ in texts]
        async with asyncio.timeout(self._options.timeout_s):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._window(texts[at][begin : begin + WINDOW], resources, meta)) for at, begin in windows
                ]
        for (at, begin), task in zip(windows, tasks, strict=True):
            for start, end, kind, score in task.result():
                out[at].append(Span(begin + start, begin + end, kind, score, f"model {self._options.model}", 1))
        return [merged(spans) for spans in out]

    async def _window(self, text: str, resources: Resources, meta: Meta) -> list[tuple[int, int, str, float]]:
        if not any(char.isalpha() for char in text):
            return []
        request = Extract(inputs=text, aggregation_strategy="simple").with_meta(meta)
        async with self._turns:
            spans = (await resources.run(request, self._need)).spans
        found = []
        for span in spans:
            label, score = span.entity_group.upper().removeprefix("B-").removeprefix("I-"), float(span.score)
            if not 0.0 <= score <= 1.0 + 1e-6:  # NaN is neither
                raise ValueError(f"model {self._options.model!r} gave a score that is not from 0 to 1")
            if label not in self._types and NAMELESS.fullmatch(label):
                raise ValueError(f"the labels of model {self._options.model!r} have no names: give plugin.scrub.names.types")
            start, end = whole(text, span.start, span.end)
            kind = self._types.get(label, "")
            if kind and score >= self._options.least and start < end:
                found.append((start, end, kind, min(score, 1.0)))
        return found


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """A find without marks at its edges, and with the rest of the words that it begins or ends in.

    A model judges pieces of words, and may miss the last one of a name that it does not know.
    """
    while start < end and text[start] in EDGES:
        start += 1
    while start < end and text[end - 1] in EDGES:
        end -= 1
    if start < end:
        while start > 0 and spaced(text[start - 1]) and spaced(text[start]):
            start -= 1
        while end < len(text) and spaced(text[end - 1]) and spaced(text[end]):
            end += 1
    return start, end


def spaced(char: str) -> bool:
    """Whether it is a letter of a script that puts spaces between words, and nothing on to a name."""
    return char.isalpha() and (char < "\u0e00" or "\u1e00" <= char < "\u2000")


def starts(text: str) -> list[int]:
    """Where the windows of a text begin: at a space where there is one near."""
    out = [0] if text else []
    while out and len(text) - out[-1] > WINDOW:
        at = out[-1] + WINDOW - OVERLAP
        space = text.rfind(" ", at - OVERLAP, at)
        out.append(space + 1 if space > out[-1] else at)
    return out


def merged(spans: Sequence[Span]) -> list[Span]:
    """Finds of one type that overlap, as two windows tell them, or touch, as pieces of a word do, as one."""
    out: list[Span] = []
    for span in sorted(spans):
        last = out[-1] if out else None
        if last is not None and last.type == span.type and span.start <= last.end:
            out[-1] = Span(last.start, max(last.end, span.end), last.type, max(last.score, span.score), last.why, last.rank)
        else:
            out.append(span)
    return out
