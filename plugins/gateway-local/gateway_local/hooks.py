"""What gateway-local gives a gateway: a service per configured model, the starter model, and the ``hf:`` weight store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import ModelService, WeightStore, hookimpl
from gateway_local import starter
from gateway_local.hub import HubStore
from gateway_local.keeper import Keeper
from gateway_local.options import RESERVED, ModelOptions, read_options
from gateway_local.service import LocalModel

gateway_api = 1


@hookimpl
def gateway_models(config: Mapping[str, Any]) -> Iterable[ModelService]:
    """The configured models, and the starter model unless ``starter = false``."""
    options = read_options(config)
    rows = list(options.models)
    if options.starter:
        # A toy: stated as such, so that no policy takes it for a rival of a real model.
        uri = f"file:{starter.PATH}"
        rows.append(ModelOptions(name=RESERVED, weights=uri, languages=["en"], quality=0.05, last_resort=True))
    keeper = Keeper(options.memory_bytes)
    return [LocalModel(row, keeper) for row in rows]


@hookimpl
def gateway_stores(config: Mapping[str, Any]) -> Iterable[WeightStore]:
    """The store of Hugging Face models."""
    return [HubStore()]
