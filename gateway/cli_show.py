"""What the commands show: tables, JSON, a streamed answer. Colour only where a terminal can take it."""

from __future__ import annotations

import json
import mimetypes
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import zip_longest
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from gateway.bars import coloured, on_terminal
from gateway.card import ModelCard
from gateway.decision import Decision
from gateway.errors import (
    AttemptTimeout,
    GatewayError,
    MissingSecret,
    Unreachable,
    WeightsError,
)
from gateway.gateway import ModelStatus
from gateway.parts import Audio, File, Image, Media, ToolCall
from gateway.request import Response
from gateway.tasks import ChatResponse, EmbedResponse
from gateway.wire import to_wire

PIPE_CLOSED = 141
"""The exit code when nobody reads the output any more: 128 + SIGPIPE, as of a program that was killed by it."""

GOOD, BAD, QUIET = "green", "bold red", "dim"
STYLES = {
    "ok": GOOD, "ready": GOOD, "chosen": GOOD, "yes": GOOD,
    "wrong": BAD, "failed": BAD, "refused": "red",
    "cold": QUIET, "fallback": "cyan", "no": QUIET,
}  # fmt: skip

# What to do about an error of `check`, where its own message says only what is wrong.
CURES = {
    MissingSecret: "set it, or change the reference in the configuration",
    Unreachable: "check that it runs and that base_url is right",
    AttemptTimeout: "check that it runs and that base_url is right",
    WeightsError: "check `weights` and `key` in the configuration",
}

ABSENT = object()

