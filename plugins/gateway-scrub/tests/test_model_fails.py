"""A model or a detector that fails, is late, or gives nonsense: the request stays on this machine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from gateway_scrub.model import AT_ONCE
from gateway_scrub.options import ScrubOptions
from gateway_scrub.spans import Span as Find
from model_case import (
    ASKED,
    HERE,
    HOSTED,
    NAME,
    SENTENCE,
    Answers,
    Finder,
    Told,
    gateway_of,
    names,
    said,
)

from gateway import (
    AllModelsFailed,
    Extract,
    GatewayError,
    Meta,
    ModelService,
    NoEligibleModel,
    Resources,
    Span,
    TransformFailed,
)


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
