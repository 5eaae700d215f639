"""A mock of an OpenAI-compatible server, as cheap as asyncio allows: every chat gets one and the same answer.

    python benchmarks/upstream.py [--port N] [--gap-ms MS]

Prints its base URL. A streamed answer is 256 chunks, sent at once, or with a gap between them.
"""

from __future__ import annotations

import argparse
import asyncio
import json

CHUNKS = 256
TOP = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "mock"}
USAGE = {"prompt_tokens": 215, "completion_tokens": 140, "total_tokens": 355}
TEXT = "The Rhine, the Nile and the Amazon. " * 20
WHOLE = {
    **TOP,
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": TEXT}, "logprobs": None, "finish_reason": "stop"},
    ],
    "usage": USAGE,
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: req_1\r\n%b\r\n\r\n"


def framed(data: bytes) -> bytes:
    """One event as one chunk of the transfer coding."""
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    """One chunk of a streamed answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return framed(json.dumps({**TOP, "object": "chat.completion.chunk", "choices": [choice]}).encode())


BODY = json.dumps(WHOLE).encode()
REPLY = HEAD % (b"application/json", b"content-length: %d" % len(BODY)) + BODY
BEGIN = HEAD % (b"text/event-stream", b"transfer-encoding: chunked")
USED = framed(json.dumps({**TOP, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}).encode())
EVENTS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": f"word {at} "}) for at in range(CHUNKS)),
    chunk({}, "stop"),
    USED,
    framed(b"[DONE]"),
]


class Connection(asyncio.Protocol):
    """Answers each request as soon as its body is there."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s, self._unread = gap_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """More of a request."""
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < end + 4 + size:
                return
            body, self._unread = self._unread[end + 4 : end + 4 + size], self._unread[end + 4 + size :]
            if b'"stream":true' not in body.replace(b": ", b":"):
                self._transport.write(REPLY)
            elif self._gap_s:
                self._task = asyncio.get_running_loop().create_task(self._slowly())
            else:
                self._transport.writelines([BEGIN, *EVENTS, b"0\r\n\r\n"])

    async def _slowly(self) -> None:
        self._transport.write(BEGIN)
        for event in EVENTS:
            self._transport.write(event)
            await asyncio.sleep(self._gap_s)
        self._transport.write(b"0\r\n\r\n")


async def serve(port: int, gap_s: float) -> None:
    """Answer until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(gap_s), "127.0.0.1", port, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.gap_ms / 1e3))
