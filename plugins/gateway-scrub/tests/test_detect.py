"""Finds of several detectors that overlap."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from gateway_scrub.detect import Detectors
from gateway_scrub.model import ExtractDetector
from gateway_scrub.spans import Span as Find
from gateway_scrub.walk import Piece
from hypothesis import given
from hypothesis import strategies as st
from model_case import (
    Answers,
    Finder,
    gateway_of,
    names,
    names_options,
)

from gateway import (
    Meta,
)
from gateway.testing.fakes import resources


def looked(text: str, *finds: Find, answers: Answers = lambda text: ()) -> list[tuple[str, str]]:
    async def main() -> list[tuple[str, str]]:
        detectors = Detectors([lambda text: finds], [ExtractDetector(names_options())])
        async with gateway_of(Finder(answers), detectors=[]) as gateway:
            spans = await detectors.find([Piece(text)], resources(run=gateway.run), Meta())
        return [(text[each.start : each.end], each.type) for each in spans["", text]]

    return asyncio.run(main())


def test_a_right_checksum_beats_the_model_and_the_model_beats_a_shape() -> None:
    text = "4111111111111111"
    card, shape = Find(0, 16, "CARD", 0.6, "check", 2), Find(0, 16, "PHONE", 0.99, "shape", 0)
    assert looked("x" + text, Find(1, 17, "CARD", 0.6, "check", 2), answers=names("x" + text)) == [
        ("x", "PERSON"), (text, "CARD"),
    ]  # fmt: skip
    assert looked("Anna B", shape_of("Anna B", "USER"), answers=names("Anna B", score=0.55)) == [("Anna B", "PERSON")]
    assert looked(text, shape, card) == [(text, "CARD")]


def shape_of(text: str, kind: str, rank: int = 0) -> Find:
    return Find(0, len(text), kind, 0.99, "shape", rank)


def test_what_is_left_of_a_find_that_gives_way_is_covered_too() -> None:
    text = "Dr. Anna Maria Schmidt, 4111111111111111, Bern"
    number = text.index("4")
    check = Find(number, number + 16, "CARD", 0.6, "check", 2)
    whole = Find(4, 22, "PERSON", 0.6, "names", 0)
    assert looked(text, check, whole, answers=names("Anna Maria", label="ORG")) == [
        ("Anna Maria", "ORGANIZATION"), ("Schmidt", "PERSON"), ("4111111111111111", "CARD"),
    ]  # fmt: skip
    address = names("Schmidt, 4111111111111111, Bern", label="ADDRESS")
    assert looked(text, check, whole, answers=address) == [
        ("Anna Maria Schmidt", "PERSON"), ("4111111111111111", "CARD"), ("Bern", "ADDRESS"),
    ]  # fmt: skip


@given(
    st.text("ab 1,", min_size=1, max_size=30),
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 2), st.sampled_from([0.3, 0.6, 0.9])), max_size=8
    ),
)
def test_all_that_anything_was_found_in_is_covered_once(text: str, places: list[tuple[int, int, int, float]]) -> None:
    spans = [
        Find(start, min(start + size, len(text)), f"T{rank}", score, "", rank)
        for start, size, rank, score in places
        if start < len(text)
    ]
    kept = Detectors([lambda text: spans]).look(text)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    assert all(each.start < each.end and each.score >= 0.5 for each in kept)
    wanted = {at for each in spans if each.score >= 0.5 for at in range(each.start, each.end) if text[at].isalnum()}
    covered = {at for each in kept for at in range(each.start, each.end)}
    assert wanted <= covered
    assert covered <= {at for each in spans if each.score >= 0.5 for at in range(each.start, each.end)}
