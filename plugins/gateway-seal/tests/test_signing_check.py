"""A signature is checked: any change to it or to the manifest is refused, with one kind of error."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from gateway_seal import SealError
from gateway_seal.signing import SIGNATURE_CAP_BYTES, check_signature, sign
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import hashing, signing
from signing_case import MANIFEST, keys, payload_of, sealed


def test_a_signature_by_another_key_is_refused(tmp_path: Path, pair: tuple[Path, Path], signed: bytes) -> None:
    _, other = keys(tmp_path, "other")
    with pytest.raises(SealError, match="was not made with the private half of"):
        check_signature(MANIFEST, signed, other)
    # Nor does it help to claim that the key is the one that is asked for.
    forged = json.loads(sign(sealed(tmp_path / "model"), tmp_path / "other.pem").read_bytes())
    forged["verificationMaterial"] = json.loads(signed)["verificationMaterial"]
    with pytest.raises(SealError, match="was not made with"):
        check_signature(MANIFEST, json.dumps(forged).encode(), pair[1])


def test_any_bit_of_the_manifest_flipped_and_any_other_length_is_refused(pair: tuple[Path, Path], signed: bytes) -> None:
    check_signature(MANIFEST, signed, pair[1])
    changed = [MANIFEST[:at] + bytes([MANIFEST[at] ^ 1 << bit]) + MANIFEST[at + 1 :] for at in range(264) for bit in range(8)]
    for manifest in [*changed, b"", MANIFEST[:-1], MANIFEST + b"\0", MANIFEST * 2]:
        with pytest.raises(SealError, match=r"is of something else than this manifest\.gws"):
            check_signature(manifest, signed, pair[1])


# What may be signed in the same directory, with the same key, other than that one file by its name: model, and what is ignored.
OTHERS = {
    "every file of the directory": ("model", []),
    "a blob alone": ("model", ["manifest.gws", "copy", "ab" * 16 + ".keys"]),
    "nothing, while everything is to be ignored": ("model", ["."]),
    "the manifest as a model of one file": ("model/manifest.gws", []),
    "the same bytes under another name": ("model/copy", []),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_good_signature_of_something_else_is_refused(tmp_path: Path, pair: tuple[Path, Path], other: str) -> None:
    copy = sealed(tmp_path / "model") / "copy"
    copy.mkdir()
    (copy / "weights.gws").write_bytes(MANIFEST)
    model, ignored = OTHERS[other]
    by_the_stock_tool(tmp_path / model, tmp_path / "sig", pair[0], hashing.Config().set_ignored_paths(paths=ignored))
    with pytest.raises(SealError, match=r"is of something else than this manifest\.gws"):
        check_signature(MANIFEST, tmp_path / "sig", pair[1])


def test_a_signature_by_the_stock_tool_over_the_manifest_alone_holds(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    by_the_stock_tool(only_the_manifest(tmp_path), tmp_path / "sig", pair[0], hashing.Config())
    check_signature(MANIFEST, tmp_path / "sig", pair[1])


def test_a_hash_other_than_sha256_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = only_the_manifest(tmp_path)
    for how in (
        hashing.Config().use_file_serialization(hashing_algorithm="blake3"),
        hashing.Config().use_shard_serialization(),
    ):
        by_the_stock_tool(model, tmp_path / "sig", pair[0], how)
        with pytest.raises(SealError, match="is of something else"):
            check_signature(MANIFEST, tmp_path / "sig", pair[1])


def by_the_stock_tool(model: Path, signature: Path, key: Path, how: Any) -> None:
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(how).sign(model, signature)


def only_the_manifest(folder: Path) -> Path:
    (folder / "only").mkdir()
    (folder / "only" / "manifest.gws").write_bytes(MANIFEST)
    return folder / "only"


# Each makes something that is no such signature out of the bytes of a good one.
MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "not json": lambda good: b"GWSEAL\0\1",
    "cut": lambda good: good[:-1],
    "not utf-8": lambda good: b"\xff" + good,
    "utf-16": lambda good: good.decode().encode("utf-16"),
    "something after it": lambda good: good + b"{}",
    "a list": lambda good: b"[" + good + b"]",
    "null": lambda good: b"null",
    "a number of many digits": lambda good: b"9" * 100_000,
    "nested without end": lambda good: b"[" * 500_000,
    "objects without end": lambda good: b'{"dsseEnvelope":' * 50_000,
    "no object of it": lambda good: b"{}",
    "another media type": lambda good: good.replace(b"v0.3+json", b"v0.4+json"),
    "an unknown field": lambda good: good.replace(b"{", b'{"more":1,', 1),
    "no hint of the key": lambda good: changed(good, lambda bundle: bundle["verificationMaterial"]["publicKey"].clear()),
    "an empty hint": lambda good: changed(good, lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint="")),
    "a certificate for a key": lambda good: changed(
        good,
        lambda bundle: bundle.update(
            verificationMaterial={"certificate": {"rawBytes": "MA=="}, "tlogEntries": []},
        ),
    ),
    "a message's signature": lambda good: changed(
        good,
        lambda bundle: bundle.update(
            dsseEnvelope=None,
            messageSignature={"messageDigest": {"algorithm": "SHA2_256", "digest": "MA=="}, "signature": "MA=="},
        ),
    ),
    "no signatures": lambda good: changed(good, lambda bundle: bundle["dsseEnvelope"].update(signatures=[])),
    "an empty signature": lambda good: changed(good, lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="")),
    "an empty payload": lambda good: changed(good, lambda bundle: bundle["dsseEnvelope"].update(payload="")),
    "a payload of another type": lambda good: changed(
        good, lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain")
    ),
    "a payload that was changed": lambda good: changed(
        good,
        lambda bundle: bundle["dsseEnvelope"].update(payload=base64.b64encode(payload_of(good) + b" ").decode()),
    ),
}


def changed(good: bytes, change: Callable[[Any], object]) -> bytes:
    bundle = json.loads(good)
    change(bundle)
    return json.dumps(bundle).encode()


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_signature_is_refused(
    kind: str, pair: tuple[Path, Path], signed: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = MALFORMED[kind](signed)
    assert bad != signed
    with pytest.raises(SealError, match=r"is no signature of model-signing|was not made with"):
        check_signature(MANIFEST, bad, pair[1])
    assert capsys.readouterr() == ("", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("MA==") | st.just("manifest.gws"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def mutated(data: st.DataObject, value: Any) -> Any:
    """`value` with one place of it replaced, dropped, doubled, edited, or taken from elsewhere in it."""
    root = [json.loads(json.dumps(value))]
    *steps, last = (0, *data.draw(st.sampled_from(places(value))))
    box = at(root, steps)
    how = data.draw(st.sampled_from(["replace", "drop", "double", "move", "edit"]))
    if how == "drop":
        del box[last]
    elif how == "double":
        box[last] = [box[last], box[last]]
    elif how == "move":
        box[last] = at(value, data.draw(st.sampled_from(places(value))))
    elif how == "edit" and isinstance(box[last], str):
        text, begin = box[last], data.draw(st.integers(0, len(box[last])))
        box[last] = text[:begin] + data.draw(st.text(max_size=3)) + text[begin + data.draw(st.integers(0, 3)) :]
    else:
        box[last] = data.draw(JSON)
    return root[0] if root else None


def at(value: Any, path: Iterable[Any]) -> Any:
    return functools.reduce(lambda part, step: part[step], path, value)


def refused_or_the_same(manifest: bytes, bad: bytes, good: bytes, public: Path) -> None:
    try:
        check_signature(manifest, bad, public)
    except SealError:
        return
    # What was signed is the same to the byte, then, and it is still about this manifest.
    assert payload_of(bad) == payload_of(good)
    assert manifest == MANIFEST


MANY = settings(max_examples=400, deadline=None)


@MANY
@given(st.data())
def test_a_signature_changed_anywhere_is_refused_or_signs_the_same(
    pair: tuple[Path, Path], signed: bytes, data: st.DataObject
) -> None:
    bundle = mutated(data, json.loads(signed))
    refused_or_the_same(MANIFEST, json.dumps(bundle).encode(), signed, pair[1])


@MANY
@given(st.integers(0, 1 << 30), st.binary(max_size=4), st.integers(0, 4))
def test_bytes_of_a_signature_changed_are_refused_or_sign_the_same(
    pair: tuple[Path, Path], signed: bytes, at: int, new: bytes, gone: int
) -> None:
    at %= len(signed)
    refused_or_the_same(MANIFEST, signed[:at] + new + signed[at + gone :], signed, pair[1])


def made_over(payload: Any, private: Path, good: bytes) -> bytes:
    """A bundle with any payload, rightly signed."""
    raw = json.dumps(payload).encode()
    kind = b"application/vnd.in-toto+json"
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    sig = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw), ec.ECDSA(SHA256()))
    bundle = json.loads(good)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(sig).decode()
    return json.dumps(bundle).encode()


def test_the_right_digest_under_another_hash_s_name_is_refused(pair: tuple[Path, Path], signed: bytes) -> None:
    statement = json.loads(payload_of(signed))
    check_signature(MANIFEST, made_over(statement, pair[0], signed), pair[1])
    statement["predicate"]["resources"][0]["algorithm"] = "blake3"
    with pytest.raises(SealError, match="is of something else"):
        check_signature(MANIFEST, made_over(statement, pair[0], signed), pair[1])


@MANY
@given(st.data())
def test_a_well_signed_statement_of_any_shape_is_never_another_exception(
    pair: tuple[Path, Path], signed: bytes, data: st.DataObject
) -> None:
    good = json.loads(payload_of(signed))
    check_signature(MANIFEST, made_over(good, pair[0], signed), pair[1])
    bad = made_over(mutated(data, good), pair[0], signed)
    with pytest.raises(SealError):
        check_signature(MANIFEST + b"\0", bad, pair[1])
    with contextlib.suppress(SealError):
        check_signature(MANIFEST, bad, pair[1])
        [named] = json.loads(payload_of(bad))["predicate"]["resources"]
        assert named["digest"].lower() == good["predicate"]["resources"][0]["digest"]


def test_a_signature_of_a_mebibyte_is_the_largest_that_is_read(tmp_path: Path, pair: tuple[Path, Path], signed: bytes) -> None:
    most = signed + b" " * (SIGNATURE_CAP_BYTES - len(signed))
    (tmp_path / "sig").write_bytes(most)
    check_signature(MANIFEST, most, pair[1])
    check_signature(MANIFEST, tmp_path / "sig", pair[1])
    (tmp_path / "sig").write_bytes(most + b" ")
    for larger in (most + b" ", tmp_path / "sig"):
        with pytest.raises(SealError, match="is larger than 1048576 bytes"):
            check_signature(MANIFEST, larger, pair[1])
    os.truncate(tmp_path / "sig", 1 << 40)  # a hole of a tebibyte
    with pytest.raises(SealError, match="is larger than 1048576 bytes"):
        check_signature(MANIFEST, tmp_path / "sig", pair[1])


def test_a_signature_that_is_not_there_or_no_plain_file_is_refused_at_once(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(SealError, match=r"the signature .* cannot be read: No such file"):
        check_signature(MANIFEST, tmp_path / "sig", pair[1])
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SealError, match="is not a file"):
            check_signature(MANIFEST, path, pair[1])