# A model's answer must not drive the terminal: of the control characters only tab and newline pass.
CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def show_json(value: Any) -> None:
    """JSON: on one line in a pipe, indented on a terminal."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def show_note(text: str) -> None:
    """A line on standard error, dim where that is possible."""
    sys.stdout.flush()
    print(f"\x1b[2m{text}\x1b[0m" if coloured(sys.stderr) else text, file=sys.stderr, flush=True)


def show_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[str] = (),
    wrapped: Iterable[str] = ("tasks", "hooks", "what was found"),
) -> None:
    """A table without the columns that are empty: drawn to fit a terminal, plain columns of full width in a pipe.

    A terminal has no room for a column of errors: there each is a line below the table. `wrapped` columns give way when it is
    narrow.
    """
    table, notes = [[cell.translate(CONTROLS) for cell in row] for row in rows], []
    if on_terminal(sys.stdout) and "error" in header:
        at = header.index("error")
        notes = [f"{row[0]}: {row[at]}" for row in table if row[at]]
        for row in table:
            row[at] = ""
    kept = [i for i in range(len(header)) if any(row[i] for row in table)]
    header, table = [header[i] for i in kept], [[row[i] for i in kept] for row in table]
    if on_terminal(sys.stdout):
        _draw(header, table, set(right), set(wrapped))
    else:
        table = [[" ".join(cell.split("\n")) for cell in row] for row in table]
        widths = [max(len(row[i]) for row in (header, *table)) for i in range(len(header))]
        for row in (header, *table):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in notes:
        print(note)


def _draw(header: Sequence[str], rows: Sequence[Sequence[str]], right: set[str], wrapped: set[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, color_system="auto" if coloured(sys.stdout) else None)
    least = [max(len(_longest(row[i], header[i] in wrapped)) for row in (header, *rows)) for i in range(len(header))]
    if sum(least) + 2 * (len(least) - 1) > console.width:
        # Too narrow for columns: each row becomes a paragraph.
        for row in rows:
            print(row[0])
            print(
                "\n".join(f"  {name}: {' '.join(cell.split())}" for name, cell in zip(header[1:], row[1:], strict=True) if cell)
            )
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name not in wrapped, overflow="fold")
    for row in rows:
        cells = [Text(cell, style=STYLES.get(cell, "")) for cell in row]
        cells[0].stylize("bold" if len(row) > 1 and row[0] not in STYLES else "")
        table.add_row(*cells)
    console.print(table)


def _longest(cell: str, wraps: bool) -> str:
    """What of a cell must stand on one line."""
    return max(cell.split(), key=len, default="")[:20] if wraps else cell


def show_decision(decision: Decision) -> None:
    """The decision: its own text in a pipe; on a terminal with tables that fit it."""
    if not on_terminal(sys.stdout):
        for line in str(decision).split("\n"):
            print(line.translate(CONTROLS))
        return
    told = decision.told()
    for text in told.lead:
        print(text.translate(CONTROLS))
    for table in (told.judged, told.refused):
        if not table:
            continue
        width = sum(2 + max(len(row[i]) for row in table) for i in range(len(table[0]))) - 2
        if table is told.judged and width > get_terminal_size().columns:  # the facts go below the money
            table = tuple(tuple(cell.replace(" (", "\n(") for cell in row) for row in table)
        print()
        show_table(table[0], table[1:], right=["utility"], wrapped={*table[0][4:], "why not"})
    for number, text in enumerate(told.rest):
        print(("" if number else "\n") + text.translate(CONTROLS))


def status_row(status: ModelStatus) -> list[str]:
    """A model as it stands, for a table."""
    card, error = status.card, str(status.error or status.shut)
    if card is None:
        return [status.name, status.plugin, *[""] * 8, "failed", error]
    context = "" if card.context is None else f"{card.context:,}"
    facts = [card.place, ", ".join(sorted(task.task for task in card.tasks)), count(card.params), count(card.bytes, "B")]
    on = status.footprint
    where = "" if on is None else f"{on.device} {card.dtype or ''}".rstrip()
    queue = f"{on.running} run, {on.waiting} wait" if on is not None and on.running + on.waiting else ""
    return [status.name, status.plugin, *facts, where, context, _price(card), status.state or "", queue, error]


def _price(card: ModelCard) -> str:
    price = card.price_or_free()
    if price is None:
        return "unknown"
    per_request = f" +{price.request:g}/call" if price.request else ""
    return f"{price.input:g}/{price.output:g}{per_request}" if price.input or price.output or price.request else "free"


def offer_row(card: ModelCard) -> list[str]:
    """A model that an endpoint offers, for a table."""
    return [card.name, "" if card.context is None else f"{card.context:,}", _price(card)]


def status_json(status: ModelStatus) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "name": status.name,
        "plugin": status.plugin,
        "state": status.state or "failed",
        "card": status.card.to_json() if status.card else None,
        "in_flight": status.in_flight,
        "footprint": asdict(status.footprint) if status.footprint else None,
        "first_token_s": status.first_token_s,
        "per_token_s": status.per_token_s,
        "success": status.success,
        "shut": status.shut,
        "error": to_wire(status.error) if status.error else None,
    }


def check_row(name: str, plugin: str, result: str | GatewayError) -> list[str]:
    """What `check` found of a model, or of a route, which has no plugin."""
    if isinstance(result, GatewayError):
        return ["wrong", name, plugin, "; ".join(filter(None, (str(result), _cure(result))))]
    return ["ok", name, plugin, result]


def check_json(name: str, plugin: str, result: str | GatewayError) -> dict[str, Any]:
    """The same as JSON values."""
    facts: dict[str, Any] = {"model": name, "plugin": plugin}
    if isinstance(result, GatewayError):
        return {**facts, "ok": False, "found": str(result), "cure": _cure(result), "error": to_wire(result)}
    return {**facts, "ok": True, "found": result, "cure": "", "error": None}


def _cure(error: GatewayError) -> str:
    return next((cure for kind, cure in CURES.items() if isinstance(error, kind)), "")


def write_record(decision: Decision, path: Path) -> None:
    """Write all that a decision was made from, as JSON."""
    path.write_text(json.dumps(decision.record()) + "\n", encoding="utf-8")


def differences(recorded: Any, now: Any, where: str = "") -> list[str]:
    """Where two JSON values differ: a line each, with both. Empty when they are the same, byte for byte."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        steps = [(key, f"{where}.{key}" if where else str(key)) for key in {**recorded, **now}]
        return [line for key, step in steps for line in differences(recorded.get(key, ABSENT), now.get(key, ABSENT), step)]
    if isinstance(recorded, list) and isinstance(now, list):
        out = []
        for at, (one, other) in enumerate(zip_longest(recorded, now, fillvalue=ABSENT)):
            name = one.get("model", at) if isinstance(one, Mapping) else at
            out += differences(one, other, f"{where}[{name}]")
        return out
    one, other = ("nothing" if value is ABSENT else json.dumps(value, sort_keys=True) for value in (recorded, now))
    return [] if one == other else [f"{where}: recorded {one}, now {other}"]


