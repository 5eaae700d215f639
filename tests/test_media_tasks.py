"""Tasks on images and sound: what is refused when a request is made, what routing may know, and which reply fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    Audio,
    Chunk,
    ClassifyImage,
    ClassifyResponse,
    DetectObjects,
    DetectObjectsResponse,
    GenerateImage,
    GenerateImageResponse,
    Image,
    InvalidRequest,
    Label,
    Meta,
    Request,
    Response,
    Speak,
    SpeakResponse,
    Text,
    Transcribe,
    TranscribeResponse,
    assemble,
)

CANARY = "canary-4711"
PICTURE, SOUND = Image(data=b"1"), Audio(data=b"1")
PLAIN: Mapping[type[Request[Any]], Request[Any]] = {
    type(request): request
    for request in (
        ClassifyImage(inputs=PICTURE),
        DetectObjects(inputs=PICTURE),
        GenerateImage(inputs="é"),
        Transcribe(inputs=SOUND),
        Speak(inputs="é"),
    )
}


@pytest.mark.parametrize(
    ("task", "options", "field"),
    [
        (ClassifyImage, {"inputs": SOUND}, "inputs"),
        (ClassifyImage, {"inputs": b"1"}, "inputs"),
        (ClassifyImage, {"top_k": 0}, "top_k"),
        (ClassifyImage, {"function_to_apply": "tanh"}, "function_to_apply"),
        (DetectObjects, {"inputs": "https://x.example/a.png"}, "inputs"),
        (DetectObjects, {"threshold": 1.5}, "threshold"),
        (DetectObjects, {"threshold": -0.5}, "threshold"),
        (GenerateImage, {"inputs": ""}, "inputs"),
        (GenerateImage, {"inputs": PICTURE}, "inputs"),
        (GenerateImage, {"n": 0}, "n"),
        (GenerateImage, {"n": None}, "n"),
        (GenerateImage, {"width": 8}, "width"),
        (GenerateImage, {"height": 8}, "width"),
        (GenerateImage, {"width": 0, "height": 8}, "width"),
        (GenerateImage, {"width": 8, "height": 8.5}, "height"),
        (GenerateImage, {"media_type": "png"}, "media_type"),
        (GenerateImage, {"media_type": "audio/wav"}, "media_type"),
        (GenerateImage, {"negative_prompt": 3}, "negative_prompt"),
        (GenerateImage, {"guidance_scale": -1}, "guidance_scale"),
        (GenerateImage, {"num_inference_steps": 0}, "num_inference_steps"),
        (GenerateImage, {"scheduler": ""}, "scheduler"),
        (GenerateImage, {"seed": 1.5}, "seed"),
        (Transcribe, {"inputs": PICTURE}, "inputs"),
        (Transcribe, {"return_timestamps": "char"}, "return_timestamps"),
        (Transcribe, {"return_timestamps": 1}, "return_timestamps"),
        (Transcribe, {"language": ""}, "language"),
        (Transcribe, {"language": 3}, "language"),
        (Transcribe, {"prompt": 3}, "prompt"),
        (Transcribe, {"temperature": 3}, "temperature"),
        (Transcribe, {"generation_parameters": [1]}, "generation_parameters"),
        (Speak, {"inputs": ""}, "inputs"),
        (Speak, {"voice": ""}, "voice"),
        (Speak, {"voice": {"id": "a"}}, "voice"),
        (Speak, {"instructions": 3}, "instructions"),
        (Speak, {"speed": 0}, "speed"),
        (Speak, {"speed": 11}, "speed"),
        (Speak, {"media_type": "image/png"}, "media_type"),
        (Speak, {"media_type": "audio/"}, "media_type"),
        (Speak, {"media_type": "audio/wav\r\nx-other: 1"}, "media_type"),
        (Speak, {"media_type": 3}, "media_type"),
        (Speak, {"generation_parameters": "a"}, "generation_parameters"),
    ],
)
def test_what_is_wrong_by_itself_is_refused_by_field(task: type[Request[Any]], options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        replace(PLAIN[task], **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "media_type", ["audio/mpeg", "audio/ogg;codecs=opus", "audio/L16; rate=24000; channels=1", "Audio/x-wav"]
)
def test_a_media_type_may_have_parameters(media_type: str) -> None:
    assert Speak(inputs="a", media_type=media_type).media_type == media_type


@given(st.text())
def test_no_media_type_that_is_taken_could_end_a_header(text: str) -> None:
    try:
        taken = Speak(inputs="a", media_type=f"audio/{text}").media_type or ""
    except InvalidRequest:
        return
    assert taken.isascii() and taken.isprintable()


SPECIFICATIONS = {
    ClassifyImage: "ImageClassification", DetectObjects: "ObjectDetection", GenerateImage: "TextToImage",
    Transcribe: "AutomaticSpeechRecognition", Speak: "TextToSpeech",
}  # fmt: skip


@pytest.mark.parametrize("task", SPECIFICATIONS)
def test_the_fields_are_those_of_hugging_face_s_specifications_and_more(task: type[Request[Any]]) -> None:
    types = pytest.importorskip("huggingface_hub.inference._generated.types")
    names = set(getattr(types, f"{SPECIFICATIONS[task]}Parameters").__dataclass_fields__)
    assert names | {"inputs"} <= {f.name for f in fields(task)}


def test_traits_say_what_a_model_must_hear_or_see() -> None:
    assert {task: request.traits().modalities for task, request in PLAIN.items()} == {
        ClassifyImage: {"image"}, DetectObjects: {"image"}, GenerateImage: {"text"}, Transcribe: {"audio"}, Speak: {"text"},
    }  # fmt: skip
    assert {task: request.traits().output_tokens for task, request in PLAIN.items()} == {
        ClassifyImage: 0, DetectObjects: 0, GenerateImage: 0, Transcribe: None, Speak: 0,
    }  # fmt: skip
    assert PLAIN[GenerateImage].traits().input_bytes == PLAIN[Speak].traits().input_bytes == 2
    assert Transcribe(inputs=SOUND, prompt="é").traits().input_bytes == 2


def test_timestamps_are_a_feature_and_a_seed_one_that_may_be_dropped() -> None:
    drop = Meta(drop_unsupported=True)
    assert GenerateImage(inputs="a", seed=0).traits().features == {"seed"}
    assert GenerateImage(inputs="a", seed=0, meta=drop).traits().features == frozenset()
    for stamps in (True, "word"):
        for meta in (Meta(), drop):
            request = Transcribe(inputs=SOUND, return_timestamps=stamps, meta=meta)  # type: ignore[arg-type]
            assert request.traits().features == {"timestamps"}
    for stamps in (None, False):
        assert Transcribe(inputs=SOUND, return_timestamps=stamps).traits().features == frozenset()


CLASSES = ClassifyResponse(labels=(Label(label="a", score=1.0),))
ONE = GenerateImageResponse(images=(PICTURE,))
SAID = TranscribeResponse(text="a", chunks=(Chunk(text="a", timestamp=(0.0, None)),))
STAMPED = Transcribe(inputs=SOUND, return_timestamps=True)


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (PLAIN[ClassifyImage], CLASSES), (PLAIN[DetectObjects], DetectObjectsResponse(objects=())), (PLAIN[GenerateImage], ONE),
        (PLAIN[Transcribe], TranscribeResponse(text="a")), (STAMPED, SAID), (STAMPED, TranscribeResponse(text=" ")),
        (PLAIN[Speak], SpeakResponse(audio=SOUND)),
    ],
)  # fmt: skip
def test_a_reply_that_fits_is_taken_as_it_is(request_: Request[Any], response: Response) -> None:
    assert request_.accept(response) is response


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (PLAIN[ClassifyImage], ClassifyResponse(labels=())), (PLAIN[ClassifyImage], ONE),
        (GenerateImage(inputs="a", n=2), ONE), (PLAIN[GenerateImage], CLASSES), (STAMPED, TranscribeResponse(text="a")),
        (PLAIN[Transcribe], CLASSES),
    ],
)  # fmt: skip
def test_a_reply_that_does_not_fit_is_refused(request_: Request[Any], response: Response) -> None:
    with pytest.raises(ValueError):
        request_.accept(response)


@given(st.text())
def test_a_stream_of_what_was_said_adds_up_to_it(text: str) -> None:
    assert assemble(TranscribeResponse(text=text).deltas()) == ((Text(text),) if text else ())
    assert ONE.deltas() == CLASSES.deltas() == SpeakResponse(audio=SOUND).deltas() == ()


def test_no_repr_shows_content() -> None:
    secret = f"before {CANARY} after"
    image, sound = Image(data=secret.encode()), Audio(url=secret)
    things: list[object] = [
        ClassifyImage(inputs=image), DetectObjects(inputs=image), GenerateImage(inputs=secret, negative_prompt=secret),
        Transcribe(inputs=sound, prompt=secret, generation_parameters={"prompt": secret}),
        Speak(inputs=secret, instructions=secret, generation_parameters={"prompt": secret}),
        GenerateImageResponse(images=(image,)),
        TranscribeResponse(text=secret, chunks=(Chunk(text=secret, timestamp=(0.0, 1.0)),)), SpeakResponse(audio=sound),
        Chunk(text=secret, timestamp=(0.0, 1.0)),
    ]  # fmt: skip
    for thing in things:
        assert CANARY not in repr(thing) + str(thing) + repr([thing])
