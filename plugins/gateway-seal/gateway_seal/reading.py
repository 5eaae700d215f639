"""SealedModel: a sealed directory whose manifest was verified; SealedWeights: its tensors, decrypted when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha384
from pathlib import Path

from gateway import Keys, ShardedWeights, WeightsError
from gateway_seal.blob import TEXT, Arena, Blob, stream
from gateway_seal.crew import Crew
from gateway_seal.errors import SealError
from gateway_seal.files import read_capped
from gateway_seal.manifest import MANIFEST_CAP_BYTES, NAME, DataKey, Entry, Header, Piece, Table
from gateway_seal.options import Pins
from gateway_seal.wraps import unlock

STRIDE_BYTES = 256 * TEXT
"""After how much `load` tells how far it has come."""
OPENINGS = 3
"""How often a model is opened that is replaced again and again while it is."""
Progress = Callable[[int, int], None]
"""Told bytes done and in all, from any thread."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class SealedModel:
    """A sealed directory, its manifest verified with one of the caller's keys, the one at `ref`."""

    path: Path
    header: Header
    table: Table
    key: DataKey = field(repr=False)
    ref: str
    manifest: bytes = field(repr=False)

    @classmethod
    def open(cls, path: Path, keys: Keys, pins: Pins | None = None) -> SealedModel:
        """SealError says why it does not open, and for which model."""
        manifest, header = read_header(path)
        if pins is not None:
            _check(pins, path, manifest, header)
        key, _, ref = unlock(path / header.keys_file, header, keys)
        try:
            return cls(path, header, Table.open(manifest, header, key), key, ref, manifest)
        except BaseException:
            key.forget()
            raise

    def blob(self, index: int, entry: Entry, piece: Piece) -> Blob:
        """One of its blobs, open. SealError when it is missing or of another size."""
        return Blob(self.path / piece.blob, self.key.floe(index, piece, entry.path), piece.size, entry.path)


def read_header(path: Path) -> tuple[bytes, Header]:
    """The manifest's bytes and header, not yet verified."""
    if not path.is_dir():
        raise SealError(f"there is no sealed model at {str(path)!r}")
    if not (path / NAME).exists():
        raise SealError(f"{str(path)!r} is not a sealed model: it has no {NAME}")
    manifest = read_capped(path / NAME, MANIFEST_CAP_BYTES, "the manifest of a sealed model")
    return manifest, Header.read(manifest)


def _check(pins: Pins, path: Path, manifest: bytes, header: Header) -> None:
    """SealError when it is not what the caller expects. The header is verified afterwards, or the model does not open."""
    where = f"sealed model {str(path)!r}"
    if pins.manifest_sha384 is not None and sha384(manifest).hexdigest() != pins.manifest_sha384.lower():
        raise SealError(f"{where} is not the one that manifest_sha384 pins")
    if pins.public_key is not None:
        from gateway_seal.signing import check_signature

        check_signature(manifest, pins.signature or path / f"{NAME}.sig", pins.public_key)
    if pins.model_id is not None and header.model_id.hex() != pins.model_id.lower():
        raise SealError(f"{where} is another model than model_id pins")
    if header.generation < pins.min_generation:
        raise SealError(f"{where} is generation {header.generation}, older than min_generation = {pins.min_generation}")


