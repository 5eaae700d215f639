"""The ways in which the loopback server fails, as pure functions from a reply to the bytes that are sent."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.testing.dialect import Dialect, as_event, as_json
from gateway.testing.script import Reply

PAGE = "<html><head><title>{0} {1}</title></head><body><h1>{0} {1}</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail, or several at once: `Fault(delay_s=0.1, status=503)`.

    `reply` is what breaks, in place of the server's own answer: `Fault(cut_after=2, reply=Reply(text="Hi"))`.

    `status` answers with that status and `body` (JSON, text or bytes; None: OpenAI's error), or an `html`
    page; `retry_after` is the header's value as it is sent. `delay_s` passes before anything else, the
    headers included. `reset` (RST) and `close` (EOF) end the connection before the headers. `hang_up` closes it
    after a reply that is whole, without having said so: what a server does with a connection that was idle for long.

    The `_after` fields count the payloads of a stream, 0 meaning right after the headers; a reply that is not
    streamed is one payload. `cut_after` ends the stream as if it were complete, without finish_reason or
    [DONE]; `drop_after` closes the connection in mid-reply, `reset_after` resets it, `stall_after` sends no
    more but keeps it open. `malformed_after` sends a line of broken JSON there; `error_after` an error as the
    last payload (`body`, or the server's own). `no_done` leaves out [DONE] only; `empty` sends no body;
    `truncated` breaks off half-way through the last payload. `split_bytes` sends the body in pieces of that
    many bytes; `keepalives` puts so many comment lines before a payload.
    """

    reply: Reply | None = None
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | str | None = None
    html: bool = False
    delay_s: float = 0.0
    first_chunk_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    reset: bool = False
    close: bool = False
    hang_up: bool = False
    cut_after: int | None = None
    drop_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    malformed_after: int | None = None
    error_after: int | None = None
    no_done: bool = False
    empty: bool = False
    truncated: bool = False
    split_bytes: int | None = None
    keepalives: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name == "split_bytes" else 0
            if isinstance(value, int | float) and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True)
class Outgoing:
    status: int
    headers: Mapping[str, str]
    payloads: list[bytes]  # the events of a stream without [DONE], or one body
    streams: bool
    kind: str = "application/json"


def failure(fault: Fault, headers: Mapping[str, str], dialect: Dialect) -> Outgoing:
    status, body = fault.status or 200, fault.body
    phrase = http.client.responses.get(status, "Unknown")
    if fault.html:
        return Outgoing(status, headers, [PAGE.format(status, phrase).encode()], False, "text/html")
    if isinstance(body, str | bytes):
        return Outgoing(status, headers, [body.encode() if isinstance(body, str) else body], False, "text/plain")
    return Outgoing(status, headers, [as_json(dialect.error(status, phrase) if body is None else body)], False)


def broken_up(answer: Outgoing, fault: Fault, dialect: Dialect) -> tuple[list[bytes], int, str]:
    """The pieces to send, the content-length to claim, and the end: whole, cut, drop, reset or stall."""
    sent = [] if fault.empty else list(answer.payloads)
    if fault.malformed_after is not None:
        at, half = fault.malformed_after, b'{"id": "chatcmpl-'
        sent = [*sent[:at], b"data: %b\n\n" % half, *sent[at:]] if answer.streams else [half]
    if fault.error_after is not None:
        told = "The server had an error while processing your request."
        kept, error = sent[: fault.error_after], fault.body
        if answer.streams:
            sent = [*kept, as_event(dialect.error_event(told) if error is None else error, dialect.error_name)]
        else:
            sent = [as_json(dialect.error(500, told) if error is None else error)]
    length = sum(map(len, sent))  # before anything is cut off, so that a client can tell
    named = ("cut", fault.cut_after), ("drop", fault.drop_after), ("reset", fault.reset_after)
    ends = (*named, ("stall", fault.stall_after))
    ending, kept_of = next(((end, after) for end, after in ends if after is not None), ("whole", None))
    sent = sent[:kept_of]
    if ending == "whole" and answer.streams and dialect.done and not (fault.no_done or fault.empty or fault.truncated):
        sent.append(dialect.done)
    if ending == "cut" and not answer.streams:
        ending = "drop"
    if fault.truncated and sent:
        sent[-1], ending = sent[-1][: len(sent[-1]) // 2], "drop"
    if answer.streams:
        sent = [b": keepalive\n\n" * fault.keepalives + each for each in sent]
    if fault.split_bytes is not None:
        joined, size = b"".join(sent), fault.split_bytes
        sent = [joined[at : at + size] for at in range(0, len(joined), size)]
    return sent, length, ending


def head(answer: Outgoing, fault: Fault, length: int) -> bytes:
    status, reason = answer.status, http.client.responses.get(answer.status, "Unknown")
    headers = {"content-type": answer.kind}
    if answer.streams:
        headers |= {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "transfer-encoding": "chunked",
        }
    else:
        headers["content-length"] = str(length)
    headers |= {name.lower(): value for name, value in {**answer.headers, **fault.headers}.items()}
    if fault.retry_after is not None:
        headers["retry-after"] = str(fault.retry_after).removesuffix(".0")
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
