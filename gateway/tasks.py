"""Chat, Generate and Embed, each with the response that answers it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from gateway.card import check_number
from gateway.errors import InvalidRequest, Misfit
from gateway.parts import Audio, Citation, Delta, File, Image, Media, Part, Reasoning, Text, ToolCall, ToolResult, deltas_of
from gateway.request import NOTHING, TEXT_ONLY, Request, Response, Traits, as_tuple, text_bytes


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that the model may ask for. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}}, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidRequest("tool.name is empty or no string", field="tools.name")
        if not isinstance(self.description, str):
            raise InvalidRequest("tool.description must be a string", field="tools.description")
        if not isinstance(self.parameters, Mapping):
            raise InvalidRequest("tool.parameters must be a JSON Schema, as a mapping", field="tools.parameters")


Role = Literal["system", "user", "assistant", "tool"]
ROLES = ("system", "user", "assistant", "tool")
CONTENT = frozenset({"text", "id", "name", "arguments", "signature", "quote", "title"})
"""The fields of parts that are strings."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn. `parts` may be given as a plain string."""

    role: Role
    parts: tuple[Part, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidRequest(f"message.role {self.role!r} is none of {', '.join(ROLES)}", field="messages.role")
        if isinstance(self.parts, str):
            object.__setattr__(self, "parts", (Text(self.parts),))
        as_tuple(self, "parts", prefix="messages.")
        for part in self.parts:
            if not isinstance(part, (Text, Reasoning, ToolCall, ToolResult, Image, Audio, File, Citation)):
                kind = type(part).__name__
                raise InvalidRequest(f"message.parts holds a {kind}, which is no part", field="messages.parts")
            for name in CONTENT & set(type(part).__slots__):
                if not isinstance(getattr(part, name), str):
                    raise InvalidRequest(f"the {name} of a {type(part).__name__} must be a string", field="messages.parts")

    @classmethod
    def system(cls, text: str) -> Message:
        """A system message."""
        return cls(role="system", parts=(Text(text),))

    @classmethod
    def user(cls, *content: str | Part) -> Message:
        """A user message of text and media: ``Message.user("What is this?", Image(data=png))``."""
        return cls(role="user", parts=tuple(Text(c) if isinstance(c, str) else c for c in content))

    @classmethod
    def assistant(cls, *content: str | Part) -> Message:
        """What the model said before; pass a reply's parts on with ``Message.assistant(*reply.parts)``."""
        return cls(role="assistant", parts=tuple(Text(c) if isinstance(c, str) else c for c in content))

    @classmethod
    def tool(cls, call: ToolCall | str, text: str, *, error: bool = False) -> Message:
        """A tool's result for a call, or for its id."""
        return cls(role="tool", parts=(ToolResult(call.id if isinstance(call, ToolCall) else call, text, error),))

    @property
    def text(self) -> str:
        """All the text of this message."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


Finish = Literal["stop", "length", "tool_calls", "filter"]
"""Why a reply ended: by itself or at a stop string, at the token limit, to call tools, or cut by a filter."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a token of the answer was: the natural logarithm, and the likeliest tokens in its place with theirs."""

    token: str = field(repr=False)
    logprob: float
    top: tuple[tuple[str, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ChatResponse(Response):
    """An assistant's turn: ordered parts. `.text` and `.tool_calls` are sugar over them.

    `parsed` is an instance of the pydantic model that the request gave as `response_format`, else None.
    `id` and `served_by` are the provider's own request id and model name. `logprobs` are there where they were asked for.
    """

    parts: tuple[Part, ...] = field(repr=False)
    finish: Finish = "stop"
    id: str = ""
    served_by: str = ""
    logprobs: tuple[Logprob, ...] = field(default=(), repr=False)
    parsed: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, text: str, **facts: Any) -> ChatResponse:
        """A reply that is plain text."""
        return cls(parts=(Text(text),) if text else (), **facts)

    @property
    def text(self) -> str:
        """The answer's text, without reasoning and tool calls."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        """What the model thought, where it shows that."""
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def citations(self) -> tuple[Citation, ...]:
        """Where the answer says that it comes from, in order."""
        return tuple(part for part in self.parts if isinstance(part, Citation))

    def deltas(self) -> Sequence[Delta]:
        return deltas_of(self.parts)


@dataclass(frozen=True, kw_only=True)
class Chat(Request[ChatResponse]):
    """The next turn of a conversation.

    `tool_choice`: auto, none, required, or a tool's name. `response_format`: a JSON Schema, or a pydantic model
    whose instance then comes back as `reply.parsed`. `temperature` in [0, 2], `top_p` in (0, 1], `max_tokens` and `top_k`
    >= 1; both penalties in [-2, 2]. `logprobs`: those of the answer's tokens, and of so many others in each one's place, 0
    to 20. `parallel_tool_calls` False: at most one call a turn. `reasoning` is the effort: none, minimal, low, medium or high.
    """

    messages: tuple[Message, ...] = field(repr=False)
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    response_format: Mapping[str, Any] | type[Any] | None = field(default=None, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    logprobs: int | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Literal["none", "minimal", "low", "medium", "high"] | None = None

    def __post_init__(self) -> None:
        as_tuple(self, "messages", "tools", "stop")
        if not self.messages:
            raise InvalidRequest("messages is empty: give at least one message", field="messages")
        for message in self.messages:
            if not isinstance(message, Message):
                kind = type(message).__name__
                raise InvalidRequest(f"messages holds a {kind}; use Message.user(...)", field="messages")
        _check_sampling(self)
        check_number(self.top_k, "top_k", low=1, whole=True)
        check_number(self.presence_penalty, "presence_penalty", low=-2, high=2)
        check_number(self.frequency_penalty, "frequency_penalty", low=-2, high=2)
        check_number(self.logprobs, "logprobs", low=0, high=20, whole=True)
        if not isinstance(self.parallel_tool_calls, (bool, type(None))):
            raise InvalidRequest("parallel_tool_calls must be true or false", field="parallel_tool_calls")
        if self.tools:
            if not all(isinstance(tool, Tool) for tool in self.tools):
                raise InvalidRequest("tools must all be of the class Tool", field="tools")
            if len({tool.name for tool in self.tools}) < len(self.tools):
                raise InvalidRequest("tools: two tools have one name", field="tools")
        if self.tool_choice not in ("auto", "none", "required", *(tool.name for tool in self.tools)):
            raise InvalidRequest("tool_choice is none of auto, none, required and the tools' names", field="tool_choice")
        kind = self.response_format
        if not (kind is None or isinstance(kind, Mapping) or (isinstance(kind, type) and hasattr(kind, "model_validate_json"))):
            raise InvalidRequest("response_format must be a JSON Schema or a pydantic model", field="response_format")
        if self.reasoning not in (None, "none", "minimal", "low", "medium", "high"):
            raise InvalidRequest("reasoning is none of none, minimal, low, medium and high", field="reasoning")

    @classmethod
    def ask(cls, text: str, *media: Media, system: str = "", **options: Any) -> Chat:
        """One user message: ``Chat.ask("What is this?", Image(data=png), max_tokens=100)``."""
        user = Message.user(text, *media)
        return cls(messages=(Message.system(system), user) if system else (user,), **options)

    @property
    def response_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema that the answer must fit, None for free text."""
        if isinstance(self.response_format, type):
            schema: Mapping[str, Any] = self.response_format.model_json_schema()
            return schema
        return self.response_format

    def traits(self) -> Traits:
        size, modalities, features = 0, TEXT_ONLY, NOTHING
        for message in self.messages:
            for part in message.parts:
                if isinstance(part, (Image, Audio, File)):
                    modalities |= {part.type}
                elif isinstance(part, ToolCall):
                    size += len(part.arguments)
                elif not isinstance(part, Citation):
                    size += len(part.text) if part.text.isascii() else len(part.text.encode("utf-8", "replace"))
        if self.tools:
            features |= {"tools"}
            size += sum(len(tool.description) + len(str(tool.parameters)) for tool in self.tools)
        if self.response_format is not None:
            features |= {"json_schema"}
        if self.messages[-1].role == "assistant":
            features |= {"prefill"}
        if not self.meta.drop_unsupported:  # these tune the answer, which can be had without them
            if self.reasoning not in (None, "none"):
                features |= {"reasoning"}
            if self.seed is not None:
                features |= {"seed"}
            if self.logprobs is not None:
                features |= {"logprobs"}
            if self.top_k is not None:
                features |= {"top_k"}
            if self.presence_penalty is not None or self.frequency_penalty is not None:
                features |= {"penalties"}
        return Traits(input_bytes=size, output_tokens=self.max_tokens, features=features, modalities=modalities)

    def accept(self, response: Response) -> Response:
        model = self.response_format
        if isinstance(response, ChatResponse) and not isinstance(response.parts, tuple):
            raise ValueError("the parts are no tuple")
        if not isinstance(model, type) or not isinstance(response, ChatResponse) or response.finish == "tool_calls":
            return response
        try:
            return replace(response, parsed=model.model_validate_json(response.text))
        except ValidationError as error:
            raise Misfit(_places(error, _names(self.response_schema))) from None


def _names(schema: Any) -> frozenset[str]:
    """Every property that a schema speaks of."""
    if isinstance(schema, Mapping):
        named = schema.get("properties")
        return frozenset(named if isinstance(named, Mapping) else ()).union(*map(_names, schema.values()))
    return frozenset().union(*map(_names, schema)) if isinstance(schema, list) else frozenset()


def _places(error: ValidationError, names: frozenset[str]) -> str:
    """Where a text does not fit, and why, in the schema's own words: a key that only the text has is not repeated."""
    told = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        steps = [str(step) if isinstance(step, int) or step in names else "*" for step in fault["loc"]]
        # A validator of the caller's own may name its fault as it likes.
        kind = fault["type"] if fault["type"] in get_args(ErrorType) else "refused"
        told.append(f"{'.'.join(steps) or 'the whole'}: {kind}")
    return "; ".join(told)


@dataclass(frozen=True, kw_only=True)
class GenerateResponse(Response):
    """The continuation, without the prompt."""

    text: str = field(repr=False)
    finish: Finish = "stop"

    def deltas(self) -> Sequence[Delta]:
        return deltas_of((Text(self.text),)) if self.text else ()


@dataclass(frozen=True, kw_only=True)
class Generate(Request[GenerateResponse]):
    """Plain continuation of a text."""

    prompt: str = field(repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None

    def __post_init__(self) -> None:
        as_tuple(self, "stop")
        if not isinstance(self.prompt, str) or not self.prompt:
            raise InvalidRequest("prompt is empty: there is nothing to continue", field="prompt")
        _check_sampling(self)

    def traits(self) -> Traits:
        features = NOTHING if self.seed is None or self.meta.drop_unsupported else frozenset({"seed"})
        return Traits(input_bytes=text_bytes(self.prompt), output_tokens=self.max_tokens, features=features)


@dataclass(frozen=True, kw_only=True)
class EmbedResponse(Response):
    """One vector per text, in order; all of one length."""

    vectors: tuple[tuple[float, ...], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Embed(Request[EmbedResponse]):
    """A vector for each text, such that near in meaning is near in angle. `dimensions` shortens them where a model can."""

    texts: tuple[str, ...] = field(repr=False)
    dimensions: int | None = None

    def __post_init__(self) -> None:
        as_tuple(self, "texts")
        if not self.texts:
            raise InvalidRequest("texts is empty: give at least one text", field="texts")
        if not all(isinstance(text, str) for text in self.texts):
            raise InvalidRequest("texts must all be strings", field="texts")
        check_number(self.dimensions, "dimensions", low=1, whole=True)

    def traits(self) -> Traits:
        features = NOTHING if self.dimensions is None or self.meta.drop_unsupported else frozenset({"dimensions"})
        sizes = [text_bytes(text) for text in self.texts]
        return Traits(input_bytes=sum(sizes), output_tokens=0, features=features, longest_bytes=max(sizes))

    def accept(self, response: Response) -> Response:
        vectors = response.vectors if isinstance(response, EmbedResponse) else ()
        if len(vectors) != len(self.texts) or not all(math.isfinite(sum(vector)) for vector in vectors):
            raise ValueError("not one vector of finite numbers for each text")
        return response


def _check_sampling(request: Chat | Generate) -> None:
    check_number(request.max_tokens, "max_tokens", low=1, whole=True)
    check_number(request.temperature, "temperature", low=0, high=2)
    check_number(request.top_p, "top_p", low=0, high=1)
    check_number(request.seed, "seed", low=None, whole=True)
    if request.top_p == 0:
        raise InvalidRequest("top_p must be above 0", field="top_p")
    if not all(isinstance(text, str) and text for text in request.stop):
        raise InvalidRequest("stop must hold non-empty strings", field="stop")
