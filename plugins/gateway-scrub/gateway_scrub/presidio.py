"""Microsoft Presidio as a detector beside the others: all that its analyzer is set up to find, in its own process's memory."""

from __future__ import annotations

import asyncio
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


class PresidioDetector:
    """`analyzer` is a presidio AnalyzerEngine, by default one with Presidio's own defaults, which needs a spaCy model."""

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
            try:
                from presidio_analyzer import AnalyzerEngine
            except ImportError as error:
                raise ConfigError("plugin.scrub.presidio needs the package presidio-analyzer, and a spaCy model") from error
            self._analyzer = AnalyzerEngine()
        return [
            [
                Span(found.start, found.end, TYPES.get(found.entity_type, found.entity_type), found.score, "presidio", 1)
                for found in self._analyzer.analyze(text=text, language=self._language)
                if found.entity_type not in LEFT_OUT
            ]
            for text in texts
        ]
