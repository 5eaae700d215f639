"""KeyProvider: who wraps a key; "env", "file" and "keyring" wrap with a key of the caller's own. Secret: a string that
never prints.

A reference is ``scheme:rest``, such as ``env:BIG_KEY``, ``file:/run/secrets/big`` or ``keyring:openai/me``. It comes from the
caller's configuration only, never from a file that is being opened. Wrapping needs the `cryptography` package
(``pip install gateway-sdk[keys]``), the operating system's keyring the `keyring` package; other secrets need nothing.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gateway.errors import ConfigError, KeyNotMine, MissingSecret

MAGIC = b"gwk1"
SALT_BYTES = 32
KEY_BYTES = 32
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY_LIKE = re.compile(r"[A-Za-z0-9+/_-]{43}=")
"""32 bytes in base64."""


class Secret:
    """A secret string. It shows as ``***`` everywhere; `reveal()` is the only way to read it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: pass it straight on, keep it nowhere."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised; pass its reference instead")


@runtime_checkable
class KeyProvider(Protocol):
    """Wraps and unwraps data keys under a key that it holds; a KMS never reveals its own.

    `uri` is the whole reference that the caller configured. `context` is authenticated, not secret: a wrap made in
    one context does not open in another. `unwrap` raises KeyNotMine when this key did not wrap it (the next
    provider is tried) and any other GatewayError when something is wrong for good. Both may block.
    """

    scheme: str

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        """`key` encrypted, for `unwrap` with the same uri and context."""

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The key that `wrap` was given."""


class Keys:
    """The key providers of one gateway, by scheme, and `refs`: the keys that the caller configured for what is being opened."""

    def __init__(self, providers: Mapping[str, KeyProvider], refs: Sequence[str] = ()) -> None:
        self._providers = dict(providers)
        self.refs = tuple(refs)

    def given(self, refs: str | Sequence[str]) -> Keys:
        """The same providers, for what only the keys at these references may open: one, or several to be tried in turn."""
        return Keys(self._providers, (refs,) if isinstance(refs, str) else refs)

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        """`key` encrypted by the provider that `uri` names."""
        return self._provider(uri).wrap(uri, key, context)

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The key back. KeyNotMine when this is not the key that wrapped it."""
        return self._provider(uri).unwrap(uri, wrapped, context)

    def _provider(self, uri: str) -> KeyProvider:
        scheme, colon, _ = uri.partition(":")
        if not colon or scheme not in self._providers:
            # What stands there may be a key that was pasted in: only what looks like a scheme is repeated.
            plain = scheme.isalnum() or scheme.replace("-", "").isalpha()
            which = f"the scheme {scheme!r}" if colon and plain and len(scheme) <= 16 else "this"
            known = ", ".join(sorted(self._providers)) or "none"
            raise ConfigError(f"a key is given as scheme:rest, and no plugin provides {which} (there are: {known})")
        return self._providers[scheme]


def secret(ref: str) -> Secret:
    """The secret behind ``env:NAME``, ``file:PATH`` or ``keyring:SERVICE/USER``, the last as the operating system keeps it.

    MissingSecret names what is missing; a bare value is refused. Blocks.
    """
    scheme, _, rest = ref.partition(":")
    if scheme == "env" and rest:
        if not VARIABLE.fullmatch(rest):  # as env:$NAME gives it: it is not repeated
            raise ConfigError("env: takes the name of a variable, as in env:WEIGHTS_KEY, and not its value")
        value = os.environ.get(rest, "")
        if not value:
            raise MissingSecret(f"environment variable {rest} is not set", ref=ref)
        return Secret(value)
    if scheme == "file" and rest:
        if KEY_LIKE.fullmatch(rest):
            raise ConfigError("file: takes the path of a file, as in file:/run/secrets/weights, and not what is in it")
        return Secret(_read_private(Path(os.path.expanduser(rest)), ref))
    if scheme == "keyring" and rest:
        return Secret(_from_keyring(rest, ref))
    # The reference itself may be a key that was pasted in: it must not be repeated in the message.
    raise ConfigError("a secret is given as env:NAME, file:PATH or keyring:SERVICE/USER, not as its value")


