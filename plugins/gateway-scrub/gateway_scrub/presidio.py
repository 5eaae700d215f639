"""Microsoft Presidio as a detector beside the others: all that its analyzer is set up to find, in its own process's memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import ConfigError, Meta, Resources
from gateway_scrub.spans import Span

TYPES: Mapping[str, str] = {
    "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
    "MAC_ADDRESS": "MAC", "LOCATION": "LOCATION", "PERSON": "PERSON", "ORGANIZATION": "ORGANIZATION",
}  # fmt: skip
"""What its entities are called here; the others keep their names."""
LEFT_OUT = frozenset({"DATE_TIME", "NRP", "URL"})
"""What it finds, and is no secret by itself."""


FETCHES = "EmailRecognizer"
"""Of its recognizers, the one that fetches something, a list of domains, when it looks. The rules find addresses anyway."""


def check() -> None:
    """ConfigError unless Presidio and the spaCy models of its defaults are installed: it would fetch those by itself."""
    try:
        from presidio_analyzer.nlp_engine import NlpEngineProvider
        from spacy.util import is_package
    except ImportError as error:
        raise ConfigError("plugin.scrub.presidio needs a package: pip install presidio-analyzer") from error
    for model in NlpEngineProvider().nlp_configuration["models"]:
        name = model["model_name"]
        if not is_package(name):
            raise ConfigError(f"plugin.scrub.presidio needs spaCy's model {name}: python -m spacy download {name}")


class PresidioDetector:
    """`analyzer` is a presidio AnalyzerEngine, by default one with Presidio's own defaults, which needs a spaCy model.

    Nothing is fetched: ConfigError where that model is not installed.
    """

    name = "presidio"

    def __init__(self, analyzer: Any = None, *, language: str = "en") -> None:
        self._analyzer, self._language = analyzer, language
        self._lock = asyncio.Lock()

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        """The spans of each text. It takes milliseconds a text, in a thread."""
        async with self._lock:
            return await asyncio.to_thread(self._find, texts)

    def _find(self, texts: Sequence[str]) -> list[list[Span]]:
        if self._analyzer is None:
            check()
            from presidio_analyzer import AnalyzerEngine

            analyzer = AnalyzerEngine()
            analyzer.registry.remove_recognizer(FETCHES)
            self._analyzer = analyzer
        return [
            [
                Span(found.start, found.end, type_of(found.entity_type), found.score, "presidio", 1)
                for found in self._analyzer.analyze(text=text, language=self._language)
                if found.entity_type not in LEFT_OUT
            ]
            for text in texts
        ]


def type_of(entity: str) -> str:
    """What an entity is called here: its own name in capitals, unless there is another."""
    return TYPES.get(entity, re.sub(r"[^A-Z0-9_]", "_", entity.upper()))
