"""The hooks, and nothing else: each is called once when a gateway starts, and returns things that have a name.

A plugin is a module (or object) with functions of these names marked with `gateway.hookimpl`, found through an entry point
of the group "gateway" whose name is the plugin's name in the configuration. `config` is the plugin's own section,
``[plugin.NAME]`` of gateway.toml, {} without one. A hook module imports nothing heavy. What raises in a hook stops the start
with a PluginError. Order means nothing. A plugin states which version of this interface it was made for with
``gateway_api = 1``; without that it is taken to be the current one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from gateway.events import Observer
    from gateway.keys import KeyProvider
    from gateway.routing import Policy
    from gateway.service import ModelService
    from gateway.state import StateStore
    from gateway.transform import Transform
    from gateway.weights import WeightStore

API_VERSION = 1
"""The major version of everything a plugin sees. A plugin made for another one is refused by name."""

hookspec = pluggy.HookspecMarker("gateway")
hookimpl = pluggy.HookimplMarker("gateway")

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand of the `gateway` program: `run` is a function whose typed parameters become its options (typer).

    It may be named as ``module:function`` instead, to be imported when the command is used. A parameter ``ctx: typer.Context``
    has ``ctx.obj``, by which a command gets the gateway's ``config``, the ``keys`` of all its plugins, and ``open(bars)``, a
    context manager of the Gateway itself.
    """

    name: str
    run: Callable[..., None] | str
    help: str = ""

    def function(self) -> Callable[..., None]:
        """The function, imported."""
        if not isinstance(self.run, str):
            return self.run
        module, _, name = self.run.partition(":")
        function: Callable[..., None] = getattr(import_module(module), name)
        return function


@hookspec
def gateway_models(config: Config) -> Iterable[ModelService]:
    """The models that this plugin serves. They are described when first needed, not here."""
    return ()  # a specification: never called


@hookspec
def gateway_policies(config: Config) -> Iterable[Policy]:
    """Policies that judge every request beside the built-in ones; a built-in name replaces that one."""
    return ()  # a specification: never called


@hookspec
def gateway_transforms(config: Config) -> Iterable[Transform]:
    """Transforms; applied in the order of the configuration's `transforms`, or by name when that is absent."""
    return ()  # a specification: never called


@hookspec
def gateway_stores(config: Config) -> Iterable[WeightStore]:
    """Where weights come from, by uri scheme."""
    return ()  # a specification: never called


@hookspec
def gateway_keys(config: Config) -> Iterable[KeyProvider]:
    """Who wraps keys, by uri scheme."""
    return ()  # a specification: never called


@hookspec
def gateway_states(config: Config) -> Iterable[StateStore]:
    """Where limits are counted; at most one in a gateway. Without one they are counted in memory."""
    return ()  # a specification: never called


@hookspec
def gateway_observers(config: Config) -> Iterable[Observer]:
    """Who is told of events."""
    return ()  # a specification: never called


@hookspec
def gateway_commands(config: Config) -> Iterable[Command]:
    """Subcommands of the `gateway` program."""
    return ()  # a specification: never called
