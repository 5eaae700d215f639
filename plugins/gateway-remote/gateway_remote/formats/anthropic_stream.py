"""A streamed reply of the Messages API: payloads of events in, deltas out, and the whole response at the end. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway import Chat, Delta, Finish
from gateway_remote.formats.anthropic_reply import REDACTED, SIGNED, call_of, citations_of, message_finish, usage_of
from gateway_remote.formats.api import Heard
from gateway_remote.formats.reading import ChatReader
from gateway_remote.formats.values import arguments_of, broken, index, objects, said, string


@dataclass(slots=True)
class _Block:
    """A content block that has begun and not ended. `part` is None while nothing of it has been delivered."""

    kind: str
    part: int | None = None
    given: Any = None  # the input of a tool call that came with its beginning
    signature: str = ""
    citations: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0  # characters delivered


class MessageStream(ChatReader):
    """One reply as it comes. Blocks may be interleaved: each event names its block.

    A text's citations follow when its block has ended, and so does the signature of what was thought.
    """

    def __init__(self, request: Chat, heard: Heard) -> None:
        super().__init__(request, heard)
        self._id = self._id or heard.headers.get("request-id", "")
        self._blocks: dict[int, _Block] = {}
        self._texts: dict[int, int] = {}  # characters of each text part
        self._calls = 0
        self._counts: dict[str, Any] = {}

    def take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """One event; those of a kind that is not known are passed over."""
        match chunk.get("type"):
            case "content_block_delta":
                self._more(self._block(chunk), self._object(chunk, "delta"), out)
            case "content_block_start":
                self._begin(self._index(chunk), self._object(chunk, "content_block"), out)
            case "content_block_stop":
                self._end(self._index(chunk), out)
            case "message_start":
                if isinstance(message := chunk.get("message"), dict):
                    self._id = string(message.get("id")) or self._id
                    self._served_by = string(message.get("model"))
                    self._count(message.get("usage"))
            case "message_delta":
                self._count(chunk.get("usage"))
                delta = chunk.get("delta")
                if isinstance(delta, dict) and (finish := delta.get("stop_reason")) and self._finish is None:
                    for at in list(self._blocks):
                        self._end(at, out)
                    self._finish = finish
            case "message_stop":
                self.done = True

    def finish(self) -> Finish:
        """Why it ended."""
        return message_finish(self._finish, bool(self._calls), not self._parts, self._model)

    def _count(self, usage: Any) -> None:
        # Counts are totals so far, and one that has not changed may be missing.
        if isinstance(usage, dict):
            self._counts |= {name: value for name, value in usage.items() if value is not None}
            self._usage = usage_of(self._counts)

    def _index(self, chunk: dict[str, Any]) -> int:
        at = index(chunk.get("index"))
        if at is None:
            raise broken(self._model, "an event of the stream does not say which block it is of")
        return at

    def _object(self, chunk: dict[str, Any], name: str) -> dict[str, Any]:
        value = chunk.get(name)
        if not isinstance(value, dict):
            raise broken(self._model, f"an event of the stream holds no {name}")
        return value

    def _kind(self, wire: dict[str, Any]) -> str:
        if not (kind := string(wire.get("type"))):
            raise broken(self._model, "a part of the stream does not say what it is")
        return kind

    def _block(self, chunk: dict[str, Any]) -> _Block:
        block = self._blocks.get(self._index(chunk))
        if block is None:
            raise broken(self._model, "an event of the stream is of a block that has not begun")
        return block

    def _begin(self, at: int, wire: dict[str, Any], out: list[Delta]) -> None:
        if at in self._blocks:
            raise broken(self._model, "a block of the stream begins twice")
        block = self._blocks[at] = _Block(self._kind(wire))
        match block.kind:
            case "text":
                block.citations += objects(wire.get("citations"))
                self._text(block, said(wire.get("text"), self._model), out)
            case "thinking":
                block.part, block.signature = self._next_part(), string(wire.get("signature"))
                if thought := said(wire.get("thinking"), self._model):
                    out.append(Delta(thought, block.part, "reasoning"))
            case "redacted_thinking":
                block.part = self._next_part()
                out.append(Delta("", block.part, "reasoning", signature=REDACTED + string(wire.get("data"))))
            case "tool_use":
                id, name = call_of(wire, self._calls, self._model)
                block.part, block.given = self._next_part(), wire.get("input")
                self._calls += 1
                out.append(Delta("", block.part, "tool_call", id, name))

    def _more(self, block: _Block, delta: dict[str, Any], out: list[Delta]) -> None:
        match block.kind, self._kind(delta):
            case "text", "text_delta":
                self._text(block, said(delta.get("text"), self._model), out)
            case "text", "citations_delta":
                block.citations += objects([delta.get("citation")])
            case "thinking", "thinking_delta":
                if block.part is not None and (thought := said(delta.get("thinking"), self._model)):
                    out.append(Delta(thought, block.part, "reasoning"))
            case "thinking", "signature_delta":  # it comes whole
                block.signature = string(delta.get("signature"))
            case "tool_use", "input_json_delta":
                if block.part is not None and (piece := said(delta.get("partial_json"), self._model)):
                    block.size += len(piece)
                    out.append(Delta(piece, block.part, "tool_call"))

    def _text(self, block: _Block, text: str, out: list[Delta]) -> None:
        if not text:
            return
        if block.part is None:
            block.part = self._next_part()
        block.size += len(text)
        self._texts[block.part] = block.size
        out.append(Delta(text, block.part))

    def _end(self, at: int, out: list[Delta]) -> None:
        block = self._blocks.pop(at, None)
        if block is None:
            return
        match block.kind:
            case "text" if block.citations:
                for citation in citations_of(block.citations, self._request, *self._span(block)):
                    out.append(Delta("", self._next_part(), "whole", whole=citation))
            case "thinking" if block.part is not None:
                out.append(Delta("", block.part, "reasoning", signature=SIGNED + block.signature))
            case "tool_use" if block.part is not None and not block.size:
                out.append(Delta(arguments_of(block.given) or "{}", block.part, "tool_call"))

    def _span(self, block: _Block) -> tuple[int | None, int | None]:
        """The characters of the reply's text that a block holds; unknown while a text before it is still growing."""
        part = self._parts if block.part is None else block.part
        if any(other.kind == "text" and other.part is not None and other.part < part for other in self._blocks.values()):
            return None, None
        start = sum(size for other, size in self._texts.items() if other < part)
        return start, start + block.size
