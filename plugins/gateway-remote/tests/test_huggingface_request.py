"""Hugging Face's tasks: what the `huggingface_hub` client sends, we send, and to where it would."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import pytest
from gateway_remote.config import ModelRow
from gateway_remote.formats.huggingface import API
from huggingface_hub import InferenceClient, constants
from huggingface_hub.inference._providers import get_provider_helper
from tasks_case import (
    ALL,
    KEY,
    KEY_REF,
    OPTIONS,
    PICTURE,
    PLAIN,
    PNG,
    SOUND,
    TEXT,
    WAV,
    asked_hf,
    every_option,
    hf_sdk,
    with_option,
)

from gateway import (
    Answer,
    Audio,
    Classify,
    ClassifyImage,
    DetectObjects,
    Embed,
    Extract,
    GenerateImage,
    Image,
    Request,
    Speak,
    Summarize,
    Transcribe,
    Translate,
    UnsupportedOption,
    parse_config,
)
from gateway.testing import LoopbackServer

TASKS: dict[type[Request[Any]], str] = {
    Classify: "text-classification", Extract: "token-classification", Answer: "question-answering",
    Summarize: "summarization", Translate: "translation", Embed: "feature-extraction",
    ClassifyImage: "image-classification", DetectObjects: "object-detection", GenerateImage: "text-to-image",
    Transcribe: "automatic-speech-recognition", Speak: "text-to-speech",
}  # fmt: skip
ROW = ModelRow(name="m", api="huggingface", base_url="http://h", tasks=[task.task for task in TASKS], features=ALL)
LABELS = ["travel", "food"]
Ask = Callable[[InferenceClient, Path], Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)
    # Pillow is not there to open the image: what it is made of is enough.
    monkeypatch.setattr("huggingface_hub.inference._client._bytes_to_image", lambda data: data)


@pytest.fixture
def media(tmp_path: Path) -> Iterator[Path]:
    """A picture and a sound as files: of those the client states the kind."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.wav").write_bytes(WAV)
    yield tmp_path


CALLS: list[tuple[Request[Any], str, Ask]] = [
    (PLAIN[Classify], "", lambda c, at: c.text_classification(TEXT)),
    (Classify(inputs=TEXT, top_k=2, function_to_apply="none"), "",
     lambda c, at: c.text_classification(TEXT, top_k=2, function_to_apply="none")),
    (Classify(inputs=TEXT, candidate_labels=("travel", "food"), multi_label=False), "zero-shot-classification",
     lambda c, at: c.zero_shot_classification(TEXT, LABELS)),
    (Classify(inputs=TEXT, candidate_labels=("travel", "food"), multi_label=True, hypothesis_template="About {}."),
     "zero-shot-classification",
     lambda c, at: c.zero_shot_classification(TEXT, LABELS, multi_label=True, hypothesis_template="About {}.")),
    (PLAIN[Extract], "", lambda c, at: c.token_classification(TEXT)),
    (Extract(inputs=TEXT, aggregation_strategy="max", ignore_labels=(), stride=2), "",
     lambda c, at: c.token_classification(TEXT, aggregation_strategy="max", ignore_labels=[], stride=2)),
    (PLAIN[Answer], "", lambda c, at: c.question_answering("Where did he fly?", TEXT)),
    (replace(PLAIN[Answer], **OPTIONS[Answer]), "",
     lambda c, at: c.question_answering("Where did he fly?", TEXT, **OPTIONS[Answer])),
    (PLAIN[Summarize], "", lambda c, at: c.summarization(TEXT)),
    (replace(PLAIN[Summarize], **OPTIONS[Summarize]), "", lambda c, at: c.summarization(TEXT, **OPTIONS[Summarize])),
    (PLAIN[Translate], "", lambda c, at: c.translation(TEXT)),
    (replace(PLAIN[Translate], **OPTIONS[Translate]), "", lambda c, at: c.translation(TEXT, **OPTIONS[Translate])),
    (PLAIN[Embed], "", lambda c, at: c.feature_extraction(["a cat", "a dog"])),
    (Embed(texts=("a cat",), dimensions=4), "", lambda c, at: c.feature_extraction(["a cat"], dimensions=4)),
    (PLAIN[ClassifyImage], "", lambda c, at: c.image_classification(at / "a.png")),
    (replace(PLAIN[ClassifyImage], **OPTIONS[ClassifyImage]), "",
     lambda c, at: c.image_classification(at / "a.png", **OPTIONS[ClassifyImage])),
    (PLAIN[DetectObjects], "", lambda c, at: c.object_detection(at / "a.png")),
    (DetectObjects(inputs=PICTURE, threshold=0.25), "", lambda c, at: c.object_detection(at / "a.png", threshold=0.25)),
    (Transcribe(inputs=Audio(data=WAV, media_type=guess_type("a.wav")[0] or "")), "",
     lambda c, at: c.automatic_speech_recognition(at / "a.wav")),
    (Transcribe(inputs=SOUND, return_timestamps=True, generation_parameters={"num_beams": 2}), "",
     lambda c, at: c.automatic_speech_recognition(
         at / "a.wav", extra_body={"return_timestamps": True, "generation_parameters": {"num_beams": 2}})),
    (PLAIN[Speak], "", lambda c, at: c.text_to_speech("Hello there.")),
    (Speak(inputs="Hello there.", generation_parameters={"num_beams": 2}), "",
     lambda c, at: c.text_to_speech("Hello there.", extra_body={"generation_parameters": {"num_beams": 2}})),
    (PLAIN[GenerateImage], "", lambda c, at: c.text_to_image("a red square")),
    (GenerateImage(inputs="a", width=32, height=16, negative_prompt="", guidance_scale=2.5, num_inference_steps=3,
                   scheduler="euler", seed=7), "",
     lambda c, at: c.text_to_image("a", width=32, height=16, negative_prompt="", guidance_scale=2.5, num_inference_steps=3,
                                   scheduler="euler", seed=7)),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "task", "ask"), CALLS, ids=lambda value: getattr(value, "task", ""))
