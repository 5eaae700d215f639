"""What messages and replies are made of: ordered parts; and Delta, a piece of one part in a stream.

Content never shows in a `repr`: parts print their sizes only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from gateway.errors import InvalidRequest

# Plain dicts, as pydantic allows: importing it here would cost every app that never sends anything over a wire.
BASE64: Mapping[str, Any] = {"ser_json_bytes": "base64", "val_json_bytes": "base64", "extra": "forbid"}
"""How bytes go into JSON (RFC 4648, section 5: the URL-safe alphabet)."""

FORBID: Mapping[str, Any] = {"extra": "forbid"}
"""In its JSON form a request or response has no other fields than its own, down to the smallest part."""


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """Plain text."""

    text: str
    type: Literal["text"] = "text"

    def __repr__(self) -> str:
        return f"<Text {len(self.text)} characters>"


@dataclass(frozen=True, slots=True, repr=False)
class Reasoning:
    """What a model thought before it answered. `signature` is opaque and goes back to the model unchanged."""

    text: str
    signature: str = ""
    type: Literal["reasoning"] = "reasoning"

    def __repr__(self) -> str:
        return f"<Reasoning {len(self.text)} characters>"


@dataclass(frozen=True, slots=True, repr=False)
class ToolCall:
    """A model asks for a tool. `arguments` is the JSON text as the model wrote it; `parsed()` reads it."""

    id: str
    name: str
    arguments: str = "{}"
    type: Literal["tool_call"] = "tool_call"

    def parsed(self) -> dict[str, Any]:
        """The arguments as a dict. ValueError when the model wrote something else."""
        try:
            value = json.loads(self.arguments or "{}")
        except RecursionError:
            value = None
        if not isinstance(value, dict):
            raise ValueError(f"arguments of the tool call {self.id!r} are not a JSON object")
        return value

    def __repr__(self) -> str:
        return f"<ToolCall {self.name} {len(self.arguments)} characters>"


@dataclass(frozen=True, slots=True, repr=False)
class ToolResult:
    """What a tool returned, for the call of the same `id`."""

    id: str
    text: str
    error: bool = False
    type: Literal["tool_result"] = "tool_result"

    def __repr__(self) -> str:
        return f"<ToolResult {len(self.text)} characters>"


@dataclass(frozen=True, slots=True, repr=False)
class Image:
    """An image: its bytes, or a URL. Exactly one of the two.

    Who fetches a URL is yours to say: the model's provider does, or, with ``fetch=True``, the gateway, which sends the bytes.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = BASE64

    data: bytes | None = None
    url: str | None = None
    media_type: str = "image/png"
    fetch: bool = False
    type: Literal["image"] = "image"

    def __post_init__(self) -> None:
        _check_media(self)

    def __repr__(self) -> str:
        return f"<Image {self.media_type} {len(self.data or b'')} bytes>"


@dataclass(frozen=True, slots=True, repr=False)
class Audio:
    """A sound: its bytes, or a URL, which is fetched as an Image's is. Exactly one of the two."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = BASE64

    data: bytes | None = None
    url: str | None = None
    media_type: str = "audio/wav"
    fetch: bool = False
    type: Literal["audio"] = "audio"

    def __post_init__(self) -> None:
        _check_media(self)

    def __repr__(self) -> str:
        return f"<Audio {self.media_type} {len(self.data or b'')} bytes>"


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A document, such as a PDF: its bytes, or a URL, which is fetched as an Image's is. Exactly one of the two.

    `name` is what the model is told that it is called.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = BASE64

    data: bytes | None = None
    url: str | None = None
    media_type: str = "application/pdf"
    name: str = ""
    fetch: bool = False
    type: Literal["file"] = "file"

    def __post_init__(self) -> None:
        _check_media(self)
        if not isinstance(self.name, str):
            raise InvalidRequest("file: name must be a string", field="file.name")

    def __repr__(self) -> str:
        return f"<File {self.media_type} {len(self.data or b'')} bytes>"


Media = Image | Audio | File


@dataclass(frozen=True, slots=True, repr=False)
class Citation:
    """Where something in a reply's text comes from: a page, or a document of the request.

    `start` and `end` are the characters of the reply's text that it supports; None where the provider does not say.
    `quote` is what the source says. It comes after the text that it supports, and is not sent back to a model.
    """

    url: str = ""
    title: str = ""
    quote: str = ""
    start: int | None = None
    end: int | None = None
    type: Literal["citation"] = "citation"

    def __repr__(self) -> str:
        return f"<Citation {len(self.quote)} characters>"


class _ByType:
    """Tells pydantic that `type` says which part it is; pydantic itself is imported only when it asks."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic import Discriminator

        return Discriminator("type").__get_pydantic_core_schema__(source, handler)


