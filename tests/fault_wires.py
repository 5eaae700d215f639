"""The wire formats that the fault table is played over, each with its own way to say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.testing import Fault, Reply
from gateway.testing.anthropic import Anthropic
from gateway.testing.dialect import Dialect, OpenAI
from gateway.testing.gemini import Gemini
from gateway.testing.responses import Responses

QUESTION = "What do you stand for, please?"
WORDS = f"No: {QUESTION}"
"""What a provider says beside its code: it quotes the prompt, and must not get into any message."""


@dataclass(frozen=True, kw_only=True)
class Own:
    """A fault that each format says in its own words: `kind` is looked up in the wire's `says`."""

    kind: str
    after: int | None = None
    """In mid-stream, after so many payloads."""


Step = Reply | Fault | Own


@dataclass(frozen=True, kw_only=True)
class Wire:
    """One format: a row's `api`, the path of its base_url, and by kind of fault the status and the body that it has for it.

    `says_streamed` has the body of an event in mid-stream.
    """

    api: str
    path: str = "/v1"
    dialect: Dialect
    says: Mapping[str, tuple[int, Any]]
    says_streamed: Mapping[str, Any]

    def knows(self, step: Step | None) -> bool:
        """False for a fault that this format has no word for."""
        return not isinstance(step, Own) or step.kind in (self.says if step.after is None else self.says_streamed)

    def spoken(self, step: Step) -> Reply | Fault:
        """The step in this format. Payloads of a stream are counted from its first word, which is the second of OpenAI's."""
        if isinstance(step, Own):
            if step.after is not None:
                return self.spoken(Fault(error_after=step.after, body=self.says_streamed[step.kind]))
            status, body = self.says[step.kind]
            return Fault(status=status, body=body)
        if isinstance(step, Reply):
            return step
        later = {
            name: value + self.dialect.preamble - 1
            for name, value in vars(step).items()
            if name.endswith("_after") and name != "retry_after" and value
        }
        return replace(step, **later)


def _openai(status: int, code: str, kind: str = "invalid_request_error") -> tuple[int, Any]:
    return status, {"error": {"message": WORDS, "type": kind, "param": None, "code": code}}


def _anthropic(status: int, kind: str) -> tuple[int, Any]:
    return status, {"type": "error", "error": {"type": kind, "message": WORDS}, "request_id": "req_1"}


def _gemini(status: int, kind: str, reason: str = "") -> tuple[int, Any]:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return status, {"error": {"code": status, "message": WORDS, "status": kind, "details": [info] if reason else []}}


def _failed(code: str) -> Any:
    response = {
        "id": "resp_1",
        "object": "response",
        "status": "failed",
        "error": {"code": code, "message": WORDS},
        "output": [],
    }
    return {"type": "response.failed", "sequence_number": 9, "response": response}


OF_OPENAI = {
    "context": _openai(400, "context_length_exceeded"),
    "filter": _openai(400, "content_filter"),
    "key": _openai(401, "invalid_api_key"),
    "quota": _openai(429, "insufficient_quota", "insufficient_quota"),
    "overloaded": _openai(503, "server_is_overloaded", "server_error"),
    "rate": _openai(429, "rate_limit_exceeded", "requests"),
}
OPENAI = Wire(
    api="openai",
    dialect=OpenAI(),
    says=OF_OPENAI,
    says_streamed={
        "overloaded": OF_OPENAI["overloaded"][1],
        "rate": OF_OPENAI["rate"][1],
    },
)
RESPONSES = Wire(
    api="openai-responses",
    dialect=Responses(),
    says=OF_OPENAI,
    says_streamed={"overloaded": _failed("server_is_overloaded"), "rate": _failed("rate_limit_exceeded")},
)
ANTHROPIC = Wire(
    api="anthropic",
    dialect=Anthropic(),
    says={
        "context": _anthropic(413, "request_too_large"),
        "key": _anthropic(401, "authentication_error"),
        "quota": _anthropic(402, "billing_error"),
        "overloaded": _anthropic(529, "overloaded_error"),
        "rate": _anthropic(429, "rate_limit_error"),
    },
    says_streamed={
        "overloaded": _anthropic(529, "overloaded_error")[1],
        "rate": _anthropic(429, "rate_limit_error")[1],
    },
)
GEMINI = Wire(
    api="gemini",
    path="/v1beta",
    dialect=Gemini(),
    says={
        "filter": (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}}),
        "key": _gemini(400, "INVALID_ARGUMENT", "API_KEY_INVALID"),
        "quota": _gemini(403, "PERMISSION_DENIED", "BILLING_DISABLED"),
        "overloaded": _gemini(503, "UNAVAILABLE"),
        "rate": _gemini(429, "RESOURCE_EXHAUSTED"),
    },
    says_streamed={
        "overloaded": _gemini(503, "UNAVAILABLE")[1],
        "rate": _gemini(429, "RESOURCE_EXHAUSTED")[1],
    },
)
WIRES = (OPENAI, RESPONSES, ANTHROPIC, GEMINI)
