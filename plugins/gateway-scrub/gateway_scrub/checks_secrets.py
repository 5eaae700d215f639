"""Checks of keys, tokens and passwords: what is made by a machine or a careful person, and what only stands in its place."""

from __future__ import annotations

import json
import re
from base64 import b64decode, urlsafe_b64decode
from binascii import Error
from collections import Counter
from itertools import pairwise
from math import log2
from zlib import crc32

__all__ = [
    "credentials",
    "discord_token",
    "github_token",
    "jwt",
    "key_like",
    "mixed",
    "password_like",
    "password_quoted",
    "random_token",
    "token_after",
]

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UUID = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
SEPARATORS = re.compile(r"[_\-./+~=:%]+")
WORDY = re.compile("[A-Za-z]*[0-9]{0,5}[A-Za-z]*")
KINDS = str.maketrans(BASE62, "0" * 10 + "A" * 26 + "a" * 26)
STAND_IN = re.compile(
    r"x{4,}|\*{3,}|\.{3,}|\A(?:your|my|the|some|enter|change|insert|replace|put|use|sample|example|dummy|fake|none|null|true|false|"
    r"undefined|optional|required|redacted|hidden|masked|string|str|bytes|text|input|self|this|process|config|settings|args|kwargs|"
    r"os|env|get|new|current|confirm|old)(?![a-z0-9])|\A[<${%\[(@&#]|[>}%\])]\Z|passw|kennwort|contrase|getenv|environ",
    re.IGNORECASE,
)
"""What examples, templates and code write in a secret's place."""


def entropy(text: str) -> float:
    """Shannon's entropy of a text's characters, in bits a character."""
    return -sum(count / len(text) * log2(count / len(text)) for count in Counter(text).values()) if text else 0.0


def wordy(text: str) -> bool:
    """Made of words, as names and paths are: no part changes between small letters, capitals and digits as chance would."""
    return all(_wordy(part) for part in SEPARATORS.split(text))


def _wordy(part: str) -> bool:
    if part.islower() or part.isupper() or len(part) < 8:
        return WORDY.fullmatch(part) is not None
    kinds = part.translate(KINDS)
    changes = sum(one != other for one, other in pairwise(kinds))
    return changes < 0.45 * (len(part) - 1)  # letters and digits at random: 0.62


def key_like(text: str) -> bool:
    """What follows a vendor's prefix is a key and no name or example."""
    return len(set(text[3:])) > 7 and not wordy(text) and "xxxx" not in text.lower()


def mixed(text: str) -> bool:
    """Capitals, small letters and digits, many different ones."""
    kinds = any(map(str.isupper, text)) and any(map(str.islower, text)) and any(map(str.isdigit, text))
    return kinds and entropy(text) > 4


def random_token(text: str) -> bool:
    """A token that a machine made: letters and digits mixed as no name or path mixes them; no UUID, which is no secret."""
    body = text.rstrip("=")
    letters = sum(char.isalpha() for char in body)
    digits = sum(char.isdigit() for char in body)
    if letters < 4 or digits < 2 or UUID.fullmatch(body) or wordy(body) or STAND_IN.search(body):
        return False
    if re.fullmatch("[0-9a-f]+|[0-9A-F]+", body):
        return len(body) >= 32 and entropy(body) > 2.8
    return entropy(body) > (3.5 if len(body) >= 20 else 3.2)


def password_like(text: str) -> bool:
    """A password as it stands without quotes: letters with digits or signs; no call, no name, nothing in its place."""
    if STAND_IN.search(text) or len(set(text)) < 4 or re.search(r"[()\[\]{}<>]|\A[a-z_][a-z0-9_]*\.[a-z_]|://", text):
        return False
    if text.isdigit():
        return True
    return (
        len(text) > 5
        and any(char.isalpha() for char in text)
        and (any(char.isdigit() for char in text) or bool(re.search(r"[!@#$%^&*?+~]", text)))
    )


def password_quoted(text: str) -> bool:
    """A password as it stands in quotes: nothing in its place, and no template."""
    return (
        not STAND_IN.search(text) and len(set(text)) > 2 and not re.search(r"[{}<>]|\$\(|\A[a-z]+[_.][a-z_.]+\Z|\A[.:/#]", text)
    )


def credentials(text: str) -> bool:
    """A user's name and password in a URL: neither a template nor a stand-in."""
    return not re.search(r"[{}<>*]|\A[$%]|:[$%](?![0-9A-F]{2})|x{4,}|\.\.\.", text)


def jwt(text: str) -> bool:
    """RFC 7519: the header, decoded, is a JSON object with an algorithm."""
    head = text.partition(".")[0]
    try:
        header = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, Error, RecursionError):
        return False
    return isinstance(header, dict) and ("alg" in header or "typ" in header or "enc" in header)


def discord_token(text: str) -> bool:
    """A Discord bot's token: its first part is the bot's number."""
    head = text.partition(".")[0]
    try:
        return b64decode(head + "=" * (-len(head) % 4)).isdigit()
    except (ValueError, Error):
        return False


def github_token(text: str) -> bool:
    """GitHub's and npm's tokens: the last six characters are the CRC-32 of the others after the prefix, in base 62
    (github.blog, "Behind GitHub's new authentication token formats", 2021)."""
    body = text.rpartition("_")[2]
    value, tail = crc32(body[:-6].encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        tail = BASE62[digit] + tail
    return tail == body[-6:]


def token_after(text: str) -> bool:
    """What follows ``Authorization`` or ``Bearer``: neither a word nor a stand-in."""
    if STAND_IN.search(text) or len(set(text)) < 6:
        return False
    if not wordy(text):
        return True
    try:
        return b":" in b64decode(text, validate=True) and b64decode(text).isascii()  # RFC 7617: a name and a password
    except (ValueError, Error):
        return False
