"""Presidio beside the other detectors: with a stand-in everywhere, and as it is where it is installed."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from gateway_scrub.build import scrub_of
from gateway_scrub.options import read_options
from gateway_scrub.presidio import PresidioDetector, check
from model_case import Told, gateway_of, said

from gateway import Chat, ConfigError, Message, Meta, Need, NoEligibleModel
from gateway.testing.fakes import resources

CARD, PHONE, IBAN = "4111 1111 1111 1111", "212-555-0199", "DE89370400440532013000"
TEXT = f"Card {CARD}, phone number {PHONE}, account {IBAN}, mail maren.okafor@example.com."


@dataclass
class Result:
    entity_type: str
    start: int
    end: int
    score: float


class Analyzer:
    """Finds the word Maren, as entities of these types."""

    def __init__(self, *types: str, error: Exception | None = None) -> None:
        self._types, self._error = types, error

    def analyze(self, text: str, language: str) -> list[Result]:
        if self._error is not None:
            raise self._error
        return [Result(kind, match.start(), match.end(), 0.85) for kind in self._types for match in re.finditer("Maren", text)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was tried of the network, and with other programs; it fails."""
    tried: list[str] = []

    def refuse(*args: Any, **_: Any) -> Any:
        tried.append(repr(args))
        raise OSError("no network in this test")

    for where, name in ((socket, "getaddrinfo"), (socket.socket, "connect"), (subprocess, "Popen"), (subprocess, "run")):
        monkeypatch.setattr(where, name, refuse)
    yield tried


def types_of(detector: PresidioDetector, text: str) -> dict[str, str]:
    [spans] = asyncio.run(detector.find([text], resources(), Meta()))
    return {text[span.start : span.end]: span.type for span in spans if span.score >= 0.4}


def test_entities_have_the_names_that_they_have_here_and_some_are_left_out() -> None:
    def kinds(*types: str) -> list[str]:
        [spans] = asyncio.run(PresidioDetector(Analyzer(*types)).find(["I am Maren."], resources(), Meta()))
        assert all((span.start, span.end, span.score, span.rank) == (5, 10, 0.85, 1) for span in spans)
        return [span.type for span in spans]

    assert kinds("PERSON", "EMAIL_ADDRESS", "US_SSN", "DATE_TIME", "NRP", "URL") == ["PERSON", "EMAIL", "US_SSN"]
    assert kinds("my-Entity", "zip code") == ["MY_ENTITY", "ZIP_CODE"]  # what a placeholder can say


def test_what_it_finds_does_not_leave_and_comes_back() -> None:
    async def main() -> None:
        hosted = Told()
        async with gateway_of(hosted, detectors=[PresidioDetector(Analyzer("PERSON"))]) as gateway:
            assert (await said(gateway, "Maren is Maren.")).text == "Maren is Maren."
        assert re.fullmatch(r"(<PERSON_1:[0-9a-z]{8}>) is \1\.", hosted.saw[0])

    asyncio.run(main())


def test_an_analyzer_that_raises_keeps_the_request_on_this_machine() -> None:
    async def main() -> None:
        hosted, here = Told(), Told("here", "process")
        broken = PresidioDetector(Analyzer(error=ValueError("cannot read: Maren")))
        async with gateway_of(hosted, here, detectors=[broken]) as gateway:
            assert (await said(gateway, "I am Maren.")).model == "here"
            with pytest.raises(NoEligibleModel) as caught:
                await gateway.run(Chat(messages=(Message.user("I am Maren."),)), Need(model="hosted"))
        assert hosted.saw == [] and "Maren" not in f"{caught.value!r}{caught.value}"

    asyncio.run(main())


def test_without_presidio_the_option_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match="pip install presidio-analyzer"):
        scrub_of(read_options({"presidio": True}))
    scrub_of(read_options({"presidio": False}))


@pytest.fixture
def presidio() -> ModuleType:
    module: ModuleType = pytest.importorskip("presidio_analyzer")
    return module


def test_without_its_spacy_model_nothing_is_fetched(presidio: ModuleType, offline: list[str]) -> None:
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from spacy.util import is_package

    names = [model["model_name"] for model in NlpEngineProvider().nlp_configuration["models"]]
    if all(is_package(name) for name in names):
        pytest.skip("its models are installed")
    for ask in (
        check,
        lambda: scrub_of(read_options({"presidio": True})),
        lambda: asyncio.run(PresidioDetector().find(["I am Maren."], resources(), Meta())),
    ):
        with pytest.raises(ConfigError, match=f"python -m spacy download {names[0]}"):
            ask()
    assert offline == []


def blank_engine() -> Any:
    """Presidio's patterns alone: a spaCy that knows how to split words, and no names."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine()
    engine.nlp = {"en": spacy.blank("en")}
    return engine


def test_presidio_s_own_patterns_are_finds(presidio: ModuleType, offline: list[str], caplog: pytest.LogCaptureFixture) -> None:
    analyzer = presidio.AnalyzerEngine(nlp_engine=blank_engine())
    analyzer.registry.remove_recognizer("EmailRecognizer")
    detector = PresidioDetector(analyzer)
    with caplog.at_level(logging.DEBUG):
        found = types_of(detector, TEXT)
    assert {CARD: "CARD", PHONE: "PHONE", IBAN: "IBAN"}.items() <= found.items()
    assert not any(value in caplog.text for value in found) and offline == []

    async def main() -> None:
        hosted = Told()
        async with gateway_of(hosted, detectors=[detector]) as gateway:
            assert (await said(gateway, TEXT)).text == TEXT
        assert CARD not in hosted.saw[0] and IBAN not in hosted.saw[0]

    asyncio.run(main())


def test_its_defaults_fetch_nothing_when_they_look(
    presidio: ModuleType, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recognizer of addresses would fetch a list of domains at the first address that it sees."""
    import spacy
    import tldextract

    monkeypatch.setattr(tldextract.tldextract, "TLD_EXTRACTOR", tldextract.TLDExtract(cache_dir=None))  # as on a new machine
    monkeypatch.setattr(spacy.util, "is_package", lambda name: True)
    monkeypatch.setattr(spacy, "load", lambda name, **_: spacy.blank("en"))
    found = types_of(PresidioDetector(), TEXT)
    assert found[CARD] == "CARD" and offline == []
