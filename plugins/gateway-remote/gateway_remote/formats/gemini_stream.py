"""A streamed reply of Gemini's streamGenerateContent: payloads of events in, deltas out. No I/O.

Each event is a whole GenerateContentResponse. No event ends the stream: it is whole once a reason for its end has come, and
what it counts, or cites, may come later.
"""

from __future__ import annotations

from typing import Any

from gateway import Chat, Delta, Finish
from gateway_remote.formats.api import Heard
from gateway_remote.formats.gemini_reply import Turn
from gateway_remote.formats.reading import ChatReader
from gateway_remote.formats.values import again
from gateway_remote.jsonbytes import JSONError, loads


class ChatStream(ChatReader):
    """One reply as it comes. Parts are numbered as they first appear; citations come last."""

    def __init__(self, request: Chat, heard: Heard) -> None:
        super().__init__(request, heard)
        self._turn = Turn(request, heard.model)

    def feed(self, payload: bytes) -> list[Delta]:
        """The deltas in one event's data. An error may come as a list of one."""
        return super().feed(_alone(payload) if payload.startswith(b"[") else payload)

    def take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """One chunk."""
        turn = self._turn
        out += turn.add(chunk)
        self._finish = turn.reason or None
        self._usage, self._logprobs, self._served_by = turn.usage, turn.logprobs, turn.served_by
        self._id = turn.id or self._id

    def finish(self) -> Finish:
        """Why it ended."""
        return self._turn.finish()


def _alone(payload: bytes) -> bytes:
    """What is the only item of a list."""
    try:
        items = loads(payload)
    except JSONError:
        return payload
    return again(items[0]) if isinstance(items, list) and len(items) == 1 else payload
