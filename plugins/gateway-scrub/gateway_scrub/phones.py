"""Telephone numbers: what a country's numbers may be as long as (ITU-T E.164), and what else a row of digits may be.

The lengths of national numbers are those of the numbering plans as libphonenumber gives them for fixed and mobile lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["e164", "phone_context", "phone_trunk"]

LENGTHS = {
    (4, 7): "290 683 690",
    (5, 7): "247 500 682 676 677 678 688 298 299 672 681 687 597",
    (5, 10): "685 686",
    (6, 9): "252 376 508 27 358 359 421 40",
    (6, 12): "39 43 49 352 62 381",
    (7, 7): "238 239 246 248 269 291 297 501 592 673 674 679 680 691 692 960",
    (7, 8): "230 241 267 372 507 599 670 675 961 975",
    (7, 9): "46 48 220 231 254 265 354 423 595 967",
    (7, 11): "98 53 82 95 63 243 353 86",
    (8, 8): "45 65 216 222 223 226 227 228 232 235 236 253 257 266 268 350 356 357 370 371 373 374 382 386 389 "
    "502 503 504 505 506 509 591 598 689 852 853 965 968 973 974 993",
    (8, 9): "32 36 47 51 66 213 224 250 258 264 355 377 385 387 593 855 886 962 963 970 971",
    (8, 10): "20 57 60 64 378 850 856 964 976 977 880",
    (8, 12): "383 972",
    (9, 9): "33 34 56 61 93 94 211 212 218 221 233 237 240 242 244 245 249 251 255 256 260 261 262 263 "
    "351 375 380 420 590 594 596 966 992 994 995 996 998",
    (9, 10): "41 44 81 84 92 30 90",
    (9, 11): "31 54 55 52 58 225 229 234",
    (10, 10): "1 7 91",
}
COUNTRIES = {code: lengths for lengths, codes in LENGTHS.items() for code in codes.split()}
DIGIT = re.compile("[0-9]")
RUN_END = re.compile("[0-9](?![0-9])")
PLUS = re.compile(r"\+\(?[1-9][0-9]{0,3}\)?(?:[ .\-/]{0,2}\(?[0-9]{1,12}\)?){1,7}")
EXTENSION = re.compile(r" ?(?:x|ext\.? ?|доб\.? ?)[0-9]{1,5}(?![0-9A-Za-z])", re.IGNORECASE)
ISO_6709 = re.compile(r"\+(?:[0-9]{4}[-+][0-9]{5}|[0-9]{6}[-+][0-9]{7})(?![0-9])")
TRUNK = re.compile(r"\(0\)")
DAY = re.compile(r"(?:0?[1-9]|[12][0-9]|3[01])([-./ ])(?:0?[1-9]|[12][0-9]|3[01])\1(?:19|20)[0-9]{2}(?![0-9])")
DAY_FIRST_YEAR = re.compile(
    r"(?:19|20)[0-9]{2}[-./ ]?(?:0[1-9]|1[0-2])[-./ ]?(?:0[1-9]|[12][0-9]|3[01])(?:[0-9]{4}|[0-9]{6})?(?![0-9])"
)
DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z")
DECIMAL = re.compile(r"[0-9]+\.[0-9]+\Z")


def e164(text: str) -> bool:
    """Whether a number with its country's code, after a plus or two zeros, begins with one and is of a length given there."""
    number = "".join(DIGIT.findall(TRUNK.sub("", text)))
    if not text.lstrip("( ").startswith("+"):
        number = number.removeprefix("00")
    for length in (1, 2, 3):
        lengths = COUNTRIES.get(number[:length])
        if lengths is not None:
            least, most = lengths
            national = number[length:]
            return least <= len(national) - (national[:1] == "0" and len(national) > most) <= most and len(set(national)) > 1
    return False


def phone_trunk(text: str) -> bool:
    """Whether a number that begins with a 0, or whose area stands in brackets, is of a form that some country writes: not a
    day, an address, a decimal number, a United States ZIP+4 or social security number."""
    groups = re.findall("[0-9]+", text)
    sizes = [len(group) for group in groups]
    if not groups or ("(" not in text and sizes in ([3, 2, 4], [5, 4], [4, 4], [3, 3, 3, 3])):
        return False
    if sizes[0] == 3 and groups[0][0] != "0" and sum(sizes) < 10:
        return False
    if sizes[0] == 4 and groups[0][:2] in ("19", "20"):
        return False
    return sizes[-1] >= 2 and phone_context(text)


def phone_context(text: str) -> bool:
    """Whether digits that words around them call a telephone number can be one: 7 to 15, not all the same, and no date."""
    number = "".join(DIGIT.findall(text))
    if not 7 <= len(number) <= 15 or len(set(number)) < 3:
        return False
    return not any(form.match(text.strip("()")) for form in (DAY, DAY_FIRST_YEAR, DOTTED, DECIMAL))


def international(text: str, lower: str) -> Iterator[tuple[int, int]]:
    """Numbers with a plus and a country's code, however they are parted, and with what is dialled after them."""
    at = text.find("+")
    while at >= 0:
        match = PLUS.match(text, at)
        before = text[at - 1] if at else " "
        free = not (before.isascii() and (before.isalnum() or before in "_)]+.\"'*"))
        if match is not None and free and not ISO_6709.match(text, at):
            for end in reversed([run.end() for run in RUN_END.finditer(text, at, match.end())]):
                after = text[end : end + 1]
                longer = EXTENSION.match(text, end)
                glued = after.isascii() and (after.isalnum() or after in ("_", "*", "^", "%"))
                if (longer or not glued) and e164(text[at:end]):
                    opened = before == "(" and ")" in text[at:end] and "(" not in text[at : text.index(")", at)]
                    yield at - opened, longer.end() if longer else end
                    break
        at = text.find("+", at + 1)
