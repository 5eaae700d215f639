"""A model is signed: who may, what with, where the signature lies, and that the stock tool reads it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from gateway_seal import Pins, SealError, open_sealed, rotate, seal
from gateway_seal.manifest import MANIFEST_CAP_BYTES
from gateway_seal.signing import check_signature, sign
from signing_case import MANIFEST, keys, sealed

from gateway import ConfigError, Secret

README = Path(__file__).parents[1] / "README.md"


def stock(command: str, **values: Path) -> subprocess.CompletedProcess[str]:
    """The stock program, asked as a shell would."""
    words = [str(values.get(word, word)) for word in shlex.split(command)]
    assert words[0] == "model_signing"
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)


def test_a_signature_lies_beside_the_manifest_and_holds_for_its_bytes(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = sealed(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    written = sign(model, pair[0])
    assert written == model / "manifest.gws.sig"
    check_signature(MANIFEST, written, pair[1])
    check_signature(MANIFEST, written.read_bytes(), pair[1])
    assert {path.name: path.read_bytes() for path in model.iterdir() if path != written} == before


def test_a_signature_goes_where_the_caller_says_and_replaces_the_one_that_was_there(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    model, elsewhere = sealed(tmp_path / "model"), tmp_path / "big.sig"
    elsewhere.write_text("old")
    assert sign(model, pair[0], signature=elsewhere) == elsewhere
    check_signature(MANIFEST, elsewhere, pair[1])
    assert not (model / "manifest.gws.sig").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.sig", "model"]


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_keys_of_all_three_curves_sign_and_check(tmp_path: Path, curve: Callable[[], ec.EllipticCurve]) -> None:
    private, public = keys(tmp_path, "one", ec.generate_private_key(curve()))
    model = sealed(tmp_path / "model")
    check_signature(MANIFEST, sign(model, private), public)
    done = stock("model_signing verify key DIR --signature SIG --public_key PUB --ignore_unsigned_files",
                 DIR=model, SIG=model / "manifest.gws.sig", PUB=public)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_protected_key_signs_with_its_password_alone(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "one", password=b"p\xc3\xa4ss")
    model = sealed(tmp_path / "model")
    check_signature(MANIFEST, sign(model, private, password=Secret("päss")), public)
    for wrong in (None, Secret("other")):
        with pytest.raises(ConfigError, match="does not open with") as caught:
            sign(model, private, password=wrong)
        assert "other" not in str(caught.value)


def test_the_command_in_the_readme_verifies_a_signature_with_the_stock_tool(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    text = README.read_text().partition("\n## Signatures\n")[2].partition("\n## ")[0]
    [command] = re.findall(r"^(model_signing verify .*)$", text, re.MULTILINE)
    model = sealed(tmp_path / "model")
    sign(model, pair[0])
    command = command.replace("DIR", str(model)).replace("PUB", str(pair[1]))
    done = stock(command)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stdout + done.stderr
    (model / ("ab" * 16 + ".keys")).write_text("rotated")  # what is not signed may change
    assert stock(command).returncode == 0
    (model / "manifest.gws").write_bytes(MANIFEST + b"\0")
    done = stock(command)
    assert done.returncode == 1 and "Signature mismatch: ['Hash mismatch for" in done.stderr


def test_a_key_that_cannot_be_used_is_told_by_name(tmp_path: Path, signed: bytes) -> None:
    model = sealed(tmp_path / "model")
    bad = [
        keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048)),
        keys(tmp_path, "ed", ed25519.Ed25519PrivateKey.generate()),
        keys(tmp_path, "bitcoin", ec.generate_private_key(ec.SECP256K1())),
        keys(tmp_path, "swapped")[::-1],
        (tmp_path / "not.pem", tmp_path / "not.pub"),
    ]
    for path in bad[-1]:
        path.write_text("-----BEGIN")
    for private, public in bad:
        private.chmod(0o600)
        with pytest.raises(ConfigError, match=rf"private key '.*{private.name}' is no elliptic key of the curve P-256"):
            sign(model, private)
        with pytest.raises(ConfigError, match=rf"public key '.*{public.name}' is not the public half of an elliptic key"):
            check_signature(MANIFEST, signed, public)
    with pytest.raises(ConfigError, match=r"private key '.*none' cannot be read: No such file"):
        sign(model, tmp_path / "none")
    with pytest.raises(ConfigError, match=r"public key '.*none' cannot be read: No such file"):
        check_signature(MANIFEST, signed, tmp_path / "none")
    assert not (model / "manifest.gws.sig").exists()


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "one")
    private.chmod(0o640)
    with pytest.raises(ConfigError, match=r"one\.pem' can be read by others: chmod 600 it"):
        sign(sealed(tmp_path / "model"), private)


def test_only_a_sealed_model_is_signed(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(SealError, match=r"the manifest of a sealed model .* cannot be read: No such file"):
        sign(tmp_path, pair[0])
    for number, manifest in enumerate((b"", b"GWSEAL\0\2" + bytes(100), b"{}")):
        with pytest.raises(SealError, match="is not a sealed model"):
            sign(sealed(tmp_path / str(number), manifest), pair[0])
    huge = sealed(tmp_path / "huge")
    os.truncate(huge / "manifest.gws", MANIFEST_CAP_BYTES + 1)
    with pytest.raises(SealError, match="is larger than 16777216 bytes"):
        sign(huge, pair[0])


def test_a_signature_never_replaces_a_file_of_the_sealed_model(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = sealed(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for path in sorted(model.iterdir()):
        with pytest.raises(ConfigError, match="is the name of a sealed model's own file"):
            sign(model, pair[0], signature=path)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_signature_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = sealed(tmp_path / "model")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in it").touch()
    for place in (tmp_path / "folder", tmp_path / "nowhere" / "sig", tmp_path / ("x" * 300)):
        with pytest.raises(SealError, match="cannot be written: "):
            sign(model, pair[0], signature=place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model"]


def test_nothing_heavy_is_imported_before_a_signature_is_asked_for() -> None:
    program = (
        "import sys, gateway_seal.hooks, gateway_seal.signing; gateway_seal.hooks.gateway_commands({});"
        "print({'model_signing', 'sigstore', 'cryptography', 'OpenSSL', 'typer', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


QUIET = """
import sys
seen = []
def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & 3
    if writes or event in ("socket.connect", "socket.getaddrinfo", "os.mkdir", "subprocess.Popen"):
        seen.append((event, args))
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from pathlib import Path
from gateway_seal.signing import check_signature
check_signature(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), Path(sys.argv[3]))
print(seen)
"""


def test_a_check_asks_no_network_and_writes_no_file_and_says_nothing(
    tmp_path: Path, pair: tuple[Path, Path], signed: bytes
) -> None:
    (tmp_path / "manifest").write_bytes(MANIFEST)
    (tmp_path / "sig").write_bytes(signed)
    command = [sys.executable, "-W", "error", "-c", QUIET, tmp_path / "manifest", tmp_path / "sig", pair[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest", "sig"]


def test_a_model_opens_only_with_the_signature_that_is_asked_for(plain: Path, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = tmp_path / "sealed"
    seal(plain, model, key="env:SEAL_KEY")
    pins = Pins(public_key=pair[1])
    with pytest.raises(SealError, match=r"manifest\.gws\.sig.*cannot be read"):
        open_sealed(model, key="env:SEAL_KEY", pins=pins)
    sign(model, pair[0])
    rotate(model, key="env:SEAL_KEY", new="env:OTHER_KEY")  # the signature stays good
    open_sealed(model, key="env:OTHER_KEY", pins=pins).close()
    seal(plain, model, key="env:OTHER_KEY", replace=True)  # and goes with what it was of
    assert not (model / "manifest.gws.sig").exists()
    with pytest.raises(SealError, match=r"manifest\.gws\.sig.*cannot be read"):
        open_sealed(model, key="env:OTHER_KEY", pins=pins)
