"""Checks of numbers of the United States and the United Kingdom."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "nanp",
    "uk_licence",
    "uk_nhs",
    "uk_nino",
    "uk_phone",
    "uk_postcode",
    "uk_utr",
    "us_dea",
    "us_itin",
    "us_npi",
    "us_routing",
    "us_ssn",
]  # fmt: skip

AREA_LIST = (
    "AB AL B BA BB BD BH BL BN BR BS BT CA CB CF CH CM CO CR CT CV CW DA DD DE DG DH DL DN DT DY E EC EH EN EX FK FY G GL "
    "GU GY HA HD HG HP HR HS HU HX IG IM IP IV JE KA KT KW KY L LA LD LE LL LN LS LU M ME MK ML N NE NG NN NP NR NW OL OX "
    "PA PE PH PL PO PR RG RH RM S SA SE SG SK SL SM SN SO SP SR SS ST SW SY TA TD TF TN TQ TR TS TW UB W WA WC WD WF WN WR "
    "WS WV YO ZE"
)
AREAS = frozenset(AREA_LIST.split())
"""The postcode areas of Royal Mail, with those of the Crown Dependencies."""


def us_ssn(text: str) -> bool:
    """The Social Security Administration's ranges: area neither 000, 666 nor 900 and above; group not 00; serial not 0000."""
    digits = _digits(text)
    return (
        len(digits) == 9
        and digits[:3] not in ("000", "666")
        and digits[0] != "9"
        and digits[3:5] != "00"
        and digits[5:] != "0000"
        and len(set(digits)) > 1
        and digits not in ("123456789", "078051120", "219099999")  # a row of digits; printed in wallets and a pamphlet
    )


def us_itin(text: str) -> bool:
    """The IRS's individual taxpayer number (Pub. 1915): 9xx, then 50-65, 70-88, 90-92 or 94-99."""
    digits = _digits(text)
    group = int(digits[3:5])
    return (
        len(digits) == 9 and digits[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or group >= 94)
    )


def us_routing(text: str) -> bool:
    """A bank's routing number (American Bankers Association): the Federal Reserve's district, and weights 3, 7, 1 modulo 10."""
    digits = _digits(text)
    if len(digits) != 9 or not (1 <= int(digits[:2]) <= 12 or 21 <= int(digits[:2]) <= 32 or 61 <= int(digits[:2]) <= 72):
        return digits[:2] == "80" and _weighted(digits, (3, 7, 1) * 3) % 10 == 0
    return _weighted(digits, (3, 7, 1) * 3) % 10 == 0


def us_npi(text: str) -> bool:
    """A health-care provider's number (45 CFR 162.406): Luhn's check digit, with 80840 before it."""
    digits = "80840" + _digits(text)
    total = sum(int(digit) for digit in digits[-1::-2]) + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return len(digits) == 15 and total % 10 == 0


def us_dea(text: str) -> bool:
    """A prescriber's number of the DEA: two letters, and a check digit over six."""
    digits = _digits(text)
    return len(digits) == 7 and (_weighted(digits[:6], (1, 2) * 3)) % 10 == int(digits[6])


def nanp(text: str) -> bool:
    """The North American Numbering Plan: area and exchange begin with 2 to 9 and neither ends in 11; no area is N9X."""
    digits = _digits(re.split("[xXeE,;]", text)[0])
    digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return (
        len(digits) == 10
        and digits[0] in "23456789"
        and digits[1] != "9"
        and digits[1:3] != "11"
        and digits[3] in "23456789"
        and digits[4:6] != "11"
        and len(set(digits)) > 2
    )


def uk_nhs(text: str) -> bool:
    """The NHS Data Dictionary: weights 10 to 2, modulo 11; a check digit of 10 is given to nobody."""
    digits = _digits(text)
    check = -_weighted(digits[:9], range(10, 1, -1)) % 11
    return len(digits) == 10 and len(set(digits)) > 1 and check == int(digits[9])


def uk_nino(text: str) -> bool:
    """HMRC (NIM39110): the prefixes that are given out."""
    prefix = text[:2].upper()
    return prefix[0] not in "DFIQUV" and prefix[1] not in "DFIOQUV" and prefix not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def uk_postcode(text: str) -> bool:
    """The area of a postcode is one of Royal Mail's."""
    area = re.match("[A-Z]+", text.upper())
    return area is not None and (area.group() in AREAS or text.upper().replace(" ", "") == "GIR0AA")


def uk_utr(text: str) -> bool:
    """A taxpayer's reference (HMRC): the first digit checks the other nine, weights 6, 7, 8, 9, 10, 5, 4, 3, 2, modulo 11."""
    digits = _digits(text)
    return len(digits) == 10 and "21987654321"[_weighted(digits[1:], (6, 7, 8, 9, 10, 5, 4, 3, 2)) % 11] == digits[0]


def uk_licence(text: str) -> bool:
    """A driver's number (DVLA): the month of birth, plus 50 for women, and the day."""
    compact = text.replace(" ", "")
    month, day = int(compact[6:8]) % 50, int(compact[8:10])
    return 1 <= month <= 12 and int(compact[6]) in (0, 1, 5, 6) and 1 <= day <= 31


def uk_phone(text: str) -> bool:
    """Ofcom's National Telephone Numbering Plan: ten digits, or nine for a few, after the 0 of a range that is in use."""
    digits = _digits(re.split("[xXeE,;]", text)[0])
    digits = digits[4:] if digits.startswith("0044") else digits
    digits = digits[1:] if digits.startswith("0") else digits
    return len(digits) in (9, 10) and bool(re.match("[12358]|7[1-57-9]|70|76", digits)) and len(set(digits)) > 2


def _weighted(digits: str, weights: Iterable[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isdigit())
