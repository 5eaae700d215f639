"""JSON values as Python has them: every string and number visited, with the key that it stands under."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

Visit = Callable[[Any, str, str], Any]
"""Given a string or a number, its label and where it stands, gives what is to stand there."""

DATA_URL = re.compile(r"data:[\w.+/;=-]*;base64,[A-Za-z0-9+/=_\-\s]*")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
DATA_KEYS = frozenset({"data", "b64_json", "file_data"})
"""Keys under which APIs put the bytes of an image, a sound or a file."""


def mapped(value: Any, visit: Visit, json_text: Callable[[str, str], str], label: str = "", where: str = "") -> Any:
    """A copy in which each string and number, keys too, is what `visit` made of it; what did not change is the same object.

    `json_text` is given the arguments of a tool call, which OpenAI's form has as a JSON text, and where they stand. Two keys
    that became the same are told apart by a number. What is neither text nor number nor holds any stays.
    """
    match value:
        case str() | int() | float():
            return visit(value, label, where)
        case Mapping():
            return _mapping(value, visit, json_text, where)
        case list() | tuple() | set() | frozenset():
            items = [
                mapped(item, visit, json_text, label, f"{where}.{at}" if where else str(at)) for at, item in enumerate(value)
            ]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        case _:
            return value


def _mapping(value: Mapping[Any, Any], visit: Visit, json_text: Callable[[str, str], str], where: str) -> Any:
    out: dict[Any, Any] = {}
    changed = False
    for key, old in value.items():
        made = mapped(key, visit, json_text, "", where)
        made = "" if made is None else made
        name, number = made, 1
        while name in out:
            number += 1
            name = f"{made} {number}"
        inside = f"{where}.{name}" if where else str(name)
        if key == "arguments" and "name" in value and isinstance(old, str):
            new: Any = json_text(old, inside)
        else:
            new = mapped(old, visit, json_text, key if isinstance(key, str) else "", inside)
        changed |= new is not old or name is not key
        out[name] = new
    if not changed or type(value) is dict:
        return out if changed else value
    try:  # a dict of another kind, such as one with an order or a default
        kind: Any = copy(value)
        kind.clear()
        kind.update(out)
    except (AttributeError, TypeError):
        return out
    return kind


def texts(value: Any) -> Iterator[str]:
    """Every string and number in it, as text, keys too."""
    match value:
        case str() | int() | float():
            yield str(value)
        case Mapping():
            for key, item in value.items():
                yield from texts(key)
                yield from texts(item)
        case list() | tuple() | set() | frozenset():
            for item in value:
                yield from texts(item)


def is_media(text: str, label: str) -> bool:
    """Whether a string is the bytes of an image, a sound or a file, in base64."""
    if label in DATA_KEYS and BASE64.fullmatch(text):
        return True
    return text.startswith("data:") and DATA_URL.fullmatch(text) is not None
