"""Images and sound as OpenAI's API takes them: what the `openai` package sends, we send."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.multipart import form
from gateway_remote.formats.openai_media import image_body, speak_body, transcribe_body
from gateway_remote.secrets import MOST_KEPT, Headers
from hypothesis import given
from hypothesis import strategies as st
from tasks_case import (
    ALL,
    KEY,
    KEY_REF,
    MODEL,
    OPTIONS,
    PLAIN,
    SOUND,
    WAV,
    asked,
    every_option,
    openai_sdk,
    with_option,
)

from gateway import Audio, GenerateImage, Request, Speak, Transcribe, UnsupportedOption
from gateway.testing import LoopbackServer, Reply, resources
from gateway.testing.http11 import Request as Got
from gateway.testing.media import FormPart, parsed_form

TASKS = (GenerateImage, Transcribe, Speak)
ENCODE: dict[type[Request[Any]], Any] = {GenerateImage: image_body, Transcribe: transcribe_body, Speak: speak_body}
ROW = ModelRow(
    name="m", base_url="http://h", model=MODEL, tasks=[task.task for task in TASKS], features=ALL, body={"voice": "usual"}
)
VOICE = Speak(inputs="Hello there.", voice="alloy")
TURNED = Audio(data=b"1", media_type="audio/wav\r\nx-other: 1")
SDK = Callable[[openai.OpenAI], Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


def came(request: Got) -> tuple[Any, ...]:
    """What a server makes of a request; a form's boundary is each client's own."""
    kind = request.headers["content-type"].partition(";")[0]
    body: Any = request.json if request.json is not None else parsed_form(request)
    return request.method, request.path, request.headers["authorization"], kind, body


@pytest.mark.parametrize(
    ("request_", "ask"),
    [
        (GenerateImage(inputs="a red square"), lambda c: c.images.generate(model=MODEL, prompt="a red square")),
        (
            GenerateImage(inputs="größer \U0001f600", n=2, width=32, height=16, media_type="image/png"),
            lambda c: c.images.generate(
                model=MODEL, prompt="größer \U0001f600", n=2, size="32x16", output_format="png"
            ),
        ),
        (VOICE, lambda c: c.audio.speech.create(model=MODEL, input="Hello there.", voice="alloy")),
        (
            replace(VOICE, media_type="audio/ogg; codecs=opus", speed=1.25, instructions="Softly."),
            lambda c: c.audio.speech.create(
                model=MODEL, input="Hello there.", voice="alloy", response_format="opus", speed=1.25, instructions="Softly."
            ),
        ),
        (
            Transcribe(inputs=SOUND),
            lambda c: c.audio.transcriptions.create(model=MODEL, file=("audio.wav", WAV, "audio/wav")),
        ),
        (
            Transcribe(inputs=SOUND, language="de", prompt='Herr "Braun",\r\nBärn', temperature=0.5),
            lambda c: c.audio.transcriptions.create(
                model=MODEL, file=("audio.wav", WAV, "audio/wav"), language="de", prompt='Herr "Braun",\r\nBärn',
                temperature=0.5,
            ),
        ),
        (
            Transcribe(inputs=SOUND, return_timestamps=True),
            lambda c: c.audio.transcriptions.create(
                model=MODEL, file=("audio.wav", WAV, "audio/wav"), response_format="verbose_json",
                timestamp_granularities=["segment"],
            ),
        ),
        (
            Transcribe(inputs=SOUND, return_timestamps="word"),
            lambda c: c.audio.transcriptions.create(
                model=MODEL, file=("audio.wav", WAV, "audio/wav"), response_format="verbose_json",
                timestamp_granularities=["word"],
            ),
        ),
    ],
)  # fmt: skip
def test_what_the_package_sends_we_send(server: LoopbackServer, request_: Request[Any], ask: SDK) -> None:
    with openai_sdk(server) as client:
        ask(client)
    asked(server.url, request_)
    theirs, ours = map(came, server.requests)
    if isinstance(theirs[-1], list):  # a form, whose file has a name of the client's choice: only its ending tells anything
        theirs = (*theirs[:-1], sorted(map(unnamed, theirs[-1]), key=lambda part: part.name))
        ours = (*ours[:-1], sorted(map(unnamed, ours[-1]), key=lambda part: part.name))
    assert ours == theirs


def unnamed(part: FormPart) -> FormPart:
    return replace(part, file_name=part.file_name.rpartition(".")[2])


def test_what_a_row_adds_goes_into_a_form_as_the_package_writes_it(server: LoopbackServer) -> None:
    extra: dict[str, Any] = {
        "chunking_strategy": {"type": "server_vad", "threshold": 0.5},
        "include": ["logprobs"],
    }
    with openai_sdk(server) as client:
        client.audio.transcriptions.create(model=MODEL, file=("file.wav", WAV, "audio/wav"), **extra)
    asked(server.url, Transcribe(inputs=SOUND), body=extra)
    theirs, ours = (sorted((part.name, part.text) for part in parsed_form(each)) for each in server.requests)
    assert ours == theirs and ("chunking_strategy[type]", "server_vad") in ours


@pytest.mark.parametrize(("task", "name"), every_option(*TASKS))
def test_every_option_is_carried_or_named(task: type[Request[Any]], name: str) -> None:
    refused = {
        GenerateImage: {"negative_prompt", "guidance_scale", "num_inference_steps", "scheduler", "seed"},
        Transcribe: {"generation_parameters"},
        Speak: {"generation_parameters"},
    }
    request, plain = with_option(task, name), ENCODE[task](PLAIN[task], ROW, False)
    if name not in refused[task]:
        sending = ENCODE[task](request, ROW, False)
        assert not sending.dropped and sending.body != plain.body
        return
    with pytest.raises(UnsupportedOption) as caught:
        ENCODE[task](request, ROW, False)
    assert caught.value.option == name and caught.value.model == "m"
    if name == "negative_prompt":  # it is content: without it the picture would be another one
        with pytest.raises(UnsupportedOption):
            ENCODE[task](with_option(task, name, drop=True), ROW, False)
    else:
        assert list(ENCODE[task](with_option(task, name, drop=True), ROW, False).dropped) == [name]


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_dropped_is_told(server: LoopbackServer, stream: bool) -> None:
    server.always(Reply(text="yes"))
    request = with_option(Transcribe, "generation_parameters", drop=True)
    assert asked(server.url, request, stream=stream).dropped == ("generation_parameters",)


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Transcribe(inputs=Audio(url="https://x.example/a.wav")), "inputs.url"),
        (Transcribe(inputs=TURNED), "inputs.media_type"),
        (Transcribe(inputs=SOUND, language="de-CH"), "language"),
        (Speak(inputs="a", voice="v", media_type="audio/amr"), "media_type"),
        (Speak(inputs="a", voice="v", media_type="audio/ogg; codecs=vorbis"), "media_type"),
        (GenerateImage(inputs="a", media_type="image/tiff"), "media_type"),
    ],
)
def test_what_the_api_cannot_carry_is_named(request_: Request[Any], option: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        ENCODE[type(request_)](request_, ROW, False)
    assert caught.value.option == option


def test_a_url_says_how_to_have_it_fetched() -> None:
    with pytest.raises(UnsupportedOption, match="fetch=True"):
        transcribe_body(Transcribe(inputs=Audio(url="https://x.example/a.wav")), ROW, False)


def test_a_voice_is_named_by_the_request_or_by_the_row() -> None:
    assert json.loads(speak_body(PLAIN[Speak], ROW, False).body)["voice"] == "usual"
    assert json.loads(speak_body(VOICE, ROW, False).body)["voice"] == "alloy"
    with pytest.raises(UnsupportedOption) as caught:
        speak_body(PLAIN[Speak], replace(ROW, body={}), False)
    assert caught.value.option == "voice" and "body.voice" in str(caught.value)


def test_timestamps_need_a_card_that_lists_them_and_no_timestamps_need_nothing() -> None:
    bare = replace(ROW, features=[])
    for drop in (False, True):  # a transcription without its times is another answer
        with pytest.raises(UnsupportedOption):
            transcribe_body(with_option(Transcribe, "return_timestamps", drop=drop), bare, False)
    none = transcribe_body(replace(PLAIN[Transcribe], return_timestamps=False), bare, False)
    assert none == transcribe_body(PLAIN[Transcribe], bare, False)


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("audio/mpeg", "mp3"), ("audio/wav", "wav"), ("audio/flac", "flac"), ("audio/aac", "aac"), ("audio/opus", "opus"),
        ("audio/ogg;codecs=opus", "opus"), ("Audio/Ogg; Codecs=opus", "opus"), ("audio/L16", "pcm"),
        ("audio/L16;rate=24000", "pcm"),
    ],
)  # fmt: skip
def test_the_wanted_sound_is_named_as_the_api_names_it(media_type: str, name: str) -> None:
    sent = json.loads(speak_body(Speak(inputs="a", voice="v", media_type=media_type), ROW, False).body)
    assert sent["response_format"] == name


@pytest.mark.parametrize(("media_type", "ending"), [("audio/mpeg", "mp3"), ("audio/x-wav", "wav"), ("audio/AMR", "amr")])
def test_a_sound_s_file_name_tells_its_kind(server: LoopbackServer, media_type: str, ending: str) -> None:
    asked(server.url, Transcribe(inputs=Audio(data=b"1", media_type=media_type)))
    [file] = [part for part in parsed_form(server.requests[-1]) if part.name == "file"]
    assert file.file_name.endswith(f".{ending}") and (file.kind, file.content) == (media_type, b"1")


lines = st.sampled_from([b"\r\n", b"--", b"\r\n--", b'"', b"name=", b"\x00"]) | st.binary(max_size=8)


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3),
    st.lists(lines, max_size=8).map(b"".join),
)
def test_any_form_is_read_again(fields: dict[str, str], file: bytes) -> None:
    body, kind = form(fields, name="file", file_name="a.wav", file=file, media_type="audio/wav")
    assert form(fields, name="file", file_name="a.wav", file=file, media_type="audio/wav") == (body, kind)
    *read, last = parsed_form(Got(method="POST", path="/", query="", headers={"content-type": kind}, body=body, json=None))
    assert [part.text for part in read] == list(fields.values())
    assert last == FormPart(name="file", content=file, file_name="a.wav", kind="audio/wav")


def test_no_name_ends_its_quotes() -> None:
    body, kind = form({'a"\r\nb': "1"}, name="file", file_name='x"\r\n.wav', file=b"", media_type="audio/wav")
    first, last = parsed_form(Got(method="POST", path="/", query="", headers={"content-type": kind}, body=body, json=None))
    assert first.name == "a%22%0D%0Ab" and last.file_name == "x%22%0D%0A.wav"


def test_a_sound_that_holds_the_boundary_of_another_form_gets_its_own() -> None:
    body, kind = form({}, name="file", file_name="a", file=b"x", media_type="audio/wav")
    again, other = form({}, name="file", file_name="a", file=body, media_type="audio/wav")
    assert kind != other and other.rpartition("=")[2].encode() not in body and body in again


def test_a_boundary_that_the_content_holds_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter:
        """A hash whose values can be foreseen."""

        def __init__(self, digest_size: int) -> None:
            self.updates = 0

        def update(self, data: bytes) -> None:
            self.updates += 1

        def hexdigest(self) -> str:
            return f"mark{self.updates}"

    monkeypatch.setattr("hashlib.blake2b", Counter)
    _, kind = form({}, name="file", file_name="a", file=b"..mark2..mark3..", media_type="audio/wav")
    assert kind.endswith("boundary=mark4")


def test_every_option_of_a_task_is_tried() -> None:
    assert {task for task, _ in every_option(*TASKS)} == set(TASKS) <= set(OPTIONS)


def test_the_headers_of_forms_whose_boundaries_differ_are_not_all_kept() -> None:
    headers = Headers(ROW)
    headers.resolve(resources())
    for number in range(3 * MOST_KEPT):
        kind = f"multipart/form-data; boundary={number}"
        assert headers.of("", kind)["content-type"] == kind
    assert len(headers._by_key) == MOST_KEPT
    assert headers.of("", "application/json", "image/png")["accept"] == "image/png"
