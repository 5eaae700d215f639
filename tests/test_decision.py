"""Decision: as a table, as HTML that shows names as text, and as JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from gateway import Attempt, Candidate, Decision, Score, Trace, Veto

DECISION = Decision(
    "chat",
    "small",
    ("small", "big"),
    (
        Candidate("zed", "hosted", (Veto("place", "hosted", "process, host", "place"), Veto("size", "9e+09", "8e+09", "size"))),
        Candidate("big", "hosted", (), {"cost": Score(-0.002, 0.002, "USD"), "quality": Score(0.01)}, 0.008),
        Candidate("small", "process", (), {"cost": Score(0.0), "quality": Score(0.009, 0.9, "of 1")}, 0.009),
    ),
    ("transform 'scrub' is installed but left out",),
)


def test_the_table_shows_the_chosen_then_the_fallbacks_then_the_refused() -> None:
    lines = str(DECISION).splitlines()
    assert lines[0].split() == ["model", "place", "verdict", "utility", "$", "cost", "quality", "why", "not"]
    assert lines[2].startswith("small  process  chosen    +0.009000  0 ")
    assert lines[2].endswith("+0.009000 (0.9 of 1)")
    assert lines[3].split() == ["big", "hosted", "fallback", "+0.008000", "-0.002000", "(0.002", "USD)", "+0.010000"]
    assert lines[4].startswith("zed    hosted   refused ")
    assert lines[4].endswith("  place: hosted (allowed: process, host); size: 9e+09 (allowed: 8e+09)")
    assert lines[5:] == ["transform 'scrub' is installed but left out"]


def test_a_veto_with_nothing_to_allow_says_only_what_was_seen() -> None:
    assert str(Veto("describe", "environment variable KEY is not set")) == "describe: environment variable KEY is not set"
    assert str(Veto("place", "hosted", "process")) == "place: hosted (allowed: process)"


def test_every_column_is_aligned() -> None:
    lines = str(DECISION).splitlines()
    starts = [i for i in range(len(lines[1])) if lines[1][i] == "-" and (i == 0 or lines[1][i - 1] == " ")]
    for line in (lines[0], *lines[2:5]):
        assert all(i == 0 or i > len(line) or line[i - 2 : i].strip() == "" for i in starts)


def test_when_nobody_is_chosen_it_says_so() -> None:
    refused = Decision("embed", None, (), (Candidate("zed", "hosted", (Veto("task", "embed", "chat"),)),))
    assert "no model can serve this embed request" in str(refused)
    assert "no model can serve this embed request" in refused._repr_html_()
    assert "no model can serve this chat request" in str(Decision("chat", None, (), ()))


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
        evil, None, (), (Candidate(evil, evil, (Veto(evil, evil, evil, evil),), {evil: Score(1.0, 1.0, evil)}, None),), (evil,)
    )
    page = Tags(decision._repr_html_())
    assert page.tags == {"table", "tr", "th", "td", "p"}
    assert evil in page.text


def test_json_holds_every_judgement() -> None:
    out = json.loads(DECISION.json())
    assert out == DECISION.to_json()
    assert out["chosen"] == "small" and out["ranked"] == ["small", "big"]
    assert out["candidates"][0]["vetoes"][1] == {"policy": "size", "rule": "size", "seen": "9e+09", "allowed": "8e+09"}
    assert out["candidates"][1]["scores"]["cost"] == {"usd": -0.002, "seen": 0.002, "unit": "USD"}
    assert out["candidates"][2]["utility_usd"] == 0.009


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
