"""Writing media: base64, data URLs, and the names that formats have for kinds of sound. No I/O."""

from __future__ import annotations

import base64
import re
from dataclasses import fields
from typing import Any

from gateway import Audio, Chat, File, Image, Media, Request

AUDIO_FORMATS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/flac": "flac", "audio/x-flac": "flac", "audio/ogg": "ogg",
    "audio/opus": "opus", "audio/aac": "aac", "audio/mp4": "mp4", "audio/webm": "webm", "audio/L16": "pcm",
}  # fmt: skip


def media_of(request: Request[Any]) -> list[Media]:
    """Every image, sound and document of a request."""
    if isinstance(request, Chat):
        values = [part for message in request.messages for part in message.parts]
    else:
        values = [getattr(request, f.name) for f in fields(request)]
    return [value for value in values if isinstance(value, (Image, Audio, File))]


def base64_of(media: Media) -> str:
    """The bytes in base64; empty for media that are a URL."""
    return base64.b64encode(media.data or b"").decode()


def data_url(media: Media) -> str:
    """The bytes as a data URL (RFC 2397)."""
    return f"data:{media.media_type};base64,{base64_of(media)}"


def file_name(media: Media, fallback: str = "file") -> str:
    """A name with an ending, for a format that tells the kind of a file by it."""
    name = media.name if isinstance(media, File) else ""
    kinds = AUDIO_FORMATS if isinstance(media, Audio) else {"application/pdf": "pdf", "text/plain": "txt"}
    ending = kinds.get(media.media_type) or re.sub(r"[^a-z0-9]+", "", media.media_type.partition("/")[2].lower())
    return name or f"{'image' if isinstance(media, Image) else fallback}.{ending or 'bin'}"


def schema_name(request: Chat) -> str:
    """A name for the answer's shape, as APIs want one."""
    shape = request.response_format
    title = shape.__name__ if isinstance(shape, type) else (shape or {}).get("title")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", title if isinstance(title, str) else "")[:64] or "answer"
