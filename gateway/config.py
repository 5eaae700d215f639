"""gateway.toml as a dataclass, checked, with errors that name the file, the line and the key; and its JSON Schema."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, cast

from gateway.card import PLACES
from gateway.errors import ConfigError, PluginError
from gateway.toml_lines import at_key, line_of_key

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

# For the JSON Schema alone: what is checked here refuses unknown keys of every type, see `_checked`.
STRICT: Mapping[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True}

# pydantic is imported when there is something to check, not with gateway: these two tell it what fits.


class _Amount:
    """A finite number of at least 0; true and "1" are none."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import float_schema

        return float_schema(ge=0, allow_inf_nan=False, strict=True)


class _Whole:
    """A whole number; true and "1" are none."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import int_schema

        return int_schema(strict=True)


class _Share:
    """A number from 0 to 1."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import float_schema

        return float_schema(ge=0, le=1, allow_inf_nan=False, strict=True)


class _Names:
    """A name, or a list of at least so many, as a tuple: any names, or those that are allowed."""

    def __init__(self, *allowed: str, least: int = 1) -> None:
        self._allowed, self._least = allowed, least

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema as made

        one = made.literal_schema([*self._allowed]) if self._allowed else made.str_schema(min_length=1, strict=True)
        several = made.tuple_variable_schema(one, min_length=self._least)
        said = f"Input should be one of {', '.join(self._allowed)}" if self._allowed else "Input should be a name"
        said += ", or a list of them" + (" that is not empty" if self._least else "")
        either = made.union_schema([one, several], custom_error_type="names", custom_error_message=said)
        return made.no_info_after_validator_function(lambda value: (value,) if isinstance(value, str) else value, either)


Amount = Annotated[float, _Amount]
Whole = Annotated[int, _Whole]
Names = Annotated[tuple[str, ...], _Names()]
NamesOrNone = Annotated[tuple[str, ...], _Names(least=0)]
Places = Annotated[tuple[str, ...], _Names("local", *PLACES)]


def _key(description: str) -> Any:
    """A key that may be left out, which is None then."""
    return field(default=None, metadata={"description": description})


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """``[policy]``: what quality, time and failure are worth, in USD. The utilities that `explain` prints follow from these."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    worth: Amount = 0.02
    """USD that a perfect answer is worth."""
    time: Amount = 0.002
    """USD per second waited."""
    failure: Amount = 0.01
    """USD that a failed attempt costs."""
    band: Amount = 0.0002
    """USD within which models count as equally good: the load decides between them."""
    affinity: Amount = 0.001
    """USD that it is worth to keep a conversation on the model that knows its beginning."""
    explore: Annotated[float, _Share] = 0.0
    """Share of the requests, 0 to 1, that may go to a model of which little has been measured yet."""
    remember: str | None = None
    """A file to keep what was measured of the models in, from one run of the app to the next."""
    local_data_classes: list[str] = field(default_factory=list)
    """Requests with one of these data classes, as the caller says or a transform finds, stay on local models."""


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """One ``[[limit]]``: at most `max` of `unit` per `per`, counted for each `by`, or for all together."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    unit: Literal["requests", "tokens", "usd"]
    """What is counted."""
    max: Amount
    """How much of it may be used in one window."""
    per: Literal["minute", "hour", "day", "month"]
    """How long a window is; a month is 30 days."""
    by: Literal["all", "tenant", "key", "model", "provider"] = "all"
    """Whose use is counted together; `key` is the key that a hosted model is paid with."""
    only: list[str] = field(default_factory=list)
    """Names or shell patterns of those tenants, keys, models or providers that it holds for; all of them when empty."""

    def __post_init__(self) -> None:
        if self.only and self.by == "all":
            raise ValueError("only needs by = 'tenant', 'key', 'model' or 'provider': it names some of them")


