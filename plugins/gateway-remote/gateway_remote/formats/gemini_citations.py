"""Where Gemini says that an answer comes from: `groundingMetadata` and `citationMetadata` as citations. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway import Citation
from gateway_remote.formats.values import index, objects, string

INNER = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that begin no character."""


class Sources:
    """What a reply says of its sources. A stream may say it early, and say it again: each is told once."""

    def __init__(self) -> None:
        self._heard: list[Mapping[str, Any]] = []
        self._starts: list[int] = []  # how many characters of the answer come before each part
        self._told: set[Citation] = set()

    def begin(self, characters: int) -> None:
        """Another part begins, after so many characters of the answer."""
        self._starts.append(characters)

    def hear(self, candidate: Mapping[str, Any]) -> None:
        """What a candidate says."""
        if candidate.get("groundingMetadata") or candidate.get("citationMetadata"):
            self._heard.append(candidate)

    def told(self, text: str) -> list[Citation]:
        """The citations in all that has been heard and not been told yet, for an answer of that text.

        One for each source of each segment; where no segment is told, one for each source.
        """
        if not self._heard:
            return []
        answer, chunks, out = _Answer(text, self._starts), list[Any](), list[Citation]()
        grounding = [each for candidate in self._heard if isinstance(each := candidate.get("groundingMetadata"), dict)]
        for each in grounding:
            given = each.get("groundingChunks")
            chunks = given if isinstance(given, list) and given else chunks
            out += _grounded(objects(each.get("groundingSupports")), chunks, answer)
        if not any(objects(each.get("groundingSupports")) for each in grounding):
            out += map(_source, objects(chunks))
        for candidate in self._heard:
            out += _quoted(candidate.get("citationMetadata"), answer)
        self._heard.clear()
        fresh = [each for each in dict.fromkeys(out) if each not in self._told]
        self._told.update(fresh)
        return fresh


class _Answer:
    """A text in which places are given in bytes of UTF-8."""

    def __init__(self, text: str, starts: list[int]) -> None:
        self._text, self._bytes, self._starts = text, _utf8(text), starts

    def place(self, segment: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Its first character and the one after its last; None, None where they cannot be known.

        The ends count from the beginning of a part (`google.genai.types.Segment`), of which a stream may have had other ones:
        a place is believed where it holds the text that the segment quotes.
        """
        said = string(segment.get("text"))
        start, end = index(segment.get("startIndex")) or 0, index(segment.get("endIndex"))
        part = index(segment.get("partIndex")) or 0
        if end is not None:
            in_part = len(_utf8(self._text[: self._starts[part]])) if part < len(self._starts) else 0
            for base in dict.fromkeys((in_part, 0)):
                held = self._bytes[base + start : base + end]
                if start < end <= len(self._bytes) - base and (not said or held == _utf8(said)):
                    return self._characters(base + start), self._characters(base + end)
        if said and self._text.count(said) == 1:
            at = self._text.index(said)
            return at, at + len(said)
        return None, None

    def _characters(self, size: int) -> int:
        return len(self._bytes[:size].translate(None, INNER))


def _grounded(supports: list[dict[str, Any]], chunks: list[Any], answer: _Answer) -> Iterator[Citation]:
    """One citation for each source of each segment."""
    for support in supports:
        segment = support.get("segment")
        start, end = answer.place(segment if isinstance(segment, dict) else {})
        indices = support.get("groundingChunkIndices")
        for each in indices if isinstance(indices, list) else ():
            at = index(each)
            if at is not None and at < len(chunks) and isinstance(chunks[at], dict):
                yield _source(chunks[at], start, end)


def _quoted(wire: Any, answer: _Answer) -> Iterator[Citation]:
    """What the answer quotes at length; `citationSources` is Gemini's own name for it, `citations` is Vertex AI's."""
    quoted = (wire.get("citationSources") or wire.get("citations")) if isinstance(wire, dict) else ()
    for each in objects(quoted):
        start, end = answer.place(each)
        yield Citation(string(each.get("uri")), string(each.get("title")), "", start, end)


def _source(chunk: Mapping[str, Any], start: int | None = None, end: int | None = None) -> Citation:
    """A `GroundingChunk`: a page, a document of a store, a place on a map, or an image."""
    inner = next(
        (each for name in ("web", "retrievedContext", "maps", "image") if isinstance(each := chunk.get(name), dict)), {}
    )
    url = string(inner.get("uri")) or string(inner.get("sourceUri"))
    return Citation(url, string(inner.get("title")), string(inner.get("text")), start, end)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can hold half of a surrogate pair
