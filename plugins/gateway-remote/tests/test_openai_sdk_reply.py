"""Whole replies of Chat Completions and embeddings, made of the `openai` package's own models, as responses."""

import base64
import contextlib
import json
import struct
from typing import Any, get_args

import openai
import pytest
from gateway_remote.formats.api import Heard
from gateway_remote.formats.openai_reply import FINISHES, chat_response, embed_response
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import Choice
from openai_case import KEY, KEY_REF, MODEL, asked, sdk
from remote_case import HELLO

from gateway import (
    Chat,
    ChatResponse,
    Citation,
    Denied,
    Embed,
    EmbedResponse,
    Logprob,
    Message,
    ModelMissing,
    RateLimited,
    Reasoning,
    Rejected,
    ServiceError,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from gateway.testing import Fault, LoopbackServer, Reply

ASKED = Chat.ask("12345678", logprobs=1)
LOGPROBS = [
    {"token": "Hel", "bytes": [72], "logprob": -0.1, "top_logprobs": [{"token": "Hal", "bytes": None, "logprob": -2.0}]},
    {"token": "lo.", "bytes": None, "logprob": -0.2, "top_logprobs": []},
]
USAGE = {
    "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 15, "accepted_prediction_tokens": 0},
}  # fmt: skip
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def completion(message: dict[str, Any], finish: str = "stop", **facts: Any) -> bytes:
    """A reply, checked by the package's model."""
    logprobs = facts.pop("logprobs", None)
    choice = {
        "index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish, "logprobs": logprobs,
    }  # fmt: skip
    whole = {
        "id": "c1", "object": "chat.completion", "created": 1, "model": "real-name", "choices": [choice], "usage": USAGE,
        **facts,
    }  # fmt: skip
    ChatCompletion.model_validate(whole)
    return json.dumps(whole).encode()


def called(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


CITED = {"type": "url_citation", "url_citation": {"url": "https://x.example", "title": "X", "start_index": 0, "end_index": 5}}
CASES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "text": (completion({"content": "Hello."}), {"parts": (Text("Hello."),)}),
    "a refusal": (completion({"refusal": "I will not."}), {"parts": (Text("I will not."),), "finish": "filter"}),
    "a refusal in mid-answer": (
        completion({"content": "Well. ", "refusal": "No."}),
        {"parts": (Text("Well. No."),), "finish": "filter"},
    ),
    "calls side by side": (
        completion({"content": "See.", "tool_calls": [called("a", "look", '{"x":1}'), called("b", "hear", "")]}, "tool_calls"),
        {"parts": (Text("See."), ToolCall("a", "look", '{"x":1}'), ToolCall("b", "hear", "")), "finish": "tool_calls"},
    ),
    "annotations": (
        completion({"content": "Hello.", "annotations": [CITED]}),
        {"parts": (Text("Hello."), Citation("https://x.example", "X", "", 0, 5))},
    ),
    "logprobs": (
        completion({"content": "Hello."}, logprobs={"content": LOGPROBS, "refusal": None}),
        {"parts": (Text("Hello."),), "logprobs": (Logprob("Hel", -0.1, (("Hal", -2.0),)), Logprob("lo.", -0.2))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_the_package_s_models_say_is_read(case: str) -> None:
    body, facts = CASES[case]
    used = Usage(input_tokens=10, cached_tokens=4, cache_write_tokens=3, output_tokens=20, reasoning_tokens=15)
    expected = ChatResponse(**{"finish": "stop", "usage": used, "id": "c1", "served_by": "real-name", **facts})
    assert chat_response(body, ASKED, Heard("m")) == expected


def test_every_finish_that_the_package_knows_is_known() -> None:
    known = get_args(Choice.model_fields["finish_reason"].annotation)
    assert "content_filter" in known and set(known) <= FINISHES.keys()


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_of_the_package_s_model_are_read_in_both_forms(form: str) -> None:
    def vector(*values: float) -> Any:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if form == "base64" else list(values)

    rows = [{"object": "embedding", "index": at, "embedding": vector(at + 0.5, -1.0)} for at in (1, 0)]
    whole = {"object": "list", "model": "m", "data": rows, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    if form == "float":  # the package's model is what its client has decoded
        CreateEmbeddingResponse.model_validate(whole)
    got = embed_response(json.dumps(whole).encode(), Embed(texts=("a", "b")), Heard("m"))
    assert got == EmbedResponse(vectors=((0.5, -1.0), (1.5, -1.0)), usage=Usage(input_tokens=3))


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_package_reads_the_vectors_of_the_loopback_server_as_we_do(server: LoopbackServer, form: Any) -> None:
    request = Embed(texts=("a cat", "a dog"), dimensions=8)
    ours = asked(server, request, embedding_format=form)
    with sdk(server) as client:
        theirs = client.embeddings.create(model=MODEL, input=list(request.texts), dimensions=8, encoding_format=form)
        usual = client.embeddings.create(model=MODEL, input=list(request.texts), dimensions=8)  # base64, which it decodes
    for vectors in (usual.data, theirs.data if form == "float" else usual.data):
        for got, vector in zip(vectors, ours.vectors, strict=True):
            assert got.embedding == pytest.approx(vector, rel=1e-6)
    assert (theirs.usage.prompt_tokens, False) == (ours.usage.input_tokens, ours.usage.estimated)


REPLIES: dict[str, tuple[Chat, Reply | None]] = {
    "an echo": (HELLO, None),
    "calls side by side": (Chat.ask("weather and hear", tools=(WEATHER, Tool(name="hear"))), None),
    "a shape": (Chat.ask("Where?", response_format={"type": "object", "properties": {"city": {"type": "string"}}}), None),
    "a limit": (Chat.ask("one two three four five", max_tokens=3), None),
    "a tool's result": (Chat(messages=(Message.assistant(ToolCall("c", "look")), Message.tool("c", "a tree"))), None),
    "all at once": (HELLO, Reply(text="Grüße 🏔️", tool_calls=[("weather", {"city": "Zürich"}), ("hear", "{broken")])),
    "a filter": (HELLO, Reply(text="Hel", finish_reason="content_filter")),
}


@pytest.mark.parametrize("case", REPLIES)
def test_the_package_and_we_read_the_same_from_the_loopback_server(server: LoopbackServer, case: str) -> None:
    request, step = REPLIES[case]
    if step is not None:
        server.always(step)
    ours = asked(server, request)
    sent = server.requests[-1].json
    with sdk(server) as client:
        theirs = client.chat.completions.create(**sent)
    ChatCompletion.model_validate(theirs.to_dict())
    [choice] = theirs.choices
    assert (choice.message.content or "") == ours.text and theirs.model == ours.served_by
    calls = choice.message.tool_calls or ()
    assert [
        ToolCall(each.id, each.function.name, each.function.arguments) for each in calls if each.type == "function"
    ] == list(ours.tool_calls)
    assert FINISHES[choice.finish_reason] == ours.finish
    assert theirs.usage is not None
    assert (theirs.usage.prompt_tokens, theirs.usage.completion_tokens) == (ours.usage.input_tokens, ours.usage.output_tokens)


CLASSES: dict[int, tuple[type[openai.APIStatusError], type[ServiceError]]] = {
    400: (openai.BadRequestError, Rejected),
    401: (openai.AuthenticationError, Denied),
    403: (openai.PermissionDeniedError, Denied),
    404: (openai.NotFoundError, ModelMissing),
    409: (openai.ConflictError, ServiceError),
    422: (openai.UnprocessableEntityError, Rejected),
    429: (openai.RateLimitError, RateLimited),
    500: (openai.InternalServerError, ServiceError),
}


@pytest.mark.parametrize("status", CLASSES)
@pytest.mark.parametrize("stream", [False, True])
def test_each_status_is_the_error_that_the_package_has_for_it(server: LoopbackServer, status: int, stream: bool) -> None:
    theirs, ours = CLASSES[status]
    server.always(Fault(status=status))
    with sdk(server) as client, pytest.raises(theirs) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=stream)
    with pytest.raises(ServiceError) as own:
        asked(server, HELLO, stream=stream)
    assert type(own.value) is ours and own.value.status == status
    assert own.value.retryable is client._should_retry(caught.value.response)


WORDS = [
    "choices", "message", "content", "tool_calls", "function", "arguments", "name", "usage", "error", "finish_reason",
    "refusal", "annotations", "url_citation", "logprobs", "prompt_tokens", "top_logprobs", "reasoning", "type", "text", "id",
    "data", "embedding", "index",
]  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["stop", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=8),
    max_leaves=30,
)
CHOICE = st.fixed_dictionaries({"message": st.dictionaries(st.sampled_from(WORDS), ANYTHING), "finish_reason": ANYTHING})


@given(ANYTHING | st.fixed_dictionaries({"choices": st.lists(CHOICE, min_size=1, max_size=2), "usage": ANYTHING}))
def test_no_reply_raises_anything_but_a_service_error(payload: Any) -> None:
    for read, request in ((chat_response, ASKED), (embed_response, Embed(texts=("a",)))):
        with contextlib.suppress(ServiceError):
            assert read(json.dumps(payload).encode(), request, Heard("m")).usage is not None


@given(
    st.lists(st.fixed_dictionaries({"embedding": ANYTHING | st.lists(st.integers() | st.floats()), "index": st.integers(0, 2)}))
)
def test_no_vector_raises_anything_but_a_service_error(data: Any) -> None:
    try:
        got = embed_response(json.dumps({"data": data}).encode(), Embed(texts=("a", "b")), Heard("m"))
    except ServiceError:
        return
    assert len(got.vectors) == 2


def test_a_thought_that_the_package_does_not_know_is_read_all_the_same() -> None:
    body = json.loads(CASES["text"][0])
    body["choices"][0]["message"]["reasoning_content"] = "Hm."
    assert chat_response(json.dumps(body).encode(), ASKED, Heard("m")).parts == (Reasoning("Hm."), Text("Hello."))
