"""Decision: who was chosen, and for every model each policy's judgement. Prints as a table, HTML or JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Veto:
    """A refusal by one rule: what was seen and what was allowed, in words that a user can act on.

    `allowed` is empty where `seen` says it all. `policy` is filled in by the gateway with the name of the policy that refused.
    """

    rule: str
    seen: str
    allowed: str = ""
    policy: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.seen} (allowed: {self.allowed})" if self.allowed else f"{self.rule}: {self.seen}"


@dataclass(slots=True)  # not frozen: dozens are made for each request, and freezing doubles the cost of making one
class Score:
    """One addend of a model's utility, in USD (negative is worse). `seen` is the fact behind it, in `unit`."""

    usd: float
    seen: float | None = None
    unit: str = ""


@dataclass(slots=True)
class Candidate:
    """One model as it was judged. `utility` is the sum of the scores in USD; vetoed models have none."""

    model: str
    place: str = ""
    vetoes: tuple[Veto, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    utility: float | None = None


@dataclass(slots=True)  # as Score
class Decision:
    """The outcome of routing one request: `chosen` (None: nobody), then `ranked`, best first, then all judged.

    `notes` say what else matters, such as a transform that is installed but left out.
    """

    task: str
    chosen: str | None
    ranked: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()

    def candidate(self, model: str) -> Candidate:
        """The judgement of one model. KeyError when it was not judged."""
        for candidate in self.candidates:
            if candidate.model == model:
                return candidate
        raise KeyError(model)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every judgement included."""
        return {
            "task": self.task,
            "chosen": self.chosen,
            "ranked": list(self.ranked),
            "candidates": [
                {
                    "model": c.model,
                    "place": c.place,
                    "utility_usd": c.utility,
                    "scores": {name: {"usd": s.usd, "seen": s.seen, "unit": s.unit} for name, s in c.scores.items()},
                    "vetoes": [{"policy": v.policy, "rule": v.rule, "seen": v.seen, "allowed": v.allowed} for v in c.vetoes],
                }
                for c in self.candidates
            ],
            "notes": list(self.notes),
        }

    def json(self) -> str:
        """`to_json` as text."""
        return json.dumps(self.to_json(), ensure_ascii=False)

    def __str__(self) -> str:
        header, rows, notes = self._cells()
        widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
        ruled = [header, ["-" * width for width in widths], *rows]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in ruled]
        return "\n".join(line.rstrip() for line in [*lines, *notes])

    def _repr_html_(self) -> str:
        header, rows, notes = self._cells()

        def line(cells: list[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        table = "".join([line(header, "th"), *(line(row, "td") for row in rows)])
        return f"<table>{table}</table>" + "".join(f"<p>{html.escape(note)}</p>" for note in notes)

    def _cells(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Header, one row a model (the chosen first, then by rank, then the refused), and closing notes."""
        columns = sorted({name for c in self.candidates for name in c.scores})
        place_of = {name: rank for rank, name in enumerate(self.ranked)}
        ordered = sorted(self.candidates, key=lambda c: (place_of.get(c.model, len(place_of)), c.model))
        rows = []
        for c in ordered:
            verdict = "chosen" if c.model == self.chosen else "refused" if c.vetoes else "fallback"
            total = "" if c.utility is None else _usd(c.utility)
            scores = [_score_cell(c.scores.get(name)) for name in columns]
            rows.append([c.model, c.place, verdict, total, *scores, "; ".join(str(v) for v in c.vetoes)])
        notes = list(self.notes)
        if self.chosen is None:
            notes.insert(0, f"no model can serve this {self.task} request")
        return ["model", "place", "verdict", "utility $", *columns, "why not"], rows, notes


def _score_cell(score: Score | None) -> str:
    if score is None:
        return ""
    return _usd(score.usd) + (f" ({score.seen:.3g} {score.unit})" if score.seen is not None else "")


def _usd(value: float) -> str:
    return f"{value:+.6f}" if round(value, 6) else "0"
