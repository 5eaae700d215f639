"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import Command, KeyProvider, hookimpl
from gateway_seal.signing_command import seal_sign

gateway_api = 1


@hookimpl
def gateway_keys(config: Mapping[str, Any]) -> Iterable[KeyProvider]:
    """Who wraps data keys, beside the gateway's own ``env:`` and ``file:``."""
    return []


@hookimpl
def gateway_commands(config: Mapping[str, Any]) -> Iterable[Command]:
    """What the `gateway` program can do with sealed models."""
    return [Command(name="seal-sign", run=seal_sign)]
