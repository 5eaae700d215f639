"""ModelCard, the facts of a model; Need, what a caller requires; Usage, what a call consumed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gateway.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from gateway.request import Request

Place = Literal["process", "host", "private", "hosted"]
"""Where a model runs: this process, this machine, the caller's own network, or somebody else's."""

PLACES: tuple[Place, ...] = ("process", "host", "private", "hosted")
LOCAL: frozenset[Place] = frozenset({"process", "host"})
NOWHERE = "nowhere"
"""What is left of the places of two needs that have none in common."""


def _names(value: Iterable[Any], where: str) -> frozenset[Any]:
    if isinstance(value, str):
        raise ConfigError(f"{where} must be a set of names, not one string")
    return frozenset(value)


def finite(value: Any) -> bool:
    """True for an int or a finite float, False for everything else, bool included."""
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def shown(value: Any) -> str:
    """A refused value for an error message: a number as it is, of anything else the type only, for it may be content."""
    number = isinstance(value, (bool, float)) or (type(value) is int and abs(value) < 1e18)
    return repr(value) if number else type(value).__name__


def check_number(value: Any, name: str, *, low: float | None, high: float = math.inf, whole: bool = False) -> None:
    """Refuse what is no number, or out of range, with an InvalidRequest for the field `name`. None passes."""
    if value is None:
        return
    kind = "a whole number" if whole else "a finite number"
    right = type(value) is int if whole else finite(value)
    if not right or (low is not None and value < low) or value > high:
        span = "" if low is None else f" of at least {low}" if high == math.inf else f" from {low} to {high}"
        raise InvalidRequest(f"{name} must be {kind}{span}, not {shown(value)}", field=name)


def _check_numbers(record: Any, where: str, error: type[ConfigError] | type[InvalidRequest]) -> None:
    """Refuse NaN, infinity, negative numbers and things that are no numbers in a record's number fields."""
    for f in fields(record):
        if ("float" not in str(f.type) and "int" not in str(f.type)) or f.name == "quality":
            continue
        value = getattr(record, f.name)
        if value is None:
            continue
        if not finite(value) or value < 0:
            message = f"{where}.{f.name} must be a finite number of at least 0, not {shown(value)}"
            raise InvalidRequest(message, field=f"{where}.{f.name}") if error is InvalidRequest else error(message)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a call consumed. `input_tokens` includes those read from the provider's cache, `cached_tokens`, and those written
    to it, `cache_write_tokens`; `output_tokens` includes the reasoning ones.

    `cost_usd` is the whole request's: failed attempts included; None where the price is not known. A service may leave it at 0:
    it is then reckoned at its card's price. `estimated` when the model did not count.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = 0.0
    estimated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """USD per million tokens, and per request. `cached_input` is for input read from the provider's cache, `cache_write` for
    input written to it; both cost what other input does where they are None. A request of more than `above_tokens` input
    tokens costs the price `above`, as a whole."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None
    request: float = 0.0
    above_tokens: int | None = None
    above: Price | None = None

    def __post_init__(self) -> None:
        if isinstance(self.above, Mapping):  # in JSON
            object.__setattr__(self, "above", Price(**self.above))
        if (self.above is None) != (self.above_tokens is None):
            raise ConfigError("price.above_tokens and price.above go together")
        _check_numbers(self, "price", ConfigError)

    def at(self, input_tokens: float) -> Price:
        """The price that holds for a request of so many input tokens."""
        price = self
        while price.above is not None and input_tokens > (price.above_tokens or 0):
            price = price.above
        return price

    def usd(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0, cache_write_tokens: float = 0) -> float:
        """The cost in USD; `input_tokens` includes `cached_tokens` and `cache_write_tokens`."""
        price = self if self.above is None else self.at(input_tokens)
        saved = 0.0 if price.cached_input is None else (price.input - price.cached_input) * min(cached_tokens, input_tokens)
        if cache_write_tokens and price.cache_write is not None:
            saved += (price.input - price.cache_write) * min(cache_write_tokens, max(0, input_tokens - cached_tokens))
        return price.request + (price.input * input_tokens + price.output * output_tokens - saved) / 1e6

    def to_json(self) -> dict[str, Any]:
        """The price as plain JSON values."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("above", "above_tokens")}
        return out if self.above is None else {**out, "above_tokens": self.above_tokens, "above": self.above.to_json()}


