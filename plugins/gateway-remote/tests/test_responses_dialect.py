"""The Responses API as the loopback server speaks it: held to the `openai` package, and the contract of a model behind it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_type_hints

import openai
import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.responses_reply import chat_response
from gateway_remote.formats.responses_stream import ResponseStream
from gateway_remote.service import RemoteModel
from openai.types import responses as wire
from openai.types.responses import response_create_params
from openai_case import ALL, KEY, KEY_REF, MODEL, OPTIONS, asked, sdk, with_option
from remote_case import row, with_model
from responses_case import EVENT

from gateway import (
    BadReply,
    Chat,
    ChatResponse,
    Embed,
    Logprob,
    Message,
    ModelCard,
    ModelMissing,
    RateLimited,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    Tool,
    ToolCall,
    UnsupportedOption,
    UnsupportedTask,
)
from gateway.testing import Fault, LoopbackServer, Reply, resources
from gateway.testing.contract import ModelServiceContract
from gateway.testing.responses import FIELDS

FACTS = {
    "api": "openai-responses",
    "tasks": ["chat"],
    "features": ["streaming", "tools", "json_schema", "reasoning", "logprobs"],
}
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
HEAR = Tool(name="hear")
SHAPE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


class TestResponses(ModelServiceContract):
    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer() as server:
            yield RemoteModel(row(server.url, **FACTS, modalities=["text"]))


def test_the_server_takes_the_fields_that_the_package_knows() -> None:
    assert get_type_hints(response_create_params.ResponseCreateParamsStreaming).keys() == FIELDS


def test_a_row_that_says_nothing_of_features_has_what_the_api_can_do() -> None:
    card = RemoteModel({"name": "m", "base_url": "http://h", "api": "openai-responses"}).card
    assert isinstance(card, ModelCard)
    assert card.features == {"streaming", "tools", "json_schema", "reasoning", "logprobs"} and card.tasks == {Chat}


REPLIES: dict[str, tuple[Chat, Reply | None]] = {
    "an echo": (Chat.ask("Hello there, everybody"), None),
    "reasoning": (Chat.ask("Hello", reasoning="low"), None),
    "calls side by side": (Chat.ask("weather and hear", tools=(WEATHER, HEAR)), None),
    "a shape": (Chat.ask("Where?", response_format=SHAPE), None),
    "a limit": (Chat.ask("one two three four five", max_tokens=3), None),
    "a limit amid a thought": (Chat.ask("Hello", reasoning="low", max_tokens=2), None),
    "logprobs": (Chat.ask("Hello there", logprobs=1), None),
    "all at once": (
        Chat.ask("Hello"),
        Reply(text="Grüße 🏔️", reasoning="Hm hm.", tool_calls=[("weather", {"city": "Zürich"}), ("hear", "{broken")]),
    ),
    "a filter": (Chat.ask("Hello"), Reply(text="Hel", finish_reason="content_filter")),
    "text in pieces of one's own": (Chat.ask("Hello"), Reply(chunks=[{"content": "Hel"}, {"content": "lo"}])),
    "usage in Chat Completions' form": (Chat.ask("Hello"), Reply(text="Hi", usage={
        "prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}})),
}  # fmt: skip


@pytest.mark.parametrize("case", REPLIES)
def test_the_package_and_we_read_the_same_from_the_server(server: LoopbackServer, case: str) -> None:
    request, step = REPLIES[case]
    if step is not None:
        server.always(step)
    ours = asked(server, request, **FACTS)
    sent = server.requests[-1].json
    deltas, streamed = asked(server, request, stream=True, **FACTS)
    assert same(ours) == same(streamed)

    with sdk(server) as client:
        whole = client.responses.create(**sent)
        raw = list(client.responses.create(**sent, stream=True))
        with client.responses.stream(**sent) as stream:
            last = list(stream)[-1]
            # The package's sum ends in response.completed alone; the other ending holds the response.
            summed = last.response if last.type == "response.incomplete" else stream.get_final_response()
    for response in (whole, summed):
        wire.Response.model_validate(
            json.loads(response.model_dump_json(by_alias=True, exclude_unset=True, exclude={"parsed"}))
        )
        assert same(
            chat_response(response.model_dump_json(by_alias=True, exclude_unset=True).encode(), request, Heard("m"))
        ) == same(ours)
        assert response.output_text == ours.text
    payloads = [each.model_dump_json(by_alias=True, exclude_unset=True).encode() for each in raw]
    for payload in payloads:
        EVENT.validate_python(json.loads(payload))
    reader = ResponseStream(request, Heard("m"))
    read = [delta for payload in payloads for delta in reader.feed(payload)]
    assert [delta.data for delta in read] == [delta.data for delta in deltas] and same(reader.response()) == same(ours)


def same(response: Any) -> Any:
    """A response without what is another's with each request: its ids, and those of its thoughts."""
    parts = tuple(
        Reasoning(each.text, json.loads(each.signature.removeprefix("responses:") or "{}").get("encrypted_content", ""))
        if isinstance(each, Reasoning) else each for each in response.parts
    )  # fmt: skip
    return replace(response, id="", parts=parts, served_by="")


