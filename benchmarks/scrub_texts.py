"""The texts of scrub.py: those of the data folder, read, and values that Faker makes, planted into sentences of them.

What is planted, where, and in which form is drawn from a seed. A sentence also gets numbers that are nobody's: amounts, dates,
orders, versions. Nothing here knows how anything is found.
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

PIECE_CHARS = 8000
"""Long texts are cut, at ends of lines, into pieces of about this much: some peers take the square of a text's length."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What lies in a text from `start` to `end`. `kind` tells it closer than its type. Where it is not `asked` for, finding it
    counts neither way."""

    start: int
    end: int
    type: str
    kind: str = ""
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """A text and what is known to be in it."""

    text: str
    marks: tuple[Mark, ...]


def pieces(text: str, chars: int = PIECE_CHARS) -> list[str]:
    """The text in pieces of whole lines."""
    out: list[str] = []
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line)
        if length >= chars:
            out.append("".join(lines))
            lines, length = [], 0
    return [*out, "".join(lines)] if lines else out


# What is on the disk.


def synth(data: Path, types: Callable[[str], tuple[str, bool]]) -> list[Sample]:
    """presidio-research's made texts; `types` gives ours for a type of its, and whether it is asked for."""
    out = []
    for row in json.loads((data / "pii/synth_dataset_v2.json").read_text()):
        marks = []
        for span in row["spans"]:
            type, asked = types(span["entity_type"])
            marks.append(Mark(span["start_position"], span["end_position"], type, span["entity_type"], asked))
        out.append(Sample(row["full_text"], tuple(marks)))
    return out


def cases(data: Path) -> list[dict[str, Any]]:
    """The court's cases."""
    return [json.loads(line) for line in (data / "pii/tab_train.jsonl").read_text().splitlines()]


def messages(data: Path) -> list[Sample]:
    """The messages of Weibo, with their names, places and organisations as marks that are not asked for."""
    out = []
    for block in (data / "pii/weibo_ner_train.conll").read_text().split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if "\t" in line]
        marks: list[Mark] = []
        for at, (_, tag) in enumerate(rows):
            begins, _, name = tag.partition("-")
            type = {"PER": "PERSON", "ORG": "ORGANIZATION"}.get(name.partition(".")[0], "ADDRESS")
            if begins == "B":
                marks.append(Mark(at, at + 1, type, name, asked=False))
            elif begins == "I" and marks:
                marks[-1] = replace(marks[-1], end=at + 1)
        # a character stands with the number of its place in a word: two marks of it
        out.append(Sample("".join(cell[:1] for cell, _ in rows), tuple(marks)))
    return [sample for sample in out if sample.text]


def logs(data: Path) -> list[str]:
    """The logs, in pieces."""
    return [part for file in sorted((data / "pii/logs").glob("*.log")) for part in pieces(file.read_text(errors="replace"))]


def library(random: Random, size: float) -> list[str]:
    """About so many bytes of this Python's standard library, tests too: whole files, drawn, in pieces."""
    files = [file for file in Path(sysconfig.get_path("stdlib")).rglob("*.py") if "site-packages" not in file.parts]
    files.sort()
    random.shuffle(files)
    out: list[str] = []
    for file in files:
        if size <= 0:
            break
        size -= file.stat().st_size
        out += pieces(file.read_text(errors="replace"))
    return out


# What is planted.


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how it is made, and the words that may lead to it. With `groups`, it is digits that people also write in
    groups of these sizes, or in full width."""

    type: str
    name: str
    made: Callable[[Random], str]
    leads: tuple[str, ...]
    groups: tuple[int, ...] = ()


WIDE = str.maketrans("0123456789X", "０１２３４５６７８９Ｘ")


def grouped(text: str, sizes: Sequence[int], between: str) -> str:
    """The text in groups of these sizes; the last size goes on."""
    out: list[str] = []
    sizes = list(sizes)
    while text:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out.append(text[:size])
        text = text[size:]
    return between.join(out)


def valued(kind: Kind, random: Random, chinese: bool) -> tuple[str, str]:
    """A value of a kind, and the kind's name with the form that it has."""
    value = kind.made(random)
    form = random.random()
    if kind.groups and form < 0.4:
        if form < 0.2 and chinese:
            return value.translate(WIDE), f"{kind.name}, full-width"
        return grouped(value, kind.groups, random.choice(" -") if chinese else " "), f"{kind.name}, spaced"
    return value, kind.name