FREE = Price()


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """What a provider says is left of its rate limit, and in how many seconds each count is full again. None: not said."""

    requests: int | None = None
    requests_reset_s: float | None = None
    tokens: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts of one model, as its service states them. None means unknown, and an unknown fact that a
    need asks for is a refusal, never a guess.

    `params`, `active_params` are counts; `bytes` is what the weights take in memory; `context` and `max_output`
    are tokens. `modalities` are those of the input. `features` are names such as "tools", "json_schema", "stop", "seed",
    "reasoning", "prefill" (it goes on with an assistant's message that comes last), "any_length" (it reads a text beyond its
    context in windows). `languages` are BCP 47 primary tags.
    `quality` is in [0, 1], one number or one per task name.
    `first_token_s` and `per_token_s` are a prior for latency, used until enough has been measured. `concurrency` is how
    many requests it serves side by side before one waits for another. `key` names the key or account that pays, such as
    ``env:NAME``, never its value: models of one key are refused, and run out of quota, together. `last_resort` says of a
    model, such as a toy, that it is asked only when no other may be.
    """

    name: str
    tasks: frozenset[type[Request[Any]]]
    place: Place = "process"
    provider: str = ""
    model: str = ""
    params: int | None = None
    active_params: int | None = None
    bytes: int | None = None
    dtype: str | None = None
    context: int | None = None
    max_output: int | None = None
    dimensions: int | None = None
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({"text"})
    languages: frozenset[str] | None = None
    price: Price | None = None
    quality: float | Mapping[str, float] | None = None
    first_token_s: float | None = None
    per_token_s: float | None = None
    concurrency: int | None = None
    key: str = ""
    last_resort: bool = False

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigError("a model card needs a name")
        where = f"card of {self.name!r}"
        if self.place not in PLACES:
            raise ConfigError(f"{where}: place {self.place!r} is none of {', '.join(PLACES)}")
        if not self.tasks:
            raise ConfigError(f"{where}: tasks is empty; list at least one Request class")
        for attribute in ("tasks", "features", "modalities", "languages"):
            value = getattr(self, attribute)
            if value is not None and not isinstance(value, frozenset):
                object.__setattr__(self, attribute, _names(value, f"{where}: {attribute}"))
        for task in self.tasks:
            if not isinstance(getattr(task, "task", None), str):
                raise ConfigError(f"{where}: tasks must be request classes such as Chat, not {shown(task)}")
        for value in self.quality.values() if isinstance(self.quality, Mapping) else (self.quality,):
            if value is not None and not (finite(value) and 0.0 <= value <= 1.0):
                raise ConfigError(f"{where}: quality {shown(value)} is not between 0 and 1")
        _check_numbers(self, where, ConfigError)
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"{where}: concurrency must be at least 1, not {shown(self.concurrency)}")

    @property
    def local(self) -> bool:
        """True when nothing that this model is sent leaves the machine."""
        return self.place in LOCAL

    def quality_for(self, task: str) -> float | None:
        """The stated quality for a task, None when unknown."""
        quality = self.quality
        return quality if quality is None or isinstance(quality, (float, int)) else quality.get(task)

    def price_or_free(self) -> Price | None:
        """The price; a local model whose card names none is free, a hosted one's is unknown."""
        price = self.price
        return price if price is not None or self.place not in LOCAL else FREE

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values, tasks by name, unknown facts left out."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "tasks":
                value = sorted(task.task for task in value)
            elif isinstance(value, frozenset):
                value = sorted(value)
            elif isinstance(value, Price):
                value = value.to_json()
            if (value is not False and value not in (None, "", [])) or (f.name == "languages" and value is not None):
                out[f.name] = dict(value) if isinstance(value, Mapping) else value
        return out


