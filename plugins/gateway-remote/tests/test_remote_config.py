"""What a row may hold, and how a wrong one is told."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_remote.hooks import gateway_models
from gateway_remote.service import RemoteModel
from remote_case import with_model

from gateway import (
    AsyncGateway,
    AttemptConfig,
    Chat,
    ConfigError,
    Embed,
    Meta,
    MissingSecret,
    ModelService,
    UnsupportedOption,
)
from gateway.testing import LoopbackServer, resources

URL = "https://api.example.com/v1"


def models(*rows: dict[str, object]) -> list[ModelService]:
    return list(gateway_models({"models": list(rows)}))


def test_a_row_becomes_a_service_with_a_card() -> None:
    price = {"input": 0.25, "output": 2, "cached_input": 0.025}
    [service] = models(
        {"name": "big", "base_url": URL + "/", "model": "gpt-5-mini", "price": price, "context": 400_000,
         "quality": {"chat": 0.8}, "languages": ["en"], "params": 8e9, "modalities": ["text", "image"]}
    )  # fmt: skip
    card = service.card
    assert (card.name, card.model, card.place, card.provider) == (
        "big",
        "gpt-5-mini",
        "hosted",
        "api.example.com",
    )
    assert card.tasks == {Chat} and card.context == 400_000 and card.params == 8_000_000_000
    assert card.price is not None and card.price.usd(1_000_000, 0) == 0.25
    assert card.features == {"streaming", "stop", "seed", "tools", "json_schema"}


def test_the_card_names_the_key_that_pays_and_never_its_value() -> None:
    azure = {"api-key": "env:AZURE_KEY", "x-team": "blue"}
    rows: list[dict[str, object]] = [{"api_key": "env:OPENAI_API_KEY"}, {"headers": azure}, {"headers": {"x-team": "blue"}}, {}]
    services = models(*({"name": f"m{at}", "base_url": URL, **row} for at, row in enumerate(rows)))
    assert [service.card.key for service in services] == ["env:OPENAI_API_KEY", "env:AZURE_KEY", "", ""]


def test_no_model_is_taken_to_go_on_with_an_assistant_s_message_unless_its_row_says_so() -> None:
    plain, stated = models(
        {"name": "plain", "base_url": URL},
        {"name": "stated", "base_url": URL, "features": ["streaming", "prefill"]},
    )
    assert "prefill" not in plain.card.features and "prefill" in stated.card.features


def test_a_row_may_have_features_of_the_app_s_own() -> None:
    [service] = models({"name": "m", "base_url": URL, "features": ["tools", "legal-hold"]})
    assert service.card.features == {"tools", "legal-hold"}


def test_a_transport_that_is_none_is_told_at_once() -> None:
    for wrong in (3, object(), type("T", (), {"handle_async_request": None})):
        with pytest.raises(TypeError, match=r"not an httpx\.AsyncBaseTransport"):
            RemoteModel({"name": "m", "base_url": URL}, transport=wrong)  # type: ignore[arg-type]


def test_the_gateway_is_told_to_time_nothing_a_second_time() -> None:
    [service] = models({"name": "big", "base_url": URL, "limits": {"reply_s": 5}})
    assert service.limits == AttemptConfig(first_token_s=None, between_s=None, reply_s=None)


def test_an_embedding_model_claims_no_chat_features() -> None:
    [service] = models({"name": "vectors", "base_url": URL, "tasks": ["embed"], "dimensions": 64, "place": "private"})
    assert service.card.tasks == {Embed} and service.card.features == frozenset()
    assert service.card.model == "vectors" and service.card.place == "private"


def test_without_configuration_there_is_no_model() -> None:
    assert list(gateway_models({})) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_url", "ftp://example.com"),
        ("base_url", "file:///etc/passwd"),
        ("base_url", "https://user:hunter2@example.com/v1"),
        ("base_url", "https://example.com/v1?key=hunter2"),
        ("base_url", "https://[::1"),
        ("base_url", "example.com"),
        ("base_url", "https://example.com:hunter2/v1"),
        ("api_key", "sk-hunter2"),
        ("api", "telepathy"),
        ("tasks", []),
        ("place", "process"),
        ("context", 0),
        ("quality", 1.5),
        ("first_token_s", float("nan")),
        ("headers", {"Authorization": "Bearer hunter2"}),
        ("headers", {"Host": "hunter2"}),
        ("headers", {"x-a": "hunter2\r\nx-b: 1"}),
        ("headers", {"X-Auth-Token": "hunter2"}),
        ("headers", {"Cookie": "hunter2"}),
        ("headers", {"x-goog-api-key": "hunter2"}),
        ("headers", {"Ocp-Apim-Subscription-Key": "hunter2"}),
        ("headers", {"X-Client-Secret": "hunter2"}),
        ("headers", {"x a": "hunter2"}),
        ("headers", {"x-a": 5}),
        ("headers", "hunter2"),
        ("api_key", ["env:GOOD", "sk-hunter2"]),
        ("api_key", ["env:SAME", "env:SAME"]),
        ("api_key", {"key": "hunter2"}),
        ("api_key", ""),
        ("api_key", "env:"),
        ("api_key", "vault:hunter2"),
        ("key_header", "Host"),
        ("key_header", "x hunter2:"),
        ("proxy", "http://user:hunter2@proxy.example:3128"),
        ("proxy", "http://user:hunter2"),
        ("proxy", "socks5://proxy.example"),
        ("proxy", "http://[::1"),
        ("proxy", "hunter2"),
        ("preset", "hunter"),
        ("preset", 5),
        ("preset", ["openai"]),
        ("refuses", ["sead"]),
        ("body", ["hunter2"]),
        ("body", {"messages": ["hunter2"]}),
        ("features", ["streeming"]),
        ("quality", 9),
        ("quality", {"chat": "hunter2"}),
        ("base_url", ""),
        ("languages", "hunter2"),
        ("price", {"input": -1}),
        ("prices", 5),
        ("http2", "hunter2"),
        ("max_connections", 0),
        ("max_media_bytes", 0),
        ("modalities", ["smell"]),
        ("max_tokens_field", "tokens"),
        ("embedding_format", "int"),
        ("limits", {"between_s": 0}),
        ("pryce", {}),
    ],
)
def test_a_wrong_value_is_named_and_never_shown(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        models({"name": "big", "base_url": URL, key: value})
    assert f"plugin.remote.models.0.{key}" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tasks": ["chat", "chatt"]}, "plugin.remote.models.1.tasks.1: Input should be 'chat', 'embed', "),
        ({"tasks": ["rerank"], "api": "anthropic"}, "plugin.remote.models.1.tasks: model 'm': the API 'anthropic' does not do"),
        ({"api": "antropic"}, "plugin.remote.models.1.api: Input should be 'openai', 'openai-responses', 'anthropic', "),
        ({"preset": "opnai"}, "plugin.remote.models.1.preset: there is no preset 'opnai'; there are: anthropic, azure, "),
        ({"limits": {"reply": 1}}, "plugin.remote.models.1.limits.reply: unknown key"),
        ({"price": {"above": {"inputs": 1}}}, "plugin.remote.models.1.price.above.inputs: unknown key"),
        ({"base_url": None}, "plugin.remote.models.1.base_url: Input should be a valid string"),
        ({"features": ["tool"]}, "plugin.remote.models.1.features: 'tool' is no feature: 'tools' is meant?"),
        ({"quality": 9}, "plugin.remote.models.1.quality: must be a number from 0 to 1, or one for each task"),
        ({"body": {"model": "x"}}, "plugin.remote.models.1.body: 'model' is set by the plugin"),
        ({"name": ""}, "plugin.remote.models.1.name: String should have at least 1 character"),
        ({"pryce": 1, "proxi": 2}, "plugin.remote.models.1.pryce: unknown key; plugin.remote.models.1.proxi: unknown key"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_there_is(row: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        models({"name": "good", "base_url": URL}, {"name": "m", "base_url": URL, **row})
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"model": []}, "plugin.remote.model: unknown key"),
        ({"models": {"name": "m"}}, "plugin.remote.models: Input should be a valid list"),
        ({"models": ["m"]}, "plugin.remote.models.0: Input should be a valid dictionary"),
        ({"models": [{"base_url": URL}]}, "plugin.remote.models.0.name: Field required"),
        ({"models": [{"name": "m"}]}, "plugin.remote.models.0.base_url: is missing: give it"),
        ({"defaults": []}, "plugin.remote.defaults: Input should be a valid dictionary"),
        ({"defaults": {"pryce": 1}}, "plugin.remote.defaults.pryce: unknown key"),
        ({"defaults": {"name": "m"}}, "plugin.remote.defaults.name: every model has a name of its own"),
        ({"defaults": {"preset": "opnai"}}, "plugin.remote.defaults.preset: there is no preset 'opnai'"),
        ({"defaults": {"api_key": "hunter2"}}, "plugin.remote.defaults.api_key: a secret is given as env:NAME"),
        ({"defaults": {"limits": {"reply_s": 0}}}, "plugin.remote.defaults.limits.reply_s: Input should be greater than 0"),
    ],
)
def test_a_mistake_beside_the_rows_is_told_with_its_place(section: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(gateway_models(section))
    assert str(caught.value).startswith(told) and "hunter2" not in str(caught.value)


def test_the_file_and_the_line_of_a_mistake_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f'plugins = ["remote"]\n[[plugin.remote.models]]\nname = "m"\nbase_url = "{URL}"\napi_key = "hunter2"\n')
    with pytest.raises(
        ConfigError, match=r"gateway\.toml', line 5: plugin.remote.models.0.api_key: a secret is given as"
    ) as caught:
        AsyncGateway.from_config(path)
    error: BaseException | None = caught.value
    while error is not None:  # pydantic's own error quotes the value
        assert "hunter2" not in f"{error}{error!r}{error.args}"
        error = error.__cause__ or error.__context__


def test_defaults_hold_for_every_row_that_does_not_say_otherwise() -> None:
    defaults = {"api_key": "env:TEAM_KEY", "place": "private", "limits": {"reply_s": 5}, "preset": "mistral"}
    rows = [
        {"name": "one"},
        {"name": "two", "place": "hosted", "api_key": ["env:MY_KEY"], "base_url": URL},
        {"name": "three", "preset": "openai"},
        {"name": "four", "preset": "", "base_url": URL, "api_key": []},
    ]
    section = {"models": rows, "defaults": defaults}
    one, two, three, four = (service for service in gateway_models(section) if isinstance(service, RemoteModel))
    assert (one.row.base_url, one.row.place, one.row.api_key) == ("https://api.mistral.ai/v1", "private", ["env:TEAM_KEY"])
    assert (two.row.base_url, two.row.place, two.row.api_key, two.row.preset) == (URL, "hosted", ["env:MY_KEY"], "mistral")
    # What somebody has written goes before what a preset has.
    assert (three.row.base_url, three.row.api_key) == ("https://api.openai.com/v1", ["env:TEAM_KEY"])
    assert (four.row.preset, four.row.api_key, four.row.provider_name) == ("", [], "api.example.com")
    assert {service.row.limits.reply_s for service in (one, two, three, four)} == {5}


def test_rows_of_one_gateway_know_what_has_become_of_each_other_s_keys() -> None:
    one, two = (service for service in models(*({"name": f"m{at}", "base_url": URL} for at in range(2))))
    assert isinstance(one, RemoteModel) and isinstance(two, RemoteModel) and one._rests is two._rests


@pytest.mark.parametrize(
    "name", ["x-team", "OpenAI-Organization", "anthropic-version", "x-max-tokens", "HTTP-Referer", "x-author"]
)
def test_a_header_that_holds_no_secret_may_be_given_as_it_is(name: str) -> None:
    [service] = models({"name": "m", "base_url": URL, "headers": {name: "blue"}})
    assert isinstance(service, RemoteModel) and service.row.headers == {name: "blue"} and service.row.key == ""


@pytest.mark.parametrize("name", ["Authorization", "x-auth-token", "api-key", "Ocp-Apim-Subscription-Key"])
def test_a_header_that_holds_a_secret_names_the_key(name: str) -> None:
    [service] = models({"name": "m", "base_url": URL, "headers": {name: "keyring:team/me"}})
    assert isinstance(service, RemoteModel) and service.card.key == "keyring:team/me"


def test_no_repr_of_a_row_shows_what_may_be_secret() -> None:
    given = {"headers": {"x-note": "hunter2"}, "body": {"user": "hunter2"}, "api_key": "env:KEY"}
    [service] = models({"name": "m", "base_url": URL, **given})
    assert isinstance(service, RemoteModel) and "hunter2" not in f"{service!r}{service.row!r}{service.card!r}"


def test_what_a_row_refuses_is_refused_and_what_its_body_has_is_sent(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        with pytest.raises(UnsupportedOption, match="its row says so in `refuses`") as caught:
            await model.run(Chat.ask("Hi", seed=1))
        assert caught.value.option == "seed"
        reply = await model.run(Chat.ask("Hi", seed=1, max_tokens=7).with_meta(Meta(drop_unsupported=True)))
        assert reply.dropped == ("seed",)
        assert server.requests[-1].json["user"] == "me" and server.requests[-1].json["max_tokens"] == 7
        assert "seed" not in server.requests[-1].json

    with_model(server, test, refuses=["seed"], body={"user": "me", "max_tokens": 99})


@pytest.mark.parametrize("ending", ["/chat/completions", "/completions/", "/embeddings", "/Chat/Completions"])
def test_a_base_url_that_names_an_endpoint_is_refused_with_what_to_give(ending: str) -> None:
    with pytest.raises(ConfigError) as caught:
        models({"name": "big", "base_url": URL + ending})
    wanted = ending.lower().rstrip("/")
    assert f"plugin.remote.models.0.base_url: must not name an endpoint: give the part before {wanted}" in str(caught.value)


async def _describe(service: ModelService) -> None:
    await service.describe(resources())


def test_a_missing_key_is_this_model_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.delenv("REMOTE_TEST_KEY", raising=False)
    with_key, without = models(
        {"name": "keyed", "base_url": URL, "api_key": "env:REMOTE_TEST_KEY"},
        {"name": "open", "base_url": URL},
    )
    with pytest.raises(MissingSecret) as caught:
        asyncio.run(_describe(with_key))
    assert caught.value.ref == "env:REMOTE_TEST_KEY"
    asyncio.run(_describe(without))


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setenv("REMOTE_TEST_KEY", "hunter2\nx: y")
    [service] = models({"name": "keyed", "base_url": URL, "api_key": "env:REMOTE_TEST_KEY"})
    with pytest.raises(ConfigError) as caught:
        asyncio.run(_describe(service))
    assert "hunter2" not in str(caught.value)


def test_the_hooks_import_no_http_client() -> None:
    script = "import sys, gateway_remote.hooks; sys.exit(bool({'httpx', 'httpcore', 'anyio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_model_can_be_made_from_a_mapping_and_shows_its_host_only() -> None:
    model = RemoteModel({"name": f"m{random.Random(1).random()}", "base_url": URL})
    assert "api.example.com" in repr(model) and "/v1" not in repr(model)
