"""Checks of the numbers of people and firms in Asia, Africa, the Americas and Oceania; Europe's are in checks_europe.py.

Each takes what a pattern found, with its separators, and says whether its check digit, or its date where it has none, is right.
"""

from __future__ import annotations

from itertools import cycle

from gateway_scrub.digits import (
    a_day,
    a_short_day,
    digits,
    letters_and_digits,
    luhn_36_holds,
    luhn_holds,
    several,
    verhoeff_holds,
    weighted,
)

__all__ = [
    "ar_cuit", "au_abn", "au_acn", "au_medicare", "au_tfn", "br_cnh", "br_cnpj", "br_cpf", "br_pis", "br_titulo",
    "ca_sin", "cl_rut", "co_nit", "eg_id", "id_nik", "il_id", "in_aadhaar", "in_gstin", "ir_id", "mx_curp", "mx_rfc",
    "my_nric", "nz_ird", "nz_nhi", "pk_cnic", "th_id", "tr_tckn", "vn_cccd", "za_id",
]  # fmt: skip

CURP = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
RFC = "0123456789ABCDEFGHIJKLMN&OPQRSTUVWXYZ Ñ"
NHI = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def in_aadhaar(text: str) -> bool:
    """UIDAI: twelve digits, the first no 0 or 1, the last by Verhoeff."""
    number = digits(text)
    return len(number) == 12 and number[0] > 1 and several(number) and verhoeff_holds(number)


def in_gstin(text: str) -> bool:
    """GST Network: a state, a PAN, and a check character by Luhn over base 36."""
    code = letters_and_digits(text)
    return (
        len(code) == 15
        and code[:2].isdigit()
        and (1 <= int(code[:2]) <= 38 or code[:2] in ("97", "99"))
        and luhn_36_holds(code)
    )


def br_cpf(text: str) -> bool:
    """Receita Federal, IN 1548/2015: two check digits mod 11."""
    number = digits(text)
    return len(number) == 11 and several(number) and all(
        weighted(number[:length], range(length + 1, 1, -1)) * 10 % 11 % 10 == number[length] for length in (9, 10)
    )  # fmt: skip


def br_cnpj(text: str) -> bool:
    """Receita Federal, IN 2229/2024: two check digits mod 11; since 2026 the first twelve may be letters (ASCII less 48)."""
    code = letters_and_digits(text)
    if len(code) != 14 or not code[12:].isdigit() or len(set(code)) < 2:
        return False
    values = [ord(char) - 48 for char in code]
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    return all(_eleven(weighted(values[:length], weights[13 - length :])) == values[length] for length in (12, 13))


def _eleven(total: int) -> int:
    """Eleven less the rest by eleven, and 0 for what is no digit."""
    return (11 - total % 11) % 11 % 10


def br_pis(text: str) -> bool:
    """PIS, PASEP, NIS, NIT (Caixa): weights 3 2 9 8 7 6 5 4 3 2, mod 11."""
    number = digits(text)
    return len(number) == 11 and several(number) and _eleven(weighted(number, (3, 2, 9, 8, 7, 6, 5, 4, 3, 2))) == number[10]


def br_cnh(text: str) -> bool:
    """Driving licence (Denatran): two check digits mod 11, the second less two where the first came out as ten."""
    number = digits(text)
    if len(number) != 11 or not several(number):
        return False
    first = weighted(number, range(9, 0, -1)) % 11
    second = weighted(number, range(1, 10)) % 11
    if first == 10:
        second -= 2
    return [first % 10 if first < 10 else 0, (second + 11) % 11 % 10 if second < 10 else 0] == number[9:]


def br_titulo(text: str) -> bool:
    """Voter's title (TSE, Res. 23659/2021): eight digits, a state from 01 to 28, two check digits mod 11."""
    number = digits(text)
    if len(number) != 12 or not 1 <= number[8] * 10 + number[9] <= 28:
        return False
    first = weighted(number, range(2, 10)) % 11 % 10
    return first == number[10] and weighted(number[8:], (7, 8, 9)) % 11 % 10 == number[11]


