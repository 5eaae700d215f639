"""What the tests of sealing have in common: keys in the environment, and small models."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest

from gateway import FileStore, Keys

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys of 32 bytes, at env:SEAL_KEY and env:OTHER_KEY."""
    for name in ("SEAL_KEY", "OTHER_KEY"):
        monkeypatch.setenv(name, base64.b64encode(os.urandom(32)).decode())


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A model's directory of two shards, small files, and a folder."""
    path = tmp_path / "plain"
    with FileStore().create(str(path), Keys({})) as writer:
        writer.add_file("config.json", b'{"model_type": "tiny"}')
        writer.add_file("1_Pooling/config.json", b"{}")
        writer.add_file("empty.txt", b"")
        writer.add_tensors("model-1.safetensors", {"a": ("F32", (2, 3), bytes(range(24))), "s": ("I64", (), b"12345678")})
        writer.add_tensors(
            "model-2.safetensors", {"big": ("U8", (3_000_000,), os.urandom(3_000_000)), "none": ("F16", (0, 4), b"")}
        )
        weights = {"a": "model-1.safetensors", "s": "model-1.safetensors", "big": "model-2.safetensors"}
        index = str({"weight_map": weights | {"none": "model-2.safetensors"}}).replace("'", '"')
        writer.add_file("model.safetensors.index.json", index.encode())
    return path
