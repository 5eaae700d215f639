"""Checks of VAT numbers of the European Union, the United Kingdom, Switzerland and Norway, by their prefix.

Sources: the national algorithms as the Commission's VIES describes them (its FAQ, question 11, gives the forms).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway_scrub.checks_europe import (
    bg_egn,
    cz_rc,
    es_cif,
    es_dni,
    es_nie,
    fr_siren,
    gr_afm,
    hr_oib,
    ie_pps,
    it_iva,
    nl_bsn,
    pl_nip,
    pt_nif,
)
from gateway_scrub.digits import digits, letters_and_digits, luhn_holds, mod_11_10_holds, weighted

__all__ = ["eu_vat"]


def eu_vat(text: str) -> bool:
    """Whether the number after a country's prefix has its form and its check digits."""
    code = letters_and_digits(text)
    known = FORMS.get(code[:3]) or FORMS.get(code[:2])
    if known is None:
        return False
    form, check = known
    match = re.fullmatch(form, code)
    return match is not None and check(match.group(1))


def _at(number: str) -> bool:
    odd = digits(number)
    total = sum(odd[0:7:2]) + sum(sum(divmod(2 * digit, 10)) for digit in odd[1:6:2])
    return (6 - total) % 10 == odd[7]


def _be(number: str) -> bool:
    return (int(number[:8]) + int(number[8:])) % 97 == 0


