"""BatchJournal: what a batch was answered, in a file, so that it goes on where it was killed.

JSON lines, one for each request that is done, in the order in which they were:

    {"key": SHA-256 of request and need, "nth": how many equal ones came before it, "response" or "error": the wire form}

Whoever has the file has the answers (of the requests only the hash): it is created readable by its owner alone. An answered
request is not asked again; a failed one is, and then its later line counts. The key is of the request's wire form without its
meta; responses and errors are without the decision behind them, which would outweigh them. A last line that was cut short, as
kill -9 or a full disk can, is taken away; any other damage is a ConfigError. Lines reach the operating system at once, and
the disk when it sees fit: they survive the process, the last ones perhaps not the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from gateway.card import Need
from gateway.errors import ConfigError, GatewayError, InvalidRequest, told
from gateway.record import need_json, text
from gateway.request import Request, Response
from gateway.wire import Wire, from_wire, to_wire

try:
    import fcntl
except ImportError:  # no POSIX: there two processes are not kept apart
    fcntl = None  # type: ignore[assignment]

HEAD = b'{"key":"'
"""How every line begins."""


class BatchJournal:
    """The file of one batch. Only `read` may take long; it changes nothing but this, and may be called in a thread."""

    def __init__(self, path: Path, need: Need) -> None:
        self._path = path
        self._need = need_json(need)
        self._seen: dict[str, int] = {}
        self._answered: dict[str, int] = {}  # where its line begins
        self._end = 0
        self._file = -1

    @property
    def held(self) -> int:
        """How many requests `read` found to be answered."""
        return len(self._answered)

    def open(self) -> None:
        """Have the file for this batch alone. ConfigError when another one has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with self._naming():
            self._file = os.open(self._path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise ConfigError(f"journal {str(self._path)!r} is no regular file")
            try:
                if fcntl is not None:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"journal {str(self._path)!r} is in use by another batch: wait for it, or take another file"
                raise ConfigError(message) from None

    def read(self) -> None:
        """Learn what has been answered. ConfigError names a damaged line."""
        with self._naming(), self._reading(0) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and (line.startswith(HEAD) or HEAD.startswith(line)):
                    break
                try:
                    kept = json.loads(line)
                except (ValueError, RecursionError):
                    kept = None
                match kept:
                    case {"key": str(key), "nth": int(nth), "response": dict()}:
                        self._answered[f"{key}/{nth}"] = self._end
                    case {"key": str(key), "nth": int(nth), "error": dict()}:
                        self._answered.pop(f"{key}/{nth}", None)
                    case _:
                        raise self._damaged(number)
                self._end += len(line)

    def mend(self) -> None:
        """Take away the last line where it was cut short."""
        with self._naming():
            os.ftruncate(self._file, self._end)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def key(self, request: Request[Any]) -> str:
        """What the request goes by, the next time too; each of several equal ones has its own. InvalidRequest: it has none."""
        try:
            wire = to_wire(request)
            del wire["meta"]
            for f in fields(request):
                if isinstance(getattr(request, f.name), (set, frozenset)):
                    wire[f.name] = sorted(wire[f.name], key=text)  # a set's order is another in each process
            told_of = text({"request": wire, "need": self._need}).encode("utf-8", "surrogatepass")
        except Exception as error:
            what = f"a {type(request).__name__} has no wire form, by which a journal knows it: {told(error)}"
            raise InvalidRequest(what, field="request") from None
        key = hashlib.sha256(told_of).hexdigest()
        nth = self._seen.get(key, 0)
        self._seen[key] = nth + 1
        return f"{key}/{nth}"

    def answer(self, key: str, request: Request[Any]) -> Response | None:
        """What an earlier run was answered. None: it was not, or with what does not fit the request any more."""
        at = self._answered.get(key)
        if at is None:
            return None
        with self._naming(), self._reading(at) as file:
            line = file.readline()
        try:
            kept = json.loads(line)
            same = f"{kept['key']}/{kept['nth']}" == key
            found = from_wire(kept["response"])
        except InvalidRequest:
            found = None
        except (ValueError, RecursionError, LookupError, TypeError):
            same = False
        if not same:
            what = f"journal {str(self._path)!r} has been changed by others while it is in use: begin the batch again"
            raise ConfigError(what)
        if not isinstance(found, type(request).response):
            with self._naming(), self._reading(0) as file:
                raise self._damaged(next(number for number, _ in enumerate(file, 1) if file.tell() > at))
        try:
            return request.accept(found)
        except Exception:  # it may raise anything: whoever wrote the class says what fits
            return None

    def write(self, key: str, result: Response | GatewayError, task: str) -> None:
        """Add a line."""
        digest, _, nth = key.rpartition("/")
        kind = "error" if isinstance(result, GatewayError) else "response"
        line = as_line({"key": digest, "nth": int(nth), kind: wire_of(result, task)}).encode("utf-8", "replace") + b"\n"
        with self._naming():
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._end)  # the next line must not follow half of this one
                raise
        self._end += len(line)

    @contextlib.contextmanager
    def _reading(self, at: int) -> Iterator[BinaryIO]:
        # Not by the path, where there may be another file meanwhile. What is written goes to the end wherever this has been.
        with open(self._file, "rb", closefd=False) as file:
            file.seek(at)
            yield file

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"journal {str(self._path)!r}: {error.strerror or type(error).__name__}") from error

    def _damaged(self, number: int) -> ConfigError:
        message = f"journal {str(self._path)!r}, line {number} is damaged: mend it, take it away, or begin another journal"
        return ConfigError(message)


def wire_of(result: Response | GatewayError, task: str) -> Wire:
    """The JSON form of a result, without the decision behind it."""
    if isinstance(result, GatewayError):
        try:
            wire = to_wire(result)
        except (TypeError, ValueError):  # a plugin's error may hold what is no JSON
            return {"error": type(result).__name__, "message": result.message}
        wire.pop("decision", None)
        return wire
    if result.trace is not None:
        result = replace(result, trace=replace(result.trace, decision=None))
    return to_wire(result, task=task)


def as_line(value: Wire) -> str:
    """JSON without a line break."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
