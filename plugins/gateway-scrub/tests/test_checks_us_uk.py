"""The checks of global, US and UK numbers and of secrets: published or computed examples, and errors that they must notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gateway_scrub import checks_coins, validators
from gateway_scrub.fold import Folded
from gateway_scrub.rules import Rule
from gateway_scrub.scan import Scanner
from hypothesis import given
from hypothesis import strategies as st

VALID = {
    "luhn": ["4111111111111111", "378282246310005", "79927398713"],
    "card": [
        "4111 1111 1111 1111",
        "5555-5555-5555-4444",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
    ],
    "iban": [
        "GB82 WEST 1234 5698 7654 32",
        "DE89370400440532013000",
        "NO9386011117947",
        "mt84 malt 0110 0001 2345 mtlc ast0 01s",
    ],
    "us_ssn": ["536-22-1234", "001010001", "899 99 9999"],
    "us_itin": ["912-70-1234", "999881234", "900 50 0000"],
    "us_routing": ["021000021", "011401533", "091000019", "800000006"],
    "us_npi": ["1234567893", "1245319599"],
    "us_dea": ["AB1234563", "FS8524616"],
    "nanp": ["(212) 555-0123", "+1 800 356 9377", "212.555.0123 x45"],
    "uk_nhs": ["943 476 5919", "4010232137"],
    "uk_nino": ["AB123456C", "jg 10 37 59 a"],
    "uk_postcode": ["SW1A 1AA", "m1 1ae", "GIR 0AA"],
    "uk_utr": ["8058817110", "1123456789"],
    "uk_licence": ["MORGA657054SM9IJ"],
    "uk_phone": ["020 7946 0958", "0044 20 7946 0958", "07700900123"],
    "mrz": [
        "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10",
        "I<UTOD231458907<<<<<<<<<<<<<<<\n7408122F1204159UTO<<<<<<<<<<<6\nERIKSSON<<ANNA<MARIA<<<<<<<<<<",
    ],
    "base58check": [
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
        "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh",
    ],
    "bech32": ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"],
    "eip55": ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"],
    "ipv4_host": ["192.168.100.10", "10.0.0.1", "203.0.113.77"],
    "birth_date": [
        "1985-03-12",
        "12/03/1985",
        "12 March 1985",
        "1985年3月12日",
        "19850312",
        "12031985",
        "03/12/85",
        "12 mars 1985",
    ],
    "phone_code": ["+44 20 7946 0958", "+8613800138000", "+1 212 555 0123"],
    "phone_said": ["0490 75 40 81", "(37) 788-063"],
    "jwt": ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.x"],
    "random_token": ["LZDe1f8rESQedUStPKR0CsTy4Qwb8Dwk", "b08f8e97594ebe2fc0efca25a5dfd801"],
    "mixed": ["wJalrXUtn3EMI/K7MDENG/bPxRfiCYzX5MPLEKEY"],
    "password_like": ["hunter2!x", "correct-horse7", "123456"],
    "password_quoted": ["swordfish", "Tr0ub4dor&3"],
    "credentials": ["jane:s3cret", ":hunter2"],
}
INVALID = {
    "card": ["4111 1111 1111 1112", "1111111111111117", "0000000000000000", "411111111111"],
    "iban": [
        "GB82 WEST 1234 5698 7654 33",
        "GB82 WEST 1234 5698 7654",
        "XX82 WEST 1234 5698 7654 32",
        "GB82 WEST 1234 5698 7654 3é",
    ],
    "us_ssn": ["666-12-3456", "000-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "078-05-1120", "111111111"],
    "us_itin": ["812-70-1234", "912-69-1234", "912-93-1234"],
    "us_routing": ["021000022", "990000002", "130000003"],
    "nanp": ["(112) 555-0123", "(212) 155-0123", "911-555-0123", "(293) 555-0123", "212-911-0123"],
    "uk_nhs": ["943 476 5918", "0000000000"],
    "uk_nino": ["GB123456A", "DA123456A", "AO123456A", "QQ123456C"],
    "uk_postcode": ["QQ1 1AA", "Q1 1AA"],
    "uk_licence": ["MORGA697054SM9IJ", "MORGA657324SM9IJ"],
    "eip55": ["0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x" + "0" * 40],
    "ipv4_host": ["1.2.3.4", "127.0.0.1", "255.255.255.0", "0.0.0.0", "256.100.100.100", "224.100.100.100"],
    "birth_date": ["1985-13-32", "2099-01-01", "12/45/1985", "31 12", "99999999"],
    "phone_code": ["+999 12345678", "+1111111111", "+44 20"],
    "phone_said": ["192.168.1.10", "2024-01-02", "0000000"],
    "jwt": ["eyJhbGciOiJI.e.x", "bm90IGpzb24.e.x"],
    "random_token": [
        "123e4567-e89b-12d3-a456-426614174000",
        "some_function_name_number_2_of_many",
        "0123456789abcdef",
        "path/to/module2/file_v3",
    ],
    "password_like": ["string", "self.password1", "get_password()", "${DB_PASS1}", "********", "your-password1"],
    "password_quoted": ["********", "{password}", "${PASS}", "password", "your-password"],
    "credentials": ["{user}:{password}", "user:$PASS", "<user>:<pass>"],
}


def check(name: str) -> Callable[[str], bool]:
    found: Callable[[str], bool] = getattr(validators, name)
    return found


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in VALID.items() for text in texts])
def test_a_check_passes_what_is_valid(name: str, text: str) -> None:
    assert check(name)(text)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in INVALID.items() for text in texts])
def test_a_check_fails_what_is_not(name: str, text: str) -> None:
    assert not check(name)(text)


@pytest.mark.parametrize("name", ["luhn", "iban", "us_routing", "us_npi", "uk_nhs", "base58check", "bech32", "mrz"])
@given(data=st.data())
def test_one_wrong_character_is_noticed(name: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(VALID[name]))
    letters = "23456789" if name in ("base58check", "bech32") else "0123456789"
    places = [place for place, char in enumerate(text) if char.isdigit() and place > 1]
    if name == "mrz":  # the places that a check digit covers
        places = [45, 46, 58, 59, 60, 61, 62, 63, 66, 67, 68, 69, 70, 71] if text[0] == "P" else [6, 7, 8, 32, 33, 41]
        places = [place for place in places if text[place].isdigit()]
    at = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from(letters))
    wrong = text[:at] + other + text[at + 1 :]
    if wrong != text:
        assert not check(name)(wrong)


@pytest.mark.parametrize("name", ["iban", "us_routing", "uk_nhs"])
@given(data=st.data())
def test_two_digits_in_the_wrong_order_are_noticed(name: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(VALID[name])).replace(" ", "")
    at = data.draw(st.integers(2, len(text) - 2))
    first, second = text[at : at + 2]
    if first.isdigit() and second.isdigit() and (int(first) - int(second)) % 5 != 0:  # a difference of 5 is lost on 3, 7, 1
        assert not check(name)(text[:at] + second + first + text[at + 2 :])


def test_keccak_is_that_of_the_reference() -> None:
    assert checks_coins.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert checks_coins.keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


def test_a_rule_is_tried_only_before_the_characters_of_then() -> None:
    scanner = Scanner([Rule(name="x", type="X", first=(3,), then="-", pattern="[0-9]{3}.?")])
    assert [span.start for span in scanner.find("123- 456 789")] == [0]


def test_joined_letters_stand_right_before_the_digits() -> None:
    rules = [Rule(name="x", type="X", lead=(2,), first=(2,), joined=True, pattern="[A-Z]{2} ?[0-9]{2}")]
    assert [span.start for span in Scanner(rules).find("AB12 CD 34")] == [0]


@pytest.mark.parametrize("before", ["", "key=", "(", "密钥", "x.", "a/b/", "\\n", "%3D", "module.name/"])
def test_a_long_run_is_found_by_how_it_starts(before: str) -> None:
    scanner = Scanner([Rule(name="x", type="X", starts=("ab_",), pattern="ab_[0-9a-z]{16}")])
    text = before + "ab_0123456789abcdef and more"
    assert [(span.start, span.end) for span in scanner.find(text)] == [(len(before), len(before) + 19)]


def test_a_long_run_may_begin_with_what_is_joined_to_it() -> None:
    scanner = Scanner([Rule(name="x", type="X", starts=("SG.",), pattern=r"SG\.[0-9a-z]{20}")])
    assert [span.start for span in scanner.find("key SG.0123456789abcdefghij")] == [4]


def test_context_is_looked_for_within_reach_and_in_whole_words() -> None:
    def found(text: str, **more: tuple[int, int]) -> int:
        rule = Rule(name="x", type="X", first=(4,), pattern="[0-9]{4}", score=0.2, context=("pin", "密"), **more)  # type: ignore[arg-type]
        return len(Scanner([rule]).find(text))

    assert found("pin 1234") == found("my_pin_1234") == found("密1234") == found("1234 pin") == 1
    assert found("spin 1234") == found("pins 1234") == 0
    assert found("pin" + " " * 30 + "1234") == 1
    assert found("pin" + " " * 30 + "1234", reach=(10, 0)) == found("1234 pin", reach=(10, 0)) == 0


@given(st.text(alphabet="ab1 é中，－１２：\u200b\u00ad\u00a0\u3000\u2013\u2212😀＠ＡＢＣＤＥＦＧＨＩ", max_size=30))
def test_folding_leads_back_to_what_it_folded(text: str) -> None:
    folded = Folded(text)
    assert len(folded.text) == len(folded.lower) == len(folded.words)
    for at, char in enumerate(folded.text):
        start, end = folded.span(at, at + 1)
        assert end == start + 1
        assert text[start] == char or not text[start].isascii()


@pytest.mark.parametrize(
    "piece", ["1", "a1", "://a:", "<<<", "eyJ", "-----BEGIN PRIVATE KEY-----", "phone 1 ", "sk-a-", "00:", "12 a"]
)
@pytest.mark.timeout(20)  # what backtracks takes minutes
def test_no_pattern_hangs_on_a_long_row_of_the_same(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    assert all(0 <= span.start < span.end <= len(text) for span in Scanner().find(text))


PEM = "-----BEGIN " + "PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n" * 3 + "-----END PRIVATE KEY-----"
SIGNED = "eyJhbGciOiJIUzI1NiJ9" + ".eyJpc3MiOiJqb2UifQ." + "LZDe1f8rESQedUStPKR0CsTy4Qwb8DwkMEI"


@pytest.mark.parametrize(
    ("text", "found", "type"),
    [
        (f'{{"private_key": "{PEM}"}}', PEM, "PRIVATE_KEY"),
        (f"token: {SIGNED}", SIGNED, "JWT"),
        (f"Authorization: Bearer {SIGNED}", SIGNED, "JWT"),
        ("postgres://jane:s3cret@db.example.com/x", "jane:s3cret", "CREDENTIALS"),
        ("password=Tr0ub4dor&3x", "Tr0ub4dor&3x", "PASSWORD"),
        ("IBAN DE89 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130 00", "IBAN"),
    ],
)
def test_of_finds_that_overlap_the_larger_or_surer_stays(text: str, found: str, type: str) -> None:
    spans = Scanner().find(text)
    assert [(text[span.start : span.end], span.type) for span in spans] == [(found, type)]
