"""What the gateway finds in this plugin: the transform "scrub", and the policy that keeps to what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import Policy, Transform, hookimpl

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
