"""ModelService: the one interface that every model stands behind; Resources: what the gateway lends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.card import ANYTHING, ModelCard, Need
from gateway.clock import Clock, Random
from gateway.config import AttemptConfig
from gateway.errors import Closed, ConfigError, UnsupportedOption, WeightsError
from gateway.keys import Keys, Secret, secret
from gateway.parts import Delta, Restart
from gateway.request import NO_META, Meta, Request, Response
from gateway.weights import Weights, WeightStore, WeightsWriter

R = TypeVar("R", bound=Response)
Run = Callable[[Request[Any], Need], Awaitable[Response]]
Progress = Callable[[str, int, int | None], None]
"""Told how far something long has come: a label such as ``load tiny``, bytes done, bytes in all (None: unknown)."""


def no_progress(label: str, done: int, total: int | None) -> None:
    """Show nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Where a model runs on this machine and what it takes there now. `running` and `waiting` count requests."""

    device: str
    bytes: int = 0
    running: int = 0
    waiting: int = 0


class Resources:
    """What a service may use of its gateway. It stays valid until the gateway is closed."""

    def __init__(
        self,
        *,
        stores: Mapping[str, WeightStore],
        keys: Keys,
        clock: Clock,
        random: Random,
        run: Run | None = None,
        progress: Progress = no_progress,
        require_sealed: bool = False,
    ) -> None:
        self._stores = dict(stores)
        self._require_sealed = require_sealed
        self.keys = keys
        self.clock = clock
        self.random = random
        self.progress = progress
        """Call it from any thread while loading or downloading; the last call has done == total."""
        self.unloaded: Callable[[str], object] = bool
        """Call it on the event loop with your name when you have let go of what `start` loaded: you are started again before
        the next request, and are chosen by what that takes."""
        self._run = run

    def weights(self, uri: str, *, key: str | Sequence[str] = ()) -> Weights:
        """Open weights by uri; a plain path means ``file:``. Blocks: call it with ``asyncio.to_thread``.

        `key` refers to the keys, tried in turn, that may open them where they are sealed. By default the store's own
        section of the configuration says which.
        """
        opened = self._store(uri).open(uri, self.keys.given(key))
        if self._require_sealed and not opened.sealed:
            opened.close()
            raise WeightsError(f"weights {uri!r} are not sealed, and require_sealed is set: `gateway seal` seals a directory")
        return opened

    def create(self, uri: str, *, key: str | Sequence[str] = ()) -> WeightsWriter:
        """Begin a new model at a uri; each of the keys opens it where it is sealed. Blocks."""
        writer = self._store(uri).create(uri, self.keys.given(key))
        if self._require_sealed and not writer.sealed:
            writer.abort()
            raise WeightsError(f"weights {uri!r} would not be sealed, and require_sealed is set: write to sealed:DIR")
        return writer

    def secret(self, ref: str, meta: Meta = NO_META) -> Secret:
        """The secret behind a reference such as ``env:NAME``, for one request's tenant where that matters.

        May block, but for ``env:``.
        """
        return secret(ref)

    async def run(self, request: Request[R], need: Need = ANYTHING) -> R:
        """Ask another model of the same gateway, as an app would; give it ``request.with_meta(mine.meta)`` to keep
        tenant, data class and deadline."""
        if self._run is None:
            raise Closed("this service runs outside a gateway: there is no other model to ask")
        return await self._run(request, need)  # type: ignore[return-value]  # the gateway checks the response's type

    def _store(self, uri: str) -> WeightStore:
        scheme, colon, _ = uri.partition(":")
        if not colon or (scheme not in self._stores and ("/" in scheme or len(scheme) == 1)):
            scheme = "file"
        if scheme not in self._stores:
            known = ", ".join(sorted(self._stores))
            raise ConfigError(f"weights {uri!r}: no installed plugin reads the scheme {scheme!r} (there are: {known})")
        return self._stores[scheme]


class Options:
    """What of one request a service cannot carry: refused by name, or left out and noted, never dropped in silence.

    options = Options(request, self.name)
    if request.seed is not None:
        options.refuse("seed", "it has no dice", tunes=True)
    ...
    return options.noted(ChatResponse.of(text))
    """

    def __init__(self, request: Request[Any], model: str) -> None:
        self.dropped: list[str] = []
        self._may_drop = request.meta.drop_unsupported
        self._model = model

    def refuse(self, option: str, why: str, *, tunes: bool = False) -> None:
        """UnsupportedOption; or, for an option that only `tunes` the answer, a note, where the caller lets it be dropped."""
        if not (tunes and self._may_drop):
            message = f"model {self._model!r} cannot take {option}: {why}"
            raise UnsupportedOption(message, model=self._model, option=option)
        if option not in self.dropped:
            self.dropped.append(option)

    def noted(self, response: R) -> R:
        """The response with what was left out."""
        return replace(response, dropped=tuple(self.dropped)) if self.dropped else response


class ModelService(ABC):
    """A model as a service. The constructor is cheap: no I/O and no heavy import.

    Either set `card` (an attribute of class or instance), or set `name` and override `describe`.
    One instance serves many requests at once, all on the gateway's event loop; blocking work goes to a thread.
    """

    name: str = ""
    card: ModelCard
    limits: AttemptConfig | None = None
    """How long its silence is borne; None: as ``[attempt]`` of the configuration says."""

    async def describe(self, resources: Resources) -> ModelCard:
        """The facts of the model. May read headers, a hub or an endpoint; asked once, before `start`.

        Raise a GatewayError when they cannot be had: the model is then refused with that reason, and only it.
        """
        return self.card

    async def start(self, resources: Resources) -> None:  # noqa: B027 - nothing to load is a right answer
        """Load whatever is needed, before the first request; called again later if it failed, which is this model's alone, and
        after `Resources.unloaded`. Overloaded says that there is no room now: the next request may try at once."""

    async def check(self, resources: Resources) -> str:
        """What `gateway check` asks before traffic: a line that says what was found, or a GatewayError. Asks no model."""
        return "its card can be had"

    async def offered(self, resources: Resources) -> Sequence[ModelCard]:
        """What could be had where this model is: all that its endpoint offers, as far as that tells. Asks no model.

        Each card's `name` is what the endpoint calls the model; what is not known of it is left out.
        """
        return (await self.describe(resources),)

    @abstractmethod
    async def run(self, request: Request[Any], /) -> Response:
        """Answer one request with the response class of its task. Never change the request.

        Raise a ServiceError that says what went wrong (`gateway.errors`), or an InvalidRequest that names the field which
        no model could take, such as a URL that cannot be fetched; when cancelled, free everything at once.
        """

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        """Deltas, then exactly one Response that equals their sum. The default runs and sends one delta a part."""
        response = await self.run(request)
        for delta in response.deltas():
            yield delta
        yield response

    def footprint(self) -> Footprint | None:
        """What it takes of this machine, for `gateway models`; None: nothing to tell of. Asked at any time, and at once."""
        return None

    async def aclose(self) -> None:  # noqa: B027 - nothing to free is a right answer
        """Free everything. Called once, after the last request, also when `start` failed."""


def service_name(service: ModelService) -> str:
    """The name that a service goes by in the gateway. ConfigError when it has none."""
    name = service.name or getattr(getattr(service, "card", None), "name", "")
    if not name:
        raise ConfigError(f"{type(service).__name__} has neither a card nor a name: set one of them")
    return str(name)