@dataclass(frozen=True, kw_only=True)
class AttemptConfig:
    """``[attempt]``: how long one attempt on a model may be silent, in seconds. A service may state its own.

    Loading a model is not counted.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    first_token_s: Amount | None = 120.0
    """From the request to the first delta of a stream."""
    between_s: Amount | None = 60.0
    """From one delta to the next."""
    reply_s: Amount | None = 600.0
    """From the request to a reply that is not streamed."""


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """``[retry]``: asking a model again that failed, once no other is left to ask."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    attempts: Whole = 3
    """How often one request may ask one model."""
    share: Annotated[float, _Share] = 0.2
    """Retries and hedges for each request, at most, over many of them; beside one a second."""
    wait_s: Amount = 10.0
    """The longest wait for a model that asks to wait; the request's own deadline holds beside it."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")


@dataclass(frozen=True, kw_only=True)
class HedgeConfig:
    """``[hedge]``: asking a model of another provider beside one that is slow to begin; the first to begin is kept."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    share: Annotated[float, _Share] = 0.0
    """Hedges for each request, at most, over many of them; 0 turns hedging off, 0.05 is usual."""
    percentile: Annotated[float, _Share] = 0.95
    """Ask the second one when the first has taken longer to begin than this share of its requests."""


@dataclass(frozen=True, kw_only=True)
class StateConfig:
    """``[state]``: where limits are counted."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    path: str | None = None
    """An SQLite file that the processes of this host share; without one, each process counts for itself until it ends."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """``match`` of a route: what a request must be like, in everything that is said here. Patterns are shell patterns."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    task: Names | None = _key("The task is one of these, or fits one of these patterns.")
    tenant: Names | None = _key("So does the tenant; '?*' is any that has a name.")
    data_class: Names | None = _key("So does one of the request's data classes.")
    features: Names | None = _key("The request uses all of these.")
    modalities: Names | None = _key("The input has all of these.")
    min_input_tokens: Whole | None = _key("The input is of at least about so many tokens.")
    max_input_tokens: Whole | None = _key("The input is of at most about so many tokens.")
    conversation: bool | None = _key("Whether it belongs to a conversation.")


@dataclass(frozen=True, kw_only=True)
class RouteConfig:
    """One ``[route.NAME]``: a Need with a name, for callers who ask for it, and for the requests that fit its `match`.

    It is added to what the caller needs and never loosens it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    inherits: Names | None = _key("Routes whose keys hold here too; one said here or in a later one of them replaces it.")
    match: MatchConfig | None = _key("Which requests take this route unasked; the first in the file that fits is taken.")
    description: str | None = _key("A line for people.")
    model: Names | None = _key("Only models of these names, or that fit one of these patterns.")
    avoid: NamesOrNone | None = _key("No models of these names or patterns.")
    place: Places | None = _key("Only models that run here.")
    min_params: Amount | None = _key("At least so many parameters.")
    max_params: Amount | None = _key("At most so many parameters.")
    max_bytes: Amount | None = _key("Weights of at most so many bytes.")
    context: Whole | None = _key("At least so many tokens of context.")
    features: NamesOrNone | None = _key("Models that can do all of these.")
    languages: NamesOrNone | None = _key("Models that speak all of these: BCP 47 primary tags.")
    max_first_token_s: Amount | None = _key("Seconds to the first token, as predicted.")
    max_latency_s: Amount | None = _key("Seconds to the whole answer, as predicted.")
    percentile: Annotated[float, _Share] | None = _key("Share of the requests, above 0 and below 1, that these hold for.")
    max_cost_usd: Amount | None = _key("USD that one request may cost, as predicted.")
    min_quality: Annotated[float, _Share] | None = _key("Quality from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """The whole of gateway.toml. `plugin` holds each plugin's own section, which the plugin itself checks."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    plugins: list[str] | None = None
    """Which installed plugins to load; all of them when absent."""
    transforms: list[str] | None = None
    """Which transforms to apply, in this order; all of them, by name, when absent."""
    seed: Whole | None = None
    """Seed of the gateway's source of chance."""
    events: str | None = None
    """A file to append events to, as JSON lines."""
    require_sealed: bool = False
    """Refuse weights that are not encrypted at rest, whoever asks for them."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    limit: list[LimitConfig] = field(default_factory=list)
    """What may be used at most; a request must fit all of them."""
    attempt: AttemptConfig = field(default_factory=AttemptConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    state: StateConfig = field(default_factory=StateConfig)
    route: dict[str, RouteConfig] = field(default_factory=dict)
    """Needs with names, asked for by name or matched by what a request is like."""
    plugin: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each plugin's own section, by the plugin's name."""


