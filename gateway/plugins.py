"""Plugins: found by their entry points, loaded one by one, asked through hooks. One that is broken stops the start, by name.

Skipping a broken plugin would be worse than stopping: without its scrubber an app would leak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from gateway import hookspecs
from gateway.clock import Clock
from gateway.config import GatewayConfig, load_config, located
from gateway.errors import ConfigError, GatewayError, PluginError, told
from gateway.events import Observer
from gateway.hookspecs import API_VERSION, Command
from gateway.keys import EnvKey, FileKey, KeyProvider, KeyringKey, Keys
from gateway.registry import whose
from gateway.routing import Policy
from gateway.service import ModelService
from gateway.sqlite import SQLiteState
from gateway.state import MemoryState, StateStore
from gateway.transform import Transform
from gateway.weights import WeightStore

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "gateway"

# Hook, the Plugins field that its results go to, their type, and the attribute that names one.
HOOKS: tuple[tuple[str, str, Any, str], ...] = (
    ("gateway_models", "models", ModelService, ""),
    ("gateway_policies", "policies", Policy, "name"),
    ("gateway_transforms", "transforms", Transform, "name"),
    ("gateway_stores", "stores", WeightStore, "scheme"),
    ("gateway_keys", "keys", KeyProvider, "scheme"),
    ("gateway_states", "states", StateStore, ""),
    ("gateway_observers", "observers", Observer, "name"),
    ("gateway_commands", "commands", Command, "name"),
)


@dataclass(kw_only=True)
class PluginInfo:
    """One installed plugin: who ships it, which hooks it has, how long it took to load, and what went wrong."""

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    load_s: float = 0.0
    enabled: bool = True
    error: GatewayError | None = None

    @property
    def loaded(self) -> bool:
        """True when it was allowed, and nothing went wrong."""
        return self.enabled and self.error is None and self.load_s > 0

    def fail(self, what: str, cause: BaseException | None = None) -> PluginError:
        """The error that names this plugin and says how to do without it."""
        shipped = f" ({self.distribution} {self.version})" if self.distribution else ""
        message = f"plugin {self.name!r}{shipped} {what}; mend or uninstall it, or leave it out of `plugins` in gateway.toml"
        error = PluginError(message, plugin=self.name, distribution=self.distribution, version=self.version)
        error.__cause__ = cause
        return error


@dataclass
class Plugins:
    """Everything that the loaded plugins provide, each with the name of its plugin."""

    infos: list[PluginInfo] = field(default_factory=list)
    models: list[tuple[str, ModelService]] = field(default_factory=list)
    policies: list[tuple[str, Policy]] = field(default_factory=list)
    transforms: list[tuple[str, Transform]] = field(default_factory=list)
    stores: list[tuple[str, WeightStore]] = field(default_factory=list)
    keys: list[tuple[str, KeyProvider]] = field(default_factory=list)
    states: list[tuple[str, StateStore]] = field(default_factory=list)
    observers: list[tuple[str, Observer]] = field(default_factory=list)
    commands: list[tuple[str, Command]] = field(default_factory=list)

    def named(self, what: str) -> dict[str, Any]:
        """The things of one kind by name or scheme. PluginError when two plugins provide one name."""
        attribute = next(attribute for _, kind, _, attribute in HOOKS if kind == what)
        out: dict[str, tuple[str, Any]] = {}
        for plugin, thing in getattr(self, what):
            name = getattr(thing, attribute)
            if name in out:
                who = f"{whose(out[name][0])} and {whose(plugin)}"
                raise PluginError(f"two {what} are named {name!r}: from {who}; leave one out", plugin=plugin)
            out[name] = (plugin, thing)
        return {name: thing for name, (_, thing) in out.items()}


def load(source: str | Path | Mapping[str, Any] | None) -> tuple[GatewayConfig, Plugins]:
    """The configuration and everything that the plugins it allows provide."""
    config = load_config(source)
    try:
        return config, load_plugins(config)
    except ConfigError as error:
        raise located(error, source) from error.__cause__


def load_plugins(config: GatewayConfig, *, on_error: Callable[[PluginInfo], None] | None = None) -> Plugins:
    """Load what is installed and allowed, and collect what it provides.

    The first broken plugin raises its error, unless `on_error` takes note of it (then the rest is still
    collected: for listing, not for serving).
    """
    from importlib.metadata import entry_points  # reading metadata is slow to import, and needed here alone

    pm = pluggy.PluginManager(GROUP)
    pm.add_hookspecs(hookspecs)
    plugins = Plugins()
    installed = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    sources = [(_info(point), point) for point in installed]
    _check_names(config, [info for info, _ in sources])
    for info, point in sources:
        plugins.infos.append(info)
        info.enabled = config.plugins is None or info.name in config.plugins
        if not info.enabled:
            continue
        began = time.perf_counter()
        try:
            _register(pm, info, point)
            _collect(pm, info, config, plugins)
        except GatewayError as error:
            info.error = error
            if on_error is None:
                raise
            on_error(info)
        info.load_s = time.perf_counter() - began
    return plugins


def _told(error: Exception) -> str:
    """An exception by type and place. Its message may quote a secret of the configuration, except an import's own."""
    return f"{told(error)} ({error})" if isinstance(error, ImportError) else told(error)


