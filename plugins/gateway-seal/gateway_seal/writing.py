"""SealedWriter: a sealed model being written. Only ciphertext touches the disk, and the manifest comes last, in one step.

A directory is locked while it is written to. Blobs have fresh names that no manifest speaks of yet, so a crash at any moment
leaves the model that was there before, whole, and blobs that belong to nothing: the next writer removes them.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway import Keys, WeightsWriter, safetensors_header
from gateway_seal.crew import Crew, Scratch
from gateway_seal.errors import SealError
from gateway_seal.files import Handle, put_file, sync_directory, told
from gateway_seal.floe import GCM256_IV256_1M, Floe
from gateway_seal.manifest import KEY_BYTES, NAME, Entry, Header, Piece, Table, check_path, new_blob, new_header
from gateway_seal.reading import Progress, SealedModel, no_progress, read_header
from gateway_seal.wraps import encode_wraps, wrap_for

TEXT = GCM256_IV256_1M.text_bytes
SEGMENT = GCM256_IV256_1M.segment_bytes
OURS = re.compile(r"[0-9a-f]{32}\.(blob|keys)|\.[0-9a-f]{16}\.new|manifest\.gws\.sig")
"""The names of what lies in a sealed directory, beside the manifest."""
Fill = Callable[[int, memoryview], object]
"""Puts the text that begins at an offset into a buffer; called from several threads."""


class SealedWriter(WeightsWriter):
    """Begins a new model at `path`, or, with `old`, the next generation of the one that is there."""

    sealed = True

    def __init__(
        self,
        path: Path,
        keys: Keys,
        *,
        old: SealedModel | None = None,
        threads: int | None = None,
        progress: Progress = no_progress,
        total: int = 0,
    ) -> None:
        self._path, self._progress, self._done, self._total = path, progress, 0, total
        key = os.urandom(KEY_BYTES)
        model_id = os.urandom(16) if old is None else old.header.model_id
        self._header, self._key = new_header(key, model_id, 1 if old is None else old.header.generation + 1)
        self._wraps = encode_wraps(wrap_for(keys, key, self._header))  # first: a key that cannot be had fails at once
        self._entries: dict[str, Entry] = {}
        self._pieces = 0
        self._written: list[Path] = []
        self._made, self._lock = lock(path, new=old is None)
        self._crew = Crew(threads)
        self._counting = threading.Lock()
        try:
            if old is not None and read_header(path)[0] != old.manifest:
                raise SealError(f"the sealed model at {str(path)!r} was replaced by another process meanwhile")
        except BaseException:
            self.abort()
            raise

    def add_file(self, name: str, data: bytes | memoryview) -> None:
        self.add(name, [(len(data), _gather([data]))])

    def add_tensors(self, name: str, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> None:
        header = safetensors_header(tensors)
        views = [memoryview(data).cast("B") for _, _, data in tensors.values()]
        self.add(name, [(len(header), _gather([header])), (sum(map(len, views)), _gather(views))])

    def add(self, name: str, pieces: Sequence[tuple[int, Fill]]) -> None:
        """Add a file of one piece, or of two: each has a size, and a function that tells its text."""
        check_path(name)
        if name in self._entries:
            raise SealError(f"there is a file {name!r} already")
        made = []
        for size, fill in pieces:
            made.append(self._piece(self._pieces, name, size, fill))
            self._pieces += 1
        self._entries[name] = Entry(path=name, pieces=tuple(made))

    def commit(self) -> None:
        table = Table(tuple(self._entries.values()))
        try:
            manifest = table.seal(self._header, self._key)
            Table.open(manifest, Header.read(manifest), self._key)  # what no reader would open must replace nothing
            keys_file = self._path / self._header.keys_file
            self._written.append(keys_file)
            put_file(keys_file, self._wraps)
            put_file(self._path / NAME, manifest)
            sweep(self._path, {NAME, keys_file.name, *(piece.blob for _, _, piece in table.pieces())})
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError):
                raise told(error, self._path) from error
            raise
        self._end()

    def abort(self) -> None:
        try:
            if not self._in_place():
                for file in self._written:
                    with suppress(OSError):  # the next writer removes it
                        file.unlink()
                with suppress(OSError):
                    for folder in self._made:
                        folder.rmdir()
        finally:
            self._end()

    def _in_place(self) -> bool:
        """Whether the manifest on disk is this one, however far `commit` came: then what it names must stay."""
        try:
            with (self._path / NAME).open("rb") as file:
                return file.read(len(self._header.encoded)) == self._header.encoded
        except FileNotFoundError:
            return False
        except OSError:  # nobody knows: what a manifest may name is not removed
            return True

    def _end(self) -> None:
        try:
            self._crew.close()
        finally:
            self._key.forget()
            self._lock.close()

    def _piece(self, index: int, name: str, size: int, fill: Fill) -> Piece:
        floe = self._key.new(index, size, name)
        blob = new_blob()
        try:
            self._write_blob(self._path / blob, floe, size, fill)
        except OSError as error:
            raise told(error, self._path) from error
        return Piece(blob=blob, size=size, header=floe.header)

    def _write_blob(self, file: Path, floe: Floe, size: int, fill: Fill) -> None:
        count = GCM256_IV256_1M.segments(size)
        self._written.append(file)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk is found out now
                os.posix_fallocate(handle, 0, GCM256_IV256_1M.sealed_bytes(size))

            def one(at: int, scratch: Scratch) -> None:
                text = scratch.text[: min(TEXT, size - at * TEXT)]
                fill(at * TEXT, text)
                length = floe.encrypt_into(at, text, scratch.sealed, last=at == count - 1)
                write_at(handle, scratch.sealed[:length], at * SEGMENT)
                with self._counting:
                    self._done += len(text)
                    done = self._done
                self._progress(min(done, self._total), self._total)

            self._crew.each(range(count), one)
            os.fsync(handle)
        finally:
            os.close(handle)


def lock(path: Path, *, new: bool) -> tuple[list[Path], Handle]:
    """Lock a directory for writing, made if need be: what was made, innermost first, and the lock.

    SealError when it holds anything else than a sealed model, when another process writes there, or when a `new` model would
    take an old one's place.
    """
    try:
        made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
        path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            sync_directory(folder.parent)
        handle = Handle(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise told(error, path) from error
    try:
        try:
            fcntl.flock(handle.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had made the directory, and failed, may have removed it since: a lock of that is none.
            mine = os.path.samestat(os.fstat(handle.number), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError as error:
            raise told(error, path) from error
        if not mine:
            raise SealError(f"{str(path)!r} is being written to by another process")
        there = os.listdir(handle.number)
        if new and NAME in there:
            raise SealError(f"there is a sealed model at {str(path)!r} already")
        if odd := [name for name in there if name != NAME and not OURS.fullmatch(name)]:
            raise SealError(f"{str(path)!r} holds {odd[0]!r}, which is no part of a sealed model: choose another directory")
    except BaseException:
        handle.close()
        raise
    return made, handle


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The directory of a model whose keys are being changed."""
    _, handle = lock(path, new=False)
    try:
        yield
    finally:
        handle.close()


def sweep(path: Path, kept: set[str]) -> None:
    """Remove what belongs to no manifest: older generations, and what crashes left. The directory is locked."""
    for name in os.listdir(path):
        if name not in kept and OURS.fullmatch(name):
            with suppress(OSError):
                (path / name).unlink()


def _gather(views: Sequence[bytes | memoryview]) -> Fill:
    """The text of buffers that follow one another."""
    parts = [memoryview(view).cast("B") for view in views]
    ends: list[int] = []
    for part in parts:
        ends.append((ends[-1] if ends else 0) + len(part))

    def fill(offset: int, text: memoryview) -> None:
        done, which = 0, bisect_right(ends, offset)
        while done < len(text):
            begin = offset + done - (ends[which] - len(parts[which]))
            some = parts[which][begin : begin + len(text) - done]
            text[done : done + len(some)] = some
            done, which = done + len(some), which + 1

    return fill


def write_at(handle: int, data: memoryview, offset: int) -> None:
    """All of it, also when the system takes a part at a time, as it does before it says that a disk is full."""
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], offset + done)
