"""FLOE, a committing random-access AEAD for large files (c2sp.org/FLOE), with AES-256-GCM and HKDF-Expand-SHA-384.

A ciphertext is a header and at least one segment. Names and clauses are those of the specification. Segments may be written and
read in any order and by several threads; which of them is the last one is the caller's to know, from a length that is
authenticated: the specification asks that of whoever reads at random. cryptography is imported when the first key is used, and
not when a gateway looks for its plugins.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Buffer = bytes | bytearray | memoryview
Random = Callable[[int], bytes]

IV_BYTES = 32
TAG_BYTES = 32
OVERHEAD_BYTES = 4 + 12 + 16
"""What a segment has beside its text: length, nonce and tag."""
INTERNAL = b"\xff\xff\xff\xff"
"""Stands where the last segment has its length."""


class Forged(Exception):
    """A header or a segment that this key did not make, for this place."""


def expand(key: Buffer, info: bytes, length: int) -> bytes:
    """HKDF-Expand-SHA-384 (RFC 5869, 2.3)."""
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    return HKDFExpand(SHA384(), length, info).derive(bytes(key))


@dataclass(frozen=True)
class Params:
    """ENC_SEG_LEN and AEAD_ROTATION_MASK: bytes of an encrypted segment, and bits of segments under one AEAD key."""

    segment_bytes: int
    rotation: int = 20

    @cached_property
    def encoded(self) -> bytes:
        """PARAM_ENCODE: AEAD 0 is AES-256-GCM, KDF 0 is HKDF-Expand-SHA-384."""
        return b"\0\0" + self.segment_bytes.to_bytes(4) + IV_BYTES.to_bytes(4)

    @property
    def text_bytes(self) -> int:
        """Bytes of text in a segment that is not the last."""
        return self.segment_bytes - OVERHEAD_BYTES

    @property
    def header_bytes(self) -> int:
        return 10 + IV_BYTES + TAG_BYTES

    def segments(self, size: int) -> int:
        """How many segments hold so many bytes of text; one, which is empty, for none."""
        return max(1, -(-size // self.text_bytes))

    def sealed_bytes(self, size: int) -> int:
        """How long the segments of so many bytes of text are together."""
        return size + OVERHEAD_BYTES * self.segments(size)


GCM256_IV256_1M = Params(1 << 20)


class Floe:
    """The keys of one ciphertext: opens its segments, and makes them while it is being written."""

    def __init__(self, key: Buffer, aad: bytes, header: bytes, params: Params = GCM256_IV256_1M) -> None:
        """startDecryption. Forged when the header was not made with this key, aad and parameters."""
        if len(header) != params.header_bytes or header[:10] != params.encoded:
            raise Forged
        self._aad = header[10:-TAG_BYTES], aad
        self.params = params
        self.header = header
        if not hmac.compare_digest(self._kdf(key, b"HEADER_TAG:", TAG_BYTES), header[-TAG_BYTES:]):
            raise Forged
        self._message_key = self._kdf(key, b"MESSAGE_KEY:", 48)
        self._ciphers: dict[int, AESGCM] = {}

    @classmethod
    def new(cls, key: Buffer, aad: bytes, params: Params = GCM256_IV256_1M, *, random: Random = os.urandom) -> Floe:
        """startEncryption; the header is to be stored."""
        iv = random(IV_BYTES)
        tag = expand(key, params.encoded + iv + b"HEADER_TAG:" + aad, TAG_BYTES)
        return cls(key, aad, params.encoded + iv + tag, params)

    def encrypt_into(self, at: int, text: Buffer, segment: memoryview, *, last: bool, random: Random = os.urandom) -> int:
        """encryptSegment number `at` into `segment`; its length. Each segment is made once, or with other randomness."""
        size = len(text) + OVERHEAD_BYTES
        if size > self.params.segment_bytes or not (last or size == self.params.segment_bytes):
            raise ValueError(f"a segment of {len(text)} bytes of text")
        nonce = random(12)
        segment[:4] = size.to_bytes(4) if last else INTERNAL
        segment[4:16] = nonce
        self._cipher(at).encrypt_into(nonce, text, self._place(at, last), segment[16:size])
        return size

    def decrypt_into(self, at: int, segment: memoryview, text: memoryview, *, last: bool) -> None:
        """decryptSegment number `at` into `text`, which is zeroed when the segment turns out Forged."""
        from cryptography.exceptions import InvalidTag

        size = len(segment)
        if size != len(text) + OVERHEAD_BYTES or size > self.params.segment_bytes:
            raise Forged
        if segment[:4] != (size.to_bytes(4) if last else INTERNAL) or not (last or size == self.params.segment_bytes):
            raise Forged
        try:
            self._cipher(at).decrypt_into(segment[4:16], segment[16:], self._place(at, last), text)
        except InvalidTag:
            text[:] = bytes(len(text))  # what was not verified stands there
            raise Forged from None

    def _kdf(self, key: Buffer, purpose: bytes, length: int) -> bytes:
        """FLOE_KDF."""
        iv, aad = self._aad
        return expand(key, self.params.encoded + iv + purpose + aad, length)

    def _cipher(self, at: int) -> AESGCM:
        """DERIVE_KEY, kept. Two threads may derive the same key: one of them is kept."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        era = at >> self.params.rotation << self.params.rotation
        if era not in self._ciphers:
            self._ciphers[era] = AESGCM(self._kdf(self._message_key, b"DEK:" + era.to_bytes(8), 32))
        return self._ciphers[era]

    @staticmethod
    def _place(at: int, last: bool) -> bytes:
        return at.to_bytes(8) + (b"\1" if last else b"\0")


def seal_bytes(
    key: Buffer, aad: bytes, text: Buffer, params: Params = GCM256_IV256_1M, *, random: Random = os.urandom
) -> bytes:
    """A whole ciphertext, header first, of what is small."""
    floe = Floe.new(key, aad, params, random=random)
    out = bytearray(params.header_bytes + params.sealed_bytes(len(text)))
    out[: params.header_bytes] = floe.header
    view, segments = memoryview(out)[params.header_bytes :], params.segments(len(text))
    for at in range(segments):
        piece = text[at * params.text_bytes : (at + 1) * params.text_bytes]
        floe.encrypt_into(at, piece, view[at * params.segment_bytes :], last=at == segments - 1, random=random)
    return bytes(out)


def open_bytes(key: Buffer, aad: bytes, sealed: Buffer, params: Params = GCM256_IV256_1M) -> bytes:
    """The text of a whole ciphertext, whose end is told by its last segment. Forged when it is not whole."""
    view = memoryview(sealed)
    floe = Floe(key, aad, bytes(view[: params.header_bytes]), params)
    view = view[params.header_bytes :]
    out = bytearray(len(view))
    at = size = 0
    while True:
        segment = view[at * params.segment_bytes : (at + 1) * params.segment_bytes]
        last = segment[:4] != INTERNAL
        if len(segment) < OVERHEAD_BYTES:
            raise Forged
        text = len(segment) - OVERHEAD_BYTES
        floe.decrypt_into(at, segment, memoryview(out)[size : size + text], last=last)
        at, size = at + 1, size + text
        if last:
            break
    if (at - 1) * params.segment_bytes + len(segment) != len(view):
        raise Forged  # something follows the last segment
    return bytes(memoryview(out)[:size])
