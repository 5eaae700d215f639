"""Checks of what a pattern found: check digits, ranges, calendars. Each says of a find's text whether it may be real."""

from __future__ import annotations

import re
from datetime import date
from ipaddress import AddressValueError, IPv4Address

from gateway_scrub.checks_asia import *  # noqa: F403
from gateway_scrub.checks_coins import *  # noqa: F403
from gateway_scrub.checks_europe import *  # noqa: F403
from gateway_scrub.checks_secrets import *  # noqa: F403
from gateway_scrub.checks_us_uk import *  # noqa: F403
from gateway_scrub.checks_vat import *  # noqa: F403
from gateway_scrub.checks_world import *  # noqa: F403
from gateway_scrub.phones import *  # noqa: F403

NETWORKS = re.compile(
    r"(?=(?:[0-9]{13}|[0-9]{16}|[0-9]{19})\Z)4"  # Visa
    r"|(?=[0-9]{16}\Z)(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)"  # Mastercard
    r"|(?=[0-9]{15}\Z)(?:3[47]|1800|2131)"  # American Express; JCB's old ones
    r"|(?=[0-9]{14,19}\Z)(?:30[0-5]|3095|36|3[89])"  # Diners Club
    r"|(?=[0-9]{16,19}\Z)(?:6|35(?:2[89]|[3-8])|220[0-4]|8[12]|508)"  # Discover, UnionPay, JCB, Mir, RuPay
    r"|(?=[0-9]{12,19}\Z)(?:50|5[6-8]|6)"  # Maestro
)
"""How the numbers of the networks that issue cards begin (ISO/IEC 7812-2, as the networks publish it), and their lengths."""
IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 "
    "LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
    "RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS = {code[:2]: int(code[2:]) for code in IBANS.split()}
"""ISO 13616, the registry of SWIFT (release 99)."""
DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
OID = re.compile(r"1\.[0-3]\.|2\.(?:5|16)\.")
"""How the object identifiers (ITU-T X.660) that stand in programs begin."""
PRIVATE = re.compile(r"10\.|192\.168\.|172\.(?:1[6-9]|2[0-9]|3[01])\.|100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\.")
MONTHS = (
    r"jan|feb|fév|fev|mar|mär|maa|mrt|apr|avr|abr|kwi|may|mai|mag|mei|maj|jun|juin|giu|jul|juil|lug|aug|ago|aoû|aou|sep|set|"
    r"oct|okt|ott|out|nov|dec|dez|déc|dic|ene|gen"
)
CALLING = re.compile(
    r"1|20|21[1-368]|2[234][0-9]|25[0-8]|26[0-9]|27|29[0178]|3[0123469]|35[0-9]|37[0-8]|38[01235-79]|4[013-9]|42[013]|5[1-8]|50[0-9]|"
    r"59[0-9]|6[0-6]|67[02-9]|68[0-35-9]|69[0-2]|7|8[1246]|80[08]|85[02356]|88[06]|9[0-58]|96[0-8]|97[0-79]|99[2-68]"
)
"""ITU-T E.164's country codes that are in use."""


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 annex B: payment cards, and many other numbers."""
    digits = [ord(char) - 48 for char in text if "0" <= char <= "9"]
    return len(digits) > 1 and (sum(digits[-1::-2]) + sum([DOUBLED[digit] for digit in digits[-2::-2]])) % 10 == 0


def card(text: str) -> bool:
    """A payment card's number: it begins like one of a network's, is as long, and has the right check digit."""
    digits = _digits(text)
    return luhn(digits) and NETWORKS.match(digits) is not None and len(set(digits)) > 1


def iban(text: str) -> bool:
    """ISO 13616: the country's length, and ISO/IEC 7064 mod 97-10."""
    code = re.sub("[ .-]", "", text).upper()
    if IBAN_LENGTHS.get(code[:2]) != len(code) or not code.isalnum() or not code.isascii():
        return False
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def ipv4(text: str) -> bool:
    """Four numbers from 0 to 255."""
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts)


def ipv4_host(text: str) -> bool:
    """An address that a machine of somebody's can have (RFC 6890), and which no version number looks like."""
    return ipv4_short(text) and ((len(text) >= 11 and not OID.match(text)) or PRIVATE.match(text) is not None)


def ipv4_short(text: str) -> bool:
    """An address that a machine of somebody's can have: not this host, a loopback, a mask or a group."""
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    return not (
        address.is_loopback or address.is_multicast or address.is_reserved or text.startswith("0.") or address.packed[0] > 223
    )


def birth_date(text: str) -> bool:
    """A date, in one of the orders in which people write it, in a year in which somebody alive may have been born."""
    lower = text.lower()
    numbers = [int(number) for number in re.findall("[0-9]+", lower)]
    if len(numbers) == 1 and len(_digits(text)) == 8:
        whole = _digits(text)
        whole = whole if whole[:2] in ("19", "20") and int(whole[4:6]) <= 12 else whole[4:] + whole[2:4] + whole[:2]
        numbers = [int(whole[:4]), int(whole[4:6]), int(whole[6:])]
    if len(numbers) == 2 and re.search(rf"(?:{MONTHS})|[^\W\d_]{{3}}", lower):
        numbers.append(1)  # the month is a word
    if len(numbers) != 3:
        return False
    years = [number for number in numbers if 1900 <= number <= 2035]
    others = sorted(number for number in numbers if number not in years)
    if not years:  # the year is of two digits
        return len(others) == 3 and others[0] >= 0 and any(0 < number <= 12 for number in numbers) and numbers[0] <= 31
    if len(years) != 1 or len(others) != 2:
        return False
    try:
        date(years[0], min(others), max(others))
    except ValueError:
        return False
    return True


def phone_code(text: str) -> bool:
    """An international telephone number (ITU-T E.164): a country code that is in use, and 8 to 15 digits."""
    digits = _digits(text)
    return 8 <= len(digits) <= 15 and CALLING.match(digits) is not None and len(set(digits)) > 2


def phone_said(text: str) -> bool:
    """What is called a telephone number may be one: 7 to 15 digits; no address, no date."""
    digits = _digits(text)
    dated = re.fullmatch(
        r"(?:19|20)[0-9]{2}[-./][0-9]{1,2}[-./][0-9]{1,2}|[0-9]{1,2}[-./][0-9]{1,2}[-./](?:19|20)[0-9]{2}", text
    )
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2 and not ipv4(text) and not dated


def mrz(text: str) -> bool:
    """ICAO 9303: the check digits of the number, the birth date and the expiry date in a machine-readable zone."""
    lines = text.split()
    if len(lines) == 3:  # TD1
        parts = [(lines[0][5:14], lines[0][14]), (lines[1][:6], lines[1][6]), (lines[1][8:14], lines[1][14])]
    else:
        low = lines[-1]
        parts = [(low[:9], low[9]), (low[13:19], low[19]), (low[21:27], low[27])]
    return all(_mrz_digit(part) == check for part, check in parts)


def _mrz_digit(text: str) -> str:
    values = (0 if char == "<" else int(char, 36) for char in text)
    return str(sum(value * (7, 3, 1)[place % 3] for place, value in enumerate(values)) % 10)


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isdigit())
