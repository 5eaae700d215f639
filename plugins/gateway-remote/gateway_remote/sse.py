"""Server-sent events, incrementally: bytes in, the events' data out (WHATWG HTML, 9.2.6). No I/O."""

from __future__ import annotations

MAX_LINE_BYTES = 32 << 20
BOM = b"\xef\xbb\xbf"


class LineTooLong(ValueError):
    """A line or an event that does not end: no server of events is at the other side."""


class EventReader:
    """Data of whole events from bytes cut anywhere, even inside a character or a line end.

    Only `data` matters here: comments (keepalives), `event`, `id` and `retry` are passed over. Bare JSON that is in no event is
    told at the end of the body: so Google says that a stream has failed (`google.genai`, `_RawJsonLineBuffer`).
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line that has not ended yet
        self._pending_bytes = 0
        self._data: list[bytes] = []  # lines of the event that has not ended yet
        self._data_bytes = 0
        self._bare: list[bytes] = []  # lines of JSON that is in no event
        self._bare_bytes = 0
        self._after_cr = False  # a line end "\r\n" may be cut in two
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if not chunk:
            return []
        # bytes.splitlines knows exactly the three line ends of the specification.
        lines = chunk.splitlines()
        last = chunk[-1]
        self._after_cr = last == 13
        rest = lines.pop() if last not in (10, 13) else b""
        out: list[bytes] = []
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._pending_bytes = 0
        for line in lines:
            self._line(line, out)
        if rest:
            self._pieces.append(rest)
            self._pending_bytes += len(rest)
            if self._pending_bytes > MAX_LINE_BYTES:
                raise LineTooLong(f"a line of more than {MAX_LINE_BYTES} bytes")
        return out

    def flush(self) -> list[bytes]:
        """What the end of the body completes: servers forget the last empty line."""
        out: list[bytes] = []
        if self._pieces:
            self._line(b"".join(self._pieces), out)
            self._pieces.clear()
        self._line(b"", out)
        if self._bare:
            out.append(b"\n".join(self._bare))
            self._bare.clear()
        return out

    def _line(self, line: bytes, out: list[bytes]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            self._data_bytes += len(line)
            if self._data_bytes > MAX_LINE_BYTES:
                raise LineTooLong(f"an event of more than {MAX_LINE_BYTES} bytes")
        elif not line and self._data:
            out.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data = []
            self._data_bytes = 0
        elif line and (self._bare or line[:1] in (b"{", b"[")):
            self._bare_bytes += len(line) + 1
            if self._bare_bytes > MAX_LINE_BYTES:
                raise LineTooLong(f"more than {MAX_LINE_BYTES} bytes that are no events")
            self._bare.append(line)
