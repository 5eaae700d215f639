"""Images and sound over the loopback server: it is held to the `openai` package, and a RemoteModel to the contract."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from gateway_remote.service import RemoteModel
from tasks_case import ALL, KEY, KEY_REF, MODEL, PNG, SOUND, WAV, asked, openai_sdk

from gateway import (
    AttemptTimeout,
    Audio,
    BadReply,
    Denied,
    GenerateImage,
    GenerateImageResponse,
    Image,
    ModelMissing,
    Overloaded,
    RateLimited,
    Rejected,
    Request,
    Rerank,
    ServiceError,
    Speak,
    SpeakResponse,
    Transcribe,
    TranscribeResponse,
)
from gateway.testing import Fault, LoopbackServer, Reply
from gateway.testing.contract import ModelServiceContract

SAY = Speak(inputs="Hello there.", voice="alloy", media_type="audio/wav")
PAINT, HEAR = GenerateImage(inputs="a red square", n=2, width=32, height=16), Transcribe(inputs=SOUND)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def test_images_are_those_that_the_package_reads(server: LoopbackServer) -> None:
    with openai_sdk(server) as client:
        theirs = client.images.generate(model=MODEL, prompt=PAINT.inputs, n=2, size="32x16")
    ours = asked(server.url, PAINT)
    assert isinstance(ours, GenerateImageResponse) and theirs.usage is not None
    assert [image.data for image in ours.images] == [Image(data=_b64(each.b64_json)).data for each in theirs.data or ()]
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (theirs.usage.input_tokens, theirs.usage.output_tokens)
    for image in ours.images:  # width and height stand in a PNG's first chunk
        assert image.data is not None and image.data[16:24] == (32).to_bytes(4, "big") + (16).to_bytes(4, "big")


def _b64(text: str | None) -> bytes:
    return base64.b64decode(text or "", validate=True)


def test_a_transcription_is_the_one_that_the_package_reads(server: LoopbackServer) -> None:
    file = ("audio.wav", WAV, "audio/wav")
    with openai_sdk(server) as client:
        plain = client.audio.transcriptions.create(model=MODEL, file=file)
        words = client.audio.transcriptions.create(
            model=MODEL, file=file, response_format="verbose_json", timestamp_granularities=["word"]
        )
        segments = client.audio.transcriptions.create(
            model=MODEL, file=file, response_format="verbose_json", timestamp_granularities=["segment"]
        )
    ours = asked(server.url, HEAR)
    assert isinstance(ours, TranscribeResponse) and plain.usage is not None and plain.usage.type == "tokens"
    assert ours.text == plain.text and ours.usage.output_tokens == plain.usage.output_tokens
    by_word = asked(server.url, Transcribe(inputs=SOUND, return_timestamps="word"))
    by_segment = asked(server.url, Transcribe(inputs=SOUND, return_timestamps=True))
    assert isinstance(by_word, TranscribeResponse) and isinstance(by_segment, TranscribeResponse)
    assert [(c.text, *c.timestamp) for c in by_word.chunks] == [(w.word, w.start, w.end) for w in words.words or ()]
    assert [(c.text, *c.timestamp) for c in by_segment.chunks] == [(s.text, s.start, s.end) for s in segments.segments or ()]
    assert (by_word.language, by_word.duration_s) == (words.language, words.duration)
    assert by_word.chunks and by_segment.chunks and len(by_word.chunks) > len(by_segment.chunks)


def test_a_sound_is_the_one_that_the_package_reads(server: LoopbackServer) -> None:
    with openai_sdk(server) as client:
        theirs = client.audio.speech.create(model=MODEL, input=SAY.inputs, voice="alloy", response_format="wav").read()
    ours = asked(server.url, SAY)
    assert isinstance(ours, SpeakResponse) and ours.audio == Audio(data=theirs, media_type="audio/wav")
    with wave.open(io.BytesIO(theirs)) as sound:
        assert sound.getnframes() > 0


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "pcm"])
def test_the_server_speaks_in_every_form(server: LoopbackServer, form: Any) -> None:
    with openai_sdk(server) as client:
        assert client.audio.speech.create(model=MODEL, input="Hi", voice="alloy", response_format=form).read()


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        (lambda c: c.images.generate(model=MODEL, prompt="a", size="large"), "size"),
        (lambda c: c.images.generate(model=MODEL, prompt="a", n=11), "n"),
        (lambda c: c.images.generate(model=MODEL, prompt="a", output_format="webp"), "output_format"),
        (lambda c: c.audio.transcriptions.create(model=MODEL, file=b"1", response_format="srt"), "response_format"),
        (lambda c: c.audio.transcriptions.create(model=MODEL, file=b"1", timestamp_granularities=["word"]),
         "timestamp_granularities[]"),
        (lambda c: c.audio.transcriptions.create(model="", file=b"1"), "model"),
        (lambda c: c.audio.speech.create(model=MODEL, input="a", voice="v", response_format="midi"), "response_format"),
        (lambda c: c.audio.speech.create(model=MODEL, input="a", voice="v", speed=9.0), "speed"),
        (lambda c: c.post("/audio/speech", body={"model": MODEL, "input": "a"}, cast_to=object), "voice"),
    ],
)  # fmt: skip
def test_the_server_refuses_what_the_api_refuses(server: LoopbackServer, ask: Any, param: str) -> None:
    with openai_sdk(server) as client, pytest.raises(openai.BadRequestError) as caught:
        ask(client)
    assert caught.value.param == param


def test_the_server_wants_a_whole_form(server: LoopbackServer) -> None:
    with openai_sdk(server) as client, pytest.raises(openai.BadRequestError):
        client.post("/audio/transcriptions", body={"model": MODEL}, cast_to=object)


@pytest.mark.parametrize(
    ("request_", "fault", "kind"),
    [
        (request, fault, kind)
        for request in (PAINT, HEAR, SAY)
        for fault, kind in (
            (Fault(status=429, retry_after=3), RateLimited),
            (Fault(status=401), Denied),
            (Fault(status=404), ModelMissing),
            (Fault(status=400), Rejected),
            (Fault(status=503), Overloaded),
            (Fault(status=200, html=True), BadReply),
            (Fault(empty=True), BadReply),
            (Fault(truncated=True), ServiceError),
            (Fault(malformed_after=0), BadReply),
            (Fault(delay_s=5), AttemptTimeout),
        )
        if request is not SAY or fault.malformed_after is None  # any bytes are a sound
    ],
)
def test_each_way_to_fail_is_one_kind_of_error(
    server: LoopbackServer, request_: Request[Any], fault: Fault, kind: type[ServiceError]
) -> None:
    server.script(fault)
    with pytest.raises(kind) as caught:
        asked(server.url, request_, limits={"reply_s": 0.5})
    assert caught.value.retry_after_s == (3 if kind is RateLimited else None)
    for word in ("square", "Hello", KEY):
        assert word not in str(caught.value) + repr(caught.value)


def test_scripts_name_models_by_the_form_too(server: LoopbackServer) -> None:
    server.always(Reply(text="Scripted words."), model=MODEL)
    assert getattr(asked(server.url, HEAR), "text", "") == "Scripted words."
    assert getattr(asked(server.url, HEAR, model="other"), "text", "") != "Scripted words."


def test_a_stream_of_a_transcription_is_its_text_and_then_the_whole(server: LoopbackServer) -> None:
    assert asked(server.url, HEAR, stream=True) == asked(server.url, HEAR)


class TestMedia(ModelServiceContract):
    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer() as server:
            tasks = ["generate_image", "transcribe", "speak", "rerank"]
            yield RemoteModel({"name": "loopback", "base_url": server.url, "tasks": tasks, "features": ALL})

    @pytest.fixture
    def requests(self) -> Sequence[Request[Any]]:
        stamped = Transcribe(inputs=Audio(data=PNG), return_timestamps="word", prompt="Quetzalcoatlus")
        return [PAINT, HEAR, stamped, SAY, Rerank(query="a cat", documents=("a dog", "the cat"), top_n=1)]
