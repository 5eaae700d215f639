"""Checks of what a pattern found: check digits, ranges, calendars. Each says of a find's text whether it may be real."""

from __future__ import annotations

from gateway_scrub.checks_europe import *  # noqa: F403
from gateway_scrub.checks_vat import *  # noqa: F403
from gateway_scrub.checks_world import *  # noqa: F403
from gateway_scrub.phones import *  # noqa: F403


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 annex B: payment cards, and many other numbers."""
    digits = [int(char) for char in text if char.isascii() and char.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(digits) > 1 and total % 10 == 0


def ipv4(text: str) -> bool:
    """Four numbers from 0 to 255."""
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts)
