"""The fakes of gateway.testing: they answer the same each time, fail where a script says, and keep what they saw."""

import asyncio
import subprocess
import sys

import pytest

from gateway import (
    Chat,
    ChatResponse,
    ContextTooLong,
    Delta,
    Embed,
    Event,
    Generate,
    Image,
    ModelMissing,
    Observer,
    Price,
    RateLimited,
    Tool,
    Unreachable,
    UnsupportedOption,
    UnsupportedTask,
)
from gateway.clock import Clock
from gateway.errors import WeightsError
from gateway.keys import Keys
from gateway.testing import Echo, FakeClock, MemoryStore, Recorder, Scripted, Step, resources


async def items_of(service, request):
    return [item async for item in service.stream(request)]


def test_echo_answers_with_the_text_it_was_asked():
    reply = asyncio.run(Echo().run(Chat.ask("Name three rivers.", system="Be brief.")))
    assert reply.text == "Name three rivers."
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (5, 3)


def test_echo_streams_word_by_word():
    *deltas, last = asyncio.run(items_of(Echo(), Chat.ask("Name three rivers.")))
    assert [delta.text for delta in deltas] == ["Name", " three", " rivers."]
    assert last.text == "Name three rivers."


def test_echo_takes_the_facts_of_its_card():
    card = Echo("big", place="hosted", price=Price(input=1, output=2), params=8_000_000_000).card
    assert (card.name, card.place, card.price, card.params) == ("big", "hosted", Price(input=1, output=2), 8_000_000_000)


def test_echo_stops_at_max_tokens_and_at_a_stop_string():
    async def main():
        cut = await Echo().run(Chat.ask("one two three", max_tokens=2))
        assert (cut.text, cut.finish) == ("one two", "length")
        stopped = await Echo().run(Generate(prompt="one two three", stop=(" three",)))
        assert (stopped.text, stopped.finish) == ("one two", "stop")

    asyncio.run(main())


def test_echo_calls_the_tool_that_it_must_call():
    tools = (Tool(name="first"), Tool(name="second", parameters={"type": "object", "properties": {"n": {"type": "integer"}}}))

    async def main():
        reply = await Echo().run(Chat.ask("Go.", tools=tools, tool_choice="second"))
        assert [(call.name, list(call.parsed())) for call in reply.tool_calls] == [("second", ["n"])]
        assert reply.finish == "tool_calls"
        assert (await Echo().run(Chat.ask("Go.", tools=tools))).text == "Go."

    asyncio.run(main())


def test_echo_embeds_such_that_shared_words_are_near():
    async def main():
        same, near, far = (await Echo().run(Embed(texts=("a red cat", "a red dog", "stock market news")))).vectors
        assert sum(a * b for a, b in zip(same, near, strict=True)) > sum(a * b for a, b in zip(same, far, strict=True))
        assert len((await Echo().run(Embed(texts=("x",), dimensions=3))).vectors[0]) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("facts", "request_", "error"),
    [
        ({}, Chat.ask("See.", Image(data=b"png")), UnsupportedOption),
        ({"features": ()}, Chat.ask("Go.", tools=(Tool(name="t"),)), UnsupportedOption),
        ({"features": ()}, Embed(texts=("x",), dimensions=3), UnsupportedOption),
        ({"tasks": {Chat}}, Embed(texts=("x",)), UnsupportedTask),
        ({"context": 2}, Chat.ask("one two three"), ContextTooLong),
    ],
)
def test_echo_refuses_what_its_card_does_not_claim(facts, request_, error):
    with pytest.raises(error):
        asyncio.run(Echo(**facts).run(request_))


def test_a_script_is_done_one_step_a_call():
    async def main():
        model = Scripted("flaky", RateLimited("busy"), "Hello.", ChatResponse.of("Bye."), otherwise="Again.")
        with pytest.raises(RateLimited):
            await model.run(Chat.ask("1"))
        texts = [(await model.run(Chat.ask(text))).text for text in ("2", "3", "4", "5")]
        assert texts == ["Hello.", "Bye.", "Again.", "Again."]
        assert [request.messages[0].text for request in model.asked] == ["1", "2", "3", "4", "5"]

    asyncio.run(main())


def test_a_script_that_has_ended_says_so():
    with pytest.raises(AssertionError, match="the script of 'short' ended before call 1"):
        asyncio.run(Scripted("short").run(Chat.ask("x")))


def test_a_script_can_fail_in_mid_stream():
    async def main():
        model = Scripted("cut", Step(answer="one two three", error=Unreachable("gone"), after_deltas=2))
        seen = []
        with pytest.raises(Unreachable):
            async for item in model.stream(Chat.ask("x")):
                seen.append(item)
        assert seen == [Delta("one"), Delta(" two")]

    asyncio.run(main())


def test_a_script_can_fail_before_the_first_request():
    async def main():
        with pytest.raises(ModelMissing):
            await Scripted("a", fail_describe=ModelMissing("no such model")).describe(resources())
        model = Scripted("b", fail_start=ModelMissing("no such model"))
        with pytest.raises(ModelMissing):
            await model.start(resources())
        await model.aclose()
        assert (model.started, model.closed) == (1, 1)

    asyncio.run(main())


def test_a_test_decides_when_a_script_goes_on():
    async def main():
        began, wait = asyncio.Event(), asyncio.Event()
        call = asyncio.ensure_future(Scripted("slow", Step(answer="Done.", began=began, wait=wait)).run(Chat.ask("x")))
        await began.wait()
        assert not call.done()
        wait.set()
        assert (await call).text == "Done."

    asyncio.run(main())


def test_a_fake_clock_stands_still_until_advanced():
    clock: Clock = FakeClock()
    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (before[0] + 2.5, before[1] + 2.5)
    with pytest.raises(ValueError, match="at least 0"):
        clock.advance(-1)


def test_weights_in_memory_serve_through_resources():
    lent = resources()
    with lent.create("memory:tiny") as writer:
        writer.add_file("config.json", b'{"a": 1}')
        writer.add_tensors("model.safetensors", {"w": ("U8", (2,), b"\x01\x02")})
    weights = lent.weights("memory:tiny")
    assert (weights.params, weights.json("config.json"), bytes(weights.read("w"))) == (2, {"a": 1}, b"\x01\x02")
    with pytest.raises(WeightsError):
        MemoryStore().open("memory:tiny", Keys({}))


def test_a_recorder_keeps_events():
    recorder = Recorder()
    assert isinstance(recorder, Observer)
    event = Event(kind="request", at=1.0, seconds=0.5)
    recorder.on_event(event)
    assert recorder.events == [event]


def test_resources_can_be_replaced_one_by_one():
    clock = FakeClock()
    assert resources(clock=clock).clock is clock
    assert resources().random.random() == resources().random.random()


def test_the_fakes_import_no_pytest():
    code = "import gateway.testing, sys; assert 'pytest' not in sys.modules and '_pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