def _info(point: EntryPoint) -> PluginInfo:
    dist = point.dist
    return PluginInfo(name=point.name, distribution=dist.name if dist else "", version=dist.version if dist else "")


def chosen_transforms(installed: Mapping[str, Transform], config: GatewayConfig) -> tuple[list[Transform], tuple[str, ...]]:
    """The transforms to apply, in order, and a note for each that is installed but left out."""
    if config.transforms is None:
        return [installed[name] for name in sorted(installed)], ()
    for name in config.transforms:
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            raise ConfigError(f"transforms: no transform {name!r} is installed (there are: {known})")
    left_out = sorted(set(installed) - set(config.transforms))
    notes = tuple(f"transform {name!r} is installed but left out of `transforms`" for name in left_out)
    return [installed[name] for name in config.transforms], notes


def chosen_state(plugins: Plugins, config: GatewayConfig, clock: Clock) -> StateStore:
    """The store of limits: the plugin's, an SQLite file where one is named, or memory. There must not be two."""
    if len(plugins.states) > 1:
        names = ", ".join(sorted(name for name, _ in plugins.states))
        raise PluginError(f"more than one plugin provides a state store: {names}; leave all but one out")
    if plugins.states and config.state.path is not None:
        raise ConfigError(f"state.path: {whose(plugins.states[0][0])} provides a state store too; leave one of them out")
    if config.state.path is not None:
        return SQLiteState(config.state.path, clock)
    return plugins.states[0][1] if plugins.states else MemoryState(clock)


def _check_names(config: GatewayConfig, infos: Sequence[PluginInfo]) -> None:
    seen: dict[str, PluginInfo] = {}
    for info in infos:
        other = seen.setdefault(info.name, info)
        if other is not info:
            who = " and ".join(f"{one.distribution or 'the app'} {one.version}".strip() for one in (other, info))
            raise PluginError(f"two plugins are named {info.name!r}: from {who}; uninstall one", plugin=info.name)
    for name in (*(config.plugins or ()), *config.plugin):
        if name not in seen:
            known = ", ".join(sorted(seen)) or "none"
            where = "plugins" if name in (config.plugins or ()) else f"plugin.{name}"
            raise ConfigError(f"{where}: no plugin {name!r} is installed (there are: {known})")


def _register(pm: pluggy.PluginManager, info: PluginInfo, point: EntryPoint) -> None:
    try:
        plugin = point.load()
    except Exception as error:
        raise info.fail(f"failed to import: {_told(error)}", error) from error
    wanted = getattr(plugin, "gateway_api", API_VERSION)
    if wanted != API_VERSION:
        raise info.fail(f"was made for version {wanted} of the plugin interface; this gateway has {API_VERSION}")
    try:
        pm.register(plugin, info.name)
    except (pluggy.PluginValidationError, ValueError, TypeError) as error:
        raise info.fail(f"does not fit the hooks: {error}", error) from error
    known = {hook for hook, *_ in HOOKS}
    info.hooks = tuple(sorted(caller.name for caller in pm.get_hookcallers(plugin) or ()))
    if unknown := [name for name in info.hooks if name not in known]:
        raise info.fail(f"has a hook {unknown[0]!r} that does not exist; there are: {', '.join(sorted(known))}")
    if bare := [name for name in sorted(known.difference(info.hooks)) if callable(getattr(plugin, name, None))]:
        raise info.fail(f"has {bare[0]!r} without @hookimpl, so that nobody would call it: put @hookimpl above it")


def _is_several(given: object, kind: Any) -> bool:
    """True for a list, a tuple, a generator, ... of things; False for one thing, None, or something else altogether."""
    return isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)) and not isinstance(given, kind)


def _collect(pm: pluggy.PluginManager, info: PluginInfo, config: GatewayConfig, plugins: Plugins) -> None:
    section = config.plugin.get(info.name, {})
    for hook, what, kind, _ in HOOKS:
        if hook not in info.hooks:
            continue
        # Called here, not through pluggy's loop, which would drop a None: that is a forgotten `return`.
        [own] = [one for one in getattr(pm.hook, hook).get_hookimpls() if one.plugin_name == info.name]
        try:
            given = own.function(*(section for _ in own.argnames))
            things = list(given) if _is_several(given, kind) else None
        except ConfigError:
            raise
        except Exception as error:
            raise info.fail(f"failed in {hook}: {_told(error)}", error) from error
        if things is None:
            if isinstance(given, Coroutine):
                given.close()
            what_given = "nothing" if given is None else f"a {type(given).__name__}"
            raise info.fail(f"gave {what_given} from {hook}, not a list of {kind.__name__}")
        for thing in things:
            if not isinstance(thing, kind):
                raise info.fail(f"gave a {type(thing).__name__} from {hook}, not a {kind.__name__}")
            getattr(plugins, what).append((info.name, thing))


def keys_of(plugins: Plugins) -> Keys:
    """The gateway's own key providers and those of the plugins."""
    own = (("gateway", provider) for provider in (EnvKey(), FileKey(), KeyringKey()))
    return Keys(Plugins(keys=[*own, *plugins.keys]).named("keys"))
