"""Where an answer of Gemini's comes from: places in bytes of a part are characters of the whole text."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from gemini_case import both, read, reply, text, thought
from google.genai import types as wire

from gateway import Citation

RAW = b"signed"


def segment(start: int | None, end: int | None, said: str | None = None, part: int | None = None) -> wire.Segment:
    return wire.Segment(start_index=start, end_index=end, text=said, part_index=part)


def support(place: wire.Segment, *indices: int) -> wire.GroundingSupport:
    return wire.GroundingSupport(segment=place, grounding_chunk_indices=list(indices))


CHUNKS = [
    wire.GroundingChunk(web=wire.GroundingChunkWeb(uri="https://a.example", title="A")),
    wire.GroundingChunk(retrieved_context=wire.GroundingChunkRetrievedContext(uri="b", title="B", text="It is so.")),
    wire.GroundingChunk(maps=wire.GroundingChunkMaps(uri="https://maps.example", title="C", text="A place.")),
    wire.GroundingChunk(image=wire.GroundingChunkImage(source_uri="https://d.example", image_uri="i", title="D")),
]
SOURCES = [
    Citation("https://a.example", "A"),
    Citation("b", "B", "It is so."),
    Citation("https://maps.example", "C", "A place."),
    Citation("https://d.example", "D"),
]


def grounded(*supports: wire.GroundingSupport) -> wire.GroundingMetadata:
    return wire.GroundingMetadata(grounding_chunks=CHUNKS, grounding_supports=list(supports) or None)


def at(source: int, start: int | None, end: int | None) -> Citation:
    return replace(SOURCES[source], start=start, end=end)


SAID = "Zürich 😀 is big."  # 19 bytes, 16 characters
GROUNDED: dict[str, tuple[Sequence[wire.Part], wire.GroundingMetadata, list[Citation]]] = {
    "no segments": ([text(SAID)], grounded(), SOURCES),
    "bytes of a text": (
        [text(SAID)],
        grounded(support(segment(None, 7), 0, 1), support(segment(8, 12, "😀"), 2), support(segment(8, None), 3)),
        [at(0, 0, 6), at(1, 0, 6), at(2, 7, 8), at(3, None, None)],
    ),
    "bytes of a part": (
        [thought("Hm."), text("Ä. ", thought_signature=RAW), text(SAID)],
        grounded(
            support(segment(0, 7, "Zürich", part=2), 0), support(segment(0, 7, part=2), 1), support(segment(0, 2, part=1), 2)
        ),
        [at(0, 3, 9), at(1, 3, 9), at(2, 0, 1)],
    ),
    "a part that is counted another way, and the text is told": (
        [text("Ä. ", thought_signature=RAW), text(SAID)],
        grounded(
            support(segment(4, 11, "Zürich", part=1), 0),
            support(segment(0, 7, "Zürich", part=9), 1),
            support(segment(2, 9, "is not there"), 2),
        ),
        [at(0, 3, 9), at(1, 3, 9), at(2, None, None)],
    ),
    "a part that is counted another way, and the text is there twice": (
        [text("so ", thought_signature=RAW), text("so it is")],
        grounded(support(segment(3, 5, "so", part=1), 0)),
        [at(0, 3, 5)],
    ),
    "places and sources that are not there": (
        [text(SAID)],
        grounded(
            support(segment(0, 99), 0),
            support(segment(5, 5), 1),
            support(segment(9, 2), 2),
            support(segment(0, 7), 9),
            wire.GroundingSupport(grounding_chunk_indices=[3]),
        ),
        [at(0, None, None), at(1, None, None), at(2, None, None), at(3, None, None)],
    ),
    "one source twice in one place": (
        [text(SAID)],
        grounded(support(segment(0, 7), 0), support(segment(0, 7), 0)),
        [at(0, 0, 6)],
    ),
}


@pytest.mark.parametrize("case", GROUNDED)
def test_sources_are_cited_where_they_support_the_text(case: str) -> None:
    parts, metadata, expected = GROUNDED[case]
    whole = both(reply(*parts, grounding_metadata=metadata))
    assert list(whole.citations) == expected and list(whole.parts[-len(expected) :]) == expected
    early = [reply(parts[0], finish=None, grounding_metadata=metadata), *(reply(part, finish=None) for part in parts[1:])]
    late = [*(reply(part, finish=None) for part in parts[:-1]), reply(parts[-1])]
    again = reply(grounding_metadata=metadata)
    bare = {**metadata.model_dump(), "grounding_chunks": None}
    if metadata.grounding_supports:
        assert read(*early, reply(grounding_metadata=wire.GroundingMetadata(**bare))) == whole
        sources = wire.GroundingMetadata(grounding_chunks=CHUNKS)
        pieces = [reply(part, finish=None, grounding_metadata=sources) for part in parts]
        assert read(*pieces, reply(grounding_metadata=wire.GroundingMetadata(**bare))) == whole
    assert read(*early, again) == whole  # it may be said early, again, or late
    assert read(*late, reply(finish=None, grounding_metadata=metadata)) == whole
    assert read(*late, *[reply(finish=None, grounding_metadata=metadata)] * 2) == whole


def test_a_quotation_is_a_citation() -> None:
    payload = reply(text(SAID))
    quoted = [{"startIndex": 8, "endIndex": 12, "uri": "https://a.example", "license": "mit"}, {"uri": "https://b.example"}]
    payload["candidates"][0]["citationMetadata"] = {
        "citationSources": quoted
    }  # the API's name; the package calls them citations
    expected = (Citation("https://a.example", start=7, end=8), Citation("https://b.example"))
    assert both(payload).citations == expected
    quoted_of = wire.CitationMetadata(citations=[wire.Citation(start_index=0, end_index=7, uri="u", title="T")])
    assert both(reply(text(SAID), citation_metadata=quoted_of)).citations == (Citation("u", "T", "", 0, 6),)


def test_half_a_surrogate_pair_is_no_reason_to_fail() -> None:
    said = "\ud83d is"
    payload = reply(text(""), grounding_metadata=grounded(support(segment(0, 3), 0)))
    payload["candidates"][0]["content"]["parts"] = [{"text": said}]
    assert both(payload).citations == (at(0, 0, 1),)