def test_what_the_server_says_is_what_was_asked_for(server: LoopbackServer) -> None:
    got = asked(server, Chat.ask("Hello", reasoning="low", logprobs=1), **FACTS)
    thought, answer = got.parts
    assert isinstance(thought, Reasoning) and thought.signature.startswith("responses:") and got.served_by == MODEL
    assert thought.text == "Thinking it over, effort low."
    assert answer == Text("You said: Hello") and got.usage.reasoning_tokens and not got.usage.estimated
    assert (
        got.logprobs[0] == Logprob("You", -0.5, (("You", -0.5),)) and "".join(each.token for each in got.logprobs) == got.text
    )
    cut = asked(server, Chat.ask("one two three four five", max_tokens=3), **FACTS)
    assert cut.finish == "length" and cut.usage.output_tokens == 3


def test_a_thought_is_summed_up_where_that_is_asked_for_and_encrypted_where_that_is(server: LoopbackServer) -> None:
    with sdk(server) as client:
        [thought, _] = client.responses.create(model=MODEL, input="Hi", reasoning={"effort": "low"}).output
        assert thought.type == "reasoning" and thought.summary == [] and thought.encrypted_content is None
        server.script(Reply(text="Yes.", reasoning="Hm."))
        [thought, _] = client.responses.create(model=MODEL, input="Hi", include=["reasoning.encrypted_content"]).output
        assert thought.type == "reasoning" and thought.summary[0].text == "Hm." and thought.encrypted_content


def test_the_server_s_answer_is_made_of_what_was_said_to_it() -> None:
    with LoopbackServer(answer=lambda body: json.dumps(body["messages"])) as server, sdk(server) as client:
        said = client.responses.create(
            model=MODEL,
            instructions="Be brief.",
            input=[
                {"role": "developer", "content": "Now."},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Hi"},
            ],
        )
    assert [(each["role"], each["content"]) for each in json.loads(said.output_text)] == [
        ("system", "Be brief."), ("system", "Now."), ("assistant", "Yes?"), ("user", "Hi"),
    ]  # fmt: skip


def test_a_conversation_with_thoughts_and_calls_goes_back_and_forth(server: LoopbackServer) -> None:
    first = Chat.ask("weather, please", tools=(WEATHER,), reasoning="low", system="Be brief.")
    got = asked(server, first, **FACTS)
    thought, call = got.parts
    assert isinstance(thought, Reasoning) and isinstance(call, ToolCall) and got.finish == "tool_calls"
    turns = (*first.messages, Message.assistant(*got.parts), Message.tool(call, "sunny"))
    again = asked(server, replace(first, messages=turns), **FACTS)
    assert again.text == "The tool said: sunny"
    sent = server.requests[-1].json["input"]
    item = json.loads(thought.signature.removeprefix("responses:"))
    assert item["encrypted_content"] and sent[2] == item and sent[2]["type"] == "reasoning"

    forged = Message.assistant(Reasoning("", thought.signature.replace(item["encrypted_content"], "%%")), call)
    with pytest.raises(Rejected):
        asked(server, replace(first, messages=(*first.messages, forged, Message.tool(call, "sunny"))), **FACTS)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"stop": ["x"]}, "unknown_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "invalid_value"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "a"}]}]}, "invalid_value"),
        ({"input": [{"role": "robot", "content": "a"}]}, "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "invalid_value"),
        ({"input": [{"type": "reasoning", "id": "a", "summary": [], "status": "completed"}]}, "unknown_parameter"),
        ({"input": [{"type": "reasoning", "id": "a", "summary": [], "encrypted_content": "?"}]}, "invalid_encrypted_content"),
        ({"input": [{"type": "reasoning", "id": "a", "summary": []}]}, None),
        ({"input": "Hi", "tools": [{"type": "web_search"}]}, "invalid_value"),
        ({"input": [3]}, "invalid_value"),
    ],
)
def test_the_server_refuses_what_the_api_does(server: LoopbackServer, params: dict[str, Any], code: str | None) -> None:
    with sdk(server) as client, pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model=MODEL, input="Hi", extra_body=params)
    assert caught.value.code == code and caught.value.status_code == (404 if code is None else 400)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_is_dropped_in_silence(server: LoopbackServer, option: str, stream: bool) -> None:
    facts = {"api": "openai-responses", "tasks": ["chat"], "features": ALL}
    try:
        asked(server, with_option(option), stream=stream, **facts)
    except UnsupportedOption as error:
        assert error.option == option and not server.requests
        got = asked(server, with_option(option, drop=True), stream=stream, **facts)
        response = got[1] if stream else got
        assert response.dropped == (option,)
    else:
        plain = server.requests[-1].json
        asked(server, Chat.ask("Hi"), stream=stream, **facts)
        assert plain != server.requests[-1].json


