"""How well finds agree with what is known to be there: types, precision, recall, F2, and the share of characters masked."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scrub_texts import Mark, Sample

Found = tuple[int, int, str]
"""Start, end and type (one of ours) of a find."""

TYPES: dict[str, tuple[tuple[str, ...], ...]] = {
    # ours: presidio-research's, Presidio's, scrubadub's
    "EMAIL": (("EMAIL_ADDRESS",), ("EMAIL_ADDRESS",), ("email",)),
    "PHONE": (("PHONE_NUMBER",), ("PHONE_NUMBER",), ("phone",)),
    "CARD": (("CREDIT_CARD",), ("CREDIT_CARD",), ("credit_card",)),
    "IBAN": (("IBAN_CODE",), ("IBAN_CODE",), ()),
    "IP": (("IP_ADDRESS",), ("IP_ADDRESS",), ()),
    "MAC": ((), ("MAC_ADDRESS",), ()),
    "URL": ((), ("URL",), ("url",)),
    "CRYPTO": ((), ("CRYPTO",), ()),
    "PERSON": (("PERSON",), ("PERSON",), ("name",)),
    "ADDRESS": (("STREET_ADDRESS",), ("LOCATION",), ("address",)),
    "ORGANIZATION": (("ORGANIZATION",), ("ORGANIZATION",), ("organization",)),
    "US_SSN": (("US_SSN",), ("US_SSN",), ("social_security_number",)),
    "US_ITIN": ((), ("US_ITIN",), ()),
    "US_PASSPORT": ((), ("US_PASSPORT",), ()),
    "US_DRIVER_LICENSE": (("US_DRIVER_LICENSE",), ("US_DRIVER_LICENSE",), ("drivers_licence",)),
    "US_BANK": ((), ("US_BANK_NUMBER",), ()),
    "NATIONAL": ((), ("UK_NHS", "UK_NINO"), ("national_insurance_number", "tax_reference_number")),
    "UK_POSTCODE": ((), (), ("postalcode",)),
    "DATE": ((), ("DATE_TIME",), ()),
    "UUID": ((), ("UUID",), ()),
    "USER": ((), (), ("twitter", "skype")),
    "API_KEY": ((), (), ("credential",)),
}
UNASKED = {
    "GPE": "ADDRESS", "ZIP_CODE": "ADDRESS", "TITLE": "PERSON", "DATE_TIME": "DATE_OF_BIRTH", "DOMAIN_NAME": "URL",
    "AGE": "DATE_OF_BIRTH", "NRP": "ADDRESS",
}  # fmt: skip
"""What presidio-research marks and ours is not asked to find, and as what finding it is no mistake."""
SYNTH, PRESIDIO, SCRUBADUB = ({theirs: ours for ours, row in TYPES.items() for theirs in row[column]} for column in range(3))
APART = {"US_SSN", "US_ITIN", "US_PASSPORT", "US_DRIVER_LICENSE", "US_BANK", "UK_POSTCODE"}
"""Types of one country that are no national number; China's are apart too."""
NAMES = {"PERSON", "ADDRESS", "ORGANIZATION"}
"""What no pattern describes."""


def synth_type(theirs: str) -> tuple[str, bool]:
    """Ours for a type of presidio-research's, and whether it is asked for."""
    return (SYNTH[theirs], True) if theirs in SYNTH else (UNASKED.get(theirs, theirs), False)


def our_type(type: str) -> str:
    """A type of ours as it is scored: national numbers are one type, because no peer tells all of them apart."""
    return "NATIONAL" if re.match("[A-Z]{2}_", type) and type not in APART and not type.startswith("CN_") else type


def resolved(hits: Iterable[Sequence[object]], types: dict[str, str], least: float) -> list[Found]:
    """A peer's finds of at least this score, none overlapping: the higher score stays, then the longer. Ours are so already."""
    kept: list[Found] = []
    rows = [(int(str(a)), int(str(b)), str(type), float(str(score))) for a, b, type, score in hits]
    for start, end, type, score in sorted(rows, key=lambda row: (-row[3], row[0] - row[1], row[0], row[2])):
        if score >= least and all(end <= other[0] or other[1] <= start for other in kept):
            kept.append((start, end, types.get(type, type)))
    return sorted(kept)