def mx_curp(text: str) -> bool:
    """RENAPO: a day, and a check digit mod 10 over the alphabet with Ñ, weights 18 to 2. A digit in the 17th place says that
    the century is the last one."""
    code = text.upper()
    if len(code) != 18 or not all(char in CURP for char in code):
        return False
    year = int(code[4:6]) + (1900 if code[16].isdigit() else 2000)
    total = weighted((CURP.index(char) for char in code), range(18, 1, -1))
    return a_day(year, int(code[6:8]), int(code[8:10])) and str(-total % 10) == code[17]


def mx_rfc(text: str) -> bool:
    """SAT: a day, and a check character mod 11 over an alphabet of 39; a firm's has a letter less."""
    code = "".join(char for char in text.upper() if char.isalnum() or char == "&")
    if len(code) not in (12, 13) or not all(char in RFC for char in code) or not code[-9:-3].isdigit():
        return False
    if not a_short_day(int(code[-9:-7]), int(code[-7:-5]), int(code[-5:-3])):
        return False
    rest = weighted((RFC.index(char) for char in code.rjust(13)), range(13, 1, -1)) % 11
    return code[-1] == {0: "0", 1: "A"}.get(rest, str(11 - rest))


def ar_cuit(text: str) -> bool:
    """AFIP: a kind of holder, then mod 11 with weights 5 4 3 2 7 6 5 4 3 2; ten is a 9."""
    number = digits(text)
    if len(number) != 11 or number[0] * 10 + number[1] not in (20, 23, 24, 25, 26, 27, 30, 33, 34, 50, 51, 55):
        return False
    return min(-weighted(number, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11, 9) == number[10]


def cl_rut(text: str) -> bool:
    """Registro Civil: mod 11 with weights 2 to 7 from the right; ten is a K."""
    code = letters_and_digits(text)
    if not 8 <= len(code) <= 9 or not code[:-1].isdigit():
        return False
    return "0123456789K"[-weighted(map(int, reversed(code[:-1])), cycle(range(2, 8))) % 11] == code[-1]


def co_nit(text: str) -> bool:
    """DIAN, Orden Administrativa 4 of 1989: mod 11 with weights 3 7 13 17 19 23 29 37 41 from the right."""
    number = digits(text)
    rest = weighted(number[-2::-1], (3, 7, 13, 17, 19, 23, 29, 37, 41, 43, 47, 53, 59, 67, 71)) % 11
    return 9 <= len(number) <= 11 and (rest if rest < 2 else 11 - rest) == number[-1]


def ca_sin(text: str) -> bool:
    """Social insurance number (Service Canada): Luhn; 8 is not given out, 0 is for the revenue agency."""
    number = digits(text)
    return len(number) == 9 and number[0] not in (0, 8) and several(number) and luhn_holds(number)


def au_tfn(text: str) -> bool:
    """Tax file number (ATO): weights 1 4 3 7 5 8 6 9 10, mod 11; of eight digits, 10 7 8 4 6 3 5 1."""
    number = digits(text)
    weights = {9: (1, 4, 3, 7, 5, 8, 6, 9, 10), 8: (10, 7, 8, 4, 6, 3, 5, 1)}.get(len(number))
    return weights is not None and several(number) and weighted(number, weights) % 11 == 0


def au_medicare(text: str) -> bool:
    """Medicare: begins with 2 to 6; weights 1 3 7 9 over eight digits give the ninth, then an issue number."""
    number = digits(text)
    if len(number) not in (10, 11) or not 2 <= number[0] <= 6:
        return False
    return weighted(number[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == number[8]


def au_abn(text: str) -> bool:
    """Business number (ABR): the first digit less one, weights 10 1 3 5 7 9 11 13 15 17 19, mod 89."""
    number = digits(text)
    if len(number) != 11 or number[0] == 0:
        return False
    return weighted([number[0] - 1, *number[1:]], (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) % 89 == 0


def au_acn(text: str) -> bool:
    """Company number (ASIC): weights 8 to 1, the rest to ten."""
    number = digits(text)
    return len(number) == 9 and several(number) and -weighted(number[:8], range(8, 0, -1)) % 10 == number[8]


def nz_ird(text: str) -> bool:
    """Inland Revenue (resident withholding tax specification): mod 11, and again with other weights where it gives ten."""
    number = digits(text)
    if len(number) not in (8, 9) or not 10_000_000 <= int("".join(map(str, number))) <= 150_000_000:
        return False
    number = [0] * (9 - len(number)) + number
    check = -weighted(number[:8], (3, 2, 7, 6, 5, 4, 3, 2)) % 11
    if check == 10:
        check = -weighted(number[:8], (7, 4, 3, 2, 5, 2, 7, 6)) % 11
    return check == number[8]


def nz_nhi(text: str) -> bool:
    """Health index (HISO 10046:2019): letters from 1 without I and O; mod 11 and a digit, or mod 23 and a letter."""
    code = text.upper()
    if len(code) != 7 or any(char not in NHI and not char.isdigit() for char in code):
        return False
    total = weighted((int(char) if char.isdigit() else NHI.index(char) + 1 for char in code[:6]), range(7, 1, -1))
    if code[6].isdigit():
        return total % 11 != 0 and (11 - total % 11) % 10 == int(code[6])
    return NHI[22 - total % 23] == code[6]


def za_id(text: str) -> bool:
    """South Africa (Home Affairs): a day of birth, a citizenship from 0 to 2, and Luhn."""
    number = digits(text)
    return len(number) == 13 and _born(number[:6]) and number[10] <= 2 and luhn_holds(number)


def _born(number: list[int]) -> bool:
    """Two digits each of a year, a month, a day."""
    return a_short_day(number[0] * 10 + number[1], number[2] * 10 + number[3], number[4] * 10 + number[5])


def id_nik(text: str) -> bool:
    """Indonesia (Dukcapil): a province, a day with 40 added for women, a month, a year, and a number that is not 0."""
    number = "".join(map(str, digits(text)))
    if len(number) != 16 or not 11 <= int(number[:2]) <= 97 or number[12:] == "0000":
        return False
    return a_short_day(int(number[10:12]), int(number[8:10]), (int(number[6:8]) - 1) % 40 + 1)


def my_nric(text: str) -> bool:
    """Malaysia (JPN): a day of birth and a place that is given out."""
    number = digits(text)
    return (
        len(number) == 12 and _born(number[:6]) and (number[6] * 10 + number[7]) not in (0, 17, 18, 19, 20, 69, 70, 73, 80, 81)
    )


def th_id(text: str) -> bool:
    """Thailand (DOPA): weights 13 to 2, mod 11."""
    number = digits(text)
    if len(number) != 13 or not 1 <= number[0] <= 8:
        return False
    return (11 - weighted(number[:12], range(13, 1, -1)) % 11) % 10 == number[12]


def vn_cccd(text: str) -> bool:
    """Vietnam (Decree 137/2015): a province from 001 to 096, then century and sex, here of the last and this one."""
    number = digits(text)
    return len(number) == 12 and number[0] == 0 and 1 <= number[1] * 10 + number[2] <= 96 and number[3] <= 3


def eg_id(text: str) -> bool:
    """Egypt: a century, a day of birth, a governorate. The check digit's rule is not published."""
    number = digits(text)
    if len(number) != 14 or number[0] not in (2, 3):
        return False
    year = 1700 + 100 * number[0] + number[1] * 10 + number[2]
    place = number[7] * 10 + number[8]
    return a_day(year, number[3] * 10 + number[4], number[5] * 10 + number[6]) and (1 <= place <= 35 or place == 88)


def ir_id(text: str) -> bool:
    """Iran: weights 10 to 2, mod 11; a rest below two is the check digit, otherwise what is left to eleven."""
    number = digits(text)
    rest = weighted(number[:9], range(10, 1, -1)) % 11
    return len(number) == 10 and several(number) and (rest if rest < 2 else 11 - rest) == number[9]


def il_id(text: str) -> bool:
    """Israel: Luhn over nine digits."""
    number = digits(text)
    return len(number) == 9 and several(number) and luhn_holds(number)


def pk_cnic(text: str) -> bool:
    """Pakistan (NADRA): a province from 1 to 7 and a division; it has no check digit."""
    number = digits(text)
    return len(number) == 13 and 1 <= number[0] <= 7 and several(number)


def tr_tckn(text: str) -> bool:
    """Turkey, T.C. kimlik no: two check digits mod 10."""
    number = digits(text)
    if len(number) != 11 or number[0] == 0:
        return False
    return (7 * sum(number[:9:2]) - sum(number[1:8:2])) % 10 == number[9] and sum(number[:10]) % 10 == number[10]
