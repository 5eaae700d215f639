"""Replies of Hugging Face's task APIs as responses: JSON, or an image or a sound as raw bytes. No I/O.

Their shapes are those of `huggingface_hub.inference._generated.types`; and, since dedicated endpoints answer what a pipeline of
`transformers` returns, zero-shot classification also as ``{labels, scores}``, and a list within a list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gateway import (
    Answer,
    AnswerResponse,
    Audio,
    Box,
    Chunk,
    Classify,
    ClassifyImage,
    ClassifyResponse,
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
    Request,
    Span,
    Speak,
    SpeakResponse,
    Summarize,
    SummarizeResponse,
    Text,
    Transcribe,
    TranscribeResponse,
    Translate,
    TranslateResponse,
    Usage,
)
from gateway_remote.failures import payload_failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.kinds import sampling_rate, stated, told
from gateway_remote.formats.openai_reply import checked_vectors, vector_of
from gateway_remote.formats.values import bad, broken, estimate, holds_error, index, number, objects, string, unbase64, value_of


def classify_response(body: bytes, request: Classify | ClassifyImage, heard: Heard) -> ClassifyResponse:
    """The classes, the likeliest first, and no more than were asked for."""
    rows, model = rows_of(body, heard), heard.model
    first = rows[0] if rows else {}
    if isinstance(first.get("labels"), list) and isinstance(first.get("scores"), list):
        if len(first["labels"]) != len(first["scores"]):
            raise broken(model, "the reply does not hold one score a class")
        rows = [{"label": label, "score": score} for label, score in zip(first["labels"], first["scores"], strict=True)]
    labels = [Label(label=_text(row, "label", model), score=_score(row, model)) for row in rows]
    if not labels:
        raise broken(model, "the reply holds no classes")
    labels.sort(key=lambda label: -label.score)
    return ClassifyResponse(labels=tuple(labels[: request.top_k]), usage=usage_of(request, heard), quota=heard.quota)


def extract_response(body: bytes, request: Extract, heard: Heard) -> ExtractResponse:
    """The spans, in the text's order."""
    model = heard.model
    spans = [_span(row, model) for row in rows_of(body, heard)]
    spans.sort(key=lambda span: (span.start, span.end))
    return ExtractResponse(spans=tuple(spans), usage=usage_of(request, heard), quota=heard.quota)


def _span(row: Mapping[str, Any], model: str) -> Span:
    start, end = _place(row, model)
    kind = string(row.get("entity_group")) or _text(row, "entity", model)
    return Span(entity_group=kind, score=_score(row, model), word=_text(row, "word", model), start=start, end=end)


def answer_response(body: bytes, request: Answer, heard: Heard) -> AnswerResponse:
    """The answers, the best first. An empty one says that there is none."""
    answers = []
    for row in rows_of(body, heard):
        start, end = _place(row, heard.model)
        text = _text(row, "answer", heard.model)
        if text:
            answers.append(Found(answer=text, score=_score(row, heard.model), start=start, end=end))
    answers.sort(key=lambda found: -found.score)
    return AnswerResponse(answers=tuple(answers), usage=usage_of(request, heard), quota=heard.quota)


def summarize_response(body: bytes, request: Summarize, heard: Heard) -> SummarizeResponse:
    """The summary."""
    text = _text(_only(body, heard), "summary_text", heard.model)
    return SummarizeResponse(summary_text=text, usage=usage_of(request, heard, text), quota=heard.quota)


def translate_response(body: bytes, request: Translate, heard: Heard) -> TranslateResponse:
    """The translation."""
    text = _text(_only(body, heard), "translation_text", heard.model)
    return TranslateResponse(translation_text=text, usage=usage_of(request, heard, text), quota=heard.quota)


def embed_response(body: bytes, request: Embed, heard: Heard) -> EmbedResponse:
    """One vector per text. BadReply for one per token: that model does not pool them."""
    payload, model = _value(body, heard), heard.model
    if not isinstance(payload, list) or not payload:
        raise broken(model, "the reply holds no vectors")
    if len(request.texts) == 1 and not isinstance(payload[0], list):
        payload = [payload]
    if len(payload) != len(request.texts):
        raise bad(model, f"{len(payload)} vectors for {len(request.texts)} texts")
    if any(isinstance(row, list) and row and isinstance(row[0], list) for row in payload):
        raise bad(model, "a vector for each token, not one for each text: it is no model for sentences")
    vectors = checked_vectors([vector_of(row, model) for row in payload], request, model)
    return EmbedResponse(vectors=vectors, usage=usage_of(request, heard), quota=heard.quota)


def detect_objects_response(body: bytes, request: DetectObjects, heard: Heard) -> DetectObjectsResponse:
    """What was found, the surest first."""
    model = heard.model
    found = [
        Detected(label=_text(row, "label", model), score=_score(row, model), box=_box(row.get("box"), model))
        for row in rows_of(body, heard)
    ]
    found.sort(key=lambda each: -each.score)
    return DetectObjectsResponse(objects=tuple(found), usage=usage_of(request, heard), quota=heard.quota)


