"""`gateway seal-sign`: sign a sealed model's manifest. It needs nothing of typer: a parameter with a default is an option."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway import InvalidRequest, Secret


def seal_sign(
    directory: Path, *, private_key: Path | None = None, signature: Path | None = None, password: bool = False
) -> None:
    """Sign the sealed model in DIRECTORY and print where the signature is.

    --private-key is a PEM file that only its owner can read, with an elliptic key (P-256, P-384 or P-521); --password asks for
    its password. The signature is written to --signature, or else beside the manifest.
    """
    from gateway_seal.signing import sign

    if private_key is None:
        raise InvalidRequest("--private-key is missing: the PEM file to sign with", field="private_key")
    asked = None
    if password:
        from getpass import getpass

        try:
            asked = Secret(getpass("password of the private key: "))
        except EOFError:
            raise InvalidRequest("--password: no password was typed", field="password") from None
    sys.stdout.write(f"{sign(directory, private_key, signature=signature, password=asked)}\n")
