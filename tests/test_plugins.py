"""Loading plugins: found by entry point, refused by name, collected through hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import AsyncGateway, Chat, ConfigError, Gateway, GatewayConfig, Need, PluginError, parse_config
from gateway.plugins import PluginInfo, load_plugins
from gateway.testing import Echo, Recorder

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a distribution with one plugin, as pip would lay it out, and put it on the path."""
    made: list[str] = []

    def make(name: str, source: str, *, distribution: str = "", entry: str = "") -> None:
        distribution = distribution or f"dist-{name}"
        module = entry or f"plugin_{name}_{len(made)}"
        made.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[gateway]\n{name} = {module}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for module in made:
        sys.modules.pop(module, None)


GOOD = """
from gateway import hookimpl
from gateway.testing import Echo

@hookimpl
def gateway_models(config):
    return [Echo(config.get("name", "plugged"))]
"""


def only(*names: str, **tables: Any) -> dict[str, Any]:
    return {"plugins": list(names), **tables}


def test_an_installed_plugin_is_found_and_gets_its_own_section(install: Install) -> None:
    install("mine", GOOD)
    with Gateway.from_config(only("mine", plugin={"mine": {"name": "renamed"}})) as gw:
        assert gw.chat("hello").model == "renamed"
        assert gw.models()[0].plugin == "mine"


def test_discover_finds_it_too(install: Install) -> None:
    install("mine", GOOD)
    with Gateway.discover() as gw:
        assert gw.chat("hello", Need(model="plugged")).model == "plugged"


def test_a_plugin_that_is_not_allowed_is_not_even_imported(install: Install) -> None:
    install("bad", "raise RuntimeError('imported')")
    install("mine", GOOD)
    with Gateway.from_config(only("mine")) as gw:
        assert [status.name for status in gw.models()] == ["plugged"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('hunter2')", "failed to import: RuntimeError at plugin_broken_0.py:1"),
        ("import no_such_module", "failed to import: ModuleNotFoundError"),
        ("gateway_api = 2", "was made for version 2 of the plugin interface; this gateway has 1"),
        (GOOD.replace("[Echo", "1 / 0, [Echo"), "failed in gateway_models: ZeroDivisionError at plugin_broken_0.py:7"),
        (GOOD.replace("gateway_models", "gateway_modles"), "has a hook 'gateway_modles' that does not exist"),
        (GOOD.replace("(config)", "(config, colour)"), "does not fit the hooks"),
        (
            GOOD.replace('[Echo(config.get("name", "plugged"))]', '["a model"]'),
            "gave a str from gateway_models, not a ModelService",
        ),
        (GOOD.replace('[Echo(config.get("name", "plugged"))]', "None"), "gave nothing from gateway_models, not a list of Mod"),
        (GOOD.replace('[Echo(config.get("name", "plugged"))]', "Echo()"), "gave a Echo from gateway_models, not a list of Mod"),
        (GOOD.replace('[Echo(config.get("name", "plugged"))]', "'ab'"), "gave a str from gateway_models, not a list of Model"),
        (GOOD.replace("def gateway", "async def gateway"), "gave a coroutine from gateway_models, not a list of ModelService"),
        (GOOD.replace("@hookimpl", ""), "has 'gateway_models' without @hookimpl, so that nobody would call it"),
        (GOOD + "\ndef gateway_policies(config):\n    return []\n", "has 'gateway_policies' without @hookimpl"),
    ],
)
def test_a_broken_plugin_stops_the_start_and_is_named_with_a_way_out(install: Install, source: str, message: str) -> None:
    install("broken", source)
    with pytest.raises(PluginError, match=message) as stopped:
        AsyncGateway.from_config(only("broken"))
    text = str(stopped.value)
    assert "'broken' (dist-broken 1.2)" in text
    assert "leave it out of `plugins`" in text
    assert "hunter2" not in text
    assert (stopped.value.plugin, stopped.value.distribution, stopped.value.version) == ("broken", "dist-broken", "1.2")


def test_two_plugins_of_one_name_are_an_error_that_names_both_distributions(install: Install) -> None:
    install("twin", GOOD, distribution="first-dist")
    install("twin", GOOD, distribution="second-dist")
    with pytest.raises(PluginError, match=r"two plugins are named 'twin'.*first-dist 1.2 and second-dist 1.2"):
        Gateway.discover()


def test_two_models_of_one_name_are_an_error_that_names_both_plugins(install: Install) -> None:
    install("one", GOOD)
    install("two", GOOD)
    with pytest.raises(PluginError, match=r"two models are named 'plugged'.*'one' and .*'two'"):
        Gateway.from_config(only("one", "two"))


