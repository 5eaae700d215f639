"""Checks of the numbers of people and firms in Europe; VAT numbers have checks_vat.py.

Each takes what a pattern found, with its separators, and says whether its check digit, or its date where it has none, is right.
"""

from __future__ import annotations

from gateway_scrub.digits import (
    a_day,
    a_short_day,
    digits,
    ean_holds,
    icao_holds,
    letters_and_digits,
    luhn_holds,
    mod_11_10_holds,
    several,
    weighted,
)

__all__ = [
    "at_svnr", "be_nn", "bg_egn", "ch_ahv", "cz_rc", "de_document", "de_steuer", "de_svnr", "dk_cpr", "ee_ik", "es_cif",
    "es_dni", "es_nie", "es_nss", "fi_hetu", "fr_nir", "fr_siren", "fr_siret", "gr_afm", "gr_amka", "hr_oib", "hu_id",
    "hu_taj", "hu_tax", "ie_pps", "it_cf", "it_iva", "nl_bsn", "no_fnr", "pl_id", "pl_nip", "pl_pesel", "pl_regon",
    "pt_cc", "pt_nif", "pt_niss", "ro_cnp", "ru_inn", "ru_snils", "se_org", "se_pnr", "ua_inn", "yu_jmbg",
]  # fmt: skip

DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"
ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10,
    22, 25, 24, 23,
), strict=True))  # fmt: skip
OMOCODE = str.maketrans("LMNPQRSTUV", "0123456789")


def es_dni(text: str) -> bool:
    """Spain, DNI (RD 1553/2005): the letter is the number mod 23."""
    code = letters_and_digits(text)
    return code[:-1].isdigit() and DNI[int(code[:-1]) % 23] == code[-1]


def es_nie(text: str) -> bool:
    """Spain, NIE: X, Y, Z count as 0, 1, 2 before the number."""
    code = letters_and_digits(text)
    return code[1:-1].isdigit() and code[0] in "XYZ" and es_dni(str("XYZ".index(code[0])) + code[1:])


def es_cif(text: str) -> bool:
    """Spain, CIF: Luhn's sum, as a digit or, for some kinds of body, as a letter."""
    code = letters_and_digits(text)
    if len(code) != 9 or not code[1:8].isdigit():
        return False
    check = next(digit for digit in range(10) if luhn_holds([*digits(code[1:8]), digit]))
    return code[8] in (str(check), "JABCDEFGHI"[check])


def es_nss(text: str) -> bool:
    """Spain, Seguridad Social: a province, a number, the rest by 97; a number below ten million loses its zeros."""
    number = "".join(map(str, digits(text)))
    if len(number) != 12 or not 1 <= int(number[:2]) <= 66:
        return False
    body = int(number[:2]) * 10_000_000 + int(number[2:10]) if int(number[2:10]) < 10_000_000 else int(number[:10])
    return body % 97 == int(number[10:])


def it_cf(text: str) -> bool:
    """Italy, codice fiscale (DM 23/12/1976): a day, 40 more for women, and a check letter; with the letters for digits that
    are given where two would be the same."""
    code = letters_and_digits(text)
    if len(code) != 16:
        return False
    numbers = (code[6:8] + code[9:11]).translate(OMOCODE)
    month = "ABCDEHLMPRST".find(code[8]) + 1
    if not numbers.isdigit() or not a_short_day(int(numbers[:2]), month, (int(numbers[2:]) - 1) % 40 + 1):
        return False
    even = sum(int(char) if char.isdigit() else ord(char) - 65 for char in code[1:15:2])
    return chr(65 + (even + sum(ODD[char] for char in code[:15:2])) % 26) == code[15]


def it_iva(text: str) -> bool:
    """Italy, partita IVA: an office from 001 to 121, or 888 or 999, and Luhn."""
    number = digits(text)
    if len(number) != 11 or not any(number[:7]):
        return False
    office = number[7] * 100 + number[8] * 10 + number[9]
    return (1 <= office <= 121 or office in (888, 999)) and luhn_holds(number)


def fr_nir(text: str) -> bool:
    """France, NIR (INSEE): 97 less the rest by 97; Corsica's 2A and 2B count as 19 and 18."""
    code = letters_and_digits(text)
    code = code.replace("2A", "19", 1) if "A" in code else code.replace("2B", "18", 1)
    return len(code) == 15 and code.isdigit() and 97 - int(code[:13]) % 97 == int(code[13:])


def fr_siren(text: str) -> bool:
    """France, SIREN: Luhn over nine digits."""
    number = digits(text)
    return len(number) == 9 and several(number) and luhn_holds(number)


