"""How long to wait, in every form in which a server writes it. No I/O."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 366 * 86_400.0
"""A wait of more than a year is a mistake, not a wait."""
EPOCH_S, EPOCH_MS = 1e9, 1e12  # as seconds from now these would be decades: they count from 1970
UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
STEP = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
NUMBER = re.compile(STEP)
DURATION = re.compile(rf"(?:{STEP}(?:d|h|ms|m|s|us|µs|ns))+")
STEPS = re.compile(rf"{STEP}([a-zµ]+)")


def wait_s(text: str, now_s: float) -> float | None:
    """Seconds from `now_s` (since the epoch) on; a time that has passed is 0, and what is no wait is None.

    Read are seconds (``7.66``), durations (``6m0s``, ``120ms``), seconds and milliseconds since the epoch, dates of RFC 3339
    and the three forms of RFC 9110, 5.6.7. A negative number, or a wait of more than a year, is none.
    """
    text = text.strip()
    if not text or len(text) > 64:
        return None
    if NUMBER.fullmatch(text):
        value = float(text)
        since_epoch = value / 1e3 if value >= EPOCH_MS else value
        return checked(max(0.0, since_epoch - now_s) if value >= EPOCH_S else value)
    if DURATION.fullmatch(text):
        return checked(sum(float(number) * UNITS_S[unit] for number, unit in STEPS.findall(text)))
    return _until(text, now_s) if text.isascii() else None


def checked(value: float) -> float | None:
    """The value when it is a wait, None when it is negative, too long, or no number at all."""
    return value if 0 <= value <= LONGEST_S else None


def _until(date: str, now_s: float) -> float | None:
    try:
        when = datetime.fromisoformat(date) if date[:4].isdigit() else parsedate_to_datetime(date)
        if when.tzinfo is None:  # asctime's form names no zone: it is UTC, not this machine's
            when = when.replace(tzinfo=UTC)
        return checked(max(0.0, when.timestamp() - now_s))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
