"""A conversation: covering and restoring are inverse; tokens are stable; nothing shows; many are kept, but not too many."""

from __future__ import annotations

import base64
import copy
import json
import multiprocessing
import os
import pickle
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_scrub.conversation import MASK, Conversation
from gateway_scrub.conversations import Conversations
from gateway_scrub.errors import ScrubError
from gateway_scrub.spans import Span
from hypothesis import given, settings
from hypothesis import strategies as st
from restore_case import CUTS, KEY, KNOWN, covered, cut, span, texts

from gateway import ConfigError
from gateway.testing import FakeClock

Covered = tuple[str, list[Span]]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCRUB_KEY", "OTHER_KEY"):
        monkeypatch.setenv(name, base64.b64encode(os.urandom(32)).decode())


@given(covered(), CUTS)
@settings(max_examples=400, deadline=None)
def test_restoring_what_was_covered_gives_it_back_whole_and_streamed(given: Covered, places: list[int]) -> None:
    text, spans = given
    conversation = Conversation(KEY)
    sent = conversation.cover(text, spans)
    assert conversation.restore(sent) == text
    restorer = conversation.restorer()
    assert "".join([*map(restorer.feed, cut(sent, places)), restorer.flush()]) == text
    assert conversation.cover(text, spans) == sent  # as the next turn sends it again


