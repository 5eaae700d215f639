"""A value that satisfies a JSON Schema, made without chance: what a model would have answered."""

import contextlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

JSON = dict[str, Any]

FORMATS = {
    "date-time": "2026-01-31T12:00:00Z", "date": "2026-01-31", "time": "12:00:00Z", "duration": "P1D",
    "email": "ada@example.com", "hostname": "example.com", "uri": "https://example.com/", "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1", "uuid": "6f2b3a52-6a4e-4b0e-9d0a-0d2f3c1b5a77",
}  # fmt: skip

_IMPLIED = {"properties": "object", "required": "object", "items": "array", "minItems": "array",
            "prefixItems": "array", "minimum": "number", "maximum": "number"}  # fmt: skip


class Unbuildable(ValueError):
    """A schema that no finite value satisfies, as far as `instance` can see."""


def instance(schema: Any) -> Any:
    """A value that satisfies the JSON Schema, always the same one; raises Unbuildable when it finds none.

    Reads const, enum, type, properties, required, items, prefixItems, minItems, maxItems, uniqueItems, bounds
    and multipleOf of numbers, length and format of strings, allOf, anyOf, oneOf (the first branch that can be
    built) and local $ref. It does not read pattern, not, if, and the counts of properties.
    """
    return _build(schema, schema, (), 0)


def _build(schema: Any, root: Any, entered: tuple[str, ...], nth: int) -> Any:
    # `nth` asks for another value than those before it (uniqueItems). A $ref is entered once on a path: the
    # smallest value of a recursive schema never holds a value of the same definition inside itself.
    if schema is False:
        raise Unbuildable("nothing satisfies `false`")
    if schema is True or not schema:
        return f"text{nth or ''}"
    if "$ref" in schema:
        if schema["$ref"] in entered:
            raise Unbuildable(f"{schema['$ref']} never ends")
        return _build(_resolved(schema, root), root, (*entered, schema["$ref"]), nth)
    if "allOf" in schema:
        plain = _without(schema, "allOf")
        for part in schema["allOf"]:
            plain = _merged(plain, _resolved(part, root))
        return _build(plain, root, entered, nth)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            for part in schema[word]:
                with contextlib.suppress(Unbuildable):
                    return _build(_merged(_without(schema, word), part), root, entered, nth)
            raise Unbuildable(f"no branch of {word} can be built")
    if "const" in schema or "enum" in schema:
        return _item([schema["const"]] if "const" in schema else schema["enum"], nth)
    kind = schema.get("type") or next((kind for word, kind in _IMPLIED.items() if word in schema), "string")
    match kind if isinstance(kind, str) else next((each for each in kind if each != "null"), "null"):
        case "object":
            return _object(schema, root, entered, nth)
        case "array":
            return _array(schema, root, entered)
        case "string":
            text = FORMATS.get(schema.get("format", ""), f"text{nth or ''}")
            return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
        case "boolean":
            return _item([True, False], nth)
        case "null":
            return _item([None], nth)
        case number:
            return _number(schema, number == "integer", nth)


def _item(values: Sequence[Any], nth: int) -> Any:
    if nth >= len(values):
        raise Unbuildable("too few different values")
    return values[nth]


def _without(schema: JSON, word: str) -> JSON:
    return {key: value for key, value in schema.items() if key != word}


def _merged(one: JSON, other: Any) -> JSON:
    if isinstance(other, bool):
        return _merged(one, {} if other else {"enum": []})
    both = {**one, **other}
    for word in one.keys() & other.keys() & {"properties", "required"}:
        both[word] = {**one[word], **other[word]} if word == "properties" else [*one[word], *other[word]]
    return both


def _resolved(schema: Any, root: Any) -> Any:
    if not isinstance(schema, dict) or "$ref" not in schema:
        return schema
    found = root
    for step in schema["$ref"].removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, dict) else None
    if found is None or not schema["$ref"].startswith("#"):
        raise Unbuildable(f"nothing at {schema['$ref']}")
    return _merged(_without(schema, "$ref"), found)


def _object(schema: JSON, root: Any, entered: tuple[str, ...], nth: int) -> JSON:
    made, must = {}, schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        with contextlib.suppress(*() if name in must else (Unbuildable,)):
            made[name] = _build(part, root, entered, nth)
    rest = schema.get("additionalProperties", True)
    return made | {name: _build(rest, root, entered, nth) for name in must if name not in made}


def _array(schema: JSON, root: Any, entered: tuple[str, ...]) -> list[Any]:
    parts, least = list(schema.get("prefixItems", ())), schema.get("minItems", 0)
    most = min(max(1, least, len(parts)), schema.get("maxItems", math.inf))
    made: list[Any] = []
    for at in range(most):
        part = parts[at] if at < len(parts) else schema.get("items", True)
        with contextlib.suppress(*() if at < least else (Unbuildable,)):
            made.append(_build(part, root, entered, at if schema.get("uniqueItems") else 0))
    return made


def _number(schema: JSON, whole: bool, nth: int) -> int | float:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    outside = (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
    near = next((bound for bound in (low, high) if not math.isinf(bound)), 1)
    if whole or "multipleOf" in schema:
        step = Fraction(str(schema.get("multipleOf", 1)))
        step = Fraction(step.numerator) if whole else step  # the least whole number that is a multiple of it
        count = math.ceil(Fraction(near) / step)
        tries: list[Any] = [(count + by) * step for by in (nth, nth + 1, -nth, -nth - 1)]
    else:
        within = low + (high - low) * (nth + 1) / (nth + 2)  # infinite or no number when a bound is missing
        tries = [within, near + nth, near + nth + 1, near - nth, near - nth - 1]
    value = _item([each for each in tries if low <= each <= high and each not in outside][:1], 0)
    return int(value) if value == int(value) else float(value)
