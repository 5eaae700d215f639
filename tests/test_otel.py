"""Events as OpenTelemetry names them: golden lines, and never any content."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway import AsyncGateway, Chat, Event, Usage
from gateway.otel import JsonLines, attributes, span
from gateway.testing import Echo

CANARY = "canary-4711"
USAGE = Usage(input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=2, cost_usd=0.25)

GOLDEN = [
    (
        Event(
            kind="request", at=1_728_000_000.5, seconds=1.25, request_id=7, task="chat", model="big", provider="openai",
            served_by="gpt-5-mini-2026", place="hosted", stream=True, first_token_s=0.5, usage=USAGE, finish="stop", attempts=2,
            tenant="acme", conversation="c1", max_tokens=100, temperature=0.0, top_p=0.9,
        ),
        '{"name":"chat big","kind":"INTERNAL","event":"request","end_time":"2024-10-04T00:00:00.500000+00:00",'
        '"gen_ai.client.operation.duration":1.25,"attributes":{"gen_ai.operation.name":"chat","gen_ai.provider.name":"openai",'
        '"gen_ai.request.model":"big","gen_ai.response.model":"gpt-5-mini-2026","gen_ai.response.finish_reasons":["stop"],'
        '"gen_ai.conversation.id":"c1","gen_ai.request.max_tokens":100,"gen_ai.request.temperature":0.0,'
        '"gen_ai.request.top_p":0.9,"gen_ai.usage.input_tokens":10,"gen_ai.usage.output_tokens":5,'
        '"gen_ai.usage.cache_read.input_tokens":4,"gen_ai.usage.reasoning.output_tokens":2,"gateway.first_token_s":0.5,'
        '"gateway.cost_usd":0.25,"gateway.place":"hosted","gateway.stream":true,"gateway.attempts":2,"gateway.tenant":"acme",'
        '"gateway.request_id":7}}',
    ),
    (
        Event(kind="attempt", at=0.0, seconds=0.1, task="generate", model="big", place="hosted", usage=Usage(), request_id=1),
        '{"name":"text_completion big","kind":"CLIENT","event":"attempt","end_time":"1970-01-01T00:00:00+00:00",'
        '"gen_ai.client.operation.duration":0.1,"attributes":{"gen_ai.operation.name":"text_completion",'
        '"gen_ai.request.model":"big","gen_ai.usage.input_tokens":0,"gen_ai.usage.output_tokens":0,"gateway.cost_usd":0.0,'
        '"gateway.place":"hosted","gateway.request_id":1}}',
    ),
    (
        Event(kind="attempt", at=0.0, seconds=0.1, task="embed", model="tiny", place="process"),
        '{"name":"embeddings tiny","kind":"INTERNAL","event":"attempt","end_time":"1970-01-01T00:00:00+00:00",'
        '"gen_ai.client.operation.duration":0.1,"attributes":{"gen_ai.operation.name":"embeddings",'
        '"gen_ai.request.model":"tiny","gateway.place":"process"}}',
    ),
    (
        Event(kind="attempt", at=0.0, seconds=0.1, task="rhyme", model="big", place="private", error="RateLimited"),
        '{"name":"rhyme big","kind":"CLIENT","event":"attempt","end_time":"1970-01-01T00:00:00+00:00",'
        '"gen_ai.client.operation.duration":0.1,"attributes":{"gen_ai.operation.name":"rhyme","gen_ai.request.model":"big",'
        '"error.type":"RateLimited","gateway.place":"private"}}',
    ),
    (
        Event(kind="start", at=0.0, seconds=2.0, model="tiny", place="process"),
        '{"name":"start tiny","kind":"INTERNAL","event":"start","end_time":"1970-01-01T00:00:00+00:00",'
        '"gen_ai.client.operation.duration":2.0,"attributes":{"gen_ai.request.model":"tiny","gateway.place":"process"}}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "line"), GOLDEN, ids=["chat", "generate", "embed", "error", "start"])
def test_an_event_is_one_line_of_json_as_the_convention_names_it(event: Event, line: str, tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "events.jsonl")
    writer.on_event(event)
    assert (tmp_path / "events.jsonl").read_text(encoding="utf-8") == line + "\n"
    writer.close()


def test_lines_are_appended_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert not path.exists()
    for _ in range(2):
        writer = JsonLines(path)
        for event, _ in GOLDEN:
            writer.on_event(event)
        assert len(path.read_text().splitlines()) % len(GOLDEN) == 0
        writer.close()
        writer.close()
    assert len(path.read_text().splitlines()) == 2 * len(GOLDEN)


def test_what_is_unknown_is_left_out_but_zero_is_known() -> None:
    assert attributes(Event(kind="request", at=0, seconds=0)) == {}
    assert attributes(Event(kind="request", at=0, seconds=0, temperature=0.0))["gen_ai.request.temperature"] == 0.0


def test_every_name_is_the_conventions_or_ours() -> None:
    for event, _ in GOLDEN:
        assert all(name.startswith(("gen_ai.", "gateway.", "error.type")) for name in attributes(event))
        assert not any("messages" in name or "instructions" in name for name in attributes(event))
        assert json.loads(json.dumps(span(event), allow_nan=False)) == span(event)


def test_no_content_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def ask() -> None:
        writer = JsonLines(path)
        async with AsyncGateway([Echo()], observers=[writer]) as gw:
            assert CANARY in (await gw.run(Chat.ask(CANARY, stop=["zz"]))).text
            async with gw.stream(Chat.ask(CANARY)) as stream:
                async for _ in stream:
                    pass
        writer.close()

    asyncio.run(ask())
    lines = path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines].count("request") == 2
    assert CANARY not in path.read_text()
