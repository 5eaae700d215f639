"""``[plugin.remote]`` of gateway.toml, checked: which models there are, where, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, with_config

import gateway
from gateway import ConfigError, ModelCard, Price, Request
from gateway_remote.formats.api import Api, api_named
from gateway_remote.presets import PRESETS

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
TASKS: Mapping[str, type[Request[Any]]] = {
    task.task: task
    for task in (
        gateway.Chat, gateway.Embed, gateway.Rerank, gateway.Classify, gateway.Extract, gateway.Answer, gateway.Summarize,
        gateway.Translate, gateway.ClassifyImage, gateway.DetectObjects, gateway.GenerateImage, gateway.Transcribe,
        gateway.Speak,
    )
}  # fmt: skip
MADE_OF = {"classify_image": "image", "detect_objects": "image", "transcribe": "audio"}
"""The modality of a task's input, where that is no text."""
OPTIONS = frozenset(f.name for task in TASKS.values() for f in fields(task))
SECRET_HEADER = re.compile(
    r"key$|[-_]key[-_]|token(?!s)|secret|authoriz|authentic|(^|[-_])auth([-_]|$)|cookie|passw|credential|signature",
    re.IGNORECASE,
)
"""A header of such a name holds a secret."""
ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models")
OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type"})
OWN_FIELDS = frozenset({"model", "messages", "input", "inputs", "contents", "stream"})
"""Fields of a body that hold the request itself."""
FEATURES = (
    "streaming", "tools", "json_schema", "stop", "seed", "logprobs", "top_k", "reasoning", "dimensions", "penalties", "prefill",
    "zero_shot", "timestamps",
)  # fmt: skip
"""What this plugin reads of a row's `features`."""
REFERENCE = re.compile(r"(env|file|keyring):\S.*")


def is_reference(value: str) -> bool:
    """True for ``env:NAME`` and its like: a value that stands for a secret."""
    return REFERENCE.fullmatch(value) is not None


def _http_url(value: str) -> str:
    if not value:
        raise ValueError("is missing: give it, such as https://api.example.com/v1, or the `preset` of a provider that has one")
    # No message repeats the URL: it may hold a password.
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be an http:// or https:// URL, such as https://api.example.com/v1")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password: give the key as api_key = 'env:NAME'")
    if parts.query or parts.fragment or any(not 32 < ord(c) < 127 for c in value):
        raise ValueError("must be a plain URL without a query, fragment or space")
    value = value.rstrip("/")
    for ending in ENDPOINTS:
        if value.lower().endswith(ending):
            raise ValueError(f"must not name an endpoint: give the part before {ending}")
    return value


def _references(value: Any) -> Any:
    refs = [value] if isinstance(value, str) else value
    if not isinstance(refs, (list, tuple)) or not all(isinstance(ref, str) and is_reference(ref) for ref in refs):
        # What stands there may be the key itself: it is not repeated.
        raise ValueError("a secret is given as env:NAME, file:PATH or keyring:SERVICE/USER, one or a list, not as its value")
    if len(set(refs)) < len(refs):
        raise ValueError("two keys are the same")
    return list(refs)


def _proxy(value: str) -> str:
    if not value or is_reference(value):
        return value
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        if "@" not in parts.netloc:
            good = good and parts.port != 0  # or a ValueError
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be an http:// or https:// URL, env:NAME, or '' for none")
    if "@" in parts.netloc:
        raise ValueError("must not hold a password: give the whole URL as env:NAME or file:PATH")
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise ValueError("is no name of an HTTP header: letters, digits, hyphens")  # not repeated: it may be a misplaced key
    if value.lower() in OWN_HEADERS:
        raise ValueError(f"{value!r} is set by the plugin")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        _header_name(name)
        if SECRET_HEADER.search(name) and not is_reference(content):
            raise ValueError(f"{name!r} holds a secret: give it as env:NAME or file:PATH")
        if any(not 32 <= ord(c) < 127 for c in content):
            raise ValueError(f"the value of {name!r} must be printable ASCII")
    return value


def _options(value: frozenset[str]) -> frozenset[str]:
    if unknown := value - OPTIONS:
        raise ValueError(f"{min(unknown)!r} is no option of a request")
    return value


def _features(value: list[str]) -> list[str]:
    # An app may have features of its own, which its needs name: what is nearly one of ours is a slip.
    for name in value:
        near = get_close_matches(name, FEATURES, n=1, cutoff=0.8)
        if near and name not in FEATURES:
            raise ValueError(f"{name!r} is no feature: {near[0]!r} is meant?")
    return value


def _quality(value: Any) -> Any:
    each = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) and 0 <= one <= 1 for one in each):
        raise ValueError("must be a number from 0 to 1, or one for each task, such as {chat = 0.8}")
    return value


def _body(value: dict[str, Any]) -> dict[str, Any]:
    if own := OWN_FIELDS & value.keys():
        raise ValueError(f"{min(own)!r} is set by the plugin")
    return value


