"""Check digits of East Asia: China, Hong Kong, Macau, Taiwan, Japan, Korea, Singapore. Pure functions of a find's text.

Signs between the digits are ignored, letters may be of either case. A text of the wrong length fails.
"""

from __future__ import annotations

import re
from datetime import date

__all__ = [
    "cn_bank_card", "cn_id15", "cn_id18", "cn_mobile", "cn_org_code", "cn_tax15", "cn_uscc", "hkid", "jp_my_number", "kr_brn",
    "kr_rrn", "sg_nric", "sg_uen", "tw_id", "tw_ubn", "vin_gb16735",
]  # fmt: skip

CN_REGIONS = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91")
"""The first two digits of GB/T 2260, with 83 and 91 of residence permits."""
CN_MOBILE = re.compile("13|14[5-9]|15[0-35-9]|16[2567]|17[0-8]|18|19[0-35-9]")
"""What the ministry of industry (MIIT) has assigned to mobile networks."""
USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"
TAIWAN = dict(zip("ABCDEFGHJKLMNPQRSTUVXYWZIO", range(10, 36), strict=True))
UEN_OTHER = "ABCDEFGHJKLMNPQRSTUVWX0123456789"


def cn_id18(text: str) -> bool:
    """Resident identity number: GB 11643-1999, with the check character of ISO 7064 MOD 11-2, a region and a day that was."""
    code = _plain(text)
    if len(code) != 18 or not code[:17].isdigit() or not CN_REGIONS.match(code) or not _day(code[6:14]):
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(code[:17]))
    return "10X98765432"[total % 11] == code[17]


def cn_id15(text: str) -> bool:
    """Resident identity number of before 1999 (GB 11643-1989): a region and a day; it has no check digit."""
    code = _plain(text)
    return len(code) == 15 and code.isdigit() and CN_REGIONS.match(code) is not None and _day("19" + code[6:12])


def cn_uscc(text: str) -> bool:
    """Unified social credit code: GB 32100-2015, weights 3^n modulo 31."""
    code = _plain(text)
    if len(code) != 18 or any(char not in USCC for char in code):
        return False
    total = sum(USCC.index(char) * pow(3, place, 31) for place, char in enumerate(code[:17]))
    return USCC[-total % 31] == code[17]


def cn_org_code(text: str) -> bool:
    """Organisation code: GB 11714-1997, modulo 11."""
    code = _plain(text)
    if len(code) != 9 or not code.isascii():
        return False
    total = sum(int(char, 36) * weight for char, weight in zip(code, (3, 7, 9, 10, 5, 8, 4, 2), strict=False))
    return "0X987654321"[total % 11] == code[8]


def cn_tax15(text: str) -> bool:
    """Taxpayer number of before 2015: a region's six digits, then an organisation code. Or the unified code of today."""
    code = _plain(text)
    if len(code) == 18:
        return cn_uscc(code)
    return len(code) == 15 and code[:6].isdigit() and CN_REGIONS.match(code) is not None and cn_org_code(code[6:])


def cn_mobile(text: str) -> bool:
    """A mobile number's first three digits are assigned (MIIT's numbering plan). 2**34, of sizes in bytes, is none."""
    code = _plain(text)[-11:]
    return CN_MOBILE.match(code) is not None and code != "17179869184"


def cn_bank_card(text: str) -> bool:
    """ISO/IEC 7812-1 annex B (Luhn), of 16 to 19 digits."""
    code = _plain(text)
    if not (16 <= len(code) <= 19 and code.isdigit()):
        return False
    digits = [int(char) for char in code]
    return (sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])) % 10 == 0


def vin_gb16735(text: str) -> bool:
    """Vehicle identification number: GB 16735 and 49 CFR 565.15, whose ninth character is a check digit modulo 11."""
    code = _plain(text)
    values = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True))
    if len(code) != 17 or any(not char.isdigit() and char not in values for char in code):
        return False
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    total = sum((values[char] if char in values else int(char)) * weight for char, weight in zip(code, weights, strict=True))
    return "0123456789X"[total % 11] == code[8]


