"""Restoring: the stream is the whole, however it is cut; JSON stays JSON; no adversary gets a wrong value, or another's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_scrub.conversation import Conversation
from hypothesis import given, settings
from hypothesis import strategies as st
from restore_case import CUTS, FOREIGN, KEY, KNOWN, VALUES, covered, cut, span, tampered, texts

BOTH = [token for _, _, token in KNOWN + FOREIGN]


def knowing(key: bytes = KEY) -> Conversation:
    """A conversation that has the placeholders of KNOWN, or of FOREIGN for its key."""
    conversation = Conversation(key)
    for type, value, _ in KNOWN:
        conversation.token(type, value)
    return conversation


def streamed(conversation: Conversation, pieces: list[str], *, json: bool = False) -> str:
    """What a restorer makes of the pieces, together. It never holds back more than it may."""
    restorer = conversation.restorer(json=json)
    out = []
    for piece in pieces:
        out.append(restorer.feed(piece))
        assert restorer.held <= (6 * (conversation.longest + 1) if json else conversation.longest)
    return "".join([*out, restorer.flush()])


@settings(max_examples=400, deadline=None)
@given(texts(*BOTH), CUTS)
def test_a_stream_is_the_whole_for_every_way_of_cutting_it(text: str, places: list[int]) -> None:
    conversation = knowing()
    whole = conversation.restore(text)
    assert streamed(conversation, cut(text, places)) == whole
    assert streamed(conversation, list(text)) == whole


@settings(max_examples=300, deadline=None)
@given(texts(*BOTH), CUTS, st.booleans())
def test_a_stream_of_json_is_the_whole_too(text: str, places: list[int], ascii: bool) -> None:
    conversation = knowing()
    document = json.dumps(text, ensure_ascii=ascii)
    for written in (document, document.replace("<", "\\u003c"), text):  # the last one need not be JSON
        whole = conversation.restore(written, json=True)
        assert streamed(conversation, cut(written, places), json=True) == whole
        assert streamed(conversation, list(written), json=True) == whole


@given(covered(), CUTS)
@settings(max_examples=300, deadline=None)
def test_in_json_a_string_is_restored_as_its_text_is(covered: tuple[str, list[Any]], places: list[int]) -> None:
    conversation = Conversation(KEY)
    text = conversation.cover(*covered)
    for ascii in (False, True):
        written = json.dumps([text, {text: text}], ensure_ascii=ascii)
        for document in (written, written.replace("<", "\\u003c").replace(">", "\\u003E")):
            read = streamed(conversation, cut(document, places), json=True)
            assert json.loads(read) == [covered[0], {covered[0]: covered[0]}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | texts(*BOTH) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(*BOTH), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, CUTS, st.data())
@settings(max_examples=200, deadline=None)
def test_a_json_document_with_values_in_its_strings_comes_back(document: Any, places: list[int], data: st.DataObject) -> None:
    conversation = Conversation(KEY)

    def covers(value: Any) -> Any:
        if isinstance(value, str):
            ends = [data.draw(st.integers(0, len(value))) for _ in range(2)]
            return conversation.cover(value, [span(min(ends), max(ends))])
        if isinstance(value, list):
            return [covers(item) for item in value]
        return {covers(key): covers(item) for key, item in value.items()} if isinstance(value, dict) else value

    for ascii in (True, False):
        sent = json.dumps(covers(document), ensure_ascii=ascii)
        assert json.loads(streamed(conversation, cut(sent, places), json=True)) == document


@given(st.lists(tampered([token for _, _, token in FOREIGN]), max_size=6), CUTS)
@settings(max_examples=200, deadline=None)
def test_what_is_another_conversations_is_never_restored(written: list[str], places: list[int]) -> None:
    conversation, text = knowing(), " ".join(written)
    assert streamed(conversation, cut(text, places)) == text


@given(st.sampled_from(KNOWN), st.data())
@settings(max_examples=400, deadline=None)
def test_a_tampered_placeholder_gives_its_own_value_or_none(known: tuple[str, str, str], data: st.DataObject) -> None:
    # Each value is a letter of its own, and nothing else in the text is one: whatever comes of it is seen.
    conversation, letters = Conversation(KEY), {}
    for at, (type, value, _) in enumerate(KNOWN):
        letters[conversation.token(type, chr(0xE000 + at))] = chr(0xE000 + at)
        assert value
    token = data.draw(st.sampled_from(sorted(letters)))
    read = conversation.restore(data.draw(tampered([token])))
    assert set(read) & set(letters.values()) <= {letters[token]}


def test_a_restored_value_is_not_read_again() -> None:
    conversation = Conversation(KEY)
    inner = conversation.token("PERSON", "Anna")
    outer = conversation.token("TEXT", inner)
    half = conversation.token("TEXT", inner[:6])
    assert conversation.restore(outer) == inner
    assert streamed(conversation, list(outer)) == inner
    assert conversation.restore(f"{half}{inner[6:]}") == inner
    assert streamed(conversation, list(f"{half}{inner[6:]}")) == inner
    assert conversation.restore(json.dumps(outer), json=True) == json.dumps(inner)


@pytest.mark.parametrize("value", [*VALUES, "\x00\x1f\u2028", "\\u003c", '"}', "\\"])
def test_values_are_escaped_in_json(value: str) -> None:
    conversation = Conversation(KEY)
    document = json.dumps({"to": [conversation.token("PERSON", value)]})
    assert json.loads(conversation.restore(document, json=True)) == {"to": [value]}


def test_a_backslash_that_is_escaped_itself_begins_no_escape() -> None:
    conversation = Conversation(KEY)
    token = conversation.token("PERSON", "Anna")
    text = f"\\u003c{token[1:]} \\\\{token}"
    for document in (json.dumps(text), f'"\\\\u003c{token[1:]} {token}"'):
        read = json.loads(conversation.restore(document, json=True))
        assert read == conversation.restore(json.loads(document))
        assert json.loads(streamed(conversation, list(document), json=True)) == read


def test_a_stream_holds_back_only_what_may_begin_a_placeholder_that_is_known() -> None:
    conversation = Conversation(KEY)
    tail = conversation.token("PERSON", "Anna")[-9:-1]
    other = "0" if tail[0] != "0" else "1"
    for piece, passed in [
        ("the quick", "the quick"),
        ("mail me at <", "mail me at "),
        ("a per", "a "),
        ("a pet", "a pet"),
        ("persona", "persona"),
        ("<PERSON_1:", ""),
        (f"<PERSON_1:{tail[:3]}", ""),
        (f"<PERSON_1:{other}", f"<PERSON_1:{other}"),
        ("<PERSON_2", "<PERSON_2"),
        ("<EMAIL", "<EMAIL"),
        (f"PERSON_1:{tail}", ""),
        (f"PERSON_1:{tail},", "Anna,"),
        (f"<PERSON_1:{tail}", ""),
        (f"<PERSON_1:{tail} *", ""),
        (f"<PERSON_1:{tail}>", "Anna"),
        ("x &lt", "x "),
        ("x &amp", "x &amp"),
        ("<" * 100, "<" * 99),
    ]:
        assert conversation.restorer().feed(piece) == passed
    json = conversation.restorer(json=True)
    assert [json.feed(piece) for piece in ("a\\", "n\\u", "00", "3c", "x")] == ["a", "\\n", "", "", "\\u003cx"]


def test_with_nothing_known_nothing_is_held_back() -> None:
    restorer = Conversation(KEY).restorer()
    assert restorer.feed("<PERSON_1:") == "<PERSON_1:"
    assert restorer.flush() == ""


def test_a_whole_answer_is_not_held_back_until_its_end() -> None:
    conversation = knowing()
    restorer = conversation.restorer()
    sent = "".join(f"word {token} person 1, <b>" for _, _, token in KNOWN)
    behind = 0
    for char in sent:
        restorer.feed(char)
        behind = max(behind, restorer.held)
    assert behind <= conversation.longest


def test_a_restorer_can_be_used_again_after_its_flush() -> None:
    conversation = Conversation(KEY)
    token = conversation.token("PERSON", "Anna")
    restorer = conversation.restorer()
    assert restorer.feed("x" + token[:5]) + restorer.flush() == "x" + token[:5]
    assert restorer.feed(token[1:-1]) + restorer.flush() == "Anna"


def test_a_placeholder_that_an_earlier_turn_gave_still_resolves() -> None:
    conversation = Conversation(KEY)
    first = conversation.cover("I am Anna", [span(5, 9)])
    conversation.cover("I am Berta", [span(5, 10)])
    assert conversation.restore(f"You said: {first}") == "You said: I am Anna"


def test_two_people_do_not_share_a_placeholder() -> None:
    conversation = Conversation(KEY)
    sent = [conversation.cover(f"{name} calls", [span(0, len(name))]) for name in ("Anna", "Berta")]
    assert sent[0].startswith("<PERSON_1:") and sent[1].startswith("<PERSON_2:")
    assert [conversation.restore(text) for text in sent] == ["Anna calls", "Berta calls"]