@dataclass(frozen=True, kw_only=True)
class Need:
    """What the caller requires of a model. Everything left out allows anything.

    `model` is a name or a shell pattern (``"local-*"``), or several of them; naming one pins it. `avoid` likewise.
    `place` is one place or several; "local" stands for process and host. `context` is the fewest tokens of context.
    Latency is of the whole answer, in seconds, as predicted; `percentile` is the share of requests, in (0, 1), that the
    limits on time are to hold for, a half when left out. `max_cost_usd` is of one request, as predicted.
    Features that the request itself uses (tools, an image, ...) need not be repeated here.
    `route` asks for a route of gateway.toml by name. `within` holds more groups of names, each as `model` has them: a
    model must fit one of every group. It is what `merge` makes of two needs that both name models.
    """

    model: str | tuple[str, ...] = ()
    avoid: str | tuple[str, ...] = ()
    place: str | tuple[str, ...] = ()
    min_params: float | None = None
    max_params: float | None = None
    max_bytes: float | None = None
    context: int | None = None
    features: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    max_first_token_s: float | None = None
    max_latency_s: float | None = None
    percentile: float | None = None
    max_cost_usd: float | None = None
    min_quality: float | None = None
    route: str = ""
    within: tuple[tuple[str, ...], ...] = ()
    places: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for attribute in ("model", "avoid", "place"):
            value = getattr(self, attribute)
            several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
            if not all(isinstance(item, str) and item for item in several):
                raise InvalidRequest(f"need.{attribute} must be a name or several", field=f"need.{attribute}")
            object.__setattr__(self, attribute, several)
        for attribute in ("features", "languages"):
            value = getattr(self, attribute)
            several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
            if not all(isinstance(item, str) for item in several):
                raise InvalidRequest(f"need.{attribute} must be a name or several", field=f"need.{attribute}")
            object.__setattr__(self, attribute, frozenset(several))
        if not isinstance(self.route, str):
            raise InvalidRequest("need.route must be a string", field="need.route")
        groups = self.within if isinstance(self.within, (tuple, list)) else ((),)
        within = tuple(tuple(group) if isinstance(group, (tuple, list)) else () for group in groups)
        if not all(group and all(isinstance(item, str) and item for item in group) for group in within):
            raise InvalidRequest("need.within must be a list of lists of names", field="need.within")
        object.__setattr__(self, "within", within)
        places: set[str] = set()
        for place in self.place:
            if place not in ("local", NOWHERE, *PLACES):
                allowed = ", ".join(("local", *PLACES))
                raise InvalidRequest(f"need.place: {place!r} is none of {allowed}", field="need.place")
            places.update(LOCAL if place == "local" else (place,))
        object.__setattr__(self, "places", frozenset(places))
        _check_numbers(self, "need", InvalidRequest)
        if self.min_quality is not None and self.min_quality > 1:
            raise InvalidRequest("need.min_quality is between 0 and 1", field="need.min_quality")
        if self.percentile is not None and not 0 < self.percentile < 1:
            raise InvalidRequest("need.percentile is above 0 and below 1, such as 0.95", field="need.percentile")

    def merge(self, other: Need) -> Need:
        """Both needs at once, the stricter of the two in everything: a model must be allowed by each.

        `model` stays this need's where it names any. InvalidRequest when the two ask for different routes.
        """
        if self.route and other.route and self.route != other.route:
            message = f"need.route: {self.route!r} and {other.route!r} are two routes; ask for one"
            raise InvalidRequest(message, field="need.route")
        named = (_group(self.model), *self.within, _group(other.model), *other.within)
        model, *within = list(dict.fromkeys(group for group in named if group)) or [()]
        places = self.places & other.places if self.places and other.places else self.places | other.places
        place = tuple(one for one in PLACES if one in places) or (NOWHERE,)
        return Need(
            model=model,
            within=tuple(within),
            avoid=tuple(dict.fromkeys((*self.avoid, *other.avoid))),
            place=self.place if places == self.places else other.place if places == other.places else place,
            min_params=_most(self.min_params, other.min_params),
            max_params=_least(self.max_params, other.max_params),
            max_bytes=_least(self.max_bytes, other.max_bytes),
            context=_most(self.context, other.context),
            features=self.features | other.features,
            languages=self.languages | other.languages,
            max_first_token_s=_least(self.max_first_token_s, other.max_first_token_s),
            max_latency_s=_least(self.max_latency_s, other.max_latency_s),
            percentile=_percentile(self, other),
            max_cost_usd=_least(self.max_cost_usd, other.max_cost_usd),
            min_quality=_most(self.min_quality, other.min_quality),
            route=self.route or other.route,
        )

    def __hash__(self) -> int:
        # Needs are kept and used again, and hashed once per request: remember the hash beside the fields.
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash(tuple(getattr(self, f.name) for f in fields(self) if f.compare))
            object.__setattr__(self, "_hash", known)
        return int(known)

    def __getstate__(self) -> dict[str, Any]:
        # Strings hash differently in another process: the remembered hash stays behind.
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}


ANYTHING = Need()

N = TypeVar("N", int, float)


def _group(model: str | tuple[str, ...]) -> tuple[str, ...]:
    return (model,) if isinstance(model, str) else model


def _least(one: N | None, other: N | None) -> N | None:
    return other if one is None else one if other is None else min(one, other)


def _most(one: N | None, other: N | None) -> N | None:
    return other if one is None else one if other is None else max(one, other)


def _percentile(one: Need, other: Need) -> float | None:
    """The higher of two; a need that limits time and says no percentile means a half, which no lower one may replace."""
    most = _most(one.percentile, other.percentile)
    for need in (one, other):
        timed = need.max_first_token_s is not None or need.max_latency_s is not None
        if timed and need.percentile is None and (most is None or most <= 0.5):
            return None
    return most


def matches(name: str, patterns: Iterable[str]) -> bool:
    """True when a model's name is one of the patterns or fits one; case matters."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
