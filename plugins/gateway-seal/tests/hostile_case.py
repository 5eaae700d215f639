"""A small sealed model, all that can be read of it, and the means to forge what only its maker could have written."""

from __future__ import annotations

import base64
import json
import os
from hashlib import sha384
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from gateway_seal import SealError, open_sealed, seal
from gateway_seal.floe import Floe, open_bytes, seal_bytes
from gateway_seal.manifest import NAME, canonical
from gateway_seal.providers import default_keys
from gateway_seal.reading import SealedModel

from gateway import FileStore, Keys, TensorInfo

KEY = "env:SEAL_KEY"
OTHER = "env:OTHER_KEY"
TENSORS: dict[str, tuple[str, tuple[int, ...], bytes]] = {
    "a": ("F32", (2, 3), bytes(range(24))),
    "b": ("U8", (2, 50), b"weights of a kind " * 5 + b"and so on."),
    "none": ("F16", (0, 4), b""),
}
Seen = tuple[dict[str, tuple[TensorInfo, bytes]], dict[str, bytes]]


def write_plain(path: Path, *, more: bytes = b"") -> Path:
    """A model's directory of about a kB."""
    with FileStore().create(str(path), Keys({})) as writer:
        writer.add_file("config.json", b'{"model_type": "tiny"}')
        writer.add_file("1_Pooling/config.json", b'{"pooling": "mean+max"}')
        writer.add_file("empty.txt", b"")
        writer.add_tensors("model.safetensors", TENSORS | ({"more": ("U8", (len(more),), more)} if more else {}))
    return path


def small(path: Path, *, more: bytes = b"", replace: bool = False) -> Path:
    """That directory, sealed at `path`."""
    plain = path.parent / f"{path.name}-plain"
    if not plain.exists():
        write_plain(plain, more=more)
    seal(plain, path, key=KEY, replace=replace)
    return path


def see(path: Path, *, key: str = KEY) -> Seen:
    """Every tensor and every small file."""
    weights = open_sealed(path, key=key, threads=1)
    try:
        tensors = {name: (info, bytes(weights.read(name))) for name, info in weights.tensors.items()}
        return tensors, {name: weights.file(name) for name in weights.files}
    finally:
        weights.close()


def maker(path: Path, *, key: str = KEY) -> SealedModel:
    """The model with its data key."""
    return SealedModel.open(path, default_keys().given(key))


def keys_file(path: Path, *, key: str = KEY) -> Path:
    return path / maker(path, key=key).header.keys_file


def table_of(model: SealedModel) -> Any:
    """The table as JSON."""
    begins = model.header.encoded
    return json.loads(open_bytes(model.key.table_key, sha384(begins).digest(), model.manifest[len(begins) :]))


def manifest_of(model: SealedModel, table: bytes | dict[str, Any]) -> bytes:
    """A manifest with another table, under the true key."""
    text = table if isinstance(table, bytes) else canonical(table)
    begins = model.header.encoded
    return begins + seal_bytes(model.key.table_key, sha384(begins).digest(), text)


def forge(path: Path, table: bytes | dict[str, Any]) -> None:
    """Put another table in place."""
    (path / NAME).write_bytes(manifest_of(maker(path), table))


def with_header(manifest: bytes, clear: bytes) -> bytes:
    """A manifest with another clear header."""
    length = int.from_bytes(manifest[8:12])
    return manifest[:8] + len(clear).to_bytes(4) + clear + manifest[12 + length :]


def blob_of(path: Path, name: str, piece: int = 0) -> Path:
    """The blob of a piece of a file."""
    [entry] = [entry for entry in maker(path).table.entries if entry.path == name]
    return path / entry.pieces[piece].blob


def sealed_alone(floe: Floe, text: bytes) -> bytes:
    """A blob of one segment."""
    out = bytearray(len(text) + 32)
    floe.encrypt_into(0, text, memoryview(out), last=True)
    return bytes(out)


def refusal(path: Path, *, key: str = KEY) -> str:
    """What reading everything says; it must say something."""
    try:
        see(path, key=key)
    except SealError as error:
        return str(error)
    raise AssertionError("it was read")


def collision(one: str, other: str, context: dict[str, str]) -> bytes:
    """A wrap that both of two keys of the environment open, each to another data key: the attack on AEADs that do not commit
    to their key (Dodis et al., "Fast Message Franking", CRYPTO 2018). AES-GCM's tag is linear in each block of ciphertext."""
    salt, aad = bytes(32), canonical(context)
    own = [base64.b64decode(os.environ[ref.removeprefix("env:")]) for ref in (one, other)]
    keys = [HKDF(SHA384(), 32, salt, b"gateway wrap 1" + aad).derive(key) for key in own]
    blocks = [aad[at : at + 16].ljust(16, b"\0") for at in range(0, len(aad), 16)]
    first = os.urandom(16)
    lengths = (8 * len(aad)).to_bytes(8) + (8 * 32).to_bytes(8)
    hashes = [int.from_bytes(_aes(key, bytes(16))) for key in keys]
    starts = [int.from_bytes(_aes(key, bytes(12) + b"\0\0\0\1")) for key in keys]

    def tag(at: int, second: bytes) -> int:
        value = 0
        for block in (*blocks, first, second, lengths):
            value = _times(value ^ int.from_bytes(block), hashes[at])
        return value ^ starts[at]

    # The block before the lengths counts H squared: tag = tag without it + block * H^2, for each key.
    differ = tag(0, bytes(16)) ^ tag(1, bytes(16))
    squares = _times(hashes[0], hashes[0]) ^ _times(hashes[1], hashes[1])
    second = _times(differ, _inverse(squares)).to_bytes(16)
    return salt + first + second + tag(0, second).to_bytes(16)


def _aes(key: bytes, block: bytes) -> bytes:
    return Cipher(AES(key), ECB()).encryptor().update(block)


def _times(a: int, b: int) -> int:
    """In GF(2^128) as GCM has it: the highest bit is the coefficient of 1 (NIST SP 800-38D, 6.3)."""
    out = 0
    for at in range(127, -1, -1):
        if a >> at & 1:
            out ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return out


def _inverse(a: int) -> int:
    """a^(2^128 - 2)."""
    out = 1 << 127
    for _ in range(127):
        a = _times(a, a)
        out = _times(out, a)
    return out
