"""NameRules: names of people by what stands around them, without a model: titles, "my name is", labels, greetings, signatures.

A model finds more; this finds what is plain, at the speed of a search for literals. What scores 0.5
or more is right in most texts.
`names_latin` and `names_east` say how; the words they know are in rules/names.txt.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway_scrub import names_east, names_latin
from gateway_scrub.fold import Folded
from gateway_scrub.spans import Span, resolved


class NameRules:
    """Finds PERSON in texts and, with `organisations`, ORGANIZATION, whose ends are less sure. A detector like `Scanner.find`.
    Only what scores at least `threshold` is told, and nothing that overlaps."""

    def __init__(self, *, threshold: float = 0.5, organisations: bool = False) -> None:
        self.threshold = threshold
        self.organisations = organisations

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            (Span(*folded.span(a.start, a.end), a.type, a.score, a.why) for a in self._found(folded)), least=self.threshold
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        yield from names_latin.people(folded.text, folded.lower)
        if folded.east:
            yield from names_east.people(folded.text)
        if self.organisations:
            yield from names_latin.organisations(folded.text)
            if folded.east:
                yield from names_east.organisations(folded.text)
