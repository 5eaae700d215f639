"""Dialect: a wire format that the loopback server speaks, as pure functions. `OpenAI`, the first of them.

A dialect turns its request into a chat as script.py takes it, and that chat's reply into its own: so scripts, limits and
echoes are the same in each.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.testing.http11 import Request, parsed
from gateway.testing.script import JSON, Answer, Refusal, Reply, chat, complete, embed, error, streamed


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request to answer, the how-manieth it is, and what the server has been told to say."""

    request: Request
    number: int
    reply: Reply | None
    answer: Answer
    models: Sequence[str]

    @property
    def body(self) -> JSON:
        """The request's JSON; a Refusal when it is none."""
        return self.request.json if isinstance(self.request.json, dict) else parsed(self.request.body)


@dataclass(frozen=True)
class Spoken:
    """What is sent: the events of a stream, without the one that ends it, or one body."""

    payloads: list[bytes]
    streams: bool = False
    kind: str = "application/json"


class Dialect:
    """The base of every dialect."""

    routes: ClassVar[Mapping[str, str]] = {}
    """The path of each endpoint, after the server's origin, and its method."""
    done: ClassVar[bytes] = b""
    """The event that ends a stream in which all went well."""
    error_name: ClassVar[str] = ""
    """The name of the event that tells a failure in mid-stream, where events have names."""
    preamble: ClassVar[int] = 0
    """How many events of a stream come before the first word."""

    def takes(self, path: str) -> bool:
        """Whether a path is one of this dialect's."""
        return path in self.routes

    def method(self, path: str) -> str:
        """The method that a path takes."""
        return self.routes[path]

    def key(self, request: Request) -> str:
        """The key that a request came with."""
        return request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")

    def model(self, request: Request) -> str:
        """The model that a request names."""
        named = request.json.get("model") if isinstance(request.json, dict) else None
        return named if isinstance(named, str) else ""

    def speak(self, asked: Asked) -> Spoken:
        """The reply. A Refusal when the API would refuse the request."""
        raise NotImplementedError

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSON:
        """The body of an error of that status."""
        return error(status, message, param=param, code=code)

    def error_event(self, message: str) -> JSON:
        """The server's failure as an event in mid-stream."""
        return self.error(500, message)


class OpenAI(Dialect):
    """OpenAI's Chat Completions, Completions and Embeddings."""

    routes: ClassVar[Mapping[str, str]] = {
        "/v1/chat/completions": "POST", "/v1/completions": "POST", "/v1/embeddings": "POST", "/v1/models": "GET",
    }  # fmt: skip
    done = b"data: [DONE]\n\n"
    preamble = 1

    def speak(self, asked: Asked) -> Spoken:
        path, reply = asked.request.path, asked.reply
        if path == "/v1/models":
            listed = [{"id": each, "object": "model", "created": 0, "owned_by": "loopback"} for each in asked.models]
            return Spoken([as_json({"object": "list", "data": listed})])
        body = asked.body
        if path == "/v1/embeddings":
            return Spoken([as_json(embed(body))])
        make = chat if path == "/v1/chat/completions" else complete
        made = make(body, number=asked.number, reply=reply, answer=asked.answer)
        if not body.get("stream"):
            return Spoken([as_json(made)])
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = streamed(made, chunks=reply.chunks if reply else (), include_usage=usage)
        return Spoken([as_event(each) for each in chunks], True)


def said_by(asked: Asked, body: JSON) -> JSON:
    """The reply to a chat of OpenAI's, made of another dialect's request: what every dialect's reply is made of."""
    return chat(body, number=asked.number, reply=asked.reply, answer=asked.answer)


def refused(refusal: Refusal, dialect: Dialect) -> JSON:
    """A refusal in the dialect's words."""
    told = refusal.body["error"]
    return dialect.error(refusal.status, told["message"], param=told["param"], code=told["code"])


def as_json(value: Any) -> bytes:
    """A body."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        return json.dumps(value).encode()


def as_event(payload: Any, name: str = "") -> bytes:
    """An event of a stream, with a name where the format has one."""
    data = payload.encode() if isinstance(payload, str) else as_json(payload)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data
