"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import Command, hookimpl

gateway_api = 1


@hookimpl
def gateway_commands(config: Mapping[str, Any]) -> Iterable[Command]:
    """`gateway scrub`."""
    told = "Put placeholders for personal data and secrets in a file of any size."
    return [Command(name="scrub", run="gateway_scrub.commands:scrub", help=told)]
