"""Presets: what is usual for a provider or a server, as keys of a row. A row names one with `preset`, and overrides it.

`prices` is the provider's name in the genai-prices library. Only data: nothing here is code for one provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

USUAL = ["streaming", "stop", "seed", "tools", "json_schema", "logprobs", "penalties"]
OPEN = [*USUAL, "top_k", "reasoning", "dimensions", "prefill"]
"""What servers of open weights can do."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "openai": {
            "base_url": "https://api.openai.com/v1",
            "api_key": "env:OPENAI_API_KEY",
            "max_tokens_field": "max_completion_tokens",
            "features": [*USUAL, "reasoning", "dimensions"],
            "modalities": ["text", "image", "file"],
            "prices": "openai",
        },
        "openai-responses": {
            "api": "openai-responses",
            "base_url": "https://api.openai.com/v1",
            "api_key": "env:OPENAI_API_KEY",
            "modalities": ["text", "image", "file"],
            "provider": "openai",
            "prices": "openai",
        },
        "azure": {  # base_url: https://RESOURCE.openai.azure.com/openai/v1
            "api_key": "env:AZURE_OPENAI_API_KEY",
            "key_header": "api-key",
            "max_tokens_field": "max_completion_tokens",
            "features": [*USUAL, "reasoning", "dimensions"],
            "modalities": ["text", "image"],
            "provider": "azure",
            "prices": "azure",
        },
        "anthropic": {
            "api": "anthropic",
            "base_url": "https://api.anthropic.com/v1",
            "api_key": "env:ANTHROPIC_API_KEY",
            "modalities": ["text", "image", "file"],
            "prices": "anthropic",
        },
        "gemini": {
            "api": "gemini",
            "base_url": "https://generativelanguage.googleapis.com/v1beta",
            "api_key": "env:GEMINI_API_KEY",
            "modalities": ["text", "image", "audio", "file"],
            "prices": "google",
        },
        "mistral": {
            "base_url": "https://api.mistral.ai/v1",
            "api_key": "env:MISTRAL_API_KEY",
            "features": ["streaming", "stop", "tools", "json_schema", "penalties"],
            "prices": "mistral",
        },
        "deepseek": {
            "base_url": "https://api.deepseek.com/v1",
            "api_key": "env:DEEPSEEK_API_KEY",
            "features": ["streaming", "stop", "tools", "logprobs", "penalties"],
            "reasoning_field": "reasoning_content",
            "prices": "deepseek",
        },
        "groq": {
            "base_url": "https://api.groq.com/openai/v1",
            "api_key": "env:GROQ_API_KEY",
            "max_tokens_field": "max_completion_tokens",
            "features": ["streaming", "stop", "seed", "tools", "json_schema", "reasoning"],
            "prices": "groq",
        },
        "together": {
            "base_url": "https://api.together.xyz/v1",
            "api_key": "env:TOGETHER_API_KEY",
            "features": OPEN,
            "prices": "together",
        },
        "openrouter": {
            "base_url": "https://openrouter.ai/api/v1",
            "api_key": "env:OPENROUTER_API_KEY",
            "features": OPEN,
            "reasoning_field": "reasoning",
            "prices": "openrouter",
        },
        "fireworks": {
            "base_url": "https://api.fireworks.ai/inference/v1",
            "api_key": "env:FIREWORKS_API_KEY",
            "features": OPEN,
            "prices": "fireworks",
        },
        "huggingface": {
            "base_url": "https://router.huggingface.co/v1",
            "api_key": "env:HF_TOKEN",
            "features": OPEN,
        },
        "huggingface-tasks": {  # `model` is one of the Hub; an endpoint of its own: base_url, and no model
            "api": "huggingface",
            "base_url": "https://router.huggingface.co/hf-inference",
            "api_key": "env:HF_TOKEN",
            "features": ["seed"],
            "provider": "huggingface",
        },
        "cohere": {"base_url": "https://api.cohere.com/v2", "api_key": "env:CO_API_KEY", "tasks": ["rerank"]},
        "jina": {"base_url": "https://api.jina.ai/v1", "api_key": "env:JINA_API_KEY", "tasks": ["rerank"]},
        "vllm": {"base_url": "http://127.0.0.1:8000/v1", "place": "host", "features": OPEN},
        "sglang": {"base_url": "http://127.0.0.1:30000/v1", "place": "host", "features": OPEN},
        "llama-server": {"base_url": "http://127.0.0.1:8080/v1", "place": "host", "features": OPEN},
        "ollama": {
            "base_url": "http://127.0.0.1:11434/v1",
            "place": "host",
            "features": ["streaming", "stop", "seed", "tools", "json_schema", "penalties", "reasoning", "dimensions"],
        },
        "lmstudio": {"base_url": "http://127.0.0.1:1234/v1", "place": "host", "features": OPEN},
    }
)