class _OwnKey:
    """Wraps with a 256-bit key of the caller's: AES-256-GCM under HKDF-SHA-384 (RFC 5869) of key, salt and context.

    The derived key is fresh for each 32-byte random salt, so the nonce may be fixed. A wrap is magic | salt | ciphertext | tag;
    one key in the environment, a file or the keyring opens the same wraps.
    """

    scheme: str

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        salt = os.urandom(SALT_BYTES)
        aad = _canonical(context)
        sealed: bytes = self._cipher(uri, salt, aad).encrypt(bytes(12), key, aad)
        return MAGIC + salt + sealed

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        salt, sealed = wrapped[len(MAGIC) :][:SALT_BYTES], wrapped[len(MAGIC) + SALT_BYTES :]
        if not wrapped.startswith(MAGIC) or len(sealed) < 16:
            raise KeyNotMine(f"{uri!r} did not wrap this key: it is another provider's, or cut short")
        aad = _canonical(context)
        cipher = self._cipher(uri, salt, aad)
        from cryptography.exceptions import InvalidTag

        try:
            key: bytes = cipher.decrypt(bytes(12), sealed, aad)
        except InvalidTag:
            raise KeyNotMine(f"{uri!r} did not wrap this key, or it was wrapped for something else") from None
        return key

    def _cipher(self, uri: str, salt: bytes, aad: bytes) -> Any:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA384
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError as error:
            raise ConfigError(f"key {uri!r} needs the package cryptography: pip install 'gateway-sdk[keys]'") from error
        try:
            own = base64.b64decode(secret(uri).reveal(), validate=True)
        except ValueError:  # not base64, or not even ASCII
            own = b""
        if len(own) != KEY_BYTES:
            raise ConfigError(f"key {uri!r} must be {KEY_BYTES} bytes in base64")
        return AESGCM(HKDF(SHA384(), KEY_BYTES, salt, b"gateway wrap 1" + aad).derive(own))


class EnvKey(_OwnKey):
    """``env:NAME``: 32 bytes, base64, in an environment variable."""

    scheme = "env"


class FileKey(_OwnKey):
    """``file:PATH``: 32 bytes, base64, in a file that only its owner can read."""

    scheme = "file"


class KeyringKey(_OwnKey):
    """``keyring:SERVICE/USER``: 32 bytes, base64, in the operating system's keyring. One that does not encrypt is refused."""

    scheme = "keyring"

    def _cipher(self, uri: str, salt: bytes, aad: bytes) -> Any:
        if find_spec("keyring") is not None:  # without it, reading the secret tells what to install
            _refuse_unsafe_keyring(uri)
        return super()._cipher(uri, salt, aad)


def _canonical(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _from_keyring(rest: str, ref: str) -> str:
    service, _, user = rest.rpartition("/")
    if not service or not user:
        raise ConfigError("a secret of the keyring is given as keyring:SERVICE/USER")
    if find_spec("keyring") is None:
        raise ConfigError(f"secret {ref!r} needs the package keyring: pip install 'gateway-sdk[keyring]'")
    try:
        import keyring

        value, why = keyring.get_password(service, user), ""
    except Exception as error:  # locked, not there on this machine, or whatever its backend raises: which may say anything
        value, why = None, type(error).__name__
    if why:
        raise MissingSecret(f"secret {ref!r}: the keyring cannot be read: {why}", ref=ref)
    if not value:
        raise MissingSecret(f"secret {ref!r} is not in the keyring: `keyring set {service} {user}` puts it there", ref=ref)
    return str(value)


def _refuse_unsafe_keyring(uri: str) -> None:
    """ConfigError for a keyring that keeps nothing, or keeps it for all to read: also where it is one of several in a chain."""
    try:
        import keyring

        backend, why = keyring.get_keyring(), ""
        kinds = [kind for one in getattr(backend, "backends", [backend]) for kind in type(one).__mro__]
    except Exception as error:  # whatever a backend raises: which may say anything
        kinds, why = [], type(error).__name__
    if why:
        raise MissingSecret(f"key {uri!r}: the keyring cannot be read: {why}", ref=uri)
    for kind in kinds:
        if kind.__module__ in ("keyring.backends.null", "keyring.backends.fail") or kind.__name__ == "PlaintextKeyring":
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise ConfigError(
                f"key {uri!r}: the keyring {name} keeps no secret; name one that encrypts in PYTHON_KEYRING_BACKEND, such as "
                "keyring.backends.SecretService.Keyring, or give the key as file:PATH"
            )


def _read_private(path: Path, ref: str) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise ConfigError(f"secret file {str(path)!r} can be read by others: chmod 600 it")
            value, why = file.read(65_536).decode().strip(), ""
    except (OSError, ValueError) as error:
        value, why = "", type(error).__name__
    if why:  # told here: an error of decoding, as the context, would hold the bytes that it could not decode
        raise MissingSecret(f"secret file {str(path)!r} cannot be read: {why}", ref=ref)
    if not value:
        raise MissingSecret(f"secret file {str(path)!r} is empty", ref=ref)
    return value
