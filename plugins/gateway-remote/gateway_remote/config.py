"""``[plugin.remote]`` of gateway.toml, checked: which models there are, where, and what is known of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, with_config

from gateway import Chat, Embed, ModelCard, Price

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
TASKS = {"chat": Chat, "embed": Embed}
CHAT_FEATURES = ("streaming", "stop", "seed", "tools", "json_schema")
KEY_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key"})
ENDPOINTS = ("/chat/completions", "/completions", "/embeddings")
OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type"})


def is_reference(value: str) -> bool:
    """True for ``env:NAME`` and ``file:PATH``: the value of a header that stands for a secret."""
    return value.startswith(("env:", "file:"))


def _http_url(value: str) -> str:
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


def _reference(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+-]*:\S.*", value):
        raise ValueError("a secret is given as env:NAME or file:PATH, not as its value")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} is no name of an HTTP header")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"{name!r} is set by the plugin")
        if name.lower() in KEY_HEADERS and not is_reference(content):
            raise ValueError(f"{name!r} holds a secret: give it as env:NAME or file:PATH")
        if any(not 32 <= ord(c) < 127 for c in content):
            raise ValueError(f"the value of {name!r} must be printable ASCII")
    return value


Amount = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PriceRow:
    """USD per million tokens; `request` is USD per call."""

    input: Amount = 0.0
    output: Amount = 0.0
    cached_input: Amount | None = None
    request: Amount = 0.0

    def as_price(self) -> Price:
        """The same as the card holds it."""
        return Price(input=self.input, output=self.output, cached_input=self.cached_input, request=self.request)


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
    base_url: Annotated[str, AfterValidator(_http_url)]
    api: Literal["openai"] = "openai"
    model: str = ""
    api_key: Annotated[str, AfterValidator(_reference)] | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = field(default_factory=dict, repr=False)
    tasks: Annotated[list[Literal["chat", "embed"]], Field(min_length=1)] = field(default_factory=lambda: ["chat"])
    place: Literal["host", "private", "hosted"] = "hosted"
    provider: str = ""
    price: PriceRow | None = None
    context: Count | None = None
    max_output: Count | None = None
    params: Amount | None = None
    dimensions: Count | None = None
    quality: Share | dict[str, Share] | None = None
    languages: list[str] | None = None
    features: list[str] | None = None
    modalities: list[Literal["text", "image", "audio"]] = field(default_factory=lambda: ["text"])
    first_token_s: Amount | None = None
    per_token_s: Amount | None = None
    limits: Limits = Limits()
    max_connections: Count = 1000
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    embedding_format: Literal["float", "base64"] = "float"

    @property
    def host(self) -> str:
        """The host that the model is asked at."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def hint(self) -> str:
        """What a 404 suggests; "" when the base_url has a path."""
        return "" if urlsplit(self.base_url).path else " (does base_url need /v1 at its end?)"

    @property
    def key(self) -> str:
        """What names the key that pays, such as ``env:NAME``; never its value, "" when there is none."""
        header = (value for name, value in self.headers.items() if name.lower() in KEY_HEADERS)
        return self.api_key or next(header, "")

    @property
    def served_model(self) -> str:
        """The name that the server knows the model by."""
        return self.model or self.name

    def card(self) -> ModelCard:
        """What this row states of its model."""
        price = self.price
        features = self.features
        if features is None:
            features = list(CHAT_FEATURES) if "chat" in self.tasks else []
        return ModelCard(
            name=self.name,
            tasks=frozenset(TASKS[task] for task in self.tasks),
            place=self.place,
            provider=self.provider or self.host,
            model=self.served_model,
            params=None if self.params is None else int(self.params),
            context=self.context,
            max_output=self.max_output,
            dimensions=self.dimensions,
            features=frozenset(features),
            modalities=frozenset(self.modalities),
            languages=None if self.languages is None else frozenset(self.languages),
            price=None if price is None else price.as_price(),
            quality=self.quality,
            first_token_s=self.first_token_s,
            per_token_s=self.per_token_s,
            key=self.key,
        )


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """The whole section."""

    models: list[ModelRow] = field(default_factory=list)
