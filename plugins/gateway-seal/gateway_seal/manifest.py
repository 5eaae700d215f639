"""The manifest of a sealed model: a clear header and an encrypted table of its files; the keys that follow from the data key.

FORMAT.md says what each field is and what is refused. All that is parsed here may have been written by an attacker: first the
data key's commitment is compared, then the table's tag, and only then is the table read.
"""

from __future__ import annotations

import hmac
import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha384
from typing import Any, NoReturn

from gateway_seal.errors import SealError
from gateway_seal.floe import GCM256_IV256_1M, Buffer, Floe, Forged, expand, open_bytes, seal_bytes

NAME = "manifest.gws"
MAGIC = b"GWSEAL\0\1"
SUITE = 1
"""FLOE GCM256_IV256_1M; data key, commitment and keys of files by HKDF-Expand-SHA-384. There is no other."""
HEADER_CAP_BYTES = 64 << 10
MANIFEST_CAP_BYTES = 16 << 20
FILES_CAP = 65_536
PIECE_CAP_BYTES = 1 << 50
KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands in the clear: of which model and generation this is, and the commitment to the data key."""

    model_id: bytes
    generation: int
    commit: bytes

    @property
    def context(self) -> dict[str, str]:
        """What a wrap of the data key is tied to."""
        told = {"suite": str(SUITE), "model_id": self.model_id.hex(), "generation": str(self.generation)}
        return told | {"commit": self.commit.hex()}

    @property
    def keys_file(self) -> str:
        """The file of the wraps: another for each data key, so that a manifest is never paired with those of another one."""
        return f"{self.commit.hex()[:32]}.keys"

    @cached_property
    def encoded(self) -> bytes:
        """MAGIC, length and canonical JSON."""
        clear = canonical(
            {"suite": SUITE, "model_id": self.model_id.hex(), "generation": self.generation, "commit": self.commit.hex()}
        )
        return MAGIC + len(clear).to_bytes(4) + clear

    @classmethod
    def read(cls, manifest: bytes) -> Header:
        """The header of a manifest, not yet authenticated. SealError names the field that is not as it must be."""
        if len(manifest) > MANIFEST_CAP_BYTES:
            _refuse(f"it is larger than {MANIFEST_CAP_BYTES} bytes")
        if manifest[: len(MAGIC)] != MAGIC:
            _refuse("it does not begin as one of this version")
        length = int.from_bytes(manifest[8:12])
        if not 0 < length <= HEADER_CAP_BYTES or len(manifest) < 12 + length:
            _refuse("its header's length")
        clear = parse(manifest[12 : 12 + length], {"suite", "model_id", "generation", "commit"}, "its header")
        if clear["suite"] != SUITE or type(clear["suite"]) is not int:
            _refuse(f"its suite, which must be {SUITE}")
        if type(clear["generation"]) is not int or not 0 < clear["generation"] < 1 << 63:
            _refuse("its generation")
        ids = unhex(clear["model_id"], 16, "its model_id"), unhex(clear["commit"], 32, "its commit")
        return cls(model_id=ids[0], generation=clear["generation"], commit=ids[1])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a file that is a ciphertext of its own: its blob, its size in plain, and its FLOE header."""

    blob: str
    size: int
    header: bytes = field(repr=False)

    @property
    def sealed_bytes(self) -> int:
        """How long the blob is."""
        return GCM256_IV256_1M.sealed_bytes(self.size)

    @property
    def segments(self) -> int:
        return GCM256_IV256_1M.segments(self.size)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file: its pieces in order are its bytes. A safetensors file is two: header and tensors."""

    path: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


class DataKey:
    """The data key of one generation, and what follows from it. `forget` overwrites it, as far as Python lets one."""

    def __init__(self, key: Buffer, model_id: bytes, generation: int) -> None:
        self._key = bytearray(key)
        self._context = model_id + generation.to_bytes(8)
        self.commit = expand(self._key, b"gws1 commit" + self._context, 32)

    @classmethod
    def for_header(cls, key: bytes, header: Header) -> DataKey:
        """SealError when it is not the key that the header commits to, whatever wrap it came from."""
        made = cls(key, header.model_id, header.generation) if len(key) == KEY_BYTES else None
        if made is None or not hmac.compare_digest(made.commit, header.commit):
            raise SealError("the sealed model's key does not fit its manifest: one of them was exchanged")
        return made

    @property
    def table_key(self) -> bytes:
        return expand(self._key, b"gws1 table" + self._context, KEY_BYTES)

    def new(self, index: int, size: int, path: str) -> Floe:
        """For writing piece number `index` of the model."""
        return Floe.new(self._file_key(index), self._file_aad(index, size, path))

    def floe(self, index: int, piece: Piece, path: str) -> Floe:
        """For reading it. SealError when its header is not of this place."""
        try:
            return Floe(self._file_key(index), self._file_aad(index, piece.size, path), piece.header)
        except Forged:
            raise SealError(f"sealed file {path!r} is damaged or was exchanged: its header does not verify") from None

    def reveal(self) -> bytes:
        """The key itself, to wrap it under another key."""
        return bytes(self._key)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a data key is not serialised")

    def forget(self) -> None:
        self._key[:] = bytes(len(self._key))

    def _file_key(self, index: int) -> bytes:
        return expand(self._key, b"gws1 file" + self._context + index.to_bytes(4), KEY_BYTES)

    def _file_aad(self, index: int, size: int, path: str) -> bytes:
        return b"gws1 file" + self._context + index.to_bytes(4) + size.to_bytes(8) + sha384(path.encode()).digest()


@dataclass(frozen=True)
class Table:
    """The files of a sealed model."""

    entries: tuple[Entry, ...]

    def pieces(self) -> Iterator[tuple[int, Entry, Piece]]:
        """Every piece with its number in the model."""
        yield from enumerate_pieces(self.entries)

    def seal(self, header: Header, key: DataKey) -> bytes:
        """The whole manifest."""
        rows = [
            {
                "path": entry.path,
                "pieces": [{"blob": p.blob, "bytes": p.size, "header": p.header.hex()} for p in entry.pieces],
            }
            for entry in self.entries
        ]
        text = canonical({"files": rows})
        manifest = header.encoded + seal_bytes(key.table_key, sha384(header.encoded).digest(), text)
        if len(self.entries) > FILES_CAP or len(manifest) > MANIFEST_CAP_BYTES:
            raise SealError(f"a sealed model has at most {FILES_CAP} files, and a table of at most {MANIFEST_CAP_BYTES} bytes")
        return manifest

    @classmethod
    def open(cls, manifest: bytes, header: Header, key: DataKey) -> Table:
        """The table, verified. SealError for anything that is not as it was written, or that should never have been."""
        begins = manifest[: len(header.encoded)]
        if begins != header.encoded:
            _refuse("its header is not written in the one way that it may be")
        try:
            text = open_bytes(key.table_key, sha384(begins).digest(), manifest[len(begins) :])
        except Forged:
            _refuse("its table does not verify")
        rows = parse(text, {"files"}, "its table")["files"]
        if not isinstance(rows, list) or len(rows) > FILES_CAP:
            _refuse("its table")
        entries = tuple(_entry(row) for row in rows)
        paths = [entry.path for entry in entries]
        blobs = [piece.blob for entry in entries for piece in entry.pieces]
        there = set(paths)
        if len(there) != len(paths) or len(set(blobs)) != len(blobs):
            _refuse("a path or a blob twice")
        for path in paths:
            above = path.split("/")
            if any("/".join(above[:n]) in there for n in range(1, len(above))):
                _refuse("a file that is a folder, too")
        return cls(entries)


def enumerate_pieces(entries: tuple[Entry, ...]) -> Iterator[tuple[int, Entry, Piece]]:
    """Every piece with its number."""
    index = 0
    for entry in entries:
        for piece in entry.pieces:
            yield index, entry, piece
            index += 1


def new_header(key: bytes, model_id: bytes, generation: int) -> tuple[Header, DataKey]:
    """For writing a generation of a model under a fresh data key."""
    data_key = DataKey(key, model_id, generation)
    return Header(model_id=model_id, generation=generation, commit=data_key.commit), data_key


def new_blob() -> str:
    return f"{os.urandom(16).hex()}.blob"


def check_path(path: str) -> str:
    """`path`, when it can be a file's within a model on any system. SealError otherwise."""
    steps = path.split("/")
    wrong = any(not step or step in (".", "..") or step != step.strip() for step in steps)
    odd = any(char in '\\:*?"<>|' for char in path) or not is_visible(path)
    if wrong or odd or len(path.encode("utf-8", "surrogatepass")) > 1024 or unicodedata.normalize("NFC", path) != path:
        raise SealError(f"{path!r} cannot be the path of a file in a sealed model")
    return path


