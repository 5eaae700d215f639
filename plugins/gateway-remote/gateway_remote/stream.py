"""A streamed chat: payloads of events in, deltas out, and the whole response at the end. No I/O."""

from __future__ import annotations

from typing import Any

from gateway import BadReply, Chat, ChatResponse, Delta, Quota, ServiceError, ToolCall, Usage, assemble
from gateway_remote.failures import payload_failure
from gateway_remote.jsonbytes import JSONError, loads
from gateway_remote.response import arguments_of, broken, estimate, finish_of, holds_error, text_of, usage_of

EARLY = "the stream ended early"


class ChatStream:
    """One reply as it comes. Parts are numbered as they first appear: reasoning, text, each tool call.

    Every error says `in_stream` and holds the text so far as `partial`.
    """

    def __init__(self, request: Chat, *, model: str, id: str = "", quota: Quota | None = None) -> None:
        self.done = False
        """True after ``[DONE]``: nothing more is read."""
        self._request, self._model, self._id, self._quota = request, model, id, quota
        self._served_by = ""
        self._deltas: list[Delta] = []
        self._text_part: int | None = None
        self._reasoning_part: int | None = None
        self._calls: list[dict[str, Any]] = []  # part, id and named of each tool call, in order
        self._call_at: dict[int, dict[str, Any]] = {}  # by the wire's index
        self._parts = 0
        self._finish: Any = None
        self._refused = False
        self._usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """True once the reply is whole: only usage may be missing yet."""
        return self._finish is not None

    @property
    def partial(self) -> str:
        """The answer's text so far."""
        return "".join(delta.text for delta in self._deltas)

    def feed(self, payload: bytes) -> list[Delta]:
        """The deltas in one event's data."""
        if self.done or payload.startswith(b"[DONE]"):
            self.done = True
            return []
        try:
            chunk = loads(payload)
        except JSONError:
            raise self.broken("a chunk of the stream is no JSON") from None
        if not isinstance(chunk, dict):
            raise self.broken("a chunk of the stream is no JSON object")
        if holds_error(chunk):
            raise self.failed(payload_failure(chunk, model=self._model))
        if (usage := chunk.get("usage")) is not None:
            self._usage = usage_of(usage) or self._usage
        if not self._served_by:
            self._served_by = served if isinstance(served := chunk.get("model"), str) else ""
            self._id = given if isinstance(given := chunk.get("id"), str) and given else self._id
        choices = chunk.get("choices")
        if not choices:
            return []
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise self.broken("a chunk of the stream holds no choice")
        if choice.get("index"):  # one choice is asked for
            return []
        out: list[Delta] = []
        if isinstance(delta := choice.get("delta"), dict):
            self._take(delta, out)
        if (finish := choice.get("finish_reason")) and self._finish is None:
            self._finish = finish
        self._deltas += out
        return out

    def flush(self, payloads: list[bytes]) -> list[Delta]:
        """The deltas in what the end of the body completed; half a payload there is what a cut leaves."""
        out: list[Delta] = []
        for payload in payloads:
            try:
                out += self.feed(payload)
            except ServiceError as error:
                if self.finished:
                    break
                if isinstance(error, BadReply):
                    raise self.broken(EARLY) from None
                raise
        return out

    def response(self) -> ChatResponse:
        """The whole reply. BadReply when the stream has ended without a finish_reason."""
        if self._finish is None:
            raise self.broken(EARLY)
        parts = assemble(self._deltas)
        if any(isinstance(part, ToolCall) and not part.name for part in parts):
            raise self.broken("a tool call without a name")
        try:
            finish = finish_of(self._finish, bool(self._calls), self._model)
        except ServiceError as error:
            raise self.failed(error) from None
        return ChatResponse(
            parts=parts,
            finish="filter" if self._refused and finish == "stop" else finish,
            usage=self._usage or estimate(self._request, parts),
            id=self._id,
            served_by=self._served_by,
            quota=self._quota,
        )

    def broken(self, what: str) -> ServiceError:
        """A BadReply of this stream, which asking again may cure."""
        return self.failed(broken(self._model, what))

    def failed(self, error: ServiceError) -> ServiceError:
        """The error as one of this stream."""
        error.in_stream, error.partial = True, self.partial
        return error

    def _take(self, delta: dict[str, Any], out: list[Delta]) -> None:
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if thought and isinstance(thought, str):
            if self._reasoning_part is None:
                self._reasoning_part = self._next_part()
            out.append(Delta(thought, self._reasoning_part, "reasoning"))
        content = delta.get("content")
        if not content and (refusal := delta.get("refusal")):
            content, self._refused = refusal, True
        if content and (text := text_of(content)):
            if self._text_part is None:
                self._text_part = self._next_part()
            out.append(Delta(text, self._text_part))
        calls = delta.get("tool_calls")
        if calls:
            if not isinstance(calls, list):
                raise self.broken("tool_calls is no list")
            out.extend(self._call(call) for call in calls)

    def _call(self, wire: Any) -> Delta:
        function = wire.get("function") if isinstance(wire, dict) else None
        function = function if isinstance(function, dict) else {}
        if not isinstance(wire, dict):
            raise self.broken("a tool call is no object")
        given, name = wire.get("id"), function.get("name")
        id = given if isinstance(given, str) else ""
        name = name if isinstance(name, str) else ""
        index = wire.get("index")
        if index is None:  # servers that number nothing send each call whole, or in a row
            call = None if id else (self._calls[-1] if self._calls else None)
            call = next((each for each in self._calls if id and each["id"] == id), call)
        else:
            if not isinstance(index, int):
                raise self.broken("a tool call's index is no number")
            call = self._call_at.get(index)
            if call is not None and id and name and call["id"] != id:
                call = None  # a server that gives every call the index 0
        data = arguments_of(function.get("arguments"))
        if call is not None:
            late = "" if call["named"] else name
            call["named"] = call["named"] or bool(name)
            return Delta(data, call["part"], "tool_call", name=late)
        call = {"part": self._next_part(), "id": id or f"call_{len(self._calls)}", "named": bool(name)}
        self._calls.append(call)
        if index is not None:
            self._call_at[index] = call
        return Delta(data, call["part"], "tool_call", call["id"], name)

    def _next_part(self) -> int:
        self._parts += 1
        return self._parts - 1
