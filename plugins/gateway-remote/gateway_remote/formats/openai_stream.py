"""A streamed reply of Chat Completions: payloads of events in, deltas out, and the whole response at the end. No I/O."""

from __future__ import annotations

from typing import Any

from gateway import Chat, Delta, Finish
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import (
    chat_finish,
    citation_of,
    logprobs_of,
    nothing_else,
    reasoning_of,
    text_of,
    usage_of,
)
from gateway_remote.formats.reading import ChatReader
from gateway_remote.formats.values import arguments_of, broken, objects, string


class ChatStream(ChatReader):
    """One reply as it comes. Parts are numbered as they first appear: reasoning, text, each tool call."""

    def __init__(self, request: Chat, heard: Heard) -> None:
        super().__init__(request, heard)
        self._text_part: int | None = None
        self._reasoning_part: int | None = None
        self._calls: list[dict[str, Any]] = []  # part, id and named of each tool call, in order
        self._call_at: dict[int, dict[str, Any]] = {}  # by the wire's index
        self._refused = False

    def take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """One chunk of the completion."""
        if (usage := chunk.get("usage")) is not None:
            self._usage = usage_of(usage) or self._usage
        if not self._served_by:
            self._served_by = string(chunk.get("model"))
            self._id = string(chunk.get("id")) or self._id
        choices = chunk.get("choices")
        if not choices:
            return
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise broken(self._model, "a chunk of the stream holds no choice")
        if choice.get("index"):  # one choice is asked for
            return
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._add(delta, out)
        elif delta or (choice.get("message") and not self._deltas):  # a message after deltas is their sum
            raise broken(self._model, "a chunk of the stream holds no delta")
        if self._request.logprobs is not None and (logprobs := choice.get("logprobs")):
            self._logprobs += logprobs_of(logprobs)
        if (finish := choice.get("finish_reason")) and self._finish is None:
            self._finish = finish

    def finish(self) -> Finish:
        """Why it ended."""
        wire = "refusal" if self._refused and self._finish == "stop" else self._finish
        return chat_finish(wire, bool(self._calls), not self._parts, self._model)

    def _add(self, delta: dict[str, Any], out: list[Delta]) -> None:
        if len(delta) == 1 and isinstance(text := delta.get("content"), str):  # nearly all of them are no more
            self._text(text, out)
            return
        if thought := reasoning_of(delta, self._model):
            if self._reasoning_part is None:
                self._reasoning_part = self._next_part()
            out.append(Delta(thought, self._reasoning_part, "reasoning"))
        text = text_of(content, self._model) if (content := delta.get("content")) else ""
        if refusal := delta.get("refusal"):
            text, self._refused = text + text_of(refusal, self._model), True
        nothing_else(delta, self._model)
        self._text(text, out)
        if annotations := delta.get("annotations"):
            for each in objects(annotations):
                out.append(Delta("", self._next_part(), "whole", whole=citation_of(each)))
        if calls := delta.get("tool_calls"):
            if not isinstance(calls, list):
                raise broken(self._model, "tool_calls is no list")
            out.extend(self._call(call) for call in calls)

    def _text(self, text: str, out: list[Delta]) -> None:
        if text:
            if self._text_part is None:
                self._text_part = self._next_part()
            out.append(Delta(text, self._text_part))

    def _call(self, wire: Any) -> Delta:
        if not isinstance(wire, dict):
            raise broken(self._model, "a tool call is no object")
        function = wire.get("function")
        function = function if isinstance(function, dict) else {}
        id, name, index = string(wire.get("id")), string(function.get("name")), wire.get("index")
        if index is None:  # servers that number nothing send each call whole, or in a row
            call = None if id else (self._calls[-1] if self._calls else None)
            call = next((each for each in self._calls if id and each["id"] == id), call)
        else:
            if not isinstance(index, int):
                raise broken(self._model, "a tool call's index is no number")
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
