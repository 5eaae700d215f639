"""ChatReader: a streamed chat as it comes, in what all formats have in common. A format says how one payload adds to it."""

from __future__ import annotations

from typing import Any

from gateway import BadReply, Chat, ChatResponse, Delta, Finish, Logprob, ServiceError, ToolCall, Usage, assemble
from gateway_remote.failures import payload_failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.values import broken, estimate, holds_error
from gateway_remote.jsonbytes import JSONError, loads

EARLY = "the stream ended early"


class ChatReader:
    """One reply as it comes. Parts are numbered as they first appear.

    Every error says `in_stream` and holds the text so far as `partial`.
    """

    def __init__(self, request: Chat, heard: Heard) -> None:
        self.done = False
        """True after the last event: nothing more is read."""
        self._request, self._heard, self._model = request, heard, heard.model
        self._id = heard.headers.get("x-request-id", "")
        self._served_by = ""
        self._deltas: list[Delta] = []
        self._parts = 0
        self._finish: Any = None
        """Why it ended, as the wire has it; None until it has."""
        self._usage: Usage | None = None
        self._logprobs: list[Logprob] = []

    def take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """What one payload adds."""
        raise NotImplementedError

    def finish(self) -> Finish:
        """Why it ended. A ServiceError when that is a failure."""
        raise NotImplementedError

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
            raise self.failed(payload_failure(chunk, model=self._model, now_s=self._heard.now_s))
        out: list[Delta] = []
        try:
            self.take(chunk, out)
        except ServiceError as error:
            raise self.failed(error) from None
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
        """The whole reply. BadReply when the stream has ended without a finish."""
        if self._finish is None:
            raise self.broken(EARLY)
        parts = assemble(self._deltas)
        if any(isinstance(part, ToolCall) and not part.name for part in parts):
            raise self.broken("a tool call without a name")
        try:
            finish = self.finish()
        except ServiceError as error:
            raise self.failed(error) from None
        return ChatResponse(
            parts=parts,
            finish=finish,
            usage=self._usage or estimate(self._request, parts),
            id=self._id,
            served_by=self._served_by,
            logprobs=tuple(self._logprobs),
            quota=self._heard.quota,
        )

    def broken(self, what: str) -> ServiceError:
        """A BadReply of this stream, which asking again may cure."""
        return self.failed(broken(self._model, what))

    def failed(self, error: ServiceError) -> ServiceError:
        """The error as one of this stream."""
        error.in_stream, error.partial = True, self.partial
        return error

    def _next_part(self) -> int:
        self._parts += 1
        return self._parts - 1
