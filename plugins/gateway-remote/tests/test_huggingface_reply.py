"""Hugging Face's replies: what its client's own types hold, and what a pipeline behind an endpoint returns, we read."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from gateway_remote.failures import failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.huggingface import API
from huggingface_hub.inference._generated.types import (
    AutomaticSpeechRecognitionOutput,
    AutomaticSpeechRecognitionOutputChunk,
    ImageClassificationOutputElement,
    ObjectDetectionBoundingBox,
    ObjectDetectionOutputElement,
    QuestionAnsweringOutputElement,
    SummarizationOutput,
    TextClassificationOutputElement,
    TextToSpeechOutput,
    TokenClassificationOutputElement,
    TranslationOutput,
    ZeroShotClassificationOutputElement,
)
from hypothesis import given
from hypothesis import strategies as st
from tasks_case import PICTURE, PLAIN, PNG, SOUND, TEXT, WAV

from gateway import (
    Answer,
    AnswerResponse,
    Audio,
    BadReply,
    Box,
    Chunk,
    Classify,
    ClassifyImage,
    ClassifyResponse,
    Denied,
    Detected,
    DetectObjects,
    DetectObjectsResponse,
    Embed,
    EmbedResponse,
    Extract,
    ExtractResponse,
    Found,
    GenerateImage,
    GenerateImageResponse,
    Image,
    Label,
    ModelMissing,
    Overloaded,
    RateLimited,
    Rejected,
    Request,
    Rerank,
    Response,
    ServiceError,
    Span,
    Speak,
    SpeakResponse,
    Summarize,
    SummarizeResponse,
    Transcribe,
    TranscribeResponse,
    Translate,
    TranslateResponse,
    Usage,
)

JSON = "application/json"
ESTIMATE = Usage(input_tokens=9, estimated=True)  # TEXT has 34 bytes


def read(request: Request[Any], value: Any, kind: str = JSON, **headers: str) -> Response:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return API.routes[type(request)].decode(body, request, Heard("m", {"content-type": kind, **headers}))


CLASSES = ClassifyResponse(labels=(Label(label="b", score=0.75), Label(label="a", score=0.25)), usage=ESTIMATE)


@pytest.mark.parametrize(
    "wire",
    [
        [[TextClassificationOutputElement(label="b", score=0.75), TextClassificationOutputElement(label="a", score=0.25)]],
        [TextClassificationOutputElement(label="a", score=0.25), TextClassificationOutputElement(label="b", score=0.75)],
        [
            ZeroShotClassificationOutputElement(label="b", score=0.75),
            ZeroShotClassificationOutputElement(label="a", score=0.25),
        ],
        {"sequence": TEXT, "labels": ["b", "a"], "scores": [0.75, 0.25]},
        [{"sequence": TEXT, "labels": ["b", "a"], "scores": [0.75, 0.25]}],
    ],
)
def test_classes_come_the_likeliest_first_in_whatever_shape_they_are_sent(wire: Any) -> None:
    assert read(Classify(inputs=TEXT), wire) == CLASSES
    assert read(Classify(inputs=TEXT, candidate_labels=("a", "b")), wire) == CLASSES


def test_no_more_classes_come_than_were_asked_for() -> None:
    wire = {"labels": ["b", "a"], "scores": [0.75, 0.25]}
    response = read(Classify(inputs=TEXT, candidate_labels=("a", "b"), top_k=1), wire)
    assert response == replace(CLASSES, labels=CLASSES.labels[:1])


def test_an_image_s_classes_and_objects() -> None:
    wire = [ImageClassificationOutputElement(label="cat", score=0.9)]
    assert read(ClassifyImage(inputs=PICTURE), wire) == ClassifyResponse(
        labels=(Label(label="cat", score=0.9),), usage=Usage(estimated=True)
    )
    box = ObjectDetectionBoundingBox(xmin=-1, ymin=2, xmax=30, ymax=40)
    found = [
        ObjectDetectionOutputElement(label="cat", score=0.6, box=box),
        ObjectDetectionOutputElement(label="dog", score=0.9, box=box),
    ]
    assert read(DetectObjects(inputs=PICTURE), found) == DetectObjectsResponse(
        objects=(
            Detected(label="dog", score=0.9, box=Box(xmin=-1, ymin=2, xmax=30, ymax=40)),
            Detected(label="cat", score=0.6, box=Box(xmin=-1, ymin=2, xmax=30, ymax=40)),
        ),
        usage=Usage(estimated=True),
    )
    assert read(DetectObjects(inputs=PICTURE), []) == DetectObjectsResponse(objects=(), usage=Usage(estimated=True))


def test_spans_come_in_the_text_s_order_of_groups_or_of_single_tokens() -> None:
    group = TokenClassificationOutputElement(entity_group="LOC", score=0.9, word="Paris", start=28, end=33)
    token = TokenClassificationOutputElement(entity="B-PER", score=0.8, word="Brown", start=4, end=9)
    assert read(Extract(inputs=TEXT), [group, token]) == ExtractResponse(
        spans=(
            Span(entity_group="B-PER", score=0.8, word="Brown", start=4, end=9),
            Span(entity_group="LOC", score=0.9, word="Paris", start=28, end=33),
        ),
        usage=ESTIMATE,
    )
    assert read(Extract(inputs=TEXT), []) == ExtractResponse(spans=(), usage=ESTIMATE)


def test_one_answer_or_several_and_none_is_none() -> None:
    request = Answer(question="Where?", context=TEXT)
    first = QuestionAnsweringOutputElement(answer="Bern", score=0.25, start=20, end=24)
    second = QuestionAnsweringOutputElement(answer="Paris", score=0.75, start=28, end=33)
    found = (Found(answer="Paris", score=0.75, start=28, end=33), Found(answer="Bern", score=0.25, start=20, end=24))
    usage = Usage(input_tokens=10, estimated=True)
    assert read(request, [first, second]) == AnswerResponse(answers=found, usage=usage)
    assert read(request, first) == AnswerResponse(answers=found[1:], usage=usage)
    nothing = QuestionAnsweringOutputElement(answer="", score=0.9, start=0, end=0)
    assert read(request, nothing) == AnswerResponse(answers=(), usage=usage)
    assert read(request, [nothing, first]) == AnswerResponse(answers=found[1:], usage=usage)


def test_a_summary_and_a_translation() -> None:
    usage = Usage(input_tokens=9, output_tokens=2, estimated=True)
    for wire in (SummarizationOutput(summary_text="12345678"), [SummarizationOutput(summary_text="12345678")]):
        assert read(Summarize(inputs=TEXT), wire) == SummarizeResponse(summary_text="12345678", usage=usage)
    for wire in (TranslationOutput(translation_text="12345678"), [TranslationOutput(translation_text="12345678")]):
        assert read(Translate(inputs=TEXT), wire) == TranslateResponse(translation_text="12345678", usage=usage)


def test_vectors_and_the_tokens_that_text_embeddings_inference_counts() -> None:
    request = Embed(texts=("a", "b"))
    vectors = ((0.5, -1.0), (2.0, 0.0))
    assert read(request, [[0.5, -1], [2, 0]]) == EmbedResponse(vectors=vectors, usage=Usage(input_tokens=1, estimated=True))
    counted = read(request, [[0.5, -1], [2, 0]], **{"x-compute-tokens": "6"})
    assert counted == EmbedResponse(vectors=vectors, usage=Usage(input_tokens=6))
    assert read(request, [[0.5, -1], [2, 0]], **{"x-compute-tokens": "six"}).usage.estimated
    alone = EmbedResponse(vectors=((0.5, 1.0),), usage=Usage(input_tokens=1, estimated=True))
    assert read(Embed(texts=("a",)), [0.5, 1.0]) == read(Embed(texts=("a",)), [[0.5, 1.0]]) == alone


@pytest.mark.parametrize(
    ("texts", "wire"),
    [
        (2, [[1.0]]), (2, []), (2, {}), (1, [[[1.0, 2.0], [1.0, 2.0]]]), (2, [[1.0], [1.0, 2.0]]), (2, [["a"], [1.0]]),
        (1, [[10**400]]), (1, [[]]), (2, [1.0, 2.0]), (1, 3), (1, None),
    ],
)  # fmt: skip
def test_what_is_not_one_vector_for_each_text_is_a_bad_reply(texts: int, wire: Any) -> None:
    with pytest.raises(BadReply):
        read(Embed(texts=("a",) * texts), wire)


def test_a_transcription_with_its_times_where_they_were_asked_for() -> None:
    chunks = [
        AutomaticSpeechRecognitionOutputChunk(text=" Hello", timestamp=[0.0, 0.5]),
        AutomaticSpeechRecognitionOutputChunk(text=" there", timestamp=[0.5, None]),  # type: ignore[list-item]
    ]
    wire = AutomaticSpeechRecognitionOutput(text=" Hello there", chunks=chunks)
    usage = Usage(output_tokens=3, estimated=True)
    assert read(Transcribe(inputs=SOUND), wire) == TranscribeResponse(text=" Hello there", usage=usage)
    assert read(Transcribe(inputs=SOUND, return_timestamps=True), wire) == TranscribeResponse(
        text=" Hello there",
        chunks=(Chunk(text=" Hello", timestamp=(0.0, 0.5)), Chunk(text=" there", timestamp=(0.5, None))),
        usage=usage,
    )


@pytest.mark.parametrize("times", [None, [], [0.0], [None, 1.0], ["a", "b"], [0.0, 1.0, 2.0], {}, 3])
def test_a_piece_without_its_time_is_a_bad_reply(times: Any) -> None:
    with pytest.raises(BadReply):
        read(Transcribe(inputs=SOUND, return_timestamps=True), {"text": "a", "chunks": [{"text": "a", "timestamp": times}]})


def test_a_sound_is_the_whole_body_or_base64_in_json() -> None:
    request, usage = Speak(inputs=TEXT), ESTIMATE
    audio = Audio(data=WAV, media_type="audio/wav")
    assert read(request, WAV, "audio/wav") == SpeakResponse(audio=audio, usage=usage)
    assert read(request, WAV, "") == SpeakResponse(audio=audio, usage=usage)
    assert read(request, b"flac", "audio/flac") == SpeakResponse(
        audio=Audio(data=b"flac", media_type="audio/flac"), usage=usage
    )
    encoded = TextToSpeechOutput(audio=base64.b64encode(WAV).decode(), sampling_rate=16000.0)
    assert read(request, encoded) == SpeakResponse(audio=audio, sampling_rate=16000.0, usage=usage)


def test_an_image_is_the_whole_body_or_base64_in_json() -> None:
    made = GenerateImageResponse(images=(Image(data=PNG),), usage=ESTIMATE)
    encoded = base64.b64encode(PNG).decode()
    for wire, kind in ((PNG, "image/png"), (PNG, "application/octet-stream"), (encoded, JSON), ({"image": encoded}, JSON)):
        assert read(GenerateImage(inputs=TEXT), wire, kind) == made
    jpeg = read(GenerateImage(inputs=TEXT, media_type="image/webp"), b"\xff\xd8\xff", "image/jpeg")
    assert isinstance(jpeg, GenerateImageResponse) and jpeg.images[0].media_type == "image/jpeg"


BAD: Mapping[type[Request[Any]], list[Any]] = {
    Classify: [{}, [], [[]], 3, "secret", [3], [{"label": "secret"}], [{"score": 1}], [{"label": 3, "score": 1}],
               [{"label": "a", "score": "secret"}], {"labels": [3], "scores": [1]}],
    Extract: [{}, 3, [{"word": "secret", "score": 1, "entity": "A", "start": None, "end": None}],
              [{"word": "secret", "score": 1, "start": 0, "end": 1}], [{"entity": "A", "score": 1, "start": 0, "end": 1}]],
    Answer: [{}, 3, [{"answer": "secret", "score": 1}], {"answer": 3, "score": 1, "start": 0, "end": 1}],
    Summarize: [{}, [], 3, [{"generated": "secret"}], [{"summary_text": 3}]],
    Translate: [{}, [], 3, [{"translation_text": None}]],
    DetectObjects: [{}, 3, [{"label": "secret", "score": 1}], [{"label": "a", "score": 1, "box": {"xmin": 1}}],
                    [{"label": "a", "score": 1, "box": {"xmin": 1, "ymin": 1, "xmax": 1, "ymax": "secret"}}]],
    Transcribe: [{}, [], 3, {"text": ["secret"]}],
    Speak: [{}, {"audio": [0.5, 0.25]}, {"audio": "secret!"}, {"audio": ""}, {"audio": base64.b64encode(b"secret").decode()}],
    GenerateImage: [{}, 3, "secret!", {"image": 3}, "", base64.b64encode(b"secret").decode()],
}  # fmt: skip


@pytest.mark.parametrize(("task", "wire"), [(task, wire) for task, wires in BAD.items() for wire in wires])
def test_what_is_no_reply_is_a_bad_reply_that_does_not_quote_it(task: type[Request[Any]], wire: Any) -> None:
    with pytest.raises(BadReply) as caught:
        read(PLAIN[task], wire)
    assert "secret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("body", "kind"), [(b"", "image/png"), (b"secret", "text/plain"), (b"<p>", "text/html"), (PNG, "audio/wav")]
)
def test_a_body_that_is_no_image_is_a_bad_reply(body: bytes, kind: str) -> None:
    with pytest.raises(BadReply):
        read(GenerateImage(inputs=TEXT), body, kind)


@pytest.mark.parametrize("task", API.routes)
def test_an_error_in_a_reply_of_status_200_is_that_error(task: type[Request[Any]]) -> None:
    with pytest.raises(ServiceError) as caught:
        read(PLAIN[task], {"error": "secret"})
    assert "secret" not in str(caught.value) and caught.value.retryable


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"error": "Model secret/id is currently loading", "estimated_time": 20.5}, Overloaded),
        (503, {"error": "secret"}, Overloaded),
        (429, {"error": "secret", "error_type": "overloaded"}, RateLimited),
        (404, {"error": "secret"}, ModelMissing),
        (401, {"error": "secret"}, Denied),
        (400, {"error": ["secret: `inputs`"], "warnings": ["secret"]}, Rejected),
        (422, {"error": "secret", "error_type": "validation"}, Rejected),
    ],
)
def test_an_error_is_its_status_and_never_shows_its_words(status: int, body: dict[str, Any], kind: type[ServiceError]) -> None:
    caught = failure(status, {}, json.dumps(body).encode(), model="m")
    assert type(caught) is kind and "secret" not in str(caught) + repr(caught)
    assert caught.retry_after_s == body.get("estimated_time")


@pytest.mark.parametrize("odd", ["20", None, -1, True, 1e12, [20.0]])
def test_an_odd_estimate_of_the_time_to_load_is_none(odd: Any) -> None:
    caught = failure(503, {}, json.dumps({"error": "loading", "estimated_time": odd}).encode(), model="m")
    assert caught.retry_after_s is None
    told = failure(503, {"retry-after": "3"}, b'{"error": "loading", "estimated_time": 20.0}', model="m")
    assert told.retry_after_s == 3


numbers = st.integers(-(10**400), 10**400) | st.integers(0, 9) | st.floats(allow_nan=False, allow_infinity=False)
names = st.sampled_from(
    ["label", "score", "labels", "scores", "word", "start", "end", "entity", "entity_group", "answer", "summary_text",
     "translation_text", "box", "xmin", "ymin", "xmax", "ymax", "text", "chunks", "timestamp", "audio", "sampling_rate",
     "image", "error", "type"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=3) | st.just(base64.b64encode(PNG).decode()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
    max_leaves=15,
)


@given(
    st.sampled_from([task for task in PLAIN if task is not Rerank]),
    values,
    st.sampled_from([JSON, "", "image/png", "audio/wav"]),
)
def test_any_json_gives_a_response_or_a_service_error(task: type[Request[Any]], value: Any, kind: str) -> None:
    request = replace(PLAIN[task], return_timestamps=True) if task is Transcribe else PLAIN[task]
    with contextlib.suppress(ServiceError):
        assert isinstance(read(request, value, kind), task.response)
