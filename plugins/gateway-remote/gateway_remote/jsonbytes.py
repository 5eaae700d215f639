"""JSON to and from bytes: orjson, and the standard library for the few things that orjson refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from gateway import InvalidRequest


class JSONError(ValueError):
    """The bytes are no JSON; the message never quotes them."""


def dumps(value: Any) -> bytes:
    """The value in JSON. InvalidRequest, which names the field of a mapping, when it holds what JSON does not have."""
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        pass  # half of a surrogate pair, or a whole number of more than 64 bits: JSON can hold both
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    # The name alone: what lies deeper may be the caller's own words.
    field = next((str(name) for name, part in value.items() if not _fits(part)), "") if isinstance(value, Mapping) else ""
    raise InvalidRequest(f"{field or 'the request'} holds something that JSON cannot", field=field)


def _fits(value: Any) -> bool:
    try:
        dumps(value)
    except InvalidRequest:
        return False
    return True


def loads(data: bytes) -> Any:
    """The value in the bytes. JSONError when they are no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise JSONError("not JSON") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(type(value).__name__)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
