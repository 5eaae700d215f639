"""Names that a model of the gateway finds: what is asked, what is made of the answer, and what goes wrong."""

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
from gateway_scrub.options import ScrubOptions, read_options
from gateway_scrub.spans import Span as Find
from gateway_scrub.walk import Piece
from hypothesis import given
from hypothesis import strategies as st
from model_case import Answers, Finder, Told, gateway_of, names, names_options, said, span
from ner_case import planted

from gateway import (
    AllModelsFailed,
    Chat,
    ConfigError,
    Extract,
    GatewayError,
    Message,
    Meta,
    ModelService,
    Need,
    NoEligibleModel,
    Resources,
    Span,
    TransformFailed,
)
from gateway.testing.fakes import resources

NAME = "Maren Okafor"
SENTENCE = f"Please write to {NAME} today."
ASKED = Chat(messages=(Message.user(SENTENCE),))
HOSTED, HERE = Need(model="hosted"), Need(model="here")
MARKED = re.compile(r"<([A-Z_]+)_\d+:[0-9a-z]{8}>")


def learned(folder: Path) -> ModelService:
    from gateway_local import LocalModel
    from gateway_local.options import ModelOptions

    return LocalModel(ModelOptions(name="ner", weights=str(folder), device="cpu"))


async def found(text: str, service: Finder, **options: object) -> list[tuple[str, str]]:
    """What is found in a text, and of what type."""
    detector = ExtractDetector(names_options(**options))
    async with gateway_of(service, detectors=[]) as gateway:
        [spans] = await detector.find([text], resources(run=gateway.run), Meta())
    return [(text[each.start : each.end], each.type) for each in spans]


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


# What goes wrong keeps the request here


def test_a_model_that_is_too_slow_keeps_the_request_on_this_machine() -> None:
    async def main() -> None:
        hosted, here = Told(), Told("here", "process")
        service = Finder(names(NAME), gate=asyncio.Event())
        async with gateway_of(hosted, here, service, timeout_s=0.05) as gateway:
            reply = await said(gateway, SENTENCE)
            assert (reply.model, here.saw, hosted.saw) == ("here", [SENTENCE], [])
            assert service.now == 0  # nothing is left running
            assert service.gate is not None
            service.gate.set()  # what was not found out is not remembered as nothing
            await gateway.run(ASKED, HOSTED)
        assert len(hosted.saw) == 1 and NAME not in hosted.saw[0]

    asyncio.run(main())


def test_a_model_that_is_too_slow_leaves_nobody_where_all_are_elsewhere() -> None:
    async def main() -> None:
        hosted, service = Told(), Finder(names(NAME), gate=asyncio.Event())
        async with gateway_of(hosted, service, timeout_s=0.05) as gateway:
            with pytest.raises(NoEligibleModel) as caught:
                await said(gateway, SENTENCE)
        assert hosted.saw == [] and "scrub" in str(caught.value) and NAME not in f"{caught.value!r}{caught.value}"

    asyncio.run(main())


def test_a_model_that_is_still_loading_goes_on_with_that() -> None:
    async def main() -> None:
        hosted, service = Told(), Finder(names(NAME))
        service.loaded = asyncio.Event()
        async with gateway_of(hosted, service, timeout_s=0.05) as gateway:
            with pytest.raises(NoEligibleModel):
                await said(gateway, SENTENCE)
            service.loaded.set()
            assert (await said(gateway, SENTENCE)).text == SENTENCE
        assert service.starts == 1 and len(hosted.saw) == 1 and NAME not in hosted.saw[0]

    asyncio.run(main())


def test_a_caller_who_gives_up_leaves_nothing_running() -> None:
    async def main() -> None:
        hosted, service = Told(), Finder(names(NAME), gate=asyncio.Event())
        async with gateway_of(hosted, service) as gateway:
            task = asyncio.create_task(said(gateway, f"{SENTENCE} " * 100))
            while not service.now:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert hosted.saw == [] and service.now == 0

    asyncio.run(main())


class Odd:
    """A detector that gives these spans of every text."""

    name = "odd"

    def __init__(self, *spans: Find, texts: int | None = None) -> None:
        self._spans, self._texts = spans, texts

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Find]]:
        return [list(self._spans)] * (len(texts) if self._texts is None else self._texts)


