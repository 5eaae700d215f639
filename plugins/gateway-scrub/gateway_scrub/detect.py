"""Detectors: what finds spans in the pieces of a request. Patterns first, then models; each text is looked at once."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from gateway import Meta, Resources
from gateway_scrub.escapes import decoded
from gateway_scrub.spans import Span, covering
from gateway_scrub.walk import Piece

CACHE = 4096
"""Of how many texts the finds are kept: a conversation's turns come again with each request."""
THREAD_CHARACTERS = 20_000
"""From how many characters on, looking is done in a thread: the event loop must not wait for it."""
LABEL = re.compile(r"[^\W\d_][\w .\-]{0,40}")

T = TypeVar("T")


class Detector(Protocol):
    """Finds spans in texts. What it raises keeps the request on this machine."""

    name: str

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        """The spans of each text."""


Find = Callable[[str], Iterable[Span]]


class Detectors:
    """`finds` look at a text at once, as `Scanner.find` does; `models` may ask a model. What `allow` lists is no find, nor is
    what is of none of the `types`, where those are given."""

    def __init__(
        self,
        finds: Sequence[Find],
        models: Sequence[Detector] = (),
        *,
        threshold: float = 0.5,
        allow: Iterable[str] = (),
        types: Iterable[str] | None = None,
    ) -> None:
        self._finds, self._models, self._threshold = tuple(finds), tuple(models), threshold
        self._allow = frozenset(allow)
        self._types = None if types is None else frozenset(types)
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, tuple[Span, ...]] = OrderedDict()

    async def find(self, pieces: Iterable[Piece], resources: Resources, meta: Meta) -> dict[tuple[str, str], tuple[Span, ...]]:
        """The spans of each piece, by its label and text. Raises what a detector raises: then nothing is known.

        Models are not asked about what is fixed, such as the name of a tool: they would find an organisation in half of them.
        """
        wanted: dict[tuple[str, str], bool] = {}
        for piece in pieces:
            if piece.text:
                key = piece.label, piece.text
                wanted[key] = wanted.get(key, False) or piece.kind == "text"
        out: dict[tuple[str, str], tuple[Span, ...]] = {}
        new = []
        long = sum(len(text) for _, text in wanted) > THREAD_CHARACTERS
        marks = await apart(long, self._marks, wanted)
        for ((label, text), free), mark in zip(wanted.items(), marks, strict=True):
            if mark in self._known:
                self._known.move_to_end(mark)
                out[label, text] = self._known[mark]
            else:
                new.append((label, text, free, mark))
        if not new:
            return out
        look = [(label, text) for label, text, _, _ in new]
        found = await apart(long, self._patterns, look)
        by_models = await self._asked([text for _, text, free, _ in new if free], resources, meta)

        def kept() -> list[tuple[Span, ...]]:
            return [
                tuple(self._kept(text, [*spans, *by_models[text]] if free else spans))
                for (_, text, free, _), spans in zip(new, found, strict=True)
            ]

        for (label, text, _, mark), known in zip(new, await apart(long, kept), strict=True):
            out[label, text] = self._known[mark] = known
        while len(self._known) > CACHE:
            self._known.popitem(last=False)
        return out

    async def _asked(self, texts: Iterable[str], resources: Resources, meta: Meta) -> dict[str, list[Span]]:
        """What the models find in each text, as it stands and with its escapes undone."""
        out: dict[str, list[Span]] = {text: [] for text in texts}
        if not self._models or not out:
            return out
        told = {text: escapes for text in out if (escapes := decoded(text)) is not None}
        asked = [*out, *(escapes.text for escapes in told.values())]
        for model in self._models:
            found = await model.find(asked, resources, meta)
            if len(found) != len(asked):
                raise ValueError(f"detector {model.name!r} answered for {len(found)} of {len(asked)} texts")
            for text, added in zip(asked, found, strict=True):
                if not all(0 <= span.start < span.end <= len(text) and 0.0 <= span.score <= 1.0 for span in added):
                    raise ValueError(f"detector {model.name!r} gave a span that does not lie in the text, or no score")
            for text, added in zip(out, found, strict=False):
                out[text].extend(added)
            for (text, escapes), added in zip(told.items(), found[len(out) :], strict=True):
                out[text].extend(escapes.back(added))
        return out

    def look(self, text: str, label: str = "") -> list[Span]:
        """What the patterns alone find, now."""
        [spans] = self._patterns([(label, text)])
        return self._kept(text, spans)

    def _kept(self, text: str, spans: Sequence[Span]) -> list[Span]:
        if self._types is not None:
            spans = [span for span in spans if span.type in self._types]
        covered = covering(text, spans, least=self._threshold)
        return [span for span in covered if text[span.start : span.end] not in self._allow]

    def _patterns(self, texts: Sequence[tuple[str, str]]) -> list[list[Span]]:
        out = []
        for label, text in texts:
            spans = self._found(label, text)
            if (escapes := decoded(text)) is not None:
                spans += escapes.back(self._found(label, escapes.text))
            out.append(spans)
        return out

    def _found(self, label: str, text: str) -> list[Span]:
        spans = [span for find in self._finds for span in find(text)]
        if LABEL.fullmatch(label):  # the key of an object speaks for its value, too: "ssn": "536221234"
            before = f"{label}: "
            spans += [_moved(span, -len(before)) for find in self._finds for span in find(before + text)]
        return [span for span in spans if span.end > 0]

    def _marks(self, wanted: Mapping[tuple[str, str], bool]) -> list[bytes]:
        """Their places in the cache, which tell nothing of them."""
        return [
            hmac.digest(self._key, f"{free}\0{label}\0{text}".encode("utf-8", "surrogatepass"), "sha256")
            for (label, text), free in wanted.items()
        ]


async def apart(long: bool, work: Callable[..., T], *args: Any) -> T:
    """Work that takes long, in a thread; other work at once."""
    return await asyncio.to_thread(work, *args) if long else work(*args)


def _moved(span: Span, by: int) -> Span:
    return Span(max(span.start + by, 0), span.end + by, span.type, span.score, span.why, span.rank)
