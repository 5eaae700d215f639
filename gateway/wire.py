"""Wire forms: requests, responses, deltas and errors as JSON values that round-trip, tagged with what they are.

A request is ``{"request": "chat", ...fields}``, a response ``{"response": "chat", ...}``, named by task; an error is
``{"error": "RateLimited", ...}``. Bytes are base64. A pydantic model as `response_format` goes out as its JSON Schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from types import MappingProxyType, NoneType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway import decision, errors, trace
from gateway.errors import GatewayError, InvalidRequest
from gateway.parts import Delta, Restart
from gateway.request import Request, Response
from gateway.tasks import Chat, ChatResponse

Wire = dict[str, Any]

FACTS: Mapping[str, Any] = MappingProxyType(
    {"attempts": tuple, "known": tuple, "decision": (decision.Decision, NoneType), "reply": (Response, NoneType)}
)
"""The facts of errors that are no plain JSON values."""


def to_wire(thing: Request[Any] | Response | Delta | Restart | GatewayError, *, task: str = "") -> Wire:
    """The JSON form. A response needs its task's name where several tasks share one response class."""
    match thing:
        case Request():
            if isinstance(thing, Chat):
                tools = tuple(replace(tool, parameters=_plain(tool.parameters)) for tool in thing.tools)
                thing = replace(thing, tools=tools, response_format=_plain(thing.response_schema))
            body = _dump(type(thing), thing)
            return {"request": thing.task, **body}
        case Response():
            if isinstance(thing, ChatResponse):
                thing = replace(thing, parsed=None)  # made again from the text and the caller's own model
            body = _dump(type(thing), thing)
            body.pop("parsed", None)
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
    if not isinstance(wire, Mapping):
        raise InvalidRequest(f"a wire form is a JSON object, not a {type(wire).__name__}", field="")
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


def _plain(value: Any) -> Any:
    """A schema with dicts and lists for whatever mappings and tuples it is made of."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _load(kind: Any, body: Any) -> Any:
    known = {f.name for f in fields(kind)} if is_dataclass(kind) else None
    if known is not None and isinstance(body, Mapping) and (extra := body.keys() - known):
        raise InvalidRequest(f"{kind.__name__} has no field {min(extra)!r}", field=min(extra))
    try:
        return _adapter(kind).validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        ours = first.get("ctx", {}).get("error")
        if isinstance(ours, InvalidRequest):  # raised as the request was made: it knows its field best
            raise InvalidRequest(ours.message, field=ours.field) from None
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidRequest(f"{where}: {first['msg']}", field=where) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON values: {type(error).__name__}", field="") from None


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
        elif isinstance(value, decision.Decision):
            value = _dump(decision.Decision, value)
        elif is_dataclass(value):
            value = _dump(type(value), value)
        elif value == math.inf:
            value = None  # JSON has no infinity
        out[f.name] = value
    return out


def _error(name: str, body: Wire) -> GatewayError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GatewayError)):
        raise InvalidRequest(f"unknown error {name!r}", field="error")
    known = {f.name for f in fields(kind)}
    if extra := set(body) - known:
        raise InvalidRequest(f"{name} has no field {min(extra)!r}", field=min(extra))
    if body.get("frees_in_s", 0.0) is None:
        body["frees_in_s"] = math.inf
    for key, value in body.items():
        if key == "decision" and value is not None:
            body[key] = _load(decision.Decision, value)
        elif key == "reply" and isinstance(value, Mapping) and "response" in value:
            body[key] = from_wire(value)
        elif isinstance(value, list):
            body[key] = tuple(_load(trace.Attempt, item) if key == "attempts" else item for item in value)
        if not isinstance(body[key], FACTS.get(key, (str, int, float, NoneType))):
            raise InvalidRequest(f"{name}.{key} has the wrong type", field=key)
    if not isinstance(body.get("message"), str):
        raise InvalidRequest(f"{name}.message must be a string", field="message")
    return kind(**body)
