"""The grammar of placeholders: tails that nobody can foretell, near forms that are taken, and those that are not."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from gateway_scrub.conversation import Conversation
from gateway_scrub.tokens import CROCKFORD, STRICT, derive, lookalikes, tail_of, tails
from hypothesis import given, settings
from restore_case import KEY, KNOWN, slow_restore, texts


def anna() -> tuple[Conversation, str]:
    """A conversation that knows Anna, and the tail of her placeholder, which is <PERSON_1:tail>; and an ID, <CN_ID_1:...>."""
    conversation = Conversation(KEY)
    conversation.token("CN_ID", "110101199003070134")
    return conversation, conversation.token("PERSON", "Anna")[-9:-1]


def test_a_placeholder_is_type_number_and_forty_bits_of_an_hmac() -> None:
    token = Conversation(KEY).token("PERSON", "Anna")
    bits = int.from_bytes(hmac.new(KEY, b"PERSON\0Anna", hashlib.sha256).digest()) >> (256 - 40)
    tail = "".join(CROCKFORD[bits >> shift & 31] for shift in range(35, -1, -5))
    assert token == f"<PERSON_1:{tail}>"
    assert STRICT.fullmatch(token)


def test_the_tail_depends_on_key_type_text_and_attempt() -> None:
    made = {tail_of(key, type, text, attempt) for key in (KEY, bytes(32)) for type in ("A", "B") for text in ("x", "y")
            for attempt in (0, 1)}  # fmt: skip
    assert len(made) == 16
    assert tail_of(KEY, "A", "\ud800")  # what cannot be encoded has one too


def test_keys_for_different_uses_are_different() -> None:
    assert derive(KEY, b"a") != derive(KEY, b"b")
    # RFC 5869, test case 3, of which this is the first block: without salt and info.
    assert derive(b"\x0b" * 22, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<PERSON_1:{}>", "{}"),
        ("<person_1:{}>", "{}"),
        ("<Person_1:{}>", "{}"),
        ("<PERSON_1: {}>", "{}"),
        ("<PERSON 1:{}>", "{}"),
        ("< PERSON_1 : {} >", "{}"),
        ("<PERSON1:{}>", "{}"),
        ("<PERSON-1:{}>", "{}"),
        ("<PERSON\\_1:{}>", "{}"),
        ("\\<PERSON\\_1:{}\\>", "\\{}"),
        ("<**PERSON_1**:{}>", "{}"),
        ("<PERSON_**1**:{}>", "{}"),
        ("<*PERSON_1:{}*>", "{}"),
        ("**<PERSON_1:{}>**", "**{}**"),
        ("`<PERSON_1:{}>`", "`{}`"),
        ("**PERSON_1:{}**", "**{}**"),
        ("_PERSON_1:{}_", "_{}_"),
        ("`PERSON_1:{}`", "`{}`"),
        ("PERSON_1:{}", "{}"),
        ("person 1: {}", "{}"),
        ("Person #1: {}", "{}"),
        ("PERSON_1_{}", "{}"),
        ("person-1-{}", "{}"),
        ("[PERSON_1:{}]", "{}"),
        ("(PERSON_1:{})", "{}"),
        ("{{PERSON_1:{}}}", "{}"),
        ("[[PERSON_1:{}]]", "[{}]"),
        ("(<PERSON_1:{}>)", "({})"),
        ("＜PERSON_1：{}＞", "{}"),
        ("<PERSON_1：{}>", "{}"),
        ("（PERSON_1：{}）", "{}"),
        ("【PERSON_1:{}】", "{}"),
        ("《PERSON_1:{}》", "{}"),
        ("&lt;PERSON_1:{}&gt;", "{}"),
        ("给<PERSON_1:{}>打电话", "给{}打电话"),
        ("给PERSON_1:{}打电话", "给{}打电话"),
        ("<PERSON_1:{}>'s", "{}'s"),
        ("PERSON_1:{}.", "{}."),
        ("<PERSON_1:{} is here", "<{} is here"),  # a bracket without its fellow may be the writer's own
        ("a < PERSON_1:{}", "a < {}"),
        ("PERSON_1:{}>", "{}>"),
        ("<PERSON_1:{}]", "<{}]"),
        ("<<PERSON_1:{}>>", "<{}>"),
        ("<PERSON_1:{0}><PERSON_1:{0}>", "{0}{0}"),
        ("PERSON_1:{0} PERSON_1:{0}", "{0} {0}"),
        ("<PERSON_1:<PERSON_1:{}>>", "<PERSON_1:{}>"),
        ("\u200b<PERSON\u200b_1:{}>", "\u200b{}"),
    ],
)
def test_a_near_form_is_taken(written: str, read: str) -> None:
    conversation, tail = anna()
    assert conversation.restore(written.format(tail)) == read.format("Anna")
    assert conversation.restore(written.format(tail.upper())) == read.format("Anna")


@pytest.mark.parametrize(
    "written",
    [
        "<PERSON_1:{short}>",  # truncated
        "<PERSON_1:{short}",
        "<PERSON_1:",
        "<PERSON_1>",
        "PERSON_1",
        "<PERSON_1:{tail}x>",  # longer
        "PERSON_1:{tail}s",
        "<PERSON_1:{short}x>",  # another tail
        "<PERSON_1:{spaced}>",  # not whole
        "<PERSON_2:{tail}>",  # another number
        "<PERSON_11:{tail}>",
        "<PERSON_01:{tail}>",
        "<PERSON_:{tail}>",
        "<PERSON:{tail}>",
        "<CN_ID_1:{tail}>",  # another type, which is known too
        "<EMAIL_1:{tail}>",
        "<PERSO_1:{tail}>",
        "<XPERSON_1:{tail}>",
        "<MY_PERSON_1:{tail}>",
        "MY-PERSON_1:{tail}",
        "MY__PERSON_1:{tail}",
        "<PERSONX_1:{tail}>",
        "<PER SON_1:{tail}>",
        "<PERSON_1{tail}>",
        "<PERSON_1 {tail}>",  # nothing but a space
        "<PERSON_1;{tail}>",
        "<PERSON\n_1:{tail}>",
        "<PERSON      1:{tail}>",
        "<1_PERSON:{tail}>",
        "{tail}",
        "<{tail}>",
    ],
)
def test_what_is_not_whole_and_right_stays_as_it_is(written: str) -> None:
    conversation, tail = anna()
    text = written.format(tail=tail, short=tail[:-1], spaced=f"{tail[:4]} {tail[4:]}")
    assert conversation.restore(text) == text
    restorer = conversation.restorer()
    assert "".join(map(restorer.feed, text)) + restorer.flush() == text


@pytest.mark.parametrize("type", ["A", "A_B", "CN_ID", "IPV4", "A1", "X_1", "PERSON"])
def test_a_near_form_of_any_type_is_taken_in_a_stream(type: str) -> None:
    conversation = Conversation(KEY)
    conversation.token("EMAIL", "other")
    tail = conversation.token(type, "Anna")[-9:-1]
    names = {type, type.replace("_", ""), type.replace("_", " "), type.replace("_", "\\_"), type.replace("_", "-")}
    for name in sorted({*names, *(name.lower() for name in names)}):
        for opened, closed in (("<", ">"), ("", ""), ("&lt;", "&gt;"), ("[ ", " ]"), ("＜**", "**＞")):
            for between in ("_1:", "1:", " 1: ", "-1-", "_1："):
                written = f"{opened}{name}{between}{tail}{closed}"
                restorer = conversation.restorer()
                assert "".join(map(restorer.feed, f"x {written}!")) + restorer.flush() == "x Anna!", written
                assert conversation.restore(f"x {written}!") == "x Anna!"


def test_no_part_of_a_placeholder_is_a_part_of_the_next_one() -> None:
    conversation = Conversation(KEY)
    name = next(name for name in map(str, range(100)) if tail_of(KEY, "PERSON", name)[0].isalpha())
    first = conversation.token("PERSON", name)
    tail = first[-9:-1]
    second = conversation.token(tail.upper(), "Berta")[-9:-1]
    text = f"{first[1:-1]}_1:{second}"
    restorer = conversation.restorer()
    assert conversation.restore(text) == f"{name}_1:{second}" == "".join(map(restorer.feed, text)) + restorer.flush()


def test_letters_that_are_equal_to_others_only_when_case_is_folded_are_not_taken() -> None:
    conversation = Conversation(KEY)
    tail = conversation.token("SKIN", "x")[-9:-1]
    for type in ("ſKIN", "S\u212aIN", "SKıN"):
        assert conversation.restore(f"<{type}_1:{tail}>") == f"<{type}_1:{tail}>"


@settings(max_examples=100, deadline=None)
@given(texts())
def test_finding_is_what_the_patterns_one_by_one_find(text: str) -> None:
    conversation = Conversation(KEY)
    for type, value, _ in KNOWN:
        conversation.token(type, value)
    assert conversation.restore(text) == slow_restore(text, KNOWN)


@given(texts())
def test_a_long_text_is_searched_as_a_short_one_is(text: str) -> None:
    long = text + " " * 600
    assert list(tails(long)) == list(tails(text))


def test_what_looks_like_a_placeholder_is_seen_and_what_does_not_is_not() -> None:
    assert list(lookalikes("<A_1:abcdefgh> step 2: PAYMENTS, x3-abcdefgj")) == ["abcdefgh", "payments", "abcdefgj"]
    assert list(lookalikes("at 12:30, well-being: payments")) == []
