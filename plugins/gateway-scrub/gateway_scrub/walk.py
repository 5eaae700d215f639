"""Every text of a request or a response, of any task: seen, or replaced, each told with what kind of text it is.

What is walked is whatever the dataclasses hold: a field that is not known to be anything else is text. So a task or a field
that did not exist when this was written is covered, too. What it cannot look into it says, and does not pass over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, TypeVar
from uuid import UUID

from gateway import Audio, File, Image, Meta, Reasoning, Response, ToolCall, ToolResult

Kind = Literal["text", "fixed", "media", "unknown"]
"""``text`` may be replaced; what is ``fixed`` (a name, an id, a URL, the key of an object) would no longer work if it were;
``media`` cannot be looked into, and nor can an object of an ``unknown`` class: their text is empty."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A text of a request. `label` is the key that it has in an object, which says something of it, such as "phone"."""

    text: str = field(repr=False)
    kind: Kind = "text"
    where: str = field(default="", repr=False)
    label: str = field(default="", repr=False)
    number: bool = False
    """Whether it is a number of a JSON text."""


class Bare(str):
    """What a visitor makes of a string of a JSON text that is to stand there without quotes, such as a number."""

    __slots__ = ()


Visit = Callable[[Piece], str]
"""Given a piece, gives what is to stand there."""

T = TypeVar("T")

WORDS = frozenset({
    "type", "role", "media_type", "function_to_apply", "aggregation_strategy", "truncation", "reasoning_effort", "entity_group",
    "task", "src_lang", "tgt_lang", "language", "scheduler", "voice", "tool_choice",
})  # fmt: skip
"""Fields that say how, not what: a plain word there is one of the interface. Anything else is looked into."""
WORD = re.compile(r"[A-Za-z_/\-]{1,40}")
TEXTUAL = re.compile(r"text/|application/(?:[a-z.]+\+)?(?:json|xml|yaml|x-yaml|toml|x-ndjson|jsonl|javascript|sql)\b", re.I)
"""Media types of files that are text, and are looked into."""
FACTS = frozenset({"usage", "model", "trace", "quota", "dropped", "served_by", "finish", "logprobs", "parsed", "vectors"})
"""Fields of a response that hold no text of it."""
FIXED = frozenset({"id", "name", "url"})
"""Fields that are looked into, and cannot be replaced."""
SCHEMA_WORDS = frozenset({"$ref", "pattern", "format", "type", "required"})
"""Keys of a JSON Schema whose values are words of the schema itself."""
TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|-?[0-9][0-9.eE+\-]*')
"""A string of a JSON text, with the colon that makes it a key; or a whole number, with its fraction and its exponent."""
LEAST = 5
"""Digits from which on a number is looked at."""


def walk(value: T, visit: Visit, where: str = "") -> T:
    """A copy of a request, a response or a part of one, in which each text is what `visit` made of it.

    What did not change is the same object. Whatever `visit` raises comes through.
    """
    walked: T = _walk(value, visit, Piece("", where=where))
    return walked


def walk_json(text: str, visit: Visit, where: str) -> str:
    """A JSON text whose strings and long numbers are what `visit` made of them, and all else as it was, space by space.

    A number that changes becomes a string. Text that is no JSON is visited whole.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return visit(Piece(text, where=where))
    at, label = 0, ""
    out: list[str] = []
    for match in TOKEN.finditer(text):
        is_string, is_key = match.group(1) is not None, match.group(2) is not None
        inside = json.loads(f'"{match.group(1)}"') if is_string else _written_out(match.group())
        if not inside or (not is_string and sum(map(str.isdigit, inside)) < LEAST):
            continue
        if is_key:
            label = inside
        made = visit(Piece(inside, "fixed" if is_key else "text", where, "" if is_key else label, not is_string))
        if made != inside:
            out += [text[at : match.start()], made if isinstance(made, Bare) else quoted(made)]
            at = match.end()
    return "".join((*out, text[at:])) if out else text


def quoted(text: str) -> str:
    """A text as a string of JSON, which can be sent: half of a pair of surrogates cannot, and stays an escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def _written_out(number: str) -> str:
    """A number without its exponent, if it is a whole one that somebody may have: 1.3800138e10 is one of eleven digits."""
    if "e" in number.lower() and (value := float(number)).is_integer() and abs(value) < 1e25:
        return str(int(value))
    return number