def test_what_the_client_sends_we_send(
    server: LoopbackServer, media: Path, request_: Request[Any], task: str, ask: Ask
) -> None:
    task = task or TASKS[type(request_)]
    ask(hf_sdk(server, task), media)
    asked_hf(server, request_, task)
    theirs, ours = server.requests
    assert (ours.method, ours.path) == (theirs.method, theirs.path) == ("POST", f"/endpoint/{task}")
    assert ours.json == theirs.json and (ours.json is not None or ours.body == theirs.body)
    for name in ("authorization", "content-type", "accept"):
        assert ours.headers[name] == theirs.headers[name], name


def test_every_task_is_compared() -> None:
    assert {type(request) for request, _, _ in CALLS} == set(TASKS) == set(API.routes)


@pytest.mark.parametrize("task", TASKS)
def test_the_router_s_path_is_the_client_s(task: type[Request[Any]]) -> None:
    helper = get_provider_helper("hf-inference", task=TASKS[task], model="an/id")
    row = replace(ROW, base_url=constants.INFERENCE_PROXY_TEMPLATE.format(provider="hf-inference"), model="an/id")
    assert row.base_url + sent(PLAIN[task], row).path == helper._prepare_url("key", "an/id")  # type: ignore[attr-defined]


def sent(request: Request[Any], row: ModelRow = ROW) -> Any:
    return API.routes[type(request)].encode(request, row, False)


def test_where_a_row_s_model_is() -> None:
    router = replace(ROW, base_url="https://router.huggingface.co/hf-inference", name="an/id")
    assert sent(PLAIN[Classify], router).path == "/models/an/id"
    assert sent(PLAIN[Classify], replace(router, model="other/id")).path == "/models/other/id"
    assert sent(PLAIN[Classify], replace(ROW, base_url="https://x.endpoints.example")).path == ""
    assert sent(PLAIN[Embed], replace(ROW, base_url="https://x.endpoints.example")).path == ""
    assert sent(PLAIN[Classify], replace(ROW, base_url="https://proxy.example", model="an/id")).path == "/models/an/id"
    assert sent(PLAIN[Classify], replace(router, model="an/i d?x#y")).path == "/models/an/i%20d%3Fx%23y"


def test_the_preset_is_the_router() -> None:
    given = ModelRow.filled({"name": "an/id", "preset": "huggingface-tasks", "tasks": ["classify"]})
    row = parse_config(ModelRow, given, "model")
    assert row.base_url + sent(PLAIN[Classify], row).path == "https://router.huggingface.co/hf-inference/models/an/id"
    assert row.provider_name == "huggingface" and row.key == "env:HF_TOKEN"


REFUSED: dict[type[Request[Any]], set[str]] = {
    Classify: set(), GenerateImage: {"n"}, Transcribe: {"language", "prompt"}, Speak: {"voice", "speed", "instructions"},
}  # fmt: skip


