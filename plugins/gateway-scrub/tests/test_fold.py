"""Folded text: what is folded, and the way back to the original."""

from __future__ import annotations

import random

from gateway_scrub.fold import Folded


def test_full_width_dashes_and_blanks_are_folded_and_other_signs_stay() -> None:
    folded = Folded("\uff11\uff12\u20133\u00a0\uff21\uff20\uff42\u3000\uff08\uff0b\uff09\uff0c\u3002 \u201cx\u201d")
    assert folded.text == "12-3 A@b (+)\uff0c\u3002 \u201cx\u201d"
    assert Folded("a\u2011b\u2212c").text == "a-b-c"
    assert Folded("plain").text == "plain"


def test_a_stretch_leads_back_to_the_original_with_what_was_hidden_in_it() -> None:
    chance = random.Random(3)
    hidden = "\u200b\u200d\u00ad\ufeff\U000e0041"
    for _ in range(300):
        original = "".join(chance.choice("ab1\u4e00\uff11\U0001f600" + hidden) for _ in range(chance.randint(1, 30)))
        folded = Folded(original)
        kept = [at for at, char in enumerate(original) if char not in hidden]
        assert len(folded.text) == len(folded.lower) == len(kept)
        for at, place in enumerate(kept):
            assert folded.span(at, at + 1) == (place, place + 1)


def test_whether_a_text_has_characters_of_east_asia() -> None:
    assert Folded("张").east and Folded("ｱ").east and Folded("김").east and Folded("\u3012").east
    assert not Folded("Ünïcode \u2013 \u201cquoted\u201d \U0001f600").east
