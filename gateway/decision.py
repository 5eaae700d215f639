"""Decision: who was chosen, and for every model each policy's judgement. Prints as a table, HTML or JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMED = 3
"""So many of those that would be asked last are told by name."""


@dataclass(frozen=True, slots=True)
class Veto:
    """A refusal by one rule: what was seen and what was allowed, in words that a user can act on.

    `allowed` is empty where `seen` says it all. `policy` is filled in by the gateway with the name of the policy that refused.
    A `waivable` one is lifted when nobody is left otherwise, as for a deadline that no model is likely to meet.
    """

    rule: str
    seen: str
    allowed: str = ""
    policy: str = ""
    waivable: bool = False

    def __str__(self) -> str:
        return f"{self.rule}: {self.seen} (allowed: {self.allowed})" if self.allowed else f"{self.rule}: {self.seen}"


@dataclass(slots=True)  # not frozen: thousands are made in a second, and freezing doubles the cost of making one
class Score:
    """One addend of a model's utility, in USD (negative is worse). `seen` is the fact behind it, in `unit`.

    `input_usd` and `output_usd` are added for each token of the request and of the expected answer, `busy_usd` for each
    request that the model has in flight when it is chosen: so one score serves requests of every size. Where `seen` is what
    the money pays for, `unit_usd` is the price of one unit of it.
    """

    usd: float
    seen: float | None = None
    unit: str = ""
    input_usd: float = 0.0
    output_usd: float = 0.0
    busy_usd: float = 0.0
    unit_usd: float = 0.0

    def at(self, input_tokens: float, output_tokens: float, in_flight: int) -> Score:
        """The score of one request."""
        usd = self.usd + self.input_usd * input_tokens + self.output_usd * output_tokens + self.busy_usd * in_flight
        return Score(usd, usd / self.unit_usd if self.unit_usd else self.seen, self.unit)


@dataclass(slots=True)
class Candidate:
    """One model as it was judged. `utility` is the sum of the scores in USD; vetoed models have none.

    `waived` are refusals that were lifted, since nobody was left otherwise.
    """

    model: str
    place: str = ""
    vetoes: tuple[Veto, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    utility: float | None = None
    waived: tuple[Veto, ...] = ()


class Decision:
    """The outcome of routing one request: `chosen` (None: nobody), then who would be asked next, best first, then all judged.

    What was decided is there at once; `ranked` and `candidates` are worked out when they are looked at, from what was known
    when it was decided. `route` names the route of the configuration that was followed. `notes` say what concerns no single
    model, such as a transform that is installed but left out.
    """

    __slots__ = ("_candidates", "basis", "chosen", "notes", "route", "task")

    def __init__(
        self,
        task: str,
        chosen: str | None,
        candidates: tuple[Candidate, ...] | None = None,
        notes: tuple[str, ...] = (),
        route: str = "",
        basis: Any = None,
    ) -> None:
        self.task = task
        self.chosen = chosen
        self.notes = notes
        self.route = route
        self._candidates = candidates
        self.basis = basis

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every model as it was judged: those that may be asked, best first, then the refused."""
        if self._candidates is None:
            self._candidates = self.basis.candidates() if self.basis is not None else ()
        return self._candidates

    @property
    def ranked(self) -> tuple[str, ...]:
        """The chosen model, and those that would be asked after it, best first."""
        return tuple(one.model for one in self.candidates if one.utility is not None)

    def record(self) -> dict[str, Any]:
        """All that this decision was made from, as plain JSON values, and the decision: `gateway replay` makes it again.

        It holds the names and facts of the models, sizes and needs of the request, tenant's and conversation's names, and the
        policy's settings; no content.
        ValueError for a decision that has come from another process.
        """
        if self.basis is None:
            raise ValueError(
                "this decision has been pickled or came over the wire: only the process that made it has its record"
            )
        made: dict[str, Any] = self.basis.record(self)
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # For the wire form, see gateway.wire; pydantic is there when that is.
        from pydantic_core import core_schema as schema

        form = handler.generate_schema(_Form)
        told = schema.plain_serializer_function_ser_schema(_Form.of, return_schema=form)
        made = schema.no_info_after_validator_function(lambda form: cls(**vars(form)), form)
        return schema.json_or_python_schema(
            json_schema=made, python_schema=schema.union_schema([schema.is_instance_schema(cls), made]), serialization=told
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task, self.chosen, self.candidates, self.notes, self.route)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Decision(task={self.task!r}, chosen={self.chosen!r})"

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
            "route": self.route,
            "chosen": self.chosen,
            "ranked": list(self.ranked),
            "candidates": [
                {
                    "model": c.model,
                    "place": c.place,
                    "utility_usd": c.utility,
                    "scores": {name: {"usd": s.usd, "seen": s.seen, "unit": s.unit} for name, s in c.scores.items()},
                    "vetoes": [_veto_json(v) for v in c.vetoes],
                    "waived": [_veto_json(v) for v in c.waived],
                }
                for c in self.candidates
            ],
            "notes": list(self.notes),
        }

    def json(self) -> str:
        """`to_json` as text."""
        return json.dumps(self.to_json(), ensure_ascii=False)

    def __str__(self) -> str:
        told = self.told()
        lead = [line for text in told.lead for line in _folded(text)]
        parts = [lead, *(_aligned(table) for table in (told.judged, told.refused) if table), [*told.rest]]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _repr_html_(self) -> str:
        told = self.told()
        return "".join([*map(_paragraph, told.lead), _table(told.judged), _table(told.refused), *map(_paragraph, told.rest)])

    def told(self) -> Told:
        """The decision in words and tables, for people."""
        way = [note for note in self.notes if self.route and note.startswith(f"route {self.route} ")][:1]
        lead = way or ([f"route {self.route}"] if self.route else [])
        if self.chosen is None:
            lead.append(f"no model can serve this {self.task} request")
        else:
            chosen = next((one for one in self.candidates if one.model == self.chosen), Candidate(self.chosen))
            others = [one for one in self.candidates if one.utility is not None and one is not chosen]
            last = [one for one in self.candidates if one.vetoes and all(veto.waivable for veto in one.vetoes)]
            waived = [f"waived for {chosen.model}, since nobody else is left: {veto}" for veto in chosen.waived]
            lead += [_why_chosen(chosen), *waived, _what_next(chosen, others, last, self.basis)]
        return Told(
            lead=tuple(lead),
            judged=_judged([one for one in self.candidates if not one.vetoes], self.chosen),
            refused=_refused([one for one in self.candidates if one.vetoes]),
            rest=tuple(note for note in self.notes if note not in way),
        )


Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A decision for people: sentences, a table of those that may be asked, a table of the refused, and notes.

    A table is its header and its rows; () when it would be empty.
    """

    lead: tuple[str, ...]
    judged: Rows
    refused: Rows
    rest: tuple[str, ...]


@dataclass(kw_only=True)
class _Form:
    """A decision as it goes over the wire."""

    task: str
    chosen: str | None
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    route: str = ""

    @classmethod
    def of(cls, decision: Decision) -> _Form:
        """Without what only the process that decided has."""
        return cls(task=decision.task, chosen=decision.chosen, candidates=decision.candidates, notes=decision.notes,
                   route=decision.route)  # fmt: skip


def _veto_json(veto: Veto) -> dict[str, Any]:
    return {"policy": veto.policy, "rule": veto.rule, "seen": veto.seen, "allowed": veto.allowed, "waivable": veto.waivable}


def _why_chosen(chosen: Candidate) -> str:
    """What the chosen one is worth, and by what."""
    said = f"{chosen.model} is chosen"
    if chosen.utility is not None:
        parts = sorted(chosen.scores.items(), key=lambda part: (-part[1].usd, part[0]))
        gains = [f"{name}{_fact(score)} {_usd(score.usd)}" for name, score in parts if _shown(score.usd) and score.usd > 0]
        losses = [f"{name}{_fact(score)} {_usd(-score.usd)}" for name, score in reversed(parts)
                  if _shown(score.usd) and score.usd < 0]  # fmt: skip
        sums = " + ".join(gains) + "".join(f" - {one}" for one in losses)
        said += f", worth {_usd(chosen.utility)}" + (f" = {sums.removeprefix(' ')}" if sums else "")
    return said


def _what_next(chosen: Candidate, others: Sequence[Candidate], last: Sequence[Candidate], basis: Any) -> str:
    """Who would be asked if the chosen one failed, and how near the first of them came. `last` are asked after all of them."""
    if not others and last:
        names, rules = [one.model for one in last[:NAMED]], {veto.rule: None for one in last for veto in one.vetoes}
        return f"if it fails, {' and '.join(rules)} is waived for {' or '.join(names)}"
    if not others:
        return "if it fails, nobody else may be asked"
    first, rest = others[0], [one.model for one in others[1:]]
    said = f"if it fails, {first.model} is next{_compared(chosen, first, basis)}"
    if rest:
        more = f" and {len(rest) - NAMED} more" if len(rest) > NAMED else ""
        said += f"; then {', '.join(rest[:NAMED])}{more}"
    return said


def _compared(chosen: Candidate, other: Candidate, basis: Any) -> str:
    if chosen.utility is None or other.utility is None:
        return ""
    apart = other.utility - chosen.utility
    if not _shown(apart):
        return ", worth as much"
    names = {*chosen.scores, *other.scores}
    differ = {name: _part(other, name) - _part(chosen, name) for name in names}
    parts = sorted((name for name in names if _shown(differ[name])), key=lambda name: (-abs(differ[name]), name))
    by = ", ".join(f"{name} {_usd(differ[name], sign=True)}" for name in parts)
    more = f", worth {_usd(abs(apart))} {'more' if apart > 0 else 'less'}" + (f" ({by})" if by else "")
    return more + (f", but {_despite(chosen, apart, basis)}" if apart > 0 else "")


def _despite(chosen: Candidate, apart: float, basis: Any) -> str:
    """Why one that is worth a little less was chosen, as far as that is known here."""
    if basis is not None and basis.warm == chosen.model:
        return f"{chosen.model} knows this conversation"
    if basis is not None and apart > basis.router.config.band and basis.row in basis.ranking.thin:
        return f"{chosen.model} is tried, to learn how well it does"
    return "chance decides between models that near"


def _part(one: Candidate, name: str) -> float:
    return one.scores[name].usd if name in one.scores else 0.0


def _judged(candidates: Sequence[Candidate], chosen: str | None) -> Rows:
    """Who may be asked: the chosen one, then the rest by rank."""
    columns = sorted({name for c in candidates for name in c.scores})
    rows = []
    for c in candidates:
        verdict = "chosen" if c.model == chosen else "fallback"
        total = "" if c.utility is None else _usd(c.utility)
        scores = [f"{_usd(s.usd, sign=True)}{_fact(s)}" if (s := c.scores.get(name)) else "" for name in columns]
        rows.append((c.model, c.place, verdict, total, *scores))
    return (("model", "place", "verdict", "utility", *columns), *rows) if rows else ()


def _refused(candidates: Sequence[Candidate]) -> Rows:
    """Who may not be asked: a row for each reason, the first with the model's name."""
    rows = []
    for c in candidates:
        for at, veto in enumerate(c.vetoes):
            rows.append((c.model, c.place, str(veto)) if at == 0 else ("", "", str(veto)))
    return (("refused", "place", "why not"), *rows) if rows else ()


def _aligned(table: Rows) -> list[str]:
    header, *rows = table
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in ruled]


def _folded(text: str) -> list[str]:
    """A sentence as lines of at most 100 columns, as far as names allow."""
    from textwrap import wrap  # for people: no decision that nobody looks at waits for it

    return wrap(text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(table: Rows) -> str:
    lines = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>"
        for tag, line in zip(("th", *("td" for _ in table[1:])), table, strict=False)
    ]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _fact(score: Score) -> str:
    return f" ({score.seen:.3g} {score.unit})" if score.seen is not None else ""


def _shown(usd: float) -> bool:
    """True for an amount that is not nothing when it is printed."""
    return round(usd, 6) != 0


def _usd(value: float, *, sign: bool = False) -> str:
    """$0.0214, or more digits where the first of them are zeros: a thousandth of a cent still tells models apart."""
    if not _shown(value):
        return "$0"
    size = abs(value)
    digits = 4 if size >= 0.001 else 5 if size >= 0.0001 else 6
    said = f"{size:.{digits}f}"
    said = said[:6] + said[6:].rstrip("0") if size < 1 else said
    return f"{'-' if value < 0 else '+' if sign else ''}${said}"
