"""A streamed reply of the Responses API: payloads of events in, deltas out, and the whole response at the end. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway import Chat, Delta, Finish
from gateway_remote.failures import payload_failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import logprobs_of
from gateway_remote.formats.reading import ChatReader
from gateway_remote.formats.responses_reply import Output, ending_of, output_logprobs, usage_of
from gateway_remote.formats.values import broken, each_said, index, said, string

PIECES = frozenset(
    {
        "response.output_text.delta", "response.refusal.delta", "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta", "response.function_call_arguments.delta",
    }
)  # fmt: skip
"""Events whose `delta` is a text."""
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponseStream(ChatReader):
    """One reply as it comes. Events of kinds that add nothing to it are passed over."""

    def __init__(self, request: Chat, heard: Heard) -> None:
        super().__init__(request, heard)
        self._output = Output(heard.model)
        self._items: dict[int, int] = {}
        """The newest item at each `output_index`: a few servers number them all alike."""
        self._begun = 0

    def take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """One event."""
        kind = string(chunk.get("type"))
        if kind in ENDS:
            self._end(chunk, kind.removeprefix("response."), out)
        else:
            out.extend(self._more(chunk, kind))

    def finish(self) -> Finish:
        """Why it ended."""
        return self._output.finish(self._finish)

    def _more(self, event: dict[str, Any], kind: str) -> Iterator[Delta]:
        output, content = self._output, index(event.get("content_index")) or 0
        data = said(event.get("delta"), self._model) if kind in PIECES else ""
        match kind:
            case "response.output_text.delta":
                if self._request.logprobs is not None:
                    self._logprobs += logprobs_of({"content": event.get("logprobs")})
                yield from output.text(self._at(event), content, data)
            case "response.refusal.delta":
                yield from output.text(self._at(event), content, data, refusal=True)
            case "response.reasoning_summary_text.delta":
                yield from output.thought(self._at(event), ("summary", index(event.get("summary_index")) or 0), data)
            case "response.reasoning_text.delta":
                yield from output.thought(self._at(event), ("content", content), data)
            case "response.function_call_arguments.delta":
                yield from output.arguments(self._at(event), data)
            case "response.output_text.annotation.added":
                yield from output.citation(self._at(event), content, event.get("annotation"))
            case "response.content_part.added" | "response.content_part.done":
                if isinstance(part := event.get("part"), dict):
                    yield from output.content(self._at(event), content, part)
            case "response.output_item.added":
                if isinstance(item := event.get("item"), dict):
                    yield from output.begun(self._at(event, begins=True), item)
            case "response.output_item.done":
                if isinstance(item := event.get("item"), dict):
                    yield from output.whole(self._at(event), item)
            case "response.created" | "response.in_progress" | "response.queued":
                self._named(event.get("response"))

    def _end(self, event: dict[str, Any], status: str, out: list[Delta]) -> None:
        reply = event.get("response")
        if not isinstance(reply, dict):
            raise broken(self._model, "the last event of the stream holds no response")
        if error := reply.get("error"):
            raise payload_failure({"error": error}, model=self._model, now_s=self._heard.now_s)
        self._named(reply)
        items = each_said(reply.get("output"), self._model)
        if len(items) == self._begun or not self._output.parts:
            for at, item in enumerate(items):
                out.extend(self._output.whole(at, item))
        self._usage = usage_of(reply.get("usage"))
        if self._request.logprobs is not None:  # some servers tell them at the end only
            self._logprobs = list(output_logprobs(items)) or self._logprobs
        self._finish = ending_of(reply, status)
        self.done = True

    def _named(self, reply: Any) -> None:
        if isinstance(reply, dict):
            self._id = string(reply.get("id")) or self._id
            self._served_by = string(reply.get("model")) or self._served_by

    def _at(self, event: dict[str, Any], *, begins: bool = False) -> int:
        """Which item an event is of, counted from 0 as they begin."""
        place = index(event.get("output_index"))
        if place is None:
            place = max(self._items, default=0)
        if begins or place not in self._items:
            self._items[place] = self._begun
            self._begun += 1
        return self._items[place]
