"""gateway.toml: what is wrong is told by file, line and key, and never by its value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model, field_validator

from gateway import ConfigError, GatewayConfig, parse_config
from gateway.config import LimitConfig, PolicyConfig, config_schema, load_config

CANARY = "canary-4711"


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """The message for a file that is wrong; it names the file and never shows a value."""
    path = tmp_path / "gateway.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message.startswith(repr(str(path)))
    assert CANARY not in caught.value.message
    return caught.value.message.removeprefix(repr(str(path)))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f'x = "{CANARY}"\n', ", line 1: x: unknown key"),
        (f'\n[policy]\n\nworth = "{CANARY}"\n', ", line 4: policy.worth: "),
        (f'[policy]\nworth = 1\nwirth = "{CANARY}"\n', ", line 3: policy.wirth: unknown key"),
        (f'seed = 1\n\n[polcy]\nworth = "{CANARY}"\n', ", line 3: polcy: unknown key"),
        (f'[policy]\n"worth" = "{CANARY}"\n', ", line 2: policy.worth: "),
        (f"[policy]\n'worth' = \"{CANARY}\"\n", ", line 2: policy.worth: "),
        (f'seed = 1\npolicy.worth = "{CANARY}"\n', ", line 2: policy.worth: "),
        (f'seed = 1\n"policy" . "worth" = "{CANARY}"\n', ", line 2: policy.worth: "),
        (f'[ "policy" ] # c\nworth = "{CANARY}"\n', ", line 2: policy.worth: "),
        (f'seed = 1\npolicy = {{ worth = "{CANARY}" }}\n', ", line 2: policy.worth: "),
        ("[policy]\nworth = nan\n", ", line 2: policy.worth: "),
        ("[policy]\ntime = -0.5\n", ", line 2: policy.time: "),
        ("[policy]\nfailure = inf\n", ", line 2: policy.failure: "),
        ("[policy]\nworth = true\n", ", line 2: policy.worth: "),
        ('[policy]\nlocal_data_classes = "pii"\n', ", line 2: policy.local_data_classes: "),
        ("seed = true\n", ", line 1: seed: "),
        ("seed = 1.5\n", ", line 1: seed: "),
        (f'plugins = "{CANARY}"\n', ", line 1: plugins: "),
        ("plugins = [\n  1,\n]\n", ", line 1: plugins.0: "),
        (f'[plugin]\nlocal = "{CANARY}"\n', ", line 2: plugin.local: "),
        ('[[limit]]\nunit = "usd"\nper = "day"\n', ", line 1: limit.0.max: "),
        (f'[[limit]]\nunit = "{CANARY}"\nmax = 1\nper = "day"\n', ", line 2: limit.0.unit: "),
        ('[[limit]]\nunit="usd"\nmax=1\nper="day"\n[[limit]]\nunit="usd"\nmax=nan\nper="day"\n', ", line 7: limit.1.max: "),
        ('[[limit]]\nunit="usd"\nmax=1\nper="day"\n[[limit]]\nunit="usd"\nmax=true\nper="day"\n', ", line 7: limit.1.max: "),
        ('limit = [\n  { unit = "usd", max = -1, per = "day" },\n]\n', ", line 1: limit.0.max: "),
        ('events = """\n[policy]\nworth = 1\n"""\n[policy]\nworth = "x"\n', ", line 6: policy.worth: "),
        ("[plugin.a]\nworth = 1\n[[plugin.b.models]]\nworth = 2\n[policy]\nworth = []\n", ", line 6: policy.worth: "),
    ],
)
def test_a_wrong_key_is_named_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    assert refusal(tmp_path, text).startswith(where)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (f"seed = {CANARY}\n", 1, "seed"),
        (f'seed = 1\n\nevents = "{CANARY}\n', 3, "events"),
        (f'seed = 1\nseed = "{CANARY}"\n', 2, "seed"),
        ("[policy\n", 1, ""),
        ("seed = 1\n= 2\n", 2, ""),
    ],
)
def test_text_that_is_not_toml_is_told_by_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    message = refusal(tmp_path, text)
    assert " is not TOML: " in message and f"at line {line}" in message
    assert (f"key '{key}'" in message) is bool(key)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, "a = " + "9" * 5_000, "a = " + "{a=" * 50_000], ids=["deep", "long", "tables"]
)
def test_toml_that_python_cannot_hold_is_a_config_error(tmp_path: Path, text: str) -> None:
    assert " is not TOML: " in refusal(tmp_path, text)


def test_every_wrong_key_is_listed_with_its_own_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a = 1\nb = 2\n[policy]\nworth = []\n") == (
        ", line 1: a: unknown key; line 2: b: unknown key; line 4: policy.worth: Input should be a valid number"
    )


def test_what_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    assert "cannot be read: UnicodeDecodeError" in refusal(tmp_path, b'seed = "\xff\xfe"\n')
    for path, why in ((tmp_path, "IsADirectoryError"), (tmp_path / "none.toml", "FileNotFoundError"), ("a\0b", "ValueError")):
        with pytest.raises(ConfigError, match=why) as caught:
            load_config(path)
        assert caught.value.__cause__ is None and repr(str(path)) in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.touch(mode=0o000)
    with pytest.raises(ConfigError, match="PermissionError"):
        load_config(path)


def test_a_mapping_is_checked_like_a_file() -> None:
    assert load_config({"seed": 1, "policy": {"worth": 1}}) == GatewayConfig(seed=1, policy=PolicyConfig(worth=1.0))
    with pytest.raises(ConfigError, match=r"^policy.worth: ") as caught:
        load_config({"policy": {"worth": CANARY}})
    assert CANARY not in caught.value.message


def test_nothing_means_the_defaults() -> None:
    assert load_config(None) == load_config({}) == GatewayConfig()
    assert load_config(None).plugins is None and load_config(None).transforms is None


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        'plugins = ["local"]\ntransforms = []\nseed = 7\nevents = "e.jsonl"\n[policy]\nworth = 1\n'
        '[[limit]]\nunit = "usd"\nmax = 5\nper = "day"\nby = "tenant"\n[plugin.local]\nmodels = [{ name = "tiny" }]\n'
    )
    config = load_config(str(path))
    assert config.plugins == ["local"] and config.transforms == [] and config.seed == 7 and config.events == "e.jsonl"
    assert config.limit == [LimitConfig(unit="usd", max=5.0, per="day", by="tenant")]
    assert config.plugin == {"local": {"models": [{"name": "tiny"}]}}
    assert config.policy == PolicyConfig(worth=1.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Mine:
    """A plugin's own section."""

    models: tuple[Row, ...] = ()
    key: str = field(default="", repr=False)


