"""Tools and thoughts of a loaded model: a call that is forced is whole and fits, thoughts are told apart, in a stream too."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway import Chat, Delta, Message, Options, Resources, Text, Tool, ToolCall, ToolResult, UnsupportedOption

HERMES = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool.function.name }} {% endfor %}</tools>\n"
    '<tool_call>{"name": <name>, "arguments": <object>}</tool_call>\n{% endif %}'
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.role == 'tool' %} (result){% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:"
    "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)
WEATHER = Tool(
    name="weather",
    description="Tells it.",
    parameters={
        "type": "object",
        "properties": {"city": {"enum": ["Bern", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
    },
)
CLOCK = Tool(
    name="clock", description="", parameters={"type": "object", "properties": {"zone": {"const": "utc"}}, "required": ["zone"]}
)


@pytest.fixture(scope="module")
def caller(family: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a chat template that knows tools, and thoughts."""
    path = shutil.copytree(family("Llama"), tmp_path_factory.mktemp("tools") / "model")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": HERMES + "{# <think></think> #}"}))
    return path


def test_the_card_says_what_the_template_can(caller: Path, llama: Path, service: Any, lent: Resources) -> None:
    async def features(path: Path) -> frozenset[str]:
        card = await service(path).describe(lent)
        return frozenset(card.features & {"tools", "reasoning"})

    assert asyncio.run(features(caller)) == {"tools", "reasoning"}
    assert asyncio.run(features(llama)) == frozenset()


@pytest.mark.parametrize("choice", ["weather", "required"])
def test_a_call_that_must_be_made_is_made_and_fits(caller: Path, started: Any, choice: str) -> None:
    async def ask() -> None:
        async with started(caller) as model:
            for seed in range(4):
                request = Chat.ask(
                    "the cat", tools=(WEATHER, CLOCK), tool_choice=choice, temperature=1.5, seed=seed, max_tokens=150
                )
                reply = await model.run(request)
                (call,) = reply.tool_calls
                assert reply.finish == "tool_calls" and reply.text == ""
                arguments = call.parsed()
                if choice == "weather" or call.name == "weather":
                    assert call.name == "weather" and arguments["city"] in ("Bern", "Oslo") and 1 <= arguments["days"] <= 9
                else:
                    assert (call.name, arguments) == ("clock", {"zone": "utc"})
                deltas = [item async for item in model.stream(request) if isinstance(item, Delta)]
                assert deltas[0].kind == "tool_call" and deltas[0].name == call.name
                assert "".join(delta.data for delta in deltas) == call.arguments

    asyncio.run(ask())


def test_a_round_of_a_tool_call_is_written_as_the_template_has_it(caller: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(caller) as model:
            messages = (
                Message(role="user", parts=(Text("how warm?"),)),
                Message(role="assistant", parts=(ToolCall(id="a1", name="weather", arguments='{"city": "Bern", "days": 1}'),)),
                Message(role="user", parts=(ToolResult(id="a1", text="20 degrees"),)),
            )
            answers: Any = model._copies.there[0].answers
            request = Chat(messages=messages, tools=(WEATHER,), max_tokens=1)
            row = answers.work(request, Options(request, "tiny"))[1]
            text = answers._loaded.tokenizer.decode(row.begin().prompt)
            assert "<tools>weather" in text and "tool: 20 degrees (result)" in text
            assert '<tool_call>{"name": "weather", "arguments": {"city": "Bern", "days": 1}}</tool_call>' in text

    asyncio.run(ask())


def test_thoughts_are_parts_of_their_own_and_counted(caller: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(caller) as model:
            request = Chat.ask("the cat", reasoning="high", temperature=0.0, max_tokens=12)
            reply = await model.run(request)
            assert reply.text == "" and reply.reasoning and reply.usage.reasoning_tokens == reply.usage.output_tokens
            deltas = [item async for item in model.stream(request) if isinstance(item, Delta)]
            assert {delta.kind for delta in deltas} == {"reasoning"}
            assert "".join(delta.data for delta in deltas) == reply.reasoning
            plain = await model.run(Chat.ask("the cat", reasoning="none", temperature=0.0, max_tokens=12))
            assert plain.text and not plain.reasoning and plain.usage.reasoning_tokens == 0

    asyncio.run(ask())


def test_what_the_template_does_not_know_is_refused_by_name(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            for option, request in (
                ("tools", Chat.ask("the cat", tools=(WEATHER,))),
                ("reasoning", Chat.ask("the cat", reasoning="low")),
            ):
                with pytest.raises(UnsupportedOption) as caught:
                    await model.run(request)
                assert caught.value.option == option

    asyncio.run(ask())