def test_a_plugin_that_the_configuration_names_must_be_installed() -> None:
    with pytest.raises(ConfigError, match=r"plugins: no plugin 'ghost' is installed"):
        Gateway.from_config(only("ghost"))
    with pytest.raises(ConfigError, match=r"plugin.ghost: no plugin 'ghost' is installed"):
        Gateway.from_config({"plugin": {"ghost": {}}})


def test_a_transform_that_the_configuration_names_must_be_installed() -> None:
    with pytest.raises(ConfigError, match="transforms: no transform 'scrub' is installed"):
        Gateway.from_config(only(transforms=["scrub"]))


def test_the_two_known_ways_to_give_one_name_twice_are_errors() -> None:
    with pytest.raises(PluginError, match="two observers are named 'recorder': from the app and the app"):
        AsyncGateway(observers=[Recorder(), Recorder()])
    with pytest.raises(PluginError, match="two models are named 'echo'"):
        AsyncGateway([Echo("echo"), Echo("echo")])


def test_listing_goes_on_past_a_broken_plugin(install: Install) -> None:
    install("broken", "1 / 0")
    install("mine", GOOD)
    heard: list[PluginInfo] = []
    plugins = load_plugins(parse_config(GatewayConfig, only("broken", "mine"), ""), on_error=heard.append)
    by_name = {info.name: info for info in plugins.infos}
    assert [info.name for info in heard] == ["broken"]
    assert isinstance(by_name["broken"].error, PluginError)
    assert by_name["mine"].error is None
    assert [model.card.name for _, model in plugins.models] == ["plugged"]


def test_any_iterable_of_things_will_do(install: Install) -> None:
    install("mine", GOOD.replace("return [", "yield from ["))
    with Gateway.from_config(only("mine")) as gw:
        assert [status.name for status in gw.models()] == ["plugged"]


@pytest.mark.parametrize(
    ("hook", "value", "check"),
    [
        ("gateway_policies", "[Never()]", lambda gw: gw.explain(Chat.ask("x"))),
        ("gateway_observers", "[Recorder()]", None),
        ("gateway_stores", "[MemoryStore()]", None),
        ("gateway_commands", "[Command(name='extra', run=print)]", None),
        ("gateway_transforms", "[Shape()]", None),
        ("gateway_states", "[MemoryState(SystemClock())]", None),
        ("gateway_keys", "[Lockbox()]", None),
        ("gateway_models", "[Echo('m')]", None),
    ],
)
def test_every_hook_is_asked_and_its_results_are_used(install: Install, hook: str, value: str, check: Any) -> None:
    source = f"""
from gateway import Command, Policy, SystemClock, Transform, Veto, hookimpl
from gateway.keys import EnvKey
from gateway.state import MemoryState
from gateway.testing import Echo, MemoryStore, Recorder

class Never(Policy):
    name = "never"
    def admit(self, shape, card):
        return Veto("never", "a request", "nothing")

class Shape(Transform):
    name = "shape"

class Lockbox(EnvKey):
    scheme = "lockbox"

@hookimpl
def {hook}(config):
    return {value}
"""
    install("mine", source)
    config = parse_config(GatewayConfig, only("mine"), "")
    plugins = load_plugins(config)
    assert plugins.infos[[info.name for info in plugins.infos].index("mine")].hooks == (hook,)
    with Gateway(models=[Echo("own")], config=config, plugins=plugins) as gw:
        decision = gw.explain(Chat.ask("hello"))
        assert (decision.chosen is None) == (hook == "gateway_policies")


def test_a_wrong_key_in_a_plugins_section_is_named_with_file_and_line(install: Install, tmp_path: Path) -> None:
    source = GOOD.replace(
        "def gateway_models(config):", "def gateway_models(config):\n    parse_config(Mine, config, 'plugin.mine')"
    )
    mine = "from dataclasses import dataclass\nfrom gateway import parse_config\n\n@dataclass\nclass Mine:\n    size: int = 1\n"
    install("mine", mine + source)
    path = tmp_path / "gateway.toml"
    path.write_text('plugins = ["mine"]\n\n[plugin.mine]\nsize = "huge"\n')
    with pytest.raises(ConfigError, match=r"gateway.toml', line 4: plugin.mine.size: ") as wrong:
        Gateway.from_config(path)
    assert "huge" not in str(wrong.value)
    path.write_text('plugins = ["mine"]\n\n[plugin.mine]\nsize = "huge"\n\nsise = 2\n')
    with pytest.raises(
        ConfigError, match=r"gateway.toml', line 4: plugin.mine.size: .*; line 6: plugin.mine.sise: unknown key$"
    ):
        Gateway.from_config(path)
