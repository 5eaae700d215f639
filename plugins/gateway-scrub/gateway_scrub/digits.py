"""Digits: what the checks of numbers are made of: weighted sums, the check systems of the standards, and the calendar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

VERHOEFF_TURN = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def digits(text: str) -> list[int]:
    """The ASCII digits of a text."""
    return [ord(char) - 48 for char in text if "0" <= char <= "9"]


def letters_and_digits(text: str) -> str:
    """A text in upper case with nothing but its ASCII letters and digits."""
    return "".join(char for char in text.upper() if char.isascii() and char.isalnum())


def weighted(numbers: Iterable[int], weights: Iterable[int]) -> int:
    """The sum of products, as far as the shorter one goes."""
    return sum(number * weight for number, weight in zip(numbers, weights, strict=False))


def several(numbers: Sequence[int]) -> bool:
    """Whether not all are the same, as in what people type to fill a field."""
    return len(set(numbers)) > 1


def luhn_holds(numbers: Sequence[int]) -> bool:
    """ISO/IEC 7812-1 annex B."""
    total = sum(numbers[-1::-2]) + sum(2 * digit - 9 * (digit > 4) for digit in numbers[-2::-2])
    return len(numbers) > 1 and total % 10 == 0


def luhn_36_holds(code: str) -> bool:
    """Luhn over base 36, as India's GSTIN has it: the check character is the last."""
    total = 0
    for place, char in enumerate(reversed(code)):
        value = int(char, 36) * (1 + place % 2)
        total += value // 36 + value % 36
    return total % 36 == 0


def mod_11_10_holds(numbers: Sequence[int]) -> bool:
    """ISO/IEC 7064, MOD 11,10: the check digit is the last."""
    product = 10
    for number in numbers[:-1]:
        product = ((number + product) % 10 or 10) * 2 % 11
    return (product + numbers[-1]) % 10 == 1


def ean_holds(numbers: Sequence[int]) -> bool:
    """GS1: weights 1 and 3 from the right."""
    return (sum(numbers[-1::-2]) + 3 * sum(numbers[-2::-2])) % 10 == 0


def icao_holds(code: str) -> bool:
    """ICAO 9303, 4.9: weights 7, 3, 1, letters from 10; the check digit is the last."""
    return weighted((int(char, 36) for char in code[:-1]), (7, 3, 1) * 10) % 10 == int(code[-1], 36)


def verhoeff_holds(numbers: Sequence[int]) -> bool:
    """Verhoeff 1969: the dihedral group of order ten; the check digit is the last."""
    total = 0
    for place, number in enumerate(reversed(numbers)):
        for _ in range(place % 8):
            number = VERHOEFF_TURN[number]
        total = _dihedral(total, number)
    return total == 0


def _dihedral(left: int, right: int) -> int:
    if left < 5:
        return (left + right) % 5 if right < 5 else 5 + (left + right) % 5
    return 5 + (left - right) % 5 if right < 5 else (left - right) % 5


def a_day(year: int, month: int, day: int) -> bool:
    """Whether the calendar has it; no year of two digits."""
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def a_short_day(year: int, month: int, day: int) -> bool:
    """The same with a year of two digits, of any century."""
    return a_day(2000 + year, month, day) or a_day(1900 + year, month, day)
