"""What the commands start from: which configuration, which plugins, and the commands that plugins add."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from gateway.bars import Bars
from gateway.config import GatewayConfig, PolicyConfig, load_config, located, parse_config
from gateway.decision import Decision
from gateway.errors import ConfigError, GatewayError, PluginError, told
from gateway.gateway import AsyncGateway
from gateway.hookspecs import Command
from gateway.keys import Keys
from gateway.plugins import Plugins, keys_of, load, load_plugins
from gateway.policies import builtin_policies
from gateway.replay import replay
from gateway.sync import Gateway
from gateway.wire import tasks

INTERRUPT_S = 1.0
"""How long closing may take once the user has pressed Ctrl-C."""
BUILT_IN = ("models", "explain", "run", "map", "replay", "plugins", "check", "config")


class Setup:
    """Where the configuration is, and what follows from it, each made when first asked for."""

    def __init__(self, path: Path | None) -> None:
        here = Path("gateway.toml")
        named = os.environ.get("GATEWAY_CONFIG")
        self.path = path or (Path(named) if named else here if here.exists() else None)

    @classmethod
    def of(cls, ctx: typer.Context) -> Setup:
        """The setup of this run of the program."""
        root: Any = ctx.find_root()
        if not isinstance(root.obj, Setup):
            root.obj = Setup(root.params.get("config"))
        found: Setup = root.obj
        return found

    @cached_property
    def config(self) -> GatewayConfig:
        return load_config(self.path)

    @cached_property
    def keys(self) -> Keys:
        """The key providers of the gateway and its plugins. A broken plugin is an error here."""
        return keys_of(load(self.path)[1])

    def listed(self) -> Plugins:
        """What the plugins provide, without those that are broken: for listing, not for serving."""
        try:
            found = load_plugins(self.config, on_error=lambda info: None)
        except ConfigError as error:
            raise located(error, self.path) from error.__cause__
        for info in found.infos:
            if isinstance(info.error, ConfigError):
                info.error = located(info.error, self.path)
        return found

    def clash(self, found: Plugins) -> ConfigError | None:
        """Why what was listed could not serve together: two things of one name, a transform that nobody provides."""
        broken = any(info.error is not None for info in found.infos)
        try:
            plugin_commands(found)
            # What a broken plugin would have provided is not missing: its own error says more.
            AsyncGateway(config=replace(self.config, transforms=None) if broken else self.config, plugins=found)
        except ConfigError as error:
            return located(error, self.path)
        return None

    def again(self, kept: Mapping[str, Any], where: str) -> Decision:
        """The decision that follows from a record, with the policies of the gateway and those of the plugins.

        ConfigError, which names `where` the record is from.
        """
        _, plugins = load(self.path)
        added = plugins.named("policies")
        try:
            settings = parse_config(PolicyConfig, kept["policy"], "record.policy")
            rules = {policy.name: policy for policy in builtin_policies(settings)} | added
            decision = replay(kept, rules.values(), tasks())
            str(decision)  # now: what is damaged may be found only when it is looked at
        except Exception as error:
            why = error.message if isinstance(error, GatewayError) else f"the record is damaged: {told(error)}"
            raise ConfigError(f"{where}: {why}") from error
        return decision

    @contextmanager
    def open(self, bars: Bars) -> Iterator[Gateway]:
        """A gateway of it all, closed at the end. A broken plugin is an error here."""
        config, plugins = load(self.path)
        plugin_commands(plugins)
        try:
            gateway = Gateway(config=config, plugins=plugins, progress=bars)
        except ConfigError as error:
            raise located(error, self.path) from error.__cause__
        try:
            yield gateway
        except KeyboardInterrupt:
            # A model that is still loading would be waited for: the program is about to end, and takes it along.
            closing = threading.Thread(target=gateway.close, daemon=True)
            closing.start()
            closing.join(INTERRUPT_S)
            raise
        except BaseException:
            gateway.close()
            raise
        gateway.close()


def plugin_commands(plugins: Plugins) -> dict[str, Command]:
    """The commands that plugins add, by name. PluginError when one has the name of another or of a built-in."""
    commands: dict[str, Command] = plugins.named("commands")
    for plugin, command in plugins.commands:
        if command.name in BUILT_IN:
            raise PluginError(
                f"plugin {plugin!r} has a command {command.name!r}, which is built in: the plugin must rename it, "
                "or be left out of `plugins` in gateway.toml",
                plugin=plugin,
            )
    return commands