def transcribe_response(body: bytes, request: Transcribe, heard: Heard) -> TranscribeResponse:
    """The words, and their times where these were asked for."""
    payload, model = _only(body, heard), heard.model
    text = _text(payload, "text", model)
    pieces = objects(payload.get("chunks")) if request.return_timestamps else []
    chunks = tuple(_chunk(piece, model) for piece in pieces)
    return TranscribeResponse(text=text, chunks=chunks, usage=usage_of(request, heard, text), quota=heard.quota)


def _chunk(piece: Mapping[str, Any], model: str) -> Chunk:
    times = piece.get("timestamp")
    start, end = (_finite(times[0]), _finite(times[1])) if isinstance(times, list) and len(times) == 2 else (None, None)
    if start is None:
        raise broken(model, "a piece of the transcription without its time")
    return Chunk(text=_text(piece, "text", model), timestamp=(start, end))


def speak_response(body: bytes, request: Speak, heard: Heard) -> SpeakResponse:
    """The sound: the whole body, or base64 in JSON."""
    kind, model = stated(heard.headers), heard.model
    rate = sampling_rate(heard.headers)
    if "json" in kind or "html" in kind:
        payload = _only(body, heard)
        body, kind, rate = unbase64(payload.get("audio"), model), "", _finite(payload.get("sampling_rate"))
    kind = _kind(body, kind, "audio", request.media_type, model)
    audio = Audio(data=body, media_type=kind)
    return SpeakResponse(audio=audio, sampling_rate=rate, usage=usage_of(request, heard), quota=heard.quota)


def generate_image_response(body: bytes, request: GenerateImage, heard: Heard) -> GenerateImageResponse:
    """The image: the whole body, or base64 in JSON."""
    kind, model = stated(heard.headers), heard.model
    if "json" in kind or "html" in kind:
        payload = _value(body, heard)
        body, kind = unbase64(payload.get("image") if isinstance(payload, dict) else payload, model), ""
    image = Image(data=body, media_type=_kind(body, kind, "image", request.media_type, model))
    return GenerateImageResponse(images=(image,), usage=usage_of(request, heard), quota=heard.quota)


def rows_of(body: bytes, heard: Heard) -> list[dict[str, Any]]:
    """The objects of a reply: a list, a list within a list, or a single one. The error that it holds instead, or BadReply."""
    payload = _value(body, heard)
    if isinstance(payload, dict):
        return [payload]
    if isinstance(payload, list) and len(payload) == 1 and isinstance(payload[0], list):
        payload = payload[0]
    rows = objects(payload)
    if not isinstance(payload, list) or len(rows) != len(payload):
        raise broken(heard.model, "the reply is no list of objects")
    return rows


def usage_of(request: Request[Any], heard: Heard, text: str = "") -> Usage:
    """The tokens that text-embeddings-inference counts in a header; an estimate where no server does."""
    counted = heard.headers.get("x-compute-tokens", "")
    if counted.isascii() and counted.isdigit() and len(counted) < 16:
        return Usage(input_tokens=int(counted))
    return estimate(request, (Text(text),))


def _value(body: bytes, heard: Heard) -> Any:
    payload = value_of(body, heard)
    if isinstance(payload, dict) and holds_error(payload):
        raise payload_failure(payload, model=heard.model, headers=heard.headers, now_s=heard.now_s)
    return payload


def _only(body: bytes, heard: Heard) -> dict[str, Any]:
    rows = rows_of(body, heard)
    if not rows:
        raise broken(heard.model, "the reply is empty")
    return rows[0]


def _text(row: Mapping[str, Any], name: str, model: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise broken(model, f"the reply lacks {name!r}")
    return text


def _score(row: Mapping[str, Any], model: str) -> float:
    score = _finite(row.get("score"))
    if score is None:
        raise broken(model, "the reply lacks 'score'")
    return score


def _place(row: Mapping[str, Any], model: str) -> tuple[int, int]:
    start, end = index(row.get("start")), index(row.get("end"))
    if start is None or end is None:
        raise broken(model, "the reply does not say where in the text something stands")
    return start, end


def _box(wire: Any, model: str) -> Box:
    sides = {name: _finite(wire.get(name)) for name in ("xmin", "ymin", "xmax", "ymax")} if isinstance(wire, dict) else {}
    whole = {name: round(side) for name, side in sides.items() if side is not None}
    if len(whole) != 4:
        raise broken(model, "the reply lacks a side of a 'box'")
    return Box(**whole)


def _finite(value: Any) -> float | None:
    given = number(value)
    return given if given is not None and math.isfinite(given) else None


def _kind(data: bytes, stated_kind: str, family: str, wanted: str | None, model: str) -> str:
    """The media type of an image or a sound. BadReply when it is none."""
    if not data:
        raise broken(model, "the reply is empty")
    if stated_kind and not stated_kind.lower().startswith(f"{family}/"):
        raise broken(model, f"the reply is no {family}")
    seen = told(data)
    known = stated_kind or (seen if seen.startswith(f"{family}/") else "") or wanted
    if not known:
        raise bad(model, f"the reply does not say what kind of {family} it is")
    return known