def test_a_plugin_checks_its_own_section_with_the_same_words() -> None:
    assert parse_config(Mine, {"models": [{"name": "a"}]}, "plugin.mine") == Mine(models=(Row(name="a"),))
    with pytest.raises(ConfigError) as caught:
        parse_config(Mine, {"models": [{"name": "a"}, {"size": CANARY}], "key": 5}, "plugin.mine")
    assert "plugin.mine.models.1.name: " in caught.value.message and "plugin.mine.models.1.size: " in caught.value.message
    assert "plugin.mine.key: " in caught.value.message and CANARY not in caught.value.message


class Rule(BaseModel):
    """As a plugin's author writes one who thinks of no extra keys."""

    kind: str = ""

    @field_validator("kind")
    @classmethod
    def known(cls, value: str) -> str:
        if value not in ("", "email"):
            raise ValueError("must be email")
        return value


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclass
class Deep:
    row: Row | None = None
    rules: list[Rule] = field(default_factory=list)
    by_name: dict[str, Rule] = field(default_factory=dict)
    loose: Loose = field(default_factory=Loose)
    free: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"enabld": True}, "enabld"),
        ({"row": {"name": "a", "sise": 1}}, "row.sise"),
        ({"rules": [{}, {"knd": "email"}]}, "rules.1.knd"),
        ({"by_name": {"a": {"knd": "email"}}}, "by_name.a.knd"),
        ({"loose": {"any": 1}}, "loose.any"),
    ],
)
def test_a_key_that_no_field_takes_is_refused_at_every_depth_without_a_word_of_the_author(section: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^plugin.mine.{key}: unknown key$"):
        parse_config(Deep, section, "plugin.mine")
    if "rules" in section:
        with pytest.raises(ConfigError, match=r"^rules.1.knd: unknown key$"):
            parse_config(create_model("Section", rules=(list[Rule], [])), section, "")


def test_a_table_of_any_keys_is_a_dict() -> None:
    assert parse_config(Deep, {"free": {"any": {"depth": 1}}}, "").free == {"any": {"depth": 1}}


def test_the_words_of_a_validator_stand_alone() -> None:
    with pytest.raises(ConfigError, match=r"^plugin.mine.rules.0.kind: must be email$"):
        parse_config(Deep, {"rules": [{"kind": CANARY}]}, "plugin.mine")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(alphabet="ab=[]{}\".'\n #,1policyworthlm", max_size=60))
def test_any_text_is_a_configuration_or_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    try:
        load_config(path)
    except ConfigError as error:
        assert repr(str(path)) in error.message


def described(schema: dict[str, Any]) -> list[str]:
    return [name for name, one in schema["properties"].items() if "description" not in one and "$ref" not in one]


def test_the_schema_describes_every_key_and_allows_no_other() -> None:
    schema = config_schema()
    parts = [schema, *schema["$defs"].values()]
    assert set(schema["properties"]) == {
        "plugins", "transforms", "seed", "events", "require_sealed", "policy", "limit", "attempt", "retry", "hedge", "state",
        "route", "plugin",
    }  # fmt: skip
    for part in parts:
        assert part["additionalProperties"] is False and part["description"] and part["type"] == "object"
        assert described(part) == []
    limit = schema["$defs"]["LimitConfig"]
    assert limit["required"] == ["unit", "max", "per"] and limit["properties"]["max"] == limit["properties"]["max"] | {
        "minimum": 0
    }
    assert schema["properties"]["limit"]["items"] == {"$ref": "#/$defs/LimitConfig"}
    assert "required" not in schema
