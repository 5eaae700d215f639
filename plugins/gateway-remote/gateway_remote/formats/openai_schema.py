"""A JSON Schema as OpenAI's structured output takes it, strictly where that can be. No I/O.

Truth: `openai.lib._pydantic`, which the package applies to the schema of a class. A schema that the caller has written goes out
as it is; and one that the server could not hold to strictly is sent to be followed as well as may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gateway import Chat
from gateway_remote.formats.blocks import schema_name
from gateway_remote.jsonbytes import dumps

KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref",
        "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    }
)  # fmt: skip
"""What a schema may use under ``"strict": true`` (OpenAI, "Structured outputs", "Supported schemas")."""


MOST_TIMES = 4
"""A schema is closed only where it grows by no more: references with a word beside them are written out."""
DEEPEST = 6
"""So many of them are written out within each other."""


def schema_of(request: Chat) -> dict[str, Any]:
    """The shape of the answer, with a name, and whether the server is to hold to it strictly."""
    shape: Any = request.response_format
    schema = _of_class(shape) if isinstance(shape, type) else request.response_schema or {}
    return {"name": schema_name(request), "schema": schema, "strict": strict_schema(schema)}


@lru_cache(maxsize=128)
def _of_class(model: Any) -> Mapping[str, Any]:
    """The schema of a class, closed where a server can then hold to it and where it does not grow out of all bounds by that."""
    schema: Mapping[str, Any] = model.model_json_schema()
    try:
        tight = closed(schema, schema)
    except RecursionError:
        return schema
    return tight if strict_schema(tight) and len(dumps(tight)) <= MOST_TIMES * len(dumps(schema)) else schema


def closed(schema: Any, root: Mapping[str, Any], within: tuple[str, ...] = ()) -> Any:
    """The schema of a class with each object closed and each property required: a default is nothing to ask a model for.

    `root` is what references are looked up in, `within` those being written out: RecursionError for more than `DEEPEST`.
    """
    if not isinstance(schema, Mapping):
        return schema
    out = {word: value for word, value in schema.items() if word != "default"}
    if "$ref" in out and len(out) > 1:  # a reference stands alone: with a word beside it, it is written out
        ref, named = str(out.pop("$ref")), root
        if ref in within:  # it holds itself: there is no end to writing it out
            return {"$ref": ref}
        if len(within) == DEEPEST:
            raise RecursionError
        for step in ref.removeprefix("#/").split("/"):
            below = named.get(step)
            if not isinstance(below, Mapping):  # it leads out of here
                return schema
            named = below
        return closed({**named, **out}, root, (*within, ref))
    if out.get("type") == "object":
        out.setdefault("additionalProperties", False)
    if isinstance(properties := out.get("properties"), Mapping):
        out["required"] = list(properties)
    for word in ("properties", "$defs", "definitions"):
        if isinstance(below := out.get(word), Mapping):
            out[word] = {name: closed(each, root, within) for name, each in below.items()}
    if "items" in out:
        out["items"] = closed(out["items"], root, within)
    if "anyOf" in out:
        out["anyOf"] = [closed(each, root, within) for each in out["anyOf"]]
    return out


def strict_schema(schema: Any) -> bool:
    """True when a server can hold to this schema strictly: objects closed, every property required."""
    return isinstance(schema, Mapping) and schema.get("type") == "object" and "anyOf" not in schema and _strict(schema)


def _strict(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= KEYWORDS:
        return False
    named = schema.get("properties", {})
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(named):
            return False
    elif not schema.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        return False  # "anything at all" is not among the supported schemas
    below = [*named.values(), *schema.get("anyOf", ())]
    below += [each for word in ("$defs", "definitions") for each in schema.get(word, {}).values()]
    if "items" in schema:
        below.append(schema["items"])
    return all(map(_strict, below))
