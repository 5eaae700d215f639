"""What the commands start from: which configuration, which plugins, and the commands that plugins add."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from gateway.cli_show import Bars
from gateway.config import GatewayConfig, load_config
from gateway.errors import PluginError
from gateway.hookspecs import Command
from gateway.plugins import Plugins, load_plugins
from gateway.sync import Gateway

BUILT_IN = ("models", "explain", "run", "plugins", "check", "config")


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

    def listed(self) -> Plugins:
        """What the plugins provide, without those that are broken: for listing, not for serving."""
        return load_plugins(self.config, on_error=lambda info: None)

    def open(self, bars: Bars) -> Gateway:
        """A gateway of it all. A broken plugin is an error here."""
        plugins = load_plugins(self.config)
        plugin_commands(plugins)
        return Gateway(config=self.config, plugins=plugins, progress=bars)


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
