"""``passphrase:REF``: wraps under a passphrase, slowly. REF says where that is: env:NAME, file:PATH, keyring:SERVICE/USER."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import ConfigError, KeyNotMine, secret
from gateway_seal.wrapping import body, canonical, not_mine

MAGIC = b"gwp1"
SALT_BYTES = 32
KEY_BYTES = 32
TAG_BYTES = 16
LEAST_CHARACTERS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one try of a passphrase costs, as Argon2 counts it (RFC 9106)."""

    memory_kib: int
    passes: int
    lanes: int

    SIZE = 6
    """Bytes that it takes in a wrap."""

    def packed(self) -> bytes:
        """As a wrap holds it: u32, u8, u8, big-endian."""
        return self.memory_kib.to_bytes(4, "big") + bytes([self.passes, self.lanes])

    @classmethod
    def unpacked(cls, data: bytes) -> Cost:
        """What `packed` gave."""
        return cls(memory_kib=int.from_bytes(data[:4], "big"), passes=data[4], lanes=data[5])

    def within(self, floor: Cost, ceiling: Cost) -> bool:
        """True when nothing is below the floor or above the ceiling, and Argon2 can do it: 8 KiB a lane is its least."""
        mine, low, high = (tuple(getattr(one, name) for name in FIELDS) for one in (self, floor, ceiling))
        return all(a <= b <= c for a, b, c in zip(low, mine, high, strict=True)) and self.memory_kib >= 8 * self.lanes

    def __str__(self) -> str:
        return f"{self.memory_kib} KiB, {self.passes} passes, {self.lanes} lanes"


FIELDS = ("memory_kib", "passes", "lanes")
COST = Cost(memory_kib=256 << 10, passes=3, lanes=4)
FLOOR = Cost(memory_kib=64 << 10, passes=3, lanes=4)
CEILING = Cost(memory_kib=1 << 20, passes=10, lanes=16)


class PassphraseKey:
    """AES-256-GCM under HKDF-SHA-384 (RFC 5869) of Argon2id (RFC 9106) of the passphrase, its NFC form in UTF-8.

    A wrap is magic | cost | salt | ciphertext | tag. Its cost is looked at before any work is done: a file may ask for no more
    than `ceiling`. The derived key is fresh for each 32-byte random salt, so the nonce may be fixed.
    """

    scheme = "passphrase"

    def __init__(self, *, cost: Cost = COST, floor: Cost = FLOOR, ceiling: Cost = CEILING) -> None:
        if not cost.within(floor, ceiling):
            raise ConfigError(f"a passphrase's cost of {cost} is not within {floor} and {ceiling}")
        self._cost, self._floor, self._ceiling = cost, floor, ceiling

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        ref = _ref(uri)
        phrase = _phrase(ref)
        if len(phrase) < LEAST_CHARACTERS:
            raise ConfigError(f"the passphrase {ref!r} has fewer than {LEAST_CHARACTERS} characters: choose a longer one")
        head = MAGIC + self._cost.packed() + os.urandom(SALT_BYTES)
        aad = head + canonical(context)
        sealed: bytes = self._cipher(uri, phrase, self._cost, head, aad).encrypt(bytes(12), key, aad)
        return head + sealed

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        ref = _ref(uri)
        rest = body(uri, wrapped, MAGIC, least_bytes=Cost.SIZE + SALT_BYTES + TAG_BYTES)
        cost = Cost.unpacked(rest)
        if not cost.within(self._floor, self._ceiling):
            raise KeyNotMine(
                f"{uri!r} did not wrap this key: it asks for {cost}, and no less than {self._floor} and no more than "
                f"{self._ceiling} will do"
            )
        at = len(MAGIC) + Cost.SIZE + SALT_BYTES
        head, sealed = wrapped[:at], wrapped[at:]
        aad = head + canonical(context)
        cipher = self._cipher(uri, _phrase(ref), cost, head, aad)
        from cryptography.exceptions import InvalidTag

        try:
            key: bytes = cipher.decrypt(bytes(12), sealed, aad)
        except InvalidTag:
            raise not_mine(uri) from None
        return key

    def _cipher(self, uri: str, phrase: str, cost: Cost, head: bytes, aad: bytes) -> Any:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA384
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        salt = head[-SALT_BYTES:]
        try:
            argon2 = Argon2id(
                salt=salt, length=KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
            )
            stretched = argon2.derive(phrase.encode())
        except (UnsupportedAlgorithm, MemoryError) as error:
            raise ConfigError(f"key {uri!r} needs Argon2id with {cost}, and there is a {type(error).__name__}") from None
        return AESGCM(HKDF(SHA384(), KEY_BYTES, salt, b"gateway passphrase 1" + aad).derive(stretched))


def _ref(uri: str) -> str:
    """Where the passphrase is. What stands there may be the passphrase itself: it is not repeated."""
    ref = uri.partition(":")[2]
    scheme, _, rest = ref.partition(":")
    if scheme not in ("env", "file", "keyring") or not rest:
        raise ConfigError(
            "a passphrase is given as passphrase:env:NAME, passphrase:file:PATH or passphrase:keyring:SERVICE/USER"
        )
    return ref


def _phrase(ref: str) -> str:
    phrase = unicodedata.normalize("NFC", secret(ref).reveal())
    if not phrase.strip():
        raise ConfigError(f"the passphrase {ref!r} is blank")
    if any("\ud800" <= letter <= "\udfff" for letter in phrase):  # bytes of the environment that are no text
        raise ConfigError(f"the passphrase {ref!r} is no UTF-8")
    return phrase
