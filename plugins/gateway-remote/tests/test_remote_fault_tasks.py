"""What goes wrong with the tasks that are no chat, in each format that has them: as the fault table has it for chats."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tasks_case import ALL, KEY, KEY_REF, PLAIN, with_option

from gateway import (
    Answer,
    AsyncGateway,
    Classify,
    ClassifyImage,
    DetectObjects,
    Embed,
    Extract,
    GatewayError,
    GenerateImage,
    Request,
    Rerank,
    Speak,
    Summarize,
    Transcribe,
    Translate,
)
from gateway.testing import Fault, LoopbackServer

WORDS = "No: Mr. Brown flew from Bern to Paris."
"""What a provider says beside its code: it quotes the request, and must not get into any message."""
HF_TASKS: dict[type[Request[Any]], str] = {
    Classify: "text-classification", Extract: "token-classification", Answer: "question-answering",
    Summarize: "summarization", Translate: "translation", Embed: "feature-extraction", ClassifyImage: "image-classification",
    DetectObjects: "object-detection", GenerateImage: "text-to-image", Transcribe: "automatic-speech-recognition",
    Speak: "text-to-speech",
}  # fmt: skip
CASES: list[tuple[str, type[Request[Any]]]] = [
    *(("openai", task) for task in (Embed, Rerank, GenerateImage, Transcribe, Speak)),
    ("gemini", Embed),
    *(("huggingface", task) for task in HF_TASKS),
]


def openai(status: int, code: str) -> Fault:
    return Fault(status=status, body={"error": {"message": WORDS, "type": "invalid_request_error", "code": code}})


def gemini(status: int, kind: str, reason: str = "") -> Fault:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return Fault(status=status, body={"error": {"code": status, "message": WORDS, "status": kind, "details": details}})


def huggingface(status: int, **more: Any) -> Fault:
    return Fault(status=status, body={"error": WORDS, **more})


OWN: dict[str, dict[str, tuple[Fault, str]]] = {
    "openai": {
        "key": (openai(401, "invalid_api_key"), "Denied"),
        "quota": (openai(429, "insufficient_quota"), "OutOfQuota"),
        "filter": (openai(400, "content_policy_violation"), "ContentFiltered"),
        "model": (openai(404, "model_not_found"), "ModelMissing"),
        "overloaded": (openai(503, "server_is_overloaded"), "Overloaded"),
        "an error for a reply": (Fault(status=200, body={"error": {"message": WORDS, "code": 503}}), "Overloaded"),
    },
    "gemini": {
        "key": (gemini(400, "INVALID_ARGUMENT", "API_KEY_INVALID"), "Denied"),
        "quota": (gemini(403, "PERMISSION_DENIED", "BILLING_DISABLED"), "OutOfQuota"),
        "model": (gemini(404, "NOT_FOUND"), "ModelMissing"),
        "overloaded": (gemini(503, "UNAVAILABLE"), "Overloaded"),
    },
    "huggingface": {
        "key": (huggingface(401), "Denied"),
        "quota": (huggingface(402), "OutOfQuota"),
        "model": (huggingface(404), "ModelMissing"),
        "still loading": (huggingface(503, estimated_time=20.0), "Overloaded"),
        "an error for a reply": (Fault(status=200, body={"error": WORDS}), "ServiceError"),
    },
}
ANY: dict[str, tuple[Fault, str]] = {
    "429": (Fault(status=429, retry_after=60, body=WORDS), "RateLimited"),
    "500": (Fault(status=500, body=WORDS), "ServiceError"),
    "reset": (Fault(reset=True), "Unreachable"),
    "cut off": (Fault(truncated=True), "Unreachable"),
    "silence": (Fault(delay_s=15.0), "AttemptTimeout"),
    "no reply": (Fault(status=200, body={"so": "what"}, headers={"content-type": "application/json"}), "BadReply"),
}


def row(name: str, api: str, task: type[Request[Any]], server: LoopbackServer) -> dict[str, Any]:
    at = {"openai": "/v1", "gemini": "/v1beta", "huggingface": f"/endpoint/{HF_TASKS.get(task)}"}[api]
    return {
        "name": name, "api": api, "base_url": server.origin + at, "tasks": [task.task], "features": ALL,
        "model": "" if api == "huggingface" else "wire-name", "api_key": f"env:{KEY_REF}_{name}",
        "quality": 0.9 if name == "one" else 0.5, "price": {"input": 1.0}, "limits": {"reply_s": 10.0},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv(f"{KEY_REF}_{name}", KEY)


async def play(api: str, task: type[Request[Any]], step: Fault, error: str) -> Sequence[str]:
    """The laws that one fault broke: of a model alone, whose caller sees it, and of one beside which there is another."""
    broken = []
    request = with_option(task, "voice") if (api, task) == ("openai", Speak) else PLAIN[task]
    with LoopbackServer(key=KEY) as first, LoopbackServer(key=KEY) as second:
        first.always(step)
        for servers in ([first], [first, second]):
            rows = [row(name, api, task, each) for name, each in zip(("one", "two"), servers, strict=False)]
            if step.delay_s:  # only silence is to be given up: on a busy machine a reply, too, may take so long
                rows[0]["limits"] = {"reply_s": 0.4}
            config = {"plugins": ["remote"], "plugin": {"remote": {"models": rows}}, "retry": {"attempts": 1}}
            async with AsyncGateway.from_config(config) as gw:
                try:
                    reply = await gw.run(request)
                    said, seen = f"{reply.trace}", "" if reply.trace is None else reply.trace.attempts[0].error
                    if reply.model != "two":
                        broken.append(f"{reply.model} answered")
                except GatewayError as failed:
                    said, seen = f"{failed} {failed!r} {getattr(failed, 'attempts', '')}", type(failed).__name__
                    if len(servers) == 2 and error != "ContentFiltered":
                        broken.append(f"nobody answered: {failed}")
                if seen != error:
                    broken.append(f"{seen}, not {error}: {said}")
                if "Brown" in said or KEY in said:
                    broken.append(f"a message holds the request or the key: {said}")
                if any(model.in_flight for model in await gw.models()):
                    broken.append("a slot is not free")
            await first.wait_for(lambda server: server.connections == 0)
    return broken


@pytest.mark.parametrize(("api", "task"), CASES, ids=[f"{api}-{task.task}" for api, task in CASES])
def test_a_fault_is_the_error_that_it_is_and_another_model_answers(api: str, task: type[Request[Any]]) -> None:
    faults = {**ANY, **OWN[api]}
    if task is Speak and api == "openai":  # whose reply is sound, whatever it says
        faults = {name: fault for name, fault in faults.items() if name not in ("no reply", "an error for a reply")}

    async def whole() -> dict[str, Sequence[str]]:
        played = await asyncio.gather(*(play(api, task, *fault) for fault in faults.values()))
        return dict(zip(faults, played, strict=True))

    assert asyncio.run(whole()) == {name: [] for name in faults}
