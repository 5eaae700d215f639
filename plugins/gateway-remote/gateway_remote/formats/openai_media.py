"""OpenAI's images and sound: /images/generations, /audio/transcriptions (a form with a file), /audio/speech (raw bytes).

Truth: the `openai` package. A transcription tells its language and length only with timestamps (``verbose_json``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway import (
    Audio,
    Chunk,
    GenerateImage,
    GenerateImageResponse,
    Image,
    Request,
    Speak,
    SpeakResponse,
    Text,
    Transcribe,
    TranscribeResponse,
    Usage,
)
from gateway_remote.formats.api import Heard, Sending
from gateway_remote.formats.blocks import file_name
from gateway_remote.formats.body import Body
from gateway_remote.formats.kinds import bytes_of, sampling_rate, stated, told
from gateway_remote.formats.multipart import form
from gateway_remote.formats.openai_reply import usage_of
from gateway_remote.formats.values import bad, broken, estimate, number, object_of, objects, string, unbase64

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

IMAGE_FORMATS = {
    "image/png": "png", "image/webp": "webp", "image/jpeg": "jpeg", "image/gif": "gif", "image/svg+xml": "svg",
}  # fmt: skip
IMAGE_TYPES = {name: media_type for media_type, name in IMAGE_FORMATS.items()}
SPEECH_FORMATS = {
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/flac": "flac",
    "audio/aac": "aac", "audio/opus": "opus", "audio/ogg": "opus", "audio/ogg;codecs=opus": "opus", "audio/pcm": "pcm",
    "audio/l16": "pcm",
}  # fmt: skip
"""`response_format` by the wanted media type, without spaces and in lower case."""


def image_body(request: GenerateImage, row: ModelRow, stream: bool) -> Sending:
    """POST /images/generations."""
    body = Body(request, row, model=row.served_model, prompt=request.inputs)
    width, height = body.take("width"), body.take("height")
    if width is not None and height is not None:
        body.fields["size"] = f"{width}x{height}"
    if (media_type := body.take("media_type")) is not None:
        _choose(body, "output_format", media_type, IMAGE_FORMATS)
    body.carry({"n": "n"})
    return body.sending("/images/generations")


def image_response(body: bytes, request: GenerateImage, heard: Heard) -> GenerateImageResponse:
    """The images: bytes, or a URL where that is what the server gives; it is not fetched."""
    payload, model = object_of(body, heard), heard.model
    data = payload.get("data")
    if not isinstance(data, list):
        raise broken(model, "the reply holds no images")
    if len(data) != request.n:
        raise bad(model, f"{len(data)} images where {request.n} were wanted")
    kind = IMAGE_TYPES.get(string(payload.get("output_format")), "")
    images = tuple(_image(each, kind, request, model) for each in data)
    return GenerateImageResponse(images=images, usage=_usage(payload, request), quota=heard.quota)


def _image(wire: Any, kind: str, request: GenerateImage, model: str) -> Image:
    wire = wire if isinstance(wire, dict) else {}
    fallback = kind or request.media_type or "image/png"
    if wire.get("b64_json"):
        data = unbase64(wire["b64_json"], model)
        return Image(data=data, media_type=told(data) or fallback)
    if url := string(wire.get("url")):
        return Image(url=url, media_type=fallback)
    raise bad(model, "an image with neither bytes nor a URL")


def transcribe_body(request: Transcribe, row: ModelRow, stream: bool) -> Sending:
    """POST /audio/transcriptions."""
    body = Body(request, row, model=row.served_model)
    sound = bytes_of(body, request.inputs)
    if stamps := body.take("return_timestamps"):
        body.fields["response_format"] = "verbose_json"
        body.fields["timestamp_granularities"] = ["word" if stamps == "word" else "segment"]
    if (language := body.take("language")) is not None:
        if re.fullmatch("[a-z]{2,3}", language):
            body.fields["language"] = language
        else:
            body.refuse("language", "this API takes a code of ISO 639, such as de, without region or script")
    body.carry({"prompt": "prompt", "temperature": "temperature"})
    content, kind = form(
        {**row.body, **body.fields},
        name="file",
        file_name=file_name(request.inputs),
        file=sound,
        media_type=request.inputs.media_type,
    )
    return body.raw("/audio/transcriptions", content, kind)


def transcribe_response(body: bytes, request: Transcribe, heard: Heard) -> TranscribeResponse:
    """The words, and where timestamps were asked for the segments, or each word."""
    payload, model = object_of(body, heard), heard.model
    text = payload.get("text")
    if not isinstance(text, str):
        raise broken(model, "the reply holds no text")
    found: list[dict[str, Any]] = []
    if request.return_timestamps:
        found = objects(payload.get("words" if request.return_timestamps == "word" else "segments"))
    listed = next(iter(objects(payload.get("languages"))), {})
    usage = payload.get("usage")
    told_s = seconds(payload.get("duration"))
    if told_s is None and isinstance(usage, dict):
        told_s = seconds(usage.get("seconds"))
    return TranscribeResponse(
        text=text,
        chunks=tuple(_chunk(each, model) for each in found),
        language=string(payload.get("language")) or string(listed.get("code")),
        duration_s=told_s,
        usage=_usage(payload, request, text),
        quota=heard.quota,
    )


def _chunk(wire: Mapping[str, Any], model: str) -> Chunk:
    start, end = seconds(wire.get("start")), seconds(wire.get("end"))
    text = wire.get("word", wire.get("text"))
    if start is None or not isinstance(text, str):
        raise broken(model, "a piece of the transcription without its words or its time")
    return Chunk(text=text, timestamp=(start, end))


def seconds(value: Any) -> float | None:
    """A length or a time; vLLM writes it as a string."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}(\.[0-9]*)?", value):
        return float(value)
    given = number(value)
    return given if given is not None and 0 <= given < math.inf else None