@given(st.lists(covered(), min_size=2, max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_was_covered_earlier_still_comes_back_when_more_is_known(turns: list[Covered]) -> None:
    # The texts are full of placeholders that this key is yet to give out: an adversary who knows them writes them first.
    conversation = Conversation(KEY)
    sent = [conversation.cover(*turn) for turn in turns]
    assert [conversation.restore(text) for text in sent] == [text for text, _ in turns]
    assert conversation.restore("\n".join(sent)) == "\n".join(text for text, _ in turns)


@given(covered(), st.lists(st.sampled_from(["keep", "mask", "placeholder", "drop"]), min_size=5, max_size=5))
@settings(max_examples=300, deadline=None)
def test_what_was_masked_or_dropped_is_all_that_does_not_come_back(given: Covered, hows: list[Any]) -> None:
    text, spans = given
    spans = [one for at, one in enumerate(sorted(spans)) if at == 0 or one.start >= max(s.end for s in sorted(spans)[:at])]
    spans = [one for one in dict.fromkeys(spans) if one.start < one.end]
    how = dict(zip(spans, hows, strict=False))
    conversation, expected, at = Conversation(KEY), "", 0
    for one in spans:
        kept = {"mask": MASK, "drop": ""}.get(how[one], text[one.start : one.end])
        expected, at = expected + text[at : one.start] + kept, one.end
    sent = conversation.cover(text, spans, how.__getitem__)
    assert conversation.restore(sent) == expected + text[at:]


def test_a_placeholder_that_somebody_wrote_before_it_was_given_out_is_never_given_out() -> None:
    token = Conversation(KEY).token("PERSON", "Anna")  # the adversary has seen it: the same key, the same conversation
    for written in (token, token.lower(), token[1:-1], f"person 1: {token[-9:-1]}"):
        conversation = Conversation(KEY)
        first = conversation.cover(f"See {written}.", [])
        second = conversation.cover("I am Anna", [span(5, 9)])
        assert token not in second
        assert conversation.restore(first) == f"See {written}."
        assert conversation.restore(second) == "I am Anna"


def test_spans_are_replaced_and_the_rest_is_left() -> None:
    conversation = Conversation(KEY)
    text = "Ask Anna <x> at 12:30, step 1: payments, or PERSON_1 (see README_1:20240101)."
    assert conversation.cover(text, [span(4, 8)]) == text.replace("Anna", conversation.token("PERSON", "Anna"))


def test_all_that_overlapping_spans_cover_is_replaced() -> None:
    conversation = Conversation(KEY)
    spans = [span(0, 6, "PHONE", score=0.4), span(4, 9, "CARD", rank=2), span(9, 10, "A")]
    sent = conversation.cover("0123456789", spans)
    assert sent == conversation.token("CARD", "012345678") + conversation.token("A", "9")


def test_a_span_that_is_kept_does_not_shield_one_that_is_not() -> None:
    conversation = Conversation(KEY)
    spans = [span(0, 10, "URL", rank=2), span(2, 5, "PERSON")]
    sent = conversation.cover("a.anna.org", spans, lambda one: "keep" if one.type == "URL" else "mask")
    assert sent == "a." + MASK + "a.org"


@pytest.mark.parametrize("bad", [span(2, 9), span(-1, 2), span(3, 2)])
def test_a_span_outside_of_the_text_is_refused(bad: Span) -> None:
    with pytest.raises(ValueError, match="does not lie in a text of 5 characters"):
        Conversation(KEY).cover("12345", [bad])


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="PERSON is none of them"):
        Conversation(KEY).cover("12345", [span(0, 2)], lambda one: "hide")  # type: ignore[arg-type,return-value]


def test_a_type_that_would_not_fit_the_grammar_is_refused() -> None:
    for type in ("", "person", "A B", "1A", "A:", "A" * 65, "A\n"):
        with pytest.raises(ValueError, match="upper-case") as caught:
            Conversation(KEY).token(type, "Anna")
        assert "Anna" not in str(caught.value)


def test_the_same_text_keeps_its_token_and_forms_of_one_value_share_the_number() -> None:
    conversation = Conversation(KEY)
    first = conversation.token("CARD", "4111 1111 1111 1111")
    other = conversation.token("CARD", "4111-1111-1111-1111")
    assert conversation.token("CARD", "4111 1111 1111 1111") == first != other
    assert first.startswith("<CARD_1:") and other.startswith("<CARD_1:")
    assert conversation.token("CARD", "5500 0000 0000 0004").startswith("<CARD_2:")
    assert conversation.token("PERSON", "ANNA", "anna")[:10] == conversation.token("PERSON", "Annie", "anna")[:10]
    assert conversation.token("EMAIL", "a.b@x.org")[:8] != conversation.token("EMAIL", "ab@x.org")[:8]
    assert conversation.restore(first + other) == "4111 1111 1111 11114111-1111-1111-1111"


def test_equal_tails_of_two_values_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_scrub.conversation.tail_of", lambda key, type, text, attempt=0: f"0000000{attempt}")
    conversation = Conversation(KEY)
    tokens = [conversation.token("PERSON", name) for name in ("Anna", "Berta", "Clara")]
    assert [conversation.restore(token) for token in tokens] == ["Anna", "Berta", "Clara"]
    assert [conversation.token("PERSON", name) for name in ("Anna", "Berta", "Clara")] == tokens


def test_what_a_user_writes_in_the_shape_of_a_placeholder_is_covered() -> None:
    conversation = Conversation(KEY)
    token = conversation.token("PERSON", "Anna")
    for written in (token, token.lower(), token[1:-1], "<PERSON_7:00000000>", f"[{token[1:-1]}]"):
        sent = conversation.cover(f"I see {written}.", [])
        assert sent == f"I see {conversation.token('TEXT', written)}."
        assert conversation.restore(sent) == f"I see {written}."


def test_dropping_or_masking_does_not_make_a_placeholder_of_what_is_left() -> None:
    conversation = Conversation(KEY)
    token = conversation.token("PERSON", "Anna")
    for how in ("drop", "mask"):
        sent = conversation.cover(f"{token[:10]}XX{token[10:]}", [span(10, 12)], lambda one, how=how: how)  # type: ignore[misc]
        assert "Anna" not in conversation.restore(sent)


def test_the_bound_on_tokens_is_an_error_and_what_is_known_still_works() -> None:
    conversation = Conversation(KEY, max_tokens=2)
    sent = conversation.cover("Anna, Berta", [span(0, 4), span(6, 11)])
    for text, spans in (("Clara", [span(0, 5)]), ("<PERSON_9:00000000>", [])):
        with pytest.raises(ScrubError, match="2 placeholders, and keeps no more") as caught:
            conversation.cover(text, spans)
        assert "Clara" not in repr(caught.value)
    assert conversation.cover("Anna, Berta", [span(0, 4), span(6, 11)]) == sent
    assert conversation.restore(sent) == "Anna, Berta"


def test_what_users_write_in_the_shape_of_placeholders_takes_bounded_room() -> None:
    conversation = Conversation(KEY, max_tokens=10)
    conversation.cover(" ".join(f"id_{n}:{n:08}" for n in range(1000)), [])
    assert len(conversation.dump()["written"]) == 10


def test_nothing_shows_in_a_repr_and_nothing_is_pickled() -> None:
    conversation = Conversation(KEY)
    conversation.token("PERSON", "Anna")
    assert repr(conversation) == "<Conversation 1 placeholders, 0 surrogates>"
    assert "Anna" not in repr(list(conversation._known.values()))
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not serialised"):
            way(conversation)


def test_threads_agree_on_every_token() -> None:
    conversation = Conversation(KEY)
    gate, seen = threading.Barrier(8), []

    def covers(of: int) -> None:
        gate.wait()
        for n in range(200):
            name = f"name {(n + of * 7) % 200}"
            sent = conversation.cover(name, [span(0, len(name))])
            assert conversation.restore(sent) == name
            seen.append((name, sent))

    threads = [threading.Thread(target=covers, args=(of,)) for of in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1600 and len(set(seen)) == 200
    assert {sent.split("_")[1].split(":")[0] for _, sent in seen} == {str(n) for n in range(1, 201)}


# Conversations


def test_a_conversation_is_a_tenants_own() -> None:
    kept = Conversations(FakeClock())
    one = kept.get("acme", "1")
    token = one.token("PERSON", "Anna")
    assert kept.get("acme", "1") is one
    for tenant, name in (("other", "1"), ("acme", "2"), ("", "acme1"), ("acme1", ""), ("acme", "")):
        assert kept.get(tenant, name).restore(token) == token
        assert kept.get(tenant, name).token("PERSON", "Anna") != token
    assert kept.get("acme", "") is not kept.get("acme", "")


def test_the_one_that_was_not_used_for_longest_is_forgotten() -> None:
    kept = Conversations(FakeClock(), max_conversations=2)
    first, second = kept.get("", "1"), kept.get("", "2")
    kept.get("", "1")
    kept.get("", "3")
    assert kept.get("", "1") is first
    assert kept.get("", "2") is not second
    assert repr(kept) == "<Conversations 2>"


def test_one_that_was_not_used_for_its_time_is_forgotten() -> None:
    clock = FakeClock()
    kept = Conversations(clock, ttl_s=60)
    first = kept.get("", "1")
    clock.advance(59)
    assert kept.get("", "1") is first
    clock.advance(59)
    assert kept.get("", "1") is first
    clock.advance(60)
    assert kept.get("", "1") is not first
    assert first.restore(first.token("PERSON", "Anna")) == "Anna"  # who holds it goes on


def test_with_a_key_a_conversation_that_was_forgotten_gives_the_same_tokens() -> None:
    tokens = {Conversations(FakeClock(), key="env:SCRUB_KEY").get("a", "1").token("PERSON", "Anna") for _ in range(2)}
    assert len(tokens) == 1
    others = [
        ("env:SCRUB_KEY", "a", "2"),
        ("env:SCRUB_KEY", "b", "1"),
        ("env:OTHER_KEY", "a", "1"),
        ("env:SCRUB_KEY", "", "a1"),
    ]
    for ref, tenant, name in others:
        assert Conversations(FakeClock(), key=ref).get(tenant, name).token("PERSON", "Anna") not in tokens
    fresh = Conversations(FakeClock(), key="env:SCRUB_KEY")
    assert fresh.get("a", "").token("PERSON", "Anna") != fresh.get("a", "").token("PERSON", "Anna")


def test_a_key_that_is_none_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRUB_KEY", "short and secret")
    with pytest.raises(ConfigError, match="32 bytes in base64") as caught:
        Conversations(FakeClock(), key="env:SCRUB_KEY")
    assert "short" not in str(caught.value)


# The file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state"


def opened(file: Path, key: str = "env:SCRUB_KEY", **more: Any) -> Conversations:
    return Conversations(FakeClock(), file=file, key=key, **more)


@pytest.fixture
def saved(file: Path) -> Iterator[str]:
    """A file that knows Anna; her token."""
    with opened(file) as kept:
        token = kept.get("acme", "1").token("PERSON", "Anna")
    yield token


def test_what_was_saved_is_there_after_a_restart(file: Path) -> None:
    with opened(file) as kept:
        one = kept.get("acme", "1")
        tokens = [one.token(type, value) for type, value, _ in KNOWN]
        same = one.token("PERSON", "Anna B", "someone")
        one.cover("<AB_1:abcdefgh> and AB_2:abcdefgj", [])
        before = one.dump()
    with opened(file) as kept:
        one = kept.get("acme", "1")
        assert one.dump() == before
        assert [one.restore(token) for token in tokens] == [value for _, value, _ in KNOWN]
        assert [one.token(type, value) for type, value, _ in KNOWN] == tokens
        assert one.token("PERSON", "B, Anna", "someone")[:-9] == same[:-9]
        assert one.token("PERSON", "nobody yet")[:-9] not in {token[:-9] for token in [*tokens, same]}


def test_the_file_shows_nothing_and_is_its_owners(file: Path, saved: str) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sealed = file.read_bytes()
    assert not any(word in sealed for word in (b"Anna", b"acme", b"PERSON", saved[-9:-1].encode()))
    assert sorted(path.name for path in file.parent.iterdir()) == ["state", "state.lock"]


def test_each_write_has_a_nonce_of_its_own_and_happens_only_when_something_changed(file: Path) -> None:
    seen = []
    with opened(file) as kept:
        for name in ("Anna", "Berta"):
            kept.get("", "1").token("PERSON", name)
            kept.save()
            seen.append(file.read_bytes())
            kept.save()
            assert file.read_bytes() == seen[-1]
    assert seen[0][4:16] != seen[1][4:16]


def test_another_key_is_an_error_and_the_file_stays(file: Path, saved: str) -> None:
    sealed = file.read_bytes()
    with pytest.raises(ConfigError, match=r"cannot be used: this key did not write it, or it was changed; give its key"):
        opened(file, "env:OTHER_KEY")
    assert file.read_bytes() == sealed
    with opened(file) as kept:  # and its lock was let go
        assert kept.get("acme", "1").restore(saved) == "Anna"


@pytest.mark.parametrize("where", [0, 3, 4, 15, 16, 40, -17, -1])
def test_a_changed_byte_is_an_error(file: Path, saved: str, where: int) -> None:
    sealed = bytearray(file.read_bytes())
    sealed[where] ^= 1
    file.write_bytes(sealed)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        opened(file)
    assert "Anna" not in repr(caught.value)


@pytest.mark.parametrize("size", [0, 1, 4, 16, 31, 32, -1])
def test_a_file_that_was_cut_short_is_an_error_and_no_empty_start(file: Path, saved: str, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ConfigError, match="cannot be used"):
        opened(file)


@pytest.mark.parametrize(
    "kept", [b"", b"[]", b"{}", b'{"version":2,"conversations":[]}', b'{"version":1,"conversations":[{}]}']
)
def test_what_another_version_wrote_is_an_error(file: Path, kept: bytes) -> None:
    from gateway_scrub.state_file import StateFile
    from gateway_scrub.tokens import derive

    other = StateFile(file, derive(base64.b64decode(os.environ["SCRUB_KEY"]), b"gateway-scrub file"))
    other.write(kept)
    other.close()
    with pytest.raises(ConfigError, match="another version") as caught:
        opened(file)
    assert caught.value.__context__ is None


def test_a_directory_in_its_place_is_an_error(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigError, match="no regular file"):
        opened(file)


def test_a_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its lock cannot be made: No such file"):
        opened(tmp_path / "missing" / "state")


def test_a_file_without_a_key_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="needs a key"):
        Conversations(FakeClock(), file=file)


def test_a_write_that_fails_leaves_what_was_there(file: Path, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = file.read_bytes()
    with opened(file) as kept:
        kept.get("", "2").token("PERSON", "Berta")

        def refused(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refused)
            with pytest.raises(ScrubError, match="cannot be written: No space left"):
                kept.save()
        assert file.read_bytes() == sealed
        assert sorted(path.name for path in file.parent.iterdir()) == ["state", "state.lock"]
        kept.save()
        assert file.read_bytes() != sealed


def test_the_bounds_hold_for_what_is_read_too(file: Path) -> None:
    clock = FakeClock()
    with Conversations(clock, file=file, key="env:SCRUB_KEY", ttl_s=60) as kept:
        old = kept.get("", "old").token("PERSON", "Anna")
        clock.advance(30)
        new = kept.get("", "new").token("PERSON", "Anna")
    clock.advance(31)
    with Conversations(clock, file=file, key="env:SCRUB_KEY", ttl_s=60) as kept:
        assert kept.get("", "old").restore(old) == old
        assert kept.get("", "new").restore(new) == "Anna"
    with opened(file, max_conversations=1) as kept:
        assert repr(kept) == "<Conversations 1>"


def in_use(path: str, key: str, told: Any) -> None:
    os.environ["SCRUB_KEY"] = key
    try:
        opened(Path(path)).close()
        told.send("opened")
    except ConfigError as error:
        told.send(str(error))


def test_a_second_process_is_refused_until_the_first_is_done(file: Path, saved: str) -> None:
    def second() -> str:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        key = os.environ["SCRUB_KEY"]
        process = multiprocessing.get_context("fork").Process(target=in_use, args=(str(file), key, theirs))
        process.start()
        told: str = ours.recv()
        process.join()
        return told

    with opened(file):
        with pytest.raises(ConfigError, match="in use by another process"):
            opened(file)  # as another object of this process is
        assert "in use by another process: give each process a file of its own" in second()
    assert second() == "opened"


@given(texts())
@settings(max_examples=50, deadline=None)
def test_a_dump_goes_through_json(text: str) -> None:
    one, other = Conversation(KEY), Conversation(KEY)
    sent = one.cover(text, [span(0, len(text))] if text else [])
    other.load(json.loads(json.dumps(one.dump())))
    assert other.restore(sent) == text
    assert other.dump() == one.dump()
