"""Blob: the ciphertext of one piece, open for reading; Arena: its text in memory, each segment verified before it is seen."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from gateway_seal.crew import Crew, Scratch
from gateway_seal.errors import SealError
from gateway_seal.files import Handle
from gateway_seal.floe import GCM256_IV256_1M, Floe, Forged
from gateway_seal.memory import private

TEXT = GCM256_IV256_1M.text_bytes
SEGMENT = GCM256_IV256_1M.segment_bytes


class Blob:
    """A blob of the size that the table says. SealError at once when it is missing, is no file, or has another size.

    `size` is that of its text, `path` the file that it is a piece of. It is read into memory of our own before it is looked at:
    a map could change under the check.
    """

    def __init__(self, file: Path, floe: Floe, size: int, path: str) -> None:
        self.size, self.path = size, path
        self.segments = GCM256_IV256_1M.segments(size)
        self._floe = floe
        self._handle = open_blob(file, size, path)

    def text_bytes(self, at: int) -> int:
        """How many bytes of text are in segment number `at`."""
        return min(TEXT, self.size - at * TEXT)

    def decrypt(self, at: int, text: memoryview, scratch: Scratch) -> None:
        """Segment number `at` into `text`, verified. On SealError `text` holds zeros."""
        last = at == self.segments - 1
        segment = scratch.sealed[: len(text) + GCM256_IV256_1M.segment_bytes - TEXT]
        try:
            self._fill(segment, at * SEGMENT)
            self._floe.decrypt_into(at, segment, text, last=last)
        except OSError as error:
            text[:] = bytes(len(text))
            raise SealError(f"sealed file {self.path!r} cannot be read: {error.strerror}") from error
        except Forged:
            text[:] = bytes(len(text))
            raise SealError(
                f"sealed file {self.path!r} is damaged or was tampered with: segment {at} does not verify"
            ) from None

    def close(self) -> None:
        self._handle.close()

    def _fill(self, segment: memoryview, offset: int) -> None:
        done = 0
        while done < len(segment):
            got = os.preadv(self._handle.number, [segment[done:]], offset + done)
            if not got:
                raise Forged
            done += got


def open_blob(file: Path, size: int, path: str) -> Handle:
    """The handle of a regular file of exactly the size that so many bytes of text take when sealed."""
    try:
        # A pipe in its place is not waited for.
        handle = Handle(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise SealError(f"sealed file {path!r}: its blob {file.name} cannot be opened: {error.strerror}") from error
    facts = os.fstat(handle.number)
    wanted = GCM256_IV256_1M.sealed_bytes(size)
    if stat.S_ISREG(facts.st_mode) and facts.st_size == wanted:
        return handle
    handle.close()
    raise SealError(
        f"sealed file {path!r}: its blob {file.name} is not a file of {wanted} bytes: cut short, extended or exchanged"
    )


class Arena:
    """A piece's text in huge pages of private memory, decrypted where and when it is asked for, once."""

    def __init__(self, blob: Blob, crew: Crew) -> None:
        self._blob, self._crew = blob, crew
        self._text = private(blob.size)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._done = bytearray(blob.segments)
        """Of each segment: 0 not here, 1 being decrypted by a thread, 2 verified."""

    def view(self, begin: int, end: int) -> memoryview:
        """The text from `begin` to `end`, writable. SealError when a segment of it is not as it was sealed; what this call had
        decrypted is zeroed then, and nothing of it was seen."""
        if begin < end:
            self._want(range(begin // TEXT, (end - 1) // TEXT + 1))
        return self._text[begin:end]

    def _want(self, wanted: range) -> None:
        while not self._have(wanted):
            pass

    def _have(self, wanted: range) -> bool:
        """Decrypt what of it no thread has begun with, or wait for those that have: whether it is all there now."""
        mine: list[int] = []
        state = 0
        try:
            with self._lock:
                for at in wanted:
                    if self._done[at] == 0:
                        mine.append(at)
                        self._done[at] = 1
                if not mine:  # a thread that fails leaves 0, and this one then sees for itself
                    self._changed.wait_for(lambda: not any(self._done[at] == 1 for at in wanted))
                    return all(self._done[at] == 2 for at in wanted)
            self._crew.each(mine, self._one)
            state = 2
        finally:
            # Whatever happened, Ctrl-C too: a segment that stayed at 1 would be waited for for ever. So nothing is called
            # before all have their state.
            with self._lock:
                for at in mine:
                    self._done[at] = state
                if mine:
                    self._changed.notify_all()
                for at in mine if not state else ():
                    place = self._place(at)
                    place[:] = bytes(len(place))
        return False

    def _one(self, at: int, scratch: Scratch) -> None:
        self._blob.decrypt(at, self._place(at), scratch)

    def _place(self, at: int) -> memoryview:
        return self._text[at * TEXT : at * TEXT + self._blob.text_bytes(at)]


Each = Callable[[int, memoryview], object]
"""Told the offset of a stretch of text, and the text, which is overwritten afterwards."""


def stream(blob: Blob, crew: Crew, each: Each) -> None:
    """The whole text of a blob, a segment at a time, in no order and from several threads, in constant memory."""

    def one(at: int, scratch: Scratch) -> None:
        text = scratch.text[: blob.text_bytes(at)]
        blob.decrypt(at, text, scratch)
        each(at * TEXT, text)

    crew.each(range(blob.segments), one)
