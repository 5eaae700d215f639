"""OpenAI's images and sound, and rerank as Cohere and Jina have it, as the loopback server speaks it.

Its images are real PNGs of one colour, its WAVs real ones of silence. Sound in another format only begins as one does.
"""

import base64
import hashlib
import io
import re
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.testing.dialect import Asked, Dialect, Spoken, as_json, said_by
from gateway.testing.http11 import Request
from gateway.testing.script import CREATED, JSON, Refusal, required, tokens

WORD_S = 0.5
"""How long each word of a transcription lasts, in seconds; five words are a segment."""
SPEECH: Mapping[str, tuple[str, bytes]] = {
    "mp3": ("audio/mpeg", b"ID3\x04\x00"), "opus": ("audio/opus", b"OggS\x00"), "aac": ("audio/aac", b"\xff\xf1"),
    "flac": ("audio/flac", b"fLaC"), "pcm": ("audio/pcm", b""), "wav": ("audio/wav", b""),
}  # fmt: skip


class Media(Dialect):
    """OpenAI's images and sound, and rerank: /v1/rerank answers as Jina and vLLM do, /v2/rerank as Cohere does."""

    routes: ClassVar[Mapping[str, str]] = {
        "/v1/images/generations": "POST", "/v1/audio/transcriptions": "POST", "/v1/audio/speech": "POST",
        "/v1/rerank": "POST", "/v2/rerank": "POST",
    }  # fmt: skip

    def model(self, request: Request) -> str:
        if request.json is not None:
            return super().model(request)
        try:
            return text_of(parsed_form(request), "model")
        except Refusal:
            return ""

    def speak(self, asked: Asked) -> Spoken:
        match asked.request.path:
            case "/v1/images/generations":
                return Spoken([as_json(images(asked.body, usage=asked.reply.usage if asked.reply else None))])
            case "/v1/audio/transcriptions":
                return Spoken([as_json(transcribed(asked))])
            case "/v1/audio/speech":
                data, kind = spoken(asked.body)
                return Spoken([data], kind=kind)
        return Spoken([as_json(reranked(asked.body, cohere=asked.request.path == "/v2/rerank"))])


def images(body: JSON, *, usage: Mapping[str, Any] | None = None) -> JSON:
    """The reply to POST /images/generations."""
    required(body, "model", str)
    prompt, count, size = required(body, "prompt", str), body.get("n", 1), body.get("size", "64x64")
    sides = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", size) if isinstance(size, str) else None
    if not isinstance(count, int) or not 1 <= count <= 10:
        raise Refusal(400, "Invalid 'n': from 1 to 10.", param="n", code="invalid_value")
    if sides is None:
        raise Refusal(400, "Invalid 'size': WIDTHxHEIGHT.", param="size", code="invalid_value")
    if body.get("output_format", "png") != "png":
        raise Refusal(400, "Invalid 'output_format': this server makes PNGs.", param="output_format", code="invalid_value")
    made = [png(f"{prompt} {at}", int(sides[1]), int(sides[2])) for at in range(count)]
    heard = len(tokens(prompt))
    counted = {
        "input_tokens": heard,
        "input_tokens_details": {"text_tokens": heard, "image_tokens": 0},
        "output_tokens": 100 * count,
        "total_tokens": heard + 100 * count,
    }
    return {
        "created": CREATED, "output_format": "png", "size": size,
        "data": [{"b64_json": base64.b64encode(each).decode()} for each in made],
        "usage": counted if usage is None else dict(usage),
    }  # fmt: skip


def transcribed(asked: Asked) -> JSON:
    """The reply to POST /audio/transcriptions, which says back what kind of sound came."""
    parts = parsed_form(asked.request)
    sound = next((part for part in parts if part.name == "file"), None)
    model, form = text_of(parts, "model"), text_of(parts, "response_format") or "json"
    for name, value in (("model", model), ("file", sound)):
        if not value:
            raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if form not in ("json", "verbose_json"):
        raise Refusal(400, "Invalid 'response_format': json or verbose_json.", param="response_format", code="invalid_value")
    stamps = [part.text for part in parts if part.name == "timestamp_granularities[]"]
    if stamps and form != "verbose_json":
        raise Refusal(400, "Invalid 'timestamp_granularities[]'.", param="timestamp_granularities[]", code="invalid_value")
    assert sound is not None
    text = transcript(asked, model, sound.content, sound.kind)
    words = list(timed(text))
    lasts = WORD_S * len(words)
    if form == "json":
        heard, told = len(sound.content), len(tokens(text))
        usage = {"type": "tokens", "input_tokens": heard, "output_tokens": told, "total_tokens": heard + told}
        return {"text": text, "usage": usage}
    out: JSON = {"task": "transcribe", "language": "english", "duration": lasts, "text": text}
    if "word" in stamps:
        out["words"] = [{"word": word, "start": start, "end": end} for word, start, end in words]
    if "segment" in stamps or not stamps:
        out["segments"] = [_segment(at, words[at : at + 5]) for at in range(0, len(words), 5)]
    return {**out, "usage": {"type": "duration", "seconds": lasts}}


