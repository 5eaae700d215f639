"""What lies across the parts of a message: "ada@exam" and "ple.org", one after the other, are read as one."""

from __future__ import annotations

from typing import Any

from gateway import Chat, Request, Text
from gateway_scrub.spans import Span, covering

Runs = list[tuple[str, ...]]


def text_runs(request: Request[Any]) -> Runs:
    """The texts of each message that has several parts of text, as they follow one another."""
    if not isinstance(request, Chat):
        return []
    runs = (tuple(part.text for part in message.parts if isinstance(part, Text)) for message in request.messages)
    return [run for run in runs if len(run) > 1]


def spread(runs: Runs, spans: dict[tuple[str, str], tuple[Span, ...]]) -> None:
    """Add what was found in texts read as one to the finds of each that it lies in, where it lies across them."""
    for run in runs:
        found, at = spans.get(("", "".join(run)), ()), 0
        for text in run:
            end = at + len(text)
            cut = [span for span in found if span.start < end and span.end > at and not (at <= span.start and span.end <= end)]
            if cut:
                there = [Span(max(s.start - at, 0), min(s.end, end) - at, s.type, s.score, s.why, s.rank) for s in cut]
                spans["", text] = tuple(covering(text, [*spans.get(("", text), ()), *there]))
            at = end
