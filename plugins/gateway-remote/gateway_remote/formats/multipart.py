"""multipart/form-data: a form with one file, as bytes (RFC 7578). The same form is always the same bytes. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
"""What would end a quoted name (HTML, "Multipart form data")."""


def form(fields: Mapping[str, Any], *, name: str, file_name: str, file: bytes, media_type: str) -> tuple[bytes, str]:
    """The body and its content type: the fields first, then the file under `name`.

    A list becomes several fields called ``name[]`` and a mapping ``name[key]``, as OpenAI's API has them.
    """
    parts = [
        (f'content-disposition: form-data; name="{_quoted(key)}"', value.encode("utf-8", "replace"))
        for field, given in fields.items()
        for key, value in _flat(field, given)
    ]
    head = f'content-disposition: form-data; name="{_quoted(name)}"; filename="{_quoted(file_name)}"'
    parts.append((f"{head}\r\ncontent-type: {media_type}", file))
    boundary = _boundary([content for _, content in parts])
    out: list[bytes] = []
    for head, content in parts:
        out += [b"--", boundary, b"\r\n", head.encode(), b"\r\n\r\n", content, b"\r\n"]
    return b"".join([*out, b"--", boundary, b"--\r\n"]), f"multipart/form-data; boundary={boundary.decode()}"


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case None:
            return
        case bool():
            yield name, "true" if value else "false"
        case Mapping():
            for key, inner in value.items():
                yield from _flat(f"{name}[{key}]", inner)
        case list() | tuple():
            for inner in value:
                yield from _flat(f"{name}[]", inner)
        case _:
            yield name, str(value)


def _quoted(text: str) -> str:
    return text.translate(ESCAPES)


def _boundary(contents: list[bytes]) -> bytes:
    """A line that no content holds. It is a hash of them all, so that nobody can write a content that holds many."""
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(b"%d:" % len(content))
        digest.update(content)
    while any((boundary := digest.hexdigest().encode()) in content for content in contents):
        digest.update(b"again")
    return boundary
