"""Wire forms: requests, responses, deltas and errors as JSON values that round-trip, tagged with what they are.

A request is ``{"request": "chat", ...fields}``, a response ``{"response": "chat", ...}``, named by task; an error is
``{"error": "RateLimited", ...}``. Bytes are base64. A pydantic model as `response_format` goes out as its JSON Schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway import decision, errors, trace
from gateway.errors import GatewayError, InvalidRequest
from gateway.parts import Delta, Restart
from gateway.tasks import Chat, Request, Response

Wire = dict[str, Any]


def to_wire(thing: Request[Any] | Response | Delta | Restart | GatewayError, *, task: str = "") -> Wire:
    """The JSON form. A response needs its task's name where several tasks share one response class."""
    match thing:
        case Request():
            body = _dump(type(thing), thing)
            if isinstance(thing, Chat):
                schema = thing.response_schema
                body["response_format"] = None if schema is None else dict(schema)
            return {"request": thing.task, **body}
        case Response():
            body = _dump(type(thing), thing)
            body.pop("parsed", None)  # made again from the text and the caller's own model
            return {"response": task or _task_of(type(thing)), **body}
        case Delta():
            return {"delta": thing.part, **_dump(Delta, thing)}
        case Restart():
            return {"restart": thing.model}
        case GatewayError():
            return {"error": type(thing).__name__, **_error_fields(thing)}
    raise TypeError(f"{type(thing).__name__} has no wire form")


def from_wire(wire: Mapping[str, Any]) -> Request[Any] | Response | Delta | Restart | GatewayError:
    """The thing again. InvalidRequest names the field that does not fit."""
    body = dict(wire)
    if "request" in body:
        return _load(_task(str(body.pop("request"))), body)  # type: ignore[no-any-return]
    if "response" in body:
        return _load(_task(str(body.pop("response"))).response, body)  # type: ignore[no-any-return]
    if "delta" in body:
        del body["delta"]
        return _load(Delta, body)  # type: ignore[no-any-return]
    if "restart" in body:
        return Restart(str(body["restart"]))
    if "error" in body:
        return _error(str(body.pop("error")), body)
    raise InvalidRequest("not a wire form: it has none of request, response, delta, restart, error", field="")


def tasks() -> dict[str, type[Request[Any]]]:
    """Every task that is known in this process, by name: gateway's own and those of imported plugins."""
    out: dict[str, type[Request[Any]]] = {}
    todo: list[type[Request[Any]]] = [Request]
    while todo:
        for task in todo.pop().__subclasses__():
            out.setdefault(task.task, task)
            todo.append(task)
    return out


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _dump(kind: Any, thing: Any) -> Wire:
    out: Wire = _adapter(kind).dump_python(thing, mode="json", warnings=False)
    return out


def _load(kind: Any, body: Any) -> Any:
    try:
        return _adapter(kind).validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidRequest(f"{where}: {first['msg']}", field=where) from None


def _task(name: str) -> type[Request[Any]]:
    known = tasks()
    if name not in known:
        raise InvalidRequest(f"unknown task {name!r}; there are: {', '.join(sorted(known))}", field="request")
    return known[name]


def _task_of(response: type[Response]) -> str:
    for name, task in tasks().items():
        if task.response is response:
            return name
    raise TypeError(f"{response.__name__} answers no known task")


def _error_fields(error: GatewayError) -> Wire:
    out: Wire = {}
    for f in fields(error):
        value = getattr(error, f.name)
        if isinstance(value, tuple):
            value = [_dump(type(item), item) if is_dataclass(item) else item for item in value]
        elif isinstance(value, Response):
            value = to_wire(value)
        elif is_dataclass(value):
            value = _dump(type(value), value)
        out[f.name] = value
    return out


def _error(name: str, body: Wire) -> GatewayError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GatewayError)):
        raise InvalidRequest(f"unknown error {name!r}", field="error")
    known = {f.name for f in fields(kind)}
    if extra := set(body) - known:
        raise InvalidRequest(f"{name} has no field {min(extra)!r}", field=min(extra))
    if body.get("attempts"):
        body["attempts"] = tuple(_load(trace.Attempt, item) for item in body["attempts"])
    if body.get("decision"):
        body["decision"] = _load(decision.Decision, body["decision"])
    if body.get("reply"):
        body["reply"] = from_wire(body["reply"])
    for key, value in body.items():
        if isinstance(value, list):
            body[key] = tuple(value)
    return kind(**body)
