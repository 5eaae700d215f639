"""``vault:MOUNT/KEY``: wraps by the transit engine of HashiCorp Vault or OpenBao. ``vault:KEY`` is in the mount "transit"."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from gateway import ConfigError, MissingSecret, Unreachable, secret
from gateway_seal.wrapping import body, bound, canonical, check_private, needed, not_mine, unbound

MAGIC = b"gwv1"
VERSION_BYTES = 4
NAME = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*", re.ASCII)
TOKEN = re.compile(r"(?:hv[sbr]|[sbr])\.")  # developer.hashicorp.com/vault/docs/concepts/tokens


class VaultKey:
    """Transit's encrypt and decrypt, with the context as associated data: the key's type must be an AEAD, as aes256-gcm96 is.

    VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT say which server; VAULT_TOKEN or ~/.vault-token is the token. A wrap is
    magic | version of the key, u32 | what transit made, not its text: one wrap must not have several forms.
    """

    scheme = "vault"

    def __init__(self, *, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        told = {"plaintext": _base64(bound(key, context)), "associated_data": _base64(canonical(context))}
        return MAGIC + self._ask(uri, _path(uri), "encrypt", told, _packed)

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        path = _path(uri)
        rest = body(uri, wrapped, MAGIC, least_bytes=VERSION_BYTES + 1)
        version = int.from_bytes(rest[:VERSION_BYTES], "big")
        if version == 0:  # transit takes it for 1
            raise not_mine(uri)
        told = {
            "ciphertext": f"vault:v{version}:{_base64(rest[VERSION_BYTES:])}",
            "associated_data": _base64(canonical(context)),
        }
        return unbound(uri, self._ask(uri, path, "decrypt", told, lambda data: base64.b64decode(data["plaintext"])), context)

    def _ask(
        self, uri: str, path: tuple[str, str], what: str, told: dict[str, str], taken: Callable[[Mapping[str, str]], bytes]
    ) -> bytes:
        mount, name = path
        hvac = needed("hvac", uri, "vault")
        url = os.environ.get("VAULT_ADDR", "")
        if not url:
            raise ConfigError(f"key {uri!r} needs VAULT_ADDR, such as https://vault.example.com:8200")
        check_private(url, uri, "VAULT_ADDR")
        failure: object = None
        client = hvac.Client(
            url=url,
            token=_token(uri),
            namespace=os.environ.get("VAULT_NAMESPACE") or None,
            timeout=self._timeout_s,
            allow_redirects=False,  # it would take the token and the key along
        )
        client.session.trust_env = url.startswith("https:")  # http:// stays on this machine: no proxy is told
        try:
            reply = getattr(client.secrets.transit, f"{what}_data")(name, mount_point=mount, **told)
            if isinstance(reply, dict):
                return taken(reply["data"])
            failure = reply.status_code
        except Exception as error:
            failure = error
        finally:
            client.adapter.close()
        # Raised here: as the context, the error of hvac or requests would hold what was asked, the token and the key with it.
        _raise(uri, what, failure)


def _path(uri: str) -> tuple[str, str]:
    """Mount and key."""
    path = uri.partition(":")[2]
    if NAME.fullmatch(path) is None or TOKEN.match(path):  # not repeated: who knows what was pasted
        raise ConfigError("a key of Vault is given as vault:MOUNT/KEY, or vault:KEY for one of the mount transit")
    mount, _, name = path.rpartition("/")
    return mount or "transit", name


def _token(uri: str) -> str:
    ref = "env:VAULT_TOKEN" if os.environ.get("VAULT_TOKEN") else "file:~/.vault-token"
    try:
        return secret(ref).reveal()
    except MissingSecret:
        message = f"key {uri!r} needs a token of Vault: set VAULT_TOKEN, or call `vault login`, which writes ~/.vault-token"
    raise MissingSecret(message, ref="env:VAULT_TOKEN")


def _packed(data: Mapping[str, str]) -> bytes:
    """A ciphertext of transit as a wrap holds it."""
    prefix, version, text = data["ciphertext"].split(":")
    if prefix != "vault":
        raise ValueError("the ciphertext has another prefix")
    return int(version.removeprefix("v")).to_bytes(VERSION_BYTES, "big") + base64.b64decode(text, validate=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _raise(uri: str, what: str, failure: object) -> NoReturn:
    import hvac.exceptions
    import requests.exceptions

    kind, where = type(failure).__name__, f"key {uri!r}"
    # Transit's own sentences (hashicorp/vault, sdk/helper/keysutil/policy.go). None is passed on: they may quote anything.
    said = "\n".join(map(str, failure.errors or ())) if isinstance(failure, hvac.exceptions.VaultError) else ""
    match failure:
        case int():
            raise ConfigError(
                f"{where}: VAULT_ADDR answers with status {failure}, as Vault does not: does it lead to Vault itself?"
            )
        case hvac.exceptions.InvalidRequest():
            if what == "decrypt" and re.search(
                r"(?m)message authentication failed|^invalid ciphertext|\(too old\)|key version", said
            ):
                raise not_mine(uri)
            raise ConfigError(f"{where}: Vault refuses to {what} with it: {_why(said)}")
        case hvac.exceptions.Forbidden() | hvac.exceptions.Unauthorized():
            raise ConfigError(f"{where}: Vault denies it: the token is not valid, or no policy of its lets it {what}")
        case hvac.exceptions.InvalidPath():
            raise ConfigError(f"{where}: Vault has no transit engine there, or VAULT_NAMESPACE is another")
        case hvac.exceptions.VaultDown() | hvac.exceptions.VaultNotInitialized():
            raise Unreachable(f"{where}: Vault is sealed, or down")
        case hvac.exceptions.VaultError():
            raise Unreachable(f"{where}: Vault cannot answer now: {kind}")
        case requests.exceptions.ConnectionError() | requests.exceptions.Timeout():
            raise Unreachable(f"{where}: Vault cannot be reached: {kind}")
    raise ConfigError(f"{where}: Vault cannot be asked, or its answer cannot be read: {kind}")


def _why(said: str) -> str:
    if "key not found" in said:
        return "there is no such key"
    if "key derivation" in said:
        return "it is a derived key, which needs more than these references can say; make one that is not"
    return "its type must be aes256-gcm96 or another AEAD, and its policy must allow it; Vault's audit log says more"
