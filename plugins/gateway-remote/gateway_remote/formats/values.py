"""Reading replies: JSON values that may be anything, the errors for what they are not, and estimates. No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from gateway import BadReply, Finish, InvalidRequest, Overloaded, Part, Reasoning, Request, ServiceError, ToolCall, Usage
from gateway_remote.failures import payload_failure, sayable
from gateway_remote.formats.api import Heard
from gateway_remote.jsonbytes import JSONError, dumps, loads

BYTES_PER_TOKEN = 4  # for an estimate, where a server does not count


def bad(model: str, what: str, **facts: Any) -> BadReply:
    """A BadReply that would come again; `what` never quotes the reply."""
    return BadReply(f"model {model!r}: {what}", model=model, **facts)


def broken(model: str, what: str) -> BadReply:
    """A BadReply of what was torn, garbled or empty, which asking again may cure; `what` never quotes the reply."""
    return bad(model, what, retryable=True)


def holds_error(payload: Mapping[str, Any]) -> bool:
    """True for an error in a reply's place; vLLM has sent its own without a field ``error``."""
    return bool(payload.get("error")) or payload.get("object") == "error" or payload.get("type") == "error"


def value_of(body: bytes, heard: Heard) -> Any:
    """The JSON value in a body of status 200. BadReply when there is none."""
    if not body.strip():
        raise broken(heard.model, "the reply is empty")
    try:
        return loads(body)
    except JSONError:
        html = "html" in heard.headers.get("content-type", "")
        raise broken(heard.model, f"the reply is {'an HTML page, not JSON: check base_url' if html else 'no JSON'}") from None


def object_of(body: bytes, heard: Heard) -> dict[str, Any]:
    """The JSON object in a body of status 200. BadReply when there is none; the error that it holds in a reply's place."""
    payload = value_of(body, heard)
    if not isinstance(payload, dict):
        raise broken(heard.model, "the reply is no JSON object")
    if holds_error(payload):
        raise payload_failure(payload, model=heard.model, headers=heard.headers, now_s=heard.now_s)
    return payload


def finish_of(wire: Any, known: Mapping[str, Finish], model: str) -> Finish:
    """Why the reply ended. A finish that is a failure raises it; one that is unknown is a BadReply."""
    finish = known.get(wire) if isinstance(wire, str) else None
    if finish is not None:
        return finish
    if wire == "insufficient_system_resource":
        raise Overloaded(f"model {model!r}: overloaded while it answered", model=model)
    if wire in ("error", "abort", "failed"):
        raise ServiceError(f"model {model!r}: the provider broke the reply off", model=model, retryable=True)
    shown = f" {wire!r}" if isinstance(wire, str) and sayable(wire) else ""
    raise bad(model, f"unknown finish{shown}")


def estimate(request: Request[Any], parts: list[Part] | tuple[Part, ...] = ()) -> Usage:
    """The counts where the server states none, labelled as an estimate."""
    thought = sum(len(part.text) for part in parts if isinstance(part, Reasoning))
    told = sum(len(part.arguments if isinstance(part, ToolCall) else getattr(part, "text", "")) for part in parts)
    return Usage(
        input_tokens=tokens(request.traits().input_bytes),
        output_tokens=tokens(told),
        reasoning_tokens=tokens(thought),
        estimated=True,
    )


def tokens(size_bytes: int) -> int:
    """About so many tokens."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def arguments_of(value: Any) -> str:
    """A tool call's arguments as JSON text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else again(value).decode()


def again(value: Any) -> bytes:
    """A value of a reply in JSON again. BadReply when it is nested more deeply than can be written."""
    try:
        return dumps(value)
    except InvalidRequest:
        raise BadReply("the reply holds a value that is nested too deeply") from None


def count(value: Any) -> int:
    """A count of tokens; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def detail(wire: Mapping[str, Any], group: str, name: str) -> int:
    """A count within a group of a usage."""
    details = wire.get(group)
    return count(details.get(name)) if isinstance(details, dict) else 0


def string(value: Any) -> str:
    """A string; "" for anything else."""
    return value if isinstance(value, str) else ""


def said(value: Any, model: str) -> str:
    """A string that is part of the answer; "" where there is none. BadReply for anything else: it must not be lost unseen."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise broken(model, "a text of the reply is no text")


def each_said(value: Any, model: str) -> list[dict[str, Any]]:
    """The objects that the answer is made of; [] where there are none. BadReply for anything else."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise broken(model, "the parts of the reply are no list of objects")
    return value


def number(value: Any) -> float | None:
    """A number; None for anything else, such as a whole number that is too large for a float."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def index(value: Any) -> int | None:
    """A place, 0 or above; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; [] for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def unbase64(value: Any, model: str) -> bytes:
    """The bytes in base64, of either alphabet. BadReply when it is none."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise broken(model, "its media are no base64")
