"""A model behind Gemini's API: conversations over a real connection, its failures, and the contract of every model."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gateway_remote.service import RemoteModel
from gemini_case import KEY, KEY_REF, MODEL, asked, decoded, facts_for, read, sdk
from google.genai import errors
from google.genai import types as wire
from openai_case import LOOK
from remote_case import row, started, streamed, with_model

from gateway import (
    AttemptTimeout,
    BadReply,
    Chat,
    ChatResponse,
    ContentFiltered,
    Denied,
    Embed,
    Message,
    ModelMissing,
    OutOfQuota,
    Overloaded,
    RateLimited,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    Tool,
    Usage,
    assemble,
)
from gateway.testing import Fault, LoopbackServer, Reply, resources
from gateway.testing.contract import ModelServiceContract
from gateway.testing.gemini import BYPASS, signature

HEAR = Tool(name="hear")
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


class TestGemini(ModelServiceContract):
    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer(key=KEY) as server:
            features = ["streaming", "stop", "seed", "tools", "json_schema", "reasoning", "dimensions"]
            facts = {**facts_for(), "tasks": ["chat", "embed"], "features": features, "modalities": ["text"]}
            yield RemoteModel(row(f"{server.origin}/v1beta", **facts))


ASKS: dict[str, tuple[Chat, dict[str, Any]]] = {
    "words": (Chat.ask("Hello there, everybody"), {}),
    "thoughts": (
        Chat.ask("Hello there, everybody", reasoning="low"),
        {"thinking_config": wire.ThinkingConfig(thinking_level="LOW", include_thoughts=True)},
    ),
    "a limit": (Chat.ask("Hello there, everybody", max_tokens=2), {"max_output_tokens": 2}),
    "a shape": (
        Chat.ask("Hi", response_format={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
        {
            "response_mime_type": "application/json",
            "response_json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        },
    ),
    "tools": (
        Chat.ask("look and hear", tools=(LOOK, HEAR)),
        {
            "tools": [
                wire.Tool(
                    function_declarations=[
                        wire.FunctionDeclaration(name=tool.name, parameters_json_schema=tool.parameters)
                        for tool in (LOOK, HEAR)
                    ]
                )
            ],
            "automatic_function_calling": wire.AutomaticFunctionCallingConfig(disable=True),
        },
    ),
}


@pytest.mark.parametrize("case", ASKS)
def test_the_package_reads_of_the_server_what_we_read(server: LoopbackServer, case: str) -> None:
    request, given = ASKS[case]
    prompt, config = request.messages[0].text, wire.GenerateContentConfig(**given)
    whole, (_, ours) = asked(server, request), asked(server, request, stream=True)
    with sdk(server) as client:
        theirs = client.models.generate_content(model=MODEL, contents=prompt, config=config)
        chunks = list(client.models.generate_content_stream(model=MODEL, contents=prompt, config=config))
    assert ours.parts == whole.parts and (ours.finish, ours.usage) == (whole.finish, whole.usage)
    told = [theirs.model_dump(mode="json", by_alias=True, exclude_none=True)]
    dumped = [chunk.model_dump(mode="json", by_alias=True, exclude_none=True) for chunk in chunks]
    for each in [*told, *dumped]:  # the package writes bytes in the URL-safe alphabet, the server in the other
        for part in each["candidates"][0]["content"]["parts"]:
            if "thoughtSignature" in part:
                part["thoughtSignature"] = part["thoughtSignature"].replace("-", "+").replace("_", "/")
    for read_by_us in (read(*told, request=request), read(*dumped, request=request)):
        assert read_by_us.parts == whole.parts and (read_by_us.finish, read_by_us.usage) == (whole.finish, whole.usage)
    assert "".join(chunk.text or "" for chunk in chunks if not chunk.function_calls) == (theirs.text or "") == whole.text
    calls = [call for chunk in chunks for call in chunk.function_calls or ()]
    assert [call.name for call in calls] == [call.name for call in theirs.function_calls or ()]
    assert [(call.name, call.args) for call in calls] == [(call.name, call.parsed()) for call in whole.tool_calls]
    used = theirs.usage_metadata
    assert used is not None and used.prompt_token_count == whole.usage.input_tokens
    assert (used.candidates_token_count or 0) + (used.thoughts_token_count or 0) == whole.usage.output_tokens
    assert theirs.model_version == whole.served_by == MODEL


def test_the_package_reads_the_servers_vectors_and_models(server: LoopbackServer) -> None:
    ours = asked(server, Embed(texts=("one two", "three")))
    with sdk(server) as client:
        contents: Any = [wire.Content(parts=[wire.Part(text=each)]) for each in ("one two", "three")]
        theirs = client.models.embed_content(model=MODEL, contents=contents)
        assert tuple(tuple(each.values or ()) for each in theirs.embeddings or ()) == ours.vectors
        [model] = client.models.list()
    assert (model.name, model.input_token_limit, model.output_token_limit) == ("models/loopback", 1_048_576, 65_536)
    assert theirs.usage_metadata is not None and ours.usage == Usage(input_tokens=theirs.usage_metadata.prompt_token_count or 0)


@pytest.mark.parametrize("stream", [False, True])
def test_the_package_reads_the_servers_errors(stream: bool) -> None:
    with LoopbackServer(key="another") as server, sdk(server) as client:
        with pytest.raises(errors.ClientError) as caught:
            if stream:
                list(client.models.generate_content_stream(model=MODEL, contents="Hi"))
            else:
                client.models.generate_content(model=MODEL, contents="Hi")
        assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
        with pytest.raises(Denied):
            asked(server, Chat.ask("Hi"), stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_with_tools_goes_on_with_every_signature_in_its_place(server: LoopbackServer, stream: bool) -> None:
    # The server refuses calls whose signature is missing, or results that are not in the order of the calls.
    async def test(model: RemoteModel) -> None:
        async def ask(*messages: Message) -> ChatResponse:
            request = Chat(messages=messages, tools=(LOOK, HEAR), reasoning="low")
            reply = (await streamed(model, request))[1] if stream else await model.run(request)
            assert isinstance(reply, ChatResponse)
            return reply

        first = Message.user("look and hear")
        called = await ask(first)
        assert [call.id for call in called.tool_calls] == ["call_0", "call_1"]
        sign = Reasoning("", f"gemini:>{signature('look')}")
        assert sign in called.parts and called.parts.index(sign) + 1 == called.parts.index(called.tool_calls[0])
        results = [Message.tool(call, f"{call.name}: a tree") for call in reversed(called.tool_calls)]
        answered = await ask(first, Message.assistant(*called.parts), *results)
        assert answered.text == "The tool said: look: a tree; hear: a tree"
        assert answered.parts[-1] == Reasoning("", f"gemini:<{signature(answered.text)}")
        again = Message.user("look again")
        later = await ask(first, Message.assistant(*called.parts), *results, Message.assistant(*answered.parts), again)
        assert [call.id for call in later.tool_calls] == ["call_2"]
        contents = server.requests[-1].json["contents"]
        assert contents[3]["parts"] == [{"text": answered.text, "thoughtSignature": signature(answered.text)}]
        forgetful = Message.assistant(*(part for part in called.parts if not isinstance(part, Reasoning)))
        await ask(first, forgetful, *results)
        assert server.requests[-1].json["contents"][1]["parts"][0]["thoughtSignature"] == BYPASS

    with_model_of(server, test)


def with_model_of(server: LoopbackServer, test: Any, **facts: Any) -> None:
    class At:
        url = f"{server.origin}/v1beta"
        wait_for = server.wait_for

    with_model(At, test, **facts_for(**facts))  # type: ignore[arg-type]


def info(reason: str) -> dict[str, Any]:
    return {"@type": ERROR_INFO, "reason": reason, "domain": "googleapis.com"}


FAILURES: list[tuple[int, str, list[dict[str, Any]], type[ServiceError], bool]] = [
    (400, "INVALID_ARGUMENT", [], Rejected, False),
    (400, "INVALID_ARGUMENT", [info("API_KEY_INVALID")], Denied, False),
    (400, "FAILED_PRECONDITION", [], Denied, False),
    (401, "UNAUTHENTICATED", [info("CREDENTIALS_MISSING")], Denied, False),
    (403, "PERMISSION_DENIED", [info("API_KEY_SERVICE_BLOCKED")], Denied, False),
    (403, "PERMISSION_DENIED", [info("BILLING_DISABLED")], OutOfQuota, False),
    (404, "NOT_FOUND", [], ModelMissing, False),
    (
        429,
        "RESOURCE_EXHAUSTED",
        [{"@type": QUOTA, "violations": []}, {"@type": RETRY_INFO, "retryDelay": "7.5s"}],
        RateLimited,
        True,
    ),
    (500, "INTERNAL", [], ServiceError, True),
    (501, "UNIMPLEMENTED", [], ServiceError, False),
    (503, "UNAVAILABLE", [], Overloaded, True),
    (504, "DEADLINE_EXCEEDED", [], AttemptTimeout, False),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("status", "name", "details", "kind", "retryable"), FAILURES)
def test_an_error_is_told_by_its_status_and_codes(
    server: LoopbackServer, status: int, name: str, details: Any, kind: Any, retryable: bool, listed: bool, stream: bool
) -> None:
    body: Any = {"error": {"code": status, "message": "secret", "status": name, "details": details}}
    server.script(Fault(status=status, body=[body] if listed else body))
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hi"), stream=stream)
    error = caught.value
    assert type(error) is kind and error.status == status and error.retryable is retryable and "secret" not in str(error)
    assert error.retry_after_s == (7.5 if status == 429 else None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": 503, "status": "UNAVAILABLE"}}, Overloaded),
        ([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [info("API_KEY_INVALID")]}}], Denied),
        ({"error": {"status": "NOT_FOUND"}}, ModelMissing),
        ({"error": {"status": "DEADLINE_EXCEEDED"}}, AttemptTimeout),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, ContentFiltered),
        ({}, BadReply),
    ],
)
def test_an_error_in_a_replys_place_is_that_error(server: LoopbackServer, body: Any, kind: Any, stream: bool) -> None:
    server.script(Fault(status=200, body=body))
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hi"), stream=stream)
    assert type(caught.value) is kind


def test_a_server_that_knows_no_events_sends_its_chunks_in_a_list(server: LoopbackServer) -> None:
    chunks = [json.loads(each) for each in (CHUNK % ("Hel", ""), CHUNK % ("lo", '"finishReason": "STOP", '))]
    server.script(Fault(status=200, body=chunks))
    deltas, response = asked(server, Chat.ask("Hi"), stream=True)
    url = f"{server.origin}/v1beta/models/m:streamGenerateContent"
    listed = httpx.post(url, json={"contents": [{"parts": [{"text": "Hi"}]}]}).json()  # without alt=sse
    assert len(listed) > 2 and decoded(listed).text == "You said: Hi"
    assert response.text == "Hello" and assemble(deltas) == response.parts == (Text("Hello"),)


CHUNK = '{"candidates": [{"content": {"parts": [{"text": "%s"}]}, %s"index": 0}]}'


@pytest.mark.parametrize("bare", [False, True])
def test_a_stream_that_fails_in_the_middle_says_why(server: LoopbackServer, bare: bool) -> None:
    if bare:  # so Google sends it: in no event
        written = json.dumps({"error": {"code": 503, "message": "secret", "status": "UNAVAILABLE"}}, indent=1)
        chunks = [{"content": "Hel"}, f"{CHUNK % ('lo', '')}\n\n{written}"]
        server.script(Fault(cut_after=2, reply=Reply(chunks=chunks)))
        with pytest.raises(Overloaded) as over:
            asked(server, Chat.ask("Hi"), stream=True)
        assert over.value.partial == "Hello" and over.value.in_stream
        return
    server.script(Fault(error_after=2))
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hi"), stream=True)
    assert type(caught.value) is ServiceError and caught.value.retryable and caught.value.in_stream and caught.value.partial


@pytest.mark.parametrize(
    "fault", [Fault(cut_after=2), Fault(cut_after=0), Fault(malformed_after=1), Fault(empty=True), Fault(truncated=True)]
)
def test_a_stream_without_its_end_is_an_error(server: LoopbackServer, fault: Fault) -> None:
    server.script(fault)
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hello there, everybody"), stream=True)
    assert caught.value.retryable and caught.value.in_stream


def test_calls_that_are_no_json_are_a_bad_reply(server: LoopbackServer) -> None:
    for stream in (False, True):
        server.script(Reply(tool_calls=[("look", "{no json")]))
        with pytest.raises(BadReply, match="MALFORMED_FUNCTION_CALL"):
            asked(server, Chat.ask("Hi", tools=(LOOK,)), stream=stream)


def test_the_models_of_the_endpoint_are_listed_with_their_sizes_on_as_many_pages_as_there_are() -> None:
    names = [f"gemini-{at}" for at in range(1500)]

    async def test(url: str) -> None:
        async with started(url, **facts_for(model="gemini-1400")) as model:
            cards = await model.offered(resources())
            assert [card.name for card in cards] == names
            assert (cards[0].context, cards[0].max_output) == (1_048_576, 65_536)
            assert "among its 1500 models" in await model.check(resources())

    with LoopbackServer(models=names, key=KEY) as server:
        asyncio.run(test(f"{server.origin}/v1beta"))
        assert [request.query for request in server.requests[:2]] == ["pageSize=1000", "pageSize=1000&pageToken=1000"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"contents": []}, "contents"),
        ({"contents": [{"role": "user", "parts": []}]}, "contents[0].parts"),
        ({"contents": [{"role": "user", "parts": [{"text": "Hi", "inlineData": {}}]}]}, "contents[0].parts"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "Hi"}]}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": "Hi"}]}], "temperature": 1}, "temperature"),
        ({"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxTokens": 1}}, "generationConfig.maxTokens"),
        ({"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"logprobs": 1}}, "generationConfig.logprobs"),
        ({"contents": [{"role": "model", "parts": [{"functionCall": {"name": "look"}}]}]}, "contents[0].parts"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "look", "response": {}}}]}]}, "contents[0]"),
    ],
)
def test_the_server_refuses_what_the_api_refuses(server: LoopbackServer, body: dict[str, Any], field: str) -> None:
    answer = httpx.post(f"{server.origin}/v1beta/models/m:generateContent", json=body)
    told = answer.json()
    assert answer.status_code == 400 and told["error"]["status"] == "INVALID_ARGUMENT"
    assert told["error"]["details"][-1]["fieldViolations"][0]["field"] == field
