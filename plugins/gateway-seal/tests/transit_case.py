"""A server on loopback that speaks the transit API of HashiCorp Vault: real keys and AES-GCM, in memory, and Vault's errors.

After developer.hashicorp.com/vault/api-docs/secret/transit and hashicorp/vault, sdk/helper/keysutil/policy.go.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.CAESIJ4711canary"
DERIVED = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, per-request "
    "information must be included in order to perform operations with the key"
)


class Refused(Exception):
    """An answer that is an error: its status, and Vault's sentences."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors


@dataclass
class TransitKey:
    """A named key and its versions, the first of them 1."""

    kind: str = "aes256-gcm96"
    derived: bool = False
    least: int = 1
    versions: list[bytes] = field(default_factory=lambda: [os.urandom(32)])

    def rotate(self) -> None:
        """Add a version, which encrypts from now on."""
        self.versions.append(os.urandom(32))

    def encrypt(self, given: Mapping[str, Any], data: bytes | None) -> dict[str, Any]:
        """`data` is the associated data."""
        self._check(data)
        nonce, version = os.urandom(12), len(self.versions)
        sealed = nonce + AESGCM(self.versions[-1]).encrypt(nonce, base64.b64decode(given["plaintext"]), data)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def decrypt(self, given: Mapping[str, Any], data: bytes | None) -> dict[str, Any]:
        """The inverse."""
        self._check(data)
        prefix, _, rest = given["ciphertext"].partition(":v")
        number, _, text = rest.partition(":")
        if prefix != "vault":
            raise Refused(400, "invalid ciphertext: no prefix")
        if (version := int(number) or 1) > len(self.versions):
            raise Refused(400, "invalid ciphertext: version is too new")
        if version < self.least:
            raise Refused(400, "ciphertext or signature version is disallowed by policy (too old)")
        sealed = base64.b64decode(text)
        if len(sealed) < 12:
            raise Refused(400, "invalid ciphertext length")
        try:
            plain = AESGCM(self.versions[version - 1]).decrypt(sealed[:12], sealed[12:], data)
        except InvalidTag:
            raise Refused(400, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plain).decode()}

    def _check(self, data: bytes | None) -> None:
        if self.kind != "aes256-gcm96" and data is not None:
            raise Refused(400, f"'[0].associated_data' provided for non-AEAD cipher suite {self.kind}")
        if self.derived:
            raise Refused(400, DERIVED)


@dataclass
class Transit:
    """The server: its keys by ``MOUNT/KEY``, who may ask, and how it is at the moment."""

    keys: dict[str, TransitKey] = field(default_factory=lambda: {"transit/one": TransitKey(), "transit/other": TransitKey()})
    mounts: tuple[str, ...] = ("transit", "team/transit")
    may: tuple[str, ...] = ("encrypt", "decrypt")
    sealed: bool = False
    old: bool = False
    """As before Vault 1.13: what it does not know of a request, it does not look at."""
    namespace: str = ""
    broken: tuple[int, bytes] | None = None
    """A status and a body in the place of every answer."""
    location: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, headers: Mapping[str, str], given: dict[str, Any]) -> dict[str, Any]:
        """What Vault would say."""
        self.asked.append((path, given))
        if self.sealed:
            raise Refused(503, "Vault is sealed")
        mount, _, rest = path.removeprefix("/v1/").partition("/encrypt/" if "/encrypt/" in path else "/decrypt/")
        what = path.removeprefix(f"/v1/{mount}/").partition("/")[0]
        if headers.get("X-Vault-Namespace", "") != self.namespace or mount not in self.mounts:
            raise Refused(404, f'no handler for route "{mount}/{what}/{rest}". route entry not found.')
        if headers.get("X-Vault-Token") != TOKEN:
            raise Refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        if what not in self.may:
            raise Refused(403, "1 error occurred:\n\t* permission denied\n\n")
        key = self.keys.get(f"{mount}/{rest}")
        if key is None:
            raise Refused(400, "encryption key not found")
        told = "" if self.old else given.get("associated_data", "")
        data = base64.b64decode(told) if told else None
        return key.encrypt(given, data) if what == "encrypt" else key.decrypt(given, data)


@contextmanager
def serving(transit: Transit) -> Iterator[Transit]:
    """The server at its `url`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if transit.broken is not None:
                self._send(*transit.broken)
                return
            try:
                data = transit.answer(self.path, self.headers, given)  # type: ignore[arg-type]
                self._send(200, json.dumps({"request_id": "x", "data": data, "warnings": None}).encode())
            except Refused as error:
                self._send(error.status, json.dumps({"errors": list(error.errors)}).encode())

        do_PUT = do_POST

        def _send(self, status: int, said: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            if transit.location:
                self.send_header("Location", transit.location)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *given: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        transit.url = f"http://127.0.0.1:{server.server_port}"
        yield transit
        server.shutdown()
