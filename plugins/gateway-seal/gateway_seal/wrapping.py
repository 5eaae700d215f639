"""What the key providers of this plugin share: a wrap's form, what ties it to its context, and the way to a server."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from hashlib import sha384
from importlib import import_module
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gateway import ConfigError, KeyNotMine

DIGEST_BYTES = 48


def canonical(context: Mapping[str, str]) -> bytes:
    """A context as the same bytes for the same facts, in whichever order they come."""
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def body(uri: str, wrapped: bytes, magic: bytes, *, least_bytes: int) -> bytes:
    """What follows the magic. KeyNotMine without further work for what this provider cannot have written."""
    if not wrapped.startswith(magic) or len(wrapped) < len(magic) + least_bytes:
        raise KeyNotMine(f"{uri!r} did not wrap this key: it is another provider's, or cut short")
    return wrapped[len(magic) :]


def bound(key: bytes, context: Mapping[str, str]) -> bytes:
    """What a server is given to encrypt: the key, behind a digest of its context.

    The context goes to the server as well, as additional data. But Vault before 1.13 takes no notice of that, and some that
    speak for AWS KMS run names and values together: with the digest inside, none has to be trusted with it.
    """
    return sha384(canonical(context)).digest() + key


def unbound(uri: str, plain: bytes, context: Mapping[str, str]) -> bytes:
    """The key that `bound` was given. KeyNotMine when it was given another context."""
    if not hmac.compare_digest(plain[:DIGEST_BYTES], sha384(canonical(context)).digest()):
        raise not_mine(uri)
    return plain[DIGEST_BYTES:]


def not_mine(uri: str) -> KeyNotMine:
    """The error for what does not open, for whichever reason."""
    return KeyNotMine(f"{uri!r} did not wrap this key, or it was wrapped for something else")


def needed(module: str, uri: str, extra: str) -> Any:
    """A library that only this provider needs. ConfigError names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(f"key {uri!r} needs the package {package}: pip install 'gateway-seal[{extra}]'") from error


def check_private(url: str, uri: str, where: str) -> None:
    """ConfigError for a server that would be told the key in clear: http:// off this machine. `where` is who names it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigError(f"key {uri!r}: {where} is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"key {uri!r}: {where} must be an https:// URL")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"key {uri!r}: {where} is an http:// URL of another machine, and keys would go there in clear: use https://"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
