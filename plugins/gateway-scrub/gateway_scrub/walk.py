"""Every text of a request or a response, of any task: seen, or replaced, each told with what kind of text it is.

What is walked is whatever the dataclasses hold: a field that is not known to be anything else is text. So a task or a field
that did not exist when this was written is covered, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from gateway import Audio, File, Image, Reasoning, ToolCall, ToolResult

Kind = Literal["text", "fixed", "media"]
"""``text`` may be replaced; what is ``fixed`` (a name, an id, a URL, the key of an object) would no longer work if it were;
``media`` cannot be looked into: its text is empty."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A text of a request. `label` is the key that it has in an object, which says something of it, such as "phone"."""

    text: str = field(repr=False)
    kind: Kind = "text"
    where: str = ""
    label: str = ""
    number: bool = False
    """Whether it is a number of a JSON text."""


class Bare(str):
    """What a visitor makes of a string of a JSON text that is to stand there without quotes, such as a number."""

    __slots__ = ()


Visit = Callable[[Piece], str]
"""Given a piece, gives what is to stand there."""

T = TypeVar("T")

SKIPPED = frozenset({
    "meta", "type", "role", "finish", "usage", "model", "trace", "quota", "dropped", "served_by", "logprobs", "media_type",
    "signature", "function_to_apply", "aggregation_strategy", "truncation", "reasoning_effort", "entity_group", "task",
    "src_lang", "tgt_lang", "language", "scheduler", "voice", "parsed", "vectors", "tool_choice",
})  # fmt: skip
"""Fields that say how, not what: words of the interface, what never leaves, and what names one of the tools, seen there."""
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
        inside = json.loads(f'"{match.group(1)}"') if is_string else match.group()
        if not inside or (not is_string and sum(map(str.isdigit, inside)) < LEAST):
            continue
        if is_key:
            label = inside
        made = visit(Piece(inside, "fixed" if is_key else "text", where, "" if is_key else label, not is_string))
        if made != inside:
            out += [text[at : match.start()], made if isinstance(made, Bare) else json.dumps(made, ensure_ascii=False)]
            at = match.end()
    return "".join((*out, text[at:])) if out else text


def _walk(value: Any, visit: Visit, here: Piece) -> Any:
    where = here.where
    match value:
        case str():
            return visit(replace(here, text=value)) if value else value
        case ToolCall():
            return _part(value, visit, where, {"arguments": walk_json(value.arguments, visit, f"{where}.arguments")})
        case ToolResult():
            return _part(value, visit, where, {"text": walk_json(value.text, visit, f"{where}.text")})
        case Reasoning(signature=signature):
            text = visit(Piece(value.text, where=f"{where}.text")) if value.text else value.text
            # A signature is of the text as it was: with another text it is wrong, and worse than none.
            return value if text == value.text else replace(value, text=text, signature="" if signature else signature)
        case Image() | Audio() | File():
            visit(Piece("", "media", where))
            name = value.name if isinstance(value, File) else ""
            return _part(value, visit, where, {"name": visit(Piece(name, where=f"{where}.name"))} if name else {})
        case Mapping():
            return _mapping(value, visit, here)
        case tuple() | list():
            items = [_walk(item, visit, replace(here, where=f"{where}.{at}")) for at, item in enumerate(value)]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else _rebuilt(value, items)
        case frozenset() | set():
            for item in value:
                _walk(item, visit, replace(here, kind="fixed"))
            return value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _part(value, visit, where, {})
        case _:
            return value


def _part(value: Any, visit: Visit, where: str, done: dict[str, Any]) -> Any:
    """A dataclass with what has been `done` already, and the rest of its fields walked."""
    changes = {name: made for name, made in done.items() if made != getattr(value, name)}
    for f in fields(value):
        if f.name in done or f.name in SKIPPED or not f.init:
            continue
        old = getattr(value, f.name)
        here = Piece("", "fixed" if f.name in FIXED else "text", f"{where}.{f.name}" if where else f.name)
        new = _walk(old, visit, here)
        if new is not old and new != old:
            changes[f.name] = new
    return replace(value, **changes) if changes else value


def _mapping(value: Mapping[Any, Any], visit: Visit, here: Piece) -> Any:
    """A mapping, such as a JSON Schema: its keys are fixed, and label what they lead to."""
    out: dict[Any, Any] = {}
    changed = False
    for key, old in value.items():
        kind: Kind = "fixed" if key in SCHEMA_WORDS else here.kind
        if isinstance(key, str) and key:
            visit(Piece(key, "fixed", here.where))
        new = _walk(old, visit, Piece("", kind, f"{here.where}.{key}", key if isinstance(key, str) else ""))
        changed |= new is not old and new != old
        out[key] = new
    return out if changed else value


def _rebuilt(value: Any, items: list[Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*items)
    return type(value)(items)
