"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import KeyProvider, WeightStore, hookimpl, parse_config

gateway_api = 1


@hookimpl
def gateway_keys(config: Mapping[str, Any]) -> Iterable[KeyProvider]:
    """Who wraps data keys, beside the gateway's own ``env:`` and ``file:``."""
    return []


@hookimpl
def gateway_stores(config: Mapping[str, Any]) -> Iterable[WeightStore]:
    """``sealed:DIR``, as ``[plugin.seal]`` says."""
    from gateway_seal.options import SealOptions
    from gateway_seal.store import SealedStore

    return [SealedStore(parse_config(SealOptions, dict(config), "plugin.seal"))]
