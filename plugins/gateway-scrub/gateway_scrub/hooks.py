"""What the gateway finds in this plugin: the transform "scrub", the policy that keeps to what it found, `gateway scrub`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import Command, Policy, Transform, hookimpl

gateway_api = 1


@hookimpl
def gateway_transforms(config: Mapping[str, Any]) -> Iterable[Transform]:
    """The scrubber, as ``[plugin.scrub]`` says."""
    from gateway_scrub.build import scrub_of
    from gateway_scrub.options import read_options

    return [scrub_of(read_options(config))]


@hookimpl
def gateway_policies(config: Mapping[str, Any]) -> Iterable[Policy]:
    """What may go where."""
    from gateway_scrub.transform import ScrubPolicy

    return [ScrubPolicy()]


@hookimpl
def gateway_commands(config: Mapping[str, Any]) -> Iterable[Command]:
    """`gateway scrub`."""
    told = "Put placeholders for personal data and secrets in a file of any size."
    return [Command(name="scrub", run="gateway_scrub.commands:scrub", help=told)]
