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
    """The value in JSON. InvalidRequest when it holds something that JSON does not have."""
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        pass  # half of a surrogate pair, or a whole number of more than 64 bits: JSON can hold both
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        message = "a JSON Schema in the request holds something that JSON cannot: mend tools or response_format"
        raise InvalidRequest(message, field="tools") from None


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