@lru_cache(maxsize=256)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("Any", kind))


def _checked(kind: type[T], value: Any) -> T:
    """`value` as a `kind`, or pydantic's ValidationError.

    A key that no field takes is refused at every depth, whatever a type says of extra keys: a mistyped option must never
    be turned off in silence.
    """
    checked: T = _adapter(cast("Hashable", kind)).validate_python(value, extra="forbid")
    return checked


def parse_config(kind: type[T], value: Any, where: str) -> T:
    """`value` as a `kind` (a dataclass, a pydantic model, ...). ConfigError names every wrong key below `where`.

    A plugin checks its own section with it: ``parse_config(MyConfig, config, "plugin.mine")``. Unknown keys are wrong at
    every depth; a table that may hold any key is a field of type ``dict[str, Any]``.
    """
    if not value and is_dataclass(kind):  # nothing to check: spare every app without a configuration pydantic's import
        with contextlib.suppress(TypeError, ValueError):  # a field without a default, or a refused one: pydantic names it
            return cast("T", kind())
    from pydantic import ValidationError

    try:
        return _checked(kind, value)
    except ValidationError as error:
        problems = _problems(error, where)
    raise ConfigError("; ".join(problems))  # here: as its context, pydantic's error would quote what may be a secret


def load_config(source: str | Path | Mapping[str, Any] | None) -> GatewayConfig:
    """The configuration from a path, a mapping, or nothing. ConfigError says what is wrong and where."""
    if source is None:
        return GatewayConfig()
    if isinstance(source, Mapping):
        return parse_config(GatewayConfig, dict(source), "")
    import tomllib

    from pydantic import ValidationError

    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {type(error).__name__}") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is not TOML: {at_key(str(error), text)}") from None
    try:
        return _checked(GatewayConfig, table)
    except ValidationError as error:
        problems = _problems(error, "")
    raise ConfigError(_with_lines(problems, path, text))


def located(error: ConfigError, source: object) -> ConfigError:
    """A plugin's complaint about its section, with the file, and the line where each wrong key is written."""
    if not isinstance(source, (str, Path)) or isinstance(error, PluginError):
        return error
    text = Path(source).read_text(encoding="utf-8")
    section = re.match(r"plugin\.[\w-]+", error.message)
    if section is None and line_of_key(error.message, text) is None:
        return error  # about something else than the file
    problems = re.split(rf"; (?={re.escape(section[0])}[.:])", error.message) if section else [error.message]
    return ConfigError(_with_lines(problems, Path(source), text))


def config_schema() -> dict[str, Any]:
    """The JSON Schema of gateway.toml."""
    return _adapter(GatewayConfig).json_schema()


def _problems(error: ValidationError, where: str) -> list[str]:
    """One line a problem. The input value is left out: it may be a secret."""
    out = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(step) for step in (where, *problem["loc"]) if step != "")
        unknown = problem["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        message = "unknown key" if unknown else re.sub(r"^(Value error|Assertion failed), ", "", problem["msg"])
        out.append(f"{key or 'configuration'}: {message}")
    return out


def _with_lines(problems: list[str], path: Path, text: str) -> str:
    """The problems as one message that names the file, and each problem's line where it can be told, from top to bottom."""
    found = sorted(((line_of_key(problem, text) or 0, problem) for problem in problems), key=lambda one: (not one[0], one[0]))
    told = [f"line {line}: {problem}" if line else problem for line, problem in found]
    return f"{str(path)!r}{', ' if found[0][0] else ': '}{'; '.join(told)}"
