"""Every error that gateway raises: one tree, one class per reaction that a caller can have.

    GatewayError
    ├── ConfigError              mend gateway.toml or the environment
    │   ├── PluginError          mend the plugin, or leave it out
    │   └── MissingSecret        set the variable or write the file
    ├── InvalidRequest           mend the request: `field` says where
    │   └── UnknownModel         name another model
    ├── NoEligibleModel          loosen the need: `decision` says what refused each model
    ├── BudgetExceeded           wait `frees_in_s`, or raise the limit
    ├── DeadlineExceeded         allow more time
    ├── ServiceError             one model failed; the gateway has asked the next one where that could help
    │   ├── Unsupported          the model cannot do it
    │   │   ├── UnsupportedTask
    │   │   └── UnsupportedOption
    │   ├── Unreachable          no connection, or it broke
    │   ├── AttemptTimeout       silent for too long
    │   ├── RateLimited          wait `retry_after_s`
    │   ├── OutOfQuota           pay, or use another key: waiting does not help
    │   ├── Overloaded           busy; later, or elsewhere
    │   ├── Denied               the key is wrong or may not do this
    │   ├── ModelMissing         the model is not there
    │   ├── ContextTooLong       shorten the input, or use a larger context
    │   ├── ContentFiltered      the model's provider refuses this content
    │   ├── Rejected             the model's provider calls the request invalid
    │   ├── BadReply             the reply breaks the contract or does not fit the asked-for shape
    │   ├── ServiceCrashed       the service raised something that is no ServiceError
    │   └── TransformFailed      a transform raised on the way to this model or back
    ├── AllModelsFailed          several models were asked, and each failed: `attempts` lists them
    ├── WeightsError             weights cannot be read, or are not what they claim to be
    ├── KeyNotMine               a key provider was asked for a key that is another's: the next one is tried
    └── Closed                   the gateway has been closed

Facts are attributes; the message says what, which, and what to do. No message ever holds a prompt, a reply,
a key or a personal datum; `partial` and `reply`, which may, are attributes that no `str` or `repr` shows.
Errors pickle, and `gateway.wire` gives each a JSON form.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from gateway.card import ModelCard
    from gateway.decision import Decision
    from gateway.request import Request, Response
    from gateway.trace import Attempt


@dataclass(eq=False, repr=False)
class GatewayError(Exception):
    """Anything that gateway raises on purpose. Every other exception out of gateway is a defect."""

    message: str

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way passes on positional arguments only: a message given by keyword would be lost.
        return type(self), (self.message,), dict(self.__dict__)


class ConfigError(GatewayError):
    """The configuration or the environment is wrong; the message names the file, the line and the key."""


@dataclass(eq=False, repr=False)
class PluginError(ConfigError):
    """A plugin failed to import, failed in a hook, clashes with another, or was made for another gateway."""

    plugin: str = ""
    distribution: str = ""
    version: str = ""


@dataclass(eq=False, repr=False)
class MissingSecret(ConfigError):
    """A secret that the configuration refers to is not there. `ref` is the reference, such as ``env:NAME``."""

    ref: str = ""


@dataclass(eq=False, repr=False)
class InvalidRequest(GatewayError, ValueError):
    """The request, need or meta is wrong by itself: no model was asked. `field` is a dotted path."""

    field: str = ""


@dataclass(eq=False, repr=False)
class UnknownModel(InvalidRequest):
    """A need names a model, or a pattern, that no installed model answers to."""

    known: tuple[str, ...] = ()


@dataclass(eq=False, repr=False)
class NoEligibleModel(GatewayError):
    """Every model was refused; `decision` holds each refusal with what was seen and what was allowed."""

    decision: Decision | None = None


@dataclass(eq=False, repr=False)
class BudgetExceeded(GatewayError):
    """A limit of the caller's own is spent. `frees_in_s` seconds from now this request would fit."""

    limit: str = ""
    frees_in_s: float = 0.0


@dataclass(eq=False, repr=False)
class DeadlineExceeded(GatewayError):
    """The caller's total deadline passed. `partial` is the text that had been delivered."""

    deadline_s: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    partial: str = field(default="", repr=False)