def resident_check(digits: str) -> str:
    """The last character of a Chinese resident ID of 17 digits (GB 11643)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11]


def luhn_check(digits: str) -> str:
    """The last digit of a card's number."""
    total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(reversed(digits)))
    return str(-total % 10)


def credit_code(random: Random) -> str:
    """A 统一社会信用代码 (GB 32100): 17 characters and their check."""
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    text = random.choice(("91", "92", "52", "12", "11")) + f"{random.choice((11, 31, 33, 44, 51))}{random.randrange(10000):04}"
    text += "".join(random.choices(letters, k=9))
    total = sum(letters.index(letter) * pow(3, at, 31) for at, letter in enumerate(text))
    return text + letters[-total % 31]


def digits(random: Random, count: int) -> str:
    """So many digits, the first not a zero."""
    return str(random.randrange(1, 10)) + "".join(random.choices("0123456789", k=count - 1))


def chinese_kinds(fake: Any) -> list[Kind]:
    """What is planted into Chinese text."""
    fields = ("010", "021", "020", "028", "0571", "0755", "0431", "0898")

    def resident(random: Random) -> str:
        return str(fake.ssn())

    def mistyped(random: Random) -> str:
        found = str(fake.ssn())
        return found[:17] + random.choice([last for last in "0123456789X" if last != found[17]])

    def bank(random: Random) -> str:
        start = f"62{digits(random, random.choice((14, 16, 17, 17)) - 1)}"
        return start + luhn_check(start)

    return [
        Kind("CN_ID", "resident ID", resident, ("身份证号", "身份证：", "证件号码为"), (6, 8, 4)),
        Kind("CN_ID", "resident ID, mistyped", mistyped, ("身份证号", "身份证：", "证件号码为"), (6, 8, 4)),
        Kind("PHONE", "mobile", lambda random: str(fake.phone_number()), ("电话", "手机号：", "联系我"), (3, 4)),
        Kind("PHONE", "landline", lambda random: f"{random.choice(fields)}-{digits(random, 8)}", ("电话：", "座机", "打")),
        Kind("CARD", "bank card", bank, ("卡号", "银行卡：", "打到"), (4,)),
        Kind("CARD", "credit card", lambda random: str(fake.credit_card_number()), ("信用卡", "卡号："), (4,)),
        Kind("EMAIL", "e-mail", lambda random: str(fake.email()), ("邮箱", "邮件发到", "email：")),
        Kind("PERSON", "name", lambda random: str(fake.name()), ("联系人", "姓名：", "我叫")),
        Kind("ADDRESS", "address", lambda random: str(fake.address()).rpartition(" ")[0], ("地址", "住在", "收货地址：")),
        Kind("CN_PLATE", "plate", lambda random: plate(random), ("车牌", "车牌号：")),
        Kind("CN_PASSPORT", "passport", lambda random: f"{random.choice('EEEG')}{digits(random, 8)}", ("护照", "护照号：")),
        Kind("CN_USCC", "credit code", credit_code, ("统一社会信用代码", "税号：")),
    ]


def plate(random: Random) -> str:
    """A car's plate, of petrol or, one longer, of electricity."""
    start = random.choice("京津冀晋辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼渝川贵云陕甘青宁新") + random.choice("ABCDEFGH")
    rest = "".join(random.choices("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ", k=4)) + random.choice("0123456789")
    return start + random.choice(("", "·")) + random.choice((rest, rest, f"{random.choice('DF')}{digits(random, 5)}"))


def chinese_noise(random: Random) -> str:
    """A number that is nobody's."""
    some = random.randrange
    return random.choice(
        (
            f"{some(1, 99999)}.{some(10, 99)}元", f"20{some(10, 26)}年{some(1, 13)}月{some(1, 29)}日", f"{some(1, 10**9)}人",
            f"20{some(10, 26)}-{some(1, 13):02}-{some(1, 29):02}", f"{some(24):02}:{some(60):02}", f"{some(1, 100)}%",
            f"订单号{digits(random, random.choice((20, 22, 24)))}", f"第{some(1, 9999)}期", f"v{some(9)}.{some(20)}.{some(9)}",
            f"{some(100, 9999)}×{some(100, 9999)}", f"{some(1, 9999)}万", f"SN{digits(random, 10)}K{digits(random, 4)}",
        )
    )  # fmt: skip


