"""Images and sound as OpenAI's API answers: what its package's own types say, we read."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from gateway_remote.failures import failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.kinds import told
from gateway_remote.formats.openai_media import image_response, speak_response, transcribe_response
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Image as WireImage
from openai.types import ImagesResponse
from openai.types.audio import Transcription, TranscriptionSegment, TranscriptionVerbose, TranscriptionWord
from openai.types.audio.transcription import UsageDuration, UsageTokens
from openai.types.audio.transcription_language import TranscriptionLanguage
from openai.types.audio.transcription_verbose import Usage as VerboseUsage
from openai.types.images_response import Usage as ImagesUsage
from openai.types.images_response import UsageInputTokensDetails
from pydantic import BaseModel
from tasks_case import PNG, SOUND, WAV

from gateway import (
    Audio,
    BadReply,
    Chunk,
    ContentFiltered,
    GenerateImage,
    Image,
    OutOfQuota,
    ServiceError,
    Speak,
    Transcribe,
    TranscribeResponse,
    Usage,
)

B64 = base64.b64encode(PNG).decode()
PAINT, HEAR, SAY = GenerateImage(inputs="12345678"), Transcribe(inputs=SOUND), Speak(inputs="12345678", voice="v")
SEGMENT: dict[str, Any] = {
    "id": 0, "seek": 0, "tokens": [1], "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.1,
}  # fmt: skip


def wire(value: BaseModel | dict[str, Any]) -> bytes:
    return json.dumps(value).encode() if isinstance(value, dict) else value.model_dump_json().encode()


def heard(kind: str = "application/json", **headers: str) -> Heard:
    return Heard("m", {"content-type": kind, **headers})


def hear(value: BaseModel | dict[str, Any], **options: Any) -> TranscribeResponse:
    return transcribe_response(wire(value), Transcribe(inputs=SOUND, **options), heard())


def test_an_image_is_its_bytes_with_the_tokens_that_it_took() -> None:
    details = UsageInputTokensDetails(image_tokens=0, text_tokens=3)
    usage = ImagesUsage(input_tokens=3, input_tokens_details=details, output_tokens=272, total_tokens=275)
    made = ImagesResponse(created=1, data=[WireImage(b64_json=B64, revised_prompt="other")], output_format="png", usage=usage)
    response = image_response(wire(made), PAINT, heard())
    assert response.images == (Image(data=PNG, media_type="image/png"),)
    assert response.usage == Usage(input_tokens=3, output_tokens=272)


def test_an_image_by_url_is_not_fetched_and_its_usage_is_an_estimate() -> None:
    made = ImagesResponse(created=1, data=[WireImage(url="https://x.example/1"), WireImage(url="https://x.example/2")])
    response = image_response(wire(made), GenerateImage(inputs="12345678", n=2), heard())
    assert response.images == (Image(url="https://x.example/1"), Image(url="https://x.example/2"))
    assert response.usage == Usage(input_tokens=2, estimated=True)


@pytest.mark.parametrize(
    ("data", "stated", "wanted", "kind"),
    [
        (b"\xff\xd8\xff\xe0rest", None, None, "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "png", None, "image/webp"),
        (b"<svg/>", "svg", None, "image/svg+xml"),
        (b"who knows", None, "image/gif", "image/gif"),
        (b"who knows", None, None, "image/png"),
    ],
)
def test_what_an_image_is_its_bytes_tell_first(data: bytes, stated: Any, wanted: str | None, kind: str) -> None:
    made = ImagesResponse(created=1, data=[WireImage(b64_json=base64.b64encode(data).decode())], output_format=stated)
    [image] = image_response(wire(made), GenerateImage(inputs="a", media_type=wanted), heard()).images
    assert image == Image(data=data, media_type=kind)


def test_a_transcription_is_its_text_with_the_tokens_that_it_took() -> None:
    usage = UsageTokens(type="tokens", input_tokens=14, output_tokens=45, total_tokens=59)
    said = Transcription(text="Hello there.", languages=[TranscriptionLanguage(code="en")], usage=usage)
    assert hear(said) == TranscribeResponse(text="Hello there.", language="en", usage=Usage(input_tokens=14, output_tokens=45))


def test_a_transcription_that_is_billed_by_its_length_tells_the_length_and_an_estimate() -> None:
    said = Transcription(text="12345678", usage=UsageDuration(type="duration", seconds=3.5))
    assert hear(said) == TranscribeResponse(text="12345678", duration_s=3.5, usage=Usage(output_tokens=2, estimated=True))


VERBOSE = TranscriptionVerbose(
    duration=2.5,
    language="english",
    text=" Hello there.",
    segments=[TranscriptionSegment(text=" Hello there.", start=0.0, end=2.5, **SEGMENT)],
    words=[TranscriptionWord(word="Hello", start=0.0, end=0.5), TranscriptionWord(word="there", start=0.5, end=1.25)],
    usage=VerboseUsage(type="duration", seconds=3.0),
)


def test_segments_or_words_are_the_pieces_that_were_asked_for() -> None:
    segments, words, none = hear(VERBOSE, return_timestamps=True), hear(VERBOSE, return_timestamps="word"), hear(VERBOSE)
    assert segments.chunks == (Chunk(text=" Hello there.", timestamp=(0.0, 2.5)),)
    assert words.chunks == (Chunk(text="Hello", timestamp=(0.0, 0.5)), Chunk(text="there", timestamp=(0.5, 1.25)))
    assert none.chunks == ()
    assert {(each.text, each.language, each.duration_s) for each in (segments, words, none)} == {
        (" Hello there.", "english", 2.5)
    }


def test_a_length_may_be_written_as_a_string_as_vllm_does() -> None:
    assert hear({"text": "a", "duration": "2.5"}).duration_s == 2.5
    for odd in ("long", "", None, -1, True, [], "1" * 400, 10**400):
        assert hear({"text": "a", "duration": odd}).duration_s is None


@pytest.mark.parametrize(
    ("kind", "audio", "rate"),
    [
        ("audio/mpeg", "audio/mpeg", None),
        ("audio/wav; charset=x", "audio/wav", None),
        ("audio/L16; rate=24000; channels=1", "audio/L16", 24000.0),
        ("application/octet-stream", "audio/wav", None),
        ("", "audio/wav", None),
    ],
)
def test_a_sound_is_the_whole_body_of_the_kind_that_its_header_states(kind: str, audio: str, rate: float | None) -> None:
    response = speak_response(WAV, SAY, heard(kind))
    assert response.audio == Audio(data=WAV, media_type=audio) and response.sampling_rate == rate
    assert response.usage == Usage(input_tokens=2, estimated=True)


def test_a_sound_of_unstated_kind_is_of_the_kind_that_was_asked_for() -> None:
    raw = Speak(inputs="a", voice="v", media_type="audio/L16")
    assert speak_response(b"\xff\xf0 samples", raw, heard("")).audio.media_type == "audio/L16"
    assert speak_response(b"who knows", SAY, heard("")).audio.media_type == "audio/mpeg"  # what the API makes by itself


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"), (b"\xff\xd8\xff\xdb", "image/jpeg"), (b"GIF89a", "image/gif"), (WAV, "audio/wav"),
        (b"RIFF1234WEBP", "image/webp"), (b"RIFF1234AVI ", ""), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"),
        (b"ID3\x04", "audio/mpeg"), (b"\xff\xfb\x90", "audio/mpeg"), (b"\xff\xf1\x50", "audio/aac"), (b"", ""), (b"\xff", ""),
        (b"RIFF", ""), (b"text", ""),
    ],
)  # fmt: skip
def test_a_file_s_first_bytes_tell_its_kind(data: bytes, kind: str) -> None:
    assert told(data) == kind


BAD: list[tuple[Any, bytes, str]] = [
    *((image_response, json.dumps(body).encode(), "application/json") for body in (
        {}, [], {"data": None}, {"data": []}, {"data": [{}, {}]}, {"data": [3]}, {"data": [{"b64_json": "secret!"}]},
        {"data": [{"b64_json": 3}]}, {"data": [{"url": ["secret"]}]},
    )),
    *((transcribe_response, json.dumps(body).encode(), "application/json") for body in (
        {}, [], {"text": None}, {"text": ["secret"]},
    )),
    (transcribe_response, b"secret words", "text/plain"),
    (speak_response, b"", "audio/mpeg"),
    (speak_response, b'{"secret": 1}', "application/json"),
    (speak_response, b"secret", "text/plain"),
    (speak_response, b"<html>secret</html>", "text/html"),
]  # fmt: skip


@pytest.mark.parametrize(("decode", "body", "kind"), BAD)
def test_what_is_no_reply_is_a_bad_reply_that_does_not_quote_it(decode: Any, body: bytes, kind: str) -> None:
    request = {image_response: PAINT, transcribe_response: HEAR, speak_response: SAY}[decode]
    with pytest.raises(BadReply) as caught:
        decode(body, request, heard(kind))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "piece", [{}, {"word": "a"}, {"word": "a", "start": "soon", "end": 1}, {"word": 3, "start": 0, "end": 1}]
)
def test_a_piece_without_its_words_or_its_time_is_a_bad_reply(piece: dict[str, Any]) -> None:
    with pytest.raises(BadReply):
        hear({"text": "a", "words": [piece]}, return_timestamps="word")


@pytest.mark.parametrize(("decode", "request_"), [(image_response, PAINT), (transcribe_response, HEAR), (speak_response, SAY)])
def test_an_error_in_a_reply_of_status_200_is_that_error(decode: Any, request_: Any) -> None:
    with pytest.raises(OutOfQuota) as caught:
        decode(b'{"error": {"code": "insufficient_quota", "message": "secret"}}', request_, heard())
    assert "secret" not in str(caught.value)


def test_an_image_that_moderation_blocks_is_filtered() -> None:
    error = {"message": "secret", "type": "image_generation_user_error", "param": "", "code": "moderation_blocked"}
    caught = failure(400, {}, json.dumps({"error": error}).encode(), model="m")
    assert type(caught) is ContentFiltered and "secret" not in str(caught)


numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | numbers | st.text(max_size=4) | st.just(B64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", "b64_json", "url", "text", "words", "segments", "word", "start", "end", "usage", "seconds",
                         "input_tokens", "output_tokens", "prompt_tokens", "duration", "language", "languages", "code",
                         "output_format"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["data", "text", "words", "segments", "usage", "duration", "languages"]), values),
    st.sampled_from([None, True, "word"]),
)
def test_any_object_gives_a_response_or_a_service_error(payload: dict[str, Any], stamps: Any) -> None:
    body = json.dumps(payload).encode()
    for decode, request in (
        (image_response, PAINT), (transcribe_response, Transcribe(inputs=SOUND, return_timestamps=stamps)),
        (speak_response, SAY),
    ):  # fmt: skip
        with contextlib.suppress(ServiceError):
            decode(body, request, heard())  # type: ignore[operator]