def hkid(text: str) -> bool:
    """Hong Kong identity card (Immigration Department): modulo 11, a missing first letter counting 36."""
    code = _plain(text)
    if not (8 <= len(code) <= 9 and code[-7:-1].isdigit() and code[:-7].isalpha() and code[-1] in "0123456789A"):
        return False
    values = [36] * (9 - len(code)) + [int(char, 36) for char in code]
    return sum(value * weight for value, weight in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def tw_id(text: str) -> bool:
    """Taiwan's identity number (Ministry of the Interior), and resident certificates old (two letters) and new (8 or 9)."""
    code = _plain(text)
    if len(code) != 10 or code[0] not in TAIWAN or not code[2:].isdigit():
        return False
    if code[1] not in "ABCD1289":
        return False
    second = TAIWAN[code[1]] % 10 if code[1].isalpha() else int(code[1])
    digits = (*divmod(TAIWAN[code[0]], 10), second, *map(int, code[2:]))
    return sum(digit * weight for digit, weight in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def tw_ubn(text: str) -> bool:
    """Taiwan's business number (Ministry of Finance): digit sums of products, divisible by 5 since 2023."""
    code = _plain(text)
    if len(code) != 8 or not code.isdigit():
        return False
    total = sum(sum(divmod(int(digit) * weight, 10)) for digit, weight in zip(code, (1, 2, 1, 2, 1, 2, 4, 1), strict=True))
    return total % 5 == 0 or (code[6] == "7" and (total - 9) % 5 == 0)


def jp_my_number(text: str) -> bool:
    """Japan's individual number (order 85 of 2014 of the Ministry of Internal Affairs, article 5)."""
    code = _plain(text)
    if len(code) != 12 or not code.isdigit():
        return False
    rest = sum(int(digit) * weight for digit, weight in zip(code, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2), strict=False)) % 11
    return int(code[11]) == (0 if rest <= 1 else 11 - rest)


def kr_rrn(text: str) -> bool:
    """Korea's resident or foreigner registration number, with the check digit that those given before October 2020 have."""
    code = _plain(text)
    if len(code) != 13 or not code.isdigit():
        return False
    if not _day({"9": "18", "0": "18"}.get(code[6], "20" if code[6] in "3478" else "19") + code[:6]):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(code, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False))
    return ((13 if code[6] in "5678" else 11) - total % 11) % 10 == int(code[12])


def kr_brn(text: str) -> bool:
    """Korea's business registration number (National Tax Service)."""
    code = _plain(text)
    if len(code) != 10 or not code.isdigit():
        return False
    total = sum(int(digit) * weight for digit, weight in zip(code, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=False))
    return -(total + int(code[8]) * 5 // 10) % 10 == int(code[9])


def sg_nric(text: str) -> bool:
    """Singapore's NRIC and FIN: weights 2765432 modulo 11; the series shifts the sum and chooses the letters."""
    code = _plain(text)
    if len(code) != 9 or code[0] not in "STFGM" or not code[1:8].isdigit():
        return False
    total = sum(int(digit) * weight for digit, weight in zip(code[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "XWUTRQPNJLK"}.get(code[0], "XWUTRQPNMLK")
    return letters[(total + {"T": 4, "G": 4, "M": 3}.get(code[0], 0)) % 11] == code[8]


def sg_uen(text: str) -> bool:
    """Singapore's unique entity number, in its three forms (ACRA)."""
    code = _plain(text)
    if len(code) == 9 and code[:8].isdigit():
        weights: tuple[int, ...] = (10, 4, 9, 3, 8, 2, 7, 1)
        return "XMKECAWLJDB"[sum(map(int.__mul__, map(int, code[:8]), weights)) % 11] == code[8]
    if len(code) != 10:
        return False
    if code[:9].isdigit():
        weights = (10, 8, 6, 4, 9, 7, 5, 3, 1)
        return "ZKCMDNERGWH"[sum(map(int.__mul__, map(int, code[:9]), weights)) % 11] == code[9]
    if any(char not in UEN_OTHER for char in code):
        return False
    total = sum(UEN_OTHER.index(char) * weight for char, weight in zip(code, (4, 3, 5, 3, 10, 2, 2, 5, 7), strict=False))
    return UEN_OTHER[(total - 5) % 11] == code[9]


def _plain(text: str) -> str:
    """Its ASCII letters and digits alone, in upper case."""
    return "".join(char for char in text if char.isascii() and char.isalnum()).upper()


def _day(digits: str) -> bool:
    """Whether year, month and day in eight digits are a day that has been."""
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) <= date.today()
    except ValueError:
        return False
