"""The configuration as text with its secrets hidden: what `gateway config` shows and may be pasted into a bug report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gateway.config import GatewayConfig

HIDDEN = "***"
QUIET = ("limit", "attempt", "retry", "hedge", "state", "route", "plugin")
"""These are left out where they are as they are by default."""

# "max_tokens" counts, "token" grants: the plural is no secret.
_SECRET_NAME = re.compile(r"key|secret|passw|passphrase|credential|auth|cookie|signature|token(?!s)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(?i)^(bearer |basic |sk-|pk-|ghp_|github_pat_|glpat-|hf_|xox[a-z]-|AKIA|AIza|eyJ)|-----BEGIN")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:[^\s]+|keyring:[^\s/]+/[^\s]+")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(r"(?<=[?&])([^=&\s]*)=([^&\s]+)")


def hidden(value: Any, *, secret: bool = False) -> Any:
    """The same with every value that is or may be a secret replaced. References stay: they reveal nothing."""
    match value:
        case Mapping():
            return {name: hidden(item, secret=secret or _is_secret(name, item)) for name, item in value.items()}
        case list() | tuple():
            return [hidden(item, secret=secret) for item in value]
        case str() if _REFERENCE.fullmatch(value):
            return value
        case str() if secret or _SECRET_VALUE.search(value):
            return HIDDEN
        case str():
            shown = _USERINFO.sub(HIDDEN, value)
            return _QUERY.sub(lambda m: f"{m[1]}={HIDDEN}" if _SECRET_NAME.search(m[1]) else m[0], shown)
        case bool() | None:
            return value
    return HIDDEN if secret else value


def _is_secret(name: str, value: Any) -> bool:
    if name.lower() in ("headers", "env"):
        return True
    # first_token_s = 0.5 is a time.
    is_time = isinstance(value, (int, float)) and name.endswith(("_s", "_usd"))
    return bool(_SECRET_NAME.search(name)) and not is_time


def in_effect(table: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what says nothing: sections that are as they are by default, and a limit's empty `only`."""
    usual = asdict(GatewayConfig())
    said = {name: value for name, value in table.items() if name not in QUIET or value != usual[name]}
    if "limit" in said:
        said["limit"] = [{name: value for name, value in one.items() if value != []} for one in said["limit"]]
    return said


def to_toml(table: Mapping[str, Any], *, path: str = "") -> str:
    """A mapping of plain values as TOML; what is None is left out."""
    lines, tables = [], []
    for name, value in table.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
        full = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            body = to_toml(value, path=full)
            plain = not value or not all(isinstance(item, Mapping) for item in value.values())
            tables.append(f"[{full}]\n{body}" if plain and body else f"[{full}]\n" if plain else body)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            tables += [f"[[{full}]]\n{to_toml(item, path=full)}" for item in value]
        elif value is not None:
            lines.append(f"{key} = {_inline(value)}\n")
    return "".join(lines) + ("\n" if lines and tables else "") + "\n".join(tables)


def _inline(value: Any) -> str:
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items() if v is not None) + " }"
        case list() | tuple():
            return "[" + ", ".join(_inline(item) for item in value if item is not None) + "]"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    # JSON's escapes are TOML's, save for DEL, which TOML wants escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