def _walk(value: Any, visit: Visit, here: Piece) -> Any:
    where = here.where
    match value:
        case str():
            return visit(replace(here, text=value)) if value else value
        case ToolCall():
            return _part(value, visit, here, {"arguments": walk_json(value.arguments, visit, f"{where}.arguments")})
        case ToolResult():
            return _part(value, visit, here, {"text": walk_json(value.text, visit, f"{where}.text")})
        case Reasoning(signature=signature):
            text = visit(Piece(value.text, where=f"{where}.text")) if value.text else value.text
            # A signature is of the text as it was: with another text it is wrong, and worse than none.
            return value if text == value.text else replace(value, text=text, signature="" if signature else signature)
        case Image() | Audio() | File():
            name, data = value.name if isinstance(value, File) else "", value.data
            inner = _text_of(value)
            if inner is None:
                visit(Piece("", "media", where))
            elif (made := visit(Piece(inner, where=f"{where}.data"))) != inner:
                data = made.encode("utf-8", "surrogatepass")
            done = {"name": visit(Piece(name, where=f"{where}.name"))} if name else {}
            return _part(value, visit, here, {"data": data, **done})
        case Mapping():
            return _mapping(value, visit, here)
        case tuple() | list():
            items = [_walk(item, visit, replace(here, where=f"{where}.{at}")) for at, item in enumerate(value)]
            return _rebuilt(value, items) if any(map(_differs, items, value)) else value
        case frozenset() | set():
            for item in value:
                _walk(item, _fixing(visit), replace(here, kind="fixed"))
            return value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _part(value, visit, here, {})
        case _:
            return _other(value, visit, here)


def _other(value: Any, visit: Visit, here: Piece) -> Any:
    """What is neither text nor holds any in a way of Python's own."""
    match value:
        case None | bool() | Meta():
            return value
        case int() | float() | Decimal() | Enum() | UUID() | date() | time() | PurePath():
            told = str(value.value if isinstance(value, Enum) else _whole(value))
            if sum(map(str.isdigit, told)) >= LEAST or not isinstance(value, (int, float)):
                visit(replace(here, text=told, kind="fixed"))
        case type() if hasattr(value, "model_json_schema"):  # a model is told its schema, which replaces it if it changes
            schema = value.model_json_schema()
            made = _walk(schema, visit, here)
            return made if made is not schema else value
        case bytes() | bytearray() | memoryview():
            visit(replace(here, kind="media"))
            try:
                _walk(bytes(value).decode(), visit, replace(here, kind="fixed"))
            except UnicodeDecodeError:
                return value
        case _ if not isinstance(value, type) and hasattr(type(value), "model_copy"):  # of pydantic
            made = {name: _walk(old, visit, _at(here, name)) for name, old in value}
            changes = {name: new for name, new in made.items() if _differs(new, getattr(value, name))}
            return value.model_copy(update=changes) if changes else value
        case _:
            visit(replace(here, kind="unknown"))
    return value


def _text_of(value: Image | Audio | File) -> str | None:
    """The text of a file that is one, None for all else."""
    if not value.data or not TEXTUAL.match(value.media_type):
        return None
    try:
        return value.data.decode()
    except UnicodeDecodeError:
        return None


def _part(value: Any, visit: Visit, here: Piece, done: dict[str, Any]) -> Any:
    """A dataclass with what has been `done` already, and the rest of its fields walked."""
    changes = {name: made for name, made in done.items() if made != getattr(value, name)}
    for f in fields(value):
        old = getattr(value, f.name, None)
        if f.name in done or (f.name in FACTS and isinstance(value, Response)) or (f.name == "seed" and isinstance(old, int)):
            continue
        if f.name in WORDS and isinstance(old, str) and WORD.fullmatch(old):
            continue
        new = _walk(old, visit if f.init else _fixing(visit), _at(here, f.name))
        if f.init and _differs(new, old):
            changes[f.name] = new
    if not changes:
        return value
    try:
        return replace(value, **changes)
    except Exception:
        pass  # told below: what was raised may hold a text, and would be this one's context
    raise ValueError(f"a {type(value).__name__} does not take other texts")


def _at(here: Piece, name: str) -> Piece:
    """Where a field stands."""
    kind: Kind = "fixed" if name in FIXED or name in WORDS else "text"
    return Piece("", kind, f"{here.where}.{name}" if here.where else name)


def _mapping(value: Mapping[Any, Any], visit: Visit, here: Piece) -> Any:
    """A mapping, such as a JSON Schema: its keys are fixed, and label what they lead to."""
    out: dict[Any, Any] = {}
    changed = False
    for key, old in value.items():
        kind: Kind = "fixed" if key in SCHEMA_WORDS else here.kind
        _walk(key, _fixing(visit), replace(here, kind="fixed", label=""))
        new = _walk(old, visit, Piece("", kind, f"{here.where}.{key}", key if isinstance(key, str) else ""))
        changed |= _differs(new, old)
        out[key] = new
    return out if changed else value


def _differs(new: Any, old: Any) -> bool:
    """Whether a walk made another thing of it: by identity, for what is equal may hold another text in a field that does not
    count."""
    return bool(new != old) if isinstance(old, str) else new is not old


def _fixing(visit: Visit) -> Visit:
    """A visit to what cannot be replaced where it stands, whatever it holds."""
    return lambda piece: visit(replace(piece, kind="fixed") if piece.kind == "text" else piece)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _rebuilt(value: Any, items: list[Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*items)
    return type(value)(items)
