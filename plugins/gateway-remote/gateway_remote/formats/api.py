"""Api: what a wire format is made of. Sending, what goes out; Heard, what is known of an answer before its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from gateway import Delta, Quota, Request, Response, ServiceError

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

APIS = ("openai", "openai-responses", "anthropic", "gemini", "huggingface")
"""What a row's `api` may be."""


@dataclass(slots=True)
class Sending:
    """One request in bytes. `path` comes after the row's base_url; `dropped` names the options that were left out.

    `accept` is the form in which the reply is wanted, where a server can choose; "" leaves it to the row and the format.
    """

    path: str
    body: bytes
    content_type: str = "application/json"
    dropped: Sequence[str] = ()
    accept: str = ""


@dataclass(slots=True)  # one for each request: freezing would triple the cost of making it
class Heard:
    """What is known of an answer before its body: whose it is, its headers, and when it came, in seconds since the epoch."""

    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    quota: Quota | None = None
    now_s: float = 0.0


class Reader(Protocol):
    """A streamed reply as it comes. Every error says `in_stream` and holds the text so far as `partial`."""

    done: bool
    """True after the last event: nothing more is read."""

    @property
    def finished(self) -> bool:
        """True once the reply is whole: only usage may be missing yet."""

    def feed(self, payload: bytes) -> list[Delta]:
        """The deltas in one event's data."""

    def flush(self, payloads: list[bytes]) -> list[Delta]:
        """The deltas in what the end of the body completed; half a payload there is what a cut leaves."""

    def response(self) -> Response:
        """The whole reply. BadReply when the stream has ended without a finish."""

    def broken(self, what: str) -> ServiceError:
        """A BadReply of this stream, which asking again may cure."""

    def failed(self, error: ServiceError) -> ServiceError:
        """The error as one of this stream."""


Encode = Callable[[Any, "ModelRow", bool], Sending]
"""(request, row, whether it is to be streamed) -> what to send. UnsupportedOption names what cannot be carried."""
Decode = Callable[[bytes, Any, Heard], Response]
"""(body, request, heard) -> the reply in a body of status 200. BadReply when it is none; or the ServiceError that it holds."""
Read = Callable[[Any, Heard], Reader]


@dataclass(frozen=True, kw_only=True)
class Route:
    """How one task goes out and comes back; without `read` it is not streamed."""

    encode: Encode
    decode: Decode
    read: Read | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A model that an endpoint lists: its name there, and what the list says of its sizes, in tokens."""

    name: str
    context: int | None = None
    max_output: int | None = None


@dataclass(frozen=True, kw_only=True)
class Api:
    """A wire format. `features` are what a server of it can do for a chat, unless a row says otherwise.

    `key_header` is how a key is sent ("authorization" as a bearer token), `headers` what every request has beside it.
    `models` is the path of the list of models, `offers` reads it: the models, and the path of the next page, "" at the end.
    """

    routes: Mapping[type[Request[Any]], Route]
    key_header: str = "authorization"
    headers: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    models: str = "/models"
    offers: Callable[[Any], tuple[list[Offer], str]]


def api_named(name: str) -> Api:
    """The wire format of that name, one of APIS. Its module is imported when first asked for."""
    api: Api = import_module(f"gateway_remote.formats.{name.replace('-', '_')}").API
    return api
