"""Presets: what is usual for a provider, which a row can name and override."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.body import FEATURES
from gateway_remote.hooks import gateway_models
from gateway_remote.presets import PRESETS
from gateway_remote.service import RemoteModel

from gateway import Chat, MissingSecret, ModelCard, Rerank
from gateway.testing import LoopbackServer, resources

LOCAL = {"vllm", "sglang", "llama-server", "ollama", "lmstudio"}
NEEDED: dict[str, dict[str, Any]] = {
    "azure": {"base_url": "https://team.openai.azure.com/openai/v1"},
    "huggingface-tasks": {"tasks": ["classify"]},
}
"""What a row must say beside the preset's name."""
KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN")
EVERY = pytest.mark.parametrize("preset", sorted(PRESETS))


def made(preset: str, **facts: Any) -> RemoteModel:
    [service] = gateway_models({"models": [{"name": "m", "preset": preset, **NEEDED.get(preset, {}), **facts}]})
    assert isinstance(service, RemoteModel)
    return service


def card_of(service: RemoteModel) -> ModelCard:
    return service.row.card


@EVERY
def test_a_preset_makes_a_row_whose_card_is_sensible(preset: str) -> None:
    service = made(preset, model="served")
    row, card = service.row, card_of(service)
    assert (card.name, card.model, card.provider) == ("m", "served", PRESETS[preset].get("provider", preset))
    assert card.place == ("host" if preset in LOCAL else "hosted")
    parts = urlsplit(row.base_url)
    assert parts.scheme == ("http" if preset in LOCAL else "https")
    assert (parts.hostname == "127.0.0.1") == (preset in LOCAL)
    # A server on this machine wants no key; everybody else does, and takes it from where its own tools look for it.
    assert bool(row.api_key) == (preset not in LOCAL) and card.key == ",".join(row.api_key)
    assert all(ref.startswith("env:") and ref[4:].isupper() for ref in row.api_key)
    assert card.features <= {"streaming", "prefill", *FEATURES.values()}
    assert "text" in card.modalities and card.price is None and row.limits == made("openai").row.limits
    if Chat in card.tasks:
        assert "streaming" in card.features


@EVERY
def test_every_key_of_a_preset_is_one_of_a_row_and_can_be_overridden(preset: str) -> None:
    known = set(ModelRow.__dataclass_fields__)
    assert set(PRESETS[preset]) <= known - {"name", "preset"}
    row = made(preset, base_url="http://10.0.0.1:8000/v1", api_key="env:MINE", place="private", provider="us", prices="").row
    assert (row.base_url, row.api_key, row.place, row.provider_name, row.prices) == (
        "http://10.0.0.1:8000/v1", ["env:MINE"], "private", "us", "",
    )  # fmt: skip


@EVERY
def test_a_preset_without_its_key_is_refused_with_the_name_of_the_variable(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = made(preset, price={"input": 1}, context=8)
    for ref in service.row.api_key:
        monkeypatch.delenv(ref.removeprefix("env:"), raising=False)
    if not service.row.api_key:
        assert asyncio.run(service.describe(resources())).name == "m"
        return
    with pytest.raises(MissingSecret, match=service.row.api_key[0].removeprefix("env:")):
        asyncio.run(service.describe(resources()))


def test_presets_are_not_changed_by_whoever_uses_them() -> None:
    with pytest.raises(TypeError):
        PRESETS["mine"] = {}  # type: ignore[index]
    row = made("vllm").row
    assert row.features is not None
    row.features.append("telepathy")
    assert "telepathy" not in PRESETS["vllm"]["features"] and "telepathy" not in (made("sglang").row.features or ())


def test_a_preset_of_another_wire_format_speaks_it() -> None:
    assert {name: made(name).row.api for name in ("openai", "anthropic", "gemini", "huggingface-tasks")} == {
        "openai": "openai", "anthropic": "anthropic", "gemini": "gemini", "huggingface-tasks": "huggingface",
    }  # fmt: skip
    assert card_of(made("cohere")).tasks == card_of(made("jina")).tasks == {Rerank}
    # The newer API of the same provider, by one more key.
    responses = made("openai", api="openai-responses")
    assert responses.row.base_url == made("openai").row.base_url and Chat in responses.row.card.tasks


@pytest.mark.parametrize(
    ("preset", "header", "form"),
    [
        ("openai", "authorization", "Bearer {}"),
        ("azure", "api-key", "{}"),
        ("anthropic", "x-api-key", "{}"),
        ("gemini", "x-goog-api-key", "{}"),
        ("mistral", "authorization", "Bearer {}"),
    ],
)
def test_the_key_goes_where_the_provider_looks_for_it(
    server: LoopbackServer, preset: str, header: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, f"the {name}")

    async def whole() -> None:
        path = {"gemini": "/v1beta"}.get(preset, "/v1")
        service = made(preset, base_url=server.origin + path, model="loopback", price={"input": 1}, context=8)
        await service.describe(resources())
        await service.start(resources())
        try:
            await service.run(Chat.ask("Hello"))
        finally:
            await service.aclose()
        [request] = server.requests
        assert request.headers[header] == form.format(f"the {service.row.api_key[0].removeprefix('env:')}")
        others = {"authorization", "api-key", "x-api-key", "x-goog-api-key"} - {header}
        assert not others & request.headers.keys()

    asyncio.run(whole())