class SealedWeights(ShardedWeights):
    """A sealed model's tensors. Each is decrypted and verified when it is first read, in as many threads as there are cores,
    into memory that is then the tensor's own: a view of it is no copy. What is read is never written to a disk."""

    sealed = True

    def __init__(self, model: SealedModel, folder: str = "", *, threads: int | None = None) -> None:
        self._model = model
        self._crew = Crew(threads)
        self._lock = threading.Lock()
        self._rows: dict[str, list[tuple[int, Entry, Piece]]] = {}
        for index, entry, piece in model.table.pieces():
            name = entry.path.removeprefix(folder)
            if entry.path.startswith(folder) and name.count("/") <= 1:
                self._rows.setdefault(name, []).append((index, entry, piece))
        self._closed = False
        self._blobs: dict[int, Blob] = {}
        self._arenas: dict[int, Arena] = {}
        try:
            if folder and not self._rows:
                raise SealError(f"there is no folder {folder!r} in the sealed model {str(model.path)!r}")
            sizes = {name: sum(row[2].size for row in rows) for name, rows in self._rows.items()}
            super().__init__(f"sealed model {str(model.path)!r}", sizes)
            for *headers, text in self._rows.values():
                for index, _, _ in headers:  # which have been read
                    self._arenas.pop(index, None)
                    if index in self._blobs:
                        self._blobs.pop(index).close()
                self._blob(*text)  # open from now on: what is replaced on the disk meanwhile does not mix with this
        except BaseException as error:
            self.close()
            if isinstance(error, WeightsError) and not isinstance(error, SealError):
                raise SealError(error.message) from error
            raise

    @classmethod
    def open(
        cls, path: Path, keys: Keys, pins: Pins | None = None, folder: str = "", *, threads: int | None = None
    ) -> SealedWeights:
        """Those of the sealed directory at `path`, or of a folder in it. If another process replaces it meanwhile, then the new
        ones: the files of the old generation go while they are being opened."""
        for _ in range(OPENINGS - 1):
            before = read_header(path)[0]
            try:
                return cls(SealedModel.open(path, keys, pins), folder, threads=threads)
            except SealError:
                if read_header(path)[0] == before:
                    raise
        return cls(SealedModel.open(path, keys, pins), folder, threads=threads)

    def span(self, file: str, begin: int, end: int) -> memoryview:
        found: list[memoryview] = []
        at = 0
        for index, entry, piece in self._rows[file]:
            low, high = max(begin, at), min(end, at + piece.size)
            if low < high:
                found.append(self._arena(index, entry, piece).view(low - at, high - at))
            at += piece.size
        if len(found) == 1:
            return found[0]
        return memoryview(bytearray().join(found))

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise SealError(f"there is no file {name!r} in {self.where}")
        out = bytearray(self.sizes[name])
        text, at = memoryview(out), 0
        for row in self._rows[name]:
            blob = self._blob(*row)
            stream(blob, self._crew, partial(_put, text[at : at + blob.size]))
            at += blob.size
        return bytes(out)

    def load(self, names: Iterable[str] | None = None, progress: Progress = no_progress) -> None:
        """Decrypt these tensors now, or all, faster than one after the other: `read` then gives them at once."""
        ends: dict[str, list[tuple[int, int]]] = {}
        for name in self.tensors if names is None else names:
            size = self.info(name).bytes
            shard, offset = self.places[name]
            ends.setdefault(shard, []).append((offset, offset + size))
        total = sum(end - begin for spans in ends.values() for begin, end in spans)
        done = 0
        for shard, spans in ends.items():
            for begin, end in _joined(sorted(spans)):
                for at in range(begin, end, STRIDE_BYTES):
                    self.span(shard, at, min(end, at + STRIDE_BYTES))
                    done += min(end, at + STRIDE_BYTES) - at
                    progress(min(done, total), total)

    def close(self) -> None:
        with self._lock:
            blobs, self._blobs, self._closed = self._blobs, {}, True
            self._arenas.clear()
        for blob in blobs.values():
            blob.close()
        self._crew.close()
        self._model.key.forget()

    def _blob(self, index: int, entry: Entry, piece: Piece) -> Blob:
        with self._lock:
            return self._opened(index, entry, piece)

    def _arena(self, index: int, entry: Entry, piece: Piece) -> Arena:
        with self._lock:
            if index not in self._arenas:
                self._arenas[index] = Arena(self._opened(index, entry, piece), self._crew)
            return self._arenas[index]

    def _opened(self, index: int, entry: Entry, piece: Piece) -> Blob:
        if self._closed:
            raise SealError(f"{self.where} has been closed")
        if index not in self._blobs:
            self._blobs[index] = self._model.blob(index, entry, piece)
        return self._blobs[index]


def _put(place: memoryview, offset: int, part: memoryview) -> None:
    place[offset : offset + len(part)] = part


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring spans as one, as long as they are within a segment of each other."""
    out: list[tuple[int, int]] = []
    for begin, end in spans:
        if out and begin <= out[-1][1] + TEXT:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((begin, end))
    return out
