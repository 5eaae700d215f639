"""What the tests of signatures share: key pairs made here and now, and what looks like a sealed model."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

MANIFEST = b"GWSEAL\0\1" + bytes(range(256))
PEM = serialization.Encoding.PEM


def keys(folder: Path, name: str, key: Any = None, password: bytes = b"") -> tuple[Path, Path]:
    """A fresh key pair: the files of its private and its public half."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sealed(folder: Path, manifest: bytes = MANIFEST) -> Path:
    """What looks like a sealed model: its manifest, a wrapped key and a blob."""
    folder.mkdir()
    (folder / "manifest.gws").write_bytes(manifest)
    (folder / ("ab" * 16 + ".keys")).write_text('{"wraps":[]}')
    (folder / ("cd" * 16 + ".blob")).write_bytes(os.urandom(1000))
    return folder


def payload_of(signature: bytes) -> bytes:
    return base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])
