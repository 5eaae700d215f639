"""What the gateway finds in this plugin: one service per row of ``[plugin.remote] models``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import ModelService, hookimpl, parse_config

gateway_api = 1


@hookimpl
def gateway_models(config: Mapping[str, Any]) -> Iterable[ModelService]:
    """A service per row. ConfigError names every wrong key, such as ``plugin.remote.models.0.base_url``."""
    if not config:  # nothing to serve: an app that uses no hosted model does not pay for what checks their rows
        return []
    from gateway_remote.config import ModelRow, RemoteConfig
    from gateway_remote.key_ring import Rests
    from gateway_remote.service import RemoteModel

    section = parse_config(RemoteConfig, dict(config), "plugin.remote")
    rests = Rests()
    rows = [
        parse_config(ModelRow, ModelRow.filled(row, section.defaults), f"plugin.remote.models.{at}")
        for at, row in enumerate(section.models)
    ]
    return [RemoteModel(row, rests=rests) for row in rows]
