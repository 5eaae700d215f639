"""A JSON Schema as OpenAI's structured output takes it, strictly where that can be. No I/O.

Truth: `openai.lib._pydantic`, which the package applies to the schema of a class. A schema that the caller has written goes out
as it is; and one that the server could not hold to strictly is sent to be followed as well as may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import Chat
from gateway_remote.formats.blocks import schema_name

KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref",
        "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    }
)  # fmt: skip
"""What a schema may use under ``"strict": true`` (OpenAI, "Structured outputs", "Supported schemas")."""


def schema_of(request: Chat) -> dict[str, Any]:
    """The shape of the answer, with a name, and whether the server is to hold to it strictly."""
    schema = request.response_schema or {}
    if isinstance(request.response_format, type) and strict_schema(tight := closed(schema, schema)):
        schema = tight
    return {"name": schema_name(request), "schema": schema, "strict": strict_schema(schema)}


def closed(schema: Any, root: Mapping[str, Any], within: tuple[str, ...] = ()) -> Any:
    """The schema of a class with each object closed and each property required: a default is nothing to ask a model for.

    `root` is what references are looked up in, `within` those that are being written out.
    """
    if not isinstance(schema, Mapping):
        return schema
    out = {word: value for word, value in schema.items() if word != "default"}
    if "$ref" in out and len(out) > 1:  # a reference stands alone: with a word beside it, it is written out
        ref, named = str(out.pop("$ref")), root
        if ref in within:  # it holds itself: there is no end to writing it out
            return {"$ref": ref}
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