def fr_siret(text: str) -> bool:
    """France, SIRET: Luhn over a SIREN and over all fourteen digits; of La Poste's, their sum divides by five."""
    number = digits(text)
    if len(number) != 14 or not luhn_holds(number[:9]) or not several(number):
        return False
    return luhn_holds(number) or (number[:9] == digits("356000000") and sum(number) % 5 == 0)


def de_steuer(text: str) -> bool:
    """Germany, Steuer-Identifikationsnummer (BZSt): one of ten digits comes two or three times; MOD 11,10."""
    number = digits(text)
    if len(number) != 11 or number[0] == 0:
        return False
    counts = sorted(number[:10].count(digit) for digit in set(number[:10]))
    return counts[-1] in (2, 3) and counts[-2] == 1 and mod_11_10_holds(number)


def de_document(text: str) -> bool:
    """Germany, identity card, passport, residence permit: nine characters and, if given, the check digit of ICAO 9303."""
    code = letters_and_digits(text)
    if len(code) == 9:
        return any(char.isdigit() for char in code)
    return len(code) >= 10 and code[9].isdigit() and icao_holds(code[:10])


def de_svnr(text: str) -> bool:
    """Germany, Versicherungsnummer (VKVV section 2): a day, 50 added to it where a second number was needed, a letter as two
    digits, and the sum of the products' digits mod 10."""
    code = letters_and_digits(text)
    if len(code) != 12 or not code[8].isalpha() or not (code[:8] + code[9:]).isdigit():
        return False
    expanded = digits(code[:8]) + digits(f"{ord(code[8]) - 64:02d}") + digits(code[9:])
    day = (int(code[2:4]) - 1) % 50 + 1
    total = sum(sum(divmod(a * b, 10)) for a, b in zip(expanded[:12], (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True))
    return 1 <= day <= 31 and int(code[4:6]) <= 12 and total % 10 == expanded[12]


def pl_pesel(text: str) -> bool:
    """Poland, PESEL: a day, its century in the month, weights 1 3 7 9, mod 10."""
    number = digits(text)
    if len(number) != 11:
        return False
    month = number[2] * 10 + number[3]
    year = {0: 1900, 1: 2000, 2: 2100, 3: 2200, 4: 1800}[month // 20] + number[0] * 10 + number[1]
    return a_day(year, month % 20, number[4] * 10 + number[5]) and weighted(number, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def pl_nip(text: str) -> bool:
    """Poland, NIP: weights 6 5 7 2 3 4 5 6 7, mod 11."""
    number = digits(text)
    return len(number) == 10 and several(number) and weighted(number, (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == number[9]


def pl_regon(text: str) -> bool:
    """Poland, REGON: weights 8 9 2 3 4 5 6 7, mod 11, ten is 0; of fourteen digits a second check as well."""
    number = digits(text)
    if len(number) not in (9, 14) or not several(number) or weighted(number, (8, 9, 2, 3, 4, 5, 6, 7)) % 11 % 10 != number[8]:
        return False
    return len(number) == 9 or weighted(number, (2, 4, 8, 5, 0, 9, 7, 3, 6, 1, 2, 4, 8)) % 11 % 10 == number[13]


def pl_id(text: str) -> bool:
    """Poland, identity card: three letters (from 10), a check digit, five digits; weights 7 3 1 9 7 3 1 7 3, mod 10."""
    code = letters_and_digits(text)
    return len(code) == 9 and weighted((int(char, 36) for char in code), (7, 3, 1, 9, 7, 3, 1, 7, 3)) % 10 == 0


def se_pnr(text: str) -> bool:
    """Sweden, personnummer, samordningsnummer (60 added to the day): a day and Luhn over the last ten digits."""
    number = digits(text)[-10:]
    if len(number) != 10:
        return False
    day = (number[4] * 10 + number[5] - 1) % 60 + 1
    return a_short_day(number[0] * 10 + number[1], number[2] * 10 + number[3], day) and luhn_holds(number)


def se_org(text: str) -> bool:
    """Sweden, organisationsnummer: the third digit at least 2; Luhn."""
    number = digits(text)
    return len(number) == 10 and number[2] >= 2 and luhn_holds(number)


def fi_hetu(text: str) -> bool:
    """Finland, henkilötunnus (DVV): a day, a sign of the century, a number, and the whole mod 31."""
    code = text.upper()
    number = code[:6] + code[7:10]
    if len(code) != 11 or not number.isdigit() or int(number[6:]) < 2:
        return False
    return a_short_day(int(code[4:6]), int(code[2:4]), int(code[:2])) and HETU[int(number) % 31] == code[10]


def no_fnr(text: str) -> bool:
    """Norway, fødselsnummer, D-nummer (40 added to the day): a day, two check digits mod 11."""
    number = digits(text)
    if len(number) != 11:
        return False
    day, month = (number[0] * 10 + number[1] - 1) % 40 + 1, number[2] * 10 + number[3]
    if not a_short_day(number[4] * 10 + number[5], (month - 1) % 40 + 1, day):
        return False
    return (
        weighted(number, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11 == 0
        and weighted(number, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def dk_cpr(text: str) -> bool:
    """Denmark, CPR: a day; numbers given since 2007 need not be right mod 11, so only that is asked."""
    number = digits(text)
    return len(number) == 10 and a_short_day(number[4] * 10 + number[5], number[2] * 10 + number[3], number[0] * 10 + number[1])


def nl_bsn(text: str) -> bool:
    """Netherlands, BSN: the eleven test, weights 9 to 2 and -1."""
    number = digits(text)
    number = [0] * (9 - len(number)) + number
    return len(number) == 9 and several(number) and weighted(number, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def be_nn(text: str) -> bool:
    """Belgium, national register: 97 less the rest by 97, with a 2 before it for who was born since 2000; months 20 or 40 more
    for foreigners, and 00 where the day is unknown."""
    number = "".join(map(str, digits(text)))
    if len(number) != 11 or int(number[2:4]) % 20 > 12 or int(number[4:6]) > 31:
        return False
    return any(97 - int(century + number[:9]) % 97 == int(number[9:]) for century in ("", "2"))


def pt_nif(text: str) -> bool:
    """Portugal, NIF: weights 9 to 2, mod 11."""
    number = digits(text)
    if len(number) != 9 or number[0] == 0 or not several(number):
        return False
    return (11 - weighted(number[:8], range(9, 1, -1)) % 11) % 11 % 10 == number[8]


def pt_cc(text: str) -> bool:
    """Portugal, cartão de cidadão: Luhn over twelve characters, letters from 10."""
    code = letters_and_digits(text)
    if len(code) != 12:
        return False
    values = [int(char, 36) for char in code]
    doubled = [2 * value - 9 * (2 * value > 9) for value in values[-2::-2]]
    return (sum(values[-1::-2]) + sum(doubled)) % 10 == 0


def pt_niss(text: str) -> bool:
    """Portugal, NISS: begins with 1 or 2; weights the primes from 29 down."""
    number = digits(text)
    return (
        len(number) == 11
        and number[0] in (1, 2)
        and 9 - weighted(number, (29, 23, 19, 17, 13, 11, 7, 5, 3, 2)) % 10 == number[10]
    )


def at_svnr(text: str) -> bool:
    """Austria, Sozialversicherungsnummer: weights 3 7 9 5 8 4 2 1 6 about the fourth digit, and a day (months up to 15)."""
    number = digits(text)
    if len(number) != 10 or number[0] == 0:
        return False
    total = weighted([*number[:3], *number[4:]], (3, 7, 9, 5, 8, 4, 2, 1, 6))
    return total % 11 == number[3] and 1 <= number[4] * 10 + number[5] <= 31 and 1 <= number[6] * 10 + number[7] <= 15


def ch_ahv(text: str) -> bool:
    """Switzerland, AHV-Nr.: 756 and EAN-13."""
    number = digits(text)
    return len(number) == 13 and number[:3] == [7, 5, 6] and ean_holds(number)


def ie_pps(text: str) -> bool:
    """Ireland, PPS (since 2013 with a second letter): weights 8 to 2, and 9 for that letter, mod 23."""
    code = letters_and_digits(text)
    if not 8 <= len(code) <= 9 or not code[:7].isdigit():
        return False
    extra = ord(code[8]) - 64 if len(code) == 9 and code[8] in "ABCDEFGHI" else 0
    return "WABCDEFGHIJKLMNOPQRSTUV"[(weighted(digits(code[:7]), range(8, 1, -1)) + 9 * extra) % 23] == code[7]


def gr_afm(text: str) -> bool:
    """Greece, AFM: powers of two, mod 11."""
    number = digits(text)
    return len(number) == 9 and several(number) and weighted(number, (256, 128, 64, 32, 16, 8, 4, 2)) % 11 % 10 == number[8]


def gr_amka(text: str) -> bool:
    """Greece, AMKA: a day and Luhn."""
    number = digits(text)
    if len(number) != 11 or not luhn_holds(number):
        return False
    return a_short_day(number[4] * 10 + number[5], number[2] * 10 + number[3], number[0] * 10 + number[1])


def ro_cnp(text: str) -> bool:
    """Romania, CNP: a sex and century, a day, a county, and 279146358279, mod 11; ten is 1."""
    number = digits(text)
    if len(number) != 13 or number[0] == 0 or not a_short_day(*(number[at] * 10 + number[at + 1] for at in (1, 3, 5))):
        return False
    rest = weighted(number, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return (1 if rest == 10 else rest) == number[12]


def cz_rc(text: str) -> bool:
    """Czech Republic and Slovakia, rodné číslo: a day, 50 or 20 added to the month; divides by 11, ten digits since 1954."""
    number = digits(text)
    if len(number) not in (9, 10):
        return False
    month = (number[2] * 10 + number[3]) % 50
    if not a_short_day(number[0] * 10 + number[1], month - 20 * (month > 20), number[4] * 10 + number[5]):
        return False
    value = int("".join(map(str, number)))
    return len(number) == 9 or value % 11 == 0 or (value // 10 % 11 == 10 and number[9] == 0)


def hu_taj(text: str) -> bool:
    """Hungary, TAJ: weights 3 and 7, mod 10."""
    number = digits(text)
    return len(number) == 9 and several(number) and weighted(number, (3, 7, 3, 7, 3, 7, 3, 7)) % 10 == number[8]


def hu_tax(text: str) -> bool:
    """Hungary, adóazonosító jel: begins with 8; weights 1 to 9, mod 11."""
    number = digits(text)
    return len(number) == 10 and number[0] == 8 and weighted(number, range(1, 10)) % 11 == number[9]


def hu_id(text: str) -> bool:
    """Hungary, személyi szám: a sex and century, a day, weights 1 to 10 or, since 1997, 10 to 1, mod 11."""
    number = digits(text)
    if len(number) != 11 or not a_short_day(*(number[at] * 10 + number[at + 1] for at in (1, 3, 5))):
        return False
    return number[10] in (weighted(number[:10], range(1, 11)) % 11, weighted(number[:10], range(10, 0, -1)) % 11)


def bg_egn(text: str) -> bool:
    """Bulgaria, EGN: a day, its century in the month; weights 2 4 8 5 10 9 7 3 6, mod 11."""
    number = digits(text)
    if len(number) != 10:
        return False
    month = number[2] * 10 + number[3]
    if not a_short_day(number[0] * 10 + number[1], month % 20, number[4] * 10 + number[5]):
        return False
    return weighted(number, (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == number[9]


def ru_snils(text: str) -> bool:
    """Russia, SNILS: weights 9 to 1, mod 101."""
    number = digits(text)
    return (
        len(number) == 11 and several(number) and weighted(number, range(9, 0, -1)) % 101 % 100 == number[9] * 10 + number[10]
    )


def ru_inn(text: str) -> bool:
    """Russia, INN: ten digits of a firm, twelve of a person, mod 11."""
    number, weights = digits(text), (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
    if len(number) not in (10, 12) or not several(number):
        return False
    places = (9,) if len(number) == 10 else (10, 11)
    return all(weighted(number, weights[11 - place :]) % 11 % 10 == number[place] for place in places)


def ua_inn(text: str) -> bool:
    """Ukraine, RNOKPP: weights -1 5 7 9 4 6 10 5 7, mod 11."""
    number = digits(text)
    return len(number) == 10 and several(number) and weighted(number, (-1, 5, 7, 9, 4, 6, 10, 5, 7)) % 11 % 10 == number[9]


def hr_oib(text: str) -> bool:
    """Croatia, OIB: ISO/IEC 7064 MOD 11,10."""
    number = digits(text)
    return len(number) == 11 and several(number) and mod_11_10_holds(number)


def yu_jmbg(text: str) -> bool:
    """Serbia, Bosnia, North Macedonia, Montenegro, and Slovenia's EMŠO: a day, weights 7 to 2 twice, mod 11."""
    number = digits(text)
    if len(number) != 13:
        return False
    year = number[4] * 100 + number[5] * 10 + number[6]
    if not a_day(year + (2000 if year < 800 else 1000), number[2] * 10 + number[3], number[0] * 10 + number[1]):
        return False
    return -weighted(number, (7, 6, 5, 4, 3, 2) * 2) % 11 % 10 == number[12]


def ee_ik(text: str) -> bool:
    """Estonia and Lithuania: a sex and century, a day, weights 1 to 9 and 1, then 3 to 9 and 1 to 3 where the rest is ten."""
    number = digits(text)
    if len(number) != 11 or not 1 <= number[0] <= 8 or not a_short_day(*(number[at] * 10 + number[at + 1] for at in (1, 3, 5))):
        return False
    rest = weighted(number, (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    return (rest if rest < 10 else weighted(number, (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10) == number[10]