FAULTS: list[tuple[Fault, type[ServiceError], bool]] = [
    (Fault(status=429, retry_after=3), RateLimited, True),
    (Fault(status=500), ServiceError, True),
    (Fault(status=400), Rejected, False),
    (Fault(status=404), ModelMissing, False),
    (Fault(error_after=6), ServiceError, True),
    (Fault(cut_after=6), BadReply, True),
    (Fault(malformed_after=6), BadReply, True),
    (Fault(empty=True), BadReply, True),
]


@pytest.mark.parametrize(("fault", "kind", "retryable"), FAULTS)
def test_each_way_of_failing_is_the_error_that_it_is_in_chat_completions(
    server: LoopbackServer, fault: Fault, kind: type[ServiceError], retryable: bool
) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(fault)
        with pytest.raises(ServiceError) as caught:
            _ = [item async for item in model.stream(Chat.ask("Hello"))]
        assert type(caught.value) is kind and caught.value.retryable is retryable
        assert caught.value.in_stream is (fault.status is None)
        assert caught.value.partial == ("You said" if fault.status is None and not fault.empty else "")

    with_model(server, test, **FACTS)


def test_a_stream_cut_anywhere_in_the_bytes_is_the_same_reply(server: LoopbackServer) -> None:
    whole = asked(server, Chat.ask("Grüße 🏔️", reasoning="low"), **FACTS)
    for size in (1, 7, 64):
        server.script(Fault(split_bytes=size, keepalives=1))
        assert same(asked(server, Chat.ask("Grüße 🏔️", reasoning="low"), stream=True, **FACTS)[1]) == same(whole)


def test_raw_events_and_lines_are_sent_as_they_are(server: LoopbackServer) -> None:
    cited = {"type": "url_citation", "start_index": 0, "end_index": 2, "url": "https://x.example", "title": "X"}
    added = {"type": "response.output_text.annotation.added", "annotation_index": 0, "annotation": cited}
    server.script(Reply(text="Hi", chunks=[{"content": "Hi"}, added]))
    _, got = asked(server, Chat.ask("Hello"), stream=True, **FACTS)
    assert [part.type for part in got.parts] == ["text", "citation"] and got.citations[0].end == 2
    server.script(Reply(text="Hi", chunks=[{"content": "Hi"}, "{broken"]))
    with pytest.raises(BadReply):
        asked(server, Chat.ask("Hello"), stream=True, **FACTS)


def test_the_models_are_listed_and_a_task_of_another_kind_is_unsupported(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        assert [card.name for card in await model.offered(resources())] == ["loopback"]
        with pytest.raises(UnsupportedTask):
            await model.run(Embed(texts=("a",)))

    with_model(server, test, **FACTS)
    assert server.requests[-1].path == "/v1/models"


def test_many_replies_at_once_do_not_mix(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        texts = [f"number {at}" for at in range(8)]
        got = await asyncio.gather(*(model.run(Chat.ask(each)) for each in texts))
        assert [isinstance(each, ChatResponse) and each.text for each in got] == [f"You said: {each}" for each in texts]

    with_model(server, test, **FACTS)
