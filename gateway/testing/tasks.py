"""Hugging Face's task APIs, as the loopback server speaks it.

A model's name says what it does: the last word of /hf-inference/models/ANYONE/TASK is a task by Hugging Face's name, and so is
that of a dedicated endpoint, /endpoint/TASK. Texts are echoed or scripted, everything else is reckoned from the input's bytes.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from gateway.testing.dialect import Asked, Dialect, Spoken, as_json
from gateway.testing.http11 import Request
from gateway.testing.media import png, said, timed, transcript, wav
from gateway.testing.script import JSON, Refusal, embed

PATH = re.compile(r"(?:/hf-inference/models/(?P<model>[^/]+/[^/]+)|/endpoint/(?P<task>[^/]+))(?P<pipeline>/pipeline/[^/]+)?")
PIPELINES = ("feature-extraction", "sentence-similarity")


class Tasks(Dialect):
    """Hugging Face's task APIs: the router's, and dedicated endpoints."""

    routes: ClassVar[Mapping[str, str]] = {}

    def takes(self, path: str) -> bool:
        return PATH.fullmatch(path) is not None

    def method(self, path: str) -> str:
        return "POST"

    def model(self, request: Request) -> str:
        found = PATH.fullmatch(request.path)
        return (found["model"] or found["task"] or "") if found else ""

    def speak(self, asked: Asked) -> Spoken:
        found = PATH.fullmatch(asked.request.path)
        assert found is not None
        task = self.model(asked.request).rpartition("/")[2]
        # The router has embeddings, and they alone, at a path of their own.
        at = f"/pipeline/{task}" if found["model"] and task in PIPELINES else ""
        if task not in ANSWERS or (found["pipeline"] or "") != at:
            raise Refusal(404, f"Model {self.model(asked.request)} not found")
        return ANSWERS[task](asked)

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSON:
        return {"error": message}


def _classify(asked: Asked) -> Spoken:
    text, parameters = _text(asked)
    return _json([_labels(text.encode("utf-8", "replace"), ("POSITIVE", "NEGATIVE", "NEUTRAL"))[: parameters.get("top_k")]])


def _zero_shot(asked: Asked) -> Spoken:
    text, parameters = _text(asked)
    labels = parameters.get("candidate_labels")
    if not isinstance(labels, list) or not labels:
        raise Refusal(400, "candidate_labels: field required")
    return _json(_labels(text.encode("utf-8", "replace"), labels))


def _extract(asked: Asked) -> Spoken:
    text, parameters = _text(asked)
    single = parameters.get("aggregation_strategy") == "none"
    label, name = ("B-MISC", "entity") if single else ("MISC", "entity_group")
    found = [] if label in (parameters.get("ignore_labels") or ()) else list(re.finditer(r"[A-Z]\w+", text))
    return _json([{name: label, "score": 0.9, "word": each[0], "start": each.start(), "end": each.end()} for each in found])


def _answer(asked: Asked) -> Spoken:
    inputs, parameters = _inputs(asked)
    if not isinstance(inputs, dict) or not all(isinstance(inputs.get(name), str) for name in ("question", "context")):
        raise Refusal(400, "inputs: question and context required")
    asked_for = {word.lower() for word in re.findall(r"\w+", inputs["question"])}
    words = [each for each in re.finditer(r"\w+", inputs["context"]) if each[0].lower() not in asked_for]
    words.sort(key=lambda each: (-len(each[0]), each.start()))
    most = parameters.get("top_k", 1)
    found = [
        {"answer": each[0], "score": 0.5**at, "start": each.start(), "end": each.end()}
        for at, each in enumerate(words[:most], 1)
    ]
    nothing = {"answer": "", "score": 0.5, "start": 0, "end": 0}
    return _json(found if most > 1 else next(iter(found), nothing))


def _summarize(asked: Asked) -> Spoken:
    return _json([{"summary_text": said(asked, "", _text(asked)[0])}])


def _translate(asked: Asked) -> Spoken:
    return _json([{"translation_text": said(asked, "", _text(asked)[0])}])


def _embed(asked: Asked) -> Spoken:
    given = {"model": "loopback", "input": asked.body.get("inputs", "")}
    given |= {name: value for name, value in asked.body.items() if name == "dimensions"}
    made = embed(given)
    return _json([row["embedding"] for row in made["data"]])


def _classify_image(asked: Asked) -> Spoken:
    data, parameters = _media(asked)
    return _json(_labels(data, ("cat", "dog", "river"))[: parameters.get("top_k")])


def _detect(asked: Asked) -> Spoken:
    data, parameters = _media(asked)
    found = [
        {**label, "box": {"xmin": 10 * at, "ymin": 5, "xmax": 10 * at + 8, "ymax": 25}}
        for at, label in enumerate(_labels(data, ("cat", "remote")))
    ]
    return _json([each for each in found if each["score"] >= parameters.get("threshold", 0.0)])


def _transcribe(asked: Asked) -> Spoken:
    data, parameters = _media(asked)
    stated = asked.request.headers.get("content-type", "")
    text = transcript(asked, "", data, "" if "json" in stated else stated)
    out: JSON = {"text": text}
    if parameters.get("return_timestamps"):
        out["chunks"] = [{"text": word, "timestamp": [start, end]} for word, start, end in timed(text)]
    return _json(out)


def _speak(asked: Asked) -> Spoken:
    return Spoken([wav(_text(asked)[0])], kind="audio/wav")


def _image(asked: Asked) -> Spoken:
    text, parameters = _text(asked)
    seen = f"{text} {parameters.get('seed', 0)} {parameters.get('negative_prompt', '')}"
    return Spoken([png(seen, parameters.get("width", 8), parameters.get("height", 8))], kind="image/png")


ANSWERS: Mapping[str, Callable[[Asked], Spoken]] = MappingProxyType(
    {
        "text-classification": _classify, "zero-shot-classification": _zero_shot, "token-classification": _extract,
        "question-answering": _answer, "summarization": _summarize, "translation": _translate, "feature-extraction": _embed,
        "image-classification": _classify_image, "object-detection": _detect, "automatic-speech-recognition": _transcribe,
        "text-to-speech": _speak, "text-to-image": _image,
    }
)  # fmt: skip


def _json(value: Any) -> Spoken:
    return Spoken([as_json(value)])


def _inputs(asked: Asked) -> tuple[Any, JSON]:
    body = asked.body
    parameters = body.get("parameters", {})
    if "inputs" not in body or not isinstance(parameters, dict):
        raise Refusal(400, "inputs: field required")
    return body["inputs"], parameters


def _text(asked: Asked) -> tuple[str, JSON]:
    inputs, parameters = _inputs(asked)
    if not isinstance(inputs, str):
        raise Refusal(400, "inputs: a string is required")
    return inputs, parameters


def _media(asked: Asked) -> tuple[bytes, JSON]:
    """The bytes of an image or a sound, raw or in JSON."""
    if "json" not in asked.request.headers.get("content-type", ""):
        if not asked.request.body:
            raise Refusal(400, "the body is empty")
        return asked.request.body, {}
    inputs, parameters = _inputs(asked)
    try:
        return base64.b64decode(inputs, validate=True), parameters
    except (binascii.Error, TypeError, ValueError):
        raise Refusal(400, "inputs: neither bytes nor base64") from None


def _labels(data: bytes, labels: Any) -> list[JSON]:
    """The labels, the likeliest first; their scores add up to 1."""
    weights = [1 + byte for byte in hashlib.shake_128(data).digest(len(labels))]
    scored = [{"label": label, "score": weight / sum(weights)} for label, weight in zip(labels, weights, strict=True)]
    return sorted(scored, key=lambda each: -each["score"])
