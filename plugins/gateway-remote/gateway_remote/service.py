"""RemoteModel: one model behind an HTTP API as a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from gateway import (
    AttemptConfig,
    AttemptTimeout,
    Clock,
    Closed,
    ConfigError,
    Delta,
    ModelCard,
    ModelMissing,
    ModelService,
    Request,
    Resources,
    Response,
    Restart,
    ServiceError,
    SystemClock,
    UnsupportedTask,
    parse_config,
)
from gateway_remote.config import ModelRow
from gateway_remote.failures import failure
from gateway_remote.formats.api import Heard, Offer, Reader, Route, Sending
from gateway_remote.formats.blocks import media_of
from gateway_remote.formats.values import bad
from gateway_remote.jsonbytes import JSONError, loads
from gateway_remote.key_ring import Key, Rests
from gateway_remote.quota import quota_of
from gateway_remote.secrets import Headers
from gateway_remote.sse import EventReader, LineTooLong

if TYPE_CHECKING:
    import httpx

    from gateway_remote.transport import Answer, Link

DRAIN_S = 0.2
"""How long a finished stream is waited for to end properly, so that its connection can be used again."""
MOST_PAGES = 50
"""Of a list of models, as many are read."""


class RemoteModel(ModelService):
    """A model behind an HTTP API, from a row of ``[plugin.remote] models``, or a mapping.

    `transport` is any `httpx.AsyncBaseTransport` of your own, such as a `MockTransport`; you close it. Without one, connections
    are made as needed and closed by `aclose`. `rests` is what is known of the keys that several models share.
    """

    # The row's limits hold, and are kept here: only here can a finished stream that lacks its end be told from a silent one.
    limits = AttemptConfig(first_token_s=None, between_s=None, reply_s=None)

    def __init__(
        self,
        row: ModelRow | Mapping[str, Any],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        rests: Rests | None = None,
    ) -> None:
        # A row made by hand has not been checked.
        given = asdict(row) if isinstance(row, ModelRow) else ModelRow.filled(row)
        self.row = parse_config(ModelRow, given, "model")
        self.name = self.row.name
        self._own_card = self.row.card
        if not self._prices_wanted:
            self.card = self._own_card  # else only `describe` knows all of it
        self._routes = self.row.wire.routes
        self._media = bool({"image", "audio", "file"} & self._own_card.modalities)
        self._rests = rests or Rests()
        self._keys = self._rests.ring(self.row.api_key)
        if transport is not None and (isinstance(transport, type) or not hasattr(transport, "handle_async_request")):
            raise TypeError(f"transport is a {type(transport).__name__}, not an httpx.AsyncBaseTransport")
        self._transport = transport
        self._link: Link | None = None
        self._headers = Headers(self.row)
        self._clock: Clock = SystemClock()

    def __repr__(self) -> str:
        return f"<RemoteModel {self.name!r} at {self.row.host}>"

    async def describe(self, resources: Resources) -> ModelCard:
        """The facts that the row states, and of those that it does not what the genai-prices library knows. Nothing is sent.

        MissingSecret names a secret that is missing, where the row has no other.
        """
        await asyncio.to_thread(Headers(self.row).resolve, resources)
        self.card = self._own_card
        if self._prices_wanted:
            self.card = await asyncio.to_thread(self._priced, resources.clock.now())
        return self.card

    async def start(self, resources: Resources) -> None:
        """Make ready to connect; the first request connects."""
        self._clock = resources.clock
        # Importing the client, reading the certificate authorities and a secret's file would hold the loop for 0.2 s.
        self._link = await asyncio.to_thread(self._open, resources)

    async def run(self, request: Any, /) -> Response:
        """The whole reply. Takes the tasks that the card lists."""
        route = self._route(request)
        if self._media:
            request = await self._fetched(request)
        return await self._whole(route, request, route.encode(request, self.row, False))

    async def stream(self, request: Any, /) -> AsyncIterator[Delta | Restart | Response]:
        """The deltas as they come, then the whole reply. Closing the iterator closes the connection."""
        route = self._route(request)
        if self._media:
            request = await self._fetched(request)
        if route.read is None or "streaming" not in self._own_card.features:
            response = await self._whole(route, request, route.encode(request, self.row, False))
            for delta in response.deltas():
                yield delta
            yield response
            return
        sending = route.encode(request, self.row, True)
        link, limits, key = self._started(), self.row.limits, self._key()
        loop = asyncio.get_running_loop()
        waiting = "for the first token"
        answer: Answer | None = None
        patience = link.patience()
        try:
            headers, limit_s = self._headers.of(key.ref, sending.content_type), limits.first_token_s
            try:
                deadline = await link.room() + limit_s
                with patience.until(deadline):
                    answer = await link.send("POST", sending.path, headers, sending.body)
                    kind = answer.headers.get("content-type", "")
                    whole = "json" in kind or "html" in kind
                    reply = await answer.read_all() if whole and answer.ok else b""
                if not answer.ok:
                    raise self._failure(answer, await answer.read_error())
            except TimeoutError:
                raise self._silent(waiting, limit_s) from None
            heard = self._heard(answer, key)
            if whole:  # the server does not stream
                response = _noted(route.decode(reply, request, heard), sending)
                for delta in response.deltas():
                    yield delta
                yield response
                return
            state = route.read(request, heard)
            reader = EventReader()
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
            response = _noted(state.response(), sending)
            if state.done:
                await self._drain(answer)
            yield response
        except ServiceError as error:
            raise self._keys.failed(key, error, self._clock.monotonic()) from None
        finally:
            link.rest(patience)
            if answer is not None:
                await answer.aclose()

    async def check(self, resources: Resources) -> str:
        """A line about the endpoint, which is asked for its models. ServiceError when it does not answer."""
        host, name = self.row.host, self.row.served_model
        try:
            listed = await self._listed(resources, 0)
            for place in range(1, len(self._keys)):
                await self._listed(resources, place)
        except ModelMissing:
            if self.row.hint:
                raise
            return f"{host} answers, but has no list of models at {self.row.base_url}/models"
        if not any(offer.name == name for offer in listed):
            missing = f"{host} answers, but {name!r} is not among its {len(listed)} models: check `model`"
            raise ModelMissing(f"model {self.name!r}: {missing}", model=self.name)
        absent = "".join(f"; {ref} is not there" for ref in self.row.api_key if ref not in self._headers.present)
        return f"{host} answers; {name!r} is among its {len(listed)} models{absent}"

    async def offered(self, resources: Resources) -> Sequence[ModelCard]:
        """The models that the endpoint lists, with the price and the context of each where they are known."""
        listed = await self._listed(resources)
        return await asyncio.to_thread(lambda: [self._offer(offer, resources.clock.now()) for offer in listed])

    async def aclose(self) -> None:
        """Close every connection; safe at any time."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    @property
    def _prices_wanted(self) -> bool:
        row = self.row
        return bool(row.prices) and (row.price is None or row.context is None)

    def _priced(self, now_s: float, model: str = "") -> ModelCard:
        from gateway_remote.prices import known_of  # slow to import: when first needed

        row, card = self.row, self._own_card
        known = known_of(model or row.served_model, provider=row.prices, now_s=now_s)
        if model:
            return replace(card, name=model, model=model, price=known.price, context=known.context)
        return replace(card, price=card.price or known.price, context=card.context or known.context)

    def _offer(self, offer: Offer, now_s: float) -> ModelCard:
        own = self._own_card  # of which what is said of the endpoint holds for its other models too
        blank = ModelCard(
            name=offer.name, model=offer.name, tasks=own.tasks, place=own.place, provider=own.provider, key=own.key
        )
        card = self._priced(now_s, offer.name) if self.row.prices else blank
        return replace(blank, price=card.price, context=offer.context or card.context, max_output=offer.max_output)

    def _route(self, request: Request[Any]) -> Route:
        kind = type(request)
        route = self._routes.get(kind)
        if route is not None and kind in self._own_card.tasks:
            return route
        for task, route in self._routes.items():  # a subclass of a task is that task
            if isinstance(request, task) and task in self._own_card.tasks:
                return route
        raise UnsupportedTask.of(self._own_card, request)

    async def _fetched(self, request: Any) -> Any:
        if not any(part.fetch for part in media_of(request)):
            return request
        from gateway_remote.media import fetched

        return await fetched(request, most_bytes=self.row.max_media_bytes)

    async def _whole(self, route: Route, request: Any, sending: Sending) -> Response:
        key = self._key()
        headers = self._headers.of(key.ref, sending.content_type, sending.accept)
        limit_s = self.row.limits.reply_s
        try:
            answer, reply = await self._ask(self._started(), "POST", sending.path, headers, sending.body, limit_s)
            if not answer.ok:
                raise self._failure(answer, reply)
            return _noted(route.decode(reply, request, self._heard(answer, key)), sending)
        except ServiceError as error:
            raise self._keys.failed(key, error, self._clock.monotonic()) from None

    def _key(self) -> Key:
        return self._keys.take(self._clock.monotonic(), self.name)

    def _heard(self, answer: Answer, key: Key) -> Heard:
        now_s = self._clock.now()
        quota = quota_of(answer.raw_headers, now_s)
        if quota is not None:
            quota = self._keys.answered(key, quota, self._clock.monotonic())
        return Heard(self.name, answer.headers, quota, now_s)

    def _started(self) -> Link:
        if self._link is None:
            raise Closed(f"model {self.name!r} has not been started, or has been closed")
        return self._link

    def _open(self, resources: Resources) -> Link:
        from gateway_remote.transport import Link, Network

        row = self.row
        self._headers.resolve(resources)
        self._keys = self._rests.ring(self._headers.present)
        proxy = self._headers.proxy
        network = Network(connect_s=row.limits.connect_s, proxy=proxy, ca_file=row.ca_file, http2=row.http2)
        most = row.max_connections
        try:
            return Link(row.base_url, network, model=row.name, max_connections=most, transport=self._transport)
        except ConfigError as error:
            raise ConfigError(f"model {self.name!r}: {error}") from None

    async def _ask(
        self, link: Link, method: str, path: str, headers: Mapping[str, str], body: bytes, limit_s: float
    ) -> tuple[Answer, bytes]:
        """The whole answer, closed, and its body; within `limit_s` from when it is sent."""
        answer: Answer | None = None
        patience = link.patience()
        try:
            with patience.until(await link.room() + limit_s):
                answer = await link.send(method, path, headers, body)
                if answer.ok:
                    return answer, await answer.read_all()
            return answer, await answer.read_error()
        except TimeoutError:
            raise self._silent("for the reply", limit_s) from None
        finally:
            link.rest(patience)
            if answer is not None:
                await answer.aclose()

    async def _listed(self, resources: Resources, place: int | None = None) -> list[Offer]:
        """Every model that the endpoint lists, page by page; to the key at that place, or to one that is awake."""
        link = self._link
        if link is None:
            link = await asyncio.to_thread(self._open, resources)
        wire, out, path = self.row.wire, list[Offer](), self.row.wire.models
        try:
            key = self._key() if place is None else self._keys.at(place)
            for _ in range(MOST_PAGES):
                headers = self._headers.of(key.ref, "application/json")
                answer, reply = await self._ask(link, "GET", path, headers, b"", self.row.limits.between_s)
                if not answer.ok:
                    error = self._keys.failed(key, self._failure(answer, reply), self._clock.monotonic())
                    if isinstance(error, ModelMissing):
                        where = f"{self.row.base_url}/models{self.row.hint}"
                        error.message = f"model {self.name!r}: {self.row.host} answers, but has no list of models at {where}"
                    raise error
                try:
                    payload = loads(reply)
                except JSONError:
                    payload = None
                if not isinstance(payload, (dict, list)):
                    raise bad(self.name, "the list of models is none: check base_url")
                offers, path = wire.offers(payload)
                out += offers
                if not path:
                    break
        finally:
            if link is not self._link:
                await link.aclose()
        return out

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

    def _lost(self, error: Exception, state: Reader, waiting: str) -> ServiceError:
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


def _noted(response: Response, sending: Sending) -> Response:
    """The response with the options that were left out."""
    return replace(response, dropped=tuple(sending.dropped)) if sending.dropped else response