def _bg(number: str) -> bool:
    all_digits = digits(number)
    if len(number) == 9:
        rest = weighted(all_digits, range(1, 9)) % 11
        return (rest if rest < 10 else weighted(all_digits, range(3, 11)) % 11 % 10) == all_digits[8]
    foreign = weighted(all_digits, (21, 19, 17, 13, 11, 9, 7, 3, 1)) % 10
    other = -weighted(all_digits, (4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return bg_egn(number) or all_digits[9] in (foreign, other)


def _cy(number: str) -> bool:
    turned = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
    total = sum(turned[digit] for digit in digits(number[0:8:2])) + sum(digits(number[1:8:2]))
    return chr(65 + total % 26) == number[8]


def _cz(number: str) -> bool:
    if len(number) > 8:
        return cz_rc(number)
    return ((-weighted(digits(number), range(8, 1, -1)) % 11) or 1) % 10 == int(number[7])


def _dk(number: str) -> bool:
    return weighted(digits(number), (2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _ee(number: str) -> bool:
    return weighted(digits(number), (3, 7, 1, 3, 7, 1, 3, 7, 1)) % 10 == 0


def _es(number: str) -> bool:
    return es_dni(number) if number[0].isdigit() else es_nie(number) if number[0] in "XYZ" else es_cif(number)


def _fi(number: str) -> bool:
    return weighted(digits(number), (7, 9, 10, 5, 8, 4, 2, 1)) % 11 == 0


def _fr(number: str) -> bool:
    key, siren = number[:2], number[2:]
    return fr_siren(siren) and (not key.isdigit() or int(siren + "12") % 97 == int(key))


def _gb(number: str) -> bool:
    return weighted(digits(number), (8, 7, 6, 5, 4, 3, 2, 10, 1)) % 97 in (0, 42, 55)


def _hu(number: str) -> bool:
    return weighted(digits(number), (9, 7, 3, 1, 9, 7, 3, 1)) % 10 == 0


def _ie(number: str) -> bool:
    old = re.fullmatch(r"([0-9])[A-Z]([0-9]{5})([A-Z])", number)
    return ie_pps(f"0{old.group(2)}{old.group(1)}{old.group(3)}" if old else number)


def _lt(number: str) -> bool:
    all_digits = digits(number)
    body = all_digits[:-1]
    rest = sum((1 + place % 9) * digit for place, digit in enumerate(body)) % 11
    if rest == 10:
        rest = sum((1 + (place + 2) % 9) * digit for place, digit in enumerate(body)) % 11
    return rest % 10 == all_digits[-1]


def _lu(number: str) -> bool:
    return int(number[:6]) % 89 == int(number[6:])


def _lv(number: str) -> bool:
    if number[0] > "3":
        return weighted(digits(number), (9, 1, 4, 8, 3, 10, 2, 5, 7, 6, 1)) % 11 == 3
    return (1 + weighted(digits(number), (10, 5, 8, 4, 2, 1, 6, 3, 7, 9))) % 11 % 10 == int(number[10])


def _mt(number: str) -> bool:
    return weighted(digits(number), (3, 4, 6, 7, 8, 9, 10, 1)) % 37 == 0


def _nl(number: str) -> bool:
    as_numbers = "".join(str(int(char, 36)) for char in f"NL{number}")
    return nl_bsn(number[:9]) or int(as_numbers) % 97 == 1


def _no(number: str) -> bool:
    return weighted(digits(number), (3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _ch(number: str) -> bool:
    return -weighted(digits(number), (5, 4, 3, 2, 7, 6, 5, 4)) % 11 == int(number[8])


def _ro(number: str) -> bool:
    padded = digits(number.zfill(10))
    return 10 * weighted(padded, (7, 5, 3, 2, 1, 7, 5, 3, 2)) % 11 % 10 == padded[9]


def _si(number: str) -> bool:
    rest = 11 - weighted(digits(number), range(8, 1, -1)) % 11
    return rest < 11 and rest % 10 == int(number[7])


FORMS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "ATU": ("ATU([0-9]{8})", _at),
    "BE": ("BE(0?[0-9]{9}|1[0-9]{9})", lambda number: _be(number.zfill(10))),
    "BG": ("BG([0-9]{9,10})", _bg),
    "CHE": ("CHE([0-9]{9})(?:MWST|TVA|IVA)?", _ch),
    "CY": ("CY([0-9]{8}[A-Z])", _cy),
    "CZ": ("CZ([0-8][0-9]{7}|[0-9]{9,10})", _cz),
    "DE": ("DE([1-9][0-9]{8})", lambda number: mod_11_10_holds(digits(number))),
    "DK": ("DK([1-9][0-9]{7})", _dk),
    "EE": ("EE([0-9]{9})", _ee),
    "EL": ("EL([0-9]{9})", gr_afm),
    "ES": ("ES([A-Z0-9][0-9]{7}[A-Z0-9])", _es),
    "FI": ("FI([0-9]{8})", _fi),
    "FR": ("FR([0-9A-HJ-NP-Z]{2}[0-9]{9})", _fr),
    "GB": ("GB([0-9]{9})(?:[0-9]{3})?", _gb),
    "HR": ("HR([0-9]{11})", hr_oib),
    "HU": ("HU([0-9]{8})", _hu),
    "IE": ("IE([0-9]{7}[A-W][A-I]?|[0-9][A-Z][0-9]{5}[A-W])", _ie),
    "IT": ("IT([0-9]{11})", it_iva),
    "LT": ("LT([0-9]{9}|[0-9]{12})", _lt),
    "LU": ("LU([0-9]{8})", _lu),
    "LV": ("LV([0-9]{11})", _lv),
    "MT": ("MT([1-9][0-9]{7})", _mt),
    "NL": ("NL([0-9]{9}B[0-9]{2})", _nl),
    "NO": ("NO([89][0-9]{8})(?:MVA)?", _no),
    "PL": ("PL([0-9]{10})", pl_nip),
    "PT": ("PT([1-9][0-9]{8})", pt_nif),
    "RO": ("RO([1-9][0-9]{5,9})", _ro),
    "SE": ("SE([0-9]{10})01", lambda number: luhn_holds(digits(number))),
    "SI": ("SI([1-9][0-9]{7})", _si),
    "SK": ("SK([1-9][0-9][2-4789][0-9]{7})", lambda number: int(number) % 11 == 0),
    "XI": ("XI([0-9]{9})(?:[0-9]{3})?", _gb),
}
