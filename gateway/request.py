"""Request and Response, the base of every task; Meta, what travels with a request; Traits, what routing may know of it.

A request class IS a task, and says which response answers it. A third party adds one by subclassing:

    @dataclass(frozen=True, kw_only=True)
    class RhymeResponse(Response):
        words: tuple[str, ...]

    @dataclass(frozen=True, kw_only=True)
    class Rhyme(Request[RhymeResponse]):          # the task is called "rhyme"
        word: str = field(repr=False)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args

from gateway.card import Quota, Usage, check_number
from gateway.errors import InvalidRequest
from gateway.parts import FORBID, Delta
from gateway.trace import Trace

R = TypeVar("R", bound="Response", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What travels with a request and is no part of its content or equality.

    `deadline_s`: seconds for everything, from the call on. `data_class`: how sensitive the caller says it is.
    `restart`: a stream that breaks after its first delta may begin again on another model, which a `Restart` tells.
    `drop_unsupported`: an option that only tunes the answer (a seed, a penalty, the effort of reasoning, ...) may be left out
    where the model cannot take it; the reply's `dropped` says which were. Content, tools and the answer's shape never are.
    """

    tenant: str = ""
    conversation: str = ""
    deadline_s: float | None = None
    data_class: str = ""
    restart: bool = False
    drop_unsupported: bool = False

    def __post_init__(self) -> None:
        check_number(self.deadline_s, "meta.deadline_s", low=0, high=1e9)
        for name in ("tenant", "conversation", "data_class"):
            if not isinstance(getattr(self, name), str):
                raise InvalidRequest(f"meta.{name} must be a string", field=f"meta.{name}")
        for name in ("restart", "drop_unsupported"):
            if type(getattr(self, name)) is not bool:
                raise InvalidRequest(f"meta.{name} must be true or false", field=f"meta.{name}")


NO_META = Meta()


@dataclass(frozen=True, kw_only=True)
class Response:
    """The base of every reply. The gateway fills in `model` (who answered), `trace` and the usage's cost.

    `quota` is what the provider said of its rate limit beside this reply. `dropped` names the options that were left out, as
    ``Meta(drop_unsupported=True)`` allows.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    usage: Usage = Usage()
    model: str = ""
    dropped: tuple[str, ...] = ()
    trace: Trace | None = field(default=None, repr=False, compare=False)
    quota: Quota | None = field(default=None, repr=False, compare=False)

    def deltas(self) -> Sequence[Delta]:
        """The stream that a service which does not stream would have sent. Empty: it comes as a whole."""
        return ()


@dataclass(kw_only=True, slots=True)
class Traits:
    """What routing must know of a request, without its content.

    `input_bytes` is the UTF-8 size as near as it is cheap to tell; media count in `modalities` alone.
    `output_tokens` is the caller's limit, None when there is none. `longest_bytes` is the size of the longest text where each
    of several is read by itself, as in a batch of embeddings: that one must fit the context. None: all are read together.
    """

    input_bytes: int = 0
    output_tokens: int | None = None
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({"text"})
    longest_bytes: int | None = None


TEXT_ONLY = frozenset({"text"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Request(Generic[R]):
    """The base of every request: a frozen dataclass, checked when made, safe to share between tasks.

    A subclass names its response as the type argument; its task name is the class name in lower case
    unless it sets `task`. Content fields should be declared ``field(repr=False)``: a repr may land in a log.
    """

    task: ClassVar[str] = "request"
    response: ClassVar[type[Response]] = Response

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    meta: Meta = field(default=NO_META, repr=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "task" not in cls.__dict__:
            cls.task = cls.__name__.lower()
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Response):
                    cls.response = argument

    def traits(self) -> Traits:
        """What routing may know. The default counts the text in every field and asks for no feature."""
        size = sum(text_bytes(getattr(self, f.name)) for f in fields(self) if f.name != "meta")
        return Traits(input_bytes=size)

    def accept(self, response: Response) -> Response:
        """The response as the caller gets it. Raise ValueError when it does not fit what was asked for."""
        return response

    def with_meta(self, meta: Meta) -> Self:
        """The same request with another meta."""
        return replace(self, meta=meta)


def as_tuple(request: Any, *names: str, prefix: str = "") -> None:
    """Lists become tuples, and a lone string one of a single item, so that a request stays frozen."""
    for name in names:
        value = getattr(request, name)
        if isinstance(value, str):
            object.__setattr__(request, name, (value,))
        elif not isinstance(value, tuple):
            if not isinstance(value, Iterable):
                raise InvalidRequest(f"{prefix}{name} must be a sequence", field=prefix + name)
            object.__setattr__(request, name, tuple(value))


def check_text(value: object, name: str) -> None:
    """Refuse what is no string, or an empty one, with an InvalidRequest for the field `name`."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be a string that is not empty", field=name)


def text_bytes(value: Any) -> int:
    """The UTF-8 size of a string, or of all strings in a sequence; 0 for what is neither."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, (tuple, list)):
        return sum(map(text_bytes, value))
    return 0
