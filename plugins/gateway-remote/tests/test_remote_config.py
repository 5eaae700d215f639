"""What a row may hold, and how a wrong one is told."""

import random
import subprocess
import sys

import pytest
from gateway_remote.hooks import gateway_models
from gateway_remote.service import RemoteModel

from gateway import AttemptConfig, Chat, ConfigError, Embed, MissingSecret, ModelService
from gateway.testing import resources

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
        ("limits", {"between_s": 0}),
        ("pryce", {}),
    ],
)
def test_a_wrong_value_is_named_and_never_shown(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        models({"name": "big", "base_url": URL, key: value})
    assert f"plugin.remote.models.0.{key}" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value)


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
