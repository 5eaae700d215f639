"""RemoteModel: one model behind an HTTP API as a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway import (
    AttemptConfig,
    AttemptTimeout,
    Chat,
    Clock,
    Closed,
    ConfigError,
    Delta,
    Embed,
    ModelCard,
    ModelMissing,
    ModelService,
    Patience,
    Resources,
    Response,
    Restart,
    ServiceError,
    SystemClock,
    UnsupportedTask,
    parse_config,
)
from gateway_remote.config import ModelRow, is_reference
from gateway_remote.failures import failure
from gateway_remote.jsonbytes import JSONError, loads
from gateway_remote.quota import quota_of
from gateway_remote.request import chat_body, embed_body
from gateway_remote.response import bad, chat_response, embed_response
from gateway_remote.sse import EventReader, LineTooLong
from gateway_remote.stream import ChatStream

if TYPE_CHECKING:
    import httpx

    from gateway_remote.transport import Answer, Link

DRAIN_S = 0.2
"""How long a finished stream is waited for to end properly, so that its connection can be used again."""


class RemoteModel(ModelService):
    """A model behind an OpenAI-compatible HTTP API, from a row of ``[plugin.remote] models``, or a mapping.

    `transport` is any `httpx.AsyncBaseTransport` of your own, such as a `MockTransport` or a quicker one than
    httpx's; you close it. Without one, connections are made as needed and closed by `aclose`.
    """

    # The row's limits hold, and are kept here: only here can a finished stream that lacks its end be told from a silent one.
    limits = AttemptConfig(first_token_s=None, between_s=None, reply_s=None)

    def __init__(self, row: ModelRow | Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        # A row made by hand has not been checked.
        self.row = parse_config(ModelRow, asdict(row) if isinstance(row, ModelRow) else dict(row), "model")
        self.name = self.row.name
        self.card = self.row.card()
        self._transport = transport
        self._link: Link | None = None
        self._clock: Clock = SystemClock()

    def __repr__(self) -> str:
        return f"<RemoteModel {self.name!r} at {self.row.host}>"

    async def describe(self, resources: Resources) -> ModelCard:
        """The facts that the row states; nothing is sent. MissingSecret names a secret that is missing."""
        self._headers(resources)
        return self.card

    async def start(self, resources: Resources) -> None:
        """Make ready to connect; the first request connects."""
        self._clock = resources.clock
        # Importing httpx, reading the certificate authorities and a secret's file would hold the loop for 0.2 s.
        self._link = await asyncio.to_thread(self._open, resources)

    async def run(self, request: Any, /) -> Response:
        """The whole reply. Takes Chat and Embed, as far as the card lists them."""
        self._check_task(request)
        path = "/embeddings" if isinstance(request, Embed) else "/chat/completions"
        if isinstance(request, Embed):
            body = embed_body(request, self.card, encoding=self.row.embedding_format)
        else:
            body = self._chat(request, stream=False)
        answer, reply = await self._ask(self._started(), "POST", path, body, self.row.limits.reply_s)
        if not answer.ok:
            raise self._failure(answer, reply)
        now_s = self._clock.now()
        quota = quota_of(answer.raw_headers, now_s)
        if isinstance(request, Embed):
            return embed_response(reply, request, model=self.name, headers=answer.headers, quota=quota, now_s=now_s)
        return chat_response(reply, request, model=self.name, headers=answer.headers, quota=quota, now_s=now_s)

    async def stream(self, request: Any, /) -> AsyncIterator[Delta | Restart | Response]:
        """The deltas as they come, then the whole reply. Closing the iterator closes the connection."""
        self._check_task(request)
        if not isinstance(request, Chat) or "streaming" not in self.card.features:
            response = await self.run(request)
            for delta in response.deltas():
                yield delta
            yield response
            return
        body = self._chat(request, stream=True)
        link, limits = self._started(), self.row.limits
        loop = asyncio.get_running_loop()
        waiting = "for the first token"
        answer: Answer | None = None
        patience: Patience | None = None
        try:
            try:
                answer = await link.send("POST", "/chat/completions", body, limit_s=limits.first_token_s)
                if not answer.ok:
                    raise self._failure(answer, await answer.read_all())
                deadline = answer.sent_s + limits.first_token_s
                kind = answer.headers.get("content-type", "")
                whole = "json" in kind or "html" in kind
                async with asyncio.timeout_at(deadline):
                    reply = await answer.read_all() if whole else b""
            except TimeoutError:
                raise self._silent(waiting, limits.first_token_s) from None
            now_s = self._clock.now()
            quota = quota_of(answer.raw_headers, now_s)
            if whole:  # the server does not stream
                response = chat_response(reply, request, model=self.name, headers=answer.headers, quota=quota, now_s=now_s)
                for delta in response.deltas():
                    yield delta
                yield response
                return
            state = ChatStream(request, model=self.name, id=answer.headers.get("x-request-id", ""), quota=quota)
            reader = EventReader()
            patience = Patience()
            while not state.done:
                # Each wait is timed by itself: nothing runs out while the caller holds a delta.
                try:
                    with patience.until(deadline):
                        chunk = await answer.read()
                    events = reader.feed(chunk) if chunk else reader.flush()
                except (TimeoutError, ServiceError, LineTooLong) as error:
                    if state.finished:  # the reply is whole: only its usage is lost
                        break
                    raise self._lost(error, state, waiting) from None
                if not chunk:
                    for delta in state.flush(events):
                        yield delta
                    break
                came = False
                for event in events:
                    for delta in state.feed(event):
                        came = True
                        yield delta
                if came or (events and waiting != "for the first token"):
                    waiting = "between two chunks"
                    deadline = loop.time() + limits.between_s
            response = state.response()
            if state.done:
                await self._drain(answer)
            yield response
        finally:
            if patience is not None:
                patience.close()
            if answer is not None:
                await answer.aclose()

    async def check(self, resources: Resources) -> str:
        """A line about the endpoint, which is asked for its models. ServiceError when it does not answer."""
        link = self._link if self._link is not None else await asyncio.to_thread(self._open, resources)
        try:
            answer, reply = await self._ask(link, "GET", "/models", b"", self.row.limits.between_s)
        finally:
            if link is not self._link:
                await link.aclose()
        if not answer.ok:
            now_s = resources.clock.now()
            error = failure(answer.status, answer.headers, reply, model=self.name, now_s=now_s, hint=self.row.hint)
            if isinstance(error, ModelMissing):
                return f"{self.row.host} answers, but has no list of models at {self.row.base_url}/models{self.row.hint}"
            raise error
        try:
            payload = loads(reply)
        except JSONError:
            payload = None
        listed = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(listed, list):
            raise bad(self.name, "the list of models is none: check base_url")
        there = any(isinstance(each, dict) and each.get("id") == self.row.served_model for each in listed)
        if not there:
            missing = f"{self.row.host} answers, but {self.row.served_model!r} is not among its {len(listed)} models"
            raise ModelMissing(f"model {self.name!r}: {missing}", model=self.name)
        return f"{self.row.host} answers; {self.row.served_model!r} is among its {len(listed)} models"

    async def aclose(self) -> None:
        """Close every connection; safe at any time."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    def _check_task(self, request: Any) -> None:
        if not any(isinstance(request, task) for task in self.card.tasks):
            raise UnsupportedTask.of(self.card, request)

    def _chat(self, request: Chat, *, stream: bool) -> bytes:
        return chat_body(request, self.card, stream=stream, max_tokens_field=self.row.max_tokens_field)

    def _started(self) -> Link:
        if self._link is None:
            raise Closed(f"model {self.name!r} has not been started, or has been closed")
        return self._link

    def _open(self, resources: Resources) -> Link:
        from gateway_remote.transport import Link  # httpx is slow to import: when first needed

        row = self.row
        return Link(
            row.base_url,
            model=row.name,
            headers=self._headers(resources),
            connect_s=row.limits.connect_s,
            max_connections=row.max_connections,
            transport=self._transport,
        )

    def _headers(self, resources: Resources) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self.row.api_key is not None:
            headers["authorization"] = f"Bearer {_header_secret(resources, self.row.api_key)}"
        for name, value in self.row.headers.items():
            headers[name.lower()] = _header_secret(resources, value) if is_reference(value) else value
        return headers

    async def _ask(self, link: Link, method: str, path: str, body: bytes, limit_s: float) -> tuple[Answer, bytes]:
        """The whole answer, closed, and its body; within `limit_s` from when it is sent."""
        answer: Answer | None = None
        try:
            answer = await link.send(method, path, body, limit_s=limit_s)
            if not answer.ok:
                return answer, await answer.read_all()
            async with asyncio.timeout_at(answer.sent_s + limit_s):
                return answer, await answer.read_all()
        except TimeoutError:
            raise self._silent("for the reply", limit_s) from None
        finally:
            if answer is not None:
                await answer.aclose()

    async def _drain(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                while await answer.read():
                    pass
        except (TimeoutError, ServiceError):
            pass  # the connection is not used again: that is all it costs

    def _failure(self, answer: Answer, reply: bytes) -> ServiceError:
        now_s = self._clock.now()
        return failure(answer.status, answer.headers, reply, model=self.name, now_s=now_s, hint=self.row.hint)

    def _lost(self, error: Exception, state: ChatStream, waiting: str) -> ServiceError:
        limits = self.row.limits
        match error:
            case ServiceError():
                return state.failed(error)
            case TimeoutError():
                limit_s = limits.first_token_s if waiting == "for the first token" else limits.between_s
                return state.failed(self._silent(waiting, limit_s))
        return state.broken(str(error))

    def _silent(self, waiting: str, limit_s: float) -> AttemptTimeout:
        message = f"model {self.name!r}: silent for {limit_s:g} s {waiting}; its limits allow no more"
        return AttemptTimeout(message, model=self.name)


def _header_secret(resources: Resources, ref: str) -> str:
    value = resources.secret(ref).reveal()
    # Checked here, because the HTTP library's own complaint would quote the value.
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"the secret {ref!r} holds characters that an HTTP header cannot carry")
    return value
