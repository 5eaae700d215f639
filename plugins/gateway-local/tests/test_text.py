"""Tokens to text: pieces add up, characters stay whole, stop strings never show; whatever the cuts."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_local.text import Detokenizer, StopFilter
from hypothesis import given
from hypothesis import strategies as st


def from_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def feed_all(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [*(detokenizer.feed(i) for i in ids), detokenizer.flush()]


@given(st.text(), st.text())
def test_pieces_of_a_text_are_whole_characters_that_add_up(prompt: str, text: str) -> None:
    pieces = feed_all(Detokenizer(from_bytes, prompt.encode()), text.encode())
    assert "".join(pieces) == text


@given(st.lists(st.integers(0, 255)))
def test_bytes_that_are_no_text_come_out_as_decoding_them_at_once_does(ids: list[int]) -> None:
    assert "".join(feed_all(Detokenizer(from_bytes), ids)) == from_bytes(ids)


def test_a_decoder_that_strips_the_first_space_keeps_it_between_pieces() -> None:
    words = ["<s>", " the", " cat", " sat"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[i] for i in ids if i).removeprefix(" ")

    assert feed_all(Detokenizer(decode, [0, 1]), [2, 3]) == [" cat", " sat", ""]
    assert feed_all(Detokenizer(decode), [0, 1, 2]) == ["", "the", " cat", ""]


def filtered(text: str, stops: Sequence[str], cuts: Sequence[int]) -> tuple[str, bool]:
    stop, out, at = StopFilter(stops), "", 0
    for cut in [*sorted(c for c in cuts if c < len(text)), len(text)]:
        out += stop.feed(text[at:cut])
        at = cut
    return out if stop.stopped else out + stop.flush(), stop.stopped


short = st.text("ab", max_size=12)
stops = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


@given(short, stops, st.lists(st.integers(0, 12)))
def test_stopping_does_not_depend_on_how_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    one_by_one = filtered(text, stops, range(len(text)))
    assert filtered(text, stops, cuts) == one_by_one
    shown, stopped = one_by_one
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(shown) and not any(stop in shown for stop in stops)
    assert stopped or shown == text


def test_what_may_become_a_stop_string_is_kept_back_and_no_more() -> None:
    stop = StopFilter(["END"])
    assert [stop.feed(piece) for piece in ("abE", "N", "x", "EE", "ND", "more")] == ["ab", "", "ENx", "E", "", ""]
    assert stop.stopped