Part = Annotated[Text | Reasoning | ToolCall | ToolResult | Image | Audio | File | Citation, _ByType]
"""Any part of a message or a reply."""


@dataclass(frozen=True, slots=True, repr=False)
class Delta:
    """More of one part of a streamed reply: `data` is appended to the part at index `part`.

    The first delta of a part says its `kind`, and for a tool call its `id` and `name`; `data` is then a fragment of the
    arguments' JSON text. A part that does not come in pieces (an image) is carried whole in `whole`.
    Indices start at 0 and have no gaps once the stream has ended.
    """

    data: str = ""
    part: int = 0
    kind: Literal["text", "reasoning", "tool_call", "whole"] = "text"
    id: str = ""
    name: str = ""
    signature: str = ""
    whole: Part | None = None

    @property
    def text(self) -> str:
        """What a reader should see of this delta: answer text, and nothing of reasoning or tool calls."""
        return self.data if self.kind == "text" else ""

    def __repr__(self) -> str:
        return f"<Delta {self.kind} {self.part} +{len(self.data)}>"


@dataclass(frozen=True, slots=True)
class Restart:
    """In a stream: everything delivered so far is void, and the reply begins again, from `model`.

    It has the text of no delta, so that code which prints deltas goes on.
    """

    model: str = ""

    @property
    def text(self) -> str:
        """Nothing."""
        return ""


def deltas_of(parts: Iterable[Part]) -> list[Delta]:
    """The shortest stream that `assemble` turns back into these parts: one delta each."""
    out = []
    for index, part in enumerate(parts):
        match part:
            case Text(text):
                out.append(Delta(text, index))
            case Reasoning(text, signature):
                out.append(Delta(text, index, "reasoning", signature=signature))
            case ToolCall(id, name, arguments):
                out.append(Delta(arguments, index, "tool_call", id, name))
            case _:
                out.append(Delta("", index, "whole", whole=part))
    return out


def assemble(deltas: Iterable[Delta]) -> tuple[Part, ...]:
    """The parts that a stream of deltas adds up to, in order of index. Empty text parts are left out."""
    heads: dict[int, Delta] = {}
    data: dict[int, list[str]] = {}
    for delta in deltas:
        head = heads.get(delta.part)
        if head is None:
            heads[delta.part] = delta
            data[delta.part] = [delta.data]
            continue
        data[delta.part].append(delta.data)
        if delta.signature or (delta.id and not head.id) or (delta.name and not head.name):
            heads[delta.part] = replace(
                head,
                signature=head.signature + delta.signature,
                id=head.id or delta.id,
                name=head.name or delta.name,
            )
    out: list[Part] = []
    for index in sorted(heads):
        head, joined = heads[index], "".join(data[index])
        if head.kind == "tool_call":
            out.append(ToolCall(head.id, head.name, joined))
        elif head.kind == "reasoning":
            out.append(Reasoning(joined, head.signature))
        elif head.whole is not None:
            out.append(head.whole)
        elif joined:
            out.append(Text(joined))
    return tuple(out)


def _check_media(media: Media) -> None:
    name = media.type
    if (media.data is None) == (media.url is None):
        raise InvalidRequest(f"{name}: give exactly one of data and url", field=f"{name}.data")
    if not isinstance(media.data, (bytes, type(None))):
        raise InvalidRequest(f"{name}: data must be bytes, not {type(media.data).__name__}", field=f"{name}.data")
    if not isinstance(media.url, (str, type(None))):
        raise InvalidRequest(f"{name}: url must be a string", field=f"{name}.url")
    if not isinstance(media.media_type, str) or "/" not in media.media_type:
        raise InvalidRequest(f"{name}: media_type must be one such as image/png", field=f"{name}.media_type")
    if media.fetch and media.url is None:
        raise InvalidRequest(f"{name}: fetch is for a url", field=f"{name}.fetch")