class Answer:
    """A reply on its way to standard output; reasoning goes to standard error when it is asked for."""

    def __init__(self, *, reasoning: bool) -> None:
        self._reasoning = reasoning
        self._at_start = True
        self._thinking = False
        self._clean = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """More of the answer, at once."""
        if not text:
            return
        self._stop_thinking()
        self._at_start = text.endswith("\n")
        sys.stdout.write(text.translate(CONTROLS) if self._clean else text)
        sys.stdout.flush()

    def think(self, text: str) -> None:
        """More of the reasoning."""
        if not self._reasoning or not text:
            return
        if sys.stderr.isatty():
            text = text.translate(CONTROLS)
        self._thinking = True
        sys.stderr.write(f"\x1b[2m{text}\x1b[0m" if coloured(sys.stderr) else text)
        sys.stderr.flush()

    def end(self) -> None:
        """End the line that was begun."""
        self._stop_thinking()
        if not self._at_start:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._at_start = True

    def _stop_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            print("\n", file=sys.stderr, flush=True)


def show_reply(reply: Response, answer: Answer, *, task: str) -> None:
    """A whole reply in the form that suits its task: text, vectors as JSON lines, or its fields as JSON."""
    text = getattr(reply, "text", None)
    match reply:
        case ChatResponse():
            answer.think(reply.reasoning)
            answer.say(reply.text)
        case EmbedResponse():
            for vector in reply.vectors:
                print(json.dumps(vector))
        case _ if isinstance(text, str):
            answer.say(text)
        case _:
            show_json(own_fields(reply, task))
    answer.end()


def show_rest(reply: Response) -> None:
    """What of a reply is no text: tool calls, media, and why it ended early."""
    for part in reply.parts if isinstance(reply, ChatResponse) else ():
        if isinstance(part, ToolCall):
            print(f"{part.name}({part.arguments})".translate(CONTROLS))
    for part in media_of(reply):
        size = part.url if part.data is None else f"{len(part.data):,} bytes"
        show_note(f"[{part.media_type}, {size}: --out FILE writes it]")
    if getattr(reply, "finish", "") == "length":
        show_note("[cut off at the token limit]")


def show_last_resort(reply: Response) -> None:
    """Who has answered, where that is a model that is asked only when no other may be."""
    decision = reply.trace.decision if reply.trace is not None else None
    if decision is not None and any(veto.rule == "last_resort" for veto in decision.candidate(reply.model).waived):
        show_note(f"[answered by {reply.model}, a last resort: `gateway explain` and --trace tell why no other did]")


def own_fields(reply: Response, task: str) -> Mapping[str, Any]:
    """The fields that a task's response adds to those which every response has."""
    common = {f.name for f in fields(Response)}
    return {name: value for name, value in to_wire(reply, task=task).items() if name not in common | {"response"}}


def media_of(reply: Response) -> list[Media]:
    """Every image, sound and document in a reply."""
    out: list[Media] = []
    for f in fields(reply):
        value = getattr(reply, f.name)
        out += [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, (Image, Audio, File))]
    return out


def write_media(reply: Response, path: Path) -> list[str]:
    """Write the reply's media to `path`; the second and later ones get a number before the suffix. A line about each."""
    media = media_of(reply)
    if not media:
        raise GatewayError(f"the reply of {reply.model!r} holds no image, sound or document to write to {str(path)!r}")
    written = []
    for number, part in enumerate(media, 1):
        if part.data is None:
            raise GatewayError(f"the reply of {reply.model!r} gives its {part.type} as a URL, which is not fetched: {part.url}")
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        target.write_bytes(part.data)
        # What a model makes is its own choice: a name that says another kind would mislead.
        usual = (mimetypes.guess_type(target.name)[0] or "").replace("/x-", "/")
        written.append(f"wrote {target}" + (f", which is {part.media_type}" if usual != part.media_type else ""))
    return written


def count(number: float | None, suffix: str = "") -> str:
    """A count in three digits: 8.03B, 16.1G; "" when unknown."""
    if number is None:
        return ""
    units = ("", "K", "M", "G", "T") if suffix else ("", "K", "M", "B", "T")
    for unit in units[:-1]:
        if abs(number) < 999.5:
            return _three(number) + (f" {unit}{suffix}" if suffix else unit)
        number /= 1000
    return _three(number) + (f" {units[-1]}{suffix}" if suffix else units[-1])


def _three(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 and number != int(number) else f"{number:.0f}"


def silence() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, so that the interpreter's own flush at exit is quiet."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
