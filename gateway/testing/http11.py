"""Reading HTTP/1.1 requests out of bytes, for the loopback server; nothing here touches a socket."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.testing.script import JSON, Refusal

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
EXPECTS = re.compile(rb"\r\nexpect: *100-continue\r\n(.*\r\n)*\r\n", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it arrived: `headers` by lower-case name, `json` the parsed body, None if it is none."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    json: Any


def read_request(unread: bytearray) -> tuple[Request, int] | None:
    """The first request in the bytes and its length, None until it is whole; a Refusal if it is not HTTP."""
    end = unread.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(unread) >= MAX_HEAD_BYTES:
            raise Refusal(431, f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.")
        return None
    first, *lines = unread[:end].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version != "HTTP/1.1" or not target.startswith("/"):
        raise Refusal(400, "The request line is not HTTP/1.1.")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        found = _unchunked(unread, end + 4)
    elif not (length.isascii() and length.isdigit()):
        raise Refusal(400, "The content-length is no number.")
    else:
        body_end = end + 4 + _capped(int(length))
        found = (bytes(unread[end + 4 : body_end]), body_end) if len(unread) >= body_end else None
    if found is None:
        return None
    path, _, query = target.partition("?")
    body, used = found
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    return Request(method=method, path=path, query=query, headers=headers, body=body, json=parsed), used


def _unchunked(unread: bytearray, at: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while (line_end := unread.find(b"\r\n", at, at + 1024)) >= 0:
        size_text = bytes(unread[at:line_end]).split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size_text):
            raise Refusal(400, "A chunk's size is no hexadecimal number.")
        size, start = int(size_text, 16), line_end + 2
        if size == 0:  # trailers may follow; an empty line ends the body
            end = unread.find(b"\r\n\r\n", line_end)
            return (bytes(body), end + 4) if end >= 0 else None
        _capped(len(body) + size)
        if len(unread) < start + size + 2:
            return None
        body += unread[start : start + size]
        at = start + size + 2
    return None


def _capped(size: int) -> int:
    if size > MAX_BODY_BYTES:
        raise Refusal(413, f"The body of the request is larger than {MAX_BODY_BYTES} bytes.")
    return size


def parsed(body: bytes) -> JSON:
    try:
        value = json.loads(body)
    except json.JSONDecodeError as where:
        message = f"Could not parse the JSON body: {where.msg} at line {where.lineno}, column {where.colno}."
        raise Refusal(400, message, code="invalid_json") from None
    except (UnicodeDecodeError, RecursionError) as why:
        raise Refusal(400, f"Could not parse the JSON body: {why}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal(400, "Could not parse the JSON body: expected an object at line 1, column 1.", code="invalid_json")
    return value
