"""A JSON Schema as Anthropic's structured output takes it. No I/O.

Truth: `anthropic.transform_schema`, which the package applies to the schema of a type. The API takes closed objects only, and
few keywords: what it does not know is told to the model in the description, where it may heed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
CHOICES = (("anyOf", "anyOf"), ("oneOf", "anyOf"), ("allOf", "allOf"))
"""How schemas are combined, in what the API knows: it has no oneOf."""


def closed_schema(schema: Any) -> dict[str, Any]:
    """The schema with every object closed. ValueError for what is open by nature: a map of free keys, or anything at all."""
    if not isinstance(schema, Mapping):
        raise ValueError("this API needs a schema that says what may stand in each place")
    left, out = dict(schema), dict[str, Any]()
    for word in ("$defs", "definitions"):
        if isinstance(left.get(word), Mapping):
            out[word] = _each(left.pop(word))
    if "$ref" in left:
        return {**out, "$ref": left["$ref"]}
    kind = left.pop("type", None)
    if isinstance(left.get("enum"), (list, tuple)) and left["enum"] and all(map(_is_primitive, left["enum"])):
        out["enum"] = left.pop("enum")
    if "const" in left and _is_primitive(left["const"]):
        out["const"] = left.pop("const")
    kinds = () if out.keys() & {"enum", "const"} else kind if isinstance(kind, (list, tuple)) else (kind,)
    word, name = next((pair for pair in CHOICES if isinstance(left.get(pair[0]), (list, tuple))), ("", ""))
    if word:
        out[name] = [closed_schema(each) for each in left.pop(word)]
    elif kinds:
        if kind is None:
            raise ValueError("this API needs a type, or a choice of some kind, in each part of the schema")
        out["type"] = kind
    out |= {word: left.pop(word) for word in ("description", "title") if left.get(word) is not None}
    if "object" in kinds:
        out |= _object(left)
    if "array" in kinds:
        if left.get("items") is not None:
            out["items"] = closed_schema(left.pop("items"))
        least = left.pop("minItems", None)
        if least is not None:
            (out if least in (0, 1) else left)["minItems"] = least
    if "string" in kinds and (form := left.pop("format", None)):
        (out if form in FORMATS else left)["format"] = form
    if left:
        told = f"{{{', '.join(f'{word}: {value}' for word, value in left.items())}}}"
        out["description"] = f"{out['description']}\n\n{told}" if "description" in out else told
    return out


def _object(left: dict[str, Any]) -> dict[str, Any]:
    more = left.pop("additionalProperties", None)
    named = left.pop("properties", None)
    if (isinstance(more, Mapping) and more) or (named is None and more is not False):
        raise ValueError("this API takes objects of named properties only, no maps of free keys")
    out = {"properties": _each(named or {}), "additionalProperties": False}
    if left.get("required") is not None:
        out["required"] = left.pop("required")
    return out


def _each(schemas: Any) -> dict[str, Any]:
    if not isinstance(schemas, Mapping):
        raise ValueError("its properties are no mapping")
    return {name: closed_schema(each) for name, each in schemas.items()}


def _is_primitive(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))