@pytest.mark.parametrize(
    "odd",
    [
        Odd(texts=0), Odd(texts=2), Odd(Find(8, 3, "PERSON", 0.9, "")), Odd(Find(3, 10_000, "PERSON", 0.9, "")),
        Odd(Find(-4, 3, "PERSON", 0.9, "")), Odd(Find(0, 6, "PERSON", math.nan, "")), Odd(Find(0, 6, "a person", 0.9, "")),
    ],
)  # fmt: skip
def test_a_detector_of_one_s_own_that_gives_nonsense_keeps_the_request_here(odd: Odd) -> None:
    async def main() -> None:
        hosted, here = Told(), Told("here", "process")
        async with gateway_of(hosted, here, detectors=[odd]) as gateway:
            with pytest.raises((NoEligibleModel, AllModelsFailed, TransformFailed)) as caught:
                await gateway.run(ASKED, HOSTED)
            assert NAME not in f"{caught.value!r}{caught.value}"
            assert (await gateway.run(ASKED, HERE)).text == SENTENCE
        assert hosted.saw == []

    asyncio.run(main())


def raising(text: str) -> Sequence[Span]:
    raise RuntimeError(f"cannot read {text}")


def nonsense(start: int, end: int, label: str = "PER", score: float = 0.9) -> Answers:
    return lambda text: [Span(entity_group=label, score=score, word="", start=start, end=end)]


@pytest.mark.parametrize(
    "service",
    [
        Finder(raising),
        Finder(nonsense(8, 3)),
        Finder(nonsense(3, 10_000)),
        Finder(nonsense(-4, 3)),
        Finder(nonsense(0, 6, score=math.nan)),
        Finder(nonsense(0, 6, score=math.inf)),
        Finder(nonsense(0, 6, score=-3.5)),
        Finder(nonsense(0, 6, label="LABEL_1")),
        Finder(names(NAME), place="hosted"),
        Finder(names(NAME), place="private"),
        Told("ner", "process"),
        Told("another", "process"),
    ],
    ids=["raises", "start after end", "beyond the text", "before it", "nan", "inf", "below 0", "labels without names",
         "remote", "private", "no extraction", "missing"],
)  # fmt: skip
def test_what_the_model_cannot_tell_keeps_the_request_on_this_machine(service: ModelService) -> None:
    async def main() -> None:
        hosted, here = Told(), Told("here", "process")
        async with gateway_of(hosted, here, service) as gateway:
            with pytest.raises((NoEligibleModel, AllModelsFailed)) as caught:
                await gateway.run(ASKED, HOSTED)
            assert NAME not in f"{caught.value!r}{caught.value}"
            reply = await gateway.run(ASKED, HERE)
        assert (reply.text, here.saw, hosted.saw) == (SENTENCE, [SENTENCE], [])
        if isinstance(service, Finder) and service.card.place in ("hosted", "private"):
            assert service.asked == []

    asyncio.run(main())


def test_one_window_that_fails_stops_the_others() -> None:
    def answers(text: str) -> Sequence[Span]:
        raise RuntimeError("no")

    async def main() -> None:
        service = Finder(answers)
        async with gateway_of(Told(), service) as gateway:
            with pytest.raises(GatewayError):
                await said(gateway, "word " * 40_000)
        assert len(service.asked) <= 2 * AT_ONCE and service.now == 0

    asyncio.run(main())


def test_the_model_itself_is_asked_about_the_text_as_it_is() -> None:
    """Also where local models are scrubbed: its own request is not looked at again, which would never end."""

    async def main() -> None:
        hosted, here, service = Told(), Told("here", "process"), Finder(names(NAME))
        options = ScrubOptions(local={"personal": "placeholder"})
        async with gateway_of(hosted, here, service, options=options) as gateway:
            for need in (HOSTED, HERE):
                assert (await gateway.run(ASKED, need)).text == SENTENCE
        assert service.asked == [SENTENCE]
        assert NAME not in "".join(hosted.saw + here.saw) and len(hosted.saw) == len(here.saw) == 1

    asyncio.run(main())


def test_a_direct_request_to_the_model_is_served() -> None:
    async def main() -> None:
        service = Finder(names(NAME))
        async with gateway_of(service) as gateway:
            [one] = (await gateway.run(Extract(inputs=SENTENCE))).spans
        assert one.word == NAME

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


# Overlaps


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
