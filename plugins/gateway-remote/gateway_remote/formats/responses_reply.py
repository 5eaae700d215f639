"""Replies of OpenAI's Responses API as responses: whole ones here, streams in responses_stream.py. No I/O.

A whole reply is read as a stream of whole items, so that both ways of asking give the same parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import Chat, ChatResponse, Citation, ContentFiltered, Delta, Finish, Logprob, Usage, assemble
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import logprobs_of
from gateway_remote.formats.values import (
    again,
    arguments_of,
    bad,
    broken,
    count,
    detail,
    each_said,
    estimate,
    finish_of,
    index,
    object_of,
    objects,
    said,
    string,
)

TAG = "responses:"
"""What begins a signature of this format; JSON follows."""
REASONING = ("type", "id", "summary", "content", "encrypted_content")
"""Of a reasoning item what goes back (`ResponseReasoningItemParam`), without `status`: OpenAI answers 400 to that."""
FINISHES: Mapping[str, Finish] = {
    "completed": "stop", "max_output_tokens": "length", "max_messages": "length", "incomplete": "length",
    "content_filter": "filter",
}  # fmt: skip
ELSE = frozenset(
    {
        "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call", "mcp_approval_request",
        "image_generation_call",
    }
)  # fmt: skip
"""Items that want an answer from the caller, or are one, and that no response has a place for."""
BETWEEN = "\n\n"
"""What stands between two sections of a thought."""


@dataclass(slots=True)
class _Growing:
    """One part as it grows. `offset` is how many characters of text came before it, `cited` how many annotations it has had."""

    offset: int
    part: int = -1
    """Its number, once there is something of it."""
    section: tuple[str, int] = ("", 0)
    cited: int = 0
    pieces: list[str] = field(default_factory=list)

    def rest(self, whole: str) -> str:
        """What is missing to the whole; nothing when it is another text."""
        had = "".join(self.pieces)
        return whole[len(had) :] if whole.startswith(had) else ""


class Output:
    """The output items of one reply as deltas; each item comes in pieces, whole, or in pieces and then whole.

    `at` tells the items apart. Of a whole item only what its pieces have not told yet is told.
    """

    def __init__(self, model: str) -> None:
        self.parts = 0
        """How many there are by now."""
        self._model = model
        self._calls = 0
        self._said = self._refused = False
        self._characters = 0
        self._growing: dict[tuple[Any, ...], _Growing] = {}
        self._whole: set[int] = set()

    def text(self, at: int, content: int, data: str, *, refusal: bool = False) -> Iterator[Delta]:
        """More of a message's text, or of its refusal."""
        if not data:
            return
        text = self._grow("text", at, content)
        part = self._add(text, data)
        self._characters += len(data)
        self._refused |= refusal
        self._said = True
        yield Delta(data, part)

    def citation(self, at: int, content: int, wire: Any) -> Iterator[Delta]:
        """An annotation of the text so far."""
        text = self._grow("text", at, content)
        text.cited += 1
        if isinstance(wire, dict) and (citation := _citation(wire, text.offset)):
            yield Delta("", self._next(), "whole", whole=citation)

    def thought(self, at: int, section: tuple[str, int], data: str) -> Iterator[Delta]:
        """More of a section of a thought: of its summary, or of itself."""
        if not data:
            return
        thought = self._grow("thought", at)
        if thought.pieces and thought.section != section:
            data = BETWEEN + data
        thought.section = section
        yield Delta(data, self._add(thought, data), "reasoning")

    def arguments(self, at: int, data: str) -> Iterator[Delta]:
        """More of a tool call's arguments; without the call they wait for the whole item."""
        call = self._growing.get(("call", at))
        if call is not None and data:
            yield Delta(data, self._add(call, data), "tool_call")

    def begun(self, at: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        """An item of which more follows."""
        if item.get("type") == "function_call" and string(item.get("name")):
            id = string(item.get("call_id")) or string(item.get("id")) or f"call_{self._calls}"
            arguments = arguments_of(item.get("arguments"))
            self._calls += 1
            self._said = True
            yield Delta(arguments, self._add(self._grow("call", at), arguments), "tool_call", id, string(item.get("name")))

    def content(self, at: int, content: int, wire: Mapping[str, Any]) -> Iterator[Delta]:
        """A whole content part of a message."""
        refusal = wire.get("type") == "refusal"
        if not refusal and wire.get("type") != "output_text":
            if wire.get("type") not in ("reasoning_text", "summary_text"):  # those are told by events of their own
                raise bad(self._model, "the reply holds a part of a kind that is not read")
            return
        whole = said(wire.get("refusal" if refusal else "text"), self._model)
        had = self._growing.get(("text", at, content))
        yield from self.text(at, content, whole if had is None else had.rest(whole), refusal=refusal)
        cited = 0 if had is None else had.cited
        for each in objects(wire.get("annotations"))[cited:]:
            yield from self.citation(at, content, each)

    def whole(self, at: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        """A whole item. What is none of text, thought and tool call, such as a search, is passed over."""
        if at in self._whole:
            return
        self._whole.add(at)
        match item.get("type"):
            case "message":
                for content, each in enumerate(each_said(item.get("content"), self._model)):
                    yield from self.content(at, content, each)
                told = any(key[:2] == ("text", at) and text.pieces for key, text in self._growing.items())
                if told and (phase := string(item.get("phase"))):
                    # To be sent back with the text, which has no place for it (`ResponseOutputMessage.phase`).
                    yield Delta("", self._next(), "reasoning", signature=_signed({"type": "message", "phase": phase}))
            case "reasoning":
                yield from self._reasoning(at, item)
            case "function_call":
                if not string(item.get("name")):
                    raise broken(self._model, "a tool call without a name")
                call = self._growing.get(("call", at))
                if call is None:
                    yield from self.begun(at, item)
                else:
                    yield from self.arguments(at, call.rest(arguments_of(item.get("arguments"))))
            case str(kind) if kind in ELSE:
                raise bad(self._model, f"the reply holds a {kind}, which is not read: leave its tool out of the row's `body`")
            case str():
                pass
            case _:
                raise broken(self._model, "an item of the reply does not say what it is")

    def finish(self, wire: str) -> Finish:
        """Why the reply ended. A ServiceError when that is a failure, or when a filter has left nothing of it."""
        if wire in ("in_progress", "queued"):
            raise broken(self._model, "the reply is not finished")
        finish = finish_of("failed" if wire == "cancelled" else wire, FINISHES, self._model)
        if finish == "stop" and self._refused:
            return "filter"
        if finish == "filter" and not self._said:
            message = f"model {self._model!r}: the provider's filter has left nothing of the reply"
            raise ContentFiltered(message, model=self._model)
        return "tool_calls" if finish == "stop" and self._calls else finish

    def _reasoning(self, at: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        sections = [*objects(item.get("summary")), *objects(item.get("content"))]
        whole = BETWEEN.join(text for each in sections if (text := string(each.get("text"))))
        had, signature = self._growing.get(("thought", at)), _reasoning_signature(item)
        rest = whole if had is None else had.rest(whole)
        if rest or signature:
            yield Delta(rest, self._add(self._grow("thought", at), rest), "reasoning", signature=signature)

    def _grow(self, *key: Any) -> _Growing:
        growing = self._growing.get(key)
        if growing is None:
            growing = self._growing[key] = _Growing(self._characters)
        return growing

    def _add(self, growing: _Growing, data: str) -> int:
        """The part that it is."""
        if growing.part < 0:
            growing.part = self._next()
        growing.pieces.append(data)
        return growing.part

    def _next(self) -> int:
        self.parts += 1
        return self.parts - 1


def chat_response(body: bytes, request: Chat, heard: Heard) -> ChatResponse:
    """The reply of POST /responses."""
    payload, model = object_of(body, heard), heard.model
    items, ending = payload.get("output"), ending_of(payload, "completed")
    if not isinstance(items, list) and ending in FINISHES:
        raise broken(model, "the reply holds no output")
    output = Output(model)
    parts = assemble([delta for at, item in enumerate(each_said(items, model)) for delta in output.whole(at, item)])
    return ChatResponse(
        parts=parts,
        finish=output.finish(ending),
        usage=usage_of(payload.get("usage")) or estimate(request, parts),
        id=string(payload.get("id")) or heard.headers.get("x-request-id", ""),
        served_by=string(payload.get("model")),
        logprobs=() if request.logprobs is None else output_logprobs(items),
        quota=heard.quota,
    )


def ending_of(reply: Mapping[str, Any], status: str) -> str:
    """Why a reply ended, as the wire has it: its status, or why it is incomplete. `status` is for one that says nothing."""
    status = string(reply.get("status")) or status
    details = reply.get("incomplete_details")
    reason = string(details.get("reason")) if isinstance(details, dict) else ""
    return reason if status == "incomplete" and reason else status


def usage_of(wire: Any) -> Usage | None:
    """The counts as the server states them (`ResponseUsage`), None when it does not."""
    if not isinstance(wire, dict) or not isinstance(wire.get("input_tokens"), int):
        return None
    return Usage(
        input_tokens=count(wire.get("input_tokens")),
        cached_tokens=detail(wire, "input_tokens_details", "cached_tokens"),
        cache_write_tokens=detail(wire, "input_tokens_details", "cache_write_tokens"),
        output_tokens=count(wire.get("output_tokens")),
        reasoning_tokens=detail(wire, "output_tokens_details", "reasoning_tokens"),
    )


def output_logprobs(items: Any) -> tuple[Logprob, ...]:
    """What all the texts of a reply say of their tokens."""
    contents = [content for item in objects(items) for content in objects(item.get("content"))]
    return tuple(each for content in contents for each in logprobs_of({"content": content.get("logprobs")}))


def _citation(wire: Mapping[str, Any], offset: int) -> Citation | None:
    """An annotation of a text that `offset` characters came before; None for what cites nothing (`file_path`).

    The ends are as Python slices, in spite of the package's "index of the last character".
    """
    match wire.get("type"):
        case "url_citation":
            url, title = string(wire.get("url")), string(wire.get("title"))
            return Citation(url, title, "", _after(offset, wire.get("start_index")), _after(offset, wire.get("end_index")))
        case "container_file_citation":
            start, end = _after(offset, wire.get("start_index")), _after(offset, wire.get("end_index"))
            return Citation("", string(wire.get("filename")), "", start, end)
        case "file_citation":  # it stands after what it supports, and where that begins is not said
            return Citation("", string(wire.get("filename")), "", None, _after(offset, wire.get("index")))
    return None


def _after(offset: int, place: Any) -> int | None:
    known = index(place)
    return None if known is None else offset + known


def _reasoning_signature(item: Mapping[str, Any]) -> str:
    """A reasoning item as it goes back; "" for one that the provider could not make anything of."""
    if not string(item.get("id")) or not (item.get("encrypted_content") or item.get("content")):
        return ""
    told = {**item, "summary": objects(item.get("summary"))}
    return _signed({name: told[name] for name in REASONING if told.get(name) is not None})


def _signed(item: Mapping[str, Any]) -> str:
    return TAG + again(item).decode()
