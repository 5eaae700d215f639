"""Names that a model of the gateway finds: what is asked, and what is made of the answer."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from gateway_scrub.detect import Detectors
from gateway_scrub.model import AT_ONCE, OVERLAP, WINDOW, ExtractDetector, starts
from gateway_scrub.options import read_options
from gateway_scrub.walk import Piece
from model_case import (
    NAME,
    SENTENCE,
    Answers,
    Finder,
    Told,
    found,
    gateway_of,
    names,
    names_options,
    said,
    span,
)
from ner_case import planted

from gateway import (
    ConfigError,
    Meta,
    ModelService,
    Span,
)
from gateway.testing.fakes import resources

MARKED = re.compile(r"<([A-Z_]+)_\d+:[0-9a-z]{8}>")


def learned(folder: Path) -> ModelService:
    from gateway_local import LocalModel
    from gateway_local.options import ModelOptions

    return LocalModel(ModelOptions(name="ner", weights=str(folder), device="cpu"))


# A model that was trained


def test_a_trained_model_s_names_do_not_leave_and_come_back(ner: Path) -> None:
    async def main() -> None:
        hosted = Told()
        everything = [*planted(50), *planted(20, "L"), *planted(20, "O")]
        async with gateway_of(hosted, learned(ner), timeout_s=60.0) as gateway:
            for text, _, _ in everything:
                assert (await said(gateway, text)).text == text
        for kind in "PLO":
            kept = [name not in saw for (_, name, its), saw in zip(everything, hosted.saw, strict=True) if its == kind]
            assert sum(kept) >= 0.95 * len(kept), kind
        types = {kind for saw in hosted.saw for kind in MARKED.findall(saw)}
        assert types == {"PERSON", "LOCATION", "ORGANIZATION"}

    asyncio.run(main())


def test_a_text_of_many_windows_is_looked_at_whole_by_a_model_that_lets_few_wait(ner: Path) -> None:
    """A local model lets 64 requests wait: so many windows, and a few texts beside, must not be too many."""

    async def main() -> None:
        hosted = Told()
        sentences = planted(1600)
        long = " ".join(text for text, _, _ in sentences[:1500])
        short = [text for text, _, _ in sentences[1500:]]
        assert len(long) > 30_000 and len(starts(long)) + len(short) > 100
        async with gateway_of(hosted, learned(ner), timeout_s=100.0) as gateway:
            assert (await said(gateway, *short, long)).text == long
        left = sum(hosted.saw[0].count(f" {name} ") for name in {name for _, name, _ in sentences if name.isascii()})
        assert left <= 0.05 * len(sentences)

    asyncio.run(main())


# Windows


@pytest.mark.parametrize("fill", ["x", "word ", "字"])
def test_a_name_at_any_place_of_an_edge_is_whole(fill: str) -> None:
    async def main() -> None:
        service = Finder(names(NAME))
        for at in range(WINDOW - 2 * OVERLAP - 20, WINDOW + 20):
            before = (fill * WINDOW)[: at - 1] + " "
            text = f"{before}{NAME} {fill * 300}"
            assert await found(text, service) == [(NAME, "PERSON")], at
        assert max(map(len, service.asked)) <= WINDOW

    asyncio.run(main())


def test_a_long_text_is_covered_at_every_character() -> None:
    for text in ("a" * 20_000, "word " * 4_000, "字" * 20_000, " " * 20_000, ("a" * 950 + " ") * 20):
        places = starts(text)
        assert places[0] == 0 and places[-1] + WINDOW >= len(text)
        assert all(0 < b - a <= WINDOW - OVERLAP for a, b in pairwise(places))
        assert len(places) <= len(text) / (WINDOW - 2 * OVERLAP) + 1
    assert starts("") == []


def test_a_name_that_a_window_cuts_is_covered_whole_though_its_piece_was_taken_for_something_else() -> None:
    """The end of the first window holds "Mar", surely a place; the second window holds the whole name."""
    text = "x" * (WINDOW - 4) + f" {NAME} " + "y" * 500

    def answers(window: str) -> Sequence[Span]:
        if window.endswith(" Mar"):
            return [span(window, len(window) - 3, len(window), "LOC", 0.99)]
        return names(NAME)(window)

    async def main() -> None:
        hosted = Told()
        async with gateway_of(hosted, Finder(answers)) as gateway:
            assert (await said(gateway, text)).text == text
        assert not re.search("Mar|aren|Okafor", hosted.saw[0])

    asyncio.run(main())


def test_a_name_that_is_found_in_part_is_covered_to_the_end_of_the_word() -> None:
    """Word pieces: a model may judge "Lind" and not "##qvist"."""

    def part(word: str) -> Answers:
        return lambda text: [span(text, text.index(word), text.index(word) + len(word))] if word in text else []

    async def main() -> None:
        for text, seen, whole in (
            ("Ask Lindqvist now", "Lind", "Lindqvist"),
            ("Ask Lindqvist now", "qvist", "Lindqvist"),
            ("Спроси Иванова сейчас", "Иван", "Иванова"),
            ("我叫王伟明", "王伟", "王伟"),
            ("Ask \nLindqvist, now", " \nLindqvist,", "Lindqvist"),
        ):
            assert await found(text, Finder(part(seen))) == [(whole, "PERSON")]
        assert await found("a , b", Finder(part(" ,"))) == []

    asyncio.run(main())


def test_pieces_of_one_name_are_one_find() -> None:
    def pieces(text: str) -> Sequence[Span]:
        return [span(text, 2, 3, "PER"), span(text, 3, 4, "PER"), span(text, 4, 5, "LOC")]

    assert asyncio.run(found("我叫王伟京", Finder(pieces))) == [("王伟", "PERSON"), ("京", "LOCATION")]


# How often, and how many at once


def test_windows_of_all_texts_are_asked_about_at_once_and_not_too_many() -> None:
    async def main() -> None:
        service = Finder(names(NAME))
        async with gateway_of(Told(), service) as gateway:
            await said(gateway, *(f"{n} {SENTENCE}" for n in range(10)))
            assert service.most == len(service.asked) == 10
            await said(gateway, f"{SENTENCE} " * 3000)
        assert len(service.asked) > 2 * AT_ONCE and service.most == AT_ONCE

    asyncio.run(main())


def test_a_conversation_s_second_request_asks_about_new_texts_only() -> None:
    async def main() -> None:
        hosted, service = Told(), Finder(names(NAME))
        async with gateway_of(hosted, service) as gateway:
            await said(gateway, "Hello there.", SENTENCE)
            assert sorted(service.asked) == ["Hello there.", SENTENCE]
            await said(gateway, "Hello there.", SENTENCE, f"Who is {NAME}?")
            assert service.asked[2:] == [f"Who is {NAME}?"]
            await said(gateway, "Hello there.", SENTENCE, f"Who is {NAME}?", "12345, 67!")
            assert len(service.asked) == 3  # what holds no letter holds no name
        assert NAME not in "".join(hosted.saw) and len(hosted.saw) == 3

    asyncio.run(main())


# Labels and scores


def test_labels_are_what_the_options_say_and_others_are_no_find() -> None:
    text = "Ann at Acme in Rome on Mars with Bo"

    def answers(_: str) -> Sequence[Span]:
        labels = {"Ann": "per", "Acme": "B-ORG", "Rome": "GPE", "Mars": "MISC", "Bo": "LABEL_3"}
        return [span(text, text.index(word), text.index(word) + len(word), label) for word, label in labels.items()]

    async def main() -> None:
        service = Finder(answers)
        usual = [("Ann", "PERSON"), ("Acme", "ORGANIZATION"), ("Rome", "LOCATION")]
        assert await found(text, service, types={"LABEL_3": ""}) == usual
        assert await found(text, service, types={"LABEL_3": "PET", "misc": "PLANET"}) == [
            *usual, ("Mars", "PLANET"), ("Bo", "PET"),
        ]  # fmt: skip
        assert await found(text, service, types={"LABEL_3": "", "GPE": "", "ORG": ""}) == usual[:1]

    asyncio.run(main())


def test_what_scores_below_the_least_is_no_find() -> None:
    for least, count in ((0.5, 1), (0.6, 1), (0.61, 0)):
        assert len(asyncio.run(found(SENTENCE, Finder(names(NAME, score=0.6)), least=least))) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ""}, "model"),
        ({"model": "ner", "types": {"PER": "a person"}}, "PER"),
        ({"model": "ner", "least": 1.5}, "least"),
        ({"model": "ner", "least": math.nan}, "least"),
        ({"model": "ner", "timeout_s": 0}, "timeout_s"),
        ({"model": "ner", "timeout_s": math.inf}, "timeout_s"),
    ],
)
def test_options_that_cannot_be_are_told_at_the_start(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_options({"names": options})


def test_types_that_are_not_looked_for_are_no_find_of_a_model_either() -> None:
    text = "Ann at Acme"

    def both(_: str) -> Sequence[Span]:
        return [span(text, 0, 3), span(text, 7, 11, "ORG")]

    async def main() -> None:
        look = Detectors([], [ExtractDetector(names_options())], types=["ORGANIZATION"])
        async with gateway_of(Finder(both), detectors=[]) as gateway:
            spans = await look.find([Piece(text)], resources(run=gateway.run), Meta())
        assert [each.type for each in spans["", text]] == ["ORGANIZATION"]

    asyncio.run(main())
