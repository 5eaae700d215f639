"""Decision: as a table, as HTML that shows names as text, and as JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway import Attempt, Candidate, Chat, Decision, Gateway, Meta, Need, Price, Score, Trace, Veto
from gateway.testing import Echo

DECISION = Decision(
    "chat",
    "small",
    (
        Candidate("small", "process", (), {"cost": Score(0.0), "quality": Score(0.009, 0.9, "of 1")}, 0.009),
        Candidate("big", "hosted", (), {"cost": Score(-0.002, 0.002, "USD"), "quality": Score(0.01)}, 0.008),
        Candidate("zed", "hosted", (Veto("place", "hosted", "process, host", "place"), Veto("size", "9e+09", "8e+09", "size"))),
    ),
    ("transform 'scrub' is installed but left out",),
)


def worth(model: str, **usd: float) -> Candidate:
    """A model that may be asked, with these scores."""
    return Candidate(model, "host", (), {name: Score(value) for name, value in usd.items()}, sum(usd.values()))


def decided(*candidates: Candidate, **facts: Any) -> Decision:
    return Decision("chat", candidates[0].model, candidates, **facts)


def test_it_says_in_words_why_one_was_chosen_then_shows_all_that_may_be_asked_then_who_may_not_and_why() -> None:
    assert str(DECISION).splitlines() == [
        "small is chosen, worth $0.0090 = quality (0.9 of 1) $0.0090",
        "if it fails, big is next, worth $0.0010 less (cost -$0.0020, quality +$0.0010)",
        "",
        "model  place    verdict   utility  cost                  quality",
        "-----  -------  --------  -------  --------------------  -------------------",
        "small  process  chosen    $0.0090  $0                    +$0.0090 (0.9 of 1)",
        "big    hosted   fallback  $0.0080  -$0.0020 (0.002 USD)  +$0.0100",
        "",
        "refused  place   why not",
        "-------  ------  --------------------------------------",
        "zed      hosted  place: hosted (allowed: process, host)",
        "                 size: 9e+09 (allowed: 8e+09)",
        "",
        "transform 'scrub' is installed but left out",
    ]


def test_gains_are_told_before_losses_and_the_greater_of_each_first() -> None:
    text = str(decided(worth("a", cost=-0.001, latency=-0.002, luck=0.001, quality=0.01)))
    assert text.splitlines()[0] == (
        "a is chosen, worth $0.0080 = quality $0.0100 + luck $0.0010 - latency $0.0020 - cost $0.0010"
    )
    assert "if it fails, nobody else may be asked" in text
    assert "a is chosen, worth -$0.0010 = - cost $0.0010" in str(decided(worth("a", cost=-0.001)))
    assert "a is chosen, worth $0\n" in str(decided(worth("a")))


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (0.0214, "$0.0214"), (-0.0214, "-$0.0214"), (1.5, "$1.5000"), (1234.0, "$1234.0000"), (0.00095, "$0.00095"),
        (0.000123, "$0.00012"), (0.0001, "$0.0001"), (0.0000123, "$0.000012"), (0.0000004, "$0"), (0.0, "$0"),
    ],
)  # fmt: skip
def test_money_has_as_many_digits_as_tell_models_apart(usd: float, shown: str) -> None:
    row = str(decided(worth("a", cost=usd))).splitlines()[5]
    assert row.split()[3] == shown


def test_who_would_be_asked_next_is_told_and_of_many_only_how_many() -> None:
    many = [worth(f"m{n}", quality=0.9 - n / 10) for n in range(6)]
    assert "m1 is next, worth $0.1000 less (quality -$0.1000); then m2, m3, m4 and 1 more" in str(decided(*many))
    assert str(decided(*many[:3])).splitlines()[1].endswith("; then m2")


def test_one_that_is_worth_more_and_was_not_chosen_is_owned_up_to() -> None:
    equal = decided(worth("a", quality=0.5), worth("b", quality=0.5))
    assert "b is next, worth as much\n" in str(equal)
    near = decided(worth("a", quality=0.5), worth("b", quality=0.5001))
    assert " ".join(str(near).split()[:40]).count("worth $0.0001 more (quality +$0.0001), but chance decides") == 1


def test_a_conversation_stays_where_it_is_known_and_it_says_so() -> None:
    models = [Echo("a", quality=0.9), Echo("b", quality=0.94)]
    request, meta = Chat.ask("hi"), Meta(conversation="c")
    with Gateway(models) as gw:
        gw.run(request, Need(model="a"), meta=meta)
        assert "but a knows this conversation" in " ".join(str(gw.explain(request, meta=meta)).split())


def test_the_route_comes_first_and_no_other_note_does() -> None:
    told = "route fast (asked for): quick answers"
    lines = str(decided(worth("a"), notes=(told, "a note"), route="fast")).splitlines()
    assert (lines[0], lines.count(told), lines[-1]) == (told, 1, "a note")
    assert str(decided(worth("a"), notes=("a note",), route="fast")).splitlines()[0] == "route fast"


def test_a_refusal_that_was_waived_is_told() -> None:
    late = Candidate("a", "host", (), {}, 0.0, (Veto("deadline", "up to 9 s", "1 s is left"),))
    assert "waived for a, since nobody else is left: deadline: up to 9 s (allowed: 1 s is left)" in str(decided(late))


def test_who_is_asked_after_all_others_is_told_only_when_there_are_no_others() -> None:
    waived = Veto("last_resort", "asked only when no other model may be", waivable=True)
    toy, gone = Candidate("toy", "host", (waived,)), Candidate("gone", "host", (waived, Veto("need.place", "host")))
    assert "if it fails, last_resort is waived for toy" in str(decided(worth("a"), toy, gone))
    assert "toy      host   last_resort: asked only when no other model may be" in str(decided(worth("a"), toy, gone))
    assert "if it fails, b is next" in str(decided(worth("a"), worth("b"), toy))
    assert "if it fails, nobody else may be asked" in str(decided(worth("a"), gone))


def test_three_models_fit_on_a_hundred_columns_and_so_does_every_sentence() -> None:
    models = [
        Echo("provider-large-v3", place="hosted", quality=0.95, price=Price(input=3, output=15), per_token_s=0.015),
        Echo("provider-small-v3", place="hosted", quality=0.7, price=Price(input=0.1, output=0.4), per_token_s=0.004),
        Echo("local-8b", place="host", quality=0.6, per_token_s=0.02),
    ]
    with Gateway(models) as gw:
        text = str(gw.explain(Chat.ask("hi", max_tokens=300)))
    assert text.count("fallback") == 2 and max(map(len, text.splitlines())) <= 100


def test_a_veto_with_nothing_to_allow_says_only_what_was_seen() -> None:
    assert str(Veto("describe", "environment variable KEY is not set")) == "describe: environment variable KEY is not set"
    assert str(Veto("place", "hosted", "process")) == "place: hosted (allowed: process)"


def test_when_nobody_is_chosen_it_says_so() -> None:
    refused = Decision("embed", None, (Candidate("zed", "hosted", (Veto("task", "embed", "chat"),)),))
    assert str(refused).splitlines()[0] == "no model can serve this embed request"
    assert "no model can serve this embed request" in refused._repr_html_()
    assert str(Decision("chat", None, ())) == "no model can serve this chat request"


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_shows_every_name_as_text_and_never_as_markup() -> None:
    evil = "<script>alert('x')</script>&"
    decision = Decision(
        evil,
        evil,
        (
            Candidate(evil, evil, (), {evil: Score(1.0, 1.0, evil)}, 1.0),
            Candidate("b", evil, (Veto(evil, evil, evil, evil),)),
        ),
        (evil,),
    )
    page = Tags(decision._repr_html_())
    assert page.tags == {"table", "tr", "th", "td", "p"}
    assert page.text.count(evil) == 5  # the model, two places, the name of its score, the note


def test_json_holds_every_judgement() -> None:
    out = json.loads(DECISION.json())
    assert out == DECISION.to_json()
    assert out["chosen"] == "small" and out["ranked"] == ["small", "big"]
    size = {"policy": "size", "rule": "size", "seen": "9e+09", "allowed": "8e+09", "waivable": False}
    assert out["candidates"][2]["vetoes"][1] == size
    assert out["candidates"][1]["scores"]["cost"] == {"usd": -0.002, "seen": 0.002, "unit": "USD"}
    assert out["candidates"][0]["utility_usd"] == 0.009


def test_a_candidate_is_found_by_name() -> None:
    assert DECISION.candidate("zed").vetoes[0].policy == "place"
    with pytest.raises(KeyError):
        DECISION.candidate("nobody")


def test_a_trace_reads_as_a_summary_and_one_line_an_attempt() -> None:
    trace = Trace(
        model="small",
        attempts=(Attempt(model="big", seconds=1.0, error="Overloaded", message="busy"), Attempt(model="small", seconds=0.5)),
        seconds=1.5,
        first_token_s=0.25,
        cost_usd=0.001,
        notes=("scrub: 1 EMAIL",),
        decision=DECISION,
    )
    assert str(trace).splitlines() == [
        "small  1.500 s  $0.001000  first token 0.250 s",
        "  1. big  1.000 s  Overloaded: busy",
        "  2. small  0.500 s  answered",
        "  scrub: 1 EMAIL",
    ]
    assert "Decision" not in repr(trace)


def test_a_trace_says_of_a_cost_that_is_not_known_that_it_is_not() -> None:
    trace = Trace(model="big", attempts=(Attempt(model="big", cost_usd=None),), cost_usd=None)
    assert str(trace).splitlines() == ["big  0.000 s  price unknown", "  1. big  0.000 s  price unknown  answered"]
