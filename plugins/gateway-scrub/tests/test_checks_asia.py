"""Check digits of East Asia: published examples pass; a changed digit fails where the algorithm promises that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from gateway_scrub import checks_asia as checks
from gateway_scrub.scan import Scanner

Check = Callable[[str], bool]

PUBLISHED: list[tuple[Check, str]] = [
    (checks.cn_id18, "11010519491231002X"),  # GB 11643-1999, its example
    (checks.cn_id15, "110105491231002"),
    (checks.cn_uscc, "91350100M000100Y43"),  # GB 32100-2015, its example
    (checks.cn_org_code, "D2143569-X"),  # GB 11714-1997, its example
    (checks.cn_tax15, "110105D2143569X"),
    (checks.cn_tax15, "91350100M000100Y43"),
    (checks.cn_mobile, "+86 138 1234 5678"),
    (checks.cn_bank_card, "6222 0212 3456 7890 128"),
    (checks.vin_gb16735, "1M8GDM9AXKP042788"),  # 49 CFR 565.15's method, its usual example
    (checks.hkid, "A123456(3)"),
    (checks.hkid, "AB987654(3)"),
    (checks.tw_id, "A123456789"),
    (checks.tw_id, "A800000014"),
    (checks.tw_id, "AC01234567"),
    (checks.tw_ubn, "04595257"),
    (checks.jp_my_number, "1234 5678 9018"),
    (checks.kr_rrn, "900307-1234561"),
    (checks.kr_brn, "220-81-62517"),
    (checks.sg_nric, "S1234567D"),
    (checks.sg_nric, "T1234567J"),
    (checks.sg_nric, "F1234567N"),
    (checks.sg_nric, "G1234567X"),
    (checks.sg_nric, "M1234567K"),
    (checks.sg_uen, "00192200M"),
    (checks.sg_uen, "197401143C"),
    (checks.sg_uen, "T01FC6132D"),
]
PROMISED: list[tuple[Check, str]] = [
    (checks.cn_id18, "11010519491231002X"),
    (checks.cn_uscc, "91350100M000100Y43"),
    (checks.cn_org_code, "D2143569-X"),
    (checks.cn_bank_card, "6222021234567890128"),
    (checks.hkid, "A123456(3)"),
    (checks.sg_nric, "S1234567D"),
]


@pytest.mark.parametrize(("check", "text"), PUBLISHED, ids=lambda value: getattr(value, "__name__", value))
def test_published_examples_pass(check: Check, text: str) -> None:
    assert check(text)
    assert check(text.lower())
    assert not check(text + "1") or check is checks.cn_mobile
    assert not check("")


@pytest.mark.parametrize(("check", "text"), PROMISED, ids=lambda value: getattr(value, "__name__", value))
def test_one_changed_digit_fails(check: Check, text: str) -> None:
    for place, char in enumerate(text):
        if char.isdigit():
            for other in set("0123456789") - {char}:
                assert not check(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(("check", "text"), PROMISED[:2] + PROMISED[4:], ids=lambda value: getattr(value, "__name__", value))
def test_two_digits_that_changed_places_fail(check: Check, text: str) -> None:
    for place in range(len(text) - 1):
        first, second = text[place : place + 2]
        if first.isdigit() and second.isdigit() and first != second:
            assert not check(text[:place] + second + first + text[place + 2 :])


def test_a_check_digit_is_found_for_every_body() -> None:
    chance = random.Random(7)
    for _ in range(300):
        day = f"19{chance.randint(50, 99)}0{chance.randint(1, 9)}{chance.randint(10, 28)}"
        body = f"3101{chance.randint(10, 99)}{day}{chance.randint(0, 999):03d}"
        assert sum(checks.cn_id18(body + char) for char in "0123456789X") == 1
        serial = "".join(chance.choices("0123456789", k=7))
        assert sum(checks.sg_nric("T" + serial + char) for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 1
        assert sum(checks.kr_brn(serial + "12" + char) for char in "0123456789") == 1
        assert sum(checks.jp_my_number(serial + "1234" + char) for char in "0123456789") == 1


def test_days_that_never_were_fail() -> None:
    assert not checks.cn_id18("110105194902300028")
    assert not checks.kr_rrn("900230-1234567")


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "1号", "一号", "京A1", "地址：北京市", "路1号", "東京都渋谷区", "010-", "微信号a", "(+86)", "1234 "]
)
def test_no_repeated_text_takes_long(unit: str) -> None:
    spans = Scanner().find(unit * (10_000 // len(unit)))
    assert all(0 <= span.start < span.end <= 10_000 for span in spans)
