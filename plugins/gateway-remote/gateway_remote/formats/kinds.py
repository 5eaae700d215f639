"""What bytes are: media types as headers state them, and as the first bytes of a file tell them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway import Audio, Image
from gateway_remote.formats.body import Body

WORD = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
MEDIA_TYPE = re.compile(rf"{WORD}/{WORD}(?: ?; ?{WORD}=(?:{WORD}|\"[A-Za-z0-9 ,._+-]*\"))*")
RATE = re.compile(r"; ?rate=([0-9]{1,7})", re.IGNORECASE)
STARTS: tuple[tuple[bytes, bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", b"", "image/png"),
    (b"\xff\xd8\xff", b"", "image/jpeg"),
    (b"GIF8", b"", "image/gif"),
    (b"RIFF", b"WEBP", "image/webp"),
    (b"RIFF", b"WAVE", "audio/wav"),
    (b"fLaC", b"", "audio/flac"),
    (b"OggS", b"", "audio/ogg"),
    (b"ID3", b"", "audio/mpeg"),
)
"""How a file of each kind begins, and what stands at its ninth byte."""


def stated(headers: Mapping[str, str]) -> str:
    """The media type of a body, without parameters; "" where the server states none, or only that it is bytes."""
    kind = headers.get("content-type", "").partition(";")[0].strip()
    return "" if kind.lower() in ("application/octet-stream", "binary/octet-stream") else kind


def sampling_rate(headers: Mapping[str, str]) -> float | None:
    """The ``rate`` of a sound's media type, in hertz (``audio/L16; rate=24000``, RFC 2586)."""
    found = RATE.search(headers.get("content-type", ""))
    return float(found[1]) if found else None


def told(data: bytes) -> str:
    """The media type of an image or a sound as its first bytes tell it; "" when they do not."""
    for start, ninth, kind in STARTS:
        if data.startswith(start) and data[8:].startswith(ninth):
            return kind
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:  # a frame of MPEG audio; layer 0 is AAC's
        return "audio/mpeg" if data[1] & 0x06 else "audio/aac"
    return ""


def bytes_of(body: Body, media: Image | Audio) -> bytes:
    """The bytes of a request's media. UnsupportedOption when they are a URL, or their type could not stand in a header."""
    if media.data is None:
        body.fail("inputs.url", f"this API takes the {media.type} as bytes: give them, or say fetch=True")
    if not MEDIA_TYPE.fullmatch(media.media_type):
        body.fail("inputs.media_type", "it is no media type such as image/png or audio/wav")
    return media.data
