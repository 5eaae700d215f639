"""Who sealed a model: a detached OpenSSF model-signing signature over its manifest, made and checked.

What is signed is the one file manifest.gws. It holds a hash of every blob, and does not change when keys are rotated. The
signature is what the `model_signing` program makes and verifies: a Sigstore bundle v0.3 that holds a DSSE envelope
(github.com/secure-systems-lab/dsse, protocol.md) of an in-toto statement v1 with the predicate model_signing/signature/v1.0,
signed by ECDSA with the hash of the curve's size. It lies beside the manifest as manifest.gws.sig, or wherever the caller says.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import ConfigError, Secret
from gateway_seal.errors import SealError
from gateway_seal.files import put_file, read_capped, told
from gateway_seal.manifest import MAGIC, MANIFEST_CAP_BYTES, NAME

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey

SIGNATURE = f"{NAME}.sig"
SIGNATURE_CAP_BYTES = 1 << 20
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
CURVES = "of the curve P-256, P-384 or P-521, in PEM"


def sign(directory: Path, private_key: Path, *, signature: Path | None = None, password: Secret | None = None) -> Path:
    """Sign the sealed model in `directory`, and return where the signature is. One that was there is replaced, in one step.

    `private_key` is a PEM file that only its owner can read, with an elliptic key of the curve P-256, P-384 or P-521.
    ConfigError when the key cannot be used, SealError when there is no sealed model or the signature cannot be written.
    """
    target = directory / SIGNATURE if signature is None else signature
    if target.suffix in (".gws", ".keys", ".blob"):
        raise ConfigError(f"the signature cannot be {str(target)!r}: that is the name of a sealed model's own file")
    key = _private(private_key, password)
    manifest = read_capped(directory / NAME, MANIFEST_CAP_BYTES, "the manifest of a sealed model")
    if not manifest.startswith(MAGIC):
        raise SealError(f"{str(directory)!r} is not a sealed model: its {NAME} is something else")
    payload = json.dumps(_statement(sha256(manifest))).encode()
    sig = key.sign(_encoded(payload), _ecdsa(key.public_key()))
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(sig).decode(), "keyid": ""}],
        },
    }
    try:
        put_file(target, json.dumps(bundle).encode())
    except OSError as error:
        raise told(error, target) from error
    return target


def check_signature(manifest: bytes, signature: bytes | Path, public_key: Path) -> None:
    """Return when `signature` is over these very bytes and nothing else, made with the private half of `public_key`.

    SealError when it is absent, malformed, by another key or over something else; ConfigError when the key cannot be used.
    """
    from cryptography.exceptions import InvalidSignature

    key = _public(public_key)
    if isinstance(signature, bytes):
        where, raw = "the signature", signature
    else:
        where, raw = f"signature {str(signature)!r}", read_capped(signature, SIGNATURE_CAP_BYTES, "the signature")
    if len(raw) > SIGNATURE_CAP_BYTES:
        raise SealError(f"{where} is larger than {SIGNATURE_CAP_BYTES} bytes")
    try:
        hint, payload, sig = _opened(json.loads(raw.decode()))
    except (ValueError, TypeError, LookupError, RecursionError):
        raise SealError(f"{where} is no signature of model-signing by an elliptic key") from None
    try:
        key.verify(sig, _encoded(payload), _ecdsa(key))
        ours = hint == _hint(key)
    except InvalidSignature:
        ours = False
    if not ours:
        raise SealError(f"{where} was not made with the private half of {str(public_key)!r}, or was changed since")
    try:
        same = _is_of(json.loads(payload), sha256(manifest).digest())
    except (ValueError, TypeError, LookupError, RecursionError):
        same = False
    if not same:
        raise SealError(f"{where} is of something else than this {NAME}: the model was sealed anew, or put in its place")


def _opened(bundle: Any) -> tuple[str, bytes, bytes]:
    """Which key, what was signed, and the signature; whatever is not as it should be raises."""
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    [signature] = envelope["signatures"]
    if bundle["mediaType"] != BUNDLE or envelope["payloadType"] != PAYLOAD or len(bundle) != 3:
        raise ValueError
    payload, sig = (base64.b64decode(text, validate=True) for text in (envelope["payload"], signature["sig"]))
    return material["publicKey"]["hint"], payload, sig


def _statement(digest: Any) -> dict[str, Any]:
    """That a model is the one file manifest.gws of this digest. The name says nothing of this machine; nobody compares it."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": NAME, "digest": {"sha256": sha256(digest.digest()).hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": {
            "resources": [{"name": NAME, "algorithm": "sha256", "digest": digest.hexdigest()}],
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
        },
    }


def _is_of(statement: Any, digest: bytes) -> bool:
    """Whether a statement says that of `digest`, as the stock tool would understand it; what has another shape raises."""
    [subject], [named] = statement["subject"], statement["predicate"]["resources"]
    kind = (statement["_type"], statement["predicateType"], statement["predicate"]["serialization"]["method"])
    return (
        kind == (STATEMENT, PREDICATE, "files")
        and (named["name"], named["algorithm"]) == (NAME, "sha256")
        and hmac.compare_digest(bytes.fromhex(named["digest"]), digest)
        and bytes.fromhex(subject["digest"]["sha256"]) == sha256(digest).digest()
    )


def _encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, which binds the type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _ecdsa(key: EllipticCurvePublicKey) -> ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    by_curve = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    return ECDSA(by_curve[key.curve.name])


def _hint(key: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _private(path: Path, password: Secret | None) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = None
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ConfigError(f"private key {str(path)!r} can be read by others: chmod 600 it")
            key = load_pem_private_key(file.read(65_536), None if password is None else password.reveal().encode())
    except OSError as error:
        raise ConfigError(f"private key {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM, or encrypted and the password is wrong
        key = None
    if isinstance(key, EllipticCurvePrivateKey) and _is_known(key.public_key()):
        return key
    protected = "with this password" if password is not None else "without a password"
    raise ConfigError(f"private key {str(path)!r} is no elliptic key {CURVES}, or does not open {protected}")


def _public(path: Path) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = None
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(65_536))
    except OSError as error:
        raise ConfigError(f"public key {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, EllipticCurvePublicKey) and _is_known(key):
        return key
    raise ConfigError(f"public key {str(path)!r} is not the public half of an elliptic key {CURVES}")


def _is_known(key: EllipticCurvePublicKey) -> bool:
    return key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