Amount = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]
Task = Literal[
    "chat", "embed", "rerank", "classify", "extract", "answer", "summarize", "translate", "classify_image", "detect_objects",
    "generate_image", "transcribe", "speak",
]  # fmt: skip


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PriceRow:
    """USD per million tokens; `request` is USD per call. Requests of more than `above_tokens` cost `above` instead."""

    input: Amount = 0.0
    output: Amount = 0.0
    cached_input: Amount | None = None
    cache_write: Amount | None = None
    request: Amount = 0.0
    above_tokens: Count | None = None
    above: PriceRow | None = None

    def as_price(self) -> Price:
        """The same as the card holds it."""
        facts = {name: value for name, value in vars(self).items() if name != "above"}
        return Price(**facts, above=None if self.above is None else self.above.as_price())


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long silence is borne, in seconds. The caller's own deadline holds beside them.

    `first_token_s` runs from the request to the first piece of a stream, `between_s` from one piece to the
    next (keepalives are no pieces), `reply_s` from the request to the last byte of a reply that is not
    streamed.
    """

    connect_s: Seconds = 10.0
    first_token_s: Seconds = 120.0
    between_s: Seconds = 60.0
    reply_s: Seconds = 600.0


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model behind an HTTP API. `name` is ours, `model` the server's; what is not known is left out."""

    name: Name
    preset: str = ""
    base_url: Annotated[str, Field(validate_default=True), AfterValidator(_http_url)] = ""
    api: Literal["openai", "openai-responses", "anthropic", "gemini", "huggingface"] = "openai"
    model: str = ""
    api_key: Annotated[list[str], BeforeValidator(_references)] = field(default_factory=list)
    key_header: Annotated[str, AfterValidator(lambda value: value and _header_name(value))] = ""
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = field(default_factory=dict, repr=False)
    tasks: Annotated[list[Task], Field(min_length=1)] = field(default_factory=lambda: ["chat"])
    place: Literal["host", "private", "hosted"] = "hosted"
    provider: str = ""
    price: PriceRow | None = None
    prices: str = ""
    context: Count | None = None
    max_output: Count | None = None
    params: Amount | None = None
    dimensions: Count | None = None
    quality: Annotated[float | dict[str, float], PlainValidator(_quality)] | None = None
    languages: list[str] | None = None
    features: Annotated[list[str], AfterValidator(_features)] | None = None
    modalities: list[Literal["text", "image", "audio", "file"]] | None = None
    refuses: Annotated[frozenset[str], AfterValidator(_options)] = frozenset()
    first_token_s: Amount | None = None
    per_token_s: Amount | None = None
    limits: Limits = Limits()
    max_connections: Count = 1000
    proxy: Annotated[str, AfterValidator(_proxy)] | None = None
    ca_file: str | None = None
    http2: bool = False
    max_media_bytes: Count = 20_000_000
    body: Annotated[dict[str, Any], AfterValidator(_body)] = field(default_factory=dict, repr=False)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    embedding_format: Literal["float", "base64"] = "float"
    reasoning_field: str = ""

    @classmethod
    def filled(
        cls, row: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, *, where: str = "model"
    ) -> dict[str, Any]:
        """The keys of a row with those of its preset, and the section's defaults, where it says nothing.

        A default goes before a preset: somebody has written it here. ConfigError for a preset that there is not.
        """
        given = {**(defaults or {}), **row}
        name = given.get("preset", "")
        if not isinstance(name, str) or name not in {"", *PRESETS}:
            wrong = f"there is no preset {name!r}" if isinstance(name, str) else "a preset is given by its name"
            raise ConfigError(f"{where}.preset: {wrong}; there are: {', '.join(sorted(PRESETS))}")
        if name:
            return {"provider": name, **PRESETS[name], **given}
        # The price is the provider's, however the row has come to name it.
        url = str(given.get("base_url", "")).rstrip("/")
        same = (preset.get("prices", "") for preset in PRESETS.values() if preset.get("base_url") == url)
        return {"prices": next(same, ""), **given}

    @cached_property
    def wire(self) -> Api:
        """The wire format."""
        return api_named(self.api)

    @property
    def host(self) -> str:
        """The host that the model is asked at."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def hint(self) -> str:
        """What a 404 suggests; "" when the base_url has a path."""
        usual = {"gemini": "/v1beta", "huggingface": ""}.get(self.api, "/v1")
        return f" (does base_url need {usual} at its end?)" if usual and not urlsplit(self.base_url).path else ""

    @property
    def provider_name(self) -> str:
        """Whose limits and failures it shares."""
        return self.provider or self.host

    @property
    def key(self) -> str:
        """What names the key that pays, such as ``env:NAME``; never its value, "" when there is none."""
        header = (value for name, value in self.headers.items() if SECRET_HEADER.search(name))
        return ",".join(self.api_key) or next(header, "")

    @property
    def served_model(self) -> str:
        """The name that the server knows the model by."""
        return self.model or self.name

    @cached_property
    def card(self) -> ModelCard:
        """What this row states of its model. ConfigError for a task that the API does not have."""
        for task in self.tasks:
            if TASKS[task] not in self.wire.routes:
                able = ", ".join(sorted(known.task for known in self.wire.routes))
                raise ConfigError(f"model {self.name!r}: the API {self.api!r} does not do the task {task!r}; it does: {able}")
        features = self.features
        if features is None:
            features = list(self.wire.features) if "chat" in self.tasks else []
        modalities = {*(self.modalities or ["text"]), *(MADE_OF[task] for task in self.tasks if task in MADE_OF)}
        return ModelCard(
            name=self.name,
            tasks=frozenset(TASKS[task] for task in self.tasks),
            place=self.place,
            provider=self.provider_name,
            model=self.served_model,
            params=None if self.params is None else int(self.params),
            context=self.context,
            max_output=self.max_output,
            dimensions=self.dimensions,
            features=frozenset(features),
            modalities=frozenset(modalities),
            languages=None if self.languages is None else frozenset(self.languages),
            price=None if self.price is None else self.price.as_price(),
            quality=self.quality,
            first_token_s=self.first_token_s,
            per_token_s=self.per_token_s,
            key=self.key,
        )


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """The whole section. `defaults` are keys of a row that hold for every row which does not say otherwise."""

    models: list[dict[str, Any]] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)
