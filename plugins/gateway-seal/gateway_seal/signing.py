"""Who sealed a model: a detached OpenSSF model-signing signature over its manifest, made and checked.

What is signed is the one file manifest.gws. It holds a hash of every blob, and does not change when keys are rotated. The
signature is a Sigstore bundle over an in-toto statement, as the `model_signing` program makes and verifies it; it lies beside
the manifest as manifest.gws.sig, or wherever the caller says. The package model-signing comes with the extra [signing] and is
imported only when it is used: that takes about a second.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import stat
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from gateway import ConfigError, Secret
from gateway_seal.errors import SealError

MANIFEST = "manifest.gws"
SIGNATURE = "manifest.gws.sig"
MAGIC = b"GWSEAL\0\1"
MAX_MANIFEST_BYTES = 16 << 20
MAX_SIGNATURE_BYTES = 1 << 20
CURVES = "of the curve P-256, P-384 or P-521, in PEM"


def sign(directory: Path, private_key: Path, *, signature: Path | None = None, password: Secret | None = None) -> Path:
    """Sign the sealed model in `directory`, and return where the signature is. One that was there is replaced, in one step.

    `private_key` is a PEM file that only its owner can read, with an elliptic key of the curve P-256, P-384 or P-521.
    ConfigError when the key cannot be used, SealError when there is no sealed model or the signature cannot be written.
    """
    target = directory / SIGNATURE if signature is None else signature
    if target.suffix in (".gws", ".keys", ".blob"):
        raise ConfigError(f"the signature cannot be {str(target)!r}: that is the name of a sealed model's own file")
    tool = _tool()
    signer = _signer(tool, private_key, password)
    manifest = _read(directory / MANIFEST, MAX_MANIFEST_BYTES, "the manifest of a sealed model")
    if not manifest.startswith(MAGIC):
        raise SealError(f"{str(directory)!r} is not a sealed model: its {MANIFEST} is something else")
    # The name says nothing of this machine; the verifier does not look at it.
    item = tool.files.FileManifestItem(path=PurePosixPath(MANIFEST), digest=tool.Digest("sha256", sha256(manifest).digest()))
    how = tool.files.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
    bundle = signer.sign(tool.Payload(tool.files.Manifest(MANIFEST, [item], how))).bundle
    _write(target, bundle.to_json().encode())
    return target


def check_signature(manifest: bytes, signature: bytes | Path, public_key: Path) -> None:
    """Return when `signature` is over these very bytes and nothing else, made with the private half of `public_key`.

    SealError when it is absent, malformed, by another key or over something else; ConfigError when the key cannot be used.
    """
    tool = _tool()
    verifier = _verifier(tool, public_key)
    if isinstance(signature, bytes):
        where, raw = "the signature", signature
    else:
        where, raw = f"signature {str(signature)!r}", _read(signature, MAX_SIGNATURE_BYTES, "the signature")
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise SealError(f"{where} is larger than {MAX_SIGNATURE_BYTES} bytes")
    try:
        bundle = tool.Bundle.from_dict(json.loads(raw.decode()))
        hint = bundle.verification_material.public_key.hint  # without one, the verifier prints a warning
        if not hint or bundle.dsse_envelope is None:
            raise ValueError
    except Exception:  # it may hold anything, and its readers raise anything; what they say would repeat it
        bundle = None
    if bundle is None:
        raise SealError(f"{where} is no signature of model-signing by an elliptic key")
    try:
        signed = [*verifier.verify(tool.Signature(bundle)).resource_descriptors()]
    except Exception:
        signed = None
    if signed is None:
        raise SealError(f"{where} was not made with the private half of {str(public_key)!r}, or was changed since")
    wanted = [(MANIFEST, "sha256")]
    if [(one.identifier, one.digest.algorithm) for one in signed] != wanted or not hmac.compare_digest(
        signed[0].digest.digest_value, sha256(manifest).digest()
    ):
        raise SealError(f"{where} is of something else than this {MANIFEST}: the model was sealed anew, or put in its place")


@dataclass(frozen=True)
class _Tool:
    """What is used of model-signing. Its public functions read files by name: what is in memory goes by those within."""

    files: Any
    key: Any
    Bundle: Any
    Digest: Any
    Payload: Any
    Signature: Any


def _tool() -> _Tool:
    try:
        return _Tool(
            files=import_module("model_signing.manifest"),
            key=import_module("model_signing._signing.sign_ec_key"),
            Bundle=import_module("sigstore_models.bundle.v1").Bundle,
            Digest=import_module("model_signing._hashing.hashing").Digest,
            Payload=import_module("model_signing._signing.signing").Payload,
            Signature=import_module("model_signing._signing.sign_sigstore_pb").Signature,
        )
    except ImportError as error:
        missing = (error.name or "a part of it").partition(".")[0]
        raise ConfigError(
            f"a signature needs the package model-signing ({missing} is missing): pip install 'gateway-seal[signing]'"
        ) from error


def _signer(tool: _Tool, path: Path, password: Secret | None) -> Any:
    try:
        open_to_others = stat.S_IMODE(path.stat().st_mode) & 0o077
        # Bytes: the package says str, and would then fail.
        signer = None if open_to_others else tool.key.Signer(path, None if password is None else password.reveal().encode())
    except OSError as error:
        raise ConfigError(f"private key {str(path)!r} cannot be read: {error.strerror}") from error
    except Exception:  # no PEM, no elliptic key, or encrypted and the password is wrong
        protected = "with this password" if password is not None else "without a password"
        why = f"private key {str(path)!r} is no elliptic key {CURVES}, or does not open {protected}"
    else:
        if signer is not None:
            return signer
        why = f"private key {str(path)!r} can be read by others: chmod 600 it"
    raise ConfigError(why)


def _verifier(tool: _Tool, path: Path) -> Any:
    try:
        return tool.key.Verifier(path)
    except OSError as error:
        raise ConfigError(f"public key {str(path)!r} cannot be read: {error.strerror}") from error
    except Exception:  # no PEM, no public key, or not an elliptic one
        why = f"public key {str(path)!r} is not the public half of an elliptic key {CURVES}"
    raise ConfigError(why)


def _read(path: Path, most: int, what: str) -> bytes:
    """A file's bytes; of what is too large, no more is read. What is no plain file is not waited for."""
    data = b""
    try:
        # Without O_NONBLOCK, a named pipe would hold its opener until somebody writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            plain = stat.S_ISREG(os.fstat(handle).st_mode)
            if plain:
                with open(handle, "rb", closefd=False) as file:
                    data = file.read(most + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise SealError(f"{str(path)!r}, {what}, cannot be read: {error.strerror}") from error
    if not plain:
        raise SealError(f"{str(path)!r}, {what}, is no plain file")
    if len(data) > most:
        raise SealError(f"{str(path)!r} is larger than {most} bytes: it is not {what}")
    return data


def _write(path: Path, data: bytes) -> None:
    """The old file or the new one, whole, whenever the machine stops."""
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise SealError(f"{str(path)!r} cannot be written: {error.strerror}") from error