@pytest.mark.parametrize(("task", "name"), every_option(*TASKS))
def test_every_option_is_carried_or_named(task: type[Request[Any]], name: str) -> None:
    request, plain = with_option(task, name), sent(PLAIN[task])
    if name not in REFUSED.get(task, ()):
        sending = sent(request)
        assert not sending.dropped and (sending.body != plain.body or name == "media_type")
        return
    with pytest.raises(UnsupportedOption) as caught:
        sent(request)
    assert caught.value.option == name and caught.value.model == "m"
    dropping = with_option(task, name, drop=True)
    if name == "n":  # the answer would be another one
        with pytest.raises(UnsupportedOption):
            sent(dropping)
    else:
        assert list(sent(dropping).dropped) == [name]


def test_what_cannot_go_with_labels_to_choose_from_is_named() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        sent(Classify(inputs=TEXT, candidate_labels=("a", "b"), function_to_apply="softmax"))
    assert caught.value.option == "function_to_apply"


def test_the_best_of_the_labels_to_choose_from_are_picked_here_for_that_task_has_no_such_parameter() -> None:
    request = Classify(inputs=TEXT, candidate_labels=("a", "b"), top_k=1)
    sending = sent(request)
    assert json.loads(sending.body)["parameters"] == {"candidate_labels": ["a", "b"]} and not sending.dropped


def test_how_many_classes_come_back_is_no_sampling_and_needs_no_feature() -> None:
    bare = replace(ROW, features=[])
    assert json.loads(sent(Classify(inputs=TEXT, top_k=2), bare).body)["parameters"] == {"top_k": 2}
    assert json.loads(sent(replace(PLAIN[Answer], top_k=2), bare).body)["parameters"] == {"top_k": 2}


@pytest.mark.parametrize(
    ("task", "name"),
    [(Classify, "candidate_labels"), (Transcribe, "return_timestamps"), (GenerateImage, "seed"), (Embed, "dimensions")],
)
def test_what_the_card_does_not_list_is_not_sent(task: type[Request[Any]], name: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        sent(with_option(task, name), replace(ROW, features=[]))
    assert caught.value.option == name


@pytest.mark.parametrize("task", [ClassifyImage, DetectObjects, Transcribe])
def test_media_by_url_say_how_to_have_them_fetched(task: type[Request[Any]]) -> None:
    part = Audio(url="https://x.example/a") if task is Transcribe else Image(url="https://x.example/a")
    with pytest.raises(UnsupportedOption, match="fetch=True") as caught:
        sent(replace(PLAIN[task], inputs=part))
    assert caught.value.option == "inputs.url"


def test_a_media_type_cannot_smuggle_a_header_in() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        sent(ClassifyImage(inputs=Image(data=PNG, media_type="image/png\r\nx: y")))
    assert caught.value.option == "inputs.media_type"


def test_a_temperature_is_one_of_the_generation_parameters() -> None:
    request = Transcribe(inputs=SOUND, temperature=0.5, generation_parameters={"num_beams": 2})
    assert json.loads(sent(request).body)["parameters"] == {"generation_parameters": {"num_beams": 2, "temperature": 0.5}}
    assert request.generation_parameters == {"num_beams": 2}


def test_the_wanted_form_is_what_is_accepted(server: LoopbackServer) -> None:
    asked_hf(server, Speak(inputs="Hi", media_type="audio/flac"), "text-to-speech")
    assert server.requests[-1].headers["accept"] == "audio/flac"
    asked_hf(server, GenerateImage(inputs="Hi", media_type="image/webp"), "text-to-image")
    assert server.requests[-1].headers["accept"] == "image/webp"


def test_what_a_row_adds_stands_beside_the_request_s_own() -> None:
    row = replace(ROW, body={"parameters": {"top_k": 1, "function_to_apply": "none"}, "extra": 1})
    assert json.loads(sent(Classify(inputs=TEXT, top_k=2), row).body) == {
        "inputs": TEXT, "extra": 1, "parameters": {"top_k": 2, "function_to_apply": "none"},
    }  # fmt: skip
    embedding = json.loads(sent(PLAIN[Embed], replace(ROW, body={"normalize": True})).body)
    assert embedding == {"inputs": ["a cat", "a dog"], "normalize": True}
    picture = json.loads(sent(PLAIN[ClassifyImage], replace(ROW, body={"parameters": {"top_k": 1}})).body)
    assert picture == {"inputs": base64.b64encode(PNG).decode(), "parameters": {"top_k": 1}}