def speak_body(request: Speak, row: ModelRow, stream: bool) -> Sending:
    """POST /audio/speech. A voice must be named: in the request, or by the row's `body`."""
    body = Body(request, row, model=row.served_model, input=request.inputs)
    body.carry({"voice": "voice", "instructions": "instructions", "speed": "speed"})
    if "voice" not in {*body.fields, *row.body}:
        body.fail("voice", "this API wants a voice: name one, or set body.voice in the model's row")
    if (media_type := body.take("media_type")) is not None:
        _choose(body, "response_format", media_type, SPEECH_FORMATS)
    return body.sending("/audio/speech")


def speak_response(body: bytes, request: Speak, heard: Heard) -> SpeakResponse:
    """The sound, which is the whole body."""
    kind = stated(heard.headers)
    if "json" in kind:
        object_of(body, heard)  # raises the error that it may hold
        raise broken(heard.model, "the reply is JSON, not a sound")
    if not body:
        raise broken(heard.model, "the reply is empty")
    if kind and not kind.lower().startswith("audio/"):
        raise broken(heard.model, "the reply is no sound: check base_url")
    audio = Audio(data=body, media_type=kind or request.media_type or told(body) or "audio/mpeg")
    return SpeakResponse(audio=audio, sampling_rate=sampling_rate(heard.headers), usage=estimate(request), quota=heard.quota)


def _choose(body: Body, field: str, media_type: str, known: Mapping[str, str]) -> None:
    exact = media_type.lower().replace(" ", "")
    plain = exact if "codecs=" in exact else exact.partition(";")[0]  # a rate is no other format, a codec is
    if name := known.get(exact) or known.get(plain):
        body.fields[field] = name
    else:
        body.refuse("media_type", f"this API makes {', '.join(dict.fromkeys(known.values()))}")


def _usage(payload: Mapping[str, Any], request: Request[Any], text: str = "") -> Usage:
    """The tokens where the server counts them; it may count seconds instead."""
    wire = payload.get("usage")
    given = [number(wire.get(name)) for name in ("input_tokens", "output_tokens")] if isinstance(wire, dict) else [None, None]
    if given[0] is not None and given[1] is not None and 0 <= given[0] < 1e15 and 0 <= given[1] < 1e15:
        return Usage(input_tokens=int(given[0]), output_tokens=int(given[1]))
    return usage_of(wire) or estimate(request, (Text(text),))
