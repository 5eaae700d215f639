"""Checks of the addresses of cryptocurrencies."""

from __future__ import annotations

from hashlib import sha256

__all__ = ["base58check", "bech32", "eip55"]

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
RIPPLE = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
LANES = (1 << 64) - 1


def base58check(text: str) -> bool:
    """Addresses of Bitcoin, Litecoin, Dogecoin, Tron, XRP and others: four bytes of a double SHA-256 at the end."""
    return any(_base58(text, alphabet) for alphabet in ((RIPPLE,) if text.startswith("r") else (BASE58,)))


def _base58(text: str, alphabet: str) -> bool:
    value = 0
    for char in text:
        at = alphabet.find(char)
        if at < 0:
            return False
        value = value * 58 + at
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    raw = bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")
    return len(raw) == 25 and sha256(sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def bech32(text: str) -> bool:
    """BIP 173 and BIP 350: the checksum of a bech32 or bech32m address."""
    if text != text.lower() and text != text.upper():
        return False
    human, _, data = text.lower().rpartition("1")
    if not human or len(data) < 6 or any(char not in BECH32 for char in data):
        return False
    total = 1
    for value in [*(ord(char) >> 5 for char in human), 0, *(ord(char) & 31 for char in human), *map(BECH32.index, data)]:
        top = total >> 25
        total = (total & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            total ^= factor if top >> bit & 1 else 0
    return total in (1, 0x2BC830A3)


def eip55(text: str) -> bool:
    """EIP-55: the case of the letters of an Ethereum address is a checksum; one of a single case has none."""
    digits = text[2:]
    if digits in (digits.lower(), digits.upper()):
        return len(set(digits)) > 4
    nibbles = keccak256(digits.lower().encode()).hex()
    return all(char.isupper() == (int(nibble, 16) > 7) for char, nibble in zip(digits, nibbles, strict=False) if char.isalpha())


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum has it: with Keccak's own padding, not that of FIPS 202's SHA3-256."""
    rate = 136
    padded = bytearray(data + bytes(rate - len(data) % rate))
    padded[len(data)] ^= 0x01
    padded[-1] ^= 0x80
    lanes = [0] * 25  # lane (x, y) at x + 5 * y
    for block in range(0, len(padded), rate):
        for lane in range(rate // 8):
            lanes[lane] ^= int.from_bytes(padded[block + 8 * lane : block + 8 * lane + 8], "little")
        lanes = _permuted(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _tables() -> tuple[list[int], list[tuple[int, int]]]:
    """The constants of Keccak-f[1600]'s rounds; for each lane, how far it is turned, and where from."""
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for bit in range(7):
            constant |= (register & 1) << ((1 << bit) - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    moves, x, y = [(0, 0, 0)], 1, 0
    for step in range(24):
        x, y, source = y, (2 * x + 3 * y) % 5, x + 5 * y
        moves.append((x + 5 * y, (step + 1) * (step + 2) // 2 % 64, source))
    return constants, [(turn, source) for _, turn, source in sorted(moves)]


CONSTANTS, MOVES = _tables()


def _permuted(lanes: list[int]) -> list[int]:
    """Keccak-f[1600] (The Keccak reference, 3.0, section 1.2)."""
    for constant in CONSTANTS:
        a, b, c, d, e = (lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5))
        mixed = [before ^ (after << 1 & LANES | after >> 63) for before, after in ((e, b), (a, c), (b, d), (c, e), (d, a))] * 5
        lanes = [lane ^ mix for lane, mix in zip(lanes, mixed, strict=True)]
        lanes = [lanes[source] << turn & LANES | lanes[source] >> 64 - turn for turn, source in MOVES]
        lanes = [
            lane
            for row in range(0, 25, 5)
            for a, b, c, d, e in (lanes[row : row + 5],)
            for lane in (a ^ ~b & c, b ^ ~c & d, c ^ ~d & e, d ^ ~e & a, e ^ ~a & b)
        ]
        lanes[0] ^= constant
    return lanes