def is_visible(text: str) -> bool:
    """Whether it may be shown on a terminal. Which characters are unassigned differs between versions of Python: they may."""
    return all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for char in text)


def canonical(value: Any) -> bytes:
    """The one way that a value is written: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(text: bytes, keys: set[str], what: str) -> dict[str, Any]:
    """A JSON object of exactly these keys in its canonical form, which has no key twice."""
    try:
        value = json.loads(text)
        if canonical(value) != text or set(value) != keys or not isinstance(value, dict):
            _refuse(what)
    except (ValueError, RecursionError, TypeError):  # UnicodeError is a ValueError
        _refuse(what)
    return value


def unhex(value: Any, length: int, what: str) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * length or not set(value) <= set("0123456789abcdef"):
        _refuse(what)
    return bytes.fromhex(value)


def _entry(row: Any) -> Entry:
    if not isinstance(row, dict) or set(row) != {"path", "pieces"} or not isinstance(row["path"], str):
        _refuse("a file in its table")
    pieces = row["pieces"]
    if not isinstance(pieces, list) or not 1 <= len(pieces) <= 2:
        _refuse("the pieces of a file in its table")
    return Entry(path=check_path(row["path"]), pieces=tuple(_piece(piece) for piece in pieces))


def _piece(row: Any) -> Piece:
    if not isinstance(row, dict) or set(row) != {"blob", "bytes", "header"} or type(row["bytes"]) is not int:
        _refuse("a piece in its table")
    if not 0 <= row["bytes"] <= PIECE_CAP_BYTES or not isinstance(row["blob"], str) or not row["blob"].endswith(".blob"):
        _refuse("a piece in its table")
    unhex(row["blob"].removesuffix(".blob"), 16, "the name of a blob in its table")
    header = unhex(row["header"], GCM256_IV256_1M.header_bytes, "the header of a piece in its table")
    return Piece(blob=row["blob"], size=row["bytes"], header=header)


def _refuse(what: str) -> NoReturn:
    raise SealError(f"the manifest of the sealed model is damaged or was tampered with: {what}") from None