LOCALES = {
    "en_US": ("US_SSN", "ssn", "SSN"), "en_GB": ("NATIONAL", "ssn", "National Insurance number"),
    "en_CA": ("NATIONAL", "ssn", "SIN"), "en_AU": None, "en_IN": ("NATIONAL", "aadhaar_id", "Aadhaar"),
    "de_DE": ("NATIONAL", "rvnr", "Rentenversicherungsnummer"), "fr_FR": ("NATIONAL", "ssn", "numéro de sécurité sociale"),
    "es_ES": ("NATIONAL", "nif", "NIF"), "it_IT": ("NATIONAL", "ssn", "codice fiscale"), "pt_BR": ("NATIONAL", "cpf", "CPF"),
    "nl_NL": None, "pl_PL": ("NATIONAL", "ssn", "PESEL"), "sv_SE": ("NATIONAL", "ssn", "personnummer"),
    "fi_FI": ("NATIONAL", "ssn", "henkilötunnus"), "da_DK": None, "no_NO": None, "cs_CZ": None, "ro_RO": None, "tr_TR": None,
    "ko_KR": ("NATIONAL", "ssn", "주민등록번호"),
}  # fmt: skip
"""Whose phones are planted and, where ours knows it, whose national number: its type, Faker's name of it, its own."""


def european_kinds(fakes: dict[str, Any]) -> list[list[Kind]]:
    """What is planted into English text: groups that are drawn from alike, then a kind of the group."""

    def maker(locale: str, name: str) -> Callable[[Random], str]:
        make = getattr(fakes[locale], name)
        return lambda random: str(make())

    def anywhere(name: str) -> Callable[[Random], str]:
        return lambda random: str(getattr(fakes[random.choice(list(fakes))], name)())

    calls = ("phone ", "Tel.: ", "mobile ", "call ")
    national = [
        Kind(row[0], f"national {at}", maker(at, row[1]), (f"{row[2]} ", "ID number: "))
        for at, row in LOCALES.items()
        if row is not None and row[0] == "NATIONAL"
    ]
    return [
        [Kind("PHONE", f"phone {locale}", maker(locale, "phone_number"), calls) for locale in LOCALES],
        national,
        [Kind("US_SSN", "SSN", maker("en_US", "ssn"), ("SSN ", "social security number "))],
        [Kind("IBAN", "IBAN", anywhere("iban"), ("IBAN ", "account "), (4,))],
        [Kind("CARD", "card", anywhere("credit_card_number"), ("card ", "Visa or the like: "), (4,))],
        [Kind("EMAIL", "e-mail", anywhere("email"), ("e-mail: ", "write to "))],
        [Kind("IP", "IPv4", anywhere("ipv4"), ("host ", "from ")), Kind("IP", "IPv6", anywhere("ipv6"), ("host ", "from "))],
    ]


def european_noise(random: Random) -> str:
    """A number that is nobody's."""
    some = random.randrange
    return random.choice(
        (
            f"{some(1, 29)}.{some(1, 13)}.20{some(10, 26)}", f"EUR {some(1, 99)},{some(1000):03}.{some(100):02}",
            f"no. {some(1000, 99999)}/{some(10, 99)}", f"§ {some(1, 99)}({some(1, 9)})", f"v{some(9)}.{some(20)}.{some(99)}",
            f"20{some(10, 26)}-{some(1, 13):02}-{some(1, 29):02}T{some(24):02}:{some(60):02}:{some(60):02}Z",
            f"pp. {some(1, 500)}-{some(500, 999)}", f"{some(90)}.{digits(random, 4)}, -{some(90)}.{digits(random, 4)}",
            f"order {digits(random, random.choice((20, 22, 24)))}", f"ISBN 978-3-16-{digits(random, 6)}-{some(10)}",
            f"{some(1, 10**7):,}", f"item {digits(random, 5)}", f"ref. AB{digits(random, 6)}/{some(10, 99)}",
        )
    )  # fmt: skip


# How it is planted.


