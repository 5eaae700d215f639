"""gateway.toml as a dataclass, checked, with errors that name the file, the line and the key; and its JSON Schema."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from gateway.errors import ConfigError

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """``[policy]``: what quality, time and failure are worth, in USD. The utilities that `explain` prints follow from these."""

    worth: float = 0.02
    """USD that a perfect answer is worth."""
    time: float = 0.002
    """USD per second waited."""
    failure: float = 0.01
    """USD that a failed attempt costs."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """One ``[[limit]]``: at most `max` of `unit` per `per`, counted for each `by`, or for all together."""

    unit: Literal["requests", "tokens", "usd"]
    max: float
    per: Literal["minute", "hour", "day", "month"]
    by: Literal["all", "tenant", "model", "provider"] = "all"


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """The whole of gateway.toml. `plugin` holds each plugin's own section, which the plugin itself checks."""

    plugins: list[str] | None = None
    """Which installed plugins to load; all of them when absent."""
    transforms: list[str] | None = None
    """Which transforms to apply, in this order; all of them, by name, when absent."""
    seed: int | None = None
    """Seed of the gateway's source of chance."""
    events: str | None = None
    """A file to append events to, as JSON lines."""
    policy: PolicyConfig = PolicyConfig()
    limit: list[LimitConfig] = field(default_factory=list)
    plugin: dict[str, dict[str, Any]] = field(default_factory=dict)


@lru_cache(maxsize=256)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", kind))


def parse_config(kind: type[T], value: Any, where: str) -> T:
    """`value` as a `kind` (a dataclass, a pydantic model, ...). ConfigError names every wrong key below `where`.

    A plugin checks its own section with it: ``parse_config(MyConfig, config, "plugin.mine")``.
    """
    try:
        parsed: T = _adapter(cast("Hashable", kind)).validate_python(value)
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(error, where))) from None
    return parsed


def load_config(source: str | Path | Mapping[str, Any] | None) -> GatewayConfig:
    """The configuration from a path, a mapping, or nothing. ConfigError says what is wrong and where."""
    if source is None:
        return GatewayConfig()
    if isinstance(source, Mapping):
        return parse_config(GatewayConfig, dict(source), "")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {type(error).__name__}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not TOML: {_at(str(error), text)}") from None
    try:
        return parse_config(GatewayConfig, table, "")
    except ConfigError as error:
        key = error.message.partition(":")[0]
        line = _line_of(key, text)
        raise ConfigError(f"{str(path)!r}{f', line {line}' if line else ''}: {error.message}") from None


def config_schema() -> dict[str, Any]:
    """The JSON Schema of gateway.toml."""
    return _adapter(GatewayConfig).json_schema()


def _problems(error: ValidationError, where: str) -> list[str]:
    """One line a problem. The input value is left out: it may be a secret."""
    out = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(step) for step in (where, *problem["loc"]) if step != "")
        message = "unknown key" if problem["type"] == "unexpected_keyword_argument" else problem["msg"]
        out.append(f"{key or 'configuration'}: {message}")
    return out


def _at(message: str, text: str) -> str:
    """A TOML error, with the key that its line is about."""
    found = re.search(r"at line (\d+)", message)
    lines = text.splitlines()
    if not found or not 0 < int(found[1]) <= len(lines):
        return message
    key = re.match(r"\s*([\w.\"'-]+)\s*=", lines[int(found[1]) - 1])
    return f"{message}, key {key[1]!r}" if key else message


def _line_of(key: str, text: str) -> int | None:
    """The line where a dotted key, or the nearest table above it, is written."""
    steps = [step for step in key.split(".") if not step.isdigit()]
    table, best = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = header[1]
            if ".".join(steps).startswith(table) and best is None:
                best = number
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            full = f"{table}.{assigned[1]}" if table else assigned[1]
            if full.strip("\"'") == ".".join(steps):
                return number
    return best
