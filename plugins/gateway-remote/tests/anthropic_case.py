"""What the tests of the Messages API share: rows, replies built of the `anthropic` package's own types, streams of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
from anthropic import types
from gateway_remote.config import ModelRow
from gateway_remote.formats.anthropic import API
from gateway_remote.formats.anthropic_reply import message_response
from gateway_remote.formats.anthropic_stream import MessageStream
from gateway_remote.formats.api import Heard
from pydantic import TypeAdapter
from remote_case import started, streamed

from gateway import Chat, ChatResponse, Delta, assemble
from gateway.testing import LoopbackServer
from gateway.testing.anthropic import STOP, events

MODEL = "claude-opus-5-5"
KEY_REF = "ANTHROPIC_TEST_KEY"
KEY = "sk-ant-of-a-test"
OLD = {"anthropic-version": "2023-06-01"}
FACTS: dict[str, Any] = {
    "api": "anthropic", "model": MODEL, "tasks": ["chat"], "api_key": [f"env:{KEY_REF}"], "features": None,
    "modalities": ["text", "image", "audio", "file"],
}  # fmt: skip
ASKED = Chat.ask("12345678")
EVENT: TypeAdapter[Any] = TypeAdapter(types.RawMessageStreamEvent)


def model_row(**facts: Any) -> ModelRow:
    return ModelRow(name="m", base_url="http://h/v1", **{**FACTS, **facts})


ROW = model_row()
OLDER = model_row(headers=OLD, features=[*API.features, "top_k", "prefill"])


def sdk(server: LoopbackServer, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=KEY, base_url=server.origin, max_retries=0, **options)


def message(*content: dict[str, Any], stop_reason: str = "end_turn", **facts: Any) -> dict[str, Any]:
    """A reply that the package's own types hold to be one."""
    usage = {"input_tokens": 3, "output_tokens": 4}
    wire = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "real-name", "content": list(content),
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage, **facts,
    }  # fmt: skip
    return types.Message.model_validate(wire).model_dump(mode="json", exclude_unset=True)


def text(said: str, *citations: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": said, "citations": list(citations) or None}


def thinking(said: str, signature: str = "c2ln") -> dict[str, Any]:
    return {"type": "thinking", "thinking": said, "signature": signature}


def redacted(data: str) -> dict[str, Any]:
    return {"type": "redacted_thinking", "data": data}


def call(id: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def decoded(wire: Any, request: Chat = ASKED) -> ChatResponse:
    return message_response(json.dumps(wire).encode(), request, Heard("m"))


def payload(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def events_of(wire: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a whole reply, each one checked by the package."""
    out = [*events(wire), STOP]
    for event in out:
        if event["type"] != "ping":
            EVENT.validate_python(event)
    return out


def read(*payloads: bytes, request: Chat = ASKED) -> tuple[list[Delta], ChatResponse]:
    state = MessageStream(request, Heard("m"))
    deltas = [delta for each in payloads for delta in state.feed(each)]
    response = state.response()
    assert assemble(deltas) == response.parts
    assert sorted({delta.part for delta in deltas}) == list(range(len(response.parts)))
    return deltas, response


def asked(server: LoopbackServer, request: Chat, *, stream: bool = False, **facts: Any) -> ChatResponse:
    """The reply of a started model at the server."""

    async def ask() -> Any:
        async with started(server.url, **{**FACTS, **facts}) as model:
            return (await streamed(model, request))[1] if stream else await model.run(request)

    response = asyncio.run(ask())
    assert isinstance(response, ChatResponse)
    return response
