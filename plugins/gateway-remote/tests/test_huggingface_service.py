"""Hugging Face's tasks over the loopback server: it is held to the client, and a RemoteModel to the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from gateway_remote.service import RemoteModel
from huggingface_hub.errors import HfHubHTTPError
from remote_case import started
from tasks_case import ALL, KEY, KEY_REF, PICTURE, PLAIN, PNG, SOUND, TEXT, WAV, asked, asked_hf, hf_sdk

from gateway import (
    Answer,
    AnswerResponse,
    BadReply,
    Classify,
    ClassifyImage,
    ClassifyResponse,
    ConfigError,
    DetectObjects,
    DetectObjectsResponse,
    Embed,
    EmbedResponse,
    Extract,
    ExtractResponse,
    GenerateImage,
    GenerateImageResponse,
    ModelMissing,
    Overloaded,
    Request,
    Speak,
    SpeakResponse,
    Summarize,
    SummarizeResponse,
    Transcribe,
    TranscribeResponse,
    Translate,
    TranslateResponse,
)
from gateway.testing import Fault, LoopbackServer, Reply, resources
from gateway.testing.contract import ModelServiceContract

LOADING = {"error": "Model Quetzalcoatlus is currently loading", "estimated_time": 20.0}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)
    # Pillow is not there to open the image: what it is made of is enough.
    monkeypatch.setattr("huggingface_hub.inference._client._bytes_to_image", lambda data: data)


def test_classes_are_those_that_the_client_reads(server: LoopbackServer) -> None:
    theirs = hf_sdk(server, "text-classification").text_classification(TEXT)
    ours = asked_hf(server, Classify(inputs=TEXT), "text-classification")
    assert isinstance(ours, ClassifyResponse) and [(e.label, e.score) for e in ours.labels] == [
        (e.label, e.score) for e in theirs
    ]
    chosen = hf_sdk(server, "zero-shot-classification").zero_shot_classification(TEXT, ["travel", "food"])
    request = Classify(inputs=TEXT, candidate_labels=("travel", "food"))
    ours = asked_hf(server, request, "zero-shot-classification")
    assert isinstance(ours, ClassifyResponse) and request.accept(ours) is ours
    assert [(e.label, e.score) for e in ours.labels] == [(e.label, e.score) for e in chosen]


def test_spans_and_answers_are_those_that_the_client_reads(server: LoopbackServer) -> None:
    spans = hf_sdk(server, "token-classification").token_classification(TEXT)
    ours = asked_hf(server, Extract(inputs=TEXT), "token-classification")
    assert isinstance(ours, ExtractResponse) and ours.spans
    assert [(e.entity_group, e.word, e.start, e.end) for e in ours.spans] == [
        (e.entity_group, e.word, e.start, e.end) for e in spans
    ]
    assert all(TEXT[span.start : span.end] == span.word for span in ours.spans)
    answers = hf_sdk(server, "question-answering").question_answering("Where?", TEXT, top_k=2)
    found = asked_hf(server, Answer(question="Where?", context=TEXT, top_k=2), "question-answering")
    assert isinstance(found, AnswerResponse) and isinstance(answers, list) and len(answers) == 2
    assert [(e.answer, e.score, e.start, e.end) for e in found.answers] == [
        (e.answer, e.score, e.start, e.end) for e in answers
    ]


def test_texts_are_those_that_the_client_reads(server: LoopbackServer) -> None:
    summary = asked_hf(server, Summarize(inputs=TEXT), "summarization")
    assert isinstance(summary, SummarizeResponse)
    assert summary.summary_text == hf_sdk(server, "summarization").summarization(TEXT).summary_text == f"You said: {TEXT}"
    server.always(Reply(text="Scripted."))
    translation = asked_hf(server, Translate(inputs=TEXT), "translation")
    assert isinstance(translation, TranslateResponse)
    assert translation.translation_text == hf_sdk(server, "translation").translation(TEXT).translation_text == "Scripted."


def test_vectors_are_those_that_the_client_reads(server: LoopbackServer) -> None:
    theirs = hf_sdk(server, "feature-extraction").feature_extraction(["a cat", "a dog"], dimensions=4)
    ours = asked_hf(server, Embed(texts=("a cat", "a dog"), dimensions=4), "feature-extraction")
    assert isinstance(ours, EmbedResponse) and theirs.shape == (2, 4)
    assert [list(vector) for vector in ours.vectors] == [pytest.approx(row, abs=1e-6) for row in theirs.tolist()]


def test_what_images_show_is_what_the_client_reads(server: LoopbackServer) -> None:
    classes = hf_sdk(server, "image-classification").image_classification(PNG, top_k=2)
    ours = asked_hf(server, ClassifyImage(inputs=PICTURE, top_k=2), "image-classification")
    assert isinstance(ours, ClassifyResponse) and len(classes) == 2
    assert [(e.label, e.score) for e in ours.labels] == [(e.label, e.score) for e in classes]
    whole = asked_hf(server, ClassifyImage(inputs=PICTURE), "image-classification")  # raw bytes, and not base64 in JSON
    assert isinstance(whole, ClassifyResponse) and whole.labels[:2] == ours.labels
    objects = hf_sdk(server, "object-detection").object_detection(PNG, threshold=0.1)
    found = asked_hf(server, DetectObjects(inputs=PICTURE, threshold=0.1), "object-detection")
    assert isinstance(found, DetectObjectsResponse) and found.objects
    assert [(e.label, e.score, vars_of(e.box)) for e in found.objects] == [(e.label, e.score, vars_of(e.box)) for e in objects]


def vars_of(box: Any) -> tuple[int, ...]:
    return box.xmin, box.ymin, box.xmax, box.ymax


def test_sounds_and_images_are_those_that_the_client_reads(server: LoopbackServer) -> None:
    client = hf_sdk(server, "automatic-speech-recognition")
    heard = client.automatic_speech_recognition(WAV, extra_body={"return_timestamps": True})
    ours = asked_hf(server, Transcribe(inputs=SOUND, return_timestamps=True), "automatic-speech-recognition")
    assert isinstance(ours, TranscribeResponse) and ours.text == heard.text and ours.chunks
    assert [(c.text, list(c.timestamp)) for c in ours.chunks] == [(c.text, c.timestamp) for c in heard.chunks or ()]
    spoken = asked_hf(server, Speak(inputs="Hi"), "text-to-speech")
    assert isinstance(spoken, SpeakResponse) and spoken.audio.data == hf_sdk(server, "text-to-speech").text_to_speech("Hi")
    painted = asked_hf(server, GenerateImage(inputs="Hi", seed=3), "text-to-image")
    assert isinstance(painted, GenerateImageResponse)
    assert painted.images[0].data == hf_sdk(server, "text-to-image").text_to_image("Hi", seed=3)  # type: ignore[comparison-overlap]


def test_a_model_that_loads_is_waited_for_as_long_as_it_says(server: LoopbackServer) -> None:
    server.script(Fault(status=503, body=LOADING))
    with pytest.raises(Overloaded) as caught:
        asked_hf(server, PLAIN[Summarize], "summarization")
    assert caught.value.retry_after_s == 20.0 and caught.value.retryable
    assert "Quetzalcoatlus" not in str(caught.value) + repr(caught.value)


def test_the_server_refuses_as_hugging_face_does(server: LoopbackServer) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hf_sdk(server, "no-such-task").summarization(TEXT)
    assert caught.value.response.status_code == 404 and list(caught.value.response.json()) == ["error"]
    with pytest.raises(ModelMissing):
        asked_hf(server, PLAIN[Summarize], "no-such-task")
    with pytest.raises(ModelMissing):  # on the router embeddings have a path of their own
        asked_hf(server, PLAIN[Summarize], "/hf-inference", model="any/feature-extraction")


def test_the_router_has_each_model_at_its_own_path(server: LoopbackServer) -> None:
    for request, task in ((PLAIN[Embed], "feature-extraction"), (PLAIN[Classify], "text-classification")):
        assert asked_hf(server, request, "/hf-inference", model=f"any/{task}") == asked_hf(server, request, task)
    assert server.requests[0].path == "/hf-inference/models/any/feature-extraction/pipeline/feature-extraction"


def test_a_page_at_a_wrong_base_url_says_so(server: LoopbackServer) -> None:
    server.script(Fault(status=200, html=True))
    with pytest.raises(BadReply, match="base_url"):
        asked_hf(server, PLAIN[Speak], "text-to-speech")


def test_an_endpoint_at_the_root_of_its_host_is_asked_there() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[{"summary_text": "short"}])

    async def whole() -> None:
        facts = {"api": "huggingface", "tasks": ["summarize"], "transport": httpx.MockTransport(answer)}
        async with started("https://x.endpoints.example", **facts) as model:
            await model.run(PLAIN[Summarize])

    asyncio.run(whole())
    assert [(request.method, request.url.host, request.url.path) for request in seen] == [("POST", "x.endpoints.example", "/")]


def test_over_the_usual_transport_too_an_endpoint_is_asked_at_the_root(server: LoopbackServer) -> None:
    server.script(Fault(status=200, body=[{"summary_text": "short"}]))
    response = asked(server.origin, PLAIN[Summarize], api="huggingface", model="")
    assert isinstance(response, SummarizeResponse) and response.summary_text == "short"
    assert (server.requests[-1].method, server.requests[-1].path) == ("POST", "/")


def test_neither_the_router_nor_an_endpoint_has_a_list_of_models(server: LoopbackServer) -> None:
    async def whole(base_url: str) -> str:
        row = {"name": "an/id", "api": "huggingface", "base_url": base_url, "tasks": ["classify"]}
        return await RemoteModel(row).check(resources())

    for at in ("/hf-inference", "/endpoint/text-classification"):
        assert "answers, but has no list of models" in asyncio.run(whole(server.origin + at))


def test_a_chat_is_no_task_of_this_api() -> None:
    with pytest.raises(ConfigError, match="'chat'"):
        RemoteModel({"name": "m", "api": "huggingface", "base_url": "http://h", "tasks": ["chat"]})


class OnAnEndpoint(ModelServiceContract):
    """The contract of one task on a dedicated endpoint."""

    task, path = "", ""

    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer() as server:
            row = {"name": "m", "api": "huggingface", "base_url": f"{server.origin}/endpoint/{self.path}", "tasks": [self.task]}
            yield RemoteModel({**row, "features": ALL})


class TestClassify(OnAnEndpoint):
    task, path = "classify", "text-classification"


class TestZeroShot(OnAnEndpoint):
    task, path = "classify", "zero-shot-classification"

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        return [Classify(inputs="A Quetzalcoatlus.", candidate_labels=("bird", "reptile"), top_k=1)]


class TestAnswer(OnAnEndpoint):
    task, path = "answer", "question-answering"


class TestSummarize(OnAnEndpoint):
    task, path = "summarize", "summarization"


class TestTranscribe(OnAnEndpoint):
    task, path = "transcribe", "automatic-speech-recognition"

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        return [Transcribe(inputs=SOUND), Transcribe(inputs=SOUND, return_timestamps="word")]


class TestGenerateImage(OnAnEndpoint):
    task, path = "generate_image", "text-to-image"

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        return [GenerateImage(inputs="A Quetzalcoatlus.", width=32, height=16, seed=3)]


class TestRouter(ModelServiceContract):
    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer() as server:
            row = {"name": "any/feature-extraction", "preset": "huggingface-tasks", "api_key": []}
            yield RemoteModel({**row, "base_url": f"{server.origin}/hf-inference", "tasks": ["embed"]})
