"""What the gateway finds in this plugin: one service per row of ``[plugin.remote] models``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import ConfigError, ModelService, hookimpl, parse_config

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
    _check(section.defaults)
    rests, out = Rests(), list[ModelService]()
    for at, given in enumerate(section.models):
        where = f"plugin.remote.models.{at}"
        row = parse_config(ModelRow, ModelRow.filled(given, section.defaults, where=where), where)
        try:
            out.append(RemoteModel(row, rests=rests))
        except ConfigError as error:  # all else that it holds has been checked
            raise ConfigError(f"{where}.tasks: {error}") from None
    return out


def _check(defaults: Mapping[str, Any]) -> None:
    """ConfigError for what would be wrong in every row: told once, and where it is written."""
    from gateway_remote.config import ModelRow

    where = "plugin.remote.defaults"
    if "name" in defaults:
        raise ConfigError(f"{where}.name: every model has a name of its own")
    needed = {"name": "any", "base_url": "http://127.0.0.1"}
    parse_config(ModelRow, {**needed, **ModelRow.filled(defaults, where=where)}, where)
