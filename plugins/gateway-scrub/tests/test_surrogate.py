"""Surrogates: invented values that come back as what they stand for, where they are still what was given."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gateway_scrub.conversation import Conversation, How
from gateway_scrub.restore import restored
from gateway_scrub.spans import Span
from gateway_scrub.surrogate import Inventor, Surrogates
from hypothesis import given, settings
from hypothesis import strategies as st
from restore_case import CUTS, KEY, cut, span

pytest.importorskip("faker")

TYPES = ("PERSON", "EMAIL", "PHONE", "ADDRESS", "ORGANIZATION", "CARD", "CN_ID", "IBAN")
INVENTOR = Inventor()
ANNA = INVENTOR.invent(KEY, "PERSON", "Anna") or ""
ZHANG = INVENTOR.invent(KEY, "PERSON", "张伟") or ""


def surrogate(_: Span) -> How:
    return "surrogate"


def covering(text: str, *values: str, type: str = "PERSON", key: bytes = KEY) -> tuple[Conversation, str]:
    conversation = Conversation(key, inventor=INVENTOR)
    spans = [span(text.index(value), text.index(value) + len(value), type) for value in values]
    return conversation, conversation.cover(text, spans, surrogate)


PIECES = st.sampled_from(
    [
        ANNA,
        ZHANG,
        ANNA[:4],
        ZHANG[:2],
        ZHANG[1:],
        "Anna",
        "张伟",
        "Anna Berg",
        " ",
        "王",
        "x",
        ".",
        "@",
        "1",
        "-",
        "<",
        "\n",
        '"',
    ]
)


@st.composite
def invented(draw: st.DrawFn) -> tuple[str, list[Span]]:
    text = "".join(draw(st.lists(PIECES, min_size=1, max_size=10)))
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, [span(a, b, draw(st.sampled_from(TYPES))) for a, b in zip(ends[::2], ends[1::2], strict=False)]


@given(st.lists(invented(), min_size=1, max_size=2), CUTS)
@settings(max_examples=300, deadline=None)
def test_what_was_covered_comes_back_whole_and_streamed(turns: list[tuple[str, list[Span]]], places: list[int]) -> None:
    conversation = Conversation(KEY, inventor=INVENTOR)
    beside = [text for text, _ in turns]
    sent = [conversation.cover(text, spans, surrogate, beside=beside) for text, spans in turns]
    assert conversation.restore(sent[-1]) == turns[-1][0]
    for text in [*sent, " ".join(sent), "".join(beside)]:
        for json in (False, True):
            whole, restorer = conversation.restore(text, json=json), conversation.restorer(json=json)
            assert "".join([*map(restorer.feed, cut(text, places)), restorer.flush()]) == whole
            restorer = conversation.restorer(json=json)
            assert "".join([*map(restorer.feed, text), restorer.flush()]) == whole


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("value", ["Value of 12", "值１２"])
def test_each_type_has_its_own_kind_or_a_placeholder(type: str, value: str) -> None:
    conversation, sent = covering(f"It is {value}!", value, type=type)
    assert value not in sent
    assert ("<" in sent) == (type == "IBAN")
    assert conversation.restore(sent) == f"It is {value}!"


def test_a_surrogate_is_that_of_the_key_type_and_text() -> None:
    _, sent = covering("Ask Anna.", "Anna")
    assert covering("Ask Anna.", "Anna")[1] == sent == f"Ask {ANNA}."
    assert covering("Ask Anna.", "Anna", key=bytes(32))[1] != sent
    assert covering("Ask Anne.", "Anne")[1] != sent


def test_chinese_text_gets_chinese_surrogates_and_english_text_english_ones() -> None:
    assert all("\u4e00" <= char <= "\u9fff" for char in ZHANG)
    assert ANNA.isascii()
    assert INVENTOR.invent(KEY, "CN_ID", "110101199003070134") != "110101199003070134"
    assert (Inventor("en").invent(KEY, "PERSON", "张伟") or "").isascii()
    assert not (Inventor("zh").invent(KEY, "PERSON", "Anna") or "").isascii()
    assert (INVENTOR.invent(KEY, "EMAIL", "a@b.org") or "").partition("@")[2] in ("example.org", "example.com", "example.net")
    assert "555-01" in (INVENTOR.invent(KEY, "PHONE", "+44 20 7946 0000") or "")


def test_a_surrogate_is_never_one_that_the_texts_or_values_hold() -> None:
    conversation, sent = covering(f"Anna and {ANNA} talk.", "Anna")
    assert sent.count(ANNA) == 1 and conversation.restore(sent) == f"Anna and {ANNA} talk."
    conversation = Conversation(KEY, inventor=INVENTOR)
    assert ANNA not in conversation.cover("Anna", [span(0, 4)], surrogate, beside=[f"Dear {ANNA.upper()}"])
    conversation = Conversation(KEY, inventor=INVENTOR)
    conversation.token("PERSON", ANNA)
    assert ANNA not in conversation.cover("Anna", [span(0, 4)], surrogate)


def test_when_all_are_taken_a_placeholder_is_given() -> None:
    taken = [INVENTOR.invent(KEY, "PERSON", "Anna", attempt) or "" for attempt in range(50)]
    conversation = Conversation(KEY, inventor=INVENTOR)
    assert conversation.cover("Anna", [span(0, 4)], surrogate, beside=taken) == conversation.token("PERSON", "Anna")


def test_a_user_who_writes_a_surrogate_gets_it_back() -> None:
    conversation, _ = covering("Ask Anna.", "Anna")
    sent = conversation.cover(f"Is {ANNA} real?", [])
    assert ANNA not in sent
    assert conversation.restore(sent) == f"Is {ANNA} real?"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{}", "Anna"),
        ("**{}**", "**Anna**"),
        ("{}'s", "Anna's"),
        ("({})", "(Anna)"),
        ("问{}吧", "问Anna吧"),
        ("_{}_", "_Anna_"),
    ],
)
def test_it_is_found_where_no_word_goes_on(written: str, read: str) -> None:
    conversation, _ = covering("Ask Anna.", "Anna")
    assert conversation.restore(written.format(ANNA)) == read


def test_what_is_only_like_it_stays() -> None:
    conversation, sent = covering("Mail a@b.org and Anna", "a@b.org", type="EMAIL")
    mail = sent.removeprefix("Mail ").removesuffix(" and Anna")
    for text in (f"x{mail}", f"x.{mail}", f"{mail}x", f"{mail}.uk", mail[:-1], mail.upper()):
        restorer = conversation.restorer()
        assert conversation.restore(text) == text == "".join(map(restorer.feed, text)) + restorer.flush()
    assert conversation.restore(f"{mail}.") == "a@b.org."
    conversation, _ = covering("Ask Anna.", "Anna")
    for text in (f"{ANNA}s", f"Jo{ANNA}", ANNA.split()[0], ANNA.upper()):
        assert conversation.restore(text) == text


def test_one_that_is_none_hides_no_other() -> None:
    known = Surrogates()
    known.add("Ann Lee", "Anna")
    known.add("Lee Moe", "Berta")
    assert restored("JoAnn Lee Moe", [known]) == "JoAnn Berta"
    assert restored("Ann Lee Moe", [known]) == "Anna Moe"


def test_chinese_needs_no_borders() -> None:
    conversation, sent = covering("请问张伟在吗", "张伟")
    assert sent == f"请问{ZHANG}在吗"
    assert conversation.restore(f"您好{ZHANG}先生") == "您好张伟先生"
    assert conversation.restore(f'"{ZHANG.encode("unicode_escape").decode()}"', json=True) == '"张伟"'


def test_placeholders_and_surrogates_stand_side_by_side_and_values_are_not_read_again() -> None:
    conversation = Conversation(KEY, inventor=INVENTOR)
    assert conversation.cover("Anna", [span(0, 4)], surrogate) == ANNA
    token = conversation.token("TEXT", ANNA)
    for json in (False, True):
        restorer = conversation.restorer(json=json)
        assert "".join(map(restorer.feed, f"{token} {ANNA}{token}")) + restorer.flush() == f"{ANNA} Anna{ANNA}"


def test_a_surrogate_survives_a_dump() -> None:
    conversation, sent = covering("Ask Anna.", "Anna")
    other = Conversation(KEY, inventor=INVENTOR)
    other.load(conversation.dump())
    assert other.restore(sent) == "Ask Anna."
    assert other.cover("Ask Anna.", [span(4, 8)], surrogate) == sent


def test_faker_is_imported_when_it_is_needed_and_what_to_install_is_said_when_it_is_missing() -> None:
    code = """
import sys
from gateway_scrub.conversation import Conversation
from gateway_scrub.spans import Span
from gateway import ConfigError
one = Conversation()
one.cover("Anna", [Span(0, 4, "PERSON", 1, "")])
assert not {"faker", "cryptography"} & set(sys.modules)
sys.modules["faker"] = None
try:
    one.cover("Anna", [Span(0, 4, "PERSON", 1, "")], lambda span: "surrogate")
except ConfigError as error:
    assert "gateway-scrub[surrogates]" in str(error)
else:
    sys.exit("not refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