def plant(sentence: Sample, places: Sequence[int], values: Sequence[tuple[str, str, Mark | None]]) -> Sample:
    """The sentence with values at places: what goes before each, the value, and its mark, its ends not known yet."""
    text, marks, last = "", [], 0
    shifts: list[tuple[int, int]] = []
    for place, (before, value, mark) in zip(places, values, strict=True):
        text += sentence.text[last:place] + before
        if mark is not None:
            marks.append(replace(mark, start=len(text), end=len(text) + len(value.rstrip(" ,"))))
        text += value
        shifts.append((place, len(before) + len(value)))
        last = place
    for own in sentence.marks:
        move = sum(length for place, length in shifts if place <= own.start)
        marks.append(replace(own, start=own.start + move, end=own.end + move))
    return Sample(text + sentence.text[last:], tuple(sorted(marks, key=lambda mark: mark.start)))


def own(sentence: Sample, place: int) -> bool:
    """Whether a place is inside of a mark of the sentence."""
    return any(mark.start < place < mark.end for mark in sentence.marks)


def chinese(data: Path, random: Random, count: int) -> list[Sample]:
    """So many messages of Weibo with one to three values or numbers in each, with no space around."""
    from faker import Faker

    fake = Faker("zh_CN")
    fake.seed_instance(random.randrange(1 << 30))
    kinds = chinese_kinds(fake)
    out: list[Sample] = []
    fit = [message for message in messages(data) if not re.search(r"\d{6}|[\w.]@\w+\.|://", message.text)]
    while len(out) < count:
        sentence = random.choice(fit)
        bare = f" {sentence.text} "
        free = [at for at in range(len(bare) - 1) if all(chinese_letter(side) for side in bare[at : at + 2])]
        free = [at for at in free if not own(sentence, at)]
        wanted = random.randrange(1, 4)
        if len(free) < wanted:
            continue
        values: list[tuple[str, str, Mark | None]] = []
        for _ in range(wanted):
            if random.random() < 0.25:
                values.append(("", chinese_noise(random), None))
                continue
            kind = random.choice(kinds)
            value, name = valued(kind, random, chinese=True)
            lead = random.choice(kind.leads) if random.random() < 0.5 else ""
            values.append((lead, value, Mark(0, 0, kind.type, name)))
        out.append(plant(sentence, sorted(random.sample(free, wanted)), values))
    return out


def chinese_letter(letter: str) -> bool:
    """Whether a value may stand beside it: the end of a text, a Chinese character or mark, but no digit or Latin letter."""
    return letter == " " or (letter >= "\u3000" and not "\uff10" <= letter <= "\uff5a")


def sentences(data: Path) -> Iterator[Sample]:
    """Sentences of the court's cases, with their names, places and organisations as marks that are not asked for."""
    types = {"PERSON": "PERSON", "LOC": "ADDRESS", "ORG": "ORGANIZATION"}
    for case in cases(data):
        named = [row for row in case["entities"] if row["entity_type"] in types]
        for match in re.finditer(r"[A-Z][^.\n]{60,300}\.(?=\s)", case["text"]):
            start, end = match.span()
            marks = {
                Mark(row["start_offset"] - start, row["end_offset"] - start, types[row["entity_type"]], asked=False)
                for row in named
                if start <= row["start_offset"] and row["end_offset"] <= end
            }
            yield Sample(match.group(), tuple(marks))


def european(data: Path, random: Random, count: int) -> list[Sample]:
    """So many sentences of the court's cases with one to three values or numbers in each, between words."""
    from faker import Faker

    fakes = {locale: Faker(locale) for locale in LOCALES}
    for fake in fakes.values():
        fake.seed_instance(random.randrange(1 << 30))
    groups = european_kinds(fakes)
    out: list[Sample] = []
    fit = list(sentences(data))
    while len(out) < count:
        sentence = random.choice(fit)
        free = [match.end() for match in re.finditer(r"[a-z,;] (?=[a-z(])", sentence.text)]
        free = [at for at in free if not own(sentence, at)]
        wanted = random.randrange(1, 4)
        if len(free) < wanted:
            continue
        values: list[tuple[str, str, Mark | None]] = []
        for _ in range(wanted):
            if random.random() < 0.25:
                values.append(("", european_noise(random) + " ", None))
                continue
            kind = random.choice(random.choices(groups, (6, 3, 1, 1, 1, 1, 1))[0])
            value, name = valued(kind, random, chinese=False)
            lead = random.choice(kind.leads) if random.random() < 0.5 else ""
            values.append((lead, value + random.choice((" ", " ", ", ")), Mark(0, 0, kind.type, name)))
        out.append(plant(sentence, sorted(random.sample(free, wanted)), values))
    return out