def _segment(at: int, words: Sequence[tuple[str, float, float]]) -> JSON:
    return {
        "id": at // 5, "seek": 0, "start": words[0][1], "end": words[-1][2], "text": " ".join(word for word, _, _ in words),
        "tokens": [], "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0,
    }  # fmt: skip


def transcript(asked: Asked, model: str, sound: bytes, kind: str) -> str:
    """What was "said" in a sound: its kind and size, or the script's words."""
    heard = f"{len(sound)} bytes of {kind or 'sound'}"
    return said(asked, model, heard)


def said(asked: Asked, model: str, text: str) -> str:
    """What the server says to a text: the script's words, or an echo."""
    made = said_by(asked, {"model": model or "loopback", "messages": [{"role": "user", "content": text}]})
    return str(made["choices"][0]["message"]["content"] or "")


def timed(text: str) -> list[tuple[str, float, float]]:
    """The words of a text, and when each begins and ends."""
    return [(word, at * WORD_S, (at + 1) * WORD_S) for at, word in enumerate(text.split())]


def spoken(body: JSON) -> tuple[bytes, str]:
    """The reply to POST /audio/speech, and its content type."""
    text = required(body, "input", str)
    for name in ("model", "voice"):
        required(body, name, str)
    form = body.get("response_format", "mp3")
    if form not in SPEECH:
        raise Refusal(400, "Invalid 'response_format'.", param="response_format", code="invalid_value")
    if not 0.25 <= body.get("speed", 1.0) <= 4:
        raise Refusal(400, "Invalid 'speed': from 0.25 to 4.0.", param="speed", code="invalid_value")
    kind, start = SPEECH[form]
    return (wav(text) if form == "wav" else start + hashlib.shake_128(text.encode("utf-8", "replace")).digest(64)), kind


def reranked(body: JSON, *, cohere: bool) -> JSON:
    """The reply to POST /rerank: the more words of the query a document has, and the fewer others, the better."""
    model, query, documents = required(body, "model", str), required(body, "query", str), required(body, "documents", list)
    if not documents or not all(isinstance(document, str) for document in documents):
        raise Refusal(400, "Invalid 'documents': strings.", param="documents", code="invalid_value")
    wanted = set(_words(query))
    scores = [_shared(wanted, set(_words(document))) for document in documents]
    order = sorted(range(len(documents)), key=lambda at: -scores[at])[: body.get("top_n")]
    results: list[JSON] = [{"index": at, "relevance_score": scores[at]} for at in order]
    if cohere:
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        return {"id": "rerank-1", "results": results, "meta": meta}
    for result in results:
        result["document"] = {"text": documents[result["index"]]}
    heard = sum(map(len, map(tokens, [query, *documents])))
    usage = {"prompt_tokens": heard, "total_tokens": heard}
    return {"id": "rerank-1", "model": model, "results": results, "usage": usage}


def _shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def png(text: str, width: int = 8, height: int = 8) -> bytes:
    """A PNG of one colour, which the text chooses."""
    colour = hashlib.shake_128(text.encode("utf-8", "replace")).digest(3)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\x00" + colour * width) * height, 1)
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def wav(text: str, rate: int = 8000) -> bytes:
    """A WAV of silence, the longer the more words."""
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(rate)
        sound.writeframes(b"\x80" * (rate // 50) * len(text.split()))
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class FormPart:
    """One field of a form; `file_name` and `kind` where it is a file."""

    name: str
    content: bytes
    file_name: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


def parsed_form(request: Request) -> list[FormPart]:
    """The fields of a multipart form (RFC 7578). A Refusal when it is none."""
    stated = request.headers.get("content-type", "")
    found = re.search(r'boundary="?([^";]+)"?', stated)
    if not stated.startswith("multipart/form-data") or found is None:
        raise Refusal(400, "Expected multipart/form-data with a boundary.", code="invalid_form")
    line = b"\r\n--" + found[1].encode("latin-1")
    first, *pieces = (b"\r\n" + request.body).split(line)
    if first or not pieces or not pieces[-1].startswith(b"--"):
        raise Refusal(400, "The form is not whole.", code="invalid_form")
    out = []
    for piece in pieces[:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace")
        name, file_name = re.search(r'[; ]name="([^"]*)"', lines), re.search(r'filename="([^"]*)"', lines)
        kind = re.search(r"content-type: *([^\r]*)", lines, re.IGNORECASE)
        out.append(
            FormPart(
                name=name[1] if name else "",
                content=content,
                file_name=file_name[1] if file_name else "",
                kind=kind[1] if kind else "",
            )
        )
    return out


def text_of(parts: Sequence[FormPart], name: str) -> str:
    """The text of a form's field, "" when it is not there."""
    return next((part.text for part in parts if part.name == name), "")