@dataclass(eq=False, repr=False)
class ServiceError(GatewayError):
    """One model failed. Two class facts say what can cure it, and an instance may say otherwise.

    `retryable`: the same model may succeed if asked again. `fallbackable`: another model may succeed. `spare_key`: only the
    key that was used is refused, or has to wait; asked again, the model uses another one.
    """

    retryable_by_default: ClassVar[bool] = False
    fallbackable_by_default: ClassVar[bool] = True

    model: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    retryable: bool | None = None
    fallbackable: bool | None = None
    in_stream: bool = False
    spare_key: bool = False
    attempts: tuple[Attempt, ...] = ()
    partial: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.retryable is None:
            self.retryable = self.retryable_by_default
        if self.fallbackable is None:
            self.fallbackable = self.fallbackable_by_default


class Unsupported(ServiceError):
    """The model cannot do what was asked."""


class UnsupportedTask(Unsupported):
    """The model does not do this task."""

    @classmethod
    def of(cls, card: ModelCard, request: Request[Response]) -> UnsupportedTask:
        """The error that a service raises for a request of a task that its card does not list."""
        return cls(f"model {card.name!r} does not do the task {request.task!r}", model=card.name)


@dataclass(eq=False, repr=False)
class UnsupportedOption(Unsupported):
    """The model, or the wire format that reaches it, cannot carry this option of the request."""

    option: str = ""


@dataclass(eq=False, repr=False)
class Unreachable(ServiceError):
    """No connection, or it broke. `phase`: connect, write, read. After "connect" nothing was sent."""

    retryable_by_default: ClassVar[bool] = True
    phase: str = ""


class AttemptTimeout(ServiceError):
    """The model was silent for longer than one attempt may be; asking it again at once would be silent too."""


class RateLimited(ServiceError):
    """Too many requests; `retry_after_s` when the provider said how long to wait."""

    retryable_by_default: ClassVar[bool] = True


class OutOfQuota(ServiceError):
    """The account has no credit left; waiting does not help."""


class Overloaded(ServiceError):
    """The model is up but has no room now."""

    retryable_by_default: ClassVar[bool] = True


class Denied(ServiceError):
    """The key is missing, wrong, or may not use this model."""


class ModelMissing(ServiceError):
    """The endpoint does not have this model, or the weights are not where they should be."""


@dataclass(eq=False, repr=False)
class ContextTooLong(ServiceError):
    """The input does not fit the model's context. Both figures in tokens, when known."""

    tokens: int | None = None
    context: int | None = None


class ContentFiltered(ServiceError):
    """The provider refuses this content; another model is not asked."""

    fallbackable_by_default: ClassVar[bool] = False


class Rejected(ServiceError):
    """The provider calls the request invalid; another would too, so none is asked."""

    fallbackable_by_default: ClassVar[bool] = False


@dataclass(eq=False, repr=False)
class BadReply(ServiceError):
    """The reply breaks the contract, was cut short, or does not fit the asked-for shape (then `reply` holds it)."""

    reply: Response | None = field(default=None, repr=False)


@dataclass(eq=False, repr=False)
class ServiceCrashed(ServiceError):
    """The service raised something that is no ServiceError: `cause` is its type; the exception itself is `__cause__`."""

    cause: str = ""


@dataclass(eq=False, repr=False)
class TransformFailed(ServiceError):
    """A transform raised, on the way to this model or back: no fault of the model's. `transform` is its name."""

    fallbackable_by_default: ClassVar[bool] = False
    transform: str = ""


@dataclass(eq=False, repr=False)
class AllModelsFailed(GatewayError):
    """Several models were asked and each failed. `__cause__` is the last one's error, `partial` what it had delivered."""

    attempts: tuple[Attempt, ...] = ()
    partial: str = field(default="", repr=False)


class WeightsError(GatewayError):
    """Weights cannot be read, or are not what they claim to be."""


class KeyNotMine(GatewayError):
    """This provider does not hold the key that wrapped this; not fatal, the next one is tried."""


class Closed(GatewayError):
    """The gateway has been closed, or the event loop that it belongs to is gone."""


class Misfit(ValueError):
    """How a reply does not fit what was asked for: which fields, in words that hold nothing of the reply."""


def unfit(error: Exception) -> str:
    """Why a reply is refused. Of an error that is no Misfit only its type: its message might quote the reply."""
    return str(error) if isinstance(error, Misfit) else type(error).__name__


def told(error: BaseException) -> str:
    """An exception by type and place, such as ``KeyError at plugin.py:12``. Its message is left out: it may hold anything."""
    where = traceback.extract_tb(error.__traceback__)
    place = f" at {where[-1].filename.rpartition('/')[2]}:{where[-1].lineno}" if where else ""
    return f"{type(error).__name__}{place}"