def meet(one: Found | Mark, other: Mark) -> bool:
    """Whether they overlap."""
    start, end = (one.start, one.end) if isinstance(one, Mark) else one[:2]
    return start < other.end and other.start < end


@dataclass
class Score:
    """What one contender did with one set of texts."""

    asked: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    kind_asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    kind_seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    chars: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)

    def recall(self, type: str) -> float | None:
        """The share of what was there that a find of its type overlaps, None where nothing was."""
        return self.seen[type] / self.asked[type] if self.asked[type] else None

    def precision(self, type: str) -> float | None:
        """The share of the finds that overlap one of their type, None without finds."""
        return self.right[type] / self.told[type] if self.told[type] else None

    def f2(self, type: str) -> float | None:
        """Recall counts twice as much as precision."""
        recall, precision = self.recall(type), self.precision(type)
        if recall is None:
            return None
        return 5 * precision * recall / (4 * precision + recall) if precision and recall else 0.0

    def share(self, what: str) -> float | None:
        """The share of characters masked, by a find of any type: of "patterns", "names" or "other"."""
        return self.masked[what] / self.chars[what] if self.chars[what] else None

    def kind(self, type: str, kind: str) -> float | None:
        """The recall of a kind."""
        return self.kind_seen[type, kind] / self.kind_asked[type, kind] if self.kind_asked[type, kind] else None


def score(samples: Sequence[Sample], finds: Sequence[Sequence[Found]]) -> Score:
    """How well the finds agree with the marks."""
    out = Score()
    for sample, found in zip(samples, finds, strict=True):
        for mark in sample.marks:
            if mark.asked:
                hit = any(type == mark.type and meet((start, end, type), mark) for start, end, type in found)
                out.asked[mark.type] += 1
                out.seen[mark.type] += hit
                out.kind_asked[mark.type, mark.kind] += 1
                out.kind_seen[mark.type, mark.kind] += hit
        for one in found:
            met = [mark for mark in sample.marks if mark.type == one[2] and meet(one, mark)]
            if not met or any(mark.asked for mark in met):
                out.told[one[2]] += 1
                out.right[one[2]] += bool(met)
        what = ["other"] * len(sample.text)
        for mark in sample.marks:
            name = ("names" if mark.type in NAMES else "patterns") if mark.asked else "unasked"
            what[mark.start : mark.end] = [name] * (mark.end - mark.start)
        out.chars.update(what)
        for start, end, _ in found:
            out.masked.update(what[start:end])
    return out


def real(type: str, text: str) -> bool:
    """Whether a find in a log or a program is an address of a host, a name of one, or a user there: no false alarm. Times and
    UUIDs, which only peers look for, are none either, nor is anything that is told to be a URL."""
    if type == "IP":
        if four := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)\.(\d+)([:/]\d+)?", text):  # zeros may lead, and a port may follow
            return all(int(part) < 256 for part in four.groups()[:4])
        try:
            ipaddress.ip_interface(text.strip("[]").partition("%")[0])
        except ValueError:
            return False
        return True
    if type == "EMAIL":
        return bool(re.fullmatch(r"[^@\s]+@[\w-]+(\.[\w-]+)*", text))
    return type in ("URL", "USER", "DATE", "UUID")


def shape(text: str) -> str:
    """A text of which only the shape is told."""
    return re.sub("[0-9]", "9", re.sub("[^\\W\\d_]", "x", text)).replace("\n", "⏎")


def alarms(texts: Sequence[str], finds: Sequence[Sequence[Found]]) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
    """False alarms and the other finds, by type, and the shapes of the false ones with what stands before."""
    false: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    for text, found in zip(texts, finds, strict=True):
        for start, end, type in found:
            if real(type, text[start:end]):
                rest[type] += 1
            else:
                false[type] += 1
                shown.setdefault(type, []).append(f"{shape(text[max(0, start - 20) : start])}[{shape(text[start:end])}]")
    return false, rest, shown
