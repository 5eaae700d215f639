"""A key pair, and a signature that it made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a private key and of its public half."""
    from signing_case import keys

    return keys(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory, pair: tuple[Path, Path]) -> bytes:
    """The signature of MANIFEST with it."""
    from gateway_seal.signing import sign
    from signing_case import sealed

    return sign(sealed(tmp_path_factory.mktemp("signed") / "model"), pair[0]).read_bytes()
